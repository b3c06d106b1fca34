"""Matching of ordered sequences: what must hold for any two, against trying every matching."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceq import sequence
from traceq.sequence import Gap, Matching, Token, match

EQUAL, SAME_KIND = 2.0, 0.5
"""What the docstring of ``match`` says that pairs weigh."""


def tokens(text: str) -> list[Token]:
    """Items by their letter (the kind) and what follows it (with it the form): ``a1 a2 b``."""
    return [Token(word, word[0]) for word in text.split()]


def likeness(before: Token, after: Token) -> float:
    """Quarters, so that sums are exact: the nearer the numbers of two forms, the more alike."""
    one, other = (int(str(token.form)[1:] or 0) for token in (before, after))
    return max(4 - abs(one - other), 0) / 4


def same(before: Token, after: Token) -> float:
    return 0.0


def weight(
    before: Sequence[Token], after: Sequence[Token], pairs: Iterable[tuple[int, int]]
) -> float:
    total = 0.0
    for i, j in pairs:
        if before[i].form == after[j].form:
            total += EQUAL
        elif before[i].kind == after[j].kind:
            total += SAME_KIND + likeness(before[i], after[j])
    return total


words = st.sampled_from(["a0", "a1", "a5", "b0", "b2", "c0"])


def sequences(most: int) -> st.SearchStrategy[list[Token]]:
    return st.lists(words, max_size=most).map(" ".join).map(tokens)


@st.composite
def edited(draw: st.DrawFn, most: int) -> tuple[list[Token], list[Token]]:
    """A sequence, and the same after some of its items were dropped, put in or changed."""
    before = draw(sequences(most))
    after = []
    for token in before:
        what = draw(st.sampled_from(["keep", "keep", "keep", "keep", "drop", "put in", "change"]))
        if what == "put in":
            after += tokens(draw(words))
        if what in ("keep", "put in"):
            after.append(token)
        elif what == "change":
            after.append(Token(f"{token.kind}3", token.kind))
    return before, after


def assert_valid(before: Sequence[Token], after: Sequence[Token], found: Matching) -> None:
    """Pairs rise on both sides and are of one kind; each item is in one pair or in one gap."""
    for (i, j), (k, m) in pairwise(found.pairs):
        assert i < k
        assert j < m
    assert all(before[i].kind == after[j].kind for i, j in found.pairs)
    for side, items in enumerate((before, after)):
        paired = [pair[side] for pair in found.pairs]
        left = [place for gap in found.gaps for place in gap[side]]
        assert sorted(paired + left) == list(range(len(items)))
    assert all(gap.before or gap.after for gap in found.gaps)
    for gap, following in pairwise(found.gaps):  # between any two there is a pair
        assert gap.before.stop < following.before.start
        assert gap.after.stop < following.after.start


def assert_ends_are_matched(
    before: Sequence[Token], after: Sequence[Token], found: Matching
) -> None:
    """As long as the items at an end are equal, they are each other's."""
    pairs = set(found.pairs)
    for i in range(min(len(before), len(after))):
        if before[i].form != after[i].form:
            break
        assert (i, i) in pairs
    else:
        return
    left = min(len(before), len(after)) - i
    for back in range(1, left + 1):
        if before[-back].form != after[-back].form:
            break
        assert (len(before) - back, len(after) - back) in pairs


# What must hold for any two -----------------------------------------------------------------------


@given(before=sequences(12), after=sequences(12))
def test_what_holds_for_any_two(before: list[Token], after: list[Token]) -> None:
    found = match(before, after, likeness)
    assert_valid(before, after, found)
    assert_ends_are_matched(before, after, found)
    assert not any(gap.is_coarse for gap in found.gaps)


@given(both=edited(20))
def test_what_holds_for_a_sequence_and_its_change(both: tuple[list[Token], list[Token]]) -> None:
    before, after = both
    found = match(before, after, likeness)
    assert_valid(before, after, found)
    assert_ends_are_matched(before, after, found)


@given(items=sequences(30))
def test_equal_sequences_have_no_gaps(items: list[Token]) -> None:
    found = match(items, list(items), likeness)
    assert found == Matching(tuple((place, place) for place in range(len(items))), ())


@given(before=sequences(5), after=sequences(5))
def test_no_matching_weighs_more(before: list[Token], after: list[Token]) -> None:
    """Tried one by one: every choice of as many items of both sides."""
    best = max(
        weight(before, after, pairs)
        for count in range(min(len(before), len(after)) + 1)
        for one in combinations(range(len(before)), count)
        for other in combinations(range(len(after)), count)
        for pairs in [list(zip(one, other, strict=True))]
    )
    assert weight(before, after, match(before, after, likeness).pairs) == best


@given(before=sequences(8), after=sequences(8))
def test_the_other_way_round_as_much_stays_the_same(
    before: list[Token], after: list[Token]
) -> None:
    there, back = match(before, after, likeness), match(after, before, likeness)
    assert weight(before, after, there.pairs) == weight(after, before, back.pairs)


def test_nothing_on_one_side() -> None:
    items = tokens("a b a")
    assert match(items, [], likeness).gaps == (Gap(range(3), range(0), False, False),)
    assert match([], items, likeness).gaps == (Gap(range(0), range(3), False, False),)
    assert match([], [], likeness) == Matching((), ())


# Single cases -------------------------------------------------------------------------------------


def shown(before: str, after: str) -> list[tuple[str, str]]:
    """The gaps, as the items in them."""
    one, other = before.split(), after.split()
    found = match(tokens(before), tokens(after), likeness)
    return [
        (" ".join(one[i] for i in gap.before), " ".join(other[j] for j in gap.after))
        for gap in found.gaps
    ]


