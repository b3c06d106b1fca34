"""Outlines of scopes, against a plain recursion over the same slices.

The other tests of what replaced what take from here how a tree is written: ``S(a b(c))``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceq.calltree import NONE
from traceq.model import Ints, SliceTable
from traceq.outline import Outline, Vocabulary, lay_out, lay_out_kernels
from traceq.selection import Selection, Windows
from traceq.steps import Steps, find_steps

NAMES = ("S", "f", "g", "h")
CATEGORIES = ("cpu_op", "python_function", "kernel")


def ints(values: Sequence[int]) -> Ints:
    return np.array(values, np.int64)


# Trees as text --------------------------------------------------------------------------------


class Written(NamedTuple):
    """A slice of a written tree."""

    name: str
    ts: int
    dur: int
    parent: int


def written(text: str, own: int = 10) -> list[Written]:
    """The slices of ``S(a b(c))``, one after the other: each has ``own`` time of its own.

    ``~`` stands for a space in a name.
    """
    names: list[str] = []
    parent, ts, dur = [], [], []
    around: list[int] = []
    now = 0
    for word in re.findall(r"[^\s()]+|[()]", text):
        if word == "(":
            around.append(len(names) - 1)
        elif word == ")":
            closed = around.pop()
            dur[closed] = now - ts[closed]
        else:
            names.append(word.replace("~", " "))
            parent.append(around[-1] if around else NONE)
            ts.append(now)
            dur.append(own)
            now += own
    assert not around, f"{text!r} is not closed"
    return [Written(*row) for row in zip(names, ts, dur, parent, strict=True)]


def table_of(rows: Sequence[Written]) -> SliceTable:
    names = list(dict.fromkeys(row.name for row in rows))
    return SliceTable(
        ts=ints([row.ts for row in rows]),
        dur=ints([row.dur for row in rows]),
        name=ints([names.index(row.name) for row in rows]),
        category=np.zeros(len(rows), np.int64),
        parent=ints([row.parent for row in rows]),
        adopted=ints([]),
        names=names,
        categories=["cpu_op"],
    )


def outline_of(
    text: str, words: Vocabulary, under: Sequence[str] = ("S",), own: int = 10
) -> Outline:
    """The outline of a written tree; its steps are the slices called ``ProfilerStep#1``, ..."""
    slices = table_of(written(text, own))
    selection = Selection.of_names(slices, under, None)
    return lay_out(slices, slices.names, selection, find_steps(slices), words)


def test_a_written_tree() -> None:
    assert written("S(a b(c)) d") == [
        Written("S", 0, 40, NONE),
        Written("a", 10, 10, 0),
        Written("b", 20, 20, 0),
        Written("c", 30, 10, 2),
        Written("d", 40, 10, NONE),
    ]


def test_an_outline_one_can_read() -> None:
    words = Vocabulary()
    outline = outline_of("S(a b(c)) d S(b(c))", words)
    assert [words[op] for op in outline.op] == ["S", "a", "b", "c", "S", "b", "c"]
    assert outline.slice.tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert outline.parent.tolist() == [-1, 0, 0, 2, -1, 4, 5]
    assert outline.size.tolist() == [4, 1, 2, 1, 3, 2, 1]
    assert outline.dur.tolist() == [40, 10, 20, 10, 30, 20, 10]
    assert outline.self_time.tolist() == [10] * 7
    assert outline.node_of.tolist() == [0, 1, 2, 3, -1, 4, 5, 6]
    assert outline.scopes.tolist() == [0, 4]
    assert outline.name == ("S", "S")
    assert outline.form[2] == outline.form[5]
    assert outline.form[0] != outline.form[4]
    assert outline.children(0) == [1, 2]
    assert (len(outline), outline.steps) == (7, 0)


# Random slices --------------------------------------------------------------------------------

Subtree = tuple[str, tuple[Any, ...]]


