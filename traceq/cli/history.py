"""``traceq history``: a figure over the runs of a history."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import click

from traceq.cli import options
from traceq.cli.opening import history_in
from traceq.cli.output import records_to_csv, render, to_json, write
from traceq.history.refs import runs_named
from traceq.history.series import Measure, Point, Series, follow
from traceq.plotting import as_svg
from traceq.reading import Question
from traceq.report.history import history_report, series_warnings
from traceq.units import printable

SCHEMA_VERSION = 2


@click.command("history", epilog="Example: traceq history aten::flatten --under GatedDeltaNet")
@click.argument("op", required=False)
@options.under
@click.option(
    "--measure",
    type=click.Choice(["total", "average", "gpu", "calls"]),
    default="total",
    show_default=True,
    help="CPU time, time per call, GPU time, or calls; of a kernel all times are the GPU's.",
)
@click.option("--of", metavar="REF", help="Only runs of this branch, commit or other label.")
@options.within
@options.limit
@options.db
@options.output("table", "markdown", "json", "csv", "svg")
def command(
    op: str | None,
    under: tuple[str, ...],
    measure: Measure,
    of: str | None,
    within: dict[str, Any],
    limit: int | None,
    db: str,
    format_: str,
    output: str | None,
) -> None:
    """How long OP (an op or a kernel; else the scopes) took in each run, and where it changed.

    --under, --steps and --window are those that the runs were recorded with.
    """
    history = history_in(db)
    runs = history.runs()
    if of is not None:
        runs = runs_named(of, runs)
    series = follow(history, runs, Question(under=under, **within), op, measure)
    write(_format(series, limit, format_, output), output)


_CSV = (
    *("run", "captured", "recorded", "commit", "branch", "captures"),
    *("calls", "value", "low", "high", "unit"),
)


def _flat(point: Point, unit: str) -> dict[str, Any]:
    """A point with its labels that name a run; other labels are in the JSON."""
    named = {key: point.labels.get(key, "") for key in ("commit", "branch")}
    return point.to_dict() | named | {"unit": unit}


def _format(series: Series, limit: int | None, format_: str, path: str | None) -> str:
    data = series.to_dict()
    if format_ == "json":
        told = {"warnings": [*series_warnings(series)]}
        return to_json({"schema": SCHEMA_VERSION, "kind": "history"} | data | told)
    if format_ in ("csv", "svg"):  # which have no place for them
        for warning in series_warnings(series):
            click.echo(printable(f"traceq: {warning}"), err=True)
    if format_ == "svg":
        return as_svg(series.plot())
    if format_ == "csv":
        return records_to_csv([*map(_flat, series.points, repeat(series.unit))], _CSV)
    return render(history_report(series, limit=options.rows_to_show(limit, format_)), format_, path)
