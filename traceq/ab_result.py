"""The captures of ``traceq capture ab``, read: their totals and ranges, and the pair to look at.

Nothing here tests whether a difference is real: ranges that overlap are said to, and no more. The
warnings tell what else speaks against a difference: few captures, unequal work or conditions.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import comb
from typing import Any

from traceq import units
from traceq.capturing.ab import SIDES
from traceq.compare import Diff
from traceq.conditions import GPU, RANKS, conditions, counted, distinct, notes
from traceq.info import TraceInfo
from traceq.kernels import GpuWork
from traceq.outline import NO_CPU
from traceq.reading import ScopeTotals, scope_totals
from traceq.trace import Trace

SCHEMA_VERSION = 2
"""Version of :meth:`AbResult.to_dict`; raised when a key changes its meaning or goes away."""

FEW = 4
"""Below this many captures a side, it is said how often ranges lie apart by chance alone."""

WIDE = 0.5
"""Captures of one command that differ by more than this part of their median were disturbed."""

_MOST_RUNS, _MOST_NOTES = 6, 10


@dataclass(frozen=True, slots=True)
class Sample:
    """One capture: ``name`` is ``a-0``, ``calls`` those of all CPU ops under the scope.

    ``conditions`` (by what they are called) and ``notes`` are from the record of the capture;
    ``has_record`` tells whether there is one.
    """

    name: str
    side: str
    path: str
    totals: ScopeTotals
    calls: int
    doubts: tuple[str, ...] = ()
    conditions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    has_record: bool = False

    @property
    def cpu(self) -> int:
        """CPU time (ns) of the scopes, or of the whole trace."""
        return self.totals.total

    @property
    def gpu(self) -> GpuWork:
        """GPU work of the scopes; of the whole trace also what no launch in it explains."""
        return self.totals.gpu_here

    def time(self, measure: str) -> int:
        """Time (ns) by ``cpu`` or ``gpu``."""
        return self.gpu.total if measure == "gpu" else self.cpu


@dataclass(frozen=True, slots=True)
class Range:
    """The least, the median and the largest of a side's times (ns)."""

    min: int
    median: int
    max: int

    def overlaps(self, other: Range) -> bool:
        """Whether any time could be of either side."""
        return self.min <= other.max and other.min <= self.max

    @property
    def spread(self) -> float | None:
        """Largest less least, as a part of the median; None where that is nothing."""
        return (self.max - self.min) / self.median if self.median else None


