"""``traceq diff``: the ops of two traces, side by side."""

from __future__ import annotations

from typing import Any

import click

from traceq.cli import options
from traceq.cli.opening import opened
from traceq.cli.output import records_to_csv, render, to_json, write
from traceq.compare import Diff, diff, parse_map, records
from traceq.errors import UsageError
from traceq.report import diff_report


@click.command(
    "diff",
    epilog="Example: traceq diff before.json.gz after.json.gz --under GatedDeltaNet "
    "--map 'rearrange=>flatten'",
)
@click.argument("before")
@click.argument("after")
@options.under
@options.match
@click.option(
    "--map",
    "maps",
    multiple=True,
    metavar="OLD=>NEW",
    help="Put an op of BEFORE and what replaced it in AFTER on one line (patterns as for --under).",
)
@click.option("--all", "show_all", is_flag=True, help="Show the ops with the same calls as well.")
@options.within
@options.limit
@options.output("table", "markdown", "json", "csv")
@options.opening
def command(
    before: str,
    after: str,
    under: tuple[str, ...],
    match: tuple[str, ...],
    maps: tuple[str, ...],
    show_all: bool,
    within: dict[str, Any],
    limit: int | None,
    format_: str,
    output: str | None,
    **opening: Any,
) -> None:
    """Compare the ops of two traces, and their kernels: calls and times, before and after.

    Replaced pairs come first, then ops with other calls, those whose time shifted much, added ones
    and removed ones. JSON holds all ops and kernels; CSV the ops shown in the table, or all with
    --all.
    """
    for text in maps:
        parse_map(text)  # before two traces are opened for nothing
    if before == after == "-":
        raise UsageError("standard input holds one trace, not two", hint="Name one of the files.")
    with opened(before, **opening) as old, opened(after, **opening) as new:
        result = diff(old, new, under=under, match=match or None, maps=maps, **within)
    write(_format(result, show_all, limit, format_, output), output)


def _format(result: Diff, show_all: bool, limit: int | None, format_: str, path: str | None) -> str:
    if format_ == "json":
        return to_json(result.to_dict())
    if format_ == "csv":
        table = result.table if show_all else result.changes
        return records_to_csv(records(table), list(table.columns))
    rows = options.rows_to_show(limit, format_)
    return render(diff_report(result, show_all=show_all, limit=rows), format_, path)
