"""``traceq queries``: the tables and functions that traceq adds to PerfettoSQL."""

from __future__ import annotations

import click

from traceq import library
from traceq.cli import options
from traceq.cli.output import render, write
from traceq.report import Column, Report, Table, Unit

_COLUMNS = (
    Column("name", "name", Unit.TEXT),
    Column("module", "module", Unit.TEXT, 1),
    Column("kind", "kind", Unit.TEXT, 2),
    Column("doc", "what it holds", Unit.NAME),
)


@click.command(
    "queries",
    epilog="Example: traceq queries --format markdown",
)
@options.output("table", "markdown")
def command(format_: str, output: str | None) -> None:
    """List what traceq adds to PerfettoSQL; with --format markdown, every column of it."""
    if format_ == "markdown":
        write(library.as_markdown(), output)
        return
    rows = tuple(
        {
            "name": query.name,
            "module": query.module,
            "kind": query.kind,
            "doc": query.doc.split(". ")[0],
        }
        for query in library.catalogue()
    )
    report = Report("Tables and functions for traceq sql", tables=(Table("", _COLUMNS, rows),))
    write(render(report, "table", output), output)
