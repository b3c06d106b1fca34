"""The queries of the package: each against a tiny trace and figures worked out by hand.

``tests/queries/<case>.sql`` is run over ``<case>.json`` (or, where there is none, the trace of the
query that ``<case>`` is a variant of) and must give ``<case>.csv``; times there are ns, an empty
field is NULL. The sample traces are counted a second time here, from plain JSON by containment.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import traceq
from tests import oracle
from tests.conftest import ROOT
from traceq import library

QUERIES = ROOT / "queries"
CASES = Path(__file__).parent / "queries"
SAMPLES = ("einops-0", "flatten-0")
CASE_NAMES = sorted(path.stem for path in CASES.glob("*.sql"))
MODULES = sorted(path.stem for path in QUERIES.glob("*.sql"))


# Figures worked out by hand -------------------------------------------------------------------


def query_of(case: str) -> str:
    return case.partition("-")[0]


def trace_of(case: str) -> Path:
    own = CASES / f"{case}.json"
    return own if own.exists() else CASES / f"{query_of(case)}.json"


def as_text(value: Any) -> str:
    return "" if bool(pd.isna(value)) else str(value)


def rows_of(table: pd.DataFrame) -> list[list[str]]:
    return [
        [str(column) for column in table.columns],
        *([as_text(value) for value in row] for row in table.itertuples(index=False, name=None)),
    ]


@pytest.mark.parametrize("case", CASE_NAMES)
def test_query_gives_the_figures_worked_out_by_hand(case: str) -> None:
    with (CASES / f"{case}.csv").open(encoding="utf-8", newline="") as file:
        expected = list(csv.reader(file))
    with traceq.open(trace_of(case)) as trace:
        found = trace.sql((CASES / f"{case}.sql").read_text(encoding="utf-8"))
    assert rows_of(found) == expected


def test_every_query_has_a_case() -> None:
    covered = {query_of(case) for case in CASE_NAMES}
    assert covered == set(MODULES)
    for case in CASE_NAMES:
        assert (CASES / f"{case}.csv").exists()
        assert f"traceq.{query_of(case)};" in (CASES / f"{case}.sql").read_text("utf-8")


def test_every_file_of_a_case_is_used() -> None:
    for path in CASES.iterdir():
        assert any(path.stem in (case, query_of(case)) for case in CASE_NAMES), path.name


@pytest.mark.parametrize("path", sorted(CASES.glob("*.json")), ids=lambda path: path.stem)
def test_traces_of_cases_can_be_read_at_a_glance(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 26
    for line in lines[1:-1]:
        event = json.loads(line.removesuffix(","))
        assert isinstance(event["ts"], int)
        assert event["ph"] in "sf" or isinstance(event["dur"], int)


# Documentation --------------------------------------------------------------------------------


def test_readme_of_the_queries_is_what_the_comments_say() -> None:
    assert (QUERIES / "README.md").read_text(encoding="utf-8") == library.as_markdown()


def header_fields(text: str) -> list[tuple[str, str, bool]]:
    """(name, type, commented) of each field that the public statements of a file declare."""
    found, lines, public = [], text.splitlines(), False
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("CREATE"):
            public = " _" not in line
        field = re.fullmatch(r"  (\w+) (LONG|STRING|DOUBLE|BYTES|BOOL),?", line)
        if field and public:
            found.append((field[1], field[2], before.strip().startswith("--")))
    return found


@pytest.mark.parametrize("module", MODULES)
def test_every_field_is_documented(module: str) -> None:
    text = (QUERIES / f"{module}.sql").read_text(encoding="utf-8")
    fields = header_fields(text)
    assert fields
    assert [name for name, _, commented in fields if not commented] == []
    query = next(item for item in library.catalogue() if item.module == f"traceq.{module}")
    described = [(item.name, item.type) for item in (*query.parameters, *query.columns)]
    assert described == [(name, type_) for name, type_, _ in fields]
    assert query.doc
    assert all(item.doc for item in (*query.parameters, *query.columns))
    if query.returns is not None:
        assert query.returns.doc


def test_one_public_object_a_file_named_after_it() -> None:
    assert [(query.module, query.name) for query in library.catalogue()] == [
        (f"traceq.{module}", f"traceq_{module}") for module in MODULES
    ]


ARGUMENTS = {
    "traceq_calls": ("traceq_names('*f')", "traceq_names('*S*')"),
    "traceq_kernels": ("traceq_names('S')",),
    "traceq_names": ("'*'",),
    "traceq_ops": ("traceq_names('*S*')",),
    "traceq_scopes": ("traceq_names('S')",),
    "traceq_under": ("traceq_names('S')",),
}
PYTHON_TYPES = {"LONG": (int, np.integer), "STRING": str, "DOUBLE": (float, np.floating)}


@pytest.mark.parametrize("query", library.catalogue(), ids=lambda query: query.name)
def test_documented_columns_are_what_comes_back(query: library.Query) -> None:
    call = query.name
    if query.kind == "function":
        assert len(ARGUMENTS[query.name]) == len(query.parameters)
        call += f"({', '.join(ARGUMENTS[query.name])})"
    source = f"SELECT {call} AS value" if query.returns else f"SELECT * FROM {call}"
    with traceq.open(CASES / f"{query.module.removeprefix('traceq.')}.json") as trace:
        table = trace.sql(
            f"INCLUDE PERFETTO MODULE traceq.names; INCLUDE PERFETTO MODULE {query.module}; "
            + source
        )
    columns = [(item.name, item.type) for item in query.columns]
    if query.returns is not None:
        columns = [("value", query.returns.type)]
    assert len(table)
    assert list(table.columns) == [name for name, _ in columns]
    for name, type_ in columns:
        values = [value for value in table[name].tolist() if as_text(value)]
        assert all(isinstance(value, PYTHON_TYPES[type_]) for value in values), (name, values)


def test_every_unit_in_a_comment_is_one_that_is_known() -> None:
    times = {"ts", "dur", "delay", "total", "self", "average", "min", "max"}
    for query in library.catalogue():
        for item in query.columns:
            assert item.unit == ("ns" if item.name in times else ""), (query.name, item)


def test_modules_can_be_included_twice() -> None:
    includes = "".join(
        f"INCLUDE PERFETTO MODULE traceq.{name}; INCLUDE PERFETTO MODULE traceq.{name}; "
        for name in (*MODULES, *reversed(MODULES))
    )
    question = "SELECT COUNT(*) AS ops FROM traceq_ops(NULL)"
    with traceq.open(CASES / "ops.json") as trace:
        for _ in range(2):
            assert trace.sql(includes + question)["ops"].tolist() == [4]


def test_modules_can_be_run_as_text_twice() -> None:
    """A reader may paste a file into Perfetto's own UI: the statements replace themselves."""
    with traceq.open(CASES / "ops.json") as trace:
        for _ in range(2):
            for module in MODULES:
                trace.sql((QUERIES / f"{module}.sql").read_text(encoding="utf-8"))
        table = trace.sql("SELECT op FROM traceq_ops(NULL) ORDER BY op")
    # Pasted, op_names folds nothing: every name is its own op.
    assert table["op"].tolist() == ["S", "aten::add", "m.py(3): f", "m.py(4): f", "m.py(9): g"]