@dataclass(frozen=True)
class AbResult:
    """A series of captures, read: ``samples`` in the order in which they were made.

    ``diff`` compares all captures, or is None where that was not wanted.
    """

    folder: str
    commands: dict[str, str]
    is_same_command: bool
    under: tuple[str, ...]
    samples: tuple[Sample, ...]
    diff: Diff | None = None

    def of(self, side: str) -> tuple[Sample, ...]:
        """The captures of one side."""
        return tuple(sample for sample in self.samples if sample.side == side)

    @property
    def measures(self) -> tuple[str, ...]:
        """``cpu``, and ``gpu`` where a GPU ran anything."""
        return ("cpu", "gpu") if any(item.gpu.activities for item in self.samples) else ("cpu",)

    @property
    def pair(self) -> tuple[Sample, Sample]:
        """Of each side the capture with its median time: GPU time where there is any."""
        one, other = (_median(self.of(side), self.measures[-1]) for side in SIDES)
        return one, other

    def range(self, side: str, measure: str) -> Range:
        """The range of a side's times by a measure."""
        times = [item.time(measure) for item in self.of(side)]
        return Range(min(times), statistics.median_low(times), max(times))

    def overlap(self, measure: str) -> bool | None:
        """Whether the sides' ranges overlap; None where one capture a side tells of no range."""
        if min(len(self.of(side)) for side in SIDES) < 2:
            return None
        return self.range("a", measure).overlaps(self.range("b", measure))

    @property
    def chances(self) -> int | None:
        """In 1 of so many comparisons the ranges lie apart by chance alone; None where rarely."""
        count = min(len(self.of(side)) for side in SIDES)
        return comb(2 * count, count) // 2 if 1 < count < FEW else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before believing a number."""
        return tuple(_warnings(self))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, versioned by ``schema``; times in ns."""
        one, other = self.pair
        return {
            "schema": SCHEMA_VERSION,
            "kind": "ab",
            "folder": self.folder,
            "under": list(self.under),
            "commands": self.commands,
            "same_command": self.is_same_command,
            "runs": [_sample_dict(item) for item in self.samples],
            "ranges": {
                side: {measure: asdict(self.range(side, measure)) for measure in self.measures}
                for side in SIDES
            },
            "overlap": {measure: self.overlap(measure) for measure in self.measures},
            "median_by": self.measures[-1],
            "median": {"a": one.name, "b": other.name},
            "warnings": list(self.warnings),
            "diff": None if self.diff is None else self.diff.to_dict(),
        }


def read_sample(name: str, trace: Trace, under: tuple[str, ...]) -> Sample:
    """The totals of one open capture. Raises PatternError where ``under`` matches nothing."""
    ops = trace.ops(under=under)
    calls = int(ops.loc[~ops["category"].isin(NO_CPU), "calls"].sum())
    record = trace.info.capture
    return Sample(
        name,
        side=name[0],
        path=trace.path,
        totals=scope_totals(trace, under, ops),
        calls=calls,
        doubts=tuple(trace.doubts()),
        conditions=_conditions(trace.info),
        notes=notes(record),
        has_record=bool(record),
    )


def _conditions(info: TraceInfo) -> dict[str, str]:
    """What the record tells; of GPUs and ranks, where it does not, what the profiler wrote."""
    found = conditions(info.capture)
    if info.gpus:
        found.setdefault(GPU, units.printable(counted(info.gpus)))
    if info.world_size is not None:
        found.setdefault(RANKS, str(info.world_size))
    return found


def _median(samples: Sequence[Sample], measure: str) -> Sample:
    in_order = sorted(samples, key=lambda sample: sample.time(measure))
    return in_order[(len(in_order) - 1) // 2]


def _sample_dict(sample: Sample) -> dict[str, Any]:
    return {
        "run": sample.name,
        "side": sample.side,
        "path": sample.path,
        "scopes": sample.totals.scopes,
        "calls": sample.calls,
        "cpu_total": sample.cpu,
        "gpu_total": sample.gpu.total,
        "activities": sample.gpu.activities,
        "conditions": dict(sample.conditions),
    }


def _warnings(result: AbResult) -> Iterator[str]:
    count = min(len(result.of(side)) for side in SIDES)
    if result.is_same_command:
        yield "Both commands are the same: this is an A/A, so a difference does not come from them."
    if count == 1:
        yield "One capture a side: times cannot be told from noise. Use --repeat 5 or more."
    elif result.chances and result.diff is None:  # which tests instead
        yield (
            f"With {count} captures a side, ranges lie apart by chance alone in 1 of "
            f"{result.chances} "
            "comparisons. Use --repeat 5 or more."
        )
    yield from _unequal(result) if result.diff is None else ()  # whose comparability tells
    for side in SIDES:
        yield from _uneven(side, result.of(side))
        yield from _wide(side, result)
    for sample in result.samples:
        yield from (f"{sample.path}: {text}" for text in sample.doubts)
    yield from _noted(result)


def _unequal(result: AbResult) -> Iterator[str]:
    """Conditions that were not the same for all captures, each in one sentence."""
    for name in dict.fromkeys(key for item in result.samples for key in item.conditions):
        runs: dict[str, list[str]] = {}
        for item in result.samples:
            if name in item.conditions:
                runs.setdefault(item.conditions[name], []).append(item.name)
        if len(runs) > 1:
            told = zip(distinct(list(runs)), runs.values(), strict=True)
            values = ", ".join(f"{value} ({_who(names, result)})" for value, names in told)
            yield f"The captures differ in {name}: {values}."
    without = [item.name for item in result.samples if not item.has_record]
    if 0 < len(without) < len(result.samples):
        yield (
            f"No record of the conditions of {_who(without, result)}: whether they were those of "
            "the other captures is not known."
        )


def _who(names: Collection[str], result: AbResult) -> str:
    """Runs by their names; all of a side by its letter."""
    words: list[str] = []
    for side in SIDES:
        own = [item.name for item in result.of(side)]
        chosen = [name for name in own if name in names]
        words += [side] if chosen and chosen == own else chosen
    more = len(words) - _MOST_RUNS
    return ", ".join([*words[:_MOST_RUNS], *([f"{more} more"] if more > 0 else [])])


def _noted(result: AbResult) -> Iterator[str]:
    """What the captures themselves had to say, each note once."""
    runs: dict[str, list[str]] = {}
    for item in result.samples:
        for text in item.notes:
            runs.setdefault(text, []).append(item.name)
    for text, names in list(runs.items())[:_MOST_NOTES]:
        yield f"Noted in the record of {_who(names, result)}: {text}"
    if len(runs) > _MOST_NOTES:
        yield f"{len(runs) - _MOST_NOTES} more notes: 'traceq info' shows those of a capture."


def _uneven(side: str, samples: Sequence[Sample]) -> Iterator[str]:
    """Captures of one command that did not do the same work, or did it but once."""
    if len(samples) > 1 and len({(item.cpu, item.gpu.total) for item in samples}) == 1:
        yield (
            f"All captures of {side} have the same times to the nanosecond: they look like copies "
            "of one trace, not like captures of their own."
        )
    counts = {
        "scopes": [item.totals.scopes for item in samples],
        "GPU activities": [item.gpu.activities for item in samples],
    }
    for noun, numbers in counts.items():
        if min(numbers) != max(numbers):
            yield (
                f"The captures of {side} differ in their {noun} ({min(numbers):,} to "
                f"{max(numbers):,}): their totals hold different amounts of work."
            )


def _wide(side: str, result: AbResult) -> Iterator[str]:
    for measure in result.measures:
        spread = result.range(side, measure).spread
        if spread is not None and spread > WIDE:
            yield (
                f"{measure.upper()} times of {side} differ by {units.percent(spread)} of their "
                "median: is the machine busy, or the window short?"
            )
