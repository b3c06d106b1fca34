"""``traceq scopes``: modules and labels."""

from __future__ import annotations

from typing import Any, cast

import click

from traceq.cli import options
from traceq.cli.opening import opened
from traceq.cli.output import records_to_csv, render, to_json, write
from traceq.cli.part import read_limits, read_part
from traceq.report import cut, scopes_report, sorted_scopes
from traceq.scopes import GROUPINGS, By
from traceq.trace import Trace

SCHEMA_VERSION = 1


@click.command(
    "scopes",
    epilog="Example: traceq scopes trace.json.gz --under DecoderLayer --by layer",
)
@click.argument("trace")
@options.under
@click.option(
    "--by",
    type=click.Choice(GROUPINGS),
    default="class",
    show_default=True,
    help="One row a class of modules, an instance, or a layer of the model.",
)
@options.within
@options.limit
@options.output("table", "markdown", "json", "csv")
@options.opening
def command(
    trace: str,
    under: tuple[str, ...],
    by: str,
    within: dict[str, Any],
    limit: int | None,
    format_: str,
    output: str | None,
    **opening: Any,
) -> None:
    """Calls, CPU and GPU time of the modules and labels of TRACE, or of those under a scope.

    Classes come heaviest first, instances and layers in the order of their first call.
    """
    with opened(trace, needed=options.limits(under, within), **opening) as source:
        rows = options.rows_to_show(limit, format_)
        write(_result(source, under, cast(By, by), within, rows, format_, output), output)


def _result(
    trace: Trace,
    under: tuple[str, ...],
    by: By,
    within: dict[str, Any],
    limit: int | None,
    format_: str,
    path: str | None,
) -> str:
    limits = read_limits(trace, within)
    scopes = trace.scopes(under, by, windows=limits.windows)
    part = read_part(trace, under, limits)
    shown = cut(sorted_scopes(scopes, by, part.has_gpu), "scope", limit).plain
    if format_ == "csv":
        return records_to_csv(shown, list(scopes.columns))
    if format_ == "json":
        head = {"schema": SCHEMA_VERSION, "kind": "scopes", **part.as_dict()}
        return to_json(head | {"by": by, "rows_total": len(scopes), "rows": shown})
    return render(scopes_report(scopes, part, by=by, limit=limit), format_, path)
