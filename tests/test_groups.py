"""What replaced what over several captures: no time is lost, and times stand at their steps.

Of each side, what the groups took and what the unchanged code took is the time of the scopes, to
the nanosecond: for trees as :mod:`tests.test_outline` writes them, for random traces of CPU and
GPU, and for real ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import traceq
from tests import tracemaker
from tests.conftest import CORPUS, NO_CORPUS, ROOT
from tests.test_align import changed_scopes, group_of
from tests.test_corpus import SMALL
from tests.test_outline import ints, outline_of
from traceq.align import Kind, align, groups_at
from traceq.calltree import NONE
from traceq.compare import Diff, compare
from traceq.errors import PatternError
from traceq.groups import Group, Groups, align_captures, align_kernels
from traceq.outline import Outline
from traceq.reading import Question, Reading, ScopeWork, Words, read

SIDES = ("before", "after")

few = settings(max_examples=25)
"""For what is slow to make up."""


def reading(outline: Outline, words: Words, work: ScopeWork | None = None) -> Reading:
    """A capture of which only what is needed to align it was read."""
    empty = ints([])
    known: dict[str, Any] = dict.fromkeys(item.name for item in fields(Reading))
    known |= {"outline": outline, "words": words, "outside": {}, "under": ("S",)}
    known["work"] = work or ScopeWork(empty, empty, empty, empty, empty)
    return Reading(**known)


def captures(texts: Sequence[str], words: Words) -> list[Reading]:
    return [reading(outline_of(text, words.ops), words) for text in texts]


def aligned(before: Sequence[str], after: Sequence[str]) -> Groups:
    words = Words()
    return align_captures(captures(before, words), captures(after, words))


def by_ops(groups: Groups) -> dict[tuple[str, str], Group]:
    return {(" ".join(row.key.before), " ".join(row.key.after)): row for row in groups.rows}


def total(groups: Groups, side: str, name: str) -> list[int]:
    """What all groups and the unchanged code took, by capture."""
    rows = [row.sums(side, name) for row in (*groups.rows, groups.unchanged)]
    return [sum(values) for values in zip(*rows, strict=True)]


# No time is lost: trees -------------------------------------------------------------------------


@st.composite
def timed(draw: st.DrawFn, outline: Outline, steps: int = 2) -> Outline:
    """An outline with other times of its own for each node, and its scopes in some steps."""
    size = len(outline)
    own = ints(draw(st.lists(st.integers(0, 90), min_size=size, max_size=size)))
    dur = own.copy()
    for node in range(size - 1, -1, -1):
        dur[node] += sum(int(dur[child]) for child in outline.children(node))
    count = len(outline.scopes)
    step = draw(st.lists(st.integers(-1, steps - 1), min_size=count, max_size=count))
    return replace(outline, dur=dur, self_time=own, step=ints(step))


@st.composite
def launched(draw: st.DrawFn, outline: Outline) -> ScopeWork:
    """Activities of any nodes; kernels of odd and even number are two variants of one."""
    size = draw(st.integers(0, 12)) if len(outline) else 0

    def numbers(least: int, most: int) -> Any:
        return ints(draw(st.lists(st.integers(least, most), min_size=size, max_size=size)))

    full = numbers(1, 6)
    node, order = numbers(0, max(len(outline) - 1, 0)), numbers(0, 30)
    return ScopeWork(node, order, numbers(0, 99), (full + 1) // 2, full)


@st.composite
def pairs_of_captures(draw: st.DrawFn) -> tuple[Reading, Reading]:
    words, texts = Words(), draw(changed_scopes())
    words.kernels.number(["k1", "k2", "k3"])
    outlines = [draw(timed(outline_of(text, words.ops))) for text in texts]
    one, other = (reading(outline, words, draw(launched(outline))) for outline in outlines)
    return one, other


def by_step(outline: Outline, nodes: Any, values: Any, steps: int) -> list[int]:
    """Sums by the step of each node's scope; last, those outside of steps."""
    found = [0] * (steps + 1)
    for step, value in zip(outline.step_of(nodes).tolist(), values.tolist(), strict=True):
        found[step] += value
    return found


