"""Joins a trace's slices from the file's own columns: launches, forward ops, shapes.

The same as the package's SQL finds in the engine (queries/activities.sql, backward.sql,
shapes.sql, which say why), so that the tables that everybody wants need no engine. What is written
in a way that few traces know (text for a number, asynchronous events) is left to the engine: see
``asking``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from traceq.categories import GPU_WORK, RUNTIME
from traceq.layout import Layout, number_densely
from traceq.model import (
    ArgColumn,
    ArgKind,
    Bools,
    ForwardOps,
    Ints,
    JoinedTrace,
    Launches,
    Shapes,
    SliceTable,
    TraceData,
)

_PLAIN_KINDS = {
    "args.correlation": ("int",),
    "args.External id": ("int",),
    "args.Sequence number": ("int",),
    "args.Fwd thread id": ("int",),
    "args.device": ("int", "float", "string"),  # what is no number is as good as absent
    "args.stream": ("int", "float", "string"),
    "args.Input Dims": ("string",),
}
MAX_ARGS = 14
_NONE = -1
ABSENT = int(np.iinfo(np.int64).min)
NUMBERS_BACK = 4
"""How far before a backward op's number that of its forward op may be: see backward.sql."""


def join(data: TraceData, layout: Layout) -> JoinedTrace | None:
    """A laid-out trace's slices, joined; None where that is left to the engine."""
    if data.asyncs or not all(_is_plain(column) for column in data.slices.args):
        return None
    if _most_args(data.slices.args) > MAX_ARGS:
        return None
    sides = Sides.of(data, layout)
    return JoinedTrace(
        sides.slices,
        _find_launches(sides),
        _find_forward_ops(sides),
        _find_shapes(sides, data.strings),
    )


def slice_table(data: TraceData, layout: Layout) -> SliceTable:
    """The slices by their id in the engine, of a trace without asynchronous events."""
    slices, order = data.slices, layout.order
    name, names = _sorted_texts(slices.name[order], data.strings)
    category, categories = _sorted_texts(slices.category[order], data.strings)
    rank = _rank(order)
    parent = layout.parent[order]
    return SliceTable(
        ts=slices.ts[order],
        dur=slices.dur[order],
        name=name,
        category=category,
        parent=np.where(parent >= 0, rank[parent], _NONE) if len(order) else parent,
        adopted=np.sort(rank[np.array(list(layout.parent_override), np.int64)]),
        names=names,
        categories=categories,
    )


def _sorted_texts(indices: Ints, strings: list[str]) -> tuple[Ints, list[str]]:
    """The texts that indices (-1: empty) name, sorted, and the position of each index's text."""
    used, number = number_densely(indices + 1)  # without -1 that takes linear time
    texts = [strings[item - 1] if item else "" for item in used.tolist()]
    kept = sorted(set(texts))
    place = {text: position for position, text in enumerate(kept)}
    return np.array([place[text] for text in texts], np.int64)[number], kept


def _rank(order: Ints) -> Ints:
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def _most_args(columns: Sequence[ArgColumn]) -> int:
    """The most arguments of any slice; past :data:`MAX_ARGS` the engine is not given all."""
    if len(columns) <= MAX_ARGS:
        return len(columns)
    return int(np.bincount(np.concatenate([column.row for column in columns])).max())


def _is_plain(column: ArgColumn) -> bool:
    return column.kind in _PLAIN_KINDS.get(column.key, (column.kind,))


@dataclass(frozen=True, slots=True)
class Sides:
    """A trace by slice id: what the joins look at on both of their sides.

    ``source`` and ``sink`` are the slices that arrows join, ``process`` numbers the process of each
    slice, ``thread`` its lane on its track.
    """

    slices: SliceTable
    columns: dict[tuple[str, ArgKind], ArgColumn]
    rank: Ints
    source: Ints
    sink: Ints
    process: Ints
    thread: Ints

    @classmethod
    def of(cls, data: TraceData, layout: Layout) -> Sides:
        order, rank = layout.order, _rank(layout.order)
        pids = {pid: number for number, pid in enumerate(dict.fromkeys(t.pid for t in data.tracks))}
        process = np.array([pids[track.pid] for track in data.tracks], np.int64)
        lanes = int(layout.lane.max(initial=0)) + 1
        track = data.slices.track[order]
        return cls(
            slices=slice_table(data, layout),
            columns={(column.key, column.kind): column for column in data.slices.args},
            rank=rank,
            source=rank[layout.flow_source],
            sink=rank[layout.flow_sink],
            process=process[track] if len(process) else track,
            thread=track * lanes + layout.lane[order],
        )

    def number(self, key: str) -> Ints:
        """The argument of each slice, by id; ``ABSENT`` where it has none."""
        values = np.full(len(self.rank), ABSENT, np.int64)
        column = self.columns.get((key, "int"))
        if column is not None:
            values[self.rank[column.row]] = column.value
        return values


# Launches -----------------------------------------------------------------------------------


