"""Merges the calls of all captures of both sides into one tree by path: a differential flame graph.

A node stands for all calls with the same ops above them; below the ops are the kernels that they
launched. Small nodes are put together, so that a page of a large trace stays small, and no sum is
lost. How it is drawn is left to ``render.page``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from traceq.calltree import NONE, depths
from traceq.model import Bools, Ints
from traceq.reading import Reading
from traceq.scopes import MODULE

MOST_NODES = 6_000
"""A tree has no more nodes than that: those with most time, and the rest in sums."""

OP, MODULE_KIND, KERNEL, REST, ROOT = range(5)
"""Kinds of nodes; REST stands for smaller ones."""

MEASURES = ("calls", "cpu", "gpu")


@dataclass(frozen=True, slots=True)
class Flame:
    """One entry a node, parents before children; the root is the first.

    ``name`` indexes ``names``, ``parent`` is -1 for the root. Of each side, ``calls`` (of kernels:
    activities), ``cpu`` and ``gpu`` (ns, children included) are sums over its ``captures``; arrays
    (2, nodes). The root has the time of the scopes, or, without any, that of all threads.
    ``folded`` is the number of nodes that a REST stands for, which has calls and activities alike.
    """

    names: tuple[str, ...]
    name: Ints
    parent: Ints
    kind: Ints
    calls: Ints
    cpu: Ints
    gpu: Ints
    folded: Ints
    captures: tuple[int, int]

    def __len__(self) -> int:
        return len(self.name)


@dataclass(slots=True)
class _Capture:
    """The nodes of a capture: calls, and below them activities, which come last."""

    side: int
    parent: Ints
    label: Ints
    cpu: Ints
    gpu: Ints
    merged: Ints
    levels: list[Ints] = field(default_factory=list)


def grow_flame(before: Sequence[Reading], after: Sequence[Reading] = ()) -> Flame:
    """The tree of one side, or of both; all captures were read with one question."""
    words = before[0].words
    labels = [*words.ops.ops, *words.kernels.ops]
    captures = [
        _capture(item, side, len(words.ops.ops))
        for side, items in enumerate((before, after))
        for item in items
    ]
    root = "all scopes" if before[0].under else "whole trace"
    flame = _merged(captures, [*labels, root], len(words.ops.ops), (len(before), len(after)))
    for side, items in enumerate((before, after)):  # with what no launch in a trace explains
        flame.gpu[side, 0] = sum(item.totals.gpu_here.total for item in items)
    return _pruned(flame, MOST_NODES)


def _capture(reading: Reading, side: int, ops: int) -> _Capture:
    outline, work = reading.outline, reading.work
    count = len(outline)
    # In a whole trace a step is a scope, and below the frame that it is in all the same.
    around = outline.parent if reading.under else outline.around
    parent = np.concatenate([around, work.node])
    label = np.concatenate([outline.op, ops + work.short])
    own_gpu = np.concatenate([np.zeros(count, np.int64), work.dur])
    cpu = np.concatenate([reading.own_time, np.zeros_like(work.dur)])
    depth = depths(parent)
    order = np.argsort(depth, kind="stable")
    levels = np.split(order, np.cumsum(np.bincount(depth))[:-1]) if len(depth) else []
    gpu = own_gpu.copy()
    for level in reversed(levels[1:]):
        np.add.at(gpu, parent[level], gpu[level])
        np.add.at(cpu, parent[level], cpu[level])
    return _Capture(side, parent, label, cpu, gpu, np.full(len(parent), NONE, np.int64), levels)


def _merged(
    captures: Sequence[_Capture], labels: Sequence[str], ops: int, sides: tuple[int, int]
) -> Flame:
    """Merge level by level: nodes of one merged parent and one label are one.

    The last of the labels is that of the root.
    """
    parents, names = [np.array([NONE])], [np.array([len(labels) - 1])]
    sums = {key: [np.zeros((2, 1), np.int64)] for key in MEASURES}
    total = 1
    for depth in range(max((len(item.levels) for item in captures), default=0)):
        here = [(item, item.levels[depth]) for item in captures if depth < len(item.levels)]
        above = [
            item.merged[item.parent[level]] if depth else np.zeros(len(level), np.int64)
            for item, level in here
        ]
        keys = np.concatenate(
            [
                over * len(labels) + item.label[level]
                for over, (item, level) in zip(above, here, strict=True)
            ]
        )
        found, number = np.unique(keys, return_inverse=True)
        parents.append(found // len(labels))
        names.append(found % len(labels))
        _add(sums, here, number.reshape(-1), len(found), total)
        total += len(found)
    whole = {key: np.concatenate(parts, axis=1) for key, parts in sums.items()}
    name = np.concatenate(names)
    parent = np.concatenate(parents)
    for key in ("cpu", "gpu"):
        for side in range(2):
            whole[key][side, 0] = whole[key][side, parent == 0].sum()
    is_module = np.array([text.startswith(MODULE) for text in labels])
    kind = np.where(name >= ops, KERNEL, np.where(is_module[name], MODULE_KIND, OP))
    kind[0] = ROOT
    folded = np.zeros(len(name), np.int64)
    return Flame(tuple(labels), name, parent, kind, **whole, folded=folded, captures=sides)


def _add(
    sums: dict[str, list[Ints]],
    here: Sequence[tuple[_Capture, Ints]],
    number: Ints,
    count: int,
    first: int,
) -> None:
    """The sums of one level's nodes by side, and the merged node of each."""
    added = {key: np.zeros((2, count), np.int64) for key in MEASURES}
    start = 0
    for item, level in here:
        own = number[start : start + len(level)]
        start += len(level)
        item.merged[level] = own + first
        np.add.at(added["calls"][item.side], own, 1)
        np.add.at(added["cpu"][item.side], own, item.cpu[level])
        np.add.at(added["gpu"][item.side], own, item.gpu[level])
    for key, values in added.items():
        sums[key].append(values)