# The sample traces, counted a second time -----------------------------------------------------


@dataclass(frozen=True)
class Recount:
    """The slices of a trace from plain JSON, parents first, with the position of each parent."""

    events: list[oracle.Complete]
    parents: list[int | None]

    @classmethod
    def of(cls, documents: Sequence[dict[str, Any]]) -> Recount:
        slices = oracle.complete_events(
            item | {"ph": "X", "dur": item.get("dur", 0)}
            for item in documents
            if item.get("ph") in ("X", "i")
        )
        slices.sort(key=lambda item: (item.ts, -item.dur, item.index))
        position = {item.index: number for number, item in enumerate(slices)}
        found = oracle.parents_of_events(slices)
        return cls(slices, [None if item is None else position[item.index] for item in found])

    def above(self, number: int) -> Iterator[int]:
        while (parent := self.parents[number]) is not None:
            yield parent
            number = parent

    def ops(self, is_scope: Callable[[str], bool] | None) -> dict[str, list[Any]]:
        """calls, total, self, min, max, outermost by op."""
        below = self.below(is_scope)
        children: dict[int, int] = defaultdict(int)
        for number in below - self.crossing():
            if self.parents[number] is not None:
                children[self.parents[number]] += self.events[number].dur
        found: dict[str, list[Any]] = {}
        for number in sorted(below):
            event, op = self.events[number], oracle.fold(self.events[number].name)
            op += " (on the GPU)" if event.cat == oracle.GPU_LABEL else ""
            nested = any(
                other in below and oracle.fold(self.events[other].name) == op
                for other in self.above(number)
            )
            row = found.setdefault(op, [0, 0, 0, event.dur, event.dur, 0])
            row[0] += 1
            row[1] += event.dur
            row[2] += event.dur - children[number]
            row[3] = min(row[3], event.dur)
            row[4] = max(row[4], event.dur)
            row[5] += 0 if nested else event.dur
        return found

    def crossing(self) -> set[int]:
        """Of two children that overlap, as the frame that ends one step and begins the next does
        with both labels, the shorter: it is on a lane of its own, and in nobody's self time."""
        found: set[int] = set()
        last: dict[int, int] = {}
        for number, parent in enumerate(self.parents):
            if parent is None:
                continue
            event, before = self.events[number], last.get(parent)
            if before is not None:
                other = self.events[before]
                if event.ts < other.ts + other.dur:
                    found.add(min(number, before, key=lambda item: self.events[item].dur))
                    if number in found:
                        continue
            last[parent] = number
        return found

    def below(self, is_scope: Callable[[str], bool] | None) -> set[int]:
        """Positions of the slices under the scopes; of all, where there is no pattern."""
        if is_scope is None:
            return set(range(len(self.events)))
        found: set[int] = set()
        for number, parent in enumerate(self.parents):
            if parent is not None and (parent in found or self.is_scope(parent, is_scope)):
                found.add(number)
        return found

    def scopes(self, is_scope: Callable[[str], bool]) -> list[tuple[int, int, str]]:
        below = self.below(is_scope)
        return sorted(
            (event.ts, event.dur, event.name)
            for number, event in enumerate(self.events)
            if number not in below and self.is_scope(number, is_scope)
        )

    def is_scope(self, number: int, is_scope: Callable[[str], bool]) -> bool:
        """What runs on the GPU is no scope, whatever its name."""
        event = self.events[number]
        return event.cat not in (*oracle.GPU, oracle.GPU_LABEL) and is_scope(event.name)


