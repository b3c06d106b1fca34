"""What the commands that compare share: which captures, which options, and reading them.

What a comparison finds is left to ``compare``, how it is shown to each command.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import click

from traceq.cli import options
from traceq.cli.opening import expand, history_in, how_to_open, reading, tell_left_out
from traceq.errors import TraceqError, TraceReadError, UsageError
from traceq.evidence import BOUND, LEVEL
from traceq.gate import Outcome, exit_code, parse_condition
from traceq.gathering import LeftOut, gather, split
from traceq.history.recording import FILE
from traceq.history.refs import runs_meant
from traceq.history.series import not_recorded
from traceq.history.store import History
from traceq.limits import Limits
from traceq.many import Done, Workers
from traceq.maps import parse_map
from traceq.ranks import Ranks, gather_ranks
from traceq.reading import Question, Reading

Command = TypeVar("Command", bound=Callable[..., Any])
Inconclusive = Literal["pass", "fail"] | None


@dataclass(frozen=True, slots=True)
class Captures:
    """The captures as the command line names them: arguments, or options for each side."""

    before: str | None
    after: str | None
    more_before: tuple[str, ...]
    more_after: tuple[str, ...]

    @property
    def alone(self) -> str | None:
        """The one capture that is named, if there is no other side."""
        return self.before if not (self.after or self.more_before or self.more_after) else None

    def paths(self) -> tuple[list[str], list[str]]:
        """The files of both sides. Raises UsageError, TraceReadError."""
        old, new = (expand(side) for side in self.names())
        if [*old, *new].count("-") > 1:
            raise UsageError(
                "standard input holds one trace, not two", hint="Name one of the files."
            )
        return old, new

    def names(self) -> tuple[Sequence[str], Sequence[str]]:
        """What each side is named by. Raises UsageError."""
        if self.before is not None and (self.more_before or self.more_after):
            raise UsageError(
                "captures are named both as arguments and with options",
                hint="Give BEFORE AFTER, or --before and --after.",
            )
        old = (self.before,) if self.before else self.more_before
        new = (self.after,) if self.after else self.more_after
        if not old or not new:
            missing = "after" if old else "before"
            raise UsageError(f"no capture is named for {missing}", hint="Give BEFORE AFTER.")
        return old, new


def captures(command: Command) -> Command:
    """Which captures; the command gets them as one :class:`Captures`."""

    @functools.wraps(command)
    def named(
        *,
        before: str | None,
        after: str | None,
        more_before: tuple[str, ...],
        more_after: tuple[str, ...],
        **rest: Any,
    ) -> Any:
        return command(captures=Captures(before, after, more_before, more_after), **rest)

    return options.chain(
        click.argument("before", required=False),
        click.argument("after", required=False),
        click.option(
            "--before",
            "more_before",
            multiple=True,
            metavar="FILE",
            help="A capture before, or a glob in quotes, for several; may be given several times.",
        ),
        click.option(
            "--after", "more_after", multiple=True, metavar="FILE", help="The same for after."
        ),
    )(cast(Command, named))


def choices(command: Command) -> Command:
    """How to compare; the command gets ``choices``, for :func:`traceq.compare.compare`."""

    @functools.wraps(command)
    def chosen(
        *,
        match: tuple[str, ...],
        maps: tuple[str, ...],
        fail_if: tuple[str, ...],
        level: float,
        bound: float,
        force: bool,
        **rest: Any,
    ) -> Any:
        for text in maps:
            parse_map(text)  # before any trace is opened for nothing
        for text in fail_if:
            parse_condition(text)
        given = {"match": match or None, "maps": maps, "fail_if": fail_if}
        return command(choices=given | {"level": level, "bound": bound, "force": force}, **rest)

    return options.chain(
        options.match,
        click.option(
            "--map",
            "maps",
            multiple=True,
            metavar="OLD=>NEW",
            help="Put an op of BEFORE and what replaced it in AFTER on one line (patterns as for "
            "--under).",
        ),
        _level,
        _bound,
        _fail_if,
        click.option(
            "--force", is_flag=True, help="Compare captures of other work or another model too."
        ),
    )(cast(Command, chosen))


_level = click.option(
    "--level",
    type=click.FloatRange(0.001, 0.5),
    default=LEVEL,
    show_default=True,
    metavar="SHARE",
    help="Share of comparisons of unchanged code in which any row may be declared changed.",
)
_bound = click.option(
    "--bound",
    type=click.FloatRange(0, 1, max_open=True),
    default=BOUND,
    show_default=True,
    metavar="PART",
    help="A time is the same where its change is shown to be within this part of it.",
)
_fail_if = click.option(
    "--fail-if",
    multiple=True,
    metavar="CONDITION",
    help="End with exit code 1 if this is shown to hold: 'cpu > 2%', 'gpu > 1%', 'rearrange.calls "
    "> 0', 'aten::mm.cpu > 50us'. May be given several times.",
)
inconclusive = click.option(
    "--inconclusive",
    type=click.Choice(["pass", "fail"]),
    help="What a condition that cannot be told counts as; by default exit code 3.",
)


db = click.option(
    "--db",
    metavar="FILE",
    help="Compare runs of this history: BEFORE and AFTER are then a branch, commit or other label; "
    "main@latest is the newest commit of main. TRACEQ_DB does not stand in for it.",
)


def read_ranks(
    names: Sequence[str], question: Question, opening: dict[str, Any], workers: Workers
) -> tuple[Ranks, list[LeftOut]]:
    """The captures of one run's ranks, read, and the files that cannot be."""
    needed = Limits(question.under or None, **question.limits)
    captures, left = split(_gathered(expand(names), question, opening, workers, needed))
    ranks = gather_ranks(captures)
    return replace(ranks, doubts=(*map(str, left), *ranks.doubts)), left