@pytest.mark.parametrize(
    ("before", "after", "gaps"),
    [
        ("a b c", "a d c", [("b", "d")]),
        ("a b c d e", "a x e", [("b c d", "x")]),
        ("a x e", "a b c d e", [("x", "b c d")]),
        ("a b c d", "b c", [("a", ""), ("d", "")]),
        ("a b", "b a", [("", "b"), ("b", "")]),  # one of them has moved
        ("a1 b", "a2 b", []),  # of one kind: the same, changed
        ("a1 a5", "a5", [("a1", "")]),  # the equal one of two
        ("a1", "a5 a2", [("", "a5")]),  # the more alike of two
        ("a b", "c d", [("a b", "c d")]),
    ],
)
def test_gaps(before: str, after: str, gaps: list[tuple[str, str]]) -> None:
    assert shown(before, after) == gaps


@pytest.mark.parametrize(
    ("before", "after", "is_tied"),
    [
        ("a a", "a", True),  # either of them may have gone
        ("a", "a a", True),
        ("a1 a2 b", "a1 b", True),  # of one kind
        ("a b a b", "a b", True),  # the first two or the last
        ("a b", "a", False),
        ("a x b", "a y b", False),
        ("x a b", "a b", False),
        ("a x b x c", "a x b c", False),
    ],
)
def test_ties(before: str, after: str, is_tied: bool) -> None:
    (gap,) = match(tokens(before), tokens(after), likeness).gaps
    assert gap.is_tied == is_tied


@given(count=st.integers(1, 6), fewer=st.integers(0, 5))
def test_one_of_a_run_that_is_left_out_is_always_tied(count: int, fewer: int) -> None:
    before, after = tokens("a " * count), tokens("a " * min(fewer, count - 1))
    (gap,) = match(before, after, likeness).gaps
    assert gap.is_tied == bool(after)


# Long sequences -----------------------------------------------------------------------------------


@pytest.fixture
def few_cells() -> Iterator[None]:
    """Stretches are too long from five pairs of items on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence, "MOST_CELLS", 4)
        yield


@given(before=sequences(12), after=sequences(12))
def test_what_holds_for_any_two_that_are_long(
    few_cells: None, before: list[Token], after: list[Token]
) -> None:
    found = match(before, after, likeness)
    assert_valid(before, after, found)
    assert_ends_are_matched(before, after, found)
    for gap in found.gaps:
        assert not gap.is_coarse or len(gap.before) * len(gap.after) > sequence.MOST_CELLS


@given(both=edited(30))
def test_what_holds_for_a_long_sequence_and_its_change(
    few_cells: None, both: tuple[list[Token], list[Token]]
) -> None:
    assert_valid(*both, match(*both, likeness))


@given(order=st.permutations(range(8)))
def test_items_that_occur_once_keep_their_longest_rising_order(
    few_cells: None, order: list[int]
) -> None:
    """With nothing else in the sequences, what is matched is a longest rising part of them."""
    before = [Token(number, number) for number in range(8)]
    after = [Token(number, number) for number in order]
    found = match(before, after, same)
    assert_valid(before, after, found)
    rising = max(
        count
        for count in range(1, 9)
        for part in combinations(order, count)
        if list(part) == sorted(part)
    )
    assert len(found.pairs) == rising


def numbered(size: int, changed: int, *, renamed: bool) -> tuple[list[Token], list[Token]]:
    """A sequence without repeats, and the same with each so-many-th item changed or another."""
    before = [Token(f"{n}", n) for n in range(size)]
    after = [
        Token(f"{n} changed", -n if renamed else n) if n % changed == 1 else item
        for n, item in enumerate(before)
    ]
    return before, after


@pytest.mark.parametrize("size", [500, 2_000, 8_000])
def test_the_cost_of_long_sequences_grows_with_their_changes(size: int) -> None:
    """Not with all pairs of their items: each changed one is compared with those at its place."""
    before, after = numbered(size, 4, renamed=False)
    calls = 0

    def counted(one: Token, other: Token) -> float:
        nonlocal calls
        calls += 1
        return 0.5

    found = match(before, after, counted)
    assert len(found.pairs) == size
    assert calls <= size


def test_what_is_other_in_a_long_sequence_is_a_gap_in_its_place() -> None:
    before, after = numbered(2_000, 400, renamed=True)
    found = match(before, after, same)
    assert_valid(before, after, found)
    assert found.gaps == tuple(
        Gap(range(n, n + 1), range(n, n + 1), is_tied=False, is_coarse=False)
        for n in range(1, 2_000, 400)
    )


def test_a_long_stretch_without_anything_to_hold_on_to_is_coarse() -> None:
    before, after = tokens("s " + "a b " * 150 + "e"), tokens("s " + "c d " * 150 + "e")

    def never(one: Token, other: Token) -> float:
        raise AssertionError("a stretch too long for all pairs was looked at pair by pair")

    (gap,) = match(before, after, never).gaps
    assert (gap.before, gap.after) == (range(1, 301), range(1, 301))
    assert gap.is_coarse
    before, after = before[:20], after[:20]
    assert not any(gap.is_coarse for gap in match(before, after, same).gaps)


def test_a_long_stretch_is_cut_at_kinds_where_no_item_is_the_same() -> None:
    """All items have changed; that of a kind which occurs once still is what it was."""
    before = tokens("a1 b1 " * 150 + "x1 " + "a1 b1 " * 150)
    after = tokens("c1 d1 " * 150 + "x2 " + "c1 d1 " * 150)
    found = match(before, after, likeness)
    assert found.pairs == ((300, 300),)
    assert [gap.is_coarse for gap in found.gaps] == [True, True]
