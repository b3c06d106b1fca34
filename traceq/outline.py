"""Lays the scopes of a trace out as ordered trees that can be compared with those of another.

A node is a slice at or below a scope; nodes of a scope stand together, each before what is below
it. Two nodes have the same *form* where all below them has the same ops in the same order, so equal
subtrees are told by one number. What differs between two outlines is found in ``align``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traceq.calltree import NONE, depths, nearest, nearest_above, outermost
from traceq.categories import GPU_WORK
from traceq.model import Bools, Ints, SliceTable
from traceq.selection import GPU_LABEL, Selection
from traceq.steps import Steps, step_of

Forms = NDArray[np.uint64]

NO_CPU = (*GPU_WORK, GPU_LABEL, "Trace")
"""Categories of slices that are no CPU time."""

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_BASE = np.uint64(0x9E3779B97F4A7C15)


class Vocabulary:
    """Numbers for ops, the same for all outlines that are to be compared."""

    def __init__(self, *first: str) -> None:
        self._numbers = {word: number for number, word in enumerate(first)}

    def __getitem__(self, number: int) -> str:
        return self.ops[number]

    @property
    def ops(self) -> list[str]:
        """The op of each number."""
        return list(self._numbers)

    def among(self, ops: Collection[str]) -> Bools:
        """Marks, of all numbers, those of some ops."""
        return np.array([op in ops for op in self._numbers], np.bool_)

    def number(self, ops: Sequence[str]) -> Ints:
        """The number of each op, given out in the order of first use."""
        numbers = self._numbers
        return np.array([numbers.setdefault(op, len(numbers)) for op in ops], np.int64)


@dataclass(frozen=True, slots=True)
class Outline:
    """The scopes of a trace as ordered trees; one entry a node, in depth-first order.

    ``slice`` is the slice id, ``parent`` the node around (-1: a scope), ``around`` the same, but of
    a step that is a scope the frame that it is in, ``op`` the number in the vocabulary, ``size``
    the number of nodes at and below, ``form`` a hash of the ops of these in their order; ``dur``
    and ``self_time`` in ns (a node on a lane of its own overlaps its siblings: ``on_lane`` is
    False, and no self time is less for it). ``node_of`` gives the node that each slice of the trace
    is or is below (-1: none). ``scopes`` are the nodes of the scopes, ``name`` and ``step`` (place
    among the steps that have scopes, -1: none) tell of each of them.
    """

    slice: Ints
    parent: Ints
    around: Ints
    op: Ints
    size: Ints
    form: Forms
    dur: Ints
    self_time: Ints
    on_lane: Bools
    node_of: Ints
    scopes: Ints
    name: tuple[str, ...]
    step: Ints

    def __len__(self) -> int:
        return len(self.slice)

    @property
    def steps(self) -> int:
        """How many steps have scopes."""
        return int(self.step.max(initial=NONE)) + 1

    def step_of(self, nodes: Ints) -> Ints:
        """The step of each node's scope."""
        return self.step[np.searchsorted(self.scopes, nodes, side="right") - 1]

    def children(self, node: int) -> list[int]:
        """The nodes directly below one, in their order."""
        found, at, end = [], node + 1, node + int(self.size[node])
        while at < end:
            found.append(at)
            at += int(self.size[at])
        return found


def lay_out(
    slices: SliceTable,
    fold: Sequence[str],
    selection: Selection,
    steps: Steps,
    vocabulary: Vocabulary,
) -> Outline:
    """The outline of the scopes that start within the selection's windows.

    ``fold`` gives the op of each name of the trace. Without scopes in the selection the outermost
    slices of all threads take their place, and those of steps, which a frame may be around.
    """
    roots = _roots(slices, selection, steps)
    inside = nearest(slices.parent, roots) >= 0
    # A scope may be a span of the profiler's own ("Trace") where it is asked for.
    inside &= ~slices.of_category(*(NO_CPU if selection.under is None else NO_CPU[:-1]))
    ids = np.flatnonzero(inside)
    position = np.full(len(slices) + 1, NONE, np.int64)
    position[ids] = np.arange(len(ids))
    around = position[nearest_above(slices.parent, inside, ids)]
    parent = np.where(roots[ids], NONE, around)
    op = vocabulary.number(fold)[slices.name[ids]] if len(ids) else ids
    levels = _levels(parent)
    size, form = _grow(parent, op, levels)
    order = np.argsort(_depth_first(parent, size, levels), kind="stable")
    return _in_order(slices, ids, parent, around, op, size, form, order, inside, steps)