@dataclass(frozen=True)
class Sample:
    """A sample trace: as traceq has it, and counted again."""

    trace: traceq.Trace
    recount: Recount


@pytest.fixture(scope="module", params=SAMPLES)
def sample(request: pytest.FixtureRequest) -> Iterator[Sample]:
    path = ROOT / "sample_traces" / f"{request.param}.json.gz"
    documents = oracle.parse(gzip.decompress(path.read_bytes()))
    with traceq.open(path) as trace:
        yield Sample(trace, Recount.of(documents))


def figures(
    table: pd.DataFrame, columns: Sequence[str] = ("calls", "total", "self", "min", "max")
) -> dict[str, list[int]]:
    """The CPU columns by op; rows without calls hold GPU time alone."""
    called = table[table["calls"] > 0].to_dict("records")
    return {row["op"]: [int(row[key]) for key in columns] for row in called}


ALL_FIGURES = ("calls", "total", "self", "min", "max", "outermost")


UNDERS: dict[str, tuple[Any, Callable[[str], bool] | None]] = {
    "whole": (None, None),
    "plain": ("GatedDeltaNet", lambda name: "GatedDeltaNet" in name),
    "several": (
        ["GatedDeltaNet", "aten::matmul", "RMSNorm"],
        lambda name: any(text in name for text in ("GatedDeltaNet", "aten::matmul", "RMSNorm")),
    ),
    "glob": (
        "nn.Module: *GatedDeltaNet_?",
        lambda name: re.fullmatch(r"nn\.Module: .*GatedDeltaNet_.", name) is not None,
    ),
    "regex": (
        r"re:^nn\.Module: \w+_[02]$",
        lambda name: bool(re.search(r"^nn\.Module: \w+_[02]$", name)),
    ),
    "recursive": ("_call_impl", lambda name: "_call_impl" in name),
    "kernels": ("re:cuda|cu[A-Z]", lambda name: bool(re.search(r"cuda|cu[A-Z]", name))),
}


