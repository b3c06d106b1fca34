"""``traceq runs``: what is in a history."""

from __future__ import annotations

from typing import Any

import click

from traceq.cli import options
from traceq.cli.opening import history_in
from traceq.cli.output import render, to_json, write
from traceq.history.refs import runs_named
from traceq.history.run import Run, clock_of
from traceq.history.series import iso
from traceq.report.history import runs_report

SCHEMA_VERSION = 2


@click.command("runs", epilog="Example: traceq runs branch=main")
@click.argument("ref", required=False)
@options.db
@options.output("table", "markdown", "json")
def command(ref: str | None, db: str, format_: str, output: str | None) -> None:
    """The runs of a history, the oldest first; with REF (a label, KEY=VALUE, an id) only some."""
    runs = history_in(db).runs()
    if ref is not None:
        runs = runs_named(ref, runs)
    if format_ == "json":
        head = {"schema": SCHEMA_VERSION, "kind": "runs", "path": db, "order": clock_of(runs)}
        return write(to_json(head | {"rows": [*map(_plain, runs)]}), output)
    return write(render(runs_report(runs, db), format_, output), output)


def _plain(run: Run) -> dict[str, Any]:
    return {
        "run": run.run,
        "captured": iso(run.captured),
        "recorded": iso(run.recorded),
        "labels": dict(run.labels),
        "captures": run.captures,
        "unders": [list(under) for under in run.unders],
        "paths": list(run.paths),
    }
