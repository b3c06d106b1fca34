"""Finds what replaced what: matches the scopes of two captures by the structure of what is below.

Two scopes of one name and step are walked from the top: what is below equal forms is the same code;
where forms differ, the children are matched in their order (``sequence``), and what finds no match
is a *group*: some ops on one side, others (or none) in their place on the other. All else is
unchanged code. Groups of the same ops in the same place are one, over all scopes.

Time is conserved: of each side, the groups' time and that of the unchanged code add up to the
scopes' time, CPU and GPU alike. Whether a change is more than noise is left to ``stats``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from traceq.calltree import NONE
from traceq.model import Ints
from traceq.outline import Outline
from traceq.sequence import Gap, Matching, Token, match

Place = tuple[int, int]
"""A node of the outline before, and the node of the outline after that it was matched with."""


class Kind(StrEnum):
    """What became of the ops of a group."""

    REPLACED = "replaced"
    RENAMED = "renamed"  # another name, the same below it
    FUSED = "fused"  # several became one
    SPLIT = "split"  # one became several
    MOVED = "moved"
    REMOVED = "removed"
    ADDED = "added"
    WRAPPED = "wrapped"  # put around what was there
    UNWRAPPED = "unwrapped"


class Piece(NamedTuple):
    """A group in one pair of scopes; nodes are counted from the scopes' own.

    ``inner`` is what something was put around (or taken from): it is matched, and no part of the
    group.
    """

    kind: Kind
    parent: Place
    before: tuple[int, ...]
    after: tuple[int, ...]
    is_ambiguous: bool
    inner: Place | None = None


class GroupKey(NamedTuple):
    """What makes pieces of several scopes one group: kind, op around it, ops on both sides."""

    kind: Kind
    parent: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """The pieces of all scopes as rows: one a node at the top of a group.

    ``group`` numbers the group, ``node`` is the node of the outline, ``pair`` the pair of scopes;
    ``sign`` is 1, or -1 for a node within the group that, with all below it, is no part of it.
    """

    group: Ints
    node: Ints
    pair: Ints
    sign: Ints


@dataclass(frozen=True, slots=True)
class Alignment:
    """The groups of two outlines, and where they are.

    ``pairs`` has a row a pair of scopes (node before, node after); ``alone`` are the scopes without
    a counterpart, before and after: each of these is a group's whole. ``keys`` and ``ambiguous``
    have an entry a group, ``before`` and ``after`` tell the nodes at their tops.
    """

    pairs: Ints
    alone: tuple[Ints, Ints]
    keys: tuple[GroupKey, ...]
    ambiguous: tuple[bool, ...]
    before: Placed
    after: Placed

    def instances(self) -> Ints:
        """In how many pairs of scopes each group is."""
        size = len(self.pairs) + max(map(len, self.alone)) + 1
        placed = [item.group * size + item.pair for item in (self.before, self.after)]
        found = np.unique(np.concatenate(placed)) // size
        return np.bincount(found, minlength=len(self.keys))


def align(
    before: Outline, after: Outline, ops: Sequence[str], *, is_whole: bool = False
) -> Alignment:
    """Align two outlines that share a vocabulary, of which ``ops`` are the words.

    ``is_whole`` where the scopes are the outermost slices of a trace: those of two ops are two ops
    then, while a scope that was asked for may have been renamed.

    The cost grows with the number of different pairs of forms, not with that of the scopes: what
    was found for two forms holds wherever these two meet.
    """
    pairs, alone = pair_scopes(before, after)
    forms = np.stack([before.form[pairs[:, 0]], after.form[pairs[:, 1]]], axis=1)
    _, first, meeting = np.unique(forms, axis=0, return_index=True, return_inverse=True)
    meeting = meeting.reshape(-1)
    found = _Collected(ops)
    known: dict[tuple[int, int], Matching] = {}
    for number, index in enumerate(first.tolist()):
        place = (int(pairs[index, 0]), int(pairs[index, 1]))
        if is_whole and before.op[place[0]] != after.op[place[1]]:
            pieces = [Piece(Kind.REPLACED, (0, 0), (0,), (0,), True)]
        else:
            pieces = _compare(before, after, place, known)
        rows = np.flatnonzero(meeting == number)
        for piece in pieces:
            found.add(piece, _key(piece, place, before, after, ops), pairs[rows], rows)
    found.add_alone(before, after, alone, len(pairs))
    return found.finish(pairs, alone)


# Scopes -----------------------------------------------------------------------------------


def pair_scopes(before: Outline, after: Outline) -> tuple[Ints, tuple[Ints, Ints]]:
    """Pair the scopes of one step, name and turn; of those left, the ones in the same turn.

    Returns rows of (node before, node after) in order of time, and the nodes of either side that
    have no counterpart. Scopes of other names (a class was renamed) are paired where a step has as
    many of them on both sides.
    """
    one, other = _turns(before), _turns(after)
    found = {key: (node, other[key]) for key, node in one.items() if key in other}
    left = [
        _by_step(outline, [node for key, node in turns.items() if key not in found])
        for outline, turns in ((before, one), (after, other))
    ]
    rows = list(found.values())
    alone: tuple[list[int], list[int]] = ([], [])
    for step in {**left[0], **left[1]}:
        here, there = left[0].get(step, []), left[1].get(step, [])
        if len(here) == len(there):
            rows += zip(here, there, strict=True)
        else:
            alone[0].extend(here)
            alone[1].extend(there)
    pairs = np.array(sorted(rows), np.int64).reshape(-1, 2)
    return pairs, (_nodes(alone[0]), _nodes(alone[1]))


def _turns(outline: Outline) -> dict[tuple[int, str, int], int]:
    """The scopes by step, name and which of those of that step and name they are."""
    turn: Counter[tuple[int, str]] = Counter()
    found = {}
    rows = zip(outline.scopes.tolist(), outline.name, outline.step.tolist(), strict=True)
    for node, name, step in rows:
        found[step, name, turn[step, name]] = node
        turn[step, name] += 1
    return found


def _by_step(outline: Outline, nodes: Iterable[int]) -> dict[int, list[int]]:
    step_of = dict(zip(outline.scopes.tolist(), outline.step.tolist(), strict=True))
    found = defaultdict(list)
    for node in nodes:
        found[step_of[node]].append(node)
    return found


def _nodes(nodes: Sequence[int]) -> Ints:
    return np.array(sorted(nodes), np.int64)


# One pair of scopes -----------------------------------------------------------------------


def _compare(
    before: Outline, after: Outline, scopes: Place, known: dict[tuple[int, int], Matching]
) -> list[Piece]:
    """The pieces of a pair of scopes; nodes are counted from these.

    ``known`` keeps how the children of two forms match: that is the same wherever these two meet.
    """
    waiting = [scopes]
    pieces: list[Piece] = []
    while waiting:
        place = waiting.pop()
        if before.form[place[0]] == after.form[place[1]]:
            continue
        one, other = before.children(place[0]), after.children(place[1])
        if not one and not other:  # kernels of one name in short, and two in full
            pieces.append(Piece(Kind.REPLACED, place, (place[0],), (place[1],), False))
            continue
        forms = int(before.form[place[0]]), int(after.form[place[1]])
        if forms not in known:
            known[forms] = match(
                _tokens(before, one), _tokens(after, other), _Likeness(before, after, one, other)
            )
        matching = known[forms]
        found = [_piece(before, after, place, one, other, gap) for gap in matching.gaps]
        waiting += [(one[i], other[j]) for i, j in matching.pairs]
        waiting += [piece.inner for piece in found if piece.inner]
        pieces += found
    return [_from(piece, scopes) for piece in _find_moved(before, after, pieces)]


def _tokens(outline: Outline, nodes: Sequence[int]) -> list[Token]:
    forms, ops = outline.form[nodes].tolist(), outline.op[nodes].tolist()
    return [Token(form, op) for form, op in zip(forms, ops, strict=True)]


class _Likeness:
    """How alike two subtrees of one op are: by their size, and by the ops directly below."""

    def __init__(
        self, before: Outline, after: Outline, one: Sequence[int], other: Sequence[int]
    ) -> None:
        self._sides = tuple(
            (outline, {int(outline.form[node]): node for node in nodes})
            for outline, nodes in ((before, one), (after, other))
        )
        self._below: dict[tuple[int, int], tuple[int, Counter[int]]] = {}
        self._known: dict[tuple[int, int], float] = {}

    def __call__(self, before: Token, after: Token) -> float:
        forms = before.form, after.form
        if forms not in self._known:
            (size, below), (other_size, other) = self._of(0, before), self._of(1, after)
            shared = 2 * (below & other).total() / max(below.total() + other.total(), 1)
            sizes = sorted((size, other_size))
            self._known[forms] = (sizes[0] / sizes[1] + shared) / 2
        return self._known[forms]

    def _of(self, side: int, token: Token) -> tuple[int, Counter[int]]:
        """The size of a subtree, and the ops directly below its top."""
        key = side, token.form
        if key not in self._below:
            outline, nodes = self._sides[side]
            node = nodes[token.form]
            ops = Counter(outline.op[outline.children(node)].tolist())
            self._below[key] = int(outline.size[node]), ops
        return self._below[key]


def _piece(
    before: Outline,
    after: Outline,
    parent: Place,
    one: Sequence[int],
    other: Sequence[int],
    gap: Gap,
) -> Piece:
    gone = tuple(one[i] for i in gap.before)
    come = tuple(other[j] for j in gap.after)
    if wrapped := _wrapped(before, after, parent, gone, come):
        return wrapped
    kind = _kind_of(before, after, gone, come)
    several = len(gone) > 1 and len(come) > 1
    return Piece(kind, parent, gone, come, gap.is_tied or gap.is_coarse or several)


def _wrapped(
    before: Outline, after: Outline, parent: Place, gone: tuple[int, ...], come: tuple[int, ...]
) -> Piece | None:
    """Whether one op was put around another (or taken from around it) that is still there."""
    if len(gone) != 1 or len(come) != 1:
        return None
    old, new = gone[0], come[0]
    inner = _find_within(after, new, before, old)
    if inner is not None:
        return Piece(Kind.WRAPPED, parent, (), come, False, (old, inner))
    inner = _find_within(before, old, after, new)
    if inner is not None:
        return Piece(Kind.UNWRAPPED, parent, gone, (), False, (inner, new))
    return None


_DEEPEST, _MOST_NODES = 4, 64


def _find_within(outline: Outline, node: int, other: Outline, wanted: int) -> int | None:
    """The one node a little below a node that is of the op, and about the size, of another's."""
    level, looked = [node], 0
    for _ in range(_DEEPEST):
        level = [child for item in level for child in outline.children(item)]
        looked += len(level)
        found = [child for child in level if outline.op[child] == other.op[wanted]]
        if found or looked > _MOST_NODES:
            break
    else:
        return None
    if len(found) != 1 or other.size[wanted] < 2:
        return None
    sizes = sorted((int(outline.size[found[0]]), int(other.size[wanted])))
    return found[0] if 2 * sizes[0] >= sizes[1] else None


