"""``traceq ops``: calls, CPU time and GPU time per op."""

from __future__ import annotations

from typing import Any

import click

from traceq.cli import options
from traceq.cli.opening import opened
from traceq.cli.output import records_to_csv, render, to_json, write
from traceq.cli.part import read_limits, read_part
from traceq.errors import UsageError
from traceq.report import SORT_KEYS, cut, ops_report, sorted_ops
from traceq.table import records
from traceq.trace import Trace

SCHEMA_VERSION = 1


@click.command(
    "ops",
    epilog="Example: traceq ops trace.json.gz --under GatedDeltaNet --match flatten --sort calls",
)
@click.argument("traces", metavar="TRACE...", nargs=-1, required=True)
@options.by_rank
@options.under
@options.match
@click.option(
    "--sort",
    type=click.Choice(SORT_KEYS),
    default="total",
    show_default=True,
    metavar="COLUMN",
    help=f"Sort by {', '.join(SORT_KEYS)}; largest first, op by name.",
)
@options.within
@options.limit
@options.output("table", "markdown", "json", "csv")
@options.opening
def command(
    traces: tuple[str, ...],
    by: str | None,
    under: tuple[str, ...],
    match: tuple[str, ...],
    sort: str,
    within: dict[str, Any],
    limit: int | None,
    format_: str,
    output: str | None,
    **opening: Any,
) -> None:
    """Calls, CPU and GPU time of each op of TRACE, or of those under a scope.

    Names that differ in addresses, line numbers or instance numbers alone are one op. With --by
    rank, TRACE... are the ranks of one run (files, or a glob in quotes): what each did, who was
    waited for in collectives, and what differs most between them.
    """
    rows = options.rows_to_show(limit, format_)
    if by is not None:
        return write(_of_ranks(traces, under, within, rows, format_, output, opening), output)
    if len(traces) > 1:
        raise UsageError("several traces are ranks of one run", hint="Add --by rank.")
    with opened(traces[0], needed=options.limits(under, within), **opening) as source:
        return write(_result(source, under, match, sort, within, rows, format_, output), output)


def _of_ranks(
    traces: tuple[str, ...],
    under: tuple[str, ...],
    within: dict[str, Any],
    limit: int | None,
    format_: str,
    path: str | None,
    opening: dict[str, Any],
) -> str:
    # Not above: all that compares takes as long to import as one trace to show.
    from traceq.cli import comparison
    from traceq.reading import Question
    from traceq.report.ranks import ranks_report

    question = Question(under=under, **within)
    ranks = comparison.read_ranks(traces, question, opening)
    if format_ == "csv":
        return records_to_csv(records(ranks.ops), list(ranks.ops.columns))
    if format_ == "json":
        return to_json(
            {
                "schema": SCHEMA_VERSION,
                "kind": "ranks",
                "under": list(question.under),
                "within": question.limits,
                "straggler": ranks.straggler,
                "unmatched": ranks.unmatched,
                "ranks": records(ranks.table),
                "rows": records(ranks.ops),
            }
        )
    return render(ranks_report(ranks, question.under, limit=limit), format_, path)


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
