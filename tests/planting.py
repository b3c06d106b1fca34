"""Plants one known change in a real trace, so that a diff can be tested against the truth.

A trace is read from its Kineto JSON, changed below the slices of a scope pattern, and written
again: every other duration stays exact to the nanosecond, and what was nested stays nested. Times
are integer nanoseconds here and text with three places of a microsecond in the file.

The starts and ends of a thread's slices stand in one order, parents around children also where
times are equal. Each edit adds or takes away time at one place of that order, and what comes after
it moves. Other threads follow the clock by whole stacks, GPU work follows the call that launched
it. Nothing of traceq is used but its folding of names and its patterns.
"""

from __future__ import annotations

import gc
import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from isal import igzip
from numpy.typing import NDArray

from traceq.names import Pattern, fold_name

Event = dict[str, Any]
Ints = NDArray[np.int64]
Track = tuple[Any, Any]

GPU_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
GPU_LABEL = "gpu_user_annotation"
TOLERANCE = 2
"""Nanoseconds by which rounding lets a slice stick out of the one around it."""

_EVENTS = "traceEvents"
_MODULE = "nn.Module: "
_STEP = re.compile(r"ProfilerStep#(\d+)\Z")
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True)
class Truth:
    """What was planted.

    ``kind`` is scaled, added, removed, renamed, fused, moved, kernel or steps; ``before`` and
    ``after`` are the folded names of the ops (for ``kernel``, of the GPU activities) that were
    changed and that they became; ``instances`` is how often; ``cpu_ns`` and ``gpu_ns`` are what
    the outermost scopes' durations, and the GPU work launched below them, grew by in all.
    """

    kind: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    instances: int
    cpu_ns: int
    gpu_ns: int


@dataclass(frozen=True)
class SiblingRun:
    """Sibling ops that follow one another in every scope: ``calls`` of them, ``cpu_ns`` in all."""

    ops: tuple[str, ...]
    calls: int
    cpu_ns: int


# The trace ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class RealTrace:
    """A trace as its file has it. Not to be changed: edits give a new one.

    ``top`` holds the keys around the events in their order (that of the events with None);
    ``ts`` and ``dur`` (ns) stand for those fields of ``events``, of which the values are stale.
    """

    top: dict[str, Any]
    events: list[Event]
    ts: Ints
    dur: Ints

    @classmethod
    def read(cls, path: str | Path) -> RealTrace:
        """Read a .json or .json.gz file; all numbers keep their digits."""
        path = Path(path)
        with _uncollected():
            data = igzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
            top = msgspec.json.Decoder(float_hook=Decimal).decode(data)
            events = top[_EVENTS]
            ts, dur = (_nanoseconds(events, key) for key in ("ts", "dur"))
        return cls(top | {_EVENTS: None}, events, ts, dur)

    def write(self, path: str | Path) -> None:
        """Write a .json or .json.gz file, one event a line."""
        path = Path(path)
        with gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb") as file:
            for number, (key, value) in enumerate(self.top.items()):
                file.write((b",\n" if number else b"{") + _encode(key) + b": ")
                if key != _EVENTS:
                    file.write(_encode(value))
                else:
                    file.writelines(self._event_lines())
            file.write(b"}\n")

    def _event_lines(self) -> Iterator[bytes]:
        """The list of events, as pieces of JSON."""
        before = b"[\n"
        for event, ts, dur in zip(self.events, self.ts.tolist(), self.dur.tolist(), strict=True):
            times = {"ts": _microseconds(ts), "dur": _microseconds(dur)}
            yield before + _encode(event | {key: times[key] for key in times if key in event})
            before = b",\n"
        yield b"\n]" if self.events else b"[]"

    @cached_property
    def end(self) -> Ints:
        """When each event is over."""
        return self.ts + self.dur

    @cached_property
    def gpu_tracks(self) -> set[Track]:
        """The streams: tracks with GPU work, or labels of it."""
        return {
            _track(event) for event in self.events if event.get("cat") in (*GPU_WORK, GPU_LABEL)
        }

    @cached_property
    def lines(self) -> dict[Track, Line]:
        """The threads: every track that has slices and is no stream."""
        slices: dict[Track, list[int]] = defaultdict(list)
        points: dict[Track, list[int]] = defaultdict(list)
        for row, event in enumerate(self.events):
            if event["ph"] != "M" and _track(event) not in self.gpu_tracks:
                (slices if event["ph"] == "X" else points)[_track(event)].append(row)
        return {track: Line.of(self, rows, points[track]) for track, rows in slices.items()}

    @cached_property
    def launches(self) -> dict[Any, int]:
        """The row of the call on a thread that has each correlation number."""
        rows = (row for line in self.lines.values() for row in line.rows.tolist())
        found = ((_correlation(self.events[row]), row) for row in rows)
        return {number: row for number, row in found if number is not None}

    @cached_property
    def gpu_work(self) -> list[int]:
        """The rows of kernels, copies and sets."""
        return [row for row, event in enumerate(self.events) if event.get("cat") in GPU_WORK]

    def launched_by(self, rows: Iterable[int]) -> list[int]:
        """The rows of the GPU work that some calls launched."""
        events = self.events
        numbers = {_correlation(events[row]) for row in rows} - {None}
        return [row for row in self.gpu_work if _correlation(events[row]) in numbers]


