"""What replaced what, over all captures: merges the alignments of pairs of captures into rows.

The first capture before is aligned with the first after, and so on; of the side with fewer, the
captures are taken again. Times are kept by capture and by step, for ``evidence``; sums over a
capture's groups and its unchanged code are the scopes' time to the nanosecond.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traceq.align import Alignment, GroupKey, Kind, Placed, align, groups_at
from traceq.calltree import sum_by
from traceq.model import Ints
from traceq.names import fold_name
from traceq.outline import Outline
from traceq.reading import Reading
from traceq.scopes import MODULE


@dataclass(frozen=True, slots=True)
class Work:
    """What the groups (and, last, the unchanged code) of one capture took.

    All have one row a group and one column a step (and, last, outside of steps): ``calls`` at the
    top of the group, ``time`` and ``gpu`` in ns, ``activities``.
    """

    calls: Ints
    time: Ints
    gpu: Ints
    activities: Ints


@dataclass(frozen=True, slots=True)
class Pairing:
    """Two captures, aligned: what the groups of ``alignment`` took before and after.

    ``instances`` tells in how many pairs of scopes each group is, ``possible`` of how many,
    ``enough`` whether that is no accident, ``ops`` all ops in it, at its top and below, ``around``
    those that it is in; ``number`` is that of each group by its key.
    """

    alignment: Alignment
    before: Work
    after: Work
    instances: Ints
    possible: Ints
    enough: NDArray[np.bool_]
    ops: tuple[frozenset[str], ...]
    around: tuple[frozenset[str], ...]
    number: Mapping[GroupKey, int]


@dataclass
class Group:
    """Ops that were replaced, added, removed or moved; ``key`` tells which.

    ``instances`` and ``scopes`` have an entry a pair of captures: in how many pairs of scopes it
    is, and how many there are of these scopes. ``before`` and ``after`` have one row a capture and
    one column a step (last: outside of steps), as :class:`Work`. ``outside`` is how many more calls
    of the ops that are gone (or fewer of those that came) the first captures have outside of the
    scopes.
    """

    key: GroupKey
    instances: list[int] = field(default_factory=list)
    scopes: list[int] = field(default_factory=list)
    is_ambiguous: bool = False
    is_enough: bool = True
    outside: int = 0
    before: dict[str, list[Ints]] = field(default_factory=dict)
    after: dict[str, list[Ints]] = field(default_factory=dict)

    @property
    def is_steady(self) -> bool:
        """Whether it is in each pair of captures, in enough of the scopes to be no accident.

        Those are half of them, or all those of a step: prefill may run code of its own.
        """
        return self.is_enough and all(self.instances)

    @property
    def is_alone(self) -> bool:
        """Whether it is made of scopes that have no counterpart on the other side."""
        return not self.key.parent

    @property
    def weight(self) -> int:
        """By how much (ns) its CPU and GPU time changed, in the mean of the captures."""
        means = [
            sum(self.sums(side, name)) // max(len(self.sums(side, name)), 1)
            for name in ("time", "gpu")
            for side in ("before", "after")
        ]
        return abs(means[1] - means[0]) + abs(means[3] - means[2])

    def sums(self, side: str, name: str) -> list[int]:
        """The sum of ``calls``, ``time``, ``gpu`` or ``activities`` in each capture of a side."""
        work = self.before if side == "before" else self.after
        return [int(row.sum()) for row in work[name]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: sums by capture, times in ns."""
        sums = {
            f"{name}_{side}": self.sums(side, name)
            for side in ("before", "after")
            for name in Work.__slots__
        }
        return {
            "kind": str(self.key.kind),
            "below": self.key.parent,
            "before": list(self.key.before),
            "after": list(self.key.after),
            "instances": self.instances,
            "scopes": self.scopes,
            "is_ambiguous": self.is_ambiguous,
            "is_steady": self.is_steady,
            "outside": self.outside,
        } | sums


@dataclass(frozen=True)
class Groups:
    """All groups of a comparison, those with most change of time first; and what is unchanged.

    ``unchanged`` has the form of a group; ``alone`` are the numbers of scopes without a counterpart
    in the first pair of captures. ``steady_ops`` are the ops in groups that are no accident,
    ``ops_around`` those that such a group is in.
    """

    rows: tuple[Group, ...]
    unchanged: Group
    alone: tuple[int, int]
    steady_ops: frozenset[str]
    ops_around: frozenset[str] = frozenset()


Outlines = Callable[[Reading], Outline]


def align_captures(before: Sequence[Reading], after: Sequence[Reading]) -> Groups:
    """The groups of CPU ops."""
    return _align(before, after, lambda item: item.outline, lambda item: item.words.ops.ops)


def align_kernels(before: Sequence[Reading], after: Sequence[Reading]) -> Groups:
    """The groups of GPU activities, in the order of their launches."""
    return _align(
        before, after, lambda item: item.kernel_outline, lambda item: item.words.kernels.ops
    )