@pytest.mark.parametrize("case", UNDERS)
def test_ops_of_the_samples_are_those_counted_from_plain_json(sample: Sample, case: str) -> None:
    patterns, is_scope = UNDERS[case]
    expected = sample.recount.ops(is_scope)
    assert len(expected) > 3
    table = sample.trace.ops(patterns)
    assert table["op"].is_unique
    assert figures(table, ALL_FIGURES) == expected
    called = table[table["calls"] > 0]
    assert called["average"].tolist() == pytest.approx(
        [expected[op][1] / expected[op][0] for op in called["op"]], rel=1e-12
    )


@pytest.mark.parametrize("case", UNDERS)
def test_traceq_ops_of_the_samples_are_those_counted_from_plain_json(
    sample: Sample, case: str
) -> None:
    patterns, is_scope = UNDERS[case]
    names = "NULL"
    if patterns is not None:
        names = library.quote(json.dumps(sample.trace.resolve(patterns)))
    table = sample.trace.sql(
        f"INCLUDE PERFETTO MODULE traceq.ops; SELECT * FROM traceq_ops({names})"
    )
    expected = {op: row[:5] for op, row in sample.recount.ops(is_scope).items()}
    assert table["op"].is_unique
    assert figures(table) == expected


@pytest.mark.parametrize("case", [case for case in UNDERS if case != "whole"])
def test_scopes_of_the_samples_are_those_counted_from_plain_json(sample: Sample, case: str) -> None:
    patterns, is_scope = UNDERS[case]
    assert is_scope is not None
    table = sample.trace.scope_calls(patterns)
    found = sorted(zip(table["ts"], table["dur"], table["name"], strict=True))
    assert found == sample.recount.scopes(is_scope)


@pytest.mark.parametrize(
    ("match", "is_chosen"),
    [
        ("flatten", lambda op: "flatten" in op),
        (
            ["aten::*_", "rearrange"],
            lambda op: bool(re.fullmatch(r"aten::.*_", op)) or "rearrange" in op,
        ),
        ("re:^aten::(mul|add)$", lambda op: op in ("aten::mul", "aten::add")),
    ],
    ids=["plain", "several", "regex"],
)
def test_match_keeps_ops_and_changes_no_figure(
    sample: Sample, match: Any, is_chosen: Callable[[str], bool]
) -> None:
    is_scope = None
    expected = {op: row for op, row in sample.recount.ops(is_scope).items() if is_chosen(op)}
    if "rearrange" in match and not any("rearrange" in op for op in expected):
        with pytest.raises(traceq.TraceqError, match="rearrange"):
            sample.trace.ops(match=match)
        return
    assert expected
    assert figures(sample.trace.ops(match=match), ALL_FIGURES) == expected


