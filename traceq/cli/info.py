"""``traceq info``: what a trace holds."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from traceq.cli import options
from traceq.cli.opening import opened
from traceq.cli.output import records_to_csv, render, to_json, write
from traceq.report import info_report
from traceq.table import records
from traceq.trace import Trace

SCHEMA_VERSION = 1


@click.command(
    "info",
    epilog="Example: traceq info trace.json.gz",
)
@click.argument("trace")
@options.output("table", "markdown", "json", "csv")
@options.opening
def command(trace: str, format_: str, output: str | None, **opening: Any) -> None:
    """What TRACE holds: machine, GPUs, versions, ranks, time span, modules, events by category.

    The ledger counts every event of the file: read = loaded + not carried + unreadable.
    """
    with opened(trace, **opening) as source:
        write(_result(source, format_, output), output)


def _result(trace: Trace, format_: str, path: str | None) -> str:
    modules = trace.modules()
    if format_ == "csv":
        rows = trace.ledger.as_dict()["events"]
        return records_to_csv(rows, list(rows[0]))
    if format_ == "json":
        return to_json(
            {
                "schema": SCHEMA_VERSION,
                "kind": "info",
                **dataclasses.asdict(trace.info),
                "ledger": trace.ledger.as_dict(),
                "modules": records(modules),
            }
        )
    return render(info_report(trace.info, trace.ledger, modules), format_, path)