@dataclass(frozen=True)
class Planted:
    """A changed trace, and what was changed."""

    trace: RealTrace
    truth: Truth


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would look through millions of events many times."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _nanoseconds(events: Sequence[Event], key: str) -> Ints:
    values = (round(Decimal(event.get(key, 0)) * 1000) for event in events)
    return np.fromiter(values, np.int64, len(events))


def _microseconds(ns: int) -> msgspec.Raw:
    return msgspec.Raw(f"{'-' * (ns < 0)}{abs(ns) // 1000}.{abs(ns) % 1000:03}".encode())


def _track(event: Event) -> Track:
    return event.get("pid"), event.get("tid")


def _correlation(event: Event) -> Any:
    return event.get("args", {}).get("correlation")


# One thread ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """The slices of a thread by start, longest first, and everything on it in one order.

    Entries of ``rows`` (of the trace), ``parent`` (positions here; -1: none), ``first`` and
    ``last`` (places of start and end in the order) belong together, and so do those of ``points``
    (rows of flow ends, instants and counters) and ``place``.
    """

    rows: Ints
    parent: list[int]
    first: Ints
    last: Ints
    points: Ints
    place: Ints

    @classmethod
    def of(cls, trace: RealTrace, slices: Sequence[int], points: Sequence[int]) -> Line:
        """Put a thread's slices and points in order."""
        rows, dots = np.array(slices, np.int64), np.array(points, np.int64)
        rows = rows[np.lexsort((rows, -trace.dur[rows], trace.ts[rows]))]
        parent, end = _nest(trace.ts[rows].tolist(), trace.end[rows].tolist())
        places = _order(trace.ts[rows], np.array(end, np.int64), trace.ts[dots])
        return cls(
            rows,
            parent,
            *np.split(places, (len(rows), 2 * len(rows)))[:2],
            dots,
            places[2 * len(rows) :],
        )

    @cached_property
    def size(self) -> int:
        """How many places there are."""
        return 2 * len(self.rows) + len(self.points)

    @cached_property
    def _lasts(self) -> Ints:
        return np.sort(self.last)

    def subtree(self, position: int) -> slice:
        """The positions of a slice and all below it. ValueError where others overlap it."""
        first, last = int(self.first[position]), int(self.last[position])
        after = int(np.searchsorted(self.first, last))
        ends = np.searchsorted(self._lasts, (first, last), side="right")
        if self.last[position:after].max() > last or ends[1] - ends[0] != after - position:
            raise ValueError(f"event {self.rows[position]} overlaps others without nesting")
        return slice(position, after)

    def points_in(self, position: int) -> Ints:
        """The rows of the points within a slice."""
        within = (self.place > self.first[position]) & (self.place < self.last[position])
        return self.points[within]

    def spread(self, marks: Sequence[int]) -> list[int]:
        """For each slice the outermost of the marked positions that it is or is below; else -1."""
        found = [-1] * len(self.rows)
        for position in marks:
            found[position] = position
        for position, above in enumerate(self.parent):
            if above >= 0 and found[above] >= 0:
                found[position] = found[above]
        return found


def _nest(start: list[int], end: list[int]) -> tuple[list[int], list[int]]:
    """The parent of each slice, and its end without what rounding lets stick out or overlap."""
    parent, kept, stack = [], list(end), []
    for position, (begin, stop) in enumerate(zip(start, end, strict=True)):
        while stack and end[stack[-1]] <= begin:
            stack.pop()
        above = -1
        for other in reversed(stack):
            if end[other] >= stop or (end[other] + TOLERANCE >= stop > begin + TOLERANCE):
                above = other
                kept[position] = min(stop, kept[other])
                break
            if begin < kept[other] <= begin + TOLERANCE and start[other] < begin:
                kept[other] = begin
        parent.append(above)
        stack.append(position)
    return parent, kept


