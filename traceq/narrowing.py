"""Chooses by an overview what of a trace to read, so that a part can be cut out of that.

A little more than the part is kept, told by times alone, without laying the trace out: on each
track what overlaps a slice that is selected, or the place of one that is needed elsewhere. What
``cutting`` makes of it is what it says there. Slices as rows in, marks of rows out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from traceq.categories import GPU_WORK, RUNTIME
from traceq.joins import NUMBERS_BACK, slice_table
from traceq.layout import arrange
from traceq.limits import Limits
from traceq.model import Bools, Ints
from traceq.names import matching_names
from traceq.overview import Overview
from traceq.scopes import FORWARD, MODULE
from traceq.selection import GPU_LABEL, Nested, Patterns, Windows
from traceq.steps import PROFILER_STEP


@dataclass(frozen=True, slots=True)
class Narrowed:
    """The slices, and the ends of arrows, that a part is cut out of; by row."""

    slices: Bools
    flows: Bools


def narrow(overview: Overview, limits: Limits) -> Narrowed:
    """What to read for a part. Raises PatternError and UsageError where there is no such part."""
    if not len(overview):
        return Narrowed(np.zeros(0, np.bool_), np.ones(len(overview.flows), np.bool_))
    return _Narrowing(overview, limits).narrowed()


# Spans of tracks ----------------------------------------------------------------------------


@dataclass(slots=True)
class _Spans:
    """Closed spans of time on tracks; ``overlap`` marks the slices that share a time with one."""

    overview: Overview
    track: list[Ints] = field(default_factory=list)
    start: list[Ints] = field(default_factory=list)
    end: list[Ints] = field(default_factory=list)

    def add_slices(self, rows: Ints) -> None:
        """Add the slices themselves."""
        ts = self.overview.ts[rows]
        self.add(self.overview.track[self.overview.kind[rows]], ts, ts + self.overview.dur[rows])

    def add_starts(self, rows: Ints) -> None:
        """Add the places where slices begin: what is around them is there as well."""
        ts = self.overview.ts[rows]
        self.add(self.overview.track[self.overview.kind[rows]], ts, ts)

    def add(self, track: Ints, start: Ints, end: Ints) -> None:
        """Add spans."""
        self.track.append(track)
        self.start.append(start)
        self.end.append(end)

    def overlap(self) -> Bools:
        """Marks the slices that share a time with a span."""
        found = np.zeros(len(self.overview), np.bool_)
        merged = self._merged()
        for track, rows in _rows_by_track(self.overview, merged):
            ts = self.overview.ts[rows]
            found[rows] = _meet(*merged[track], ts, ts + self.overview.dur[rows])
        return found

    def meet(self, track: Ints, ts: Ints) -> Bools:
        """Marks the points in time that lie in a span of their track."""
        found = np.zeros(len(track), np.bool_)
        for number, (start, end) in self._merged().items():
            here = np.flatnonzero(track == number)
            found[here] = _meet(start, end, ts[here], ts[here])
        return found

    def _merged(self) -> dict[int, tuple[Ints, Ints]]:
        """The spans of each track without overlap, in order of time."""
        if not self.track:
            return {}
        track, start, end = (np.concatenate(parts) for parts in (self.track, self.start, self.end))
        order = np.lexsort((start, track))
        track, start, end = track[order], start[order], end[order]
        bounds = np.flatnonzero(np.diff(track)) + 1
        found = {}
        for first, last in zip([0, *bounds], [*bounds, len(track)], strict=True):
            if first < last:
                found[int(track[first])] = _merge(start[first:last], end[first:last])
        self.track, self.start, self.end = [], [], []
        for number, (starts, ends) in found.items():
            self.add(np.full(len(starts), number), starts, ends)
        return found


def _merge(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Spans by start made one where they overlap."""
    latest = np.maximum.accumulate(end)
    begins = np.append(True, start[1:] > latest[:-1])
    first = np.flatnonzero(begins)
    return start[first], latest[np.append(first[1:], len(start)) - 1]


def _meet(start: Ints, end: Ints, ts: Ints, until: Ints) -> Bools:
    """Marks spans that share a time with one of others, which are in order and apart."""
    at = np.searchsorted(start, until, side="right") - 1
    found: Bools = (at >= 0) & (end[np.maximum(at, 0)] >= ts)
    return found


def _rows_by_track(overview: Overview, wanted: Collection[int]) -> list[tuple[int, Ints]]:
    """The rows of the slices of some tracks."""
    if not len(wanted):
        return []
    track = overview.track.astype(np.uint32)[overview.kind]
    order = np.argsort(track.astype(np.uint16) if track.max() < 2**16 else track, kind="stable")
    ends = np.cumsum(np.bincount(track))
    starts = np.append(0, ends[:-1])
    return [
        (number, order[starts[number] : ends[number]]) for number in wanted if number < len(ends)
    ]


# What to keep -------------------------------------------------------------------------------


