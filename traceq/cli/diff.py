"""``traceq diff``: two sides of captures, and what changed between them."""

from __future__ import annotations

from typing import Any

import click

from traceq.cli import comparison, options
from traceq.cli.comparison import Captures, Inconclusive
from traceq.cli.output import records_to_csv, render, to_json, write
from traceq.compare import Diff, compare
from traceq.errors import UsageError
from traceq.gathering import LeftOut
from traceq.many import Workers
from traceq.ranks import Ranks, pair_ranks
from traceq.reading import Question
from traceq.report import diff_report, pull_request_report
from traceq.report.ranks import ranks_diff_report
from traceq.table import records


@click.command(
    "diff",
    epilog="Example: traceq diff --before 'before-*.json.gz' --after 'after-*.json.gz' "
    "--under GatedDeltaNet",
)
@comparison.captures
@comparison.db
@options.by_rank
@options.under
@comparison.choices
@comparison.inconclusive
@click.option("--all", "show_all", is_flag=True, help="Show the ops with the same calls as well.")
@options.within
@options.limit
@options.output("table", "markdown", "json", "csv", "svg")
@options.workers
@options.opening
def command(
    captures: Captures,
    db: str | None,
    by: str | None,
    under: tuple[str, ...],
    choices: dict[str, Any],
    inconclusive: Inconclusive,
    show_all: bool,
    within: dict[str, Any],
    limit: int | None,
    format_: str,
    output: str | None,
    workers: Workers,
    **opening: Any,
) -> None:
    """Compare two sides: what replaced what, calls and times of ops and kernels.

    Name one capture a side (BEFORE AFTER), or several with --before and --after: from three a side
    on, captures are the samples, and what is said of times rests on them. What replaced what is
    found by the structure of the code below --under. Rows with other calls come first, then those
    that are faster or slower by more than noise. JSON holds all ops and kernels; CSV the ops shown
    in the table, or all with --all; Markdown is a comment for a pull request, SVG a picture of its
    first table.

    Exit code: 0; 1 if a --fail-if condition holds; 3 if one cannot be told; 2 for an error.
    """
    question = Question(under=under, **within)
    if by is not None:
        if db is not None:
            raise UsageError("ranks are read from traces", hint="Leave --db away, or --by.")
        text, left = _of_ranks(captures, question, format_, output, opening, workers)
        write(text, output)
        return comparison.leave((), inconclusive, left)
    old, new, left = comparison.read_sides(captures, question, opening, workers, db)
    result = compare(old, new, question, **choices).lacking(left)
    write(_format(result, show_all, limit, format_, output), output)
    return comparison.leave(result.outcomes, inconclusive, left)


def _of_ranks(
    captures: Captures,
    question: Question,
    format_: str,
    path: str | None,
    opening: dict[str, Any],
    workers: Workers,
) -> tuple[str, list[LeftOut]]:
    (before, lost), (after, lost_after) = (
        comparison.read_ranks(side, question, opening, workers) for side in captures.names()
    )
    text = _ranks_text(before, after, question, format_, path)
    return text, [*lost, *lost_after]


def _ranks_text(
    before: Ranks, after: Ranks, question: Question, format_: str, path: str | None
) -> str:
    pairs = pair_ranks(before, after)
    if format_ == "csv":
        return records_to_csv(records(pairs), list(pairs.columns))
    if format_ == "json":
        head = {"schema": 1, "kind": "ranks-diff", "under": list(question.under)}
        sides = {
            "straggler": [before.straggler, after.straggler],
            "warnings": [*before.doubts, *after.doubts],
        }
        return to_json(head | sides | {"within": question.limits, "rows": records(pairs)})
    if format_ == "svg":
        raise UsageError("there is no picture of ranks", hint="Choose another --format.")
    return render(ranks_diff_report(pairs, before, after, question.under), format_, path)


def _format(result: Diff, show_all: bool, limit: int | None, format_: str, path: str | None) -> str:
    if format_ == "json":
        return to_json(result.to_dict())
    if format_ == "csv":
        table = result.table if show_all else result.changes
        return records_to_csv(records(table), list(table.columns))
    if format_ == "markdown":
        return result.to_markdown(show_all=show_all)
    if format_ == "svg":
        from traceq.render.svg import to_svg

        return to_svg(pull_request_report(result))
    rows = options.rows_to_show(limit, format_)
    return render(diff_report(result, show_all=show_all, limit=rows), format_, path)
