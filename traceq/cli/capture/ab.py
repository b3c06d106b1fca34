"""``traceq capture ab``: two commands run in turn, and what their captures show."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click

from traceq.ab_result import AbResult, Sample, read_sample
from traceq.capturing.ab import SIDES, AbCapture, ProgramOptions, Progress, capture_ab
from traceq.capturing.record import OUT_VARIABLE
from traceq.capturing.settings import STACKS
from traceq.cli import options
from traceq.cli.opening import opened
from traceq.cli.output import render, to_json, write
from traceq.compare import compare
from traceq.errors import TraceqError
from traceq.maps import parse_map
from traceq.reading import Question, Reading, read
from traceq.report import diff_report
from traceq.report.ab import ab_report
from traceq.units import duration

_OPENING: Any = {"engine": None, "args": "default", "timeout": None}


_sides = options.chain(
    click.option("--a", required=True, metavar="CMD", help="The command before."),
    click.option("--b", required=True, metavar="CMD", help="The command after."),
    click.option(
        "-o",
        "--output",
        "folder",
        required=True,
        metavar="DIR",
        type=click.Path(file_okay=False),
        help="Where traces, output of the commands and ab.json go.",
    ),
    click.option(
        "--repeat",
        default=5,
        show_default=True,
        type=click.IntRange(min=1),
        help="Captures of each side.",
    ),
    click.option(
        "--warm",
        default=1,
        show_default=True,
        type=click.IntRange(min=0),
        help="Runs of each side whose traces are thrown away, made once, before the whole series: "
        "they fill the caches of disk and compilers. Beside them each run has warm-up steps of "
        "its own (--warmup).",
    ),
    click.option(
        "--run-timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        help="End a run that takes longer, and stop.",
    ),
    click.option("--force", is_flag=True, help="Replace the captures that DIR holds."),
)
"""What is run, how often, and where the captures go."""

_program_options = options.chain(
    click.option(
        "--stack",
        type=click.Choice(STACKS),
        help="For Python programs, as the next three: see 'traceq capture run --help'.",
    ),
    click.option(
        "--warmup",
        type=click.IntRange(min=0),
        metavar="N",
        help="Warm-up steps of each run, before its window.",
    ),
    click.option("--steps", type=click.IntRange(min=1), metavar="N", help="Steps in the window."),
    click.option(
        "--from", "start", metavar="[MODULE:]FUNCTION", help="What is called once a step."
    ),
    click.option(
        "--as-is",
        is_flag=True,
        help=f"The programs capture themselves: run them as they stand, with {OUT_VARIABLE}.",
    ),
)


def _programs(command: Any) -> Any:
    """What goes to ``traceq capture run``; the command gets it as one dictionary, ``settings``."""

    @functools.wraps(command)
    def grouped(**values: Any) -> Any:
        names = ("stack", "warmup", "steps", "start")
        settings = {name: values.pop(name) for name in names}
        return command(settings=settings, **values)

    return _program_options(grouped)


@click.command(
    "ab",
    epilog="Example: traceq capture ab --a 'python bench.py --variant einops' "
    "--b 'python bench.py --variant flatten' --under GatedDeltaNet -o captures/",
)
@_sides
@options.under
@options.match
@click.option("--map", "maps", multiple=True, metavar="OLD=>NEW", help="As for 'traceq diff'.")
@_programs
@click.option("--no-diff", is_flag=True, help="Leave the diff out.")
@options.limit
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "markdown", "json"]),
    default="table",
    show_default=True,
    help="How to print the result.",
)
def command(
    a: str,
    b: str,
    under: tuple[str, ...],
    match: tuple[str, ...],
    maps: tuple[str, ...],
    settings: dict[str, Any],
    no_diff: bool,
    limit: int | None,
    format_: str,
    **running: Any,
) -> None:
    """Run two commands in turn, A B A B ..., each a new process, and compare their captures.

    A CMD is a command line in quotes; it is run without a shell. NAME=VALUE may stand before it.
    {out} in it is replaced by the path of the trace to write. 'traceq capture run' and 'traceq
    capture gdn' are given that path, and a Python program (python x.py ..., x.py ..., -m mod ...)
    is put under 'traceq capture run'. Any other command finds the path in TRACEQ_OUT.

    The result has the times of every capture, the range of each side, and the diff of all captures:
    from three a side on, these are its samples.
    """
    for text in maps:
        parse_map(text)  # before anything is run for nothing
    program = ProgramOptions(under, **settings)
    with _progress() as progress:
        series = capture_ab(a, b, options=program, progress=progress, **running)
    result = _read(series, under)
    if not no_diff:
        result = _compare(result, match, maps)
    write(_format(result, options.rows_to_show(limit, format_), format_), None)


def _read(series: AbCapture, under: tuple[str, ...]) -> AbResult:
    """Open each capture for its totals, one after another: ten at once may not fit."""
    samples = [_sample(run.name, str(run.trace), under) for run in series.captures]
    return AbResult(
        folder=str(series.folder),
        commands={side: item.shown for side, item in series.commands.items()},
        is_same_command=series.is_same_command,
        under=under,
        samples=tuple(samples),
    )


def _sample(name: str, path: str, under: tuple[str, ...]) -> Sample:
    with _kept(path), opened(path, **_OPENING) as trace:
        return read_sample(name, trace, under)


def _compare(result: AbResult, match: tuple[str, ...], maps: tuple[str, ...]) -> AbResult:
    """The result with the diff of all its captures; what they differ in, it tells itself."""
    question = Question(under=result.under)
    sides = [[_reading(item.path, question) for item in result.of(side)] for side in SIDES]
    one, other = sides
    found = compare(one, other, question, match=match or None, maps=maps, force=True)
    return replace(result, diff=found)


def _reading(path: str, question: Question) -> Reading:
    with _kept(path), opened(path, **_OPENING) as trace:
        return read(trace, question)


@contextlib.contextmanager
def _kept(path: str) -> Iterator[None]:
    """An error in reading says of which capture it speaks, and that none has to be made again."""
    try:
        yield
    except TraceqError as error:
        if path and path not in error.message:
            error.message = f"{path}: {error.message}"
        error.hint = f"{error.hint or ''}\nThe captures are kept: 'traceq diff' reads them.".strip()
        raise


def _format(result: AbResult, limit: int | None, format_: str) -> str:
    if format_ == "json":
        return to_json(result.to_dict())
    text = render(ab_report(result), format_, None)
    if result.diff is None:
        return text
    return f"{text}\n{render(diff_report(result.diff, limit=limit), format_, None)}"


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """The runs on stderr: a line that moves on a terminal, else one for each that has ended."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield _say_run
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=2,  # what draws must not take its time from what is measured
    ) as bars:
        task = bars.add_task("")

        def show(number: int, total: int, name: str, took: int | None) -> None:
            bars.update(
                task,
                description=f"run {number} of {total}: {name}",
                completed=number - (took is None),
                total=total,
                refresh=True,  # short runs are told too
            )

        yield show


def _say_run(number: int, total: int, name: str, took: int | None) -> None:
    if took is not None:
        click.echo(f"traceq: {_run_line(number, total, name, took)}", err=True)


def _run_line(number: int, total: int, name: str, took: int) -> str:
    return f"run {number} of {total}: {name}, {duration(took)}"