def _order(start: Ints, end: Ints, points: Ints) -> Ints:
    """The places of all starts, then of all ends, then of all points.

    At one time: ends, inner ones first; starts, outer ones first; slices without length; points.
    """
    position, empty = np.arange(len(start)), start == end
    time = np.concatenate((start, end, points))
    phase = np.concatenate((1 + empty, 2 * empty, np.full(len(points), 3)))
    opens = np.where(empty, 2 * position, position)
    closes = np.where(empty, 2 * position + 1, -position)
    order = np.lexsort((np.concatenate((opens, closes, np.arange(len(points)))), phase, time))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place


# The part of it to change -------------------------------------------------------------------


@dataclass(frozen=True)
class _Site:
    """The thread of the scopes; ``scope`` gives the outermost one around each slice (-1: none)."""

    trace: RealTrace
    line: Line
    scopes: list[int]
    scope: list[int]

    @classmethod
    def find(cls, trace: RealTrace, under: str) -> _Site:
        """The scopes of a pattern. ValueError where they are on no thread, or on several."""
        is_scope = _remembered(Pattern.parse(under).matches)
        found = []
        for line in trace.lines.values():
            marks = [i for i, row in enumerate(line.rows) if is_scope(trace.events[row]["name"])]
            if marks:
                found.append((line, marks))
        if len(found) != 1:
            raise ValueError(f"scopes of {under!r} are on {len(found)} threads, not on one")
        line, marks = found[0]
        owner = line.spread(marks)
        scopes = [i for i in marks if owner[i] == i]
        return cls(trace, line, scopes, [-1 if own == i else own for i, own in enumerate(owner)])

    @property
    def within(self) -> Iterator[bool]:
        """Whether each slice is a scope or below one."""
        scopes = set(self.scopes)
        return (own >= 0 or i in scopes for i, own in enumerate(self.scope))

    @cached_property
    def ops(self) -> list[str]:
        """The folded name of each slice below a scope; empty for others."""
        fold, events = _remembered(fold_name), self.trace.events
        rows = zip(self.line.rows.tolist(), self.scope, strict=True)
        return [fold(events[row]["name"]) if scope >= 0 else "" for row, scope in rows]

    def calls(self, op: str, *, outermost: bool = True) -> list[int]:
        """The calls of an op below the scopes. ValueError where there are none."""
        found = [position for position, name in enumerate(self.ops) if name == op]
        if not found:
            raise ValueError(f"no call of {op!r} below the scopes")
        return self.outermost(found) if outermost else found

    def outermost(self, positions: Sequence[int]) -> list[int]:
        """Those of the slices that no other of them is around."""
        owner = self.line.spread(positions)
        return [position for position in positions if owner[position] == position]

    def families(self) -> Iterator[list[int]]:
        """The slices directly below each slice that is a scope or below one, in order."""
        children: dict[int, list[int]] = defaultdict(list)
        for position, above in enumerate(self.line.parent):
            if self.scope[position] >= 0:
                children[above].append(position)
        return iter(children.values())

    def dur(self, positions: Iterable[int]) -> list[int]:
        """The durations (ns) of some slices."""
        return [int(self.trace.dur[self.line.rows[position]]) for position in positions]


def _remembered(function: Callable[[str], Any]) -> Callable[[str], Any]:
    """The function, which is called once for each name."""

    class Known(dict[str, Any]):
        def __missing__(self, name: str) -> Any:
            self[name] = found = function(name)
            return found

    return Known().__getitem__


# Editing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Clock:
    """How far a time moves: by the time put in at or before it, less what was cut before it."""

    inserts: Ints
    cuts: Ints

    @classmethod
    def of(cls, inserts: Sequence[tuple[int, int]], cuts: Sequence[tuple[int, int]]) -> _Clock:
        """From (time, ns) and (start, end) pairs; cuts do not overlap."""
        pairs = (np.array(sorted(items), np.int64).reshape(-1, 2) for items in (inserts, cuts))
        return cls(*pairs)

    def shift(self, ts: Ints) -> Ints:
        """How far each time moves (ns)."""
        put_in = np.append(0, np.cumsum(self.inserts[:, 1]))
        moved: Ints = put_in[np.searchsorted(self.inserts[:, 0], ts, side="right")]
        if len(self.cuts):
            start, end = self.cuts.T
            taken = np.append(0, np.cumsum(end - start))
            cut = np.searchsorted(start, ts, side="right")
            last = np.maximum(cut - 1, 0)
            left = np.where(cut > 0, np.maximum(end[last] - ts, 0), 0)  # of the cut around it
            moved = moved - taken[cut] + left
        return moved


