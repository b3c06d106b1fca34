"""``traceq diff``: two sides of captures, and what changed between them."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click

from traceq.cli import options
from traceq.cli.opening import opened
from traceq.cli.output import records_to_csv, render, to_json, write
from traceq.compare import Diff, compare, records
from traceq.errors import TraceReadError, UsageError
from traceq.evidence import BOUND, LEVEL
from traceq.gate import Outcome, exit_code, parse_condition
from traceq.maps import parse_map
from traceq.reading import Question, Reading, read
from traceq.report import diff_report, pull_request_report


@click.command(
    "diff",
    epilog="Example: traceq diff --before 'before-*.json.gz' --after 'after-*.json.gz' "
    "--under GatedDeltaNet",
)
@click.argument("before", required=False)
@click.argument("after", required=False)
@click.option(
    "--before",
    "more_before",
    multiple=True,
    metavar="FILE",
    help="A capture before, or a glob in quotes, for several; may be given several times.",
)
@click.option(
    "--after", "more_after", multiple=True, metavar="FILE", help="The same for captures after."
)
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
@click.option(
    "--level",
    type=click.FloatRange(0.001, 0.5),
    default=LEVEL,
    show_default=True,
    metavar="SHARE",
    help="Share of comparisons of unchanged code in which any row may be declared changed.",
)
@click.option(
    "--bound",
    type=click.FloatRange(0, 1, max_open=True),
    default=BOUND,
    show_default=True,
    metavar="PART",
    help="A time is the same where its change is shown to be within this part of it.",
)
@click.option(
    "--fail-if",
    "conditions",
    multiple=True,
    metavar="CONDITION",
    help="End with exit code 1 if this is shown to hold: 'cpu > 2%', 'gpu > 1%', 'rearrange.calls "
    "> 0', 'aten::mm.cpu > 50us'. May be given several times.",
)
@click.option(
    "--inconclusive",
    type=click.Choice(["pass", "fail"]),
    help="What a condition that cannot be told counts as; by default exit code 3.",
)
@click.option("--force", is_flag=True, help="Compare captures of other work or another model too.")
@options.within
@options.limit
@options.output("table", "markdown", "json", "csv", "svg")
@options.opening
def command(
    before: str | None,
    after: str | None,
    more_before: tuple[str, ...],
    more_after: tuple[str, ...],
    under: tuple[str, ...],
    match: tuple[str, ...],
    maps: tuple[str, ...],
    show_all: bool,
    level: float,
    bound: float,
    conditions: tuple[str, ...],
    inconclusive: Literal["pass", "fail"] | None,
    force: bool,
    within: dict[str, Any],
    limit: int | None,
    format_: str,
    output: str | None,
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
    for text in maps:
        parse_map(text)  # before any trace is opened for nothing
    for text in conditions:
        parse_condition(text)
    paths = capture_paths(before, after, more_before, more_after)
    question = Question(under=under, **within)
    old, new = ([read_capture(path, question, opening) for path in side] for side in paths)
    result = compare(
        old,
        new,
        question,
        match=match or None,
        maps=maps,
        fail_if=conditions,
        level=level,
        bound=bound,
        force=force,
    )
    write(_format(result, show_all, limit, format_, output), output)
    _leave(result.outcomes, inconclusive)


def _leave(outcomes: Sequence[Outcome], inconclusive: Literal["pass", "fail"] | None) -> None:
    """Say on stderr which conditions did not pass, and leave with the exit code for it."""
    for outcome in outcomes:
        if outcome.state != "pass" or outcome.is_about_nothing:
            click.echo(f"traceq: {outcome.reason}", err=True)
    if code := exit_code(outcomes, inconclusive):
        raise click.exceptions.Exit(code)


def read_capture(path: str, question: Question, opening: dict[str, Any]) -> Reading:
    """Read a capture; its engine goes before the next comes, so that many fit."""
    with opened(path, **opening) as trace:
        return read(trace, question)


def capture_paths(
    before: str | None, after: str | None, more_before: Sequence[str], more_after: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The files of both sides. Raises UsageError, TraceReadError."""
    if before is not None and (more_before or more_after):
        raise UsageError(
            "captures are named both as arguments and with options",
            hint="Give BEFORE AFTER, or --before and --after.",
        )
    sides = ([before] if before else more_before, [after] if after else more_after)
    if not all(sides):
        missing = "before" if not sides[0] else "after"
        raise UsageError(f"no capture is named for {missing}", hint="Give BEFORE AFTER.")
    if before is not None and after is not None:
        one, other = [before], [after]
    else:
        one, other = ([path for text in side for path in _expand(text)] for side in sides)
    if [*one, *other].count("-") > 1:
        raise UsageError("standard input holds one trace, not two", hint="Name one of the files.")
    return one, other


def _expand(text: str) -> list[str]:
    """The files of a glob, in the order of their names; a name that is none stands for itself."""
    if not glob.has_magic(text) or Path(text).exists():
        return [text]
    found = sorted(glob.glob(text))
    if found:
        return found
    raise TraceReadError(f"{text}: no file has such a name", hint="Check the path and the quotes.")


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
