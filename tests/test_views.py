"""Every table tells of the same GPU time: what its rows have and have not adds up to the trace's.

Random traces and the files of the corpus, against :mod:`tests.oracle`; and what is done with a
tree for its readers: folding, stacks, windows of time.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import traceq
from tests import oracle, tracemaker
from tests.conftest import CORPUS, NO_CORPUS, ROOT
from tests.test_gpu import (
    LEFT_OUT,
    check_activities,
    check_links,
    check_ops,
    check_scopes,
    check_slices,
    patterns_in,
    read_back,
    write,
)
from traceq.errors import UsageError
from traceq.selection import Windows
from traceq.tree import METRICS, Branch, branches, stacks, weight_column

engine_settings = settings(max_examples=10, phases=(Phase.explicit, Phase.generate))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random") / "trace.json"


# Checks of single tables ---------------------------------------------------------------------


def check_tree(
    trace: traceq.Trace, counted: oracle.Gpu, pattern: str | None, is_scope: oracle.Predicate
) -> None:
    for functions in (False, True):
        table = trace.tree(pattern, functions=functions)
        check_shape(table)
        roots = table[table["parent"] < 0]
        assert int(roots["gpu_total"].sum()) == counted.time(counted.activities)
        assert int(roots["activities"].sum()) == len(counted.activities)
        if not len(trace.slices.adopted):
            assert_children_add_up(table, table["total"] - table["self"], "total", leaves=())
        expected = oracle.Views(counted, is_scope).tree(functions)
        time, number = sums_by_path(table)
        assert time == {path: counted.time(below) for path, below in expected.items()}
        assert number == {path: len(below) for path, below in expected.items()}


def check_shape(table: pd.DataFrame) -> None:
    parent = table["parent"].tolist()
    assert table["node"].tolist() == list(range(len(table)))
    assert all(above < node for node, above in enumerate(parent))
    depth = table["depth"].tolist()
    assert depth == [0 if above < 0 else depth[above] + 1 for above in parent]
    assert bool((table["gpu_busy"] <= table["gpu_total"]).all())
    assert bool((table["launches"] <= table["activities"]).all())
    for column in ("gpu_total", "activities"):
        assert_children_add_up(table, table[column], column, leaves=("kernel", "account"))


def assert_children_add_up(
    table: pd.DataFrame, whole: pd.Series[int], column: str, leaves: Sequence[str]
) -> None:
    below = [0] * len(table)
    for above, value in zip(table["parent"].tolist(), table[column].tolist(), strict=True):
        if above >= 0:
            below[above] += value
    for node, kind in enumerate(table["kind"]):
        if kind in leaves:
            assert below[node] == 0
        else:
            assert below[node] == whole[node], (column, table["name"][node])


def sums_by_path(table: pd.DataFrame) -> tuple[dict[Any, int], dict[Any, int]]:
    """GPU time and activities by path, of the nodes that have any and are modules or ops."""
    paths: list[tuple[str, ...]] = []
    time: dict[Any, int] = defaultdict(int)
    number: dict[Any, int] = defaultdict(int)
    for row in table.to_dict("records"):
        paths.append((*(paths[row["parent"]] if row["parent"] >= 0 else ()), row["name"]))
        if row["activities"] and row["kind"] not in ("kernel", "backward", "account"):
            time[paths[-1]] += row["gpu_total"]
            number[paths[-1]] += row["activities"]
    return time, number


def check_steps(trace: traceq.Trace, counted: oracle.Gpu) -> None:
    table = trace.steps()
    assert int(table["gpu_total"].sum()) == counted.time(counted.activities)
    assert int(table["activities"].sum()) == len(counted.activities)
    steps = table[table["step"].notna()].to_dict("records")
    starts = [row["ts"] for row in steps]
    assert starts == sorted(starts)
    for number, row in enumerate(steps):
        end = min([row["ts"] + row["dur"], *starts[number + 1 :][:1]])
        inside = [
            here
            for here in counted.activities
            if row["ts"] <= counted.slices[counted.launch.get(here, here)].ts < end
        ]
        assert row["activities"] == len(inside)
        assert row["gpu_total"] == counted.time(inside)
        assert row["gpu_busy"] == counted.busy(inside)
        launches = {counted.launch[here] for here in inside if here in counted.launch}
        assert row["launches"] == len(launches)


def check_agreement(
    trace: traceq.Trace, counted: oracle.Gpu, pattern: str, is_scope: oracle.Predicate
) -> None:
    """All tables have the same GPU time under the scopes."""
    assert is_scope is not None
    whole = counted.time(item.activity for item in counted.under(is_scope))
    assert gpu_time_inside(trace.ops(pattern), "op", "gpu_self") == whole
    assert gpu_time_inside(trace.kernels(pattern), "kernel", "total") == whole
    assert gpu_time_inside(trace.scopes(pattern), "scope", "gpu_self") == whole
    tree = trace.tree(pattern)
    assert gpu_time_inside(tree[tree["parent"] < 0], "name", "gpu_total") == whole


def gpu_time_inside(table: pd.DataFrame, name: str, column: str) -> int:
    return int(table[~table[name].isin(LEFT_OUT)][column].sum())


# Random traces -------------------------------------------------------------------------------


@engine_settings
@given(events=tracemaker.gpu_traces(hard=False))
def test_trees_and_steps_have_all_gpu_time(scratch: Path, events: list[dict[str, Any]]) -> None:
    counted = read_back(write(scratch, events))
    with traceq.open(scratch) as trace:
        check_steps(trace, counted)
        for pattern, is_scope in patterns_in(trace):
            check_tree(trace, counted, pattern, is_scope)


@engine_settings
@given(events=tracemaker.gpu_traces(hard=False))
def test_all_views_have_the_same_gpu_time_under_a_scope(
    scratch: Path, events: list[dict[str, Any]]
) -> None:
    counted = read_back(write(scratch, events))
    with traceq.open(scratch) as trace:
        for pattern, is_scope in patterns_in(trace):
            if pattern is not None:
                check_agreement(trace, counted, pattern, is_scope)


# Folding and stacks ---------------------------------------------------------------------------

SUMMED = ("calls", "total", "self", "gpu_total", "launches", "activities")


@st.composite
def trees(draw: Any) -> pd.DataFrame:
    """A tree table whose totals add up, with a node for what is left out."""
    size = draw(st.integers(0, 12))
    parent = [draw(st.integers(-1, here - 1)) for here in range(size)]
    own = {
        column: np.array(draw(st.lists(st.integers(0, 9), min_size=size, max_size=size)), np.int64)
        for column in ("self", "gpu", "calls", "launches", "activities")
    }
    total, gpu = own["self"].copy(), own["gpu"].copy()
    for here in reversed(range(size)):
        if parent[here] >= 0:
            total[parent[here]] += total[here]
            gpu[parent[here]] += gpu[here]
    kinds = [draw(st.sampled_from(["op", "module"])) for _ in range(size)]
    if size and parent[-1] < 0 and draw(st.booleans()):
        kinds[-1] = "account"
    depth: list[int] = []
    for above in parent:
        depth.append(0 if above < 0 else depth[above] + 1)
    names = draw(st.lists(st.sampled_from(["a", "b;c", "d e\n", ""]), min_size=size, max_size=size))
    return pd.DataFrame(
        {
            "node": np.arange(size),
            "parent": np.array(parent, np.int64),
            "depth": np.array(depth, np.int64),
            "name": pd.Series(names, dtype=object),
            "kind": pd.Series(kinds, dtype=object),
            "total": total,
            "gpu_total": gpu,
            "gpu_busy": gpu,
            **{name: own[name] for name in ("self", "calls", "launches", "activities")},
        }
    )


@given(
    table=trees(),
    by=st.sampled_from(METRICS),
    depth=st.one_of(st.none(), st.integers(1, 4)),
    smallest=st.sampled_from([0.0, 0.05, 0.3, 1.0, 2.0]),
)
def test_folding_keeps_the_sums_of_every_level(
    table: pd.DataFrame, by: Any, depth: int | None, smallest: float
) -> None:
    lines = branches(table, by=by, depth=depth, smallest=smallest)
    records = table.to_dict("records")
    assert_level_adds_up([line for line in lines if line.depth == 0], records, -1)
    for number, line in enumerate(lines):
        below = list(direct_children(lines, number))
        children = [row for row in records if row["parent"] == line.values["node"]]
        if line.folded or (depth is not None and line.depth + 1 >= depth):
            assert below == []
        else:
            assert_level_adds_up(below, records, line.values["node"])
            assert bool(below) == bool(children)
    column = weight_column(by)
    whole = sum(row[column] for row in records if row["parent"] < 0)
    for line in lines:
        assert depth is None or line.depth < depth
        if line.folded == 0 and line.values["kind"] != "account":
            assert line.values[column] >= smallest * whole
    shown = [line.values["node"] for line in lines if line.folded <= 1]
    assert len(shown) == len(set(shown))


def direct_children(lines: Sequence[Branch], number: int) -> Iterator[Branch]:
    for line in lines[number + 1 :]:
        if line.depth <= lines[number].depth:
            return
        if line.depth == lines[number].depth + 1:
            yield line


def assert_level_adds_up(
    lines: Sequence[Branch], records: Sequence[dict[str, Any]], parent: int
) -> None:
    children = [row for row in records if row["parent"] == parent]
    assert sum(max(line.folded, 1) for line in lines) == len(children)
    for column in SUMMED:
        assert sum(line.values[column] for line in lines) == sum(row[column] for row in children)
    assert [line.folded for line in lines][:-1] == [0] * (len(lines) - 1)  # what is folded is last


@given(table=trees(), by=st.sampled_from(METRICS))
def test_large_branches_come_first(table: pd.DataFrame, by: Any) -> None:
    lines = branches(table, by=by, smallest=0.0)
    assert sorted(line.values["node"] for line in lines) == table["node"].tolist()
    for number in range(-1, len(lines)):
        level = (
            [line for line in lines if line.depth == 0]
            if number < 0
            else list(direct_children(lines, number))
        )
        weights = [line.values[weight_column(by)] for line in level]
        assert weights == sorted(weights, reverse=True)


@given(table=trees(), by=st.sampled_from(METRICS))
def test_stacks_add_up_to_the_tree(table: pd.DataFrame, by: Any) -> None:
    lines = stacks(table, by)
    values = [int(line.rpartition(" ")[2]) for line in lines]
    roots = table[table["parent"] < 0]
    assert sum(values) == int(roots[weight_column(by)].sum())
    assert all(value > 0 for value in values)
    own = table["self"] if by == "cpu" else table["gpu_total"] - gpu_below(table)
    depths = Counter(line.count(";") for line in lines)
    assert depths == Counter(table["depth"][own > 0].tolist())
    assert all(re.fullmatch(r"[^\n]+ \d+", line) for line in lines)


def gpu_below(table: pd.DataFrame) -> pd.Series[int]:
    below = np.zeros(len(table), np.int64)
    for above, value in zip(table["parent"].tolist(), table["gpu_total"].tolist(), strict=True):
        if above >= 0:
            below[above] += value
    return pd.Series(below)


def test_a_single_small_node_keeps_its_name() -> None:
    columns = {name: [10, 9, 1] for name in (*SUMMED, "gpu_busy")}
    table = pd.DataFrame(
        {"node": [0, 1, 2], "parent": [-1, 0, 0], "depth": [0, 1, 1], "name": ["a", "b", "c"]}
        | {"kind": ["op"] * 3}
        | columns
    )
    lines = branches(table, smallest=0.2)
    assert [(line.values["name"], line.depth, line.folded) for line in lines] == [
        ("a", 0, 0),
        ("b", 1, 0),
        ("c", 1, 1),
    ]
    both = branches(table, smallest=0.95)
    assert [(line.values["name"], line.folded) for line in both] == [("a", 0), ("(2 smaller)", 2)]
    assert both[1].values["total"] == 10


def test_a_tree_nested_deeper_than_python_recurses() -> None:
    size = 5000
    values = np.full(size, 7)
    table = pd.DataFrame(
        {"node": np.arange(size), "parent": np.arange(-1, size - 1), "depth": np.arange(size)}
        | {"name": ["f"] * size, "kind": ["op"] * size}
        | dict.fromkeys((*SUMMED, "gpu_busy"), values)
    )
    assert len(branches(table)) == size
    assert stacks(table)[-1].count(";") == size - 1


# Windows -------------------------------------------------------------------------------------


@engine_settings
@given(
    events=tracemaker.gpu_traces(hard=False),
    cuts=st.sets(st.integers(1, 80), min_size=1, max_size=3),
)
def test_windows_that_cover_the_trace_add_up_to_it(
    scratch: Path, events: list[dict[str, Any]], cuts: set[int]
) -> None:
    write(scratch, events)
    edges = ["", *(f"{cut}us" for cut in sorted(cuts)), ""]
    with traceq.open(scratch) as trace:
        parts = []
        for first, last in itertools.pairwise(edges):
            try:
                parts.append(trace.windows(window=f"{first}:{last}"))
            except UsageError:  # behind the end of the trace
                assert last == ""
        for pattern, _ in patterns_in(trace):
            for view in VIEWS:
                whole = view(trace, pattern, None)
                summed: Counter[Any] = Counter()
                for part in parts:
                    summed.update(view(trace, pattern, part))
                assert +summed == +whole, (pattern, view.__name__)


def added_up(table: pd.DataFrame, name: str, columns: Sequence[str]) -> Counter[Any]:
    return Counter(
        {
            (row[name], column): int(row[column])
            for row in table.to_dict("records")
            for column in columns
        }
    )


def view_ops(trace: traceq.Trace, under: str | None, part: Windows | None) -> Counter[Any]:
    columns = ("calls", "total", "self", "outermost", "gpu_total", "gpu_self", "activities")
    return added_up(trace.ops(under, windows=part), "op", columns)


def view_kernels(trace: traceq.Trace, under: str | None, part: Windows | None) -> Counter[Any]:
    columns = ("calls", "total", "backward", "launches")
    return added_up(trace.kernels(under, windows=part), "kernel", columns)


def view_scopes(trace: traceq.Trace, under: str | None, part: Windows | None) -> Counter[Any]:
    columns = ("calls", "total", "self", "gpu_total", "gpu_self", "activities", "backward")
    return added_up(trace.scopes(under, windows=part), "scope", columns)


def view_tree(trace: traceq.Trace, under: str | None, part: Windows | None) -> Counter[Any]:
    """By name: the node around one may have begun before the window, and is then not in it."""
    found: Counter[Any] = Counter()
    for row in trace.tree(under, windows=part).to_dict("records"):
        for column in ("total", "self", "gpu_total", "activities"):
            found[row["kind"], row["name"], column] += int(row[column])
        # Backward nodes count the backward ops, of which one may launch in several windows.
        calls = 0 if row["kind"] == "backward" else int(row["calls"])
        found[row["kind"], row["name"], "calls"] += calls
    return found


def view_activities(trace: traceq.Trace, under: str | None, part: Windows | None) -> Counter[Any]:
    return Counter(trace.activities(under, windows=part)["id"].tolist())


VIEWS = (view_ops, view_kernels, view_scopes, view_tree, view_activities)


def test_nodes_stay_below_those_that_began_outside_the_windows(scratch: Path) -> None:
    """``b`` starts between the two windows; ``c`` is below ``a`` all the same, and in its total."""
    spans = [("a", 0, 100), ("b", 30, 60), ("c", 60, 20)]
    write(scratch, [tracemaker.complete(name, ts, dur) for name, ts, dur in spans])
    with traceq.open(scratch) as trace:
        start = int(trace.slices.ts.min())
        first, last = np.array([0, 50_000]) + start, np.array([20_000, 100_000]) + start
        table = trace.tree(windows=Windows(first, last))
    assert table["name"].tolist() == ["a", "b", "c"]
    assert table["parent"].tolist() == [-1, 0, 1]
    assert table["calls"].tolist() == [1, 0, 1]


# The corpus ----------------------------------------------------------------------------------

LARGE = "gdn-h200-large/einops.json.gz"
TRAINING = ROOT / "tests" / "data" / "training-h100.json.gz"
FILES = [
    *sorted(path for path in CORPUS.rglob("*.json.gz") if path != CORPUS / LARGE),
    *([TRAINING] if TRAINING.exists() else []),
]


@dataclass(frozen=True)
class Seen:
    """A file as traceq has it, and as the oracle counts it."""

    trace: traceq.Trace
    counted: oracle.Gpu
    patterns: list[tuple[str | None, oracle.Predicate]]


@pytest.fixture(scope="module", params=FILES or [None], ids=lambda path: path and path.name[:-8])
def seen(request: pytest.FixtureRequest) -> Iterator[Seen]:
    if request.param is None:
        pytest.skip(NO_CORPUS)
    counted = oracle.Gpu(oracle.parse(oracle.plain_text(request.param)))
    with traceq.open(request.param) as trace:
        yield Seen(trace, counted, list(chosen_scopes(counted)))


def chosen_scopes(counted: oracle.Gpu) -> Iterator[tuple[str | None, oracle.Predicate]]:
    """Everything; a module, the aten op and the label that are called most, where there are any."""
    yield None, None
    slices = counted.slices
    if any("GatedDeltaNet" in item.name for item in slices):
        yield "GatedDeltaNet", lambda name: "GatedDeltaNet" in name
    ops = Counter(item.name for item in slices if item.name.startswith("aten::"))
    labels = Counter(
        item.name
        for item in slices
        if item.cat == "user_annotation" and not item.name.startswith("ProfilerStep")
    )
    for names in (ops, labels):
        if names:
            most = min(names, key=lambda name: (-names[name], name))
            yield f"re:^{re.escape(most)}$", lambda name, most=most: name == most


@pytest.mark.corpus
def test_activities_of_real_traces_belong_to_what_launched_them(seen: Seen) -> None:
    check_slices(seen.trace, seen.counted)
    check_links(seen.trace, seen.counted)
    for pattern, is_scope in seen.patterns:
        check_activities(seen.trace, seen.counted, pattern, is_scope)


@pytest.mark.corpus
def test_ops_and_scopes_of_real_traces_have_all_gpu_time(seen: Seen) -> None:
    for pattern, is_scope in seen.patterns:
        check_ops(seen.trace, seen.counted, pattern, is_scope)
        check_scopes(seen.trace, seen.counted, pattern, is_scope)


@pytest.mark.corpus
def test_trees_and_steps_of_real_traces_have_all_gpu_time(seen: Seen) -> None:
    check_steps(seen.trace, seen.counted)
    for pattern, is_scope in seen.patterns:
        check_tree(seen.trace, seen.counted, pattern, is_scope)
        if pattern is not None:
            check_agreement(seen.trace, seen.counted, pattern, is_scope)


@pytest.mark.corpus
def test_arrows_and_sequence_numbers_of_real_traces_agree(seen: Seen) -> None:
    by_arrow, by_number = seen.counted.forward_by_arrow, seen.counted.forward_by_number
    both = by_arrow.keys() & by_number.keys()
    assert {here: by_arrow[here] for here in both} == {here: by_number[here] for here in both}


FIGURES = {
    "gdn-h200/einops-0.json.gz": (1080, 6_379_535),
    "gdn-h200/flatten-0.json.gz": (1080, 6_377_085),
}


@pytest.mark.corpus
@pytest.mark.parametrize("name", FIGURES)
def test_gpu_figures_of_the_small_traces(corpus: Path, name: str) -> None:
    with traceq.open(corpus / name) as trace:
        kernels = trace.kernels("GatedDeltaNet")
        inside = kernels[~kernels["kernel"].isin(LEFT_OUT)]
        assert (int(inside["calls"].sum()), int(inside["total"].sum())) == FIGURES[name]
        assert (len(trace.activities("GatedDeltaNet")), 2778) == (1080, len(trace.activities()))


@pytest.mark.corpus
def test_gpu_figures_of_the_large_trace(corpus: Path) -> None:
    path = corpus / LARGE
    if not path.is_file():
        pytest.skip(f"the corpus has no {LARGE}")
    work = oracle.complete_events(oracle.only(oracle.plain_text(path), oracle.GPU))
    kernels = [item for item in work if item.cat == "kernel"]
    assert (len(kernels), sum(item.dur for item in kernels)) == (65_334, 339_100_703)
    number, time = len(work), sum(item.dur for item in work)
    busy = oracle.union((item.ts, item.end) for item in work)
    with traceq.open(path) as trace:
        whole = trace.kernels()
        of_kernels = whole[whole["category"] == "kernel"]
        assert (int(of_kernels["calls"].sum()), int(of_kernels["total"].sum())) == (
            65_334,
            339_100_703,
        )
        for under in (None, "GatedDeltaNet"):
            ops, scopes = trace.ops(under), trace.scopes(under)
            for table in (
                ops,
                scopes,
                trace.scopes(under, "instance"),
                trace.scopes(under, "layer"),
            ):
                assert int(table["gpu_self"].sum()) == time
                assert int(table["activities_self"].sum()) == number
                assert bool((table["gpu_busy"] <= table["gpu_total"]).all())
            tree = trace.tree(under)
            check_shape(tree)
            roots = tree[tree["parent"] < 0]
            assert int(roots["gpu_total"].sum()) == time
            assert int(roots["activities"].sum()) == number
            assert int(trace.kernels(under)["total"].sum()) == time
        steps = trace.steps()
        assert (int(steps["gpu_total"].sum()), int(steps["activities"].sum())) == (time, number)
        assert int(steps["gpu_busy"].sum()) >= busy
        inside = trace.activities("GatedDeltaNet")
        assert (len(inside), int(inside["dur"].sum())) == (27_576, 134_653_170)
        categories = Counter(inside["category"])
        assert categories == {"kernel": 26_832, "gpu_memcpy": 720, "gpu_memset": 24}
        assert not inside["is_backward"].any()
        assert inside["scope_id"].nunique() == len(trace.scope_calls("GatedDeltaNet")) == 720
        [row] = (
            trace.scopes("GatedDeltaNet")
            .query("scope.str.contains('GatedDeltaNet')")
            .to_dict("records")
        )
        assert (row["gpu_total"], row["activities"]) == (134_653_170, 27_576)
        spans = zip(inside["ts"], inside["ts"] + inside["dur"], strict=True)
        assert row["gpu_busy"] == oracle.union(spans)
