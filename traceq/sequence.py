"""Matches two ordered sequences: which item of one is which item of the other.

Items are tokens: equal ones are the same for certain, those of one kind may be the same thing
changed. What the items are (subtrees, kernels) is left to ``align``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

MOST_CELLS = 40_000
"""Above so many pairs of items a stretch is cut at items that occur once on both sides."""

_EQUAL, _SAME_KIND = 2.0, 0.5

Likeness = Callable[["Token", "Token"], float]


class Token(NamedTuple):
    """An item: what it is exactly, and what kind of thing it is."""

    form: int
    kind: int


class Gap(NamedTuple):
    """A stretch of both sequences (either may be empty) in which nothing was matched.

    ``is_tied`` tells that an item next to the stretch is of the kind of one in it, so that which
    of them was left out is a matter of choice; ``is_coarse`` that the stretch was too long and too
    different to look for the best match.
    """

    before: range
    after: range
    is_tied: bool
    is_coarse: bool


class Matching(NamedTuple):
    """The pairs of items that are the same or of one kind, in order; the gaps between them."""

    pairs: tuple[tuple[int, int], ...]
    gaps: tuple[Gap, ...]


def match(before: Sequence[Token], after: Sequence[Token], likeness: Likeness) -> Matching:
    """Match two sequences in order, so that as much as possible stays the same.

    Equal items at both ends are matched first; what is left, by dynamic programming over all pairs
    (the heaviest common subsequence: equal items weigh 2, items of one kind 0.5 and their
    ``likeness``, from 0 to 1). Longer stretches are first cut at the items that occur once on both
    sides, in their longest rising order (patience diff, as Bram Cohen described it), so that the
    cost stays near linear. Stretches that are still too long are one gap.
    """
    pairs: list[tuple[int, int]] = []
    coarse: list[tuple[int, int]] = []
    stretches = [(range(len(before)), range(len(after)))]
    while stretches:
        one, other = _trim(before, after, *stretches.pop(), pairs)
        if not one or not other:
            continue
        if len(one) * len(other) <= MOST_CELLS:
            pairs += _heaviest(before, after, one, other, likeness)
        elif anchors := _anchors(before, after, one, other):
            stretches += _between(anchors, one, other, pairs)
        else:
            coarse.append((one.start, other.start))
    pairs.sort()
    return Matching(tuple(pairs), tuple(_gaps(before, after, pairs, set(coarse))))


def _trim(
    before: Sequence[Token],
    after: Sequence[Token],
    one: range,
    other: range,
    pairs: list[tuple[int, int]],
) -> tuple[range, range]:
    """Match equal items at both ends of a stretch; what is left of it."""
    while one and other and before[one[0]].form == after[other[0]].form:
        pairs.append((one[0], other[0]))
        one, other = one[1:], other[1:]
    while one and other and before[one[-1]].form == after[other[-1]].form:
        pairs.append((one[-1], other[-1]))
        one, other = one[:-1], other[:-1]
    return one, other


def _heaviest(
    before: Sequence[Token], after: Sequence[Token], one: range, other: range, likeness: Likeness
) -> list[tuple[int, int]]:
    """The pairs of the heaviest common subsequence of a stretch."""
    weights = [[_weight(before[i], after[j], likeness) for j in other] for i in one]
    best = [[0.0] * (len(other) + 1)]
    for row in weights:
        above, here = best[-1], [0.0]
        for at, weight in enumerate(row):
            matched = above[at] + weight if weight else 0.0
            here.append(max(matched, above[at + 1], here[at]))
        best.append(here)
    pairs, i, j = [], len(one), len(other)
    while i and j:
        if best[i][j] == best[i - 1][j]:
            i -= 1
        elif best[i][j] == best[i][j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((one[i], other[j]))
    return pairs


def _weight(before: Token, after: Token, likeness: Likeness) -> float:
    if before.form == after.form:
        return _EQUAL
    return _SAME_KIND + likeness(before, after) if before.kind == after.kind else 0.0


def _anchors(
    before: Sequence[Token], after: Sequence[Token], one: range, other: range
) -> list[tuple[int, int]]:
    """Pairs of items that occur once in each stretch: the longest list in rising order."""
    for key in ("form", "kind"):
        places = _once(after, other, key)
        found = [(i, places[k]) for k, i in _once(before, one, key).items() if k in places]
        if found:
            return _longest_rising(found)
    return []


def _once(items: Sequence[Token], part: range, key: str) -> dict[int, int]:
    keys = [getattr(items[place], key) for place in part]
    count = Counter(keys)
    return {item: place for item, place in zip(keys, part, strict=True) if count[item] == 1}


def _longest_rising(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The most pairs (in order of their first) of which the second rise (patience sorting)."""
    tops: list[int] = []
    chains: list[int] = []
    before: list[int] = []
    for index, (_, second) in enumerate(pairs):
        pile = bisect_left(tops, second)
        before.append(chains[pile - 1] if pile else -1)
        tops[pile : pile + 1] = [second]
        chains[pile : pile + 1] = [index]
    found, at = [], chains[-1]
    while at >= 0:
        found.append(pairs[at])
        at = before[at]
    return found[::-1]


def _between(
    anchors: list[tuple[int, int]], one: range, other: range, pairs: list[tuple[int, int]]
) -> list[tuple[range, range]]:
    """The stretches between anchors, which are matched."""
    pairs += anchors
    ends = [*anchors, (one.stop, other.stop)]
    starts = [(one.start, other.start), *((i + 1, j + 1) for i, j in anchors)]
    return [(range(i, k), range(j, m)) for (i, j), (k, m) in zip(starts, ends, strict=True)]


def _gaps(
    before: Sequence[Token],
    after: Sequence[Token],
    pairs: list[tuple[int, int]],
    coarse: set[tuple[int, int]],
) -> list[Gap]:
    """The stretches without a match, in order."""
    found, i, j = [], 0, 0
    for k, m in [*pairs, (len(before), len(after))]:
        if i < k or j < m:
            one, other = range(i, k), range(j, m)
            tied = _is_tied(before, one) or _is_tied(after, other)
            found.append(Gap(one, other, tied, (i, j) in coarse))
        i, j = k + 1, m + 1
    return found


def _is_tied(items: Sequence[Token], part: range) -> bool:
    """Whether a stretch could be moved along its sequence by an item without being another."""
    if not part:
        return False
    first, last = part.start, part.stop - 1
    beside = [(first - 1, last), (last + 1, first)]
    return any(
        0 <= place < len(items) and items[place].kind == items[other].kind
        for place, other in beside
    )
