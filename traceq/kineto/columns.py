"""Turns decoded events into columns: slices, flows, counters, names; pairs begins with ends.

Every event that comes in is put in the ledger, as loaded or as not carried with the reason.
Placing slices on lanes and binding flows to slices is left to ``layout``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traceq.errors import TraceReadError
from traceq.kineto.args import ArgReader, ArgSelection
from traceq.kineto.events import ABSENT, Chunk, Event, Scalar, lenient_json
from traceq.kineto.native import PlainEvents
from traceq.kineto.renumber import Interner, Renumbering
from traceq.model import (
    NO_TIME,
    OUT_OF_RANGE,
    AsyncEvent,
    Bools,
    CounterSample,
    Flows,
    Ints,
    Ledger,
    Slices,
    TraceData,
    Track,
    leave_out,
)

FLOW_ROLES = {"s": 0, "t": 1, "f": 2}
ASYNC_ROLES = {"b": 0, "n": 1, "e": 2, "S": 0, "T": 1, "F": 2}
INSTANTS = frozenset("iIR")
NO_NAME = "[No name]"
"""What trace_processor calls an event without a name."""

_TIME_MAX = 2**63 - 1
_FLOAT_MAX = 10**300
_kind_of = attrgetter("ph", "cat", "name", "pid", "tid")


TEXT_LIMIT = 32_752
"""Longest text in bytes that the engine's input format can hold."""


