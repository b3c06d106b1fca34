"""What a page of a comparison holds: the verdict, the call tree, all tables, how to reproduce it.

Plain data for ``render.page``, which shows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isnan
from typing import Any

import numpy as np

from traceq import units
from traceq.compare import Diff, records
from traceq.flame import Flame, grow_flame
from traceq.model import Ints
from traceq.reading import Reading
from traceq.report import diff as full
from traceq.report.model import Column, Table, Unit
from traceq.report.pull_request import pull_request_report
from traceq.report.verdicts import quotable

DISTRIBUTIONS = 30
"""So many ops are shown call by call: those that changed, then those with most time."""

BINS = 24


def diff_page(diff: Diff, before: Sequence[Reading], after: Sequence[Reading]) -> dict[str, Any]:
    """The page of a comparison of captures that were read."""
    summary = pull_request_report(diff, show_all=True)
    tables = [*summary.tables, *full.tables(diff, show_all=True, show_kernels=True, limit=None)]
    untitled = [table for item in summary.details for table in item.tables if not table.title]
    names = [*diff.changes["op"], *diff.ops.sort_values("total_before", ascending=False)["op"]]
    return {
        "single": False,
        "headline": " ".join(quotable(diff)),
        "warnings": list(diff.warnings),
        "facts": [*map(list, summary.facts), *map(list, full.facts(diff))],
        "flame": _flame(grow_flame(before, after)),
        "drifts": {name: _is_drift(diff, name) for name in ("cpu", "gpu")},
        "verdicts": dict(_verdicts(diff)),
        "tables": [*map(_table, (*tables, *_titled(untitled)))],
        "distributions": [*_distributions(names, before, after)],
        "blocks": [text for item in summary.details for _, text in item.blocks],
        "remarks": [text for item in summary.details for text in item.remarks],
    }


def capture_page(capture: Reading) -> dict[str, Any]:
    """The page of one capture that was read."""
    totals = capture.totals
    scopes = "" if totals.is_whole else f"{units.plural(totals.scopes, 'scope')}, "
    times = f"CPU {units.micros(totals.total)} µs, GPU {units.micros(totals.gpu_here.total)} µs"
    ops = capture.ops.sort_values("total", ascending=False)
    kernels = capture.kernels.sort_values("total", ascending=False)
    tables = [
        Table("Ops", _OP_COLUMNS, tuple(records(ops))),
        Table("Kernels, copies and sets", _KERNEL_COLUMNS, tuple(records(kernels))),
    ]
    return {
        "single": True,
        "headline": f"{units.printable(capture.path)}: {scopes}{times}.",
        "warnings": capture.trace.doubts(),
        "facts": [],
        "flame": _flame(grow_flame([capture])),
        "drifts": {},
        "verdicts": {},
        "tables": [*map(_table, tables)],
        "distributions": [*_distributions(ops["op"].tolist(), [capture], [])],
        "blocks": [f"{capture.sha256}  {units.printable(capture.path)}"] if capture.sha256 else [],
        "remarks": [],
    }


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


def _titled(tables: Sequence[Table]) -> Iterator[Table]:
    """The tables of the captures, which in details need no title."""
    for table in tables:
        keys = [column.key for column in table.columns]
        title = "Events of the files" if "loaded" in keys else "Captures"
        yield replace(table, title=title)


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
    value = row[key]
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


def _is_drift(diff: Diff, name: str) -> bool:
    """Whether the change of all scopes' time is no change that can be told."""
    finding = diff.evidence.of("scopes", name)
    return finding is None or not finding.verdict.is_change


def _verdicts(diff: Diff) -> Iterator[tuple[str, str]]:
    for table, key in ((diff.ops, "op"), (diff.kernels, "kernel")):
        for name, verdict in zip(table[key].tolist(), table["verdict"].tolist(), strict=True):
            if isinstance(verdict, str):
                yield units.printable(name), verdict


# Calls one by one -------------------------------------------------------------------------


def _distributions(
    names: Sequence[str], before: Sequence[Reading], after: Sequence[Reading]
) -> Iterator[dict[str, Any]]:
    words = before[0].words.ops.ops
    number = {name: place for place, name in enumerate(words)}
    for name in [*dict.fromkeys(names)][:DISTRIBUTIONS]:
        if name in number:
            one, other = (_durations(side, number[name]) for side in (before, after))
            if len(one) + len(other):
                yield _distribution(name, one, other)


def _durations(captures: Sequence[Reading], op: int) -> Ints:
    parts = [item.outline.dur[item.outline.op == op] for item in captures]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _distribution(name: str, before: Ints, after: Ints) -> dict[str, Any]:
    both = np.maximum(np.concatenate([before, after]), 1)
    low, high = int(both.min()), max(int(both.max()), int(both.min()) + 1)
    edges = np.geomspace(low, high, BINS + 1)
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
