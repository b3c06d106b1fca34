"""Merges slices by their path into a call tree, and sums over it.

A *forest* is some slices of a trace (all of them, or only modules and ops), each hanging below the
nearest chosen one around it. A *tree* merges the slices of a forest that have the same labels on
the way down. Pure arrays in, arrays out; GPU time is left to ``gpu``, tables to ``ops``,
``scopes`` and ``tree``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from traceq.model import Bools, Ints, SliceTable

NONE = -1
"""No slice, no node."""


# Forest -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forest:
    """Chosen slices of a trace, in rising order of id.

    ``ids`` are their slice ids; ``parent`` is the position in the forest of the nearest chosen
    slice around each (-1: none); ``home`` gives for every slice of the trace the position of the
    nearest chosen one that it is or is below; ``self_time`` is the duration (ns) less that of the
    forest's slices directly below on the same lane.
    """

    ids: Ints
    parent: Ints
    home: Ints
    dur: Ints
    self_time: Ints

    def __len__(self) -> int:
        return len(self.ids)


def plant(slices: SliceTable, chosen: Bools) -> Forest:
    """The forest of the chosen slices."""
    ids = np.flatnonzero(chosen)
    position = np.full(len(slices) + 1, NONE, np.int64)  # the last one is what -1 points at
    position[ids] = np.arange(len(ids))
    if len(ids) == len(slices):
        home, parent = ids, slices.parent
    else:
        home = position[nearest(slices.parent, chosen)]
        parent = position[nearest_above(slices.parent, chosen, ids)]
    dur = slices.dur[ids]
    on_lane = parent
    if len(slices.adopted):
        # Slices on another lane overlap their siblings: their time cannot be taken away as well.
        lane_parent = slices.parent.copy()
        lane_parent[slices.adopted] = NONE
        on_lane = position[nearest_above(lane_parent, chosen, ids)]
    below = np.zeros(len(ids), np.int64)
    has_parent = on_lane >= 0
    np.add.at(below, on_lane[has_parent], dur[has_parent])
    return Forest(ids, parent, home, dur, dur - below)


def nearest_above(parent: Ints, chosen: Bools, ids: Ints) -> Ints:
    """For each of the ids the nearest chosen slice around it; -1 for none."""
    above = parent[ids]
    found = nearest(parent, chosen)
    return np.where(above >= 0, found[above], NONE)


def nearest(parent: Ints, chosen: Bools) -> Ints:
    """For each slice the nearest chosen one that it is or is below; -1 for none."""
    nowhere = len(parent)  # what stands for no parent: it leads to itself, as a chosen slice does
    jump = np.append(parent, nowhere).astype(np.int32)
    jump[jump < 0] = nowhere
    own = np.flatnonzero(chosen)
    jump[own] = own
    is_end = np.append(chosen, True)
    while not is_end.take(jump).all():
        # Each round doubles the way that a slice has looked up.
        jump = jump.take(jump)
    found = jump[:-1].astype(np.int64)
    found[found == nowhere] = NONE
    return found


def outermost(parent: Ints, chosen: Bools) -> Bools:
    """Marks the chosen slices that have no chosen one around them."""
    ids = np.flatnonzero(chosen)
    found = np.zeros(len(chosen), np.bool_)
    found[ids[nearest_above(parent, chosen, ids) < 0]] = True
    return found


def depths(parent: Ints) -> Ints:
    """How many slices are around each one."""
    nowhere = len(parent)  # what stands for no parent: it leads to itself, and counts nothing
    jump = np.append(parent, nowhere)
    jump[jump < 0] = nowhere
    depth = (jump != nowhere).astype(np.int32)
    while True:
        # Each round doubles the way that a slice has looked up.
        further = depth.take(jump)
        if not further.any():
            return np.asarray(depth[:-1], np.int64)
        depth += further
        jump = jump.take(jump)


# Tree -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CallTree:
    """Slices of a forest merged by the labels on their path; parents come before children.

    ``parent`` and ``label`` have one entry a node, ``node`` one entry a slice of the forest.
    ``starts`` bounds the nodes of each depth: those of depth d are ``starts[d]:starts[d + 1]``.
    """

    forest: Forest
    parent: Ints
    label: Ints
    node: Ints
    starts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.parent)

    def levels(self) -> Iterator[slice]:
        """The nodes of each depth, outermost first."""
        for first, last in zip(self.starts, self.starts[1:], strict=False):
            yield slice(first, last)

    @cached_property
    def top_down(self) -> list[slice]:
        return list(self.levels())

    def spread_down(self, marked: Bools) -> Bools:
        """Marks the nodes that are marked or have a marked one above them."""
        found = marked.copy()
        for level in self.top_down[1:]:
            found[level] |= found[self.parent[level]]
        return found

    def sums(self, values: Ints, counted: Bools | None = None) -> Ints:
        """Sums a value of the forest's slices by node."""
        node = self.node
        if counted is not None:
            node, values = node[counted], values[counted]
        return sum_by(node, values, len(self))

    def repeats(self, group: Ints) -> Bools:
        """Marks nodes with a node of the same group above them; a negative group is none."""
        found = np.zeros(len(self), np.bool_)
        candidates = np.flatnonzero(group >= 0)
        above = self.parent[candidates]
        while len(candidates):
            inside = above >= 0
            candidates, above = candidates[inside], above[inside]
            same = group[above] == group[candidates]
            found[candidates[same]] = True
            candidates, above = candidates[~same], self.parent[above[~same]]
        return found

    def paths(self, nodes: Ints, group: Ints) -> tuple[Ints, Ints]:
        """Distinct (position in ``nodes``, group of a node on its path) pairs.

        ``group`` has one entry a node; nodes with a negative group are left out.
        """
        first, second = [], []
        position, here = np.arange(len(nodes)), nodes
        while len(here):
            inside = here >= 0
            position, here = position[inside], here[inside]
            named = group[here] >= 0
            first.append(position[named])
            second.append(group[here[named]])
            here = self.parent[here]
        if not first:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        size = int(group.max(initial=0)) + 1
        pairs = pd.unique(np.concatenate(first) * size + np.concatenate(second))
        return pairs // size, pairs % size


