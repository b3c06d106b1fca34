"""What a page of a comparison holds: the verdict, the call tree, all tables, how to reproduce it.

Plain data for ``render.page``, which shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from traceq import units
from traceq.compare import Diff
from traceq.flame import Flame, grow_flame
from traceq.model import Ints
from traceq.reading import Question, Reading
from traceq.report import diff as full
from traceq.report.diff import change_text, limits_told
from traceq.report.model import Column, Details, Table, Unit
from traceq.report.pull_request import (
    MORE_WARNINGS,
    capture_command,
    events_table,
    pull_request_report,
)
from traceq.report.verdicts import CAN_NOT_TELL, quotable
from traceq.table import records

DISTRIBUTIONS = 30
"""So many ops are shown call by call: those that changed, then those with most time."""

BINS = 24

_NARROWEST = 1.0001
"""Ends of a scale are so far apart at least: nearer ones are no floats in rising order."""


def diff_page(diff: Diff) -> dict[str, Any]:
    """The page of a comparison."""
    summary = pull_request_report(diff, show_all=True)
    tables = [*summary.tables, *full.tables(diff, show_all=True, show_kernels=True, limit=None)]
    tables += [*_of_details(summary.details)]
    names = [*diff.changes["op"], *diff.ops.sort_values("total_before", ascending=False)["op"]]
    return {
        "single": False,
        "headline": units.printable(" ".join(quotable(diff))),
        "warnings": [*map(units.printable, diff.warnings)],
        "facts": _facts([*summary.facts, *full.facts(diff)]),
        "flame": _flame(grow_flame(*diff.readings)),
        "drifts": {name: _drift(diff, name) for name in ("cpu", "gpu")},
        "verdicts": {"op": _verdicts(diff.ops, "op"), "kernel": _verdicts(diff.kernels, "kernel")},
        "tables": [*map(_table, tables)],
        "distributions": [*_distributions(names, diff.calls_of)],
        "blocks": [_lines(text) for item in summary.details for _, text in item.blocks],
        "remarks": [units.printable(text) for item in summary.details for text in item.remarks],
    }


def capture_page(capture: Reading, question: Question) -> dict[str, Any]:
    """The page of one capture that was read with a question."""
    totals = capture.totals
    scopes = "" if totals.is_whole else f"{units.plural(totals.scopes, 'scope')}"
    where = f"{scopes} of {', '.join(capture.under)}, " if scopes else ""
    times = f"CPU {units.micros(totals.total)} µs, GPU {units.micros(totals.gpu_here.total)} µs"
    ops = capture.ops.sort_values("total", ascending=False)
    kernels = capture.kernels.sort_values("total", ascending=False)
    tables = [
        Table("Ops", _OP_COLUMNS, tuple(records(ops))),
        Table("Kernels, copies and sets", _KERNEL_COLUMNS, tuple(records(kernels))),
        *([events_table([capture])] if capture.events is not None else []),
    ]
    blocks = [capture_command("report", capture.path, question, ("-o", "report.html"))]
    blocks += [f"# sha256sum\n{capture.sha256}  {capture.path}"] if capture.sha256 else []
    return {
        "single": True,
        "headline": units.printable(f"{capture.path}: {where}{times}."),
        "warnings": [*map(units.printable, capture.doubts)],
        "facts": _facts(limits_told(question, capture.step_source)),
        "flame": _flame(grow_flame([capture])),
        "drifts": {"cpu": None, "gpu": None},
        "verdicts": {"op": [], "kernel": []},
        "tables": [*map(_table, tables)],
        "distributions": [
            *_distributions(ops["op"].tolist(), lambda op: (capture.calls_of(op), _NONE))
        ],
        "blocks": [*map(_lines, blocks)],
        "remarks": [],
    }


def _facts(facts: Iterable[tuple[str, str]]) -> list[list[str]]:
    return [[units.printable(text) for text in pair] for pair in facts]


def _lines(text: str) -> str:
    return "\n".join(map(units.printable, text.split("\n")))


_COLUMNS = (
    Column("calls", "calls", Unit.COUNT),
    Column("total", "total µs", Unit.MICROS),
    Column("average", "avg µs", Unit.MICROS),
    Column("min", "min µs", Unit.MICROS),
    Column("max", "max µs", Unit.MICROS),
)
_OP_COLUMNS = (
    Column("op", "op", Unit.NAME),
    *_COLUMNS,
    Column("self", "self µs", Unit.MICROS),
    Column("gpu_total", "GPU µs", Unit.MICROS),
)
_KERNEL_COLUMNS = (Column("kernel", "kernel", Unit.NAME), *_COLUMNS)


def _of_details(details: Sequence[Details]) -> Iterator[Table]:
    """The tables that are in details alone, by the titles of these; all warnings are on top."""
    for item in details:
        for table in item.tables:
            if not table.title and item.title != MORE_WARNINGS:
                yield replace(table, title=item.title)


def _table(table: Table) -> dict[str, Any]:
    """Columns, and rows of cells: what is shown, and what it is sorted by."""
    columns = [
        column
        for column in table.columns
        if any(row[column.key] not in (None, "") for row in table.rows)
    ]
    return {
        "title": table.title,
        "note": table.note,
        "columns": [
            {"title": item.title, "text": item.unit.is_text, "name": item.unit is Unit.NAME}
            for item in columns
        ],
        "rows": [
            [[item.unit.show(row[item.key]), _key(item.key, row)] for item in columns]
            for row in table.rows
        ],
    }


def _key(key: str, row: dict[str, Any]) -> Any:
    """What a cell is sorted by: a number, or its text."""
    value = row.get("sort", {}).get(key, row[key])
    if isinstance(value, float) and isnan(value):
        return None
    return value if isinstance(value, int | float | None) else units.printable(str(value)).lower()


def _flame(flame: Flame) -> dict[str, Any]:
    """The tree with the names that it uses alone."""
    used, number = np.unique(flame.name, return_inverse=True)
    return {
        "names": [units.printable(flame.names[item]) for item in used.tolist()],
        "name": number.reshape(-1).tolist(),
        "parent": flame.parent.tolist(),
        "kind": flame.kind.tolist(),
        "calls": flame.calls.tolist(),
        "cpu": flame.cpu.tolist(),
        "gpu": flame.gpu.tolist(),
        "folded": flame.folded.tolist(),
        "captures": list(flame.captures),
    }


def _drift(diff: Diff, name: str) -> float | None:
    """By which factor the unchanged code moved, where that is no change that can be told.

    None: nothing is taken out of the colors.
    """
    finding = diff.evidence.of("scopes", name)
    if finding is not None and finding.verdict.is_change:
        return None
    groups = diff.groups if name == "cpu" else diff.kernel_groups
    before, after = (groups.unchanged.sums(side, "time") for side in ("before", "after"))
    if not sum(before) or not sum(after):
        return None
    return (sum(after) / len(after)) / (sum(before) / len(before))


def _verdicts(table: pd.DataFrame, key: str) -> list[list[str]]:
    """What is said of each op or kernel under all scopes, as in the tables; none: not tested."""
    rows = [(row[key], change_text(row)) for row in records(table)]
    words = {CAN_NOT_TELL: "can't tell from noise"}
    return [[units.printable(name), words.get(text, text)] for name, text in rows if text]


# Calls one by one -------------------------------------------------------------------------


_NONE = np.zeros(0, np.int64)


def _distributions(
    names: Sequence[str], calls_of: Callable[[str], tuple[Ints, Ints]]
) -> Iterator[dict[str, Any]]:
    for name in [*dict.fromkeys(names)][:DISTRIBUTIONS]:
        one, other = calls_of(name)
        if len(one) + len(other):
            yield _distribution(name, one, other)


def _distribution(name: str, before: Ints, after: Ints) -> dict[str, Any]:
    both = np.maximum(np.concatenate([before, after]), 1)
    low = int(both.min())
    high = max(int(both.max()), low + 1, round(low * _NARROWEST))
    edges = np.maximum.accumulate(np.geomspace(low, high, BINS + 1))
    edges[0], edges[-1] = low, high
    sides = [np.histogram(np.maximum(side, 1), edges)[0].tolist() for side in (before, after)]
    return {
        "op": units.printable(name),
        "before": sides[0],
        "after": sides[1],
        "from": f"{units.micros(low)} µs",
        "to": f"{units.micros(high)} µs",
        "calls": [units.count(len(side)) for side in (before, after)],
        "median": [_quantile(side, 0.5) for side in (before, after)],
        "high": [_quantile(side, 0.9) for side in (before, after)],
    }


def _quantile(values: Ints, part: float) -> str:
    return f"{units.micros(int(np.quantile(values, part)))} µs" if len(values) else "–"