class Texts(dict[str, int]):
    """Numbers texts, in the one spelling that all layers see.

    The engine ends text at a NUL and takes no lone surrogates: these are replaced. What is too long
    for it is cut at a whole character, and counted in ``cut``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spellings: list[str] = []
        self.cut = 0

    def __missing__(self, text: str) -> int:
        clean = text.replace("\0", "\N{SYMBOL FOR NULL}")
        raw = clean.encode("utf-8", "replace")
        if len(raw) > TEXT_LIMIT:
            raw = raw[:TEXT_LIMIT]
            self.cut += 1
        clean = raw.decode("utf-8", "ignore")
        if clean != text:
            self[text] = number = self[clean]
        else:
            self[text] = number = len(self.spellings)
            self.spellings.append(text)
        return number


@dataclass(frozen=True, slots=True)
class Keep:
    """Which slices and ends of arrows of a file are to be kept, each in the order of the reader."""

    slices: Bools
    flows: Bools


@dataclass(slots=True)
class _SliceParts:
    """Slices as they come in, a list entry a chunk; ``kind`` indexes the distinct kinds."""

    kind: list[Ints] = field(default_factory=list)
    ts: list[Ints] = field(default_factory=list)
    dur: list[Ints] = field(default_factory=list)
    instant: list[Bools] = field(default_factory=list)
    count: int = 0

    def add(self, kind: Ints, ts: Ints, dur: Ints, instant: Bools) -> None:
        self.kind.append(kind)
        self.ts.append(ts)
        self.dur.append(dur)
        self.instant.append(instant)
        self.count += len(kind)


@dataclass(slots=True)
class _FlowParts:
    """Ends of flows as they come in, a list entry a chunk."""

    kind: list[Ints] = field(default_factory=list)
    ts: list[Ints] = field(default_factory=list)
    key: list[Ints] = field(default_factory=list)
    binds_next: list[Bools] = field(default_factory=list)

    def add(self, kind: Ints, ts: Ints, key: Ints, binds_next: Bools) -> None:
        self.kind.append(kind)
        self.ts.append(ts)
        self.key.append(key)
        self.binds_next.append(binds_next)


@dataclass(frozen=True, slots=True)
class _Edge:
    """A begin or an end of a slice, waiting for its other half."""

    ts: int
    event: Event


class ColumnBuilder:
    """Takes chunks of events, and gives the whole trace as columns, or what of it is to be kept."""

    def __init__(
        self, ledger: Ledger, args: ArgSelection = "default", keep: Keep | None = None
    ) -> None:
        self._ledger = ledger
        self._keep = keep
        self._slices_met = self._flows_met = 0
        self._left_out: list[Ints] = []
        self._strings = Texts()
        self._tracks = Interner()
        self._kinds = Interner()
        self._slices = _SliceParts()
        self._args = ArgReader(args, self._strings.__getitem__)
        self._renumber_kinds = Renumbering(lambda event: self._kinds[_kind_of(event)])
        self._edges: dict[Track, list[_Edge]] = {}
        self._flow_names = Interner()
        self._flow_keys = Interner()
        self._renumber_flows = Renumbering(self._flow_name)
        self._flows = _FlowParts()
        self._counters: list[CounterSample] = []
        self._asyncs: list[AsyncEvent] = []
        self._process_names: dict[int | str, str] = {}
        self._thread_names: dict[Track, str] = {}
        self._labels: dict[int | str, str] = {}

    def add(self, chunk: Chunk) -> None:
        """Take the next events of the file."""
        events = chunk.events
        count = len(events)
        complete = np.fromiter((event.ph == "X" for event in events), np.bool_, count)
        instant = np.zeros(count, np.bool_)
        flows: list[int] = []
        for index in np.flatnonzero(~complete).tolist():
            event, timed = events[index], chunk.has_ts[index] and chunk.ts[index] >= 0
            if event.ph in FLOW_ROLES and timed and event.id is not None:
                flows.append(index)
            elif event.ph in INSTANTS and chunk.has_ts[index]:
                instant[index] = True
            else:
                self._add_other(event, int(chunk.ts[index]) if timed else None)
        self._add_flows(chunk, flows)
        self._add_slices(chunk, complete, instant)

    def finish(self, metadata: dict[str, Any]) -> TraceData:
        """The whole trace; the builder is used up."""
        for edges in self._edges.values():
            self._pair_edges(edges)
        slices = self._build_slices()
        flows = self._build_flows()
        self._count_left_out()
        if self._strings.cut:
            self._ledger.notes.append(
                f"{self._strings.cut} texts longer than {TEXT_LIMIT:,} bytes were cut"
            )
        self._drop_open_asyncs()
        return TraceData(
            strings=self._strings.spellings,
            tracks=list(self._tracks),
            slices=slices,
            flows=flows,
            counters=self._counters,
            asyncs=self._asyncs,
            process_names=self._process_names,
            thread_names=self._thread_names,
            labels=self._labels,
            metadata=metadata,
            ledger=self._ledger,
        )

    # Slices -------------------------------------------------------------------------------

    def _add_slices(self, chunk: Chunk, complete: Bools, instant: Bools) -> None:
        """Take the complete events and the instants whose times can be placed."""
        dur = np.where(instant, 0, chunk.dur)
        timed = (complete & chunk.has_ts & chunk.has_dur) | instant
        placeable = timed & (chunk.ts >= 0) & (chunk.ts <= _TIME_MAX - np.maximum(dur, 0))
        self._refuse(chunk.events, complete & ~timed, NO_TIME)
        self._refuse(chunk.events, timed & ~placeable, OUT_OF_RANGE)
        self._count_negative(chunk.events, placeable & (dur < 0))
        which = np.flatnonzero(placeable)
        events = [chunk.events[index] for index in which.tolist()]
        times = chunk.ts[which], np.maximum(dur[which], 0)
        if chunk.plain is None:
            self._append(events, *times, instant[which])
        else:
            self._append_merged(chunk.plain, events, chunk.position[which], *times, instant[which])

    def _append(self, events: Sequence[Event], ts: Ints, dur: Ints, instant: Bools) -> None:
        rows, chosen = self._next_rows(len(events))
        self._add_args(events, rows)
        kind = self._number_kinds(events)
        self._slices.add(self._chosen(kind, chosen), ts[chosen], dur[chosen], instant[chosen])

    def _append_merged(
        self,
        plain: PlainEvents,
        events: Sequence[Event],
        position: Ints,
        ts: Ints,
        dur: Ints,
        instant: Bools,
    ) -> None:
        """Append plain slices, and events with these positions among them, in file order."""
        slices = plain.slices
        order, rank = _merge_order(slices.position, position)
        in_order, chosen = self._next_rows(len(order))
        rows = in_order[rank]
        self._args.add_plain(plain, rows[: len(slices.kind)])
        self._add_args(events, rows[len(slices.kind) :])
        kind = self._renumber_kinds(plain.kinds, slices.kind)
        self._slices.add(
            self._chosen(np.concatenate((kind, self._number_kinds(events)))[order], chosen),
            np.concatenate((slices.ts, ts))[order][chosen],
            np.concatenate((slices.dur, dur))[order][chosen],
            np.concatenate((np.zeros(len(kind), np.bool_), instant))[order][chosen],
        )

    def _next_rows(self, count: int) -> tuple[Ints, Bools]:
        """The rows that the next slices of the file get, -1 for none, and which are kept."""
        first = self._slices_met
        self._slices_met += count
        if self._keep is None:
            return first + np.arange(count), np.ones(count, np.bool_)
        chosen = self._keep.slices[first : self._slices_met]
        _check_met(len(chosen), count)
        return np.where(chosen, self._slices.count + np.cumsum(chosen) - 1, -1), chosen

    def _chosen(self, kind: Ints, chosen: Bools) -> Ints:
        """The kinds of what is kept; those of the others are noted for the ledger."""
        if chosen.all():
            return kind
        self._left_out.append(np.bincount(kind[~chosen]))
        return kind[chosen]

    def _count_left_out(self) -> None:
        """Tell the ledger what was not to be kept."""
        if self._keep is None:
            return
        _check_met(self._slices_met, len(self._keep.slices))
        _check_met(self._flows_met, len(self._keep.flows))
        total = np.zeros(len(self._kinds), np.int64)
        for counts in self._left_out:
            total[: len(counts)] += counts
        for (phase, category, *_), count in zip(self._kinds, total.tolist(), strict=True):
            if count:
                self._ledger.add(phase, category, read=count, loaded=count)
                leave_out(self._ledger, phase, category or "", count)

    def _add_args(self, events: Sequence[Event], rows: Ints) -> None:
        """Take the arguments of events that are the slices ``rows``."""
        which = [
            index
            for index, event in enumerate(events)
            if rows[index] >= 0 and event.args is not ABSENT and self._args.carries(event.cat)
        ]
        self._args.add([bytes(events[index].args) for index in which], rows[which])

    def _number_kinds(self, events: Sequence[Event]) -> Ints:
        number_of = self._kinds.__getitem__
        return np.fromiter(map(number_of, map(_kind_of, events)), np.int64, len(events))

    def _refuse(self, events: Sequence[Event], which: Bools, reason: str) -> None:
        for index in np.flatnonzero(which).tolist():
            event = events[index]
            self._ledger.add(event.ph, event.cat, read=1)
            self._ledger.not_carried(event.ph, event.cat, reason)

    def _count_negative(self, events: Sequence[Event], which: Bools) -> None:
        for index in np.flatnonzero(which).tolist():
            event = events[index]
            self._ledger.clamped(event.ph, event.cat, "negative duration set to 0")

    def _build_slices(self) -> Slices:
        parts = self._slices
        kind = _joined(parts.kind, np.int64)
        self._count_loaded(kind)
        name, category, track = self._fields_of(kind)
        return Slices(
            ts=_joined(parts.ts, np.int64),
            dur=_joined(parts.dur, np.int64),
            name=name,
            category=category,
            track=track,
            instant=_joined(parts.instant, np.bool_),
            phase=np.array([ord(phase[:1] or "?") & 127 for phase, *_ in self._kinds], np.uint8)[
                kind
            ],
            args=self._args.finish(),
        )

    def _fields_of(self, kind: Ints) -> Ints:
        """Rows of name, category and track for an array of kinds."""
        fields = [self._kind_fields(*key) for key in self._kinds]
        columns = np.ascontiguousarray(np.array(fields, np.int64).reshape(-1, 3).T)
        return np.stack([column[kind] for column in columns])

    def _kind_fields(
        self, _phase: str, category: str | None, name: str, pid: Scalar, tid: Scalar
    ) -> tuple[int, int, int]:
        return (
            self._strings[name or NO_NAME],
            -1 if category is None else self._strings[category],
            self._track(pid, tid),
        )

    def _count_loaded(self, kind: Ints) -> None:
        counts = np.bincount(kind, minlength=len(self._kinds)).tolist()
        by_phase: Counter[tuple[str, str | None]] = Counter()
        for (phase, category, *_), count in zip(self._kinds, counts, strict=True):
            by_phase[phase, category] += count
        for (phase, category), count in by_phase.items():
            self._ledger.add(phase, category, read=count, loaded=count)

    # Begin and end ------------------------------------------------------------------------

    def _pair_edges(self, edges: list[_Edge]) -> None:
        """Match ends with the innermost begin of their name, in order of time."""
        edges.sort(key=lambda edge: edge.ts)
        open_edges: list[_Edge] = []
        for edge in edges:
            if edge.event.ph == "B":
                open_edges.append(edge)
                continue
            begin = _pop_matching(open_edges, edge.event.name)
            self._ledger.add("E", edge.event.cat, read=1)
            if begin is None:
                self._ledger.not_carried("E", edge.event.cat, "end without a begin")
            else:
                self._ledger.add("E", edge.event.cat, loaded=1)
                self._append_pair(begin, edge.ts)
        for begin in open_edges:
            reason = "begin without an end, ended with the last begin or end of its thread"
            self._ledger.clamped("B", begin.event.cat, reason)
            self._append_pair(begin, edges[-1].ts)

    def _append_pair(self, begin: _Edge, end: int) -> None:
        ts, dur = np.array([begin.ts]), np.array([end - begin.ts])
        self._append([begin.event], ts, dur, np.zeros(1, np.bool_))

    # Everything else ----------------------------------------------------------------------

    def _add_other(self, event: Event, ts: int | None) -> None:
        """Take an event that is no slice; its handler says why it cannot be carried, if so."""
        phase = event.ph
        if phase in ("B", "E") and ts is not None and 0 <= ts <= _TIME_MAX:
            track = Track(_identity(event.pid), _identity(event.tid))
            self._edges.setdefault(track, []).append(_Edge(ts, event))
            return  # counted when paired
        self._ledger.add(phase or "?", event.cat, read=1)
        refusal = self._take_other(event, ts)
        if refusal is None:
            self._ledger.add(phase, event.cat, loaded=1)
        else:
            self._ledger.not_carried(phase or "?", event.cat, refusal)

    def _take_other(self, event: Event, ts: int | None) -> str | None:
        """Keep an event; the reason where that cannot be."""
        if event.ph == "M":
            return self._add_metadata(event)
        if ts is None or not 0 <= ts <= _TIME_MAX:
            return NO_TIME
        if event.ph == "C":
            return self._add_counter(event, ts)
        if event.id is None and event.ph in FLOW_ROLES | ASYNC_ROLES:
            return "flow or asynchronous event without an id"
        if event.ph in ASYNC_ROLES:
            self._add_async(event, ts)
            return None
        return f"phase {event.ph[:8]!r} has no place in the engine" if event.ph else "no phase"

    def _add_metadata(self, event: Event) -> str | None:
        fields = _fields(event)
        track = Track(_identity(event.pid), _identity(event.tid))
        if event.name == "process_name":
            self._process_names[track.pid] = str(fields.get("name", ""))
        elif event.name == "thread_name":
            self._thread_names[track] = str(fields.get("name", ""))
        elif event.name == "process_labels":
            self._labels[track.pid] = str(fields.get("labels", ""))
        else:
            return "sort order of rows (display only)"
        return None

    def _add_flows(self, chunk: Chunk, which: Sequence[int]) -> None:
        """Take the flows among the events of a chunk, and its plain ones, in file order."""
        events = [chunk.events[index] for index in which]
        ends = np.array([event.ph == "f" and event.bp != "e" for event in events], np.bool_)
        columns = [(self._number_kinds(events), chunk.ts[which], ends)]
        arrows = [[self._flow_arrow(event) for event in events]]
        order = np.arange(len(events))
        if chunk.plain is not None:
            order, _ = _merge_order(chunk.plain.flows.position, chunk.position[which])
            plain, plain_arrows = self._plain_flows(chunk.plain)
            columns.insert(0, plain)
            arrows.insert(0, plain_arrows)
        chosen = self._next_flows(len(order))
        kind, ts, binds_next = (np.concatenate(column) for column in zip(*columns, strict=True))
        named = [arrow for part in arrows for arrow in part]
        keys = self._number_arrows([named[item] for item in order[chosen].tolist()])
        kind = self._chosen(kind[order], chosen)
        self._flows.add(kind, ts[order][chosen], keys, binds_next[order][chosen])

    def _next_flows(self, count: int) -> Bools:
        """Which of the next ends of arrows are kept."""
        first = self._flows_met
        self._flows_met += count
        if self._keep is None:
            return np.ones(count, np.bool_)
        chosen = self._keep.flows[first : self._flows_met]
        _check_met(len(chosen), count)
        return chosen

    def _plain_flows(
        self, plain: PlainEvents
    ) -> tuple[tuple[Ints, Ints, Bools], list[tuple[int, Scalar]]]:
        """Kind, time and whether it binds the next slice; name and id of each one's arrow."""
        flows = plain.flows
        names, is_end = np.divmod(self._renumber_flows(plain.kinds, flows.kind), 2)
        kind = self._renumber_kinds(plain.kinds, flows.kind)
        columns = kind, flows.ts.copy(), (is_end == 1) & (flows.encloses == 0)
        return columns, list(zip(names.tolist(), flows.id.tolist(), strict=True))

    def _number_arrows(self, arrows: Sequence[tuple[int, Scalar]]) -> Ints:
        """A number for each arrow."""
        return np.fromiter(map(self._flow_keys.__getitem__, arrows), np.int64, len(arrows))

    def _flow_name(self, event: Event) -> int:
        """Twice the number of the arrow's category and name, and one more at its end."""
        return 2 * self._flow_names[event.cat, event.name] + (event.ph == "f")

    def _flow_arrow(self, event: Event) -> tuple[int, Scalar]:
        return self._flow_name(event) // 2, event.id

    def _build_flows(self) -> Flows:
        kind = _joined(self._flows.kind, np.int64)
        self._count_loaded(kind)
        _, category, track = self._fields_of(kind)
        roles = [FLOW_ROLES.get(phase, -1) for phase, *_ in self._kinds]
        return Flows(
            ts=_joined(self._flows.ts, np.int64),
            track=track,
            key=_joined(self._flows.key, np.int64),
            role=np.array(roles, np.int64)[kind],
            binds_next=_joined(self._flows.binds_next, np.bool_),
            category=category,
        )

    def _add_counter(self, event: Event, ts: int) -> str | None:
        track = self._track(event.pid, event.tid)
        samples = [
            CounterSample(ts, track, event.name, key, value)
            for key, value in _fields(event).items()
            if _is_number(value)
        ]
        self._counters.extend(samples)
        return None if samples else "counter without a number"

    def _add_async(self, event: Event, ts: int) -> None:
        track = self._track(event.pid, event.tid)
        role = ASYNC_ROLES[event.ph]
        self._asyncs.append(AsyncEvent(ts, track, event.name, event.cat or "", str(event.id), role))

    def _drop_open_asyncs(self) -> None:
        """Take out begins that nothing ends: the engine would give them a duration of -1."""
        begun: dict[tuple[str, str, str], list[int]] = {}
        by_time = sorted(range(len(self._asyncs)), key=lambda index: self._asyncs[index].ts)
        for index in by_time:
            event = self._asyncs[index]
            waiting = begun.setdefault((event.category, event.name, event.id), [])
            if event.role == 0:
                waiting.append(index)
            elif event.role == 2 and waiting:
                waiting.pop()
        left = {index for waiting in begun.values() for index in waiting}
        for index in left:
            category = self._asyncs[index].category
            phase = "b" if self._ledger.tally("b", category).loaded else "S"
            self._ledger.add(phase, category, loaded=-1)
            self._ledger.not_carried(phase, category, "asynchronous begin without an end")
        self._asyncs = [event for index, event in enumerate(self._asyncs) if index not in left]

    def _track(self, pid: Scalar, tid: Scalar) -> int:
        return self._tracks[Track(_identity(pid), _identity(tid))]


def _identity(value: Scalar) -> int | str:
    """A process or thread id; an absent one is 0, as in trace_processor."""
    if value is None:
        return 0
    if isinstance(value, float):
        return int(value) if math.isfinite(value) else str(value)
    return value


def _fields(event: Event) -> dict[str, Any]:
    try:
        fields = lenient_json(bytes(event.args) or b"{}")
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _is_number(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < _FLOAT_MAX  # longer ones are text that looks like a number
    return isinstance(value, (float, Decimal)) and math.isfinite(value)


def _check_met(met: int, wanted: int) -> None:
    if met != wanted:
        raise TraceReadError(
            "the file has changed while it was read", hint="Open it again, or work on a copy."
        )


def _pop_matching(open_edges: list[_Edge], name: str) -> _Edge | None:
    for index in range(len(open_edges) - 1, -1, -1):
        if not name or open_edges[index].event.name == name:
            return open_edges.pop(index)
    return None


def _merge_order(first: Ints, second: Ints) -> tuple[Ints, Ints]:
    """What sorts two runs of positions put end to end, and the place that each gets by it."""
    order = np.argsort(np.concatenate((first, second)), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return order, rank


def _joined(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
