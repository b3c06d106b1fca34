"""``traceq record``: captures into a history."""

from __future__ import annotations

from typing import Any

import click

from traceq.cli import comparison, options
from traceq.cli.opening import expand, history_in
from traceq.history.labels import parse_labels
from traceq.history.recording import labels_of
from traceq.history.store import Recorded
from traceq.many import Workers
from traceq.reading import Question
from traceq.units import plural, printable


@click.command(
    "record",
    epilog="Example: traceq record 'after-*.json.gz' --under GatedDeltaNet --label branch=main",
)
@click.argument("traces", metavar="TRACE...", nargs=-1, required=True)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    help="What the run is called by: commit=1a2b3c, branch=main, pr=123. May be given several "
    "times. Commit, branch, GPU and torch are filled in where the captures tell.",
)
@options.under
@options.within
@click.option("--force", is_flag=True, help="Record captures of other work or another model too.")
@options.db
@options.workers
@options.opening
def command(
    traces: tuple[str, ...],
    labels: tuple[str, ...],
    under: tuple[str, ...],
    within: dict[str, Any],
    force: bool,
    db: str,
    workers: Workers,
    **opening: Any,
) -> None:
    """Put the captures TRACE... into a history as one run: all of them, or after a kill none.

    Every call and kernel of the scopes is kept, in some two bytes each, so that 'diff --db' finds
    what it finds in the traces. Captures of one run are of the same code and work: what 'diff'
    would refuse as one side is refused, and what it would tell is told. Those of a run that is in
    it already, in whatever file, stay as they are.
    """
    given = parse_labels(labels)
    question = Question(under=under, **within)
    paths = expand(traces)
    captures, left = comparison.read_captures(paths, question, opening, workers)
    history = history_in(db)
    recorded = history.record(captures, question, given, labels_of(captures), force=force)
    shown = printable(", ".join(f"{key}={value}" for key, value in recorded.labels.items()))
    for warning in recorded.warnings:
        click.echo(printable(f"traceq: {warning}"), err=True)
    for capture in captures:
        for doubt in capture.doubts:
            click.echo(printable(f"traceq: {capture.path}: {doubt}"), err=True)
    click.echo(recorded.run)
    click.echo(
        f"traceq: run {recorded.run} in {db}: {_became(recorded)}; {shown or 'no labels'}",
        err=True,
    )
    comparison.leave((), None, left)


def _became(recorded: Recorded) -> str:
    if recorded.known:
        return f"{plural(recorded.known, 'capture')} recorded already, none new"
    return f"{plural(recorded.new, 'capture')} recorded"