@dataclass(frozen=True)
class _Leaf:
    """A new slice: like ``row`` in process, thread and category, and without arguments."""

    row: int
    name: str
    ts: int
    place: int
    dur: int

    def event(self, trace: RealTrace) -> Event:
        """The slice as the file has it, but for its times."""
        like = trace.events[self.row]
        shared = {key: like[key] for key in ("ph", "cat", "pid", "tid") if key in like}
        return shared | {"name": self.name, "ts": 0, "dur": 0, "args": {}}


class _Edit:
    """Edits of the scopes' thread while they are gathered; :meth:`apply` makes the new trace."""

    def __init__(self, site: _Site) -> None:
        self.site, self.trace, self.line = site, site.trace, site.line
        self.gpu_dur = site.trace.dur.copy()
        self.names: dict[int, str] = {}
        self.dropped: set[int] = set()
        self._added = np.zeros(self.line.size + 1, np.int64)
        self._inserts: list[tuple[int, int]] = []
        self._cuts: list[tuple[int, int]] = []
        self._leaves: list[_Leaf] = []
        self._moves: list[tuple[int, int, int]] = []

    def lengthen(self, position: int, ns: int) -> None:
        """Put time in at the very end of a slice, within it."""
        self._insert(int(self.line.last[position]), self._end(position), ns)

    def append(self, position: int, name: str, ns: int) -> None:
        """Put a new slice directly behind one."""
        row, place = int(self.line.rows[position]), int(self.line.last[position])
        self._leaves.append(_Leaf(row, name, self._end(position), place, ns))
        self._insert(place + 1, self._end(position), ns)

    def replace(self, position: int, name: str, ns: int) -> None:
        """Put a new slice in the place of one and all below it."""
        row, place = int(self.line.rows[position]), int(self.line.first[position])
        self._leaves.append(_Leaf(row, name, int(self.trace.ts[row]), place, ns))
        self.remove(position)
        self._insert(int(self.line.last[position]) + 1, self._end(position), ns)

    def remove(self, position: int) -> None:
        """Take a slice out with all below it, and its time."""
        self.dropped.update(self.line.rows[self.line.subtree(position)].tolist())
        self.dropped.update(self.line.points_in(position).tolist())
        self._cut(position)

    def move_to_end(self, positions: Sequence[int], scope: int) -> None:
        """Make slices, with all below them, the last ones within a scope."""
        behind = sum(self.site.dur(positions))
        for position, ns in zip(positions, self.site.dur(positions), strict=True):
            self.line.subtree(position)  # nothing else may overlap it
            self._moves.append((position, scope, behind))
            self._cut(position)
            self.lengthen(scope, ns)
            behind -= ns

    def _end(self, position: int) -> int:
        return int(self.trace.end[self.line.rows[position]])

    def _insert(self, place: int, ts: int, ns: int) -> None:
        self._added[place] += ns
        self._inserts.append((ts, ns))

    def _cut(self, position: int) -> None:
        row = int(self.line.rows[position])
        self._added[int(self.line.last[position]) + 1] -= self.trace.dur[row]
        self._cuts.append((int(self.trace.ts[row]), self._end(position)))

    # Applying -----------------------------------------------------------------------------

    def apply(self) -> RealTrace:
        """The trace with all edits made."""
        self._drop_arrows()
        shift = self._shift()
        mover = _Mover(self.trace, _Clock.of(self._inserts, self._cuts), self.gpu_dur)
        for line in self.trace.lines.values():
            mover.follow_order(line, shift) if line is self.line else mover.follow_clock(line)
        mover.place_work(self.dropped, by_launch=bool(self._moves))
        mover.place_rest()
        return self._rebuild(mover, shift)

    def drop_work(self) -> int:
        """Drop the GPU work of the dropped calls; its time (ns)."""
        work = self.trace.launched_by(self.dropped)
        self.dropped.update(work)
        return int(self.trace.dur[work].sum())

    def _drop_arrows(self) -> None:
        """Drop all flow events of an arrow where one is dropped, or the call that it leaves."""
        events = self.trace.events
        gone = {_arrow(events[row]) for row in self.dropped} - {None}
        gone |= {("ac2g", _correlation(events[row])) for row in self.dropped}
        if gone:
            rows = (row for row, event in enumerate(events) if _arrow(event) in gone)
            self.dropped.update(rows)

    def _shift(self) -> Ints:
        """How far everything on the thread moves (ns), by place."""
        shift: Ints = np.cumsum(self._added)
        for position, scope, behind in self._moves:
            first, last = int(self.line.first[position]), int(self.line.last[position])
            end = self._end(scope) + int(shift[self.line.last[scope]])
            shift[first : last + 1] = end - behind - self.trace.ts[self.line.rows[position]]
        return shift

    def _rebuild(self, mover: _Mover, shift: Ints) -> RealTrace:
        """The new trace: without what was dropped, with new names and leaves."""
        events = list(self.trace.events)
        for row, name in self.names.items():
            events[row] = events[row] | {"name": name}
        kept = sorted(set(range(len(events))) - self.dropped) if self.dropped else None
        chosen: Any = slice(None) if kept is None else kept
        events = events if kept is None else [events[row] for row in kept]
        ts = [leaf.ts + int(shift[leaf.place]) for leaf in self._leaves]
        events += [leaf.event(self.trace) for leaf in self._leaves]
        return RealTrace(
            self.trace.top,
            events,
            np.append(mover.ts[chosen], np.array(ts, np.int64)),
            np.append(mover.dur[chosen], np.array([leaf.dur for leaf in self._leaves], np.int64)),
        )