@few
@given(pairs_of_captures())
def test_no_time_is_lost(both: tuple[Reading, Reading]) -> None:
    """In any step, of the CPU and of the GPU."""
    groups, kernels = align_captures([both[0]], [both[1]]), align_kernels([both[0]], [both[1]])
    steps = max(item.steps for item in both)
    for side, item in zip(SIDES, both, strict=True):
        outline, work = item.outline, item.work
        gpu = by_step(outline, work.node, work.dur, steps)
        expected = {
            "time": by_step(outline, outline.scopes, outline.dur[outline.scopes], steps),
            "gpu": gpu,
            "activities": by_step(outline, work.node, np.ones_like(work.node), steps),
        }
        for name, values in expected.items():
            rows = [getattr(row, side)[name][0] for row in (*groups.rows, groups.unchanged)]
            assert np.sum(rows, axis=0).tolist() == values, name
            assert np.min(rows) >= 0
        for name in ("time", "gpu"):
            rows = [getattr(row, side)[name][0] for row in (*kernels.rows, kernels.unchanged)]
            assert np.sum(rows, axis=0).tolist() == gpu
            assert np.min(rows) >= 0


@few
@given(pairs_of_captures())
def test_a_group_has_the_time_of_all_that_is_in_it(both: tuple[Reading, Reading]) -> None:
    """The sum of its nodes' own time; what is in no group is the unchanged code's."""
    one, other = both
    found = align(one.outline, other.outline, one.words.ops.ops)
    groups = align_captures([one], [other])
    rows = {row.key: row for row in groups.rows}
    assert set(rows) == set(found.keys)
    for side, item, placed in zip(SIDES, both, (found.before, found.after), strict=True):
        outline, work = item.outline, item.work
        at = [group_of(outline, placed, node) for node in range(len(outline))]
        assert groups_at(outline, placed).tolist() == at
        for number, row in [*enumerate(map(rows.get, found.keys)), (NONE, groups.unchanged)]:
            assert row is not None
            inside = [node for node, group in enumerate(at) if group == number]
            gpu = [
                int(dur) for node, dur in zip(work.node, work.dur, strict=True) if node in inside
            ]
            assert row.sums(side, "time") == [sum(int(outline.self_time[node]) for node in inside)]
            assert row.sums(side, "gpu") == [sum(gpu)]
            assert row.sums(side, "activities") == [len(gpu)]


@few
@given(pairs_of_captures())
def test_a_capture_beside_itself_has_no_groups(both: tuple[Reading, Reading]) -> None:
    for item in both:
        for groups in (align_captures([item], [item]), align_kernels([item], [item])):
            assert groups.rows == ()
            assert groups.alone == (0, 0)
            assert groups.steady_ops == frozenset()
            for name in ("time", "gpu"):
                sums = [groups.unchanged.sums(side, name) for side in SIDES]
                assert sums[0] == sums[1]


def test_what_is_on_a_lane_of_its_own_may_be_more_than_its_scope() -> None:
    """Calls that overlap: what is apart from the scope's lane is no part of its duration."""
    words = Words()
    before = outline_of("S(a b)", words.ops)
    before = replace(
        before,
        dur=ints([100, 90, 50]),
        self_time=ints([10, 90, 50]),
        on_lane=np.array([True, True, False]),
    )
    after = outline_of("S(c)", words.ops)
    groups = align_captures([reading(before, words)], [reading(after, words)])
    (row,) = groups.rows
    assert (row.key.kind, row.sums("before", "time")) == (Kind.FUSED, [90])
    assert groups.unchanged.sums("before", "time") == [10]
    assert total(groups, "before", "time") == [100]