class Family(NamedTuple):
    """Some slices: parent, name, category and duration of each, which are on another lane.

    The slice with number n starts at n.
    """

    parent: list[int]
    name: list[int]
    category: list[int]
    dur: list[int]
    adopted: list[int]

    def table(self) -> SliceTable:
        return SliceTable(
            ts=np.arange(len(self.parent)),
            dur=ints(self.dur),
            name=ints(self.name),
            category=ints(self.category),
            parent=ints(self.parent),
            adopted=ints(self.adopted),
            names=[*NAMES],
            categories=[*CATEGORIES],
        )

    def is_cpu(self, here: int) -> bool:
        return CATEGORIES[self.category[here]] != "kernel"

    def above(self, here: int) -> list[int]:
        """What is around a slice, innermost first."""
        found = []
        while (here := self.parent[here]) >= 0:
            found.append(here)
        return found

    def scopes(self, under: str | None, spans: Sequence[tuple[int, int]] | None) -> list[int]:
        """The outermost ones that match and start in a span.

        Without a pattern it is the outermost of all that start in a span: one around everything
        may start before.
        """

        def inside(here: int) -> bool:
            return spans is None or any(start <= here < end for start, end in spans)

        marked = [
            self.is_cpu(here)
            and (inside(here) if under is None else under == NAMES[self.name[here]])
            for here in range(len(self.parent))
        ]
        outer = [
            here
            for here in range(len(self.parent))
            if marked[here] and not any(marked[item] for item in self.above(here))
        ]
        return [here for here in outer if inside(here)]

    def children(self, around: int) -> list[int]:
        """The CPU slices of which it is the nearest around."""
        found = []
        for here in range(len(self.parent)):
            nearest = next((item for item in self.above(here) if self.is_cpu(item)), NONE)
            if self.is_cpu(here) and nearest == around:
                found.append(here)
        return found

    def walk(self, here: int) -> list[int]:
        """A slice and all below it, each before what is below it."""
        return [here, *(item for child in self.children(here) for item in self.walk(child))]

    def subtree(self, here: int) -> Subtree:
        return NAMES[self.name[here]], tuple(self.subtree(child) for child in self.children(here))


@st.composite
def families(draw: st.DrawFn) -> Family:
    size = draw(st.integers(0, 14))
    parent = [draw(st.integers(max(-1, here - 4), here - 1)) for here in range(size)]

    def numbers(most: int) -> list[int]:
        return draw(st.lists(st.integers(0, most), min_size=size, max_size=size))

    category = [max(number - 6, 0) for number in numbers(8)]
    return Family(
        parent,
        numbers(3),
        category,
        numbers(9),
        [here for here in range(size) if parent[here] >= 0 and draw(st.integers(0, 5)) == 0],
    )


NO_STEPS = Steps(ints([]), ints([]), ints([]), ints([]), "", ints([]))
UNDER = st.sampled_from([None, "S", "S", "f"])


def lay_out_family(
    family: Family,
    under: str | None,
    *,
    words: Vocabulary | None = None,
    windows: Windows | None = None,
    steps: Steps = NO_STEPS,
) -> Outline:
    slices = family.table()
    selection = Selection.of_names(slices, None if under is None else [under], windows)
    return lay_out(slices, slices.names, selection, steps, words or Vocabulary())


@given(families(), UNDER)
def test_nodes_stand_before_what_is_below_them(family: Family, under: str | None) -> None:
    outline = lay_out_family(family, under)
    scopes = family.scopes(under, None)
    walked = [here for scope in scopes for here in family.walk(scope)]
    assert outline.slice.tolist() == walked
    assert len(outline) == len(walked)
    assert outline.slice[outline.scopes].tolist() == scopes
    assert outline.name == tuple(NAMES[family.name[here]] for here in scopes)
    assert outline.size.tolist() == [len(family.walk(here)) for here in walked]
    assert outline.dur.tolist() == [family.dur[here] for here in walked]
    for node, here in enumerate(walked):
        children = [int(outline.slice[child]) for child in outline.children(node)]
        assert children == family.children(here)
        assert {int(outline.parent[child]) for child in outline.children(node)} <= {node}
    assert (outline.parent < 0).tolist() == [here in scopes for here in walked]


