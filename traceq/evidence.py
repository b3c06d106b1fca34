"""What the samples can carry: the change of every row, its interval, and a verdict.

A sample is one capture where there are three or more a side; else one step, which is weaker
evidence, since captures of the same code differ from each other by more than their steps do; never
a single call. All rows of a comparison (scopes, groups, ops, kernels) are tested together, so that
``level`` is the share of comparisons of unchanged code in which any row is declared changed. The
tests themselves are those of ``stats``. Between captures, a row is tested as it is, and once more
without the drift that its capture's rows have in common: on a CPU it is most of their noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf, isnan
from typing import Any, NamedTuple

import numpy as np

from traceq import stats
from traceq.groups import Groups
from traceq.model import Bools
from traceq.reading import Reading
from traceq.samples import (
    CAPTURES,
    CPU,
    GPU,
    Asked,
    Floats,
    RowKey,
    Samples,
    Sides,
    Unit,
    choose_unit,
    collect,
)
from traceq.stats import Interval, Verdict

LEVEL = 0.1
"""Share of comparisons of unchanged code in which any row may be declared changed: 5 % faster, 5 %
slower. Three captures a side, or five steps, can just carry it."""

BOUND = 0.01
"""A row is the same where its change is shown to be within this part of its time."""

FREE_WIDTH = 5
"""A change that shows only without the drift must be so many times the scale of the rows' changes
(1.4826 MAD) without it. In simulations of 40 rows of which 10 to 70 % changed by 10 or 30 %, at the
level 0.1, an unchanged row was declared in at most 7 % of comparisons, and without this in up to
79 % (tests/test_evidence.py)."""

FLOOR_WIDTH = 12
"""Between one capture a side, a row must move by more than the drift of the unchanged code and so
many times its scale (1.4826 MAD of the rows' changes). Measured: in 24 comparisons of captures of
the same code no op lay farther than 9 scales from the drift."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the samples say of one row.

    ``before`` and ``after`` are the medians of its time in a sample (ns) with their intervals,
    ``change`` the relative change (0.1: 10 % more), ``noise`` the spread of captures of one side
    (relative; None: not known), ``p`` adjusted for all rows (None: the samples cannot carry a
    test, or the row is too small for one), ``needed`` about how many captures a side would settle
    it (None: settled, or not to be told), ``per_call`` the change of a call's time (ns; groups
    alone), ``drift_free`` the relative change without what is common to the rows of a capture
    (None: captures are not the samples, or do not tell), ``by_drift_free`` whether that alone tells
    of a change, and not the times as they are, ``delta`` the change in ns a capture (None as well).
    """

    before: Interval
    after: Interval
    change: Interval
    noise: float | None
    p: float | None
    verdict: Verdict
    needed: int | None = None
    per_call: Interval | None = None
    drift_free: Interval | None = None
    by_drift_free: bool = False
    delta: Interval | None = None


@dataclass(frozen=True)
class Evidence:
    """All findings, and what they rest on.

    ``samples`` are the numbers of samples before and after, ``noise`` the spread of captures of one
    side (relative; None: not known), by ``cpu`` and ``gpu``; ``drift`` is by how much the unchanged
    code moved between one capture a side and how far from that a row must be to be declared
    changed, as logs of ratios (empty where captures are the samples); ``outside`` is the part of
    the CPU time that is in no step and so in no sample, at most in any capture, ``has_several``
    whether a step is the mean of several captures.
    """

    unit: Unit
    samples: tuple[int, int]
    level: float
    bound: float
    carries: bool
    noise: dict[str, float | None]
    drift: dict[str, tuple[float, float]]
    findings: Mapping[RowKey, Finding] = field(default_factory=dict)
    outside: float = 0.0
    has_several: bool = False

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
            "outside": self.outside,
            "noise": self.noise,
            "drift": {
                key: {"drift": drift, "width": None if width == inf else width}
                for key, (drift, width) in self.drift.items()
            },
        }


def weigh(
    before: Sequence[Reading],
    after: Sequence[Reading],
    groups: Groups,
    kernel_groups: Groups,
    *,
    asked: Sequence[Asked] = (),
    level: float = LEVEL,
    bound: float = BOUND,
) -> Evidence:
    """Find what the captures of both sides say of every row that has time on both sides."""
    unit = choose_unit(before, after)
    samples = collect(before, after, groups, kernel_groups, asked, unit)
    if unit is Unit.CAPTURE:
        return _of_captures(samples, level, bound)
    outside = max(map(_outside, (*before, *after))) if unit is Unit.STEP else 0.0
    found = _of_steps(samples, unit, level, bound)
    has_several = max(len(before), len(after)) > 1
    return replace(found, outside=outside, has_several=has_several)


def _outside(capture: Reading) -> float:
    """The part of the scopes' CPU time that is in no step."""
    times = capture.scope_time(capture.steps)
    return int(times[-1]) / max(int(times.sum()), 1)