def test_what_was_put_around_something_has_only_its_own_time() -> None:
    """What is within is matched, with a change of its own below."""
    words = Words()
    before = outline_of("S(a f(x y))", words.ops)
    after = outline_of("S(a w(p f(x z)))", words.ops)
    groups = align_captures([reading(before, words)], [reading(after, words)])
    rows = by_ops(groups)
    assert rows["f", "w"].key.kind is Kind.WRAPPED
    names = [words.ops[op] for op in after.op.tolist()]
    own = dict(zip(names, after.self_time.tolist(), strict=True))
    assert rows["f", "w"].sums("before", "time") == [0]
    assert rows["f", "w"].sums("after", "time") == [own["w"] + own["p"]]
    assert rows["f", "w"].sums("after", "calls") == [1]
    assert rows["y", "z"].sums("after", "time") == [own["z"]]
    assert total(groups, "after", "time") == [int(after.dur[0])]


# Several captures -------------------------------------------------------------------------------


def test_captures_are_aligned_in_turns() -> None:
    """Of the side with fewer, they are taken again, but counted once."""
    before = ["S(a b)", "S(a b)", "S(a b) S(a b)"]
    groups = aligned(before, ["S(a c)", "S(a c c)"])
    rows = by_ops(groups)
    assert set(rows) == {("b", "c"), ("b", "c c"), ("S", "")}
    assert rows["b", "c"].instances == [1, 0, 1]
    assert rows["b", "c c"].instances == [0, 1, 0]
    assert rows["S", ""].instances == [0, 0, 1]
    assert rows["b", "c"].scopes == [1, 1, 1]
    assert rows["b", "c"].sums("before", "calls") == [1, 0, 1]
    assert rows["b", "c"].sums("after", "calls") == [1, 0]
    assert rows["b", "c c"].sums("after", "calls") == [0, 2]
    assert rows["S", ""].sums("before", "time") == [0, 0, 30]
    assert rows["S", ""].sums("after", "time") == [0, 0]
    assert total(groups, "before", "time") == [30, 30, 60]
    assert total(groups, "after", "time") == [30, 40]
    assert groups.alone == (0, 0)  # of the first pair


@few
@given(st.lists(pairs_of_captures(), min_size=1, max_size=3), st.integers(1, 3))
def test_no_time_is_lost_over_several_captures(
    pairs: list[tuple[Reading, Reading]], fewer: int
) -> None:
    words = Words()  # that of all: ops are numbered anew
    sides: list[list[Reading]] = [[], []]
    for pair in pairs:
        for side, item in zip(sides, pair, strict=True):
            numbers = words.ops.number(item.words.ops.ops)
            outline = replace(item.outline, op=numbers[item.outline.op])
            side.append(replace(item, outline=outline, words=words))
    before, after = sides[0], sides[1][:fewer]
    groups = align_captures(before, after)
    for side, items in zip(SIDES, (before, after), strict=True):
        dur = [int(item.outline.dur[item.outline.scopes].sum()) for item in items]
        assert total(groups, side, "time") == dur
        assert total(groups, side, "gpu") == [int(item.work.dur.sum()) for item in items]
        assert total(groups, side, "activities") == [len(item.work.dur) for item in items]
    for row in groups.rows:
        count = max(len(before), len(after))
        assert len(row.instances) == len(row.scopes) == count


@pytest.mark.parametrize(
    ("before", "after", "is_steady"),
    [
        (["S(a) S(a)"], ["S(b) S(b)"], True),
        (["S(a) S(a)"], ["S(b) S(a)"], True),  # half of them
        (["S(a) S(a) S(a)"], ["S(b) S(a) S(a)"], False),
        (["S(a)", "S(a)"], ["S(b)", "S(b)"], True),
        (["S(a)", "S(a)"], ["S(b)", "S(a)"], False),  # in one pair of captures alone
        (["S(a)"], ["S(b)", "S(b)", "S(b)"], True),
        (["S(a)"], ["S(b)", "S(a)", "S(b)"], False),
        (["S(a)"], ["S(a) S(b)"], True),  # a scope without a counterpart
    ],
)
def test_what_is_no_accident(before: list[str], after: list[str], is_steady: bool) -> None:
    groups = aligned(before, after)
    (row,) = groups.rows
    assert row.is_steady == is_steady
    ops = {*row.key.before, *row.key.after} if row.key.parent else {"S", "b"}
    assert groups.steady_ops == (ops if is_steady else set())