@given(families(), UNDER)
def test_every_slice_is_at_or_below_its_node(family: Family, under: str | None) -> None:
    outline = lay_out_family(family, under)
    walked = outline.slice.tolist()
    for here in range(len(family.parent)):
        around = [item for item in (here, *family.above(here)) if item in walked]
        expected = walked.index(around[0]) if around else NONE
        assert outline.node_of[here] == expected


@given(families(), UNDER)
def test_own_time_is_less_that_of_children_on_the_same_lane(
    family: Family, under: str | None
) -> None:
    outline = lay_out_family(family, under)
    for node, here in enumerate(outline.slice.tolist()):
        below = [child for child in family.children(here) if child not in family.adopted]
        assert outline.self_time[node] == family.dur[here] - sum(family.dur[i] for i in below)
        assert outline.on_lane[node] == (here not in family.adopted)


@given(families(), families(), UNDER)
def test_equal_forms_are_equal_subtrees(one: Family, other: Family, under: str | None) -> None:
    """Of one trace and of two that share their words."""
    words = Vocabulary()
    nodes = [
        (int(form), family.subtree(here))
        for family in (one, other)
        for outline in [lay_out_family(family, under, words=words)]
        for form, here in zip(outline.form, outline.slice.tolist(), strict=True)
    ]
    for (form, subtree), (form_2, subtree_2) in product(nodes, nodes):
        assert (form == form_2) == (subtree == subtree_2)


def test_forms_tell_order_nesting_and_number_apart() -> None:
    texts = ("S(a b)", "S(b a)", "S(a(b))", "S(a a b)", "S(a b b)", "S(a b(a))", "S(a)", "S")
    words = Vocabulary()
    forms = [int(outline_of(text, words).form[0]) for text in texts]
    assert len(set(forms)) == len(texts)
    assert [int(outline_of(text, words).form[0]) for text in texts] == forms
    long = [int(outline_of(f"S({'a ' * count})", words).form[0]) for count in range(1, 200)]
    assert len(set(long)) == len(long)