def _kind_of(before: Outline, after: Outline, gone: tuple[int, ...], come: tuple[int, ...]) -> Kind:
    if not come:
        return Kind.REMOVED
    if not gone:
        return Kind.ADDED
    if len(gone) == 1 and len(come) == 1:
        below = [
            side.form[side.children(node)].tolist()
            for side, node in ((before, gone[0]), (after, come[0]))
        ]
        return Kind.RENAMED if below[0] and below[0] == below[1] else Kind.REPLACED
    if len(come) == 1:
        return Kind.FUSED
    return Kind.SPLIT if len(gone) == 1 else Kind.REPLACED


def _find_moved(before: Outline, after: Outline, pieces: list[Piece]) -> list[Piece]:
    """Take out of the pieces what went from one place of the scopes to another, unchanged.

    A single call may be any other of its op (``len`` is in many places): it is followed only where
    nothing is in its place, or among the children of one op, and is not certain.
    """
    whole = [piece for piece in pieces if not piece.inner]
    gone = _by_form(before, [(piece, node) for piece in whole for node in piece.before])
    come = _by_form(after, [(piece, node) for piece in whole for node in piece.after])
    moved = []
    for form in [form for form in gone if form in come]:
        left, arrived = gone[form], come[form]
        if before.size[left[0][1]] == 1 and not _is_plain(left, arrived):
            continue
        nodes = tuple(node for _, node in left), tuple(node for _, node in arrived)
        place = left[0][0].parent[0], arrived[0][0].parent[1]
        is_sure = len(left) == len(arrived) and before.size[nodes[0][0]] > 1
        moved.append(Piece(Kind.MOVED, place, *nodes, not is_sure))
    if not moved:
        return pieces
    taken = {node for piece in moved for node in piece.before}
    taken_after = {node for piece in moved for node in piece.after}
    kept = [_without(before, after, piece, taken, taken_after) for piece in pieces]
    return [piece for piece in kept if piece.before or piece.after] + moved


