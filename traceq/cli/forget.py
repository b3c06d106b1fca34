"""``traceq forget``: takes runs out of a history."""

from __future__ import annotations

import click

from traceq.cli import options
from traceq.cli.opening import history_in
from traceq.history.refs import runs_meant, runs_named
from traceq.units import plural


@click.command("forget", epilog="Example: traceq forget pr=123 --all")
@click.argument("ref")
@click.option("--all", "every", is_flag=True, help="Runs of several commits as well.")
@options.db
def command(ref: str, every: bool, db: str) -> None:
    """Take the runs that REF means out of a history; REF is that of 'diff --db'."""
    history = history_in(db)
    runs = (runs_named if every else runs_meant)(ref, history.runs())
    captures = history.forget(runs)
    click.echo(
        f"traceq: {plural(len(runs), 'run')} with {plural(captures, 'capture')} taken out of {db}",
        err=True,
    )
