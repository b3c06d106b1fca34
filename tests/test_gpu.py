"""What launched the GPU's work: random traces against the oracle, which only counts.

Every example is written as JSON, opened, and asked for all that :mod:`tests.oracle` can tell from
the same events: which activity belongs to which scope, and the GPU columns of ops and scopes.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import Phase, given, settings

import traceq
from tests import oracle, tracemaker
from traceq import library

LEFT_OUT = ("(outside the scopes)", "(launch not in the trace)", "(in no module)")
PATTERNS: dict[str, tuple[str | None, oracle.Predicate]] = {
    "whole": (None, None),
    "module": ("nn.Module: A", lambda name: "nn.Module: A" in name),
    "label": ("label", lambda name: "label" in name),
    "op": ("aten::y", lambda name: "aten::y" in name),
    "function": ("m.py", lambda name: "m.py" in name),
    "call": ("cudaLaunch", lambda name: "cudaLaunch" in name),
    "several": (
        "re:_1$|::x|Graph",
        lambda name: name[-2:] == "_1" or "::x" in name or "Gr" in name,
    ),
}

# Each example opens an engine: one that fails is shown as it is, not made smaller.
engine_settings = settings(max_examples=6, phases=(Phase.explicit, Phase.generate))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random") / "trace.json"


def write(path: Path, events: Sequence[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"traceEvents": list(events)}), encoding="utf-8")
    return path


def read_back(path: Path) -> oracle.Gpu:
    return oracle.Gpu(oracle.parse(path.read_bytes()))


def patterns_in(trace: traceq.Trace) -> Iterator[tuple[str | None, oracle.Predicate]]:
    """The patterns that match something; one that matches nothing is an error, tested elsewhere."""
    for pattern, is_scope in PATTERNS.values():
        if is_scope is None or any(is_scope(name) for name in trace.names):
            yield pattern, is_scope


# Attribution -------------------------------------------------------------------------------------


@engine_settings
@given(events=tracemaker.gpu_traces(hard=False))
def test_activities_belong_to_what_launched_them(
    scratch: Path, events: list[dict[str, Any]]
) -> None:
    check_everything(scratch, events)


@settings(engine_settings, max_examples=14)
@given(events=tracemaker.gpu_traces(hard=True))
def test_activities_without_numbers_belong_to_what_launched_them(
    scratch: Path, events: list[dict[str, Any]]
) -> None:
    check_everything(scratch, events)


CASES = Path(__file__).parent / "queries"


@pytest.mark.parametrize(
    "case", ["kernels", "kernels-backward", "launches", "launches-flow", "launches-processes"]
)
def test_traces_of_the_queries_against_the_oracle(case: str) -> None:
    counted = read_back(CASES / f"{case}.json")
    with traceq.open(CASES / f"{case}.json") as trace:
        check_links(trace, counted)
        for name in trace.names:
            pattern, is_scope = f"re:^{re.escape(name)}$", partial(operator.eq, name)
            check_activities(trace, counted, pattern, is_scope)
            check_ops(trace, counted, pattern, is_scope)
            check_scopes(trace, counted, pattern, is_scope)


def check_everything(scratch: Path, events: list[dict[str, Any]]) -> None:
    counted = read_back(write(scratch, events))
    with traceq.open(scratch) as trace:
        check_slices(trace, counted)
        check_links(trace, counted)
        for pattern, is_scope in patterns_in(trace):
            check_activities(trace, counted, pattern, is_scope)
            check_ops(trace, counted, pattern, is_scope)
            check_scopes(trace, counted, pattern, is_scope)


def check_slices(trace: traceq.Trace, counted: oracle.Gpu) -> None:
    """The oracle numbers slices as the engine does, so that ids can be compared."""
    slices = trace.slices
    assert slices.ts.tolist() == [item.ts for item in counted.slices]
    assert slices.dur.tolist() == [item.dur for item in counted.slices]
    assert [slices.names[item] for item in slices.name] == [item.name for item in counted.slices]
    assert slices.parent.tolist() == [-1 if item is None else item for item in counted.parent]


def check_links(trace: traceq.Trace, counted: oracle.Gpu) -> None:
    found = trace.gpu
    assert found.id.tolist() == counted.activities
    assert found.launch.tolist() == [counted.launch.get(here, -1) for here in counted.activities]
    for column, tell in (
        (found.op, counted.op),
        (found.forward, counted.forward_op),
        (found.backward, counted.backward_op),
    ):
        told = [tell(here) for here in counted.activities]
        assert column.tolist() == [-1 if item is None else item for item in told]
    for column, key in ((found.device, "device"), (found.stream, "stream")):
        args = [counted.slices[here].args for here in counted.activities]
        assert column.tolist() == [-1 if item.get(key) is None else item[key] for item in args]


def check_activities(
    trace: traceq.Trace, counted: oracle.Gpu, pattern: str | None, is_scope: oracle.Predicate
) -> None:
    """Row for row: the oracle, the table in Python and the query."""
    if is_scope is None:
        expected = [(here, None, False) for here in counted.activities]
    else:
        expected = [(i.activity, i.scope, i.is_backward) for i in counted.under(is_scope)]
    table = trace.activities(pattern)
    assert rows_of(table) == expected
    assert rows_of(by_query(trace, "kernels", pattern)) == expected
    kernels = trace.kernels(pattern)
    inside = kernels[~kernels["kernel"].isin(LEFT_OUT)]
    assert int(inside["calls"].sum()) == len(expected)
    assert int(inside["total"].sum()) == counted.time(here for here, _, _ in expected)
    assert int(inside["backward"].sum()) == sum(late for _, _, late in expected)
    assert int(kernels["calls"].sum()) == len(counted.activities)
    assert int(kernels["total"].sum()) == counted.time(counted.activities)


def by_query(trace: traceq.Trace, query: str, pattern: str | None) -> pd.DataFrame:
    """A query of the package with the names that the pattern matches, in order of id if it has."""
    names = "NULL" if pattern is None else library.quote(json.dumps(trace.resolve(pattern)))
    return trace.sql(
        f"INCLUDE PERFETTO MODULE traceq.{query}; SELECT * FROM traceq_{query}({names}) ORDER BY 1"
    )


def rows_of(table: pd.DataFrame) -> list[tuple[int, int | None, bool]]:
    scopes = [None if bool(pd.isna(item)) else int(item) for item in table["scope_id"]]
    return sorted(
        zip(table["id"].tolist(), scopes, table["is_backward"].astype(bool).tolist(), strict=True)
    )


# By hand -----------------------------------------------------------------------------------------

GRAPH = [
    tracemaker.complete("nn.Module: Net_0", 0, 100, cat="python_function"),
    tracemaker.complete("aten::mm", 10, 50),
    tracemaker.complete("cudaGraphLaunch", 20, 10, cat="cuda_runtime", args={"correlation": 1}),
    tracemaker.complete("cudaLaunchKernel", 70, 5, cat="cuda_runtime", args={"correlation": 2}),
    tracemaker.complete("k", 50, 20, cat="kernel", pid=0, tid=7, args={"correlation": 1}),
    tracemaker.complete("k", 60, 20, cat="kernel", pid=0, tid=8, args={"correlation": 1}),
    tracemaker.complete("c", 90, 5, cat="gpu_memcpy", pid=0, tid=7, args={"correlation": 1}),
    tracemaker.complete("s", 96, 4, cat="gpu_memset", pid=0, tid=7, args={"correlation": 2}),
    tracemaker.complete("lost", 200, 3, cat="kernel", pid=0, tid=7, args={"correlation": 3}),
    tracemaker.complete("aten::mm", 50, 45, cat="gpu_user_annotation", pid=0, tid=7),
]
GPU_COLUMNS = ["gpu_total", "gpu_self", "gpu_busy", "launches", "activities", "activities_self"]


def gpu_figures(table: pd.DataFrame, name: str) -> dict[str, list[int]]:
    """The GPU columns of the rows that have any, in µs."""
    found = {row[name]: [row[key] for key in GPU_COLUMNS] for row in table.to_dict("records")}
    return {
        text: [*(value // 1000 for value in row[:3]), *row[3:]]
        for text, row in found.items()
        if any(row)
    }


def test_a_graph_has_many_activities_and_one_launch(scratch: Path) -> None:
    write(scratch, GRAPH)
    lost = {"(launch not in the trace)": [3, 3, 3, 0, 1, 1]}
    with traceq.open(scratch) as trace:
        assert (
            gpu_figures(trace.ops(), "op")
            == {
                "nn.Module: Net": [49, 4, 39, 2, 4, 1],
                "aten::mm": [45, 45, 35, 1, 3, 3],
                "cudaGraphLaunch": [45, 0, 35, 1, 3, 0],
                "cudaLaunchKernel": [4, 0, 4, 1, 1, 0],
            }
            | lost
        )
        assert (
            gpu_figures(trace.ops("aten::mm"), "op")
            == {
                "cudaGraphLaunch": [45, 0, 35, 1, 3, 0],
                "(the scopes themselves)": [45, 45, 35, 1, 3, 3],
                "(outside the scopes)": [4, 4, 4, 1, 1, 1],
            }
            | lost
        )
        assert (
            gpu_figures(trace.scopes(), "scope") == {"nn.Module: Net": [49, 49, 39, 2, 4, 4]} | lost
        )
        kernels = trace.kernels("aten::mm").set_index("kernel")
    assert kernels["total"].to_dict() == {
        "k": 40_000,
        "c": 5_000,
        "(outside the scopes)": 4_000,
        "(launch not in the trace)": 3_000,
    }
    assert kernels["busy"]["k"] == 30_000
    assert kernels["launches"]["k"] == 1
    assert kernels["share"].sum() == pytest.approx(1)


def test_asynchronous_spans_change_nothing(scratch: Path) -> None:
    """With these the slices are read back from the engine, and not taken from the file."""
    span = {"name": "aten::mm", "cat": "async", "id": 1, "pid": 1, "tid": 2}
    spans = [span | {"ph": "b", "ts": 1}, span | {"ph": "e", "ts": 300}]
    tables = []
    for events in (GRAPH, [*GRAPH, *spans]):
        write(scratch, events)
        with traceq.open(scratch) as trace:
            tables.append(
                [
                    gpu_figures(trace.ops("nn.Module"), "op"),
                    gpu_figures(trace.scopes(), "scope"),
                    trace.kernels().to_csv(),
                    trace.tree()[["name", "parent", "gpu_total", "total"]].to_dict("records"),
                ]
            )
    assert tables[0] == tables[1]


# GPU columns -------------------------------------------------------------------------------------


def check_gpu_columns(
    table: pd.DataFrame, name: str, rows: dict[str, oracle.Row], counted: oracle.Gpu
) -> None:
    """The GPU columns of a table; its rows for what is left out count as one."""
    found = {row[name]: row for row in table.to_dict("records")}
    assert len(found) == len(table)
    left = [found.pop(text) for text in LEFT_OUT if text in found]
    nothing = oracle.Row()
    outside = rows.get(oracle.OUTSIDE, nothing).own
    assert sum(row["gpu_self"] for row in left) == counted.time(outside)
    assert sum(row["activities_self"] for row in left) == len(outside)
    expected = {text: row for text, row in rows.items() if text != oracle.OUTSIDE}
    assert set(expected) <= set(found)
    for text, row in found.items():
        here = expected.get(text, nothing)
        below = here.own if text.startswith("(") else here.below
        assert row["gpu_total"] == counted.time(below), text
        assert row["gpu_self"] == counted.time(here.own), text
        assert row["gpu_busy"] == counted.busy(below), text
        assert row["activities"] == len(below), text
        assert row["activities_self"] == len(here.own), text
        launches = {counted.launch[item] for item in below if item in counted.launch}
        assert row["launches"] == len(launches), text
        if row["calls"]:
            assert row["kernels_per_call"] == len(below) / row["calls"], text
        if "backward" in row:
            assert row["backward"] == counted.time(here.backward), text
    assert int(table["gpu_self"].sum()) == counted.time(counted.activities)
    assert int(table["activities_self"].sum()) == len(counted.activities)
    assert bool((table["gpu_busy"] <= table["gpu_total"]).all())


def check_ops(
    trace: traceq.Trace, counted: oracle.Gpu, pattern: str | None, is_scope: oracle.Predicate
) -> None:
    table = trace.ops(pattern)
    check_gpu_columns(table, "op", oracle.Views(counted, is_scope).ops(), counted)
    called = table[table["calls"] > 0].sort_values("op")
    queried = by_query(trace, "ops", pattern).sort_values("op")
    assert called["op"].tolist() == queried["op"].tolist()
    for column in ("category", "calls", "total", "average", "min", "max", "self"):
        assert called[column].tolist() == queried[column].tolist(), column


def class_of(name: str) -> str:
    return name if name.endswith(": forward") else oracle.fold(name)


GROUPINGS: dict[Any, Callable[[str], str]] = {"class": class_of, "instance": str}


def check_scopes(
    trace: traceq.Trace, counted: oracle.Gpu, pattern: str | None, is_scope: oracle.Predicate
) -> None:
    views = oracle.Views(counted, is_scope)
    for by, text in GROUPINGS.items():
        check_gpu_columns(trace.scopes(pattern, by), "scope", views.modules(text), counted)
    layers = trace.scopes(pattern, "layer")
    assert int(layers["gpu_self"].sum()) == counted.time(counted.activities)
    assert int(layers["activities_self"].sum()) == len(counted.activities)
    assert bool((layers["gpu_busy"] <= layers["gpu_total"]).all())


# Labels around backward ops -----------------------------------------------------------------------


@pytest.mark.parametrize("around", ["op", "launch", None])
def test_a_label_does_not_rob_a_module_of_its_backward_pass(
    scratch: Path, around: str | None
) -> None:
    """Inductor sets a label around what it launches, also within a backward op."""
    number = {"Sequence number": 7}
    events = [
        tracemaker.complete("nn.Module: M_0", 0, 50, cat="python_function"),
        tracemaker.complete("aten::mul", 10, 20, cat="cpu_op", args=number),
        tracemaker.complete(
            "evaluate", 100, 40, cat="cpu_op", tid=2, args={**number, "Fwd thread id": 1}
        ),
        tracemaker.complete(
            "cudaLaunchKernel", 110, 5, cat="cuda_runtime", tid=2, args={"correlation": 3}
        ),
        tracemaker.complete("kernel", 200, 9, cat="kernel", pid=0, tid=7, args={"correlation": 3}),
    ]
    if around:
        start, dur = (90, 60) if around == "op" else (105, 20)
        events.append(tracemaker.complete("label", start, dur, cat="user_annotation", tid=2))
    scratch.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
    with traceq.open(scratch) as trace:
        rows = trace.scopes().set_index("scope")
        roots = trace.tree().query("parent < 0").set_index("name")
        below = trace.activities("M_0")
    assert int(rows.loc["nn.Module: M", "gpu_total"]) == 9_000
    assert int(rows.loc["nn.Module: M", "backward"]) == 9_000
    assert int(rows["gpu_self"].sum()) == 9_000
    assert int(roots.loc["nn.Module: M", "gpu_total"]) == 9_000
    assert below["is_backward"].tolist() == [True]
