"""``traceq ops``: calls, CPU time and GPU time per op."""

from __future__ import annotations

from typing import Any

import click

from traceq.cli import options
from traceq.cli.opening import expand, opened
from traceq.cli.output import records_to_csv, render, to_json, write
from traceq.cli.part import read_limits, read_part
from traceq.many import Workers
from traceq.report import SORT_KEYS, cut, ops_report, sorted_ops
from traceq.trace import Trace

SCHEMA_VERSION = 1


@click.command(
    "ops",
    epilog="Example: traceq ops trace.json.gz --under GatedDeltaNet --match flatten --sort calls",
)
@click.argument("traces", metavar="TRACE...", nargs=-1, required=True)
@click.option(
    "--by",
    type=click.Choice(["rank", "trace"]),
    help="rank: the captures are ranks of one run; show each, and who was waited for in "
    "collectives. trace: a row for each op of each trace (JSON, CSV).",
)
@options.under
@options.match
@click.option(
    "--sort",
    type=click.Choice(SORT_KEYS),
    show_default=SORT_KEYS[0],
    metavar="COLUMN",
    help=f"Sort by {', '.join(SORT_KEYS)}; largest first, op by name.",
)
@options.within
@options.limit
@options.output("table", "markdown", "json", "csv")
@options.workers
@options.opening
def command(
    traces: tuple[str, ...],
    by: str | None,
    under: tuple[str, ...],
    match: tuple[str, ...],
    sort: str | None,
    within: dict[str, Any],
    limit: int | None,
    format_: str,
    output: str | None,
    workers: Workers,
    **opening: Any,
) -> None:
    """Calls, CPU and GPU time of each op of TRACE, or of those under a scope.

    Names that differ in addresses, line numbers or instance numbers alone are one op. Several
    traces (files, or a glob in quotes) are added up; what cannot be read is told and left out, with
    exit code 2. With --by rank they are the ranks of one run: what each did, who was waited for in
    collectives, and what differs most between them.
    """
    rows = options.rows_to_show(limit, format_)
    paths = expand(traces)
    if by is not None or len(paths) > 1:
        # Not above: all that compares takes as long to import as one trace to show.
        from traceq.cli.many_ops import Shown, show_ops

        shown = Shown(by, under, match, sort, within, rows, format_, output)
        return show_ops(paths, shown, opening, workers)
    with opened(paths[0], needed=options.limits(under, within), **opening) as source:
        return write(
            _result(source, under, match, sort or SORT_KEYS[0], within, rows, format_, output),
            output,
        )


def _result(
    trace: Trace,
    under: tuple[str, ...],
    match: tuple[str, ...],
    sort: str,
    within: dict[str, Any],
    limit: int | None,
    format_: str,
    path: str | None,
) -> str:
    limits = read_limits(trace, within)
    ops = trace.ops(under=under, match=match or None, windows=limits.windows)
    if format_ == "csv":
        return records_to_csv(cut(sorted_ops(ops, sort), "op", limit).plain, list(ops.columns))
    part = read_part(trace, under, limits)
    if format_ == "json":
        return to_json(
            {
                "schema": SCHEMA_VERSION,
                "kind": "ops",
                **part.as_dict(),
                "match": list(match),
                "rows_total": len(ops),
                "rows": cut(sorted_ops(ops, sort), "op", limit).plain,
            }
        )
    report = ops_report(ops, part, sort=sort, limit=limit, matched=bool(match))
    return render(report, format_, path)