class _Narrowing:
    """Finds what is needed, one reason after the other."""

    def __init__(self, overview: Overview, limits: Limits) -> None:
        self._overview = overview
        self._work = overview.marked(overview.of_category(*GPU_WORK))
        self._op = overview.marked(overview.of_category("cpu_op"))
        self._call = overview.marked(overview.of_category(*RUNTIME))
        marked = marks(overview)
        trace = overview.trace(marked)
        windows = limits.windows(slice_table(trace, arrange(trace)))
        self._timely = _contain(windows, overview.ts)
        self._scopes = _matched(overview, limits.under)
        self._marks = np.union1d(marked, _firsts(overview, limits.under))
        self._spans = _Spans(overview)
        self._arrows = np.zeros(len(overview.flows), np.bool_)

    def narrowed(self) -> Narrowed:
        """All that is needed."""
        spans = self._spans
        spans.add_slices(np.flatnonzero(self._selected()))
        self._add_gpu_work(spans.overlap())
        self._add_forward_ops(spans.overlap())
        spans.add_starts(self._marks)
        spans.add_starts(self._oddly_written())
        return Narrowed(spans.overlap(), self._arrows)

    def _selected(self) -> Bools:
        """Marks the slices that start in time and within a scope."""
        if self._scopes is None:
            return self._timely
        scopes = _Spans(self._overview)
        scopes.add_slices(np.flatnonzero(self._scopes))
        # What only surrounds a scope starts before it, and is not to be followed downwards.
        return self._timely & scopes.meet(
            self._overview.track[self._overview.kind], self._overview.ts
        )

    # The GPU

    def _add_gpu_work(self, selected: Bools) -> None:
        """Add activities in time or launched by what is selected, and all that may launch them."""
        launching = self._timely | selected
        wanted = self._work & launching
        wanted |= self._sharing("correlation", self._call & launching, self._work)
        wanted |= self._sharing("External id", self._op & launching, self._work)
        wanted[self._reached(launching)] = True
        rows = np.flatnonzero(wanted)
        self._spans.add_starts(rows)
        activities = _Spans(self._overview)
        activities.add_slices(rows)
        self._add_arrows(activities)
        for key, others in (("correlation", self._call), ("External id", self._op)):
            self._spans.add_starts(np.flatnonzero(self._sharing(key, wanted, others)))

    def _sharing(self, key: str, chosen: Bools, others: Bools) -> Bools:
        """Marks those of the others that have a number which one of the chosen has."""
        row, number = self._overview.number(key)
        used = np.unique(number[chosen[row]])
        found = np.zeros(len(others), np.bool_)
        found[row[others[row] & np.isin(number, used[used != 0])]] = True
        return found

    def _reached(self, launching: Bools) -> Ints:
        """Rows of activities at the other end of arrows from what may launch."""
        sources = _Spans(self._overview)
        sources.add_slices(np.flatnonzero(launching & (self._call | self._op)))
        flows = self._overview.flows
        keys = np.unique(flows.key[sources.meet(flows.track, flows.ts)])
        ends = _Spans(self._overview)
        chosen = np.isin(flows.key, keys)
        ends.add(flows.track[chosen], flows.ts[chosen], self._next_start(chosen))
        return np.flatnonzero(ends.overlap() & self._work)

    def _add_arrows(self, ends: _Spans) -> None:
        """Add all arrows with an end in these spans, and what is at their ends."""
        flows = self._overview.flows
        keys = np.unique(flows.key[ends.meet(flows.track, flows.ts)])
        # An end may belong to the next slice, which is then the one in the span.
        nexts = flows.binds_next & ends.meet(
            flows.track, self._next_start(flows.binds_next, whole=True)
        )
        chosen = np.isin(flows.key, np.union1d(keys, flows.key[nexts]))
        self._arrows |= chosen
        self._spans.add(flows.track[chosen], flows.ts[chosen], flows.ts[chosen])
        later = chosen & flows.binds_next
        at = self._next_start(later)
        self._spans.add(flows.track[later], at, at)

    def _next_start(self, chosen: Bools, *, whole: bool = False) -> Ints:
        """When the next slice begins for the chosen ends of arrows that belong to it; else then."""
        flows = self._overview.flows
        found = flows.ts.copy()
        wanted = np.flatnonzero(chosen & flows.binds_next)
        tracks = np.unique(flows.track[wanted]).tolist()
        for number, rows in _rows_by_track(self._overview, tracks):
            here = wanted[flows.track[wanted] == number]
            starts = np.sort(self._overview.ts[rows])
            at = np.searchsorted(starts, flows.ts[here])
            known = at < len(starts)
            found[here[known]] = starts[at[known]]
        return found if whole else found[chosen]

    # Backward

    def _add_forward_ops(self, kept: Bools) -> None:
        """Add what forward ops are chosen from for the backward ops among what is kept."""
        threads, thread = self._overview.number("Fwd thread id")
        backward = np.zeros(len(kept), np.bool_)
        backward[threads[thread != 0]] = True
        backward &= self._op
        ops = _Spans(self._overview)
        # An arrow between ops may end in any op.
        linked = kept & self._op & (backward | ~backward.any())
        ops.add_slices(np.flatnonzero(linked))
        self._add_arrows(ops)
        row, number = self._overview.number("Sequence number")
        sequenced = self._op[row] & (number >= 0)
        row, number = row[sequenced], number[sequenced]
        pids = (
            self._processes()[self._overview.track[self._overview.kind[row]]] if len(row) else row
        )
        for pid in np.unique(pids).tolist():
            here = pids == pid
            self._add_numbered(row[here], number[here], backward, kept)

    def _processes(self) -> Ints:
        """The number of each track's process."""
        pids: dict[int | str, int] = {}
        found = [pids.setdefault(track.pid, len(pids)) for track in self._overview.tracks]
        return np.array(found, np.int64)

    def _add_numbered(self, row: Ints, number: Ints, backward: Bools, kept: Bools) -> None:
        """As ``cutting`` keeps them, of one process."""
        wanted = np.unique(number[backward[row] & kept[row]])
        forward, keys = row[~backward[row]], number[~backward[row]]
        if not len(wanted) or not len(forward):
            return
        used = np.unique(keys)
        before = used[np.maximum(np.searchsorted(used, wanted) - 1, 0)]
        chosen = np.isin(
            keys, np.concatenate((wanted, before[before >= wanted - NUMBERS_BACK], used[-1:]))
        )
        self._spans.add_starts(forward[chosen])
        track = self._overview.track[self._overview.kind[forward]]
        _, first = np.unique(track, return_index=True)
        self._spans.add_starts(forward[first[:2]])

    def _oddly_written(self) -> Ints:
        """Rows whose numbers are written as something else."""
        rows = [column.row for column in self._overview.args if column.kind != "int"]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *rows]))