def _arrow(event: Event) -> tuple[Any, Any] | None:
    return (event.get("cat"), event.get("id")) if event["ph"] in "stf" else None


class _Mover:
    """The new times of all events, found thread by thread, then stream by stream."""

    def __init__(self, trace: RealTrace, clock: _Clock, dur: Ints) -> None:
        self.trace, self.clock = trace, clock
        self.ts, self.dur = trace.ts.copy(), dur.copy()
        self._placed = np.array([event["ph"] == "M" for event in trace.events], np.bool_)

    def follow_order(self, line: Line, shift: Ints) -> None:
        """Move the thread that was edited."""
        self.ts[line.rows] += shift[line.first]
        self.dur[line.rows] += shift[line.last] - shift[line.first]
        self.ts[line.points] += shift[line.place]
        self._placed[line.rows] = self._placed[line.points] = True

    def follow_clock(self, line: Line) -> None:
        """Move another thread by whole stacks; the profiler's own span grows with the trace."""
        roots = [position for position, above in enumerate(line.parent) if above < 0]
        moved = self._root_shifts(line.rows[roots])
        owner = np.searchsorted(np.array(roots), line.spread(roots))
        self.ts[line.rows] += moved[owner]
        for row in line.rows.tolist():
            if self.trace.events[row].get("cat") == "Trace":
                self.dur[row] += int(self.clock.shift(self.trace.end[[row]])[0])
                self.dur[row] -= self.ts[row] - self.trace.ts[row]
        self._placed[line.rows] = True
        self._move_points(line, line.rows[roots], moved)

    def _root_shifts(self, roots: Ints) -> Ints:
        """How far each stack moves: with the clock, but not into the one before it."""
        ts, end, moved = (
            self.trace.ts[roots],
            self.trace.end[roots],
            self.clock.shift(self.trace.ts[roots]),
        )
        for now in range(1, len(roots)):
            if ts[now] >= end[now - 1]:
                moved[now] = max(moved[now], end[now - 1] + moved[now - 1] - ts[now])
        return moved

    def _move_points(self, line: Line, roots: Ints, moved: Ints) -> None:
        """Move points with the stack that they are in, or with the clock."""
        ts = self.trace.ts[line.points]
        root = np.searchsorted(self.trace.ts[roots], ts, side="right") - 1
        inside = (root >= 0) & (self.trace.end[roots][root] >= ts)
        self.ts[line.points] += np.where(inside, moved[root], self.clock.shift(ts))
        self._placed[line.points] = True

    def place_work(self, dropped: set[int], *, by_launch: bool) -> None:
        """Move GPU work with its launch, and later where the stream is not free by then.

        ``by_launch`` sorts streams by the launches anew; they keep their order otherwise.
        """
        streams: dict[Track, list[int]] = defaultdict(list)
        for row in self.trace.gpu_work:
            if row not in dropped:
                streams[_track(self.trace.events[row])].append(row)
        for rows in streams.values():
            work = np.array(rows, np.int64)
            work = work[np.argsort(self.trace.ts[work], kind="stable")]
            wanted, launch = self._wanted(work)
            order = np.argsort(launch, kind="stable") if by_launch else np.arange(len(work))
            self._queue(work[order].tolist(), wanted[order].tolist())
            self._placed[work] = True

    def _wanted(self, work: Ints) -> tuple[Ints, Ints]:
        """When work of a stream would start if that were free, and when it is launched."""
        wanted = self.trace.ts[work] + self.clock.shift(self.trace.ts[work])
        launch = wanted.copy()
        for number, row in enumerate(work.tolist()):
            call = self.trace.launches.get(_correlation(self.trace.events[row]))
            if call is not None:
                launch[number] = self.ts[call]
                wanted[number] = self.trace.ts[row] + self.ts[call] - self.trace.ts[call]
        return wanted, launch

    def _queue(self, rows: Sequence[int], wanted: Sequence[int]) -> None:
        """Start each as wanted, or when the one before it is over (but for their overlap)."""
        ts, end, before = self.trace.ts, self.trace.end, -1
        for row, start in zip(rows, wanted, strict=True):
            self.ts[row] = start
            if before >= 0:
                early = max(0, int(end[before] - ts[row])) if ts[before] <= ts[row] else 0
                free = int(self.ts[before] + self.dur[before]) - early
                self.ts[row] = max(start, free)
            before = row

    def place_rest(self) -> None:
        """Move the flow ends and labels of streams, and what is on no thread."""
        self._stretch_labels()
        events, heads = self.trace.events, self._heads()
        left = np.flatnonzero(~self._placed)
        shift = self.clock.shift(self.trace.ts[left])
        for row, moved in zip(left.tolist(), shift.tolist(), strict=True):
            event = events[row]
            number = event.get("id") if _arrow(event) else _correlation(event)
            head = heads.get((number, int(self.trace.ts[row])))
            self.ts[row] += moved if head is None else self.ts[head] - self.trace.ts[head]

    def _heads(self) -> dict[tuple[Any, int], int]:
        """The GPU work that an arrow may end at, by correlation and start."""
        rows, ts = self.trace.gpu_work, self.trace.ts
        return {(_correlation(self.trace.events[row]), int(ts[row])): row for row in rows}

    def _stretch_labels(self) -> None:
        """Keep each label of a stream around the work that it was around."""
        work: dict[Track, list[int]] = defaultdict(list)
        for row in self.trace.gpu_work:
            work[_track(self.trace.events[row])].append(row)
        for row, event in enumerate(self.trace.events):
            if event.get("cat") == GPU_LABEL:
                self._stretch(row, np.array(work[_track(event)], np.int64))

    def _stretch(self, label: int, work: Ints) -> None:
        ts, end = self.trace.ts, self.trace.end
        inside = work[(ts[work] >= ts[label]) & (end[work] <= end[label])]
        if len(inside):
            start, stop = self.ts[inside].min(), (self.ts[inside] + self.dur[inside]).max()
            self.ts[label] = start - (ts[inside].min() - ts[label])
            self.dur[label] = stop + (end[label] - end[inside].max()) - self.ts[label]
            self._placed[label] = True