def test_calls_of_the_samples_are_those_counted_from_plain_json(sample: Sample) -> None:
    below = sample.recount.below(lambda name: "GatedDeltaNet" in name)
    events = [sample.recount.events[number] for number in below]
    expected = sorted((e.ts, e.dur, e.name) for e in events if "aten::" in e.name)
    table = sample.trace.calls("aten::", under="GatedDeltaNet")
    assert sorted(zip(table["ts"], table["dur"], table["name"], strict=True)) == expected


def test_kernels_under_a_scope_are_those_counted_from_plain_json(sample: Sample) -> None:
    recount = sample.recount
    below = recount.below(lambda name: "GatedDeltaNet" in name)
    launchers = {
        recount.events[number].args["correlation"]
        for number in below
        if recount.events[number].cat in ("cuda_runtime", "cuda_driver")
    }
    gpu = [e for e in recount.events if e.cat in ("kernel", "gpu_memcpy", "gpu_memset")]
    launched = sorted((e.ts, e.dur, e.name) for e in gpu if e.args.get("correlation") in launchers)
    table = sample.trace.activities("GatedDeltaNet")
    assert sorted(zip(table["ts"], table["dur"], table["name"], strict=True)) == launched
    assert len(launched) > 100
    assert len(sample.trace.activities()) == len(gpu)


# Random traces, counted a second time ---------------------------------------------------------


@st.composite
def small_traces(draw: Any) -> list[dict[str, Any]]:
    """A few slices on each of many threads: nested, overlapping, touching, equal or of no length.

    Of slices of no length at one time each may be said to be around the other: there is one only.
    """
    item = st.tuples(st.sampled_from(["S", "f", "g"]), st.integers(0, 12), st.integers(0, 8))
    found = []
    for tid in range(1, 9):
        instants = set()
        for name, ts, dur in draw(st.lists(item, max_size=7)):
            if dur == 0 and ts in instants:
                continue
            instants |= {ts} if dur == 0 else set()
            found.append({"ph": "X", "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur})
    return [*found, {"ph": "X", "name": "S", "pid": 1, "tid": 9, "ts": 0, "dur": 1}]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random") / "trace.json"


def is_s(name: str) -> bool:
    return name == "S"


# Each example opens an engine: one that fails is shown as it is, not made smaller.
engine_settings = settings(max_examples=12, phases=(Phase.explicit, Phase.generate))


@engine_settings
@given(events=small_traces())
def test_scopes_and_what_is_under_them_by_containment(
    scratch: Path, events: list[dict[str, Any]]
) -> None:
    scratch.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
    recount = Recount.of(events)
    with traceq.open(scratch) as trace:
        scopes, below = trace.scope_calls("S"), trace.sql(BELOW)
    found = sorted(zip(scopes["ts"], scopes["dur"], scopes["name"], strict=True))
    assert found == recount.scopes(is_s)
    expected = [recount.events[number] for number in recount.below(is_s)]
    rows = zip(below["name"], below["ts"], below["dur"], strict=True)
    assert sorted(rows) == sorted((item.name, item.ts, item.dur) for item in expected)


BELOW = """
INCLUDE PERFETTO MODULE traceq.under;
SELECT name, ts, dur FROM traceq_under('["S"]')
"""


@engine_settings
@given(events=small_traces())
def test_figures_under_scopes_by_containment(scratch: Path, events: list[dict[str, Any]]) -> None:
    scratch.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
    with traceq.open(scratch) as trace:
        under, whole = trace.ops("S"), trace.ops()
    # self leaves out children on the same lane only, and so is not to be had by containment.
    columns = ["calls", "total", "min", "max", "outermost"]
    for table, is_scope in ((under, is_s), (whole, None)):
        recounted = Recount.of(events).ops(is_scope)
        expected = {op: row[:2] + row[3:] for op, row in recounted.items()}
        assert figures(table, columns) == expected