def _find_launches(sides: Sides) -> Launches:
    """By correlation number, else by the profiler's arrow, else by the number of the op."""
    is_activity = sides.slices.of_category(*GPU_WORK)
    activity = np.flatnonzero(is_activity)
    numbers = sides.number("args.correlation")
    number = numbers[activity]
    call = np.flatnonzero(sides.slices.of_category(*RUNTIME) & (numbers != ABSENT))
    shared = _shared_numbers(numbers[call], sides.process[call])
    call = call[(numbers[call] != 0) & ~np.isin(numbers[call], shared)]
    launch = _first_of(numbers[call], call, number)
    left = np.flatnonzero((launch == _NONE) & ~np.isin(number, shared))
    arrow = ~is_activity[sides.source]
    launch[left] = _first_of(sides.sink[arrow], sides.source[arrow], activity[left])
    left = np.flatnonzero(launch == _NONE)
    if len(left):
        launch[left] = _only_op(sides, activity[left])
    device, stream = (sides.number(f"args.{name}")[activity] for name in ("device", "stream"))
    return Launches(activity, _or_none(device), _or_none(stream), launch)


def _or_none(values: Ints) -> Ints:
    return np.where(values == ABSENT, _NONE, values)


def _shared_numbers(numbers: Ints, process: Ints) -> Ints:
    """The numbers that calls of several processes share: none of these is known to be the one."""
    if not len(process) or (process == process[0]).all():
        return np.zeros(0, np.int64)
    pairs = np.unique(np.stack((numbers, process)), axis=1)
    values, count = np.unique(pairs[0], return_counts=True)
    return values[count > 1]


def _first_of(keys: Ints, values: Ints, wanted: Ints) -> Ints:
    """For each wanted key the smallest of its values; -1 for none."""
    order = np.lexsort((values, keys))
    return _look_up(keys[order], values[order], wanted)


def _look_up(keys: Ints, values: Ints, wanted: Ints) -> Ints:
    """The value of the first of the sorted keys that is each wanted one; -1 where none is."""
    if not len(keys):
        return np.full(len(wanted), _NONE, np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], _NONE)


def _only_op(sides: Sides, activity: Ints) -> Ints:
    """The op of each activity's External id, where one op alone has that."""
    numbers = sides.number("args.External id")
    op = np.flatnonzero(sides.slices.of_category("cpu_op") & (numbers != ABSENT) & (numbers != 0))
    used, first, count = np.unique(numbers[op], return_index=True, return_counts=True)
    once = count == 1
    return _look_up(used[once], op[first[once]], numbers[activity])


# Forward ops --------------------------------------------------------------------------------


def _find_forward_ops(sides: Sides) -> ForwardOps:
    """By the profiler's arrow, else by autograd's sequence number, else by one just before it."""
    is_op = sides.slices.of_category("cpu_op")
    arrow = is_op[sides.source] & is_op[sides.sink]
    pointed, first = np.unique(sides.sink[arrow], return_inverse=True)
    by_arrow = np.full(len(pointed), len(is_op), np.int64)
    np.minimum.at(by_arrow, first, sides.source[arrow])
    backward, forward = _by_number(sides, is_op)
    numbered = ~np.isin(backward, pointed)
    op = np.concatenate((pointed, backward[numbered]))
    forward = np.concatenate((by_arrow, forward[numbered]))
    order = np.argsort(op)
    order = order[(forward[order] >= 0) & (forward[order] < op[order])]
    return ForwardOps(op[order], forward[order])


def _by_number(sides: Sides, is_op: Bools) -> tuple[Ints, Ints]:
    """Backward ops, and the forward op of each one's number; -1 where none is known."""
    threads = sides.number("args.Fwd thread id")
    is_backward = (threads != 0) & (threads != ABSENT)
    numbers = sides.number("args.Sequence number")
    sequenced = is_op & (numbers >= 0) & is_backward.any()
    backward = np.flatnonzero(sequenced & is_backward)
    found = np.full(len(backward), _NONE, np.int64)
    for process in np.unique(sides.process[backward]).tolist():
        here = sides.process[backward] == process
        forward = np.flatnonzero(sequenced & ~is_backward & (sides.process == process))
        found[here] = _numbered(
            numbers[forward], sides.thread[forward], forward, numbers[backward[here]]
        )
    return backward, found


def _numbered(numbers: Ints, thread: Ints, op: Ints, wanted: Ints) -> Ints:
    """The forward op of each wanted number of a process; ``op`` rises.

    Of the ops with one number the last has made the node, where one thread alone has the number.
    Where one thread numbers, a wanted number that no op has, and that is not beyond the last,
    belongs to the op just before.
    """
    if not len(op):
        return np.full(len(wanted), _NONE, np.int64)
    order = np.argsort(numbers, kind="stable")
    keys, first, count = np.unique(numbers[order], return_index=True, return_counts=True)
    sorted_thread = thread[order]
    alone = np.minimum.reduceat(sorted_thread, first) == np.maximum.reduceat(sorted_thread, first)
    keys, made = keys[alone], op[order][(first + count - 1)[alone]]
    found = _look_up(keys, made, wanted)
    if len(keys) and (thread == thread[0]).all():
        before = np.searchsorted(keys, wanted) - 1
        near = (before >= 0) & (keys[before] >= wanted - NUMBERS_BACK) & (wanted < keys[-1])
        found = np.where((found == _NONE) & near, made[before], found)
    return found


# Shapes -------------------------------------------------------------------------------------


def _find_shapes(sides: Sides, strings: list[str]) -> Shapes:
    column, nothing = sides.columns.get(("args.Input Dims", "string")), np.zeros(0, np.int64)
    if column is None:
        return Shapes(nothing, nothing, [])
    ids = sides.rank[column.row]
    chosen = np.flatnonzero(sides.slices.of_category("cpu_op")[ids])
    chosen = chosen[np.argsort(ids[chosen])]
    return Shapes(ids[chosen], *_sorted_texts(column.value[chosen], strings))
