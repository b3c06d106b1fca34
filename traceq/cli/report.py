"""``traceq report``: a page to look at, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from traceq.cli import comparison, options
from traceq.cli.comparison import Captures, Inconclusive
from traceq.cli.output import write
from traceq.compare import compare
from traceq.errors import UsageError
from traceq.gate import Outcome
from traceq.gathering import LeftOut
from traceq.many import Workers
from traceq.reading import Question
from traceq.units import printable

_FLAGS = {"match": "--match", "maps": "--map", "fail_if": "--fail-if"}


@click.command(
    "report",
    epilog="Example: traceq report --before 'before-*.json.gz' --after 'after-*.json.gz' "
    "--under GatedDeltaNet -o report.html",
)
@comparison.captures
@comparison.db
@options.under
@comparison.choices
@comparison.inconclusive
@options.within
@click.option("-o", "--output", metavar="FILE", required=True, help="The page, one HTML file.")
@options.workers
@options.opening
def command(
    captures: Captures,
    db: str | None,
    under: tuple[str, ...],
    choices: dict[str, Any],
    inconclusive: Inconclusive,
    within: dict[str, Any],
    output: str,
    workers: Workers,
    **opening: Any,
) -> None:
    """Write a page: the verdict, the call tree of both sides, all tables, each op's calls.

    One file that opens from disk without a network. Captures, options and exit codes are those of
    'diff'; a TRACE alone has a page without a comparison.
    """
    from traceq.render.page import to_page
    from traceq.report.page import capture_page, diff_page

    question = Question(under=under, **within)
    outcomes: tuple[Outcome, ...] = ()
    left: list[LeftOut] = []
    if captures.alone is not None and db is None:
        if unused := [name for name in _FLAGS if choices[name]]:
            raise UsageError(
                f"{captures.alone} alone has nothing that {_FLAGS[unused[0]]} could compare",
                hint="Give BEFORE AFTER.",
            )
        capture = comparison.read_capture(captures.alone, question, opening)
        data = capture_page(capture, question)
    else:
        old, new, left = comparison.read_sides(captures, question, opening, workers, db)
        result = compare(old, new, question, **choices).lacking(left)
        data, outcomes = diff_page(result), result.outcomes
    write(to_page(f"traceq: {printable(Path(output).stem)}", data), output)
    comparison.leave(outcomes, inconclusive, left)
