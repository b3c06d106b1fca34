"""What the samples can carry: the change of every row, its interval, and a verdict.

A sample is one capture where there are three or more a side; else one step, which is weaker
evidence, since captures of the same code differ from each other by more than their steps do; never
a single call. All rows of a comparison (scopes, groups, ops, kernels) are tested together, so that
``level`` is the share of comparisons of unchanged code in which any row is declared changed. The
tests themselves are those of ``stats``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf, isnan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from traceq import stats
from traceq.groups import Group, Groups
from traceq.model import Ints
from traceq.reading import Reading
from traceq.stats import Interval, Verdict

Floats = NDArray[np.float64]

LEVEL = 0.1
"""Share of comparisons of unchanged code in which any row may be declared changed: 5 % faster, 5 %
slower. Three captures a side, or five steps, can just carry it."""

BOUND = 0.01
"""A row is the same where its change is shown to be within this part of its time."""

CAPTURES = 3
"""From so many captures a side they are the samples."""

FLOOR_WIDTH = 12
"""Between one capture a side, a row must move by more than the drift of the unchanged code and so
many times its scale (1.4826 MAD of the rows' changes). Measured: in 24 comparisons of captures of
the same code no op lay farther than 9 scales from the drift."""

CPU, GPU = 0, 1


class Unit(StrEnum):
    """What a sample is."""

    CAPTURE = "capture"
    STEP = "step"
    NONE = "none"  # one capture a side, without steps that could be compared


class RowKey(NamedTuple):
    """A row of a comparison: ``table`` is scopes, ops, kernels, groups or kernel_groups."""

    table: str
    name: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What the samples say of one row.

    ``before`` and ``after`` are the medians of its time in a sample (ns) with their intervals,
    ``change`` the relative change (0.1: 10 % more), ``noise`` the spread of captures of one side
    (relative; None: not known), ``p`` adjusted for all rows (None: the samples cannot carry a
    test), ``needed`` about how many captures a side would settle it (None: settled, or not to be
    told), ``per_call`` the change of a call's time (ns; groups alone).
    """

    before: Interval
    after: Interval
    change: Interval
    noise: float | None
    p: float | None
    verdict: Verdict
    needed: int | None = None
    per_call: Interval | None = None


@dataclass(frozen=True)
class Evidence:
    """All findings, and what they rest on.

    ``samples`` are the numbers of samples before and after, ``noise`` the spread of captures of one
    side (relative; None: not known), by ``cpu`` and ``gpu``; ``drift`` is by how much the unchanged
    code moved between one capture a side and how far from that a row must be to be declared
    changed, as logs of ratios (empty where captures are the samples).
    """

    unit: Unit
    samples: tuple[int, int]
    level: float
    bound: float
    carries: bool
    noise: dict[str, float | None]
    drift: dict[str, tuple[float, float]]
    findings: Mapping[RowKey, Finding] = field(default_factory=dict)

    def of(self, table: str, name: str) -> Finding | None:
        """The finding of a row; None where there is none, as for ops of one side."""
        return self.findings.get(RowKey(table, name))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the findings: these stand with their rows."""
        return {
            "unit": str(self.unit),
            "samples": list(self.samples),
            "level": self.level,
            "bound": self.bound,
            "carries_test": self.carries,
            "noise": self.noise,
            "drift": {
                key: {"drift": drift, "width": None if width == inf else width}
                for key, (drift, width) in self.drift.items()
            },
        }


@dataclass(frozen=True)
class _Samples:
    """Times (ns) of rows by sample; ``kind`` is CPU or GPU, ``calls`` those of groups."""

    keys: tuple[RowKey, ...]
    kind: Ints
    before: Floats
    after: Floats
    calls: dict[RowKey, tuple[Floats, Floats]]


def weigh(
    before: Sequence[Reading],
    after: Sequence[Reading],
    groups: Groups,
    kernel_groups: Groups,
    *,
    level: float = LEVEL,
    bound: float = BOUND,
) -> Evidence:
    """Find what the captures of both sides say of every row that has time on both sides."""
    unit = choose_unit(before, after)
    samples = _collect(before, after, groups, kernel_groups, unit)
    if unit is Unit.CAPTURE:
        return _of_captures(samples, level, bound)
    return _of_steps(samples, unit, level, bound)


def choose_unit(before: Sequence[Reading], after: Sequence[Reading]) -> Unit:
    """Captures where there are enough a side; else steps, if all captures have as many."""
    if min(len(before), len(after)) >= CAPTURES:
        return Unit.CAPTURE
    steps = {item.steps for item in (*before, *after)}
    return Unit.STEP if len(steps) == 1 and steps != {0} else Unit.NONE


# Samples ----------------------------------------------------------------------------------


def _collect(
    before: Sequence[Reading],
    after: Sequence[Reading],
    groups: Groups,
    kernel_groups: Groups,
    unit: Unit,
) -> _Samples:
    """The rows that have time on both sides, in each sample or, by steps, in some."""
    sides = [_tables(side, unit) for side in (before, after)]
    rows = {key: (values, sides[1][key]) for key, values in sides[0].items() if key in sides[1]}
    calls = {}
    for table, found in (("groups", groups), ("kernel_groups", kernel_groups)):
        for number, group in enumerate(found.rows):
            key = RowKey(table, str(number))
            rows[key] = _of_group(group, "time", unit)
            calls[key] = _of_group(group, "calls", unit)
    rows = {key: both for key, both in rows.items() if _is_comparable(*both, unit)}
    keys = tuple(rows)
    is_gpu = [key.table in ("kernels", "kernel_groups") or key.name == "gpu" for key in keys]
    kind = np.array(is_gpu, np.int64)
    one, other = (np.array([rows[key][side] for key in keys], np.float64) for side in (0, 1))
    return _Samples(keys, kind, one, other, calls)


def _is_comparable(before: Floats, after: Floats, unit: Unit) -> bool:
    """Whether a ratio can be told: time in all samples, or in the same steps of both sides."""
    if unit is not Unit.STEP:
        return bool((before > 0).all() and (after > 0).all())
    return bool(((before > 0) == (after > 0)).all() and (before > 0).any())


def _tables(side: Sequence[Reading], unit: Unit) -> dict[RowKey, Floats]:
    """Times of scopes, ops and kernels by sample; a step's is the mean over the captures."""
    if unit is not Unit.STEP:
        rows = _stack([_totals(reading) for reading in side])
        return rows if unit is Unit.CAPTURE else {k: v.mean(keepdims=True) for k, v in rows.items()}
    steps = side[0].steps
    by_capture = []
    for reading in side:
        times = reading.by_step(steps)
        named = {RowKey(t, name): v for t in ("ops", "kernels") for name, v in times[t].items()}
        whole = {RowKey("scopes", name): times[name][""] for name in ("cpu", "gpu")}
        by_capture.append(whole | named)
    return {
        key: np.mean([item[key] for item in by_capture], axis=0)
        for key in by_capture[0]
        if all(key in item for item in by_capture)
    }


def _totals(reading: Reading) -> dict[RowKey, int]:
    totals = reading.totals
    found = {
        RowKey("scopes", "cpu"): totals.total,
        RowKey("scopes", "gpu"): totals.gpu_here.total,
    }
    for table, names in ((reading.ops, "op"), (reading.kernels, "kernel")):
        rows = zip(table[names].tolist(), table["total"].tolist(), strict=True)
        found |= {RowKey(f"{names}s", name): total for name, total in rows}
    return found


def _stack(captures: Sequence[Mapping[RowKey, int]]) -> dict[RowKey, Floats]:
    shared = [key for key in captures[0] if all(key in item for item in captures)]
    return {key: np.array([item[key] for item in captures], np.float64) for key in shared}


def _of_group(group: Group, name: str, unit: Unit) -> tuple[Floats, Floats]:
    sides = []
    for work in (group.before, group.after):
        values = np.array(work[name], np.float64)
        if unit is Unit.STEP:
            sides.append(values[:, :-1].mean(axis=0))
        else:
            sums = values.sum(axis=1)
            sides.append(sums if unit is Unit.CAPTURE else sums.mean(keepdims=True))
    return sides[0], sides[1]


# Captures ---------------------------------------------------------------------------------


def _of_captures(samples: _Samples, level: float, bound: float) -> Evidence:
    one, other = np.log(samples.before), np.log(samples.after)
    counts = (one.shape[1], other.shape[1])
    carries = stats.carries(level, *counts)
    p_values = stats.permuted_two(one, other, samples.kind) if carries and len(one) else None
    spread = stats.pooled_spread(one, other)
    findings = {}
    for row, key in enumerate(samples.keys):
        change = stats.shift_of_two(one[row], other[row], 1 - level)
        p = None if p_values is None else float(p_values[row])
        verdict = stats.judge(change, p, level=level, bound=bound, floor=0.0)
        needed = None
        if verdict is Verdict.UNCLEAR:
            spread_here = float(spread[row])
            needed = stats.captures_needed(change, spread_here, level=level, bound=bound)
            # So many as there are did not tell.
            needed = None if needed is None else max(needed, min(counts) + 1)
        per_call = _per_call_of_two(
            samples.calls.get(key), samples.before[row], samples.after[row], level
        )
        sides = _medians(samples.before[row], samples.after[row], level)
        noise_here = None if isnan(spread[row]) else float(spread[row])
        findings[key] = Finding(*sides, _relative(change), noise_here, p, verdict, needed, per_call)
    noise = {name: _noise(samples, spread, RowKey("scopes", name)) for name in ("cpu", "gpu")}
    return Evidence(Unit.CAPTURE, counts, level, bound, carries, noise, {}, findings)


def _medians(before: Floats, after: Floats, level: float) -> tuple[Interval, Interval]:
    return stats.median_interval(before, 1 - level), stats.median_interval(after, 1 - level)


def _noise(samples: _Samples, spread: Floats, key: RowKey) -> float | None:
    if key not in samples.keys:
        return None
    value = float(spread[samples.keys.index(key)])
    return None if isnan(value) else value  # no side has two captures


def _per_call_of_two(
    calls: tuple[Floats, Floats] | None, before: Floats, after: Floats, level: float
) -> Interval | None:
    """The change of a call's time, where there are as many calls before as after."""
    if calls is None or not calls[0].all() or set(calls[0]) != set(calls[1]):
        return None
    return stats.shift_of_two(before / calls[0], after / calls[1], 1 - level)


def _relative(change: Interval) -> Interval:
    """A log of a ratio as a relative change."""
    low, estimate, high = (float(np.expm1(x)) for x in (change.low, change.estimate, change.high))
    return Interval(estimate, low, high, change.confidence)


# Steps ------------------------------------------------------------------------------------


def _of_steps(samples: _Samples, unit: Unit, level: float, bound: float) -> Evidence:
    """Steps in pairs: the first before and the first after did the same work, and so on."""
    count = samples.before.shape[1] if len(samples.before) else 0
    some = (samples.before > 0) & (samples.after > 0)
    logs = np.zeros(samples.before.shape)
    logs[some] = np.log(samples.after[some] / samples.before[some])
    carries = unit is Unit.STEP and stats.smallest_p_pairs(count) <= level if count else False
    p_values = stats.permuted_pairs(logs, samples.kind) if carries else None
    changes = [stats.shift_of_pairs(row[at], 1 - level) for row, at in zip(logs, some, strict=True)]
    drift, width = _floors(samples, changes)
    needed = max(CAPTURES, stats.captures_to_carry(level))
    findings = {}
    for row, key in enumerate(samples.keys):
        p = None if p_values is None else float(p_values[row])
        kind = int(samples.kind[row])
        verdict = _judge_steps(changes[row], p, level, bound, drift[kind], width[kind], kind)
        per_call = _per_call_of_pairs(
            samples.calls.get(key), samples.before[row], samples.after[row], level
        )
        left = needed if verdict is Verdict.UNCLEAR else None
        sides = _medians(samples.before[row][some[row]], samples.after[row][some[row]], level)
        findings[key] = Finding(*sides, _relative(changes[row]), None, p, verdict, left, per_call)
    floors = {"cpu": (drift[CPU], width[CPU]), "gpu": (drift[GPU], width[GPU])}
    unknown: dict[str, float | None] = {"cpu": None, "gpu": None}
    return Evidence(unit, (count, count), level, bound, carries, unknown, floors, findings)


def _floors(samples: _Samples, changes: Sequence[Interval]) -> tuple[list[float], list[float]]:
    """Of CPU and of GPU rows: the drift of the unchanged code, and how far rows stray from it."""
    drifts, widths = [], []
    for table in ("ops", "kernels"):
        rows = zip(samples.keys, changes, strict=True)
        moved = np.array([change.estimate for key, change in rows if key.table == table])
        drift, scale = stats.spread_of_rows(moved)
        drifts.append(drift)
        widths.append(FLOOR_WIDTH * scale)
    return drifts, widths


def _judge_steps(
    change: Interval,
    p: float | None,
    level: float,
    bound: float,
    drift: float,
    width: float,
    kind: int,
) -> Verdict:
    """A row must have moved against the drift, or by more than it, and by more than the width.

    The GPU's time may be shown to be the same by one capture a side; the CPU's is never known to.
    """
    found = stats.judge(change, p, level=level, bound=bound, floor=abs(drift))
    if found is Verdict.SAME:
        return found if kind == GPU else Verdict.UNCLEAR
    beyond = max(change.estimate - max(drift, 0), min(drift, 0) - change.estimate)
    return found if beyond > width else Verdict.UNCLEAR


def _per_call_of_pairs(
    calls: tuple[Floats, Floats] | None, before: Floats, after: Floats, level: float
) -> Interval | None:
    if calls is None or not calls[0].any() or (calls[0] != calls[1]).any():
        return None
    some = calls[0] > 0
    change = after[some] / calls[1][some] - before[some] / calls[0][some]
    return stats.shift_of_pairs(change, 1 - level)


def declared(findings: Iterable[Finding]) -> list[Finding]:
    """Those that are declared changed."""
    return [item for item in findings if item.verdict in (Verdict.FASTER, Verdict.SLOWER)]