def _roots(slices: SliceTable, selection: Selection, steps: Steps) -> Bools:
    counted = selection.counted(slices)
    if selection.under is None:
        # A frame around everything may start before the windows: what is within them counts.
        marks = ~slices.of_category(*NO_CPU)
        marks = marks if counted is None else marks & counted
        roots = outermost(slices.parent, marks)
        roots[steps.slices] |= marks[steps.slices]
        return roots
    roots = outermost(slices.parent, selection.marks(slices))
    return roots if counted is None else roots & counted


def _levels(parent: Ints) -> list[Ints]:
    """The nodes of each depth, outermost first, in the order of their start."""
    depth = depths(parent)
    order = np.argsort(depth, kind="stable")
    return np.split(order, np.cumsum(np.bincount(depth))[:-1]) if len(depth) else []


def _grow(parent: Ints, op: Ints, levels: list[Ints]) -> tuple[Ints, Forms]:
    """Size and form of each node, from the innermost outwards.

    A form mixes the op with a polynomial of the children's forms, modulo 2**64: equal trees have
    equal forms, and others do but for chance (1 in 2**64 a pair).
    """
    size = np.ones(len(parent), np.int64)
    below = np.zeros(len(parent), np.uint64)
    form = np.zeros(len(parent), np.uint64)
    place = _places(parent)
    power = np.cumprod(np.full(int(place.max(initial=0)) + 1, _BASE, np.uint64))
    for level in reversed(levels):
        form[level] = _mixed(op[level].astype(np.uint64) * _BASE + below[level] + np.uint64(1))
        around = parent[level]
        inner, around = level[around >= 0], around[around >= 0]
        np.add.at(size, around, size[inner])
        np.add.at(below, around, form[inner] * power[place[inner]])
    return size, form