@given(families(), UNDER, st.lists(st.integers(0, 15), min_size=2, max_size=4, unique=True))
def test_scopes_start_within_the_windows(
    family: Family, under: str | None, edges: list[int]
) -> None:
    edges = sorted(edges)[: len(edges) // 2 * 2]
    windows = Windows(ints(edges[::2]), ints(edges[1::2]))
    outline = lay_out_family(family, under, windows=windows)
    scopes = family.scopes(under, list(zip(edges[::2], edges[1::2], strict=True)))
    assert outline.slice.tolist() == [here for scope in scopes for here in family.walk(scope)]


@given(families(), st.lists(st.integers(0, 15), min_size=1, max_size=4, unique=True))
def test_steps_are_counted_among_those_that_have_scopes(family: Family, edges: list[int]) -> None:
    """Steps of the trace follow each other from the first edge to the last."""
    edges = sorted(edges)
    count = len(edges) - 1
    steps = Steps(
        np.arange(count), np.arange(count), ints(edges[:-1]), ints(edges[1:]), "given", ints([])
    )
    outline = lay_out_family(family, "S", steps=steps)
    of_scope = [
        next((n for n in range(count) if edges[n] <= here < edges[n + 1]), NONE)
        for here in family.scopes("S", None)
    ]
    used = sorted(set(of_scope) - {NONE})
    assert outline.step.tolist() == [used.index(n) if n >= 0 else NONE for n in of_scope]
    assert outline.steps == len(used)
    scope_of = np.searchsorted(outline.scopes, np.arange(len(outline)), side="right") - 1
    assert outline.step_of(np.arange(len(outline))).tolist() == outline.step[scope_of].tolist()


def test_steps_of_a_trace() -> None:
    steps = "ProfilerStep#1(S(a)) ProfilerStep#2(x) ProfilerStep#3(S(a) S(b)) S(c)"
    outline = outline_of(steps, Vocabulary())
    assert outline.step.tolist() == [0, 1, 1, NONE]
    assert outline.steps == 2
    assert outline.step_of(ints([0, 1, 3, 5, 7])).tolist() == [0, 0, 1, 1, NONE]


def test_a_deep_chain() -> None:
    deep = 3_000
    outline = outline_of("S(" * deep + "a" + ")" * deep, Vocabulary())
    assert outline.size.tolist() == list(range(deep + 1, 0, -1))
    assert outline.parent.tolist() == list(range(-1, deep))
    assert len(set(outline.form.tolist())) == deep + 1


# Words ----------------------------------------------------------------------------------------


def test_words_keep_their_numbers() -> None:
    words = Vocabulary("first")
    assert words.number(["b", "a", "b", "first"]).tolist() == [1, 2, 1, 0]
    assert words.number(["c", "a"]).tolist() == [3, 2]
    assert words.ops == ["first", "b", "a", "c"]
    assert words[2] == "a"
    assert Vocabulary().number([]).tolist() == []


# Kernels --------------------------------------------------------------------------------------


class Launched(NamedTuple):
    """A GPU activity: the number of its scope, when it was launched, how long it ran, names."""

    scope: int
    order: int
    dur: int
    short: int
    full: int


@st.composite
def launches(draw: st.DrawFn) -> list[Launched]:
    """Of three scopes; a full name has one short one."""
    names = st.integers(1, 4)
    rows = st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 50), names)
    return [Launched(*row[:3], (row[3] + 1) // 2, row[3]) for row in draw(st.lists(rows))]


def kernel_outline(outline: Outline, work: Sequence[Launched], nodes: Sequence[int]) -> Outline:
    columns = [ints([row[place] for row in work]) for place in range(1, 5)]
    order, dur, short, full = columns
    return lay_out_kernels(outline, ints(nodes), order, dur, short, full)


@given(launches(), st.data())
def test_kernels_stand_below_the_scope_that_launched_them(
    work: list[Launched], data: st.DataObject
) -> None:
    """In the order of their launches; activities of one launch in their own."""
    outline = outline_of("S(a b(c)) S(a b(c)) x S(d e)", Vocabulary())
    inside = [range(4), range(4, 8), range(8, 11)]
    nodes = [data.draw(st.sampled_from(inside[row.scope])) for row in work]
    found = kernel_outline(outline, work, nodes)
    expected: list[tuple[int, int, int, int]] = []  # activity, short name, time, size
    scopes = []
    for scope in range(3):
        own = [n for n, row in enumerate(work) if row.scope == scope]
        own.sort(key=lambda n: work[n].order)
        scopes.append(len(expected))
        expected.append((NONE, 0, sum(work[n].dur for n in own), len(own) + 1))
        expected += [(n, work[n].short, work[n].dur, 1) for n in own]
    assert found.scopes.tolist() == scopes
    assert list(zip(found.slice, found.op, found.dur, found.size, strict=True)) == expected
    assert (found.name, found.step.tolist()) == (outline.name, outline.step.tolist())
    for node, scope in enumerate(scopes):
        size = int(found.size[scope])
        assert found.children(scope) == list(range(scope + 1, scope + size))
        assert found.self_time[scope] == 0, node
    leaf = found.parent >= 0
    assert (found.self_time[leaf] == found.dur[leaf]).all()
    assert found.on_lane.all()


@given(launches())
def test_forms_of_kernels_are_those_of_their_full_names(work: list[Launched]) -> None:
    outline = outline_of("S S S", Vocabulary())
    found = kernel_outline(outline, work, [row.scope for row in work])
    orders = [
        [row.full for row in sorted(work, key=lambda row: row.order) if row.scope == scope]
        for scope in range(3)
    ]
    forms = found.form[found.scopes].tolist()
    for one, other in product(range(3), range(3)):
        assert (forms[one] == forms[other]) == (orders[one] == orders[other])
    full = {int(found.form[node]): int(found.slice[node]) for node in range(len(found))}
    assert len(full) == len(set(forms)) + len({row.full for row in work})


@pytest.mark.parametrize("text", ["", "x(y)"])
def test_no_scopes(text: str) -> None:
    outline = outline_of(text, Vocabulary())
    assert (len(outline), outline.steps, outline.name) == (0, 0, ())
    found = kernel_outline(outline, [], [])
    assert (len(found), found.steps) == (0, 0)
    assert outline.node_of.tolist() == [NONE] * len(written(text))