def _contain(windows: Windows | None, ts: Ints) -> Bools:
    return np.ones(len(ts), np.bool_) if windows is None else windows.contain(ts)


# The whole trace ----------------------------------------------------------------------------


def marks(overview: Overview) -> Ints:
    """Rows of all that may be a step or a scope, and of both ends of the trace."""
    labels = overview.of_category("user_annotation")
    texts = {overview.strings[item] for item in overview.name[labels].tolist()}
    modules = overview.named(lambda text: text.startswith(MODULE))
    kinds = modules | overview.named(lambda text: text in texts or PROFILER_STEP.match(text))
    if not modules.any():
        kinds |= overview.named(FORWARD.match)
    kinds &= ~overview.of_category(GPU_LABEL, *GPU_WORK)
    return np.union1d(np.flatnonzero(overview.marked(kinds)), _ends(overview))


def _ends(overview: Overview) -> Ints:
    """All slices that begin first or end last, with the profiler's own marks and without."""
    found = [np.zeros(0, np.int64)]
    for kinds in (np.ones(len(overview.name), np.bool_), ~overview.of_category("", "Trace")):
        rows = np.flatnonzero(overview.marked(kinds))
        if len(rows):
            ts, end = overview.ts[rows], overview.ts[rows] + overview.dur[rows]
            found += [rows[ts == ts.min()][:1], rows[end == end.max()]]
    return np.unique(np.concatenate(found))


def _levels(under: Patterns) -> list[Sequence[str]]:
    """The patterns of scopes, and of what must be around them."""
    found: list[Sequence[str]] = []
    while under:
        found.append((under,) if isinstance(under, str) else under)
        under = under.around if isinstance(under, Nested) else None
    return found


def _matched(overview: Overview, under: Patterns) -> Bools | None:
    """Marks the slices that may be scopes; None where there is no pattern. Raises PatternError."""
    if not under:
        return None
    kinds = overview.named(set(_names(overview, _levels(under)[0])).__contains__)
    return overview.marked(kinds & ~overview.of_category(GPU_LABEL, *GPU_WORK))


def _firsts(overview: Overview, under: Patterns) -> Ints:
    """Rows of the first slices of each name that a pattern matches."""
    found = [np.zeros(0, np.int64)]
    for patterns in _levels(under):
        kinds = overview.named(set(_names(overview, patterns)).__contains__)
        rows = np.flatnonzero(overview.marked(kinds))
        name = overview.name[overview.kind[rows]]
        first = np.full(int(name.max(initial=0)) + 1, np.iinfo(np.int64).max)
        np.minimum.at(first, name, overview.ts[rows])
        found.append(rows[overview.ts[rows] == first[name]])
    return np.unique(np.concatenate(found))


def _names(overview: Overview, patterns: Sequence[str]) -> list[str]:
    used = np.unique(overview.name[np.unique(overview.kind)]).tolist()
    return matching_names(patterns, [overview.strings[item] for item in used])