def leave(
    outcomes: Sequence[Outcome], undecided: Inconclusive, left: Sequence[LeftOut] = ()
) -> None:
    """Say on stderr which conditions did not pass, and leave with the exit code for it.

    A result that lacks some of the files is none to rely on unseen: its exit code is an error's.
    """
    tell_left_out(left)
    for outcome in outcomes:
        if outcome.state != "pass" or outcome.is_about_nothing:
            click.echo(f"traceq: {outcome.reason}", err=True)
    if code := TraceqError.exit_code if left else exit_code(outcomes, undecided):
        raise click.exceptions.Exit(code)


def read_sides(
    named: Captures,
    question: Question,
    opening: dict[str, Any],
    workers: Workers,
    db: str | None = None,
) -> tuple[list[Reading], list[Reading], list[LeftOut]]:
    """All captures of both sides, read, and the files that cannot be, if each side has others.

    ``db`` is the history that holds them, if one does.
    """
    if db is not None:
        return (*_recorded(named, question, history_in(db)), [])
    sides = named.paths()
    paths = [path for side in sides for path in side]
    for path in paths:
        _check_no_run(path)
    found = _gathered(paths, question, opening, workers)
    old, left_before = split(found[: len(sides[0])])
    new, left_after = split(found[len(sides[0]) :])
    return old, new, [*left_before, *left_after]


def _check_no_run(path: str) -> None:
    """Raises TraceReadError for what is no file, and may be meant as a run of a history."""
    if path == "-" or "://" in path or Path(path).exists():
        return
    file = os.environ.get("TRACEQ_DB")
    if file or "@" in path or Path(FILE).exists():
        raise TraceReadError(
            f"{path}: no such file",
            hint=f"Check the path; for a run of a history name its file: --db {file or FILE}.",
        )


def _recorded(
    named: Captures, question: Question, history: History
) -> tuple[list[Reading], list[Reading]]:
    runs = history.runs()
    old, new = ([run for ref in refs for run in runs_meant(ref, runs)] for refs in named.names())
    sides = [history.load(side, question) for side in (old, new)]
    for side, found in zip((old, new), sides, strict=True):
        if not found:
            raise not_recorded(question, side)
    return sides[0], sides[1]


def read_captures(
    paths: Sequence[str], question: Question, opening: dict[str, Any], workers: Workers
) -> tuple[list[Reading], list[LeftOut]]:
    """Read captures; those that cannot be are left out. Raises where there is no other."""
    return split(_gathered(paths, question, opening, workers))


def _gathered(
    paths: Sequence[str],
    question: Question,
    opening: dict[str, Any],
    workers: Workers,
    needed: Limits | None = None,
) -> list[Done[Reading]]:
    with reading(paths) as progress:
        opener = how_to_open(opening)
        return [*gather(paths, question, opener, workers, progress, needed=needed)]


def read_capture(path: str, question: Question, opening: dict[str, Any]) -> Reading:
    """Read one capture."""
    ((capture,), _) = read_captures([path], question, opening, Workers())
    return capture