def merge(forest: Forest, label: Ints) -> CallTree:
    """Merge the slices of a forest; ``label`` has one entry a slice of it, not negative."""
    depth = depths(forest.parent)
    by_depth = np.argsort(_narrow(depth), kind="stable")
    bounds = np.cumsum(np.bincount(depth)) if len(depth) else np.zeros(0, np.int64)
    node = np.empty(len(forest), np.int64)
    labels = int(label.max(initial=0)) + 1
    parents, found, starts = [], [], [0]
    first = 0
    for last in bounds.tolist():
        rows = by_depth[first:last]
        above = forest.parent[rows]
        above_node = np.where(above >= 0, node[above], NONE)
        code, distinct = pd.factorize((above_node + 1) * labels + label[rows])
        node[rows] = starts[-1] + code
        parents.append(distinct // labels - 1)
        found.append(distinct % labels)
        starts.append(starts[-1] + len(distinct))
        first = last
    empty = np.zeros(0, np.int64)
    return CallTree(
        forest,
        np.concatenate(parents) if parents else empty,
        np.concatenate(found) if found else empty,
        node,
        tuple(starts),
    )


def _narrow(values: Ints) -> Ints:
    """Small numbers in 16 bits, which numpy sorts by radix, in a tenth of the time."""
    return values.astype(np.uint16) if values.max(initial=0) < 2**16 else values


def sum_by(group: Ints, values: Ints, groups: int) -> Ints:
    """Sums integers by group, exactly."""
    total = np.zeros(groups, np.int64)
    np.add.at(total, group, values)
    return total


def ratio(part: Ints, whole: Ints) -> NDArray[np.float64]:
    """One over the other; NaN where the whole is nothing."""
    found = np.full(len(part), np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found
