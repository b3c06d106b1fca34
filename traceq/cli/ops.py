"""``traceq ops``: calls and durations per op."""

from __future__ import annotations

from typing import Any

import click

from traceq.cli import options
from traceq.cli.opening import opened
from traceq.cli.output import records_to_csv, render, to_json, write
from traceq.compare import records, scope_totals
from traceq.report import SORT_KEYS, ops_report, sorted_ops
from traceq.trace import Trace

SCHEMA_VERSION = 1


@click.command(
    "ops",
    epilog="Example: traceq ops trace.json.gz --under GatedDeltaNet --match flatten --sort calls",
)
@click.argument("trace")
@options.under
@options.match
@click.option(
    "--sort",
    type=click.Choice(SORT_KEYS),
    default="total",
    show_default=True,
    help="Column to sort by, largest first (op: by name).",
)
@options.limit
@options.output("table", "markdown", "json", "csv")
@options.opening
def command(
    trace: str,
    under: tuple[str, ...],
    match: tuple[str, ...],
    sort: str,
    limit: int | None,
    format_: str,
    output: str | None,
    **opening: Any,
) -> None:
    """Calls and durations of each op of TRACE, or of those under a scope.

    Names that differ in addresses, line numbers or instance numbers alone are one op.
    """
    with opened(trace, **opening) as source:
        write(_result(source, under, match, sort, limit, format_, output), output)


def _result(
    trace: Trace,
    under: tuple[str, ...],
    match: tuple[str, ...],
    sort: str,
    limit: int | None,
    format_: str,
    path: str | None,
) -> str:
    ops = trace.ops(under=under, match=match or None)
    rows = options.rows_to_show(limit, format_)
    shown = sorted_ops(ops, sort).head(len(ops) if rows is None else rows)
    if format_ == "csv":
        return records_to_csv(records(shown), list(ops.columns))
    scopes = scope_totals(trace, under, ops) if under else None
    if format_ == "json":
        return to_json(
            {
                "schema": SCHEMA_VERSION,
                "kind": "ops",
                "path": trace.path,
                "under": list(under),
                "match": list(match),
                "scopes": None if scopes is None else scopes.scopes,
                "scopes_total": None if scopes is None else scopes.total,
                "warnings": trace.doubts(),
                "rows_total": len(ops),
                "rows": records(shown),
            }
        )
    report = ops_report(
        ops, under=under, scopes=scopes, sort=sort, limit=rows, doubts=trace.doubts()
    )
    return render(report, format_, path)
