"""Writes a laid-out trace as a Fuchsia trace (FXT), the leanest form that the engine reads.

Format: fuchsia.dev/fuchsia-src/reference/tracing/trace-format. Nothing is dropped, and the bytes
are checked before they are handed out, because the importer skips what it cannot read in silence.
Where slices go is settled by ``layout``; what they are, by ``kineto``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from traceq.layout import Layout, number_densely
from traceq.model import ArgColumn, Ints, TraceData, Track

MAGIC = 0x0016547846040010
TICKS_PER_SECOND = 1_000_000_000
STRING_LIMIT = 32_752
"""Longest string in bytes that a record's 12-bit length in words can hold."""

MAX_STRINGS = 32_767
MAX_THREADS = 255
MAX_ARGS = 15
PRIVATE_IDS_FROM = 3_000_000_000
"""Process and thread numbers given here, where the trace's own do not fit 32 bits."""

PARENT_KEY = "traceq.parent"
"""Argument of a slice whose innermost container is on another lane: that container's slice id."""

_INITIALIZATION, _STRING, _THREAD, _EVENT, _KERNEL_OBJECT = 1, 2, 3, 4, 7
_COUNTER, _COMPLETE, _ASYNC_BEGIN, _FLOW_BEGIN, _FLOW_END = 1, 4, 5, 8, 10
_PROCESS, _NAMED_THREAD = 1, 2
_INT32, _UINT32, _INT64, _FLOAT, _STRING_ARG, _KOID, _BOOL = 1, 2, 3, 5, 6, 8, 9

Words = NDArray[np.uint64]


class EncodingError(AssertionError):
    """The bytes are not what they should be: a defect of this module, never of the trace."""


def encode(data: TraceData, layout: Layout) -> list[bytes]:
    """The trace as chunks of Fuchsia trace bytes, in time order; see :class:`Layout`."""
    data = _with_parents(data, layout)
    threads = _ThreadNumbers(data, layout)
    names = _StringTable()
    head = [
        _words(MAGIC, _header(_INITIALIZATION, 2), TICKS_PER_SECOND),
        *_name_records(data, threads, names),
    ]
    records = _build_records(data, layout, threads)
    body = list(_Encoder(data, threads).encode(records))
    return [b"".join(head), *body, b"".join(_rare_records(data, threads))]


def _with_parents(data: TraceData, layout: Layout) -> TraceData:
    """Add the argument that tells where a slice belongs which could not stay with its parent."""
    if not layout.parent_override:
        return data
    rows = np.array(sorted(layout.parent_override), np.int64)
    containers = np.array([layout.parent_override[row] for row in rows.tolist()], np.int64)
    column = ArgColumn(PARENT_KEY, "int", rows, slice_ids(data, layout)[containers])
    return replace(data, slices=replace(data.slices, args=(column, *data.slices.args)))


def slice_ids(data: TraceData, layout: Layout) -> Ints:
    """The id that the engine will give each slice: its rank in time, asynchronous ones counted."""
    rank = np.empty(len(layout.order), np.int64)
    rank[layout.order] = np.arange(len(layout.order))
    others = np.sort(np.array([item.ts for item in data.asyncs if item.role < 2], np.int64))
    return rank + np.searchsorted(others, data.slices.ts, side="left")


# Processes and threads --------------------------------------------------------------------