def _pruned(flame: Flame, most: int) -> Flame:
    """The tree with the nodes of most time; those left out are one REST below each parent."""
    if len(flame) <= most:
        return flame
    keep = _kept(flame, most)
    owner_of, top = _owners(flame.parent, keep)
    gone = np.flatnonzero(~keep)
    tops, kept = np.flatnonzero(top), np.flatnonzero(keep)
    owners, owner = np.unique(flame.parent[tops], return_inverse=True)
    rest = {
        key: np.concatenate(
            [getattr(flame, key)[:, kept], _sums(getattr(flame, key)[:, tops], owner, len(owners))],
            axis=1,
        )
        for key in ("cpu", "gpu")
    }
    calls = _sums(flame.calls[:, gone], np.searchsorted(owners, owner_of[gone]), len(owners))
    place = np.cumsum(keep) - 1
    parent = np.where(flame.parent[kept] >= 0, place[flame.parent[kept]], NONE)
    folded = np.bincount(owner_of[gone], minlength=len(flame))[owners]
    return Flame(
        names=(*flame.names, "smaller"),
        name=np.concatenate([flame.name[kept], np.full(len(owners), len(flame.names))]),
        parent=np.concatenate([parent, place[owners]]),
        kind=np.concatenate([flame.kind[kept], np.full(len(owners), REST)]),
        calls=np.concatenate([flame.calls[:, kept], calls], axis=1),
        **rest,
        folded=np.concatenate([flame.folded[kept], folded]),
        captures=flame.captures,
    )


def _kept(flame: Flame, most: int) -> Bools:
    """Marks as many nodes as there is room for, with one more for the rest below each parent."""
    order = np.argsort(-_weight(flame), kind="stable")
    low, high = 0, most
    while low < high:
        count = (low + high + 1) // 2
        keep = _closed(flame.parent, order[:count])
        _, top = _owners(flame.parent, keep)
        size = np.count_nonzero(keep) + len(np.unique(flame.parent[top]))
        low, high = (count, high) if size <= most else (low, count - 1)
    return _closed(flame.parent, order[:low])


def _closed(parent: Ints, nodes: Ints) -> Bools:
    """Marks some nodes and all that is around them: one may weigh more than its parent."""
    keep = np.zeros(len(parent), np.bool_)
    keep[0] = True
    while len(nodes):
        keep[nodes] = True
        nodes = np.unique(parent[nodes])
        nodes = nodes[(nodes >= 0) & ~keep[nodes]]
    return keep


def _owners(parent: Ints, keep: Bools) -> tuple[Ints, Bools]:
    """The nearest node around each that is kept, and marks of the outermost that are not."""
    owner = np.arange(len(parent))
    owner[~keep] = parent[~keep]
    while not keep[owner].all():
        owner = np.where(keep[owner], owner, parent[owner])
    top = ~keep
    top[top] = keep[parent[top]]
    return owner, top


def _weight(flame: Flame) -> NDArray[np.float64]:
    """The part of a node in the CPU time or in the GPU time, whichever is more."""
    parts = []
    for times in (flame.cpu, flame.gpu):
        whole = max(int(times[:, 0].sum()), 1)
        parts.append(times.sum(axis=0) / whole)
    return np.asarray(np.maximum(*parts), np.float64)


def _sums(values: Ints, owner: Ints, count: int) -> Ints:
    found = np.zeros((2, count), np.int64)
    for side in range(2):
        np.add.at(found[side], owner, values[side])
    return found
