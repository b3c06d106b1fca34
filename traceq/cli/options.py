"""Options that several commands share, as decorators."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from traceq.many import Workers

if TYPE_CHECKING:
    from traceq.limits import Limits

Command = TypeVar("Command", bound=Callable[..., Any])


def chain(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """One decorator of several; their options are listed in this order."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def opening(command: Command) -> Command:
    """How traces are opened: engine, arguments, timeout, cache."""
    return chain(
        click.option(
            "--engine",
            metavar="NAME",
            help="wasm (default, in-process), wasm64 (for traces above 3.5 GB in the engine), "
            "shell or shell:PATH (native trace_processor_shell). Also TRACEQ_ENGINE.",
        ),
        click.option(
            "--args",
            type=click.Choice(["default", "all"]),
            default="default",
            help="Which arguments of events to carry: those for joins and shapes, or every one.",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="End a query that takes longer.",
        ),
        click.option(
            "--no-cache",
            is_flag=True,
            help="Read the file, also where what was read of it before is kept (traceq cache).",
        ),
    )(command)


def workers(command: Command) -> Command:
    """Where many traces are read; the command gets one :class:`traceq.many.Workers`."""

    @functools.wraps(command)
    def placed(*, jobs: int | None, on: str | None, **rest: Any) -> Any:
        return command(workers=Workers(jobs, on), **rest)

    return chain(
        click.option(
            "-j",
            "--jobs",
            type=click.IntRange(min=1),
            metavar="N",
            help="Read so many traces at once; by default as many as there are cores and memory "
            "for.",
        ),
        click.option(
            "--on",
            metavar="CLUSTER",
            help="Read the traces on a Ray cluster, one a task: ray (that of RAY_ADDRESS, or this "
            "machine) or ray://HOST:PORT. Needs the extra traceq[ray].",
        ),
    )(cast(Command, placed))


def under(command: Command) -> Command:
    """Limit to what is below matching slices."""
    return click.option(
        "--under",
        multiple=True,
        metavar="PATTERN",
        help="Only what is below slices that match. Text is a part of the name, * and ? make it a "
        "glob, re: a regular expression. May be given several times.",
    )(command)


def match(command: Command) -> Command:
    """Keep ops whose name matches."""
    return match_of("ops")(command)


def match_of(what: str) -> Callable[[Command], Command]:
    """Keep rows whose name matches."""
    return click.option(
        "--match",
        multiple=True,
        metavar="PATTERN",
        help=f"Only {what} that match (patterns as for --under).",
    )


def within(command: Command) -> Command:
    """Limit to steps or a window of time; the command gets them as one dictionary, ``within``."""

    @functools.wraps(command)
    def limited(*, steps: str | None, skip_first: bool, window: str | None, **rest: Any) -> Any:
        limits = {"steps": steps, "skip_first": skip_first, "window": window}
        return command(within=limits, **rest)

    return chain(
        click.option(
            "--steps",
            metavar="FROM:TO",
            help="Only these steps, by their number in 'traceq steps': 3, 2:5 (without 5), 2: "
            "or -3: .",
        ),
        click.option("--skip-first", is_flag=True, help="Leave the first step out."),
        click.option(
            "--window",
            metavar="FROM:TO",
            help="Only this time, from the trace's start: 1.2s:3.4s, 500ms: or :2s . GPU work "
            "counts where it was launched (timeline: where it ran). Seconds without a unit.",
        ),
    )(cast(Command, limited))


def limits(under: tuple[str, ...], within: dict[str, Any]) -> Limits:
    """The part of a trace that these options choose."""
    from traceq.limits import Limits  # a help text needs no numpy

    return Limits(under=under or None, **within)


def part(command: Command) -> Command:
    """Load only a part of the trace; the command gets its limits as ``part``."""

    @functools.wraps(command)
    def limited(*, under: tuple[str, ...], within: dict[str, Any], **rest: Any) -> Any:
        return command(part=limits(under, within), **rest)

    return chain(under, within)(cast(Command, limited))


DEFAULT_LIMIT = 40


def limit(command: Command) -> Command:
    """At most so many rows; 0 for all."""
    return click.option(
        "--limit",
        type=click.IntRange(min=0),
        metavar="N",
        help=f"Show at most N rows; 0: all. By default {DEFAULT_LIMIT} in a table or Markdown, "
        "all in JSON and CSV.",
    )(command)


def rows_to_show(limit: int | None, format_: str) -> int | None:
    """How many rows a format gets; None for all."""
    if limit is None and format_ in ("table", "markdown"):
        return DEFAULT_LIMIT
    return limit or None


def output(*formats: str) -> Callable[[Command], Command]:
    """Format and destination of the result."""
    return chain(
        click.option(
            "--format",
            "format_",
            type=click.Choice(formats),
            default=formats[0],
            show_default=True,
            help="How to print the result.",
        ),
        click.option(
            "-o",
            "--output",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="Write the result to FILE instead of standard output.",
        ),
    )


def db(command: Command) -> Command:
    """The file of the history."""
    return click.option(
        "--db",
        metavar="FILE",
        default="traceq.duckdb",
        envvar="TRACEQ_DB",
        show_default=True,
        help="The history, a DuckDB file. Also TRACEQ_DB.",
    )(command)


by_rank = click.option(
    "--by",
    type=click.Choice(["rank"]),
    help="The captures are ranks of one run: show each, and who was waited for in collectives.",
)