def test_what_is_in_all_scopes_of_a_step_is_no_accident() -> None:
    steps = [f"ProfilerStep#{n}(S({{0}}) S({{1}}))" for n in range(4)]
    before = " ".join(step.format("a", "a") for step in steps)
    after = [step.format("a", "a") for step in steps]
    after[1] = steps[1].format("b", "b")
    after[3] = steps[3].format("a", "c")
    rows = by_ops(aligned([before], [" ".join(after)]))
    assert rows["a", "b"].is_steady
    assert not rows["a", "c"].is_steady


def test_ops_of_groups_are_those_at_any_depth() -> None:
    groups = aligned(["S(x old(view(q)) y)"], ["S(x new y)"])
    assert groups.steady_ops == {"old", "view", "q", "new"}


def test_times_stand_at_their_steps() -> None:
    """The last column is what is outside of steps."""
    before = "ProfilerStep#1(S(a)) ProfilerStep#2(S(a) S(a)) S(a)"
    groups = aligned([before], [before.replace("a", "b(c)")])
    (row,) = groups.rows
    assert row.before["time"][0].tolist() == [10, 20, 10]
    assert row.after["time"][0].tolist() == [20, 40, 20]
    assert row.after["calls"][0].tolist() == [1, 2, 1]
    assert groups.unchanged.before["time"][0].tolist() == [10, 20, 10]


def test_groups_with_most_change_of_time_come_first() -> None:
    texts = {1: "x1", 2: "x2(p)", 3: "x3(p p)", 5: "x5(p p p p)"}
    added = " m ".join(texts[n] for n in (2, 5, 1, 3))
    groups = aligned(["S(m m m)"], [f"S({added})"])
    assert [row.key.after for row in groups.rows] == [("x5",), ("x3",), ("x2",), ("x1",)]
    assert [row.weight for row in groups.rows] == [50, 30, 20, 10]


def test_plain_data_of_a_group() -> None:
    (row,) = aligned(["S(old(p) a)", "S(old(p) a)"], ["S(a)"]).rows
    data = row.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data == {
        "kind": "removed",
        "below": "S",
        "before": ["old"],
        "after": [],
        "instances": [1, 1],
        "scopes": [1, 1],
        "is_ambiguous": False,
        "is_steady": True,
        "outside": 0,
        "calls_before": [1, 1],
        "time_before": [20, 20],
        "gpu_before": [0, 0],
        "activities_before": [0, 0],
        "calls_after": [0],
        "time_after": [0],
        "gpu_after": [0],
        "activities_after": [0],
    }


# Kernels ------------------------------------------------------------------------------------------


def kernels_of(names: str, words: Words) -> Reading:
    """One scope that launched some kernels in a row, of 5 ns each; ``k.i`` is a variant of k."""
    outline = outline_of("S(a)", words.ops)
    full = names.split()
    short = words.kernels.number([name.partition(".")[0] for name in full])
    count = len(full)
    work = ScopeWork(
        node=np.ones(count, np.int64),
        order=np.arange(count),
        dur=np.full(count, 5),
        short=short,
        full=words.full_names.number(full),
    )
    return reading(outline, words, work)