class _ThreadNumbers:
    """Gives every lane of every track a process and a thread number of at most 32 bits."""

    def __init__(self, data: TraceData, layout: Layout) -> None:
        lane_count = int(layout.lane.max(initial=0)) + 1
        code = data.slices.track * lane_count + layout.lane
        used, self.of_slice = number_densely(code)
        self._lane_count = lane_count
        self._index_of_code = {int(value): index for index, value in enumerate(used)}
        self._tracks = data.tracks
        self._private = PRIVATE_IDS_FROM
        self._pids: dict[int | str, int] = {}
        self.threads = [
            (value // lane_count, value % lane_count) for value in used.tolist()
        ]  # (track, lane) of each
        self.pids = [self.pid(data.tracks[track].pid) for track, _ in self.threads]
        self.tids = [self._tid(data.tracks[track].tid, lane) for track, lane in self.threads]

    def pid(self, pid: int | str) -> int:
        """The process number that stands for a pid."""
        if pid not in self._pids:
            self._pids[pid] = pid if _fits(pid) else self._next_private()
        return self._pids[pid]

    def own_thread(self, track: int) -> tuple[int, int]:
        """Process and thread number of a track that may have no slices."""
        index = self._index_of_code.get(track * self._lane_count)
        if index is not None:
            return self.pids[index], self.tids[index]
        pid, tid = self._tracks[track]
        return self.pid(pid), self._tid(tid, 0)

    def _tid(self, tid: int | str, lane: int) -> int:
        return tid if lane == 0 and _fits(tid) else self._next_private()

    def _next_private(self) -> int:
        self._private += 1
        return self._private


def _fits(number: int | str) -> TypeGuard[int]:
    return isinstance(number, int) and 0 <= number < PRIVATE_IDS_FROM


def _name_records(data: TraceData, threads: _ThreadNumbers, names: _StringTable) -> Iterator[bytes]:
    """Names of processes and threads; where the trace's own id was replaced, it is the name."""
    process = {pid: str(pid) for pid, _ in data.tracks if not _fits(pid)}
    process |= data.process_names
    for pid, name in process.items():
        number = threads.pid(pid)
        definition, ref = names.ref(name)
        header = _header(_KERNEL_OBJECT, 2) | _PROCESS << 16 | ref << 24
        yield definition + _words(header, number)
    process_key, key_ref = names.ref("process")
    yield process_key
    for (track, lane), pid, tid in zip(threads.threads, threads.pids, threads.tids, strict=True):
        name = _lane_name(data, track, lane)
        if name:
            definition, ref = names.ref(name)
            header = _header(_KERNEL_OBJECT, 4) | _NAMED_THREAD << 16 | ref << 24 | 1 << 40
            yield definition + _words(header, tid, _arg_header(_KOID, 2, key_ref), pid)


def _lane_name(data: TraceData, track_index: int, lane: int) -> str:
    track: Track = data.tracks[track_index]
    name = data.thread_names.get(track, "" if _fits(track.tid) else str(track.tid))
    if lane == 0:
        return name
    return f"{name.strip() or track.tid} ({lane + 1})"


# Records of slices and flows ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Records:
    """Slices and flow ends in writing order; ``slice`` is the slice's index, -1 for a flow end.

    ``tail`` is the last word of a record: the end time, or the flow's number. ``place`` gives each
    slice's position among the records.
    """

    type: Ints
    ts: Ints
    tail: Ints
    thread: Ints
    slice: Ints
    place: Ints


def _build_records(data: TraceData, layout: Layout, threads: _ThreadNumbers) -> _Records:
    """Interleave the flow ends with the slices they bind to: right after them, same start."""
    slices, order, flows = data.slices, layout.order, len(layout.flow_source)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    bound = np.concatenate((layout.flow_source, layout.flow_sink))
    ends_behind = np.bincount(rank[bound], minlength=len(order))
    place_by_rank = np.arange(len(order)) + np.cumsum(ends_behind) - ends_behind
    place = place_by_rank[rank]
    kind = np.full(len(order) + len(bound), _COMPLETE, np.int64)
    owner, tail = np.empty_like(kind), np.empty_like(kind)
    owner[place], tail[place] = np.arange(len(order)), slices.ts + slices.dur
    at, sequence = _flow_places(place[bound])
    owner[at], tail[at] = bound[sequence], (sequence % max(flows, 1))
    kind[at] = np.where(sequence < flows, _FLOW_BEGIN, _FLOW_END)
    return _Records(
        type=kind,
        ts=slices.ts[owner],
        tail=tail,
        thread=threads.of_slice[owner],
        slice=np.where(kind == _COMPLETE, owner, -1),
        place=place,
    )


def _flow_places(place_of_owner: Ints) -> tuple[Ints, Ints]:
    """Where flow ends go, and which: one after the other behind the slice that each binds to."""
    sequence = np.argsort(place_of_owner, kind="stable")  # starts stand before ends
    owner = place_of_owner[sequence]
    position = np.arange(len(owner))
    first = np.maximum.accumulate(np.where(np.diff(owner, prepend=-1) != 0, position, 0))
    return owner + 1 + position - first, sequence


# Encoding -----------------------------------------------------------------------------------

_BLOCK_RECORDS = 100_000
_HOT_STRINGS = 16_384
"""Strings that keep their number for the whole trace where not all of them fit the table."""


@dataclass(frozen=True, slots=True)
class _PlacedArgs:
    """An argument column sorted by record: ``place`` rises; values are written as they stand."""

    key: int
    kind: str
    place: Ints
    value: NDArray[Any]


class _Encoder:
    """Turns records into bytes, block by block, defining the strings that each block names."""

    def __init__(self, data: TraceData, threads: _ThreadNumbers) -> None:
        self._data = data
        self._threads = threads
        self._strings = list(data.strings)
        self._refs = np.zeros(0, np.int64)

    def encode(self, records: _Records) -> Iterator[bytes]:
        args = self._place_args(records)
        name, category = self._names_of(records)
        self._refs = np.zeros(len(self._strings), np.int64)
        hot, bounds = self._plan(name, category, args)
        yield b"".join([*self._thread_records(), *self._define(hot, 1)])
        for first, last in pairwise(bounds):
            chosen = [_cut(column, first, last) for column in args]
            part = slice(first, last)
            used = [name[part], category[part], *(c.value for c in chosen if c.kind == "string")]
            cold = self._not_defined(used)
            yield b"".join(self._define(cold, len(hot) + 1))
            yield self._block(records, part, name[part], category[part], chosen)
            self._refs[cold] = 0

    def _not_defined(self, used: Sequence[Ints]) -> Ints:
        """The strings in use that no block before has defined for good, rising."""
        is_used = np.zeros(len(self._strings) + 1, np.bool_)  # the last one is what -1 points at
        for index in used:
            is_used[index] = True
        return np.flatnonzero(is_used[:-1] & (self._refs == 0))

    def _names_of(self, records: _Records) -> tuple[Ints, Ints]:
        """String indices of name and category of each record; -1 for none."""
        is_slice, owner = records.slice >= 0, np.maximum(records.slice, 0)
        if not len(self._data.slices):
            return np.full(0, -1), np.full(0, -1)
        name = np.where(is_slice, self._data.slices.name[owner], -1)
        return name, np.where(is_slice, self._data.slices.category[owner], -1)

    # Arguments

    def _place_args(self, records: _Records) -> list[_PlacedArgs]:
        """Sort the columns by record; arguments past the fifteenth of an event are let go."""
        count = np.zeros(len(records.ts), np.int64)
        placed = []
        for column in self._data.slices.args:
            place = records.place[column.row]
            fits = count[place] < MAX_ARGS
            count[place] += 1
            sequence = np.flatnonzero(fits)[np.argsort(place[fits], kind="stable")]
            key = self._string_index(column.key)
            placed.append(_PlacedArgs(key, column.kind, place[sequence], column.value[sequence]))
        over = int((count > MAX_ARGS).sum())
        if over:
            self._data.ledger.notes.append(
                f"{over} events have more than {MAX_ARGS} arguments; the first {MAX_ARGS} are kept"
            )
        return placed

    def _string_index(self, text: str) -> int:
        self._strings.append(text)
        return len(self._strings) - 1

    # Strings

    def _plan(self, name: Ints, category: Ints, args: list[_PlacedArgs]) -> tuple[Ints, list[int]]:
        """Which strings to number once for all, and where to cut so that the others fit."""
        uses = np.zeros(len(self._strings), np.int64)
        for indices in (name, category, *(c.value for c in args if c.kind == "string")):
            uses += np.bincount(indices[indices >= 0], minlength=len(uses))
        uses[[column.key for column in args]] = np.iinfo(np.int64).max
        by_use = np.argsort(-uses, kind="stable")[: np.count_nonzero(uses)]
        steps = np.arange(0, len(name) + _BLOCK_RECORDS, _BLOCK_RECORDS)
        bounds = np.minimum(steps, len(name)).tolist()
        if len(by_use) <= MAX_STRINGS:
            return by_use, bounds
        hot = by_use[:_HOT_STRINGS]
        is_cold = uses > 0
        is_cold[hot] = False
        cold_uses = is_cold[name].astype(np.int64) * (name >= 0)
        cold_uses += is_cold[category] * (category >= 0)
        for column in args:
            if column.kind == "string":
                cold_uses[column.place] += is_cold[column.value]
        room = MAX_STRINGS - _HOT_STRINGS - 32  # one record may name up to 17 of them
        cuts = np.flatnonzero(np.diff(np.cumsum(cold_uses) // room, prepend=0))
        return hot, sorted({*bounds, *cuts.tolist()})

    def _define(self, strings: Ints, first: int) -> Iterator[bytes]:
        for ref, index in enumerate(strings.tolist(), first):
            self._refs[index] = ref
            yield string_record(ref, self._strings[index])

    def _ref(self, indices: Ints) -> Ints:
        return np.where(indices >= 0, self._refs[np.maximum(indices, 0)], 0)

    # Threads

    def _thread_records(self) -> Iterator[bytes]:
        """Threads beyond the table's size are named in full in each of their records."""
        numbers = zip(self._threads.pids, self._threads.tids, strict=True)
        for ref, (pid, tid) in enumerate(islice(numbers, MAX_THREADS), 1):
            yield _words(_header(_THREAD, 3) | ref << 16, pid, tid)

    # Records

    def _block(
        self, records: _Records, part: slice, name: Ints, category: Ints, args: list[_PlacedArgs]
    ) -> bytes:
        thread = records.thread[part]
        inline = thread >= MAX_THREADS
        arg_count, arg_words = _arg_sizes(args, len(thread))
        size = 3 + 2 * inline + arg_words
        start = np.concatenate(([0], np.cumsum(size)))
        out = np.zeros(int(start[-1]), np.uint64)
        header = (
            _EVENT
            | size << 4
            | records.type[part] << 16
            | arg_count << 20
            | np.where(inline, 0, thread + 1) << 24
            | self._ref(category) << 32
        )
        at = start[:-1]
        out[at] = header.astype(np.uint64) | self._ref(name).astype(np.uint64) << np.uint64(48)
        out[at + 1] = records.ts[part].astype(np.uint64)
        self._write_inline_threads(out, at[inline] + 2, thread[inline])
        self._write_args(out, at + 2 + 2 * inline, args)
        out[start[1:] - 1] = records.tail[part].astype(np.uint64)
        _check(out, start)
        return out.tobytes()

    def _write_inline_threads(self, out: Words, at: Ints, thread: Ints) -> None:
        out[at] = np.array(self._threads.pids, np.uint64)[thread]
        out[at + 1] = np.array(self._threads.tids, np.uint64)[thread]

    def _write_args(self, out: Words, cursor: Ints, args: list[_PlacedArgs]) -> None:
        cursor = cursor.copy()
        for column in args:
            kind, size, payload, long_value = self._arg_words(column)
            at = cursor[column.place]
            key = int(self._refs[column.key])
            header = kind | size << 4 | key << 16
            out[at] = header.astype(np.uint64) | payload.astype(np.uint64) << np.uint64(32)
            is_long = size == 2
            out[at[is_long] + 1] = long_value[is_long]
            cursor[column.place] += size

    def _arg_words(self, column: _PlacedArgs) -> tuple[Ints, Ints, Ints, Words]:
        """Type, size in words, upper half of the header, and second word of each value."""
        value = column.value
        if column.kind == "float":
            kind, size, upper = _constants(len(value), _FLOAT, 2, 0)
            return kind, size, upper, value.view(np.uint64)
        words: Words = value.astype(np.int64).view(np.uint64)
        if column.kind == "string":
            kind, size, _ = _constants(len(value), _STRING_ARG, 1, 0)
            return kind, size, self._ref(value), words
        if column.kind == "bool":
            kind, size, _ = _constants(len(value), _BOOL, 1, 0)
            return kind, size, value, words
        short = (value >= 0) & (value < 2**32)
        return np.where(short, _UINT32, _INT64), np.where(short, 1, 2), value * short, words


def _constants(count: int, first: int, second: int, third: int) -> tuple[Ints, Ints, Ints]:
    return (
        np.full(count, first, np.int64),
        np.full(count, second, np.int64),
        np.full(count, third, np.int64),
    )


def _cut(column: _PlacedArgs, first: int, last: int) -> _PlacedArgs:
    """The part of a column that belongs to the records from ``first`` to ``last``."""
    low, high = np.searchsorted(column.place, (first, last))
    return _PlacedArgs(
        column.key, column.kind, column.place[low:high] - first, column.value[low:high]
    )


def _arg_sizes(args: list[_PlacedArgs], records: int) -> tuple[Ints, Ints]:
    """Number of arguments and of argument words of each record."""
    count, words = np.zeros(records, np.int64), np.zeros(records, np.int64)
    for column in args:
        count[column.place] += 1
        if column.kind == "int":
            is_long = (column.value < 0) | (column.value >= 2**32)
            words[column.place] += 1 + is_long
        else:
            words[column.place] += 2 if column.kind == "float" else 1
    return count, words


def _check(out: Words, start: Ints) -> None:
    """Walk the records by the sizes they state: they must be events, and fill the block."""
    header = out[start[:-1]].astype(np.int64)
    stated = header >> 4 & 0xFFF
    if not ((header & 0xF) == _EVENT).all() or not (stated == np.diff(start)).all():
        raise EncodingError("a record does not state its own size")


# Counters and asynchronous spans: rare, so one record at a time -------------------------------


class _StringTable:
    """Numbers strings as they come, starting anew when the table is full."""

    def __init__(self) -> None:
        self._refs: dict[str, int] = {}

    def ref(self, text: str) -> tuple[bytes, int]:
        """The record that defines the string (empty if it is defined), and its number."""
        if text in self._refs:
            return b"", self._refs[text]
        if len(self._refs) == MAX_STRINGS:
            self._refs.clear()
        self._refs[text] = ref = len(self._refs) + 1
        return string_record(ref, text), ref


def _rare_records(data: TraceData, threads: _ThreadNumbers) -> Iterator[bytes]:
    table = _StringTable()
    for sample in data.counters:
        definitions, (name, key) = _refs(table, sample.name, sample.key)
        whole = isinstance(sample.value, int) and -(2**63) <= sample.value < 2**63
        kind = _INT64 if whole else _FLOAT
        raw = struct.pack("<q", sample.value) if whole else struct.pack("<d", float(sample.value))
        value = int.from_bytes(raw, "little")
        argument = (_arg_header(kind, 2, key), value)
        header = _header(_EVENT, 7) | _COUNTER << 16 | 1 << 20 | name << 48
        thread = threads.own_thread(sample.track)
        yield definitions + _words(header, sample.ts, *thread, *argument, 0)
    numbers: dict[tuple[str, str, str], int] = {}
    for event in data.asyncs:
        number = numbers.setdefault((event.category, event.name, event.id), len(numbers))
        definitions, (name, category) = _refs(table, event.name, event.category)
        header = _header(_EVENT, 5) | (_ASYNC_BEGIN + event.role) << 16 | category << 32
        body = (event.ts, *threads.own_thread(event.track), number)
        yield definitions + _words(header | name << 48, *body)


def _refs(table: _StringTable, *texts: str) -> tuple[bytes, list[int]]:
    found = [table.ref(text) for text in texts]
    return b"".join(definition for definition, _ in found), [ref for _, ref in found]


# Words --------------------------------------------------------------------------------------


def string_record(ref: int, text: str) -> bytes:
    """Define a string; one longer than a record holds is cut at a whole character."""
    raw = text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace")
    if len(raw) > STRING_LIMIT:
        raw = raw[:STRING_LIMIT].decode("utf-8", "ignore").encode()
    words = (len(raw) + 7) // 8
    header = _header(_STRING, 1 + words) | ref << 16 | len(raw) << 32
    return _words(header) + raw.ljust(8 * words, b"\0")


def _header(record_type: int, words: int) -> int:
    return record_type | words << 4


def _arg_header(kind: int, words: int, key: int) -> int:
    return kind | words << 4 | key << 16


def _words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *(value & 0xFFFF_FFFF_FFFF_FFFF for value in values))
