"""``traceq report``: a page to look at, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from traceq.cli import options
from traceq.cli.diff import capture_paths, read_capture
from traceq.cli.output import write
from traceq.compare import compare
from traceq.errors import UsageError
from traceq.reading import Question


@click.command(
    "report",
    epilog="Example: traceq report --before 'before-*.json.gz' --after 'after-*.json.gz' "
    "--under GatedDeltaNet -o report.html",
)
@click.argument("before", required=False)
@click.argument("after", required=False)
@click.option("--before", "more_before", multiple=True, metavar="FILE", help="As for 'diff'.")
@click.option("--after", "more_after", multiple=True, metavar="FILE", help="As for 'diff'.")
@options.under
@click.option("--force", is_flag=True, help="Compare captures of other work or another model too.")
@options.within
@click.option("-o", "--output", metavar="FILE", required=True, help="The page, one HTML file.")
@options.opening
def command(
    before: str | None,
    after: str | None,
    more_before: tuple[str, ...],
    more_after: tuple[str, ...],
    under: tuple[str, ...],
    force: bool,
    within: dict[str, Any],
    output: str,
    **opening: Any,
) -> None:
    """Write a page: the verdict, the call tree of both sides, all tables, each op's calls.

    One file that opens from disk without a network. Captures are named as for 'diff'; a TRACE alone
    has a page without a comparison.
    """
    from traceq.render.page import to_page
    from traceq.report.page import capture_page, diff_page

    question = Question(under=under, **within)
    if after is None and not more_after:
        if before is None or more_before:
            raise UsageError("no capture is named for after", hint="Give BEFORE AFTER, or a TRACE.")
        data = capture_page(read_capture(before, question, opening))
    else:
        paths = capture_paths(before, after, more_before, more_after)
        old, new = ([read_capture(path, question, opening) for path in side] for side in paths)
        data = diff_page(compare(old, new, question, force=force), old, new)
    write(to_page(f"traceq: {Path(output).stem}", data), output)
