"""Engines whose slices have no stack_id get other modules, which must give the same tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import traceq
from tests.conftest import ROOT
from traceq import library, loading
from traceq.errors import QueryError

TRACES = (
    ROOT / "tests" / "queries" / "stacks-adopted.json",
    ROOT / "tests" / "queries" / "ops-recursive.json",
    ROOT / "sample_traces" / "einops-0.json.gz",
)
OPS = "INCLUDE PERFETTO MODULE traceq.ops; SELECT * FROM traceq_ops({}) ORDER BY op"


def tables(trace: traceq.Trace) -> list[pd.DataFrame]:
    names = "traceq_names('*GatedDeltaNet*')"
    return [trace.sql(OPS.format(given)) for given in ("NULL", names)]


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_the_portable_form_gives_the_same_ops(path: Path) -> None:
    with traceq.open(path) as trace:
        expected = tables(trace)
        ops = {name: loading.fold_name(name) for name in trace.names}
    with traceq.open(path) as trace:
        modules = {**library.modules(), **library.portable_modules()}
        modules["traceq.op_names"] = library.op_names_module(ops)
        trace._engine.start().register_package(library.PACKAGE, modules)
        found = tables(trace)
    assert len(expected[0])
    for one, other in zip(expected, found, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_every_portable_module_takes_the_place_of_one() -> None:
    assert library.portable_modules()
    assert set(library.portable_modules()) <= set(library.modules())


def test_an_engine_without_stack_ids_is_given_the_portable_form() -> None:
    class Engine:
        def __init__(self, has_stacks: bool) -> None:
            self.has_stacks = has_stacks
            self.modules: dict[str, str] = {}

        def query(self, sql: str) -> None:
            assert "stack_id" in sql
            if not self.has_stacks:
                raise QueryError("no such column: stack_id")

        def register_package(self, name: str, modules: dict[str, str]) -> None:
            self.modules = modules

    for has_stacks in (True, False):
        engine = Engine(has_stacks)
        loading._register(engine, {})
        kept = library.modules() if has_stacks else library.portable_modules()
        assert engine.modules["traceq.stacks"] == kept["traceq.stacks"]