def _mixed(values: Forms) -> Forms:
    """The finalizer of SplitMix64 (Steele, Lea & Flood 2014): neighbours become far apart."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def _places(parent: Ints) -> Ints:
    """The place of each node among the nodes of its parent."""
    order = np.argsort(parent, kind="stable")
    ordered = parent[order]
    first = np.searchsorted(ordered, ordered, side="left")
    place = np.empty(len(parent), np.int64)
    place[order] = np.arange(len(parent)) - first
    return place


def _depth_first(parent: Ints, size: Ints, levels: list[Ints]) -> Ints:
    """The place of each node where all below it follows it, and its next sibling that."""
    place = np.zeros(len(parent), np.int64)
    for depth, level in enumerate(levels):
        by_parent = level[np.argsort(parent[level], kind="stable")]
        before = np.cumsum(size[by_parent]) - size[by_parent]
        if not depth:
            place[by_parent] = before
            continue
        around = parent[by_parent]
        first = np.searchsorted(around, around, side="left")
        place[by_parent] = place[around] + 1 + before - before[first]
    return place


def _in_order(
    slices: SliceTable,
    ids: Ints,
    parent: Ints,
    around: Ints,
    op: Ints,
    size: Ints,
    form: Forms,
    order: Ints,
    inside: Bools,
    steps: Steps,
) -> Outline:
    """The outline, once the order of its nodes is known.

    ``around`` is the node around each, also where it is a scope all the same: no own time of it.
    """
    place = np.empty(len(order) + 1, np.int64)
    place[order], place[-1] = np.arange(len(order)), NONE
    position = np.full(len(slices) + 1, NONE, np.int64)
    position[ids] = place[:-1]
    ids, parent, around = ids[order], place[parent[order]], place[around[order]]
    on_lane = np.ones(len(slices), np.bool_)
    on_lane[slices.adopted] = False
    dur, lane = slices.dur[ids], on_lane[ids]
    scopes = np.flatnonzero(parent < 0)
    return Outline(
        slice=ids,
        parent=parent,
        around=around,
        op=op[order],
        size=size[order],
        form=form[order],
        dur=dur,
        self_time=_own_time(dur, around, lane),
        on_lane=lane,
        node_of=position[nearest(slices.parent, inside)],
        scopes=scopes,
        name=tuple(slices.names[item] for item in slices.name[ids[scopes]].tolist()),
        step=_rank(step_of(steps, slices.ts[ids[scopes]])),
    )


def _own_time(dur: Ints, around: Ints, on_lane: Bools) -> Ints:
    own, counted = dur.copy(), (around >= 0) & on_lane
    np.subtract.at(own, around[counted], dur[counted])
    return own


def rebuild(
    *,
    slice_: Ints,
    parent: Ints,
    around: Ints,
    op: Ints,
    dur: Ints,
    on_lane: Bools,
    name: tuple[str, ...],
    step: Ints,
) -> Outline:
    """An outline from the columns that the others follow from; ``node_of`` is empty.

    Raises ValueError where these are no trees in depth-first order.
    """
    scopes = np.flatnonzero(parent < 0)
    is_tree = bool((parent < np.arange(len(parent))).all())
    if not is_tree or {len(scopes), len(name), len(step)} != {len(scopes)}:
        raise ValueError("no trees in depth-first order")
    size, form = _grow(parent, op, _levels(parent))
    return Outline(
        slice=slice_,
        parent=parent,
        around=around,
        op=op,
        size=size,
        form=form,
        dur=dur,
        self_time=_own_time(dur, around, on_lane),
        on_lane=on_lane,
        node_of=np.zeros(0, np.int64),
        scopes=scopes,
        name=name,
        step=step,
    )


def _rank(step: Ints) -> Ints:
    """The place of each step among those that are there; -1 stays."""
    return np.where(step >= 0, np.searchsorted(np.unique(step[step >= 0]), step), NONE)


def lay_out_kernels(
    outline: Outline, nodes: Ints, order: Ints, dur: Ints, short: Ints, full: Ints
) -> Outline:
    """The GPU activities of the scopes as an outline: below each scope, those that it launched.

    All have one entry an activity: the ``nodes`` of the other outline that they belong to, the
    ``order`` of their launches, ``dur`` (ns), and numbers of their names in ``short`` and in
    ``full`` (of two vocabularies that the outlines to be compared share; 0 stands for the scopes).
    A scope's time is the sum of theirs. ``slice`` holds activities instead (-1: a scope).
    """
    scope = np.searchsorted(outline.scopes, nodes, side="right") - 1
    by_launch = np.lexsort((order, scope))
    count = np.bincount(scope, minlength=len(outline.scopes))
    roots = np.arange(len(count)) + np.cumsum(count) - count
    leaf = np.ones(len(count) + len(nodes), np.bool_)
    leaf[roots] = False
    activity = np.full(len(leaf), NONE, np.int64)
    activity[leaf] = by_launch
    parent = np.full(len(leaf), NONE, np.int64)
    parent[leaf] = roots[scope[by_launch]]
    op, form = np.zeros(len(leaf), np.int64), np.zeros(len(leaf), np.int64)
    op[leaf], form[leaf] = short[by_launch], full[by_launch]
    time = np.zeros(len(leaf), np.int64)
    time[leaf] = dur[by_launch]
    own = time.copy()
    np.add.at(time, parent[leaf], own[leaf])
    size, forms = _grow(parent, form, _levels(parent))
    return Outline(
        slice=activity,
        parent=parent,
        around=parent,
        op=op,
        size=size,
        form=forms,
        dur=time,
        self_time=own,
        on_lane=np.ones(len(leaf), np.bool_),
        node_of=np.zeros(0, np.int64),
        scopes=roots,
        name=outline.name,
        step=outline.step,
    )