# What can be planted ------------------------------------------------------------------------


def scale(trace: RealTrace, op: str, factor: float, under: str) -> Planted:
    """Each outermost call of an op takes ``factor`` (from 1) times as long: its own time grows.

    ``op`` is a folded name here and below, ``under`` the pattern of the scopes.
    """
    if factor < 1:
        raise ValueError(f"factor {factor} would take away what is below the op")
    site = _Site.find(trace, under)
    edit, calls = _Edit(site), site.calls(op)
    extra = [round(ns * (factor - 1)) for ns in site.dur(calls)]
    for position, ns in zip(calls, extra, strict=True):
        edit.lengthen(position, ns)
    return Planted(edit.apply(), Truth("scaled", (op,), (op,), len(calls), sum(extra), 0))


def add(trace: RealTrace, op_name: str, after_op: str, dur_ns: int, under: str) -> Planted:
    """A new slice without any below it directly behind each outermost call of an op."""
    site = _Site.find(trace, under)
    edit, calls = _Edit(site), site.calls(after_op)
    for position in calls:
        edit.append(position, op_name, dur_ns)
    truth = Truth("added", (), (fold_name(op_name),), len(calls), dur_ns * len(calls), 0)
    return Planted(edit.apply(), truth)


def remove(trace: RealTrace, op: str, under: str) -> Planted:
    """The calls of an op are gone, with all below them, their time, and their GPU work."""
    site = _Site.find(trace, under)
    edit, calls = _Edit(site), site.calls(op)
    for position in calls:
        edit.remove(position)
    gone = edit.drop_work()
    truth = Truth("removed", (op,), (), len(calls), -sum(site.dur(calls)), -gone)
    return Planted(edit.apply(), truth)


