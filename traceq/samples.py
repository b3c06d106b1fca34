"""Collects the samples of a comparison: the times of each of its rows, by capture or by step.

A row is all scopes together, an op, a kernel, a group, or what is asked for besides. What the
samples say is found in ``evidence``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from traceq.groups import Group, Groups
from traceq.model import Bools, Ints
from traceq.reading import Reading

Floats = NDArray[np.float64]

Sides = tuple[Floats, Floats]
"""Before and after."""

CAPTURES = 3
"""From so many captures a side they are the samples."""

SMALL = 0.001
"""Ops and kernels of less than this part of the scopes' time, over all samples, are not tested:
each takes from the power for the others, and what is so short is mostly the profiler's jitter."""

CPU, GPU = 0, 1


class Unit(StrEnum):
    """What a sample is."""

    CAPTURE = "capture"
    STEP = "step"
    NONE = "none"  # one capture a side, without steps that could be compared


class RowKey(NamedTuple):
    """A row of a comparison: ``table`` is scopes, ops, kernels, groups or kernel_groups.

    What is asked for besides is in ``maps`` and ``conditions``.
    """

    table: str
    name: str


@dataclass(frozen=True, slots=True)
class Asked:
    """Several ops (or, of ``kind`` GPU, kernels) that are asked for as one row."""

    key: RowKey
    kind: int
    names: frozenset[str]

    def by_step(self, capture: Reading) -> Ints:
        """Their time (ns) in a capture by step, and last outside of steps."""
        return (capture.kernel_time if self.kind == GPU else capture.op_time)(self.names)

    def time(self, capture: Reading) -> int:
        """Their time (ns) in a capture."""
        return int(self.by_step(capture).sum())


@dataclass(frozen=True)
class Samples:
    """Times (ns) of rows by sample; ``kind`` is CPU or GPU, ``calls`` those of groups.

    ``is_tested`` marks the rows that are not too small for that.
    """

    keys: tuple[RowKey, ...]
    kind: Ints
    before: Floats
    after: Floats
    calls: dict[RowKey, Sides]
    is_tested: Bools

    def of_kind(self, kind: int) -> Bools:
        """Marks the ops, or the kernels, that are tested: rows that tell how a capture drifts."""
        tables = np.array([key.table in ("ops", "kernels") for key in self.keys], np.bool_)
        return np.asarray(tables & (self.kind == kind) & self.is_tested, np.bool_)


def choose_unit(before: Sequence[Reading], after: Sequence[Reading]) -> Unit:
    """Captures where there are enough a side; else steps, if all captures have as many."""
    if min(len(before), len(after)) >= CAPTURES:
        return Unit.CAPTURE
    steps = {item.steps for item in (*before, *after)}
    return Unit.STEP if len(steps) == 1 and steps != {0} else Unit.NONE


def collect(
    before: Sequence[Reading],
    after: Sequence[Reading],
    groups: Groups,
    kernel_groups: Groups,
    asked: Sequence[Asked],
    unit: Unit,
) -> Samples:
    """The rows that have time on both sides, in each sample or, by steps, in some."""
    sides = [_tables(side, unit) for side in (before, after)]
    rows = {key: (values, sides[1][key]) for key, values in sides[0].items() if key in sides[1]}
    rows |= _of_asked(asked, before, after, unit)
    calls = {}
    for table, found in (("groups", groups), ("kernel_groups", kernel_groups)):
        for number, group in enumerate(found.rows):
            key = RowKey(table, str(number))
            rows[key] = _of_group(group, "time", unit)
            calls[key] = _of_group(group, "calls", unit)
    rows = {key: both for key, both in rows.items() if _is_comparable(*both, unit)}
    keys = tuple(rows)
    kinds = {row.key: row.kind for row in asked}
    kind = np.array([kinds.get(key, _kind_of(key)) for key in keys], np.int64)
    sizes = _sizes(before, after, unit)
    one, other = (
        np.array([rows[key][side] for key in keys], np.float64).reshape(len(keys), sizes[side])
        for side in (0, 1)
    )
    return Samples(keys, kind, one, other, calls, _is_large(keys, kind, one, other))


def _sizes(before: Sequence[Reading], after: Sequence[Reading], unit: Unit) -> tuple[int, int]:
    """How many samples there are on each side."""
    if unit is Unit.CAPTURE:
        return len(before), len(after)
    return (before[0].steps, after[0].steps) if unit is Unit.STEP else (1, 1)


def _is_large(keys: Sequence[RowKey], kind: Ints, before: Floats, after: Floats) -> Bools:
    """Marks all rows but the ops and kernels that have next to no part of the scopes' time."""
    found = np.array([key.table not in ("ops", "kernels") for key in keys], np.bool_)
    if not len(keys):
        return found
    time = before.sum(axis=1) + after.sum(axis=1)
    for number, name in ((CPU, "cpu"), (GPU, "gpu")):
        if (whole := RowKey("scopes", name)) in keys:
            found |= (kind == number) & (time >= SMALL * time[keys.index(whole)])
        else:
            found |= kind == number
    return found


def _kind_of(key: RowKey) -> int:
    is_gpu = key.table in ("kernels", "kernel_groups") or key == RowKey("scopes", "gpu")
    return GPU if is_gpu else CPU


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


def _of_group(group: Group, name: str, unit: Unit) -> Sides:
    return _by_sample(group.before[name], unit), _by_sample(group.after[name], unit)


def _of_asked(
    asked: Sequence[Asked], before: Sequence[Reading], after: Sequence[Reading], unit: Unit
) -> dict[RowKey, Sides]:
    """Times of what is asked for by sample."""
    found = {}
    for row in asked:
        one, other = ([row.by_step(item) for item in side] for side in (before, after))
        if unit is not Unit.STEP:  # captures may have other numbers of steps
            one, other = ([values.sum(keepdims=True) for values in side] for side in (one, other))
        found[row.key] = _by_sample(one, unit), _by_sample(other, unit)
    return found


def _by_sample(captures: Sequence[Ints], unit: Unit) -> Floats:
    """Sums by capture, or means over captures by step, of times by step and last outside."""
    values = np.array(captures, np.float64)
    if unit is Unit.STEP:
        return np.asarray(values[:, :-1].mean(axis=0), np.float64)
    sums = values.sum(axis=1)
    return np.asarray(sums if unit is Unit.CAPTURE else sums.mean(keepdims=True), np.float64)
