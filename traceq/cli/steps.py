"""``traceq steps``: the steps of the capture."""

from __future__ import annotations

from typing import Any

import click

from traceq.cli import options
from traceq.cli.opening import opened
from traceq.cli.output import records_to_csv, render, to_json, write
from traceq.report import cold_warning, steps_report
from traceq.selection import span_of
from traceq.table import records
from traceq.trace import Trace

SCHEMA_VERSION = 1


@click.command("steps", epilog="Example: traceq steps trace.json.gz")
@click.argument("trace")
@options.output("table", "markdown", "json", "csv")
@options.opening
def command(trace: str, format_: str, output: str | None, **opening: Any) -> None:
    """The steps of TRACE: those that the profiler marked, else a module or label that repeats.

    Their numbers are what --steps of the other commands takes.
    """
    with opened(trace, **opening) as source:
        write(_result(source, format_, output), output)


def _result(trace: Trace, format_: str, path: str | None) -> str:
    steps = trace.steps()
    if format_ == "csv":
        return records_to_csv(records(steps), list(steps.columns))
    origin = span_of(trace.slices)[0]
    doubts = tuple(trace.doubts())
    if format_ == "json":
        return to_json(
            {
                "schema": SCHEMA_VERSION,
                "kind": "steps",
                "path": trace.path,
                "source": steps.attrs["source"],
                "start": origin,
                "warnings": [*doubts, *cold_warning(steps)],
                "rows": records(steps),
            }
        )
    return render(steps_report(steps, origin=origin, doubts=doubts), format_, path)