# Captures ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Captures:
    """Samples that are captures, as logs: as they are, and ``free`` of the drift of each.

    ``may_be_free`` marks the rows that are tested without the drift as well; ``scale`` is by how
    much (as a log of a ratio) the rows of each kind spread then.
    """

    samples: Samples
    rows: Sides
    free: Sides
    may_be_free: Bools
    scale: tuple[float, float]
    level: float
    bound: float

    @classmethod
    def of(cls, samples: Samples, level: float, bound: float) -> _Captures:
        one, other = np.log(samples.before), np.log(samples.after)
        free = one.copy(), other.copy()
        may_be_free = np.zeros(len(samples.keys), np.bool_)
        scale = [0.0, 0.0]
        is_scope = np.array([key.table == "scopes" for key in samples.keys], np.bool_)
        for kind in (CPU, GPU):
            source = samples.of_kind(kind)
            if np.count_nonzero(source) < stats.FEWEST_ROWS:
                continue
            drift = stats.drift_of(one[source], other[source])
            if not stats.do_overlap(*drift):  # it may be a change of most of the code
                continue
            of_kind = samples.kind == kind
            free[0][of_kind] -= drift[0]
            free[1][of_kind] -= drift[1]
            moved = free[1][source].mean(axis=1) - free[0][source].mean(axis=1)
            scale[kind] = stats.spread_of_rows(moved)[1]
            may_be_free |= of_kind & samples.is_tested & ~is_scope
        return cls(samples, (one, other), free, may_be_free, (scale[0], scale[1]), level, bound)

    @property
    def counts(self) -> tuple[int, int]:
        return self.rows[0].shape[1], self.rows[1].shape[1]

    @cached_property
    def spreads(self) -> list[Floats]:
        """The spread of captures of one side, of either kind of rows."""
        return [stats.pooled_spread(*sides) for sides in (self.rows, self.free)]

    @property
    def p_values(self) -> list[_Tested]:
        """The p of each row as it is and without the drift, each adjusted for all of these."""
        chosen = np.flatnonzero(self.samples.is_tested), np.flatnonzero(self.may_be_free)
        one, other = (
            np.concatenate([as_is[chosen[0]], free[chosen[1]]])
            for as_is, free in zip(self.rows, self.free, strict=True)
        )
        # s0 is that of the rows of one kind: those without the drift are two kinds more.
        kind = [self.samples.kind[chosen[0]], self.samples.kind[chosen[1]] + GPU + 1]
        found = stats.permuted_two(one, other, np.concatenate(kind))
        rows = [_Tested() for _ in self.samples.keys]
        if found is None:
            return rows
        as_is, free = np.split(found, [len(chosen[0])])
        for row, p in zip(chosen[0].tolist(), as_is.tolist(), strict=True):
            rows[row] = _Tested(p)
        for row, p in zip(chosen[1].tolist(), free.tolist(), strict=True):
            rows[row] = _Tested(rows[row].p, p)
        return rows

    def shift(self, sides: Sides, row: int) -> Interval:
        return stats.shift_of_two(sides[0][row], sides[1][row], 1 - self.level)

    def finding(self, row: int, tested: _Tested) -> Finding:
        """What is found of a row, from its p as it is and without the drift."""
        key, level, bound = self.samples.keys[row], self.level, self.bound
        change, free = self.shift(self.rows, row), self.shift(self.free, row)
        by_free = self._is_told_by_free(row, tested, change, free)
        p = tested.free if by_free else tested.p
        verdict = stats.judge(change, p, level=level, bound=bound, floor=0.0)
        before, after = self.samples.before[row], self.samples.after[row]
        noise = float(self.spreads[0][row])
        is_open = verdict is Verdict.UNCLEAR and self.samples.is_tested[row]
        return Finding(
            *_medians(before, after, level),
            _relative(change),
            noise=None if isnan(noise) else noise,
            p=p,
            verdict=verdict,
            needed=self._needed(row, change, free) if is_open else None,
            per_call=_per_call_of_two(self.samples.calls.get(key), before, after, level),
            drift_free=_relative(free) if self.may_be_free[row] else None,
            by_drift_free=by_free and verdict.is_change,
            delta=stats.shift_of_two(before, after, 1 - level),
        )

    def _is_told_by_free(self, row: int, tested: _Tested, change: Interval, free: Interval) -> bool:
        """Whether the test without the drift alone tells that a row changed.

        It counts where the row itself moved the same way, beyond the bound, and where it lies
        outside of what the other rows do: rows that changed shift the drift, and so all others.
        """
        if tested.p is None or tested.free is None or tested.p <= min(tested.free, self.level):
            return False
        same_way = change.estimate * free.estimate > 0
        scale = self.scale[int(self.samples.kind[row])]
        is_apart = abs(free.estimate) > FREE_WIDTH * scale
        return same_way and is_apart and abs(np.expm1(change.estimate)) > self.bound

    def _needed(self, row: int, change: Interval, free: Interval) -> int | None:
        """How many captures would tell, by the row as it is or without the drift: the fewer."""
        kinds = [(change, self.spreads[0])]
        kinds += [(free, self.spreads[1])] if self.may_be_free[row] else []
        guesses = [
            stats.captures_needed(item, float(spread[row]), level=self.level, bound=self.bound)
            for item, spread in kinds
        ]
        known = [guess for guess in guesses if guess is not None]
        # So many as there are did not tell.
        return max(min(known), min(self.counts) + 1) if known else None