def rename(trace: RealTrace, op: str, new_name: str, under: str) -> Planted:
    """All calls of an op, inner ones too, have another name."""
    site = _Site.find(trace, under)
    edit, calls = _Edit(site), site.calls(op, outermost=False)
    for position in calls:
        edit.names[int(site.line.rows[position])] = new_name
    return Planted(edit.apply(), Truth("renamed", (op,), (fold_name(new_name),), len(calls), 0, 0))


def fuse(trace: RealTrace, ops: Sequence[str], new_name: str, dur_ns: int, under: str) -> Planted:
    """Runs of sibling ops become one slice in the place of the first, without GPU work.

    The time between the siblings stays with the slice around them.
    """
    site = _Site.find(trace, under)
    edit, runs = _Edit(site), _runs(site, tuple(ops))
    for run in runs:
        edit.replace(run[0], new_name, dur_ns)
        for position in run[1:]:
            edit.remove(position)
    gone = edit.drop_work()
    cpu_ns = sum(dur_ns - sum(site.dur(run)) for run in runs)
    truth = Truth("fused", tuple(ops), (fold_name(new_name),), len(runs), cpu_ns, -gone)
    return Planted(edit.apply(), truth)


def _runs(site: _Site, ops: tuple[str, ...]) -> list[list[int]]:
    """The outermost places where these siblings follow one another. ValueError for none."""
    found = []
    for family in site.families():
        names, first = [site.ops[position] for position in family], 0
        while first <= len(family) - len(ops):
            is_run = tuple(names[first : first + len(ops)]) == ops
            if is_run:
                found.append(family[first : first + len(ops)])
            first += len(ops) if is_run else 1
    if not found:
        raise ValueError(f"no {len(ops)} siblings {ops} below the scopes")
    outermost = set(site.outermost(sorted(position for run in found for position in run)))
    return sorted(run for run in found if run[0] in outermost)


def move(trace: RealTrace, op: str, under: str) -> Planted:
    """The outermost calls of an op, with all below them, come last in their scope."""
    site = _Site.find(trace, under)
    edit, calls = _Edit(site), site.calls(op)
    by_scope: dict[int, list[int]] = defaultdict(list)
    for position in calls:
        by_scope[site.scope[position]].append(position)
    for scope, positions in by_scope.items():
        edit.move_to_end(positions, scope)
    return Planted(edit.apply(), Truth("moved", (op,), (op,), len(calls), 0, 0))


def slow_kernel(trace: RealTrace, kernel_part: str, factor: float, under: str) -> Planted:
    """GPU work with a part of a name, launched below the scopes, takes ``factor`` times as long."""
    site = _Site.find(trace, under)
    edit, events = _Edit(site), trace.events
    calls = [row for row, i in zip(site.line.rows, site.within, strict=True) if i]
    rows = [row for row in trace.launched_by(calls) if kernel_part in events[row]["name"]]
    if not rows:
        raise ValueError(f"no GPU work named like {kernel_part!r} below the scopes")
    for row in rows:
        edit.gpu_dur[row] = round(int(trace.dur[row]) * factor)
    names = tuple(sorted({fold_name(events[row]["name"]) for row in rows}))
    grown = int((edit.gpu_dur - trace.dur).sum())
    return Planted(edit.apply(), Truth("kernel", names, names, len(rows), 0, grown))


def consecutive_siblings(trace: RealTrace, under: str, count: int = 3) -> list[SiblingRun]:
    """Runs of sibling ops that are in every scope: those found once in each first, by time."""
    site = _Site.find(trace, under)
    scopes: dict[tuple[str, ...], set[int]] = defaultdict(set)
    calls: Counter[tuple[str, ...]] = Counter()
    time: Counter[tuple[str, ...]] = Counter()
    for family in site.families():
        for first in range(len(family) - count + 1):
            run = family[first : first + count]
            ops = tuple(site.ops[position] for position in run)
            scopes[ops].add(site.scope[run[0]])
            calls[ops] += 1
            time[ops] += sum(site.dur(run))
    size = len(site.scopes)
    found = [SiblingRun(ops, calls[ops], time[ops]) for ops in calls if len(scopes[ops]) == size]
    return sorted(found, key=lambda run: (run.calls > size, -run.cpu_ns, run.ops))