def _is_plain(left: list[tuple[Piece, int]], arrived: list[tuple[Piece, int]]) -> bool:
    """Whether calls have nothing in their place, or are all below one and the same call."""
    if not any(piece.after for piece, _ in left) and not any(p.before for p, _ in arrived):
        return True
    return len({piece.parent for piece, _ in (*left, *arrived)}) == 1


def _by_form(
    outline: Outline, items: Iterable[tuple[Piece, int]]
) -> dict[int, list[tuple[Piece, int]]]:
    found = defaultdict(list)
    for piece, node in items:
        found[int(outline.form[node])].append((piece, node))
    return found


def _without(
    before: Outline, after: Outline, piece: Piece, gone: set[int], come: set[int]
) -> Piece:
    """A piece less the nodes that are told elsewhere."""
    if piece.inner or (gone.isdisjoint(piece.before) and come.isdisjoint(piece.after)):
        return piece
    one = tuple(node for node in piece.before if node not in gone)
    other = tuple(node for node in piece.after if node not in come)
    if not one and not other:
        return piece._replace(before=(), after=())
    return piece._replace(kind=_kind_of(before, after, one, other), before=one, after=other)


def _from(piece: Piece, scopes: Place) -> Piece:
    one, other = scopes
    return piece._replace(
        parent=(piece.parent[0] - one, piece.parent[1] - other),
        before=tuple(node - one for node in piece.before),
        after=tuple(node - other for node in piece.after),
        inner=piece.inner and (piece.inner[0] - one, piece.inner[1] - other),
    )