class _Tested(NamedTuple):
    """The adjusted p of a row as it is, and without the drift; None where it was not tested."""

    p: float | None = None
    free: float | None = None


def _of_captures(samples: Samples, level: float, bound: float) -> Evidence:
    found = _Captures.of(samples, level, bound)
    carries = stats.carries(level, *found.counts)
    tested = found.p_values if carries else [_Tested() for _ in samples.keys]
    findings = {key: found.finding(row, tested[row]) for row, key in enumerate(samples.keys)}
    noise = {
        name: _noise(samples, found.spreads[0], RowKey("scopes", name)) for name in ("cpu", "gpu")
    }
    return Evidence(Unit.CAPTURE, found.counts, level, bound, carries, noise, {}, findings)


def _medians(before: Floats, after: Floats, level: float) -> tuple[Interval, Interval]:
    return stats.median_interval(before, 1 - level), stats.median_interval(after, 1 - level)


def _noise(samples: Samples, spread: Floats, key: RowKey) -> float | None:
    if key not in samples.keys:
        return None
    value = float(spread[samples.keys.index(key)])
    return None if isnan(value) else _sure_digits(value)  # no side has two captures


def _per_call_of_two(
    calls: tuple[Floats, Floats] | None, before: Floats, after: Floats, level: float
) -> Interval | None:
    """The change of a call's time, where there are as many calls before as after."""
    if calls is None or not calls[0].all() or set(calls[0]) != set(calls[1]):
        return None
    return stats.shift_of_two(before / calls[0], after / calls[1], 1 - level)


def _relative(change: Interval) -> Interval:
    """A log of a ratio as a relative change."""
    low, estimate, high = (
        _sure_digits(np.expm1(x)) for x in (change.low, change.estimate, change.high)
    )
    return Interval(estimate, low, high, change.confidence)


def _sure_digits(value: float) -> float:
    """The digits that are the same on every machine: logarithms differ in the last by processor."""
    return float(f"{value:.10g}")


# Steps ------------------------------------------------------------------------------------


def _of_steps(samples: Samples, unit: Unit, level: float, bound: float) -> Evidence:
    """Steps in pairs: the first before and the first after did the same work, and so on."""
    count = samples.before.shape[1]
    some = (samples.before > 0) & (samples.after > 0)
    logs = np.zeros(samples.before.shape)
    logs[some] = np.log(samples.after[some] / samples.before[some])
    carries = unit is Unit.STEP and stats.smallest_p_pairs(count) <= level if count else False
    large = samples.is_tested
    p_values: list[float | None] = [None] * len(large)
    if carries and (found := stats.permuted_pairs(logs[large], samples.kind[large])) is not None:
        for row, p in zip(np.flatnonzero(large).tolist(), found.tolist(), strict=True):
            p_values[row] = p
    changes = [stats.shift_of_pairs(row[at], 1 - level) for row, at in zip(logs, some, strict=True)]
    drift, width = _floors(samples, changes)
    needed = max(CAPTURES, stats.captures_to_carry(level))
    findings = {}
    for row, key in enumerate(samples.keys):
        p, kind = p_values[row], int(samples.kind[row])
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


def _floors(samples: Samples, changes: Sequence[Interval]) -> tuple[list[float], list[float]]:
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
