"""Forests and trees of slices against loops over them, and the windows of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceq.calltree import (
    NONE,
    CallTree,
    Forest,
    depths,
    merge,
    nearest,
    outermost,
    plant,
    ratio,
    sum_by,
)
from traceq.model import Bools, Ints, SliceTable
from traceq.selection import GPU_LABEL, Selection, Windows, grow, span_of


class Family(NamedTuple):
    """Some slices: the parent, mark, label and duration of each, and which are on another lane."""

    parent: list[int]
    chosen: list[bool]
    label: list[int]
    dur: list[int]
    adopted: list[int]

    def above(self, here: int) -> Iterator[int]:
        """What is around a slice, innermost first."""
        while (here := self.parent[here]) >= 0:
            yield here

    def nearest(self, here: int) -> int:
        return next((item for item in (here, *self.above(here)) if self.chosen[item]), NONE)

    def nearest_above(self, here: int) -> int:
        return next((item for item in self.above(here) if self.chosen[item]), NONE)

    def ids(self) -> list[int]:
        return [here for here in range(len(self.parent)) if self.chosen[here]]

    def table(self) -> SliceTable:
        size = len(self.parent)
        return SliceTable(
            ts=np.arange(size),
            dur=ints(self.dur),
            name=ints(self.label),
            category=np.zeros(size, np.int64),
            parent=ints(self.parent),
            adopted=ints(self.adopted),
            names=[f"n{number}" for number in range(4)],
            categories=["cpu_op"],
        )


@st.composite
def families(draw: Any, *, all_chosen: bool = False) -> Family:
    size = draw(st.integers(0, 14))
    parent = [draw(st.integers(-1, here - 1)) for here in range(size)]
    flags = st.just(True) if all_chosen else st.booleans()
    return Family(
        parent,
        draw(st.lists(flags, min_size=size, max_size=size)),
        draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)),
        draw(st.lists(st.integers(0, 9), min_size=size, max_size=size)),
        [here for here in range(size) if parent[here] >= 0 and draw(st.integers(0, 5)) == 0],
    )


def ints(values: Sequence[int]) -> Ints:
    return np.array(values, np.int64)


def bools(values: Sequence[bool]) -> Bools:
    return np.array(values, np.bool_)


# Forest ------------------------------------------------------------------------------------------


@given(families())
def test_nearest_is_what_a_walk_up_finds_first(family: Family) -> None:
    found = nearest(ints(family.parent), bools(family.chosen))
    assert found.tolist() == [family.nearest(here) for here in range(len(family.parent))]


def test_nearest_along_a_chain_longer_than_any_doubling() -> None:
    size = 1000
    chosen = np.zeros(size, np.bool_)
    chosen[[0, 600]] = True
    found = nearest(np.arange(-1, size - 1), chosen)
    assert found.tolist() == [0] * 600 + [600] * 400
    assert nearest(np.arange(-1, size - 1), ~chosen & False).tolist() == [NONE] * size


@given(families())
def test_outermost_slices_have_no_chosen_one_around_them(family: Family) -> None:
    found = outermost(ints(family.parent), bools(family.chosen))
    assert found.tolist() == [
        family.chosen[here] and family.nearest_above(here) == NONE
        for here in range(len(family.parent))
    ]


@given(families())
def test_depth_is_the_number_of_slices_around(family: Family) -> None:
    found = depths(ints(family.parent))
    assert found.tolist() == [len(list(family.above(here))) for here in range(len(family.parent))]


def test_depths_of_a_long_chain() -> None:
    assert depths(np.arange(-1, 999)).tolist() == list(range(1000))


@given(families())
def test_a_forest_holds_the_chosen_slices(family: Family) -> None:
    forest = plant(family.table(), bools(family.chosen))
    ids = family.ids()
    position = {**{here: number for number, here in enumerate(ids)}, NONE: NONE}
    assert forest.ids.tolist() == ids
    assert len(forest) == len(ids)
    assert forest.dur.tolist() == [family.dur[here] for here in ids]
    assert forest.parent.tolist() == [position[family.nearest_above(here)] for here in ids]
    assert forest.home.tolist() == [
        position[family.nearest(here)] for here in range(len(family.parent))
    ]


@given(families())
def test_self_time_leaves_out_what_is_below_on_the_same_lane(family: Family) -> None:
    """On the same lane: no step of the way up to the chosen slice around it goes to another."""
    forest = plant(family.table(), bools(family.chosen))
    expected = {here: family.dur[here] for here in family.ids()}
    for here in family.ids():
        way = [here, *family.above(here)]
        up_to = next((n for n, item in enumerate(way[1:], 1) if family.chosen[item]), None)
        if up_to is not None and not set(way[:up_to]) & set(family.adopted):
            expected[way[up_to]] -= family.dur[here]
    assert forest.self_time.tolist() == list(expected.values())


# Tree --------------------------------------------------------------------------------------------


def tree_of(family: Family) -> CallTree:
    forest = plant(family.table(), bools(family.chosen))
    return merge(forest, ints(family.label)[forest.ids])


def labels_on_path(family: Family, here: int) -> tuple[int, ...]:
    path = [item for item in (here, *family.above(here)) if family.chosen[item]]
    return tuple(family.label[item] for item in reversed(path))


@given(families())
def test_slices_with_the_same_labels_on_their_way_down_are_one_node(family: Family) -> None:
    tree = tree_of(family)
    ids = family.ids()
    path_of_node: dict[int, tuple[int, ...]] = {}
    for here, node in zip(ids, tree.node.tolist(), strict=True):
        assert path_of_node.setdefault(node, labels_on_path(family, here)) == labels_on_path(
            family, here
        )
    assert len(path_of_node) == len(tree) == len({labels_on_path(family, here) for here in ids})
    for node, path in path_of_node.items():
        parent = int(tree.parent[node])
        assert tree.label[node] == path[-1]
        assert parent < node
        assert path_of_node.get(parent, ()) == path[:-1]


@given(families())
def test_levels_hold_the_nodes_of_one_depth(family: Family) -> None:
    tree = tree_of(family)
    nodes = np.arange(len(tree))
    assert [node for level in tree.levels() for node in nodes[level].tolist()] == nodes.tolist()
    depth = depths(tree.parent)
    for number, level in enumerate(tree.levels()):
        assert set(depth[level].tolist()) == {number}


def above(tree: CallTree, node: int) -> list[int]:
    found = []
    while (node := int(tree.parent[node])) >= 0:
        found.append(node)
    return found


@given(families(), st.data())
def test_marks_spread_down(family: Family, data: st.DataObject) -> None:
    tree = tree_of(family)
    size = len(tree)
    marked = bools(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    around = [above(tree, node) for node in range(size)]
    before = marked.tolist()
    assert tree.spread_down(marked).tolist() == [
        any(before[item] for item in (node, *around[node])) for node in range(size)
    ]
    assert marked.tolist() == before


@given(families(), st.data())
def test_repeats_are_nodes_below_one_of_their_group(family: Family, data: st.DataObject) -> None:
    tree = tree_of(family)
    size = len(tree)
    group = data.draw(st.lists(st.integers(-1, 2), min_size=size, max_size=size))
    assert tree.repeats(ints(group)).tolist() == [
        group[node] >= 0 and any(group[item] == group[node] for item in above(tree, node))
        for node in range(size)
    ]


@given(families(), st.data())
def test_paths_are_the_groups_on_the_way_up(family: Family, data: st.DataObject) -> None:
    tree = tree_of(family)
    size = len(tree)
    group = data.draw(st.lists(st.integers(-1, 3), min_size=size, max_size=size))
    nodes = data.draw(st.lists(st.integers(-1, size - 1), max_size=6))
    first, second = tree.paths(ints(nodes), ints(group))
    expected = {
        (number, group[item])
        for number, node in enumerate(nodes)
        if node >= 0
        for item in (node, *above(tree, node))
        if group[item] >= 0
    }
    found = list(zip(first.tolist(), second.tolist(), strict=True))
    assert len(found) == len(set(found))
    assert set(found) == expected


@given(families(), st.data())
def test_sums_by_node(family: Family, data: st.DataObject) -> None:
    tree = tree_of(family)
    size = len(tree.forest)
    values = data.draw(st.lists(st.integers(-9, 9), min_size=size, max_size=size))
    counted = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    nodes = tree.node.tolist()
    whole, part = [0] * len(tree), [0] * len(tree)
    for node, value, is_counted in zip(nodes, values, counted, strict=True):
        whole[node] += value
        part[node] += value if is_counted else 0
    assert tree.sums(ints(values)).tolist() == whole
    assert tree.sums(ints(values), bools(counted)).tolist() == part


@given(families(all_chosen=True))
def test_a_tree_keeps_the_time_of_its_slices(family: Family) -> None:
    tree = tree_of(family)
    forest = tree.forest
    assert int(tree.sums(forest.self_time).sum()) == int(forest.self_time.sum())
    if not family.adopted:
        own, below = tree.sums(forest.self_time), tree.sums(forest.dur)
        inner = tree.parent >= 0
        np.add.at(own, tree.parent[inner], below[inner])
        assert own.tolist() == below.tolist()


def test_an_empty_forest_is_an_empty_tree() -> None:
    empty = np.zeros(0, np.int64)
    tree = merge(Forest(empty, empty, empty, empty, empty), empty)
    assert len(tree) == 0
    assert list(tree.levels()) == []
    assert tree.repeats(np.zeros(0, np.bool_)).tolist() == []
    assert [item.tolist() for item in tree.paths(empty, empty)] == [[], []]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-(2**62), 2**62) | st.integers(-9, 9))))
def test_sums_are_exact(pairs: list[tuple[int, int]]) -> None:
    expected = [sum(value for group, value in pairs if group == here) for here in range(5)]
    if all(abs(value) < 2**63 for value in expected):
        groups, values = ints([pair[0] for pair in pairs]), ints([pair[1] for pair in pairs])
        assert sum_by(groups, values, 5).tolist() == expected


def test_a_ratio_over_nothing_is_no_number() -> None:
    assert ratio(ints([1, 0, 3]), ints([2, 5, 0])).tolist()[:2] == [0.5, 0.0]
    assert np.isnan(ratio(ints([3]), ints([0]))[0])


# Scopes in a tree --------------------------------------------------------------------------------


@given(families(all_chosen=True), st.sets(st.integers(0, 3)))
def test_scopes_are_outermost_matches_and_below_is_below(family: Family, under: set[int]) -> None:
    slices = family.table()
    forest = plant(slices, bools(family.chosen))
    chosen = Selection(under=bools([number in under for number in range(4)]))
    scoped = grow(slices, forest, np.zeros(len(forest), np.int64), chosen)
    node = scoped.tree.node
    for here in range(len(family.parent)):
        is_match = family.label[here] in under
        around = [family.label[item] in under for item in family.above(here)]
        assert scoped.scope[node[here]] == (is_match and not any(around))
        assert scoped.below[node[here]] == any(around)
        assert scoped.included[node[here]] == (is_match or any(around))
    whole = grow(slices, forest, np.zeros(len(forest), np.int64), Selection())
    assert not whole.scope.any()
    assert whole.below.all()
    assert whole.included.all()


def test_the_copy_of_a_label_on_the_gpu_is_no_scope() -> None:
    slices = SliceTable(
        ts=ints([0, 5]),
        dur=ints([9, 9]),
        name=ints([0, 0]),
        category=ints([0, 1]),
        parent=ints([-1, -1]),
        adopted=ints([]),
        names=["label"],
        categories=["user_annotation", GPU_LABEL],
    )
    assert Selection.of_names(slices, ["label"], None).marks(slices).tolist() == [True, False]
    assert Selection.of_names(slices, [], None).marks(slices).tolist() == [False, False]
    assert Selection.of_names(slices, None, None).under is None


# Windows -----------------------------------------------------------------------------------------


@st.composite
def windows(draw: Any) -> Windows:
    edges = sorted(draw(st.lists(st.integers(0, 40), unique=True, max_size=8)))
    edges = edges[: len(edges) // 2 * 2]
    touching = [edges[0], *(edges[2::2])] if edges and draw(st.booleans()) else edges[::2]
    return Windows(ints(touching), ints(edges[1::2]))


@given(windows(), st.lists(st.integers(-2, 42)))
def test_windows_are_half_open(spans: Windows, times: list[int]) -> None:
    pairs = list(zip(spans.start.tolist(), spans.end.tolist(), strict=True))
    expected = [any(start <= ts < end for start, end in pairs) for ts in times]
    assert spans.contain(ints(times)).tolist() == expected
    if pairs:
        assert spans.span == (pairs[0][0], pairs[-1][1])


def test_touching_windows_hold_each_time_once() -> None:
    spans = Windows(ints([0, 10]), ints([10, 20]))
    assert spans.contain(ints([-1, 0, 9, 10, 19, 20])).tolist() == [False, *[True] * 4, False]
    assert spans.span == (0, 20)


@pytest.mark.parametrize("marks", [("",), ("Trace",), ("", "Trace")])
def test_the_span_leaves_out_the_profilers_own_marks(marks: tuple[str, ...]) -> None:
    def table(categories: Sequence[str]) -> SliceTable:
        size = len(categories)
        return SliceTable(
            ts=ints([100 * here for here in range(size)]),
            dur=ints([7] * size),
            name=np.zeros(size, np.int64),
            category=np.arange(size),
            parent=np.full(size, NONE),
            adopted=ints([]),
            names=["n"],
            categories=list(categories),
        )

    assert span_of(table([*marks, "cpu_op", "kernel"])) == (
        100 * len(marks),
        100 * (len(marks) + 1) + 7,
    )
    assert span_of(table(marks)) == (0, 100 * (len(marks) - 1) + 7)
    assert span_of(table([])) == (0, 0)