def _align(
    before: Sequence[Reading],
    after: Sequence[Reading],
    outline: Outlines,
    words: Callable[[Reading], Sequence[str]],
) -> Groups:
    steps = max(item.steps for item in (*before, *after))
    count = max(len(before), len(after))
    pairings = []
    for index in range(count):
        one, other = before[index % len(before)], after[index % len(after)]
        pairings.append(_pair(one, other, outline, words(one), steps))
    found = _merge(pairings, len(before), len(after))
    for group in found.rows:
        group.outside = _moved_outside(group.key, before[0].outside, after[0].outside)
    return found


def _moved_outside(key: GroupKey, before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """Calls that a removed op has more outside of the scopes than before, an added one fewer."""
    if key.kind not in (Kind.REMOVED, Kind.ADDED):
        return 0
    ops = set(key.before) | set(key.after)
    more = sum(after.get(op, 0) - before.get(op, 0) for op in ops)
    return max(more if key.kind is Kind.REMOVED else -more, 0)


def _pair(
    before: Reading, after: Reading, outline: Outlines, words: Sequence[str], steps: int
) -> Pairing:
    one, other = outline(before), outline(after)
    found = align(one, other, words, is_whole=not before.under)
    possible, enough = _spread(found, one, steps)
    return Pairing(
        alignment=found,
        before=_work(before, one, found.before, len(found.keys), steps),
        after=_work(after, other, found.after, len(found.keys), steps),
        instances=found.instances(),
        possible=possible,
        enough=enough,
        ops=_ops(found, one, other, words),
        around=_around(found, one, other, words),
        number={key: index for index, key in enumerate(found.keys)},
    )


def _ops(
    found: Alignment, before: Outline, after: Outline, words: Sequence[str]
) -> tuple[frozenset[str], ...]:
    ops: list[set[str]] = [set() for _ in found.keys]
    for outline, placed in ((before, found.before), (after, found.after)):
        group = groups_at(outline, placed)
        inside = group >= 0
        size = len(words)
        for pair in np.unique(group[inside] * size + outline.op[inside]).tolist():
            ops[pair // size].add(words[pair % size])
    return tuple(map(frozenset, ops))


def _around(
    found: Alignment, before: Outline, after: Outline, words: Sequence[str]
) -> tuple[frozenset[str], ...]:
    """The ops that have each group below them, outwards from the nodes at its tops."""
    ops: list[set[str]] = [set() for _ in found.keys]
    size = len(words)
    for outline, placed in ((before, found.before), (after, found.after)):
        tops, count = placed.sign > 0, max(len(outline), 1)
        group, node = placed.group[tops], outline.parent[placed.node[tops]]
        while len(node):
            inside = node >= 0
            group, node = group[inside], node[inside]
            place = np.unique(group * count + node)
            group, node = place // count, place % count
            for pair in np.unique(group * size + outline.op[node]).tolist():
                ops[pair // size].add(words[pair % size])
            node = outline.parent[node]
    return tuple(map(frozenset, ops))


def _work(reading: Reading, outline: Outline, placed: Placed, groups: int, steps: int) -> Work:
    """Sums by group and step, those of the unchanged code last."""
    size = (groups + 1, steps + 1)
    tops = placed.node[placed.sign > 0]
    step = outline.step_of(tops)
    cell = placed.group[placed.sign > 0] * size[1] + np.where(step >= 0, step, steps)
    calls = np.bincount(cell, minlength=size[0] * size[1]).reshape(size)
    group = groups_at(outline, placed)
    if outline is not reading.outline:  # of kernels: all time is the GPU's
        leaves = np.flatnonzero(outline.slice >= 0)
        gpu, activities = _by_group(outline, group, leaves, outline.dur[leaves], size)
        return Work(calls, gpu, gpu, activities)
    nodes = np.arange(len(outline))
    time, _ = _by_group(outline, group, nodes, reading.own_time, size)
    gpu, activities = _by_group(outline, group, reading.work.node, reading.work.dur, size)
    return Work(calls, time, gpu, activities)


def _by_group(
    outline: Outline, group: Ints, node: Ints, dur: Ints, size: tuple[int, int]
) -> tuple[Ints, Ints]:
    """Time and number of nodes, or of what is at them, by group and step; the unchanged last."""
    step = outline.step_of(node)
    of_group = np.where(group[node] >= 0, group[node], size[0] - 1)
    cell = of_group * size[1] + np.where(step >= 0, step, size[1] - 1)
    cells = size[0] * size[1]
    return (
        sum_by(cell, dur, cells).reshape(size),
        np.bincount(cell, minlength=cells).reshape(size),
    )


def _spread(found: Alignment, before: Outline, steps: int) -> tuple[Ints, NDArray[np.bool_]]:
    """Of how many pairs of scopes each group could be, and whether it is in enough of these.

    It could be in the pairs of the scopes' ops in which it is at all. Enough are half of these, or
    all of a step that has several, or half of those of the same instances over several steps (some
    layers alone were changed); what has no counterpart is everywhere by itself.
    """
    node = found.pairs[:, 0]
    names = [before.name[item] for item in np.searchsorted(before.scopes, node).tolist()]
    instance = _numbers([name if name.startswith(MODULE) else fold_name(name) for name in names])
    step = before.step_of(node)
    by_op = _Places(found, before.op[node])
    by_instance = _Places(found, instance)
    by_step = _Places(found, before.op[node] * (steps + 1) + np.where(step >= 0, step, steps))
    enough = 2 * by_op.present >= by_op.possible
    several = by_instance.possible > by_instance.places
    enough |= several & (2 * by_instance.present >= by_instance.possible)
    enough |= by_step.fills_one
    enough[by_op.alone] = True
    return by_op.possible, enough


def _numbers(texts: Sequence[str]) -> Ints:
    number: dict[str, int] = {}
    return np.array([number.setdefault(text, len(number)) for text in texts], np.int64)


class _Places:
    """In how many pairs of scopes each group is, of those of the same kind of place.

    ``place`` gives the kind of place of each pair. For each group, ``present`` counts the pairs
    that it is in, ``possible`` all pairs of the places that it is in, ``places`` these places;
    ``fills_one`` marks groups that are in all pairs of a place that has several. ``alone`` are the
    groups of scopes without a counterpart.
    """

    def __init__(self, found: Alignment, place: Ints) -> None:
        pairs, keys = len(found.pairs), len(found.keys)
        size = pairs + max(map(len, found.alone)) + 1
        both = np.unique(
            np.concatenate([item.group * size + item.pair for item in (found.before, found.after)])
        )
        group, pair = both // size, both % size
        self.alone = np.unique(group[pair >= pairs])
        group, pair = group[pair < pairs], pair[pair < pairs]
        kinds, kind = np.unique(place, return_inverse=True)
        of_kind = np.bincount(kind, minlength=len(kinds))
        width = max(len(kinds), 1)
        cell, count = np.unique(group * width + kind[pair], return_counts=True)
        owner, of_cell = cell // width, of_kind[cell % width]
        self.present = np.bincount(group, minlength=keys)
        self.possible = sum_by(owner, of_cell, keys)
        self.places = np.bincount(owner, minlength=keys)
        self.fills_one = np.zeros(keys, np.bool_)
        self.fills_one[owner[(count == of_cell) & (count > 1)]] = True


def _merge(pairings: Sequence[Pairing], before: int, after: int) -> Groups:
    """The groups of all pairs of captures; one that a pair does not have took no time there."""
    groups: dict[GroupKey, Group] = {}
    keys = dict.fromkeys(key for item in pairings for key in item.alignment.keys)
    for key in keys:
        groups[key] = _gather(key, pairings, before, after)
    unchanged = _gather(None, pairings, before, after)
    first = pairings[0].alignment.alone
    rows = sorted(groups.values(), key=lambda item: -item.weight)
    return Groups(
        tuple(rows),
        unchanged,
        (len(first[0]), len(first[1])),
        _of_steady(pairings, groups, lambda item: item.ops),
        _of_steady(pairings, groups, lambda item: item.around),
    )


def _of_steady(
    pairings: Sequence[Pairing],
    groups: Mapping[GroupKey, Group],
    ops_of: Callable[[Pairing], tuple[frozenset[str], ...]],
) -> frozenset[str]:
    rows = (row for item in pairings for row in zip(item.alignment.keys, ops_of(item), strict=True))
    return frozenset(op for key, ops in rows if groups[key].is_steady for op in ops)


_UNCHANGED = GroupKey(Kind.REPLACED, "", (), ())


def _gather(key: GroupKey | None, pairings: Sequence[Pairing], before: int, after: int) -> Group:
    found = Group(key or _UNCHANGED)
    for number, item in enumerate(pairings):
        at = None if key is None else item.number.get(key)
        pairs = len(item.alignment.pairs)
        found.scopes.append(pairs if at is None else int(item.possible[at]))
        found.instances.append(0 if at is None else int(item.instances[at]))
        if at is not None:
            found.is_ambiguous |= item.alignment.ambiguous[at]
            found.is_enough &= bool(item.enough[at])
        row = -1 if key is None else at
        sides = ((found.before, item.before, before), (found.after, item.after, after))
        for side, work, captures in sides:
            if number < captures:
                _append(side, work, row)
    return found


def _append(side: dict[str, list[Ints]], work: Work, row: int | None) -> None:
    for name in Work.__slots__:
        values = getattr(work, name)
        side.setdefault(name, []).append(values[0] * 0 if row is None else values[row])
