"""What replaced what: tiny traces that can be read at a glance, and what holds for any two.

Trees are written as in :mod:`tests.test_outline`: in ``S(a b(c))`` the scope S calls a and b, and b
calls c.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import traceq
from tests.test_outline import outline_of, written
from tests.tracemaker import Event, compact, complete
from traceq.align import Alignment, Kind, Placed, align, groups_at, pair_scopes
from traceq.calltree import NONE
from traceq.compare import Diff
from traceq.outline import Outline, Vocabulary

Told = tuple[str, str, str, str]
"""A group: its kind, the op around it, the ops before and after."""


class Aligned(NamedTuple):
    """Two outlines, their words, and what was found."""

    before: Outline
    after: Outline
    words: Vocabulary
    found: Alignment

    def told(self) -> list[Told]:
        return sorted(
            (str(key.kind), key.parent, " ".join(key.before), " ".join(key.after))
            for key in self.found.keys
        )


def aligned(before: str, after: str, under: Sequence[str] = ("S",)) -> Aligned:
    words = Vocabulary()
    one, other = outline_of(before, words, under), outline_of(after, words, under)
    return Aligned(one, other, words, align(one, other, words.ops))


# Tiny traces ----------------------------------------------------------------------------------


class Case(NamedTuple):
    """Two scopes, the groups between them, and whether one of these is a matter of choice."""

    before: str
    after: str
    groups: list[Told]
    is_ambiguous: bool = False


CASES = {
    "nothing": Case("S(a b(c))", "S(a b(c))", []),
    "replaced": Case(
        "S(a rearrange(view) b)",
        "S(a flatten b)",
        [("replaced", "S", "rearrange", "flatten")],
    ),
    "replaced-deep-down": Case(
        "S(a m1(m2(m3(a old b))) b)",
        "S(a m1(m2(m3(a new b))) b)",
        [("replaced", "m3", "old", "new")],
    ),
    "replaced-several": Case(
        "S(a x y b)", "S(a u v b)", [("replaced", "S", "x y", "u v")], is_ambiguous=True
    ),
    "replaced-twice": Case("S(old a old)", "S(new a new)", [("replaced", "S", "old", "new")]),
    "fused": Case("S(a mul add sum b)", "S(a fused b)", [("fused", "S", "mul add sum", "fused")]),
    "split": Case("S(a fused b)", "S(a mul add sum b)", [("split", "S", "fused", "mul add sum")]),
    "renamed": Case("S(a old(x y(z)) b)", "S(a new(x y(z)) b)", [("renamed", "S", "old", "new")]),
    "added": Case("S(a b)", "S(a new(x) b)", [("added", "S", "", "new")]),
    "removed": Case("S(a old(x) b)", "S(a b)", [("removed", "S", "old", "")]),
    "added-as-the-only-one": Case("S(p1)", "S(p1(new))", [("added", "p1", "", "new")]),
    "removed-with-all-below": Case("S(p2(old))", "S(p2)", [("removed", "p2", "old", "")]),
    "moved-back": Case("S(p(x) a b)", "S(a b p(x))", [("moved", "S → S", "p", "p")]),
    "moved-down": Case("S(f1(p(x)) f2)", "S(f1 f2(p(x)))", [("moved", "f1 → f2", "p", "p")]),
    "moved-and-changed": Case(
        "S(f3(p(x)) f4)",
        "S(f3 f4(p(y)))",
        [("added", "f4", "", "p"), ("removed", "f3", "p", "")],
    ),
    "moved-beside-another": Case(
        "S(f5(p(x) q) f6)",
        "S(f5 f6(p(x)))",
        [("moved", "f5 → f6", "p", "p"), ("removed", "f5", "q", "")],
    ),
    "one-of-two": Case("S(a a b)", "S(a b)", [("removed", "S", "a", "")], is_ambiguous=True),
    "two-changes": Case(
        "S(a b c d)",
        "S(a x c d e)",
        [("added", "S", "", "e"), ("replaced", "S", "b", "x")],
    ),
    "wrapped": Case("S(a f(x y) b)", "S(a w(f(x y)) b)", [("wrapped", "S", "f", "w")]),
    "wrapped-beside-more": Case(
        "S(a f(x y))", "S(a w(p v(f(x y) q)))", [("wrapped", "S", "f", "w")]
    ),
    "wrapped-and-changed": Case(
        "S(a f(x y z) b)",
        "S(a w(f(x u z)) b)",
        [("replaced", "f", "y", "u"), ("wrapped", "S", "f", "w")],
    ),
    "unwrapped": Case("S(a w(f(x y)))", "S(a f(x y))", [("unwrapped", "S", "w", "f")]),
    "a-leaf-is-not-wrapped": Case("S(a len)", "S(a w(len))", [("replaced", "S", "len", "w")]),
    "another-of-the-name-is-not-wrapped": Case(
        "S(a f(x y))", "S(a w(f(u v) f(x y)))", [("replaced", "S", "f", "w")]
    ),
    "around-and-below": Case(
        "S(f7(a b) c)",
        "S(f7(a x) d)",
        [("replaced", "S", "c", "d"), ("replaced", "f7", "b", "x")],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_tiny_trace(name: str) -> None:
    case = CASES[name]
    result = aligned(case.before, case.after)
    assert result.told() == case.groups
    assert any(result.found.ambiguous) == case.is_ambiguous
    assert result.found.instances().tolist() == [1] * len(case.groups)


@pytest.mark.parametrize("name", CASES)
def test_a_tiny_trace_many_times_is_one_group(name: str) -> None:
    """The same in all scopes, of which each is a call of its own."""
    case = CASES[name]
    result = aligned(" ".join([case.before] * 5), " ".join([case.after] * 5))
    assert result.told() == case.groups
    assert result.found.instances().tolist() == [5] * len(case.groups)


OPPOSITE = {
    "added": "removed",
    "removed": "added",
    "fused": "split",
    "split": "fused",
    "wrapped": "unwrapped",
    "unwrapped": "wrapped",
}


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("moved")])
def test_a_tiny_trace_the_other_way_round(name: str) -> None:
    case = CASES[name]
    assert aligned(case.after, case.before).told() == sorted(
        (OPPOSITE.get(kind, kind), below, after, before)
        for kind, below, before, after in case.groups
    )


def test_what_is_in_some_scopes_only() -> None:
    result = aligned("S(a b) S(a b) S(a old)", "S(a b) S(a b) S(a new)")
    assert result.told() == [("replaced", "S", "old", "new")]
    assert result.found.instances().tolist() == [1]
    assert result.found.before.pair.tolist() == result.found.after.pair.tolist() == [2]
    assert (result.before.slice[result.found.before.node]).tolist() == [8]


def test_several_that_moved_are_told_once() -> None:
    result = aligned("S(f(p(x) p(x)) g)", "S(f g(p(x) p(x)))")
    assert result.told() == [("moved", "f → g", "p", "p")]
    assert len(result.found.before.node) == len(result.found.after.node) == 2
    assert not any(result.found.ambiguous)
    result = aligned("S(f(p(x) p(x)) g)", "S(f g(p(x)))")  # which of the two is it?
    assert result.told() == [("moved", "f → g", "p", "p")]
    assert any(result.found.ambiguous)


def test_a_scope_with_nothing_below_it() -> None:
    assert aligned("S", "S(a b)").told() == [("added", "S", "", "a b")]
    assert aligned("S(a b)", "S").told() == [("removed", "S", "a b", "")]
    assert aligned("S", "S").told() == []
    assert aligned("", "").told() == []


def test_long_scopes_that_have_nothing_in_common_are_ambiguous() -> None:
    result = aligned(f"S({'a b ' * 150})", f"S({'c d ' * 150})")
    (key,) = result.found.keys
    assert (key.kind, len(key.before), len(key.after)) == (Kind.REPLACED, 300, 300)
    assert result.found.ambiguous == (True,)


# Scopes ---------------------------------------------------------------------------------------


def test_scopes_are_paired_by_their_name_though_their_order_differs() -> None:
    before, after = "M_0(a) M_1(b) M_2(c)", "M_2(c) M_0(a) M_1(b)"
    result = aligned(before, after, under=("M_0", "M_1", "M_2"))
    assert result.told() == []
    assert result.found.pairs.tolist() == [[0, 2], [2, 4], [4, 0]]


def test_scopes_are_paired_within_their_step() -> None:
    """The second step calls S once more before: the third keeps its counterpart."""
    one, two, three = (f"ProfilerStep#{n}({{}})".format for n in (1, 2, 3))
    before = " ".join([one("S(a) S(b)"), two("S(a) S(b) S(c)"), three("S(a) S(b)")])
    after = " ".join([one("S(a) S(b)"), two("S(a) S(b)"), three("S(a) S(x)")])
    result = aligned(before, after)
    assert result.told() == [("removed", "", "S", ""), ("replaced", "S", "b", "x")]
    assert len(result.found.pairs) == 6
    assert [len(nodes) for nodes in result.found.alone] == [1, 0]


@pytest.mark.parametrize(
    ("before", "after", "groups", "alone"),
    [
        ("S(a) S(a)", "S(a) S(a) S(a b)", [("added", "", "", "S")], (0, 1)),
        ("S(a) S(a b)", "S(a)", [("removed", "", "S", "")], (1, 0)),
        ("S(a)", "x", [("removed", "", "S", "")], (1, 0)),
        ("x", "S(a) S(b)", [("added", "", "", "S")], (0, 2)),
    ],
)
def test_another_number_of_scopes(
    before: str, after: str, groups: list[Told], alone: tuple[int, int]
) -> None:
    result = aligned(before, after)
    assert result.told() == groups
    assert tuple(len(nodes) for nodes in result.found.alone) == alone
    assert result.found.instances().tolist() == [sum(alone)]


def test_scopes_of_another_name_are_the_same_where_there_are_as_many() -> None:
    both = ("Old", "New", "Newer")
    assert aligned("Old(a b) Old(a b)", "New(a b) New(a b)", both).told() == []
    result = aligned("Old(a b) Old(a b)", "New(a b) New(a c)", both)
    assert result.told() == [("replaced", "Old", "b", "c")]
    result = aligned("Old(a) Old(a)", "New(a)", both)
    assert result.told() == [("added", "", "", "New"), ("removed", "", "Old", "")]
    result = aligned("Old(a) Newer(b)", "New(a) Newer(b)", both)
    assert result.told() == []


scopes = st.lists(st.tuples(st.integers(-1, 2), st.sampled_from("PQR")), max_size=9)


def bare(rows: Sequence[tuple[int, str]]) -> Outline:
    """Scopes of some steps and names, with nothing below them."""
    size = len(rows)
    zeros = np.zeros(size, np.int64)
    return Outline(
        slice=np.arange(size),
        parent=zeros - 1,
        around=zeros - 1,
        op=zeros,
        size=zeros + 1,
        form=zeros.astype(np.uint64),
        dur=zeros,
        self_time=zeros,
        on_lane=zeros == 0,
        node_of=zeros,
        scopes=np.arange(size),
        name=tuple(name for _, name in rows),
        step=np.array([step for step, _ in rows], np.int64),
    )


@given(scopes, scopes)
def test_pairs_of_scopes(before: list[tuple[int, str]], after: list[tuple[int, str]]) -> None:
    pairs, alone = pair_scopes(bare(before), bare(after))
    sides = [(before, 0), (after, 1)]
    for rows, side in sides:
        assert sorted([*pairs[:, side].tolist(), *alone[side].tolist()]) == list(range(len(rows)))
    assert pairs[:, 0].tolist() == sorted(pairs[:, 0].tolist())
    assert all(before[i][0] == after[j][0] for i, j in pairs.tolist())
    same_name = [(i, j) for i, j in pairs.tolist() if before[i] == after[j]]
    for key in {*before, *after}:
        one = [i for i, row in enumerate(before) if row == key]
        other = [j for j, row in enumerate(after) if row == key]
        assert [pair for pair in same_name if before[pair[0]] == key] == list(
            zip(one, other, strict=False)  # each with the one in its turn
        )
    of_other_name = [pair for pair in pairs.tolist() if tuple(pair) not in same_name]
    left = [
        Counter(rows[node][0] for node in [*alone[side], *(pair[side] for pair in of_other_name)])
        for rows, side in sides
    ]
    for side, (rows, _) in enumerate(sides):
        alone_in = {rows[node][0] for node in alone[side].tolist()}
        assert alone_in == {step for step in left[side] if left[0][step] != left[1][step]}


# What holds for any two -----------------------------------------------------------------------

Tree = tuple[str, list[Any]]
leaves = st.tuples(st.sampled_from("abcde"), st.builds(list))
trees = st.recursive(
    leaves,
    lambda inner: st.tuples(st.sampled_from("abfgh"), st.lists(inner, min_size=1, max_size=4)),
    max_leaves=8,
)
EDITS = ["keep"] * 9 + ["drop", "put in", "rename", "wrap", "unwrap", "twice", "to the end"]


@st.composite
def changed(draw: st.DrawFn, below: list[Tree]) -> list[Tree]:
    """What a scope calls, after some edits at any depth."""
    found: list[Tree] = []
    last: list[Tree] = []
    for name, inner in below:
        node = (name, draw(changed(inner)))
        what = draw(st.sampled_from(EDITS))
        if what == "put in":
            found.append(draw(trees))
        if what in ("keep", "put in", "twice"):
            found.append(node)
        if what == "twice":
            found.append(node)
        elif what == "rename":
            found.append(("new", node[1]))
        elif what == "wrap":
            found.append(("wrapper", [node]))
        elif what == "unwrap":
            found += node[1]
        elif what == "to the end":
            last.append(node)
    return found + last


def text_of(tree: Tree) -> str:
    name, below = tree
    return f"{name}({' '.join(map(text_of, below))})" if below else name


@st.composite
def changed_scopes(draw: st.DrawFn) -> tuple[str, str]:
    """Up to four scopes and their changes, of a few kinds; now and then one more or less."""
    kinds = draw(st.lists(st.lists(trees, max_size=4), min_size=1, max_size=2))
    pairs = [(("S", below), ("S", draw(changed(below)))) for below in kinds]
    pairs += [(("S", below), ("S", below)) for below in kinds]
    chosen = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=4))
    before, after = ([text_of(pair[side]) for pair in chosen] for side in (0, 1))
    if draw(st.integers(0, 4)) == 0:
        (before if draw(st.booleans()) else after).pop()
    return " ".join(before), " ".join(after)


@given(changed_scopes())
def test_nothing_has_changed_between_a_trace_and_itself(both: tuple[str, str]) -> None:
    for text in both:
        result = aligned(text, text)
        assert result.found.keys == ()
        assert result.found.instances().tolist() == []
        assert groups_at(result.before, result.found.before).tolist() == [NONE] * len(result.before)


def group_of(outline: Outline, placed: Placed, node: int) -> int:
    """The group that a node is in, from what is placed on its way up."""
    rows = list(zip(placed.node.tolist(), placed.group.tolist(), placed.sign.tolist(), strict=True))
    found = NONE
    while node >= 0:
        found += sum(sign * (group + 1) for place, group, sign in rows if place == node)
        node = int(outline.parent[node])
    return found


@given(changed_scopes())
def test_unchanged_code_is_the_same_on_both_sides(both: tuple[str, str]) -> None:
    """Without the groups, the scopes of a pair have the same ops in the same order."""
    before, after, words, found = aligned(*both)
    left = []
    for outline, placed in ((before, found.before), (after, found.after)):
        group = groups_at(outline, placed).tolist()
        assert group == [group_of(outline, placed, node) for node in range(len(outline))]
        ops_of = zip(outline.op.tolist(), group, strict=True)
        left.append([words[op] if at < 0 else "" for op, at in ops_of])
    for one, other in found.pairs.tolist():
        ops = [
            [op for op in names[scope : scope + int(outline.size[scope])] if op]
            for names, outline, scope in ((left[0], before, one), (left[1], after, other))
        ]
        assert ops[0] == ops[1]
    for side, outline in enumerate((before, after)):
        for scope in found.alone[side].tolist():
            assert set(left[side][scope : scope + int(outline.size[scope])]) == {""}


NUMBERS = {
    Kind.ADDED: ("none", "some"),
    Kind.REMOVED: ("some", "none"),
    Kind.FUSED: ("several", "one"),
    Kind.SPLIT: ("one", "several"),
    Kind.RENAMED: ("one", "one"),
    Kind.MOVED: ("one", "one"),
}


@given(changed_scopes())
def test_kinds_go_with_the_number_of_ops(both: tuple[str, str]) -> None:
    for key in aligned(*both).found.keys:
        for ops, expected in zip((key.before, key.after), NUMBERS.get(key.kind, ()), strict=False):
            told = ("none", "one", "several")[min(len(ops), 2)]
            assert expected == told or (expected == "some" and ops)
        if key.kind is Kind.REPLACED:
            assert key.before
            assert key.after


@given(changed_scopes())
def test_instances_are_the_pairs_of_scopes_that_a_group_is_in(both: tuple[str, str]) -> None:
    found = aligned(*both).found
    pairs: dict[int, set[int]] = {}
    for placed in (found.before, found.after):
        for group, pair in zip(placed.group.tolist(), placed.pair.tolist(), strict=True):
            pairs.setdefault(group, set()).add(pair)
    assert found.instances().tolist() == [len(pairs[group]) for group in range(len(found.keys))]
    assert len(set(found.keys)) == len(found.keys) == len(found.ambiguous)


@settings(max_examples=25)
@given(st.lists(trees, max_size=4), st.data())
def test_what_was_found_for_two_forms_holds_wherever_they_meet(
    below: list[Tree], data: st.DataObject
) -> None:
    """Groups of several pairs of scopes are those of each pair alone."""
    pairs = [(text_of(("S", below)), text_of(("S", data.draw(changed(below))))) for _ in range(3)]
    pairs.append(pairs[0])
    together = aligned(*(" ".join(pair[side] for pair in pairs) for side in (0, 1)))
    alone = Counter(told for pair in pairs for told in aligned(*pair).told())
    expected = sorted((told, count) for told, count in alone.items())
    told = sorted(
        ((str(key.kind), key.parent, " ".join(key.before), " ".join(key.after)), int(count))
        for key, count in zip(together.found.keys, together.found.instances(), strict=True)
    )
    assert told == expected


# Through files ---------------------------------------------------------------------------------


def events_of(text: str) -> list[Event]:
    """A written tree on one thread, in µs: each has 10 µs of its own."""
    return [complete(row.name, row.ts, row.dur) for row in written(text)]


def compare_files(
    folder: Path, before: str, after: str, under: str, *, force: bool = False
) -> Diff:
    for name, text in (("before", before), ("after", after)):
        (folder / f"{name}.json").write_bytes(compact(events_of(text)))
    with traceq.open(folder / "before.json") as one, traceq.open(folder / "after.json") as other:
        return traceq.diff(one, other, under=under, force=force)


def told_by(diff: Diff) -> list[Told]:
    rows = diff.to_dict()["groups"]["rows"]
    return sorted(
        (row["kind"], row["below"], " ".join(row["before"]), " ".join(row["after"])) for row in rows
    )


@pytest.fixture(scope="module")
def all_cases(tmp_path_factory: pytest.TempPathFactory) -> Diff:
    """All the tiny traces in one file a side, each scope with a name of its own."""
    sides = [
        " ".join(case[side].replace("S", f"S-{name}", 1) for name, case in CASES.items())
        for side in (0, 1)
    ]
    return compare_files(tmp_path_factory.mktemp("cases"), sides[0], sides[1], "S-*")


def test_the_tiny_traces_in_a_file(all_cases: Diff) -> None:
    expected = [
        (kind, below.replace("S", f"S-{name}"), before, after)
        for name, case in CASES.items()
        for kind, below, before, after in case.groups
    ]
    assert told_by(all_cases) == sorted(expected)
    for row in all_cases.to_dict()["groups"]["rows"]:
        assert (row["instances"], row["scopes"]) == ([1], [1])  # each scope is an op of its own
        assert row["is_steady"]


def test_the_time_of_groups_is_that_of_all_below_them(all_cases: Diff) -> None:
    def own_times(before: str, after: str) -> tuple[int, int]:
        (group,) = (
            group
            for group in all_cases.groups.rows
            if (" ".join(group.key.before), " ".join(group.key.after)) == (before, after)
        )
        times = group.sums("before", "time"), group.sums("after", "time")
        return times[0][0] // 10_000, times[1][0] // 10_000

    assert own_times("rearrange", "flatten") == (2, 1)
    assert own_times("mul add sum", "fused") == (3, 1)
    assert own_times("fused", "mul add sum") == (1, 3)
    assert own_times("x y", "u v") == (2, 2)
    (renamed,) = (group for group in all_cases.groups.rows if group.key.kind is Kind.RENAMED)
    assert renamed.sums("before", "time") == renamed.sums("after", "time") == [40_000]


def test_modules_are_paired_by_their_instance(tmp_path: Path) -> None:
    layers = [f"nn.Module:~Layer_{n}" for n in range(3)]
    before = f"{layers[0]}(a) {layers[1]}(b) {layers[2]}(c)"
    after = f"{layers[2]}(c) {layers[0]}(a) {layers[1]}(x)"
    diff = compare_files(tmp_path, before, after, "nn.Module: Layer")
    assert told_by(diff) == [("replaced", "nn.Module: Layer", "b", "x")]
    (row,) = diff.to_dict()["groups"]["rows"]
    assert (row["instances"], row["scopes"], row["is_steady"]) == ([1], [3], False)


def test_classes_that_were_renamed_are_the_same_modules(tmp_path: Path) -> None:
    before = "nn.Module:~Old_0(a b) nn.Module:~Old_1(a b)"
    after = "nn.Module:~New_0(a c) nn.Module:~New_1(a c)"
    diff = compare_files(tmp_path, before, after, "re:Old|New", force=True)
    assert told_by(diff) == [("replaced", "nn.Module: Old", "b", "c")]
    (row,) = diff.to_dict()["groups"]["rows"]
    assert (row["instances"], row["scopes"], row["is_steady"]) == ([2], [2], True)
    assert diff.to_dict()["groups"]["scopes_alone"] == [0, 0]


def test_scopes_without_a_counterpart_are_told(tmp_path: Path) -> None:
    diff = compare_files(tmp_path, "S(a) S(a b)", "S(a) S(a b) S(c) S(d)", "S", force=True)
    data = diff.to_dict()["groups"]
    assert told_by(diff) == [("added", "", "", "S")]
    assert data["scopes_alone"] == [0, 2]
    (row,) = data["rows"]
    assert (row["time_before"], row["time_after"], row["calls_after"]) == ([0], [40_000], [2])
    assert data["unchanged"]["time_before"] == data["unchanged"]["time_after"] == [50_000]