@pytest.mark.parametrize(
    ("before", "after", "groups"),
    [
        ("k1 k2 k3", "k1 k2 k3", []),
        ("k1 k2 k3", "k1 k4 k3", [("replaced", "k2", "k4")]),
        ("k1 k2 k3 k4", "k1 k5 k4", [("fused", "k2 k3", "k5")]),
        ("k1 k5 k4", "k1 k2 k3 k4", [("split", "k5", "k2 k3")]),
        ("k1 k2", "k1", [("removed", "k2", "")]),
        ("k1", "k1 k2", [("added", "", "k2")]),
        ("k1.f k2", "k1.h k2", [("replaced", "k1", "k1")]),  # the same in short
    ],
)
def test_groups_of_kernels(before: str, after: str, groups: list[tuple[str, str, str]]) -> None:
    words = Words()
    one, other = kernels_of(before, words), kernels_of(after, words)
    found = align_kernels([one], [other])
    told = [(str(r.key.kind), " ".join(r.key.before), " ".join(r.key.after)) for r in found.rows]
    assert told == groups
    assert total(found, "before", "time") == [5 * len(before.split())]
    assert total(found, "after", "gpu") == [5 * len(after.split())]
    for row, (_, gone, come) in zip(found.rows, groups, strict=True):
        assert row.sums("before", "activities") == [len(gone.split())]
        assert row.sums("after", "activities") == [len(come.split())]
    assert align_captures([one], [other]).rows == ()


# Random traces through files ----------------------------------------------------------------------