# All pairs --------------------------------------------------------------------------------


def _key(
    piece: Piece, scopes: Place, before: Outline, after: Outline, ops: Sequence[str]
) -> GroupKey:
    gone, come = piece.before, piece.after
    if piece.inner:  # named by what it is about, though that is still there
        gone, come = gone or piece.inner[:1], come or piece.inner[1:]
    one = before.op[[scopes[0] + node for node in gone]].tolist()
    other = after.op[[scopes[1] + node for node in come]].tolist()
    parent = ops[before.op[scopes[0] + piece.parent[0]]]
    if piece.kind is Kind.MOVED:  # from where to where; as often as it is there
        parent += MOVED_TO + ops[after.op[scopes[1] + piece.parent[1]]]
        one, other = one[:1], other[:1]
    return GroupKey(
        piece.kind, parent, tuple(ops[op] for op in one), tuple(ops[op] for op in other)
    )


MOVED_TO = " → "
"""Stands between the ops below which something was, and is now."""


class _Collected:
    """Groups while they are found."""

    def __init__(self, ops: Sequence[str]) -> None:
        self._ops = ops
        self._number: dict[GroupKey, int] = {}
        self._ambiguous: list[bool] = []
        self._rows: tuple[list[Ints], list[Ints]] = ([], [])

    def add(self, piece: Piece, key: GroupKey, pairs: Ints, numbers: Ints) -> None:
        """A piece, in all pairs of scopes that have it."""
        group = self._group(key, piece.is_ambiguous)
        for side, nodes in enumerate((piece.before, piece.after)):
            tops = (pairs[:, side][:, None] + np.array(nodes, np.int64)[None, :]).ravel()
            self._place(side, group, tops, np.repeat(numbers, len(nodes)), sign=1)
            if piece.inner and nodes:
                self._place(side, group, pairs[:, side] + piece.inner[side], numbers, sign=-1)

    def add_alone(
        self, before: Outline, after: Outline, alone: tuple[Ints, Ints], pairs: int
    ) -> None:
        """The scopes without a counterpart, as groups of their own."""
        kinds = ((Kind.REMOVED, before), (Kind.ADDED, after))
        for side, ((kind, outline), nodes) in enumerate(zip(kinds, alone, strict=True)):
            for number, node in enumerate(nodes.tolist()):
                own = (self._ops[outline.op[node]],)
                names = (own, ()) if kind is Kind.REMOVED else ((), own)
                group = self._group(GroupKey(kind, "", *names), ambiguous=False)
                self._place(side, group, np.array([node]), np.array([pairs + number]), sign=1)

    def _group(self, key: GroupKey, ambiguous: bool) -> int:
        number = self._number.setdefault(key, len(self._number))
        if number == len(self._ambiguous):
            self._ambiguous.append(False)
        self._ambiguous[number] |= ambiguous
        return number

    def _place(self, side: int, group: int, nodes: Ints, pairs: Ints, *, sign: int) -> None:
        number, signs = np.full(len(nodes), group), np.full(len(nodes), sign)
        self._rows[side].append(np.stack([number, nodes, pairs, signs]))

    def finish(self, pairs: Ints, alone: tuple[Ints, Ints]) -> Alignment:
        placed = [
            Placed(*np.concatenate([np.zeros((4, 0), np.int64), *rows], axis=1))
            for rows in self._rows
        ]
        return Alignment(pairs, alone, tuple(self._number), tuple(self._ambiguous), *placed)


# Sums -------------------------------------------------------------------------------------


def groups_at(outline: Outline, placed: Placed) -> Ints:
    """The group that each node of an outline is in (-1: unchanged code)."""
    mark = np.zeros(len(outline) + 1, np.int64)
    number = (placed.group + 1) * placed.sign
    np.add.at(mark, placed.node, number)
    np.subtract.at(mark, placed.node + outline.size[placed.node], number)
    return np.cumsum(mark[:-1]) + NONE