# Steps --------------------------------------------------------------------------------------


def only_steps(trace: RealTrace, numbers: Iterable[int], under: str | None = None) -> Planted:
    """Only what lies in certain steps, at its own time; frames around the steps are gone.

    Steps are the profiler's by their labels, else the calls of the module that repeats at the top,
    counted from 0. The truth's times are 0 without ``under``.
    """
    spans, wanted = step_spans(trace), sorted(set(numbers))
    if not wanted or not spans.keys() >= set(wanted):
        raise ValueError(f"steps {wanted} are not all among {sorted(spans)}")
    chosen = [spans[number] for number in wanted]
    kept = _kept(trace, chosen)
    part = RealTrace(
        trace.top, [trace.events[row] for row in kept], trace.ts[kept], trace.dur[kept]
    )
    before, after = (
        ((0, 0), (0, 0)) if under is None else (totals(trace, under), totals(part, under))
    )
    return Planted(
        part, Truth("steps", (), (), len(wanted), after[0] - before[0], after[1] - before[1])
    )


def totals(trace: RealTrace, under: str) -> tuple[int, int]:
    """The outermost scopes' durations, and those of the GPU work launched below them (ns)."""
    site = _Site.find(trace, under)
    calls = [row for row, i in zip(site.line.rows, site.within, strict=True) if i]
    return sum(site.dur(site.scopes)), int(trace.dur[trace.launched_by(calls)].sum())


def step_spans(trace: RealTrace) -> dict[int, tuple[int, int]]:
    """Start and end (ns) of each step by its number; none reaches into the next."""
    found = _labelled_steps(trace) or dict(enumerate(_repeated_module(trace)))
    in_time = sorted(found, key=lambda number: found[number])
    starts = [found[number][0] for number in in_time][1:]
    ends = [min(found[number][1], start) for number, start in zip(in_time, starts, strict=False)]
    ends += [found[number][1] for number in in_time[-1:]]
    return {number: (found[number][0], end) for number, end in zip(in_time, ends, strict=True)}


def _labelled_steps(trace: RealTrace) -> dict[int, tuple[int, int]]:
    found = {}
    for line in trace.lines.values():
        for row in line.rows.tolist():
            if match := _STEP.match(trace.events[row]["name"]):
                found[int(match[1])] = int(trace.ts[row]), int(trace.end[row])
    return found


def _repeated_module(trace: RealTrace) -> list[tuple[int, int]]:
    """The calls of the outermost module that repeats; of several, that with most time."""
    calls: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for line in trace.lines.values():
        names = [trace.events[row]["name"] for row in line.rows.tolist()]
        marks = [i for i, name in enumerate(names) if name.startswith(_MODULE)]
        owner = line.spread(marks)
        for position in marks:
            if owner[position] == position:
                row = int(line.rows[position])
                calls[names[position]].append((int(trace.ts[row]), int(trace.end[row])))
    repeated = [spans for spans in calls.values() if len(spans) > 1]
    return max(repeated, key=lambda spans: sum(end - ts for ts, end in spans), default=[])


def _kept(trace: RealTrace, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The rows that lie in one of the spans, with the GPU work that they launched and its arrows.

    What has no place in time stays: metadata, and the profiler's own marks.
    """
    start, end = (np.array(times, np.int64) for times in zip(*sorted(spans), strict=True))
    span = np.searchsorted(start, trace.ts, side="right") - 1
    inside = (span >= 0) & (trace.ts < end[span]) & (trace.end <= end[span])
    calls = [row for row in trace.launches.values() if inside[row]]
    work = set(trace.launched_by(calls))
    launched = {_correlation(trace.events[row]) for row in work}
    kept = []
    for row, event in enumerate(trace.events):
        if _track(event) in trace.gpu_tracks and event["ph"] != "M":
            number = event.get("id") if _arrow(event) else _correlation(event)
            inside[row] = row in work or (number in launched and event.get("cat") not in GPU_WORK)
        if inside[row] or event["ph"] == "M" or event.get("cat") in (None, "Trace"):
            kept.append(row)
    return kept