PATTERNS = ("nn.Module: A", "label", "aten::y", "m.py", "cudaLaunch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("groups")


def assert_conserved(sides: Sequence[Reading], groups: Groups, kernels: Groups) -> None:
    for side, item in zip(SIDES, sides, strict=True):
        gpu = item.totals.gpu_here
        assert total(groups, side, "time") == [item.totals.total]
        assert total(groups, side, "gpu") == [gpu.total]
        assert total(groups, side, "activities") == [gpu.activities]
        assert total(kernels, side, "time") == total(kernels, side, "gpu") == [gpu.total]


def assert_own_times(item: Reading, other: Reading) -> None:
    """The unchanged code's time is that of its nodes, where no call is on a lane of its own."""
    found = align(item.outline, other.outline, item.words.ops.ops)
    groups = align_captures([item], [other])
    for side, capture, placed in zip(
        SIDES, (item, other), (found.before, found.after), strict=True
    ):
        outline = capture.outline
        if outline.on_lane.all():
            own = outline.self_time[groups_at(outline, placed) < 0]
            assert groups.unchanged.sums(side, "time") == [int(own.sum())]
            assert (own >= 0).all()


# Each example opens two engines: one that fails is shown as it is, not made smaller.
@settings(max_examples=3, phases=(Phase.explicit, Phase.generate))
@given(one=tracemaker.gpu_traces(), two=tracemaker.gpu_traces())
def test_no_time_of_random_traces_is_lost(
    folder: Path, one: list[tracemaker.Event], two: list[tracemaker.Event]
) -> None:
    paths = [folder / "one.json", folder / "two.json"]
    for path, events in zip(paths, (one, two), strict=True):
        path.write_bytes(tracemaker.compact(events))
    with traceq.open(paths[0]) as before, traceq.open(paths[1]) as after:
        for pattern in PATTERNS:
            question = Question(under=(pattern,))
            try:
                sides = [read(trace, question) for trace in (before, after)]
            except PatternError:
                continue
            if not all(item.totals.scopes for item in sides):  # a label on the GPU alone
                continue
            groups = align_captures(sides[:1], sides[1:])
            assert_conserved(sides, groups, align_kernels(sides[:1], sides[1:]))
            assert_own_times(*sides)


# Real traces --------------------------------------------------------------------------------------

CHOSEN = [name for name in SMALL if not name.endswith(("-1.json.gz", "-2.json.gz"))]
"""Of captures that were repeated, the first."""

SAMPLES = sorted((ROOT / "sample_traces").glob("*.json.gz"))


@pytest.fixture(scope="module")
def samples() -> Iterator[list[Reading]]:
    """The sample traces, read below one question."""
    question = Question(under=("GatedDeltaNet",))
    with ExitStack() as stack:
        yield [read(stack.enter_context(traceq.open(path)), question) for path in SAMPLES]


def assert_same(diff: Diff) -> None:
    """A capture beside itself: nothing is told to have changed, by anything at all."""
    data = json.loads(json.dumps(diff.to_dict(), allow_nan=False))
    assert data["groups"]["rows"] == data["kernel_groups"]["rows"] == []
    assert diff.groups.alone == diff.kernel_groups.alone == (0, 0)
    for row in [*data["rows"], *data["kernels"]]:
        assert row["status"] == "same"
        assert row["delta"] == 0
        assert row["verdict"] not in ("faster", "slower")
        assert all(row.get(f"{part}_part", 0) == 0 for part in ("calls", "shapes", "cost"))
    for finding in diff.evidence.findings.values():
        change = finding.change
        assert (change.low, change.estimate, change.high) == (0, 0, 0)
        assert str(finding.verdict) not in ("faster", "slower")
    for groups in (diff.groups, diff.kernel_groups):
        for name in ("time", "gpu", "activities"):
            assert groups.unchanged.sums("before", name) == groups.unchanged.sums("after", name)
    assert diff.changes.empty


def test_no_time_of_the_sample_traces_is_lost(samples: list[Reading]) -> None:
    """Each against each; those of one kind have no groups that are more than an accident."""
    for one, other in product(samples, samples):
        groups, kernels = align_captures([one], [other]), align_kernels([one], [other])
        assert_conserved((one, other), groups, kernels)
        steady = {(" ".join(row.key.before)) for row in groups.rows if row.is_steady}
        kinds = {Path(item.path).name.partition("-")[0] for item in (one, other)}
        assert bool(steady) == (len(kinds) == 2)
        assert all(row.key.parent for row in groups.rows)
        if one is samples[0]:
            assert_own_times(one, other)


def test_the_sample_traces_beside_themselves(samples: list[Reading]) -> None:
    for item in (samples[0], samples[-1]):
        assert_same(compare([item], [item], Question(under=("GatedDeltaNet",))))


def test_the_sample_traces_of_both_kinds(samples: list[Reading]) -> None:
    """All captures of a side together, and the plain data of it."""
    groups = align_captures(samples[:3], samples[3:])
    for side, items in (("before", samples[:3]), ("after", samples[3:])):
        assert total(groups, side, "time") == [item.totals.total for item in items]
        assert total(groups, side, "gpu") == [item.totals.gpu.under.total for item in items]
    diff = compare(samples[:1], samples[3:4], Question(under=("GatedDeltaNet",)))
    data = diff.to_dict()
    for side in SIDES:
        totals = getattr(diff, side).totals
        for name, expected in (("time", totals.total), ("gpu", totals.gpu_here.total)):
            for family in ("groups", "kernel_groups"):
                rows = [*data[family]["rows"], data[family]["unchanged"]]
                if (family, name) != ("kernel_groups", "time"):
                    assert sum(sum(row[f"{name}_{side}"]) for row in rows) == expected
    (row,) = (row for row in data["groups"]["rows"] if row["is_steady"])
    assert (row["instances"], row["scopes"]) == ([15], [15])
    assert row["before"] == ["einops/einops.py: rearrange"]
    assert row["after"] == ["<built-in method flatten of Tensor object>"]


@pytest.mark.corpus
@pytest.mark.skipif(not SMALL, reason=NO_CORPUS)
@pytest.mark.parametrize("name", CHOSEN or ["none"])
def test_real_traces_beside_themselves(name: str) -> None:
    """Below modules, else below ops; whole where there are neither."""
    with traceq.open(CORPUS / name) as trace:
        names = trace.names
        under = next((p for p in ("nn.Module: ", "aten::") if any(p in n for n in names)), None)
        question = Question(under=(under,) if under else ())
        item = read(trace, question)
        diff = compare([item], [item], question)
        assert_same(diff)
        if under:
            assert_conserved((item, item), diff.groups, diff.kernel_groups)
        assert_own_times(item, item)
