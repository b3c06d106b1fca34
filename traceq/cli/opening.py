"""Opens traces for commands, with progress on stderr where that is a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from traceq.cli.output import remember_input
from traceq.kineto import ArgSelection
from traceq.limits import Limits
from traceq.loading import convert_trace, open_trace
from traceq.progress import Progress, bars
from traceq.trace import Trace
from traceq.units import plural, printable

if TYPE_CHECKING:
    from traceq.history.store import History


@contextlib.contextmanager
def opened(
    path: str,
    *,
    engine: str | None,
    args: ArgSelection,
    timeout: float | None,
    no_cache: bool = False,
    needs_engine: bool = False,
    part: Limits | None = None,
    needed: Limits | None = None,
) -> Iterator[Trace]:
    """An open trace for the time of a command; notices and progress go to stderr."""
    remember_input(path)
    with _progress(path) as progress:
        trace = open_trace(
            path,
            engine=engine,
            args=args,
            timeout=timeout,
            progress=progress,
            notify=_notify,
            cache=not no_cache,
            part=part,
            needed=needed,
        )
        if needs_engine:
            trace.start_engine(progress)
    with trace:
        yield trace


def history_in(db: str) -> History:
    """The history in a file; who is waited for is told on stderr."""
    from traceq.history.store import History  # most commands need none of it

    return History(Path(db), notify=_notify)


def convert(path: str, args: ArgSelection, part: Limits) -> list[bytes]:
    """A trace as chunks of bytes that other programs open, with progress; its events on stderr."""
    remember_input(path)
    with _progress(path) as progress:
        chunks, ledger = convert_trace(path, args=args, progress=progress, part=part)
    total = ledger.total
    _notify(
        f"{path}: {total.loaded:,} of {plural(total.read, 'event')}; {total.not_carried:,} not "
        f"carried, {total.unreadable:,} unreadable"
    )
    for note in ledger.notes:
        _notify(note)
    return [*chunks]


def _notify(message: str) -> None:
    click.echo(f"traceq: {printable(message)}", err=True)


@contextlib.contextmanager
def _progress(path: str) -> Iterator[Progress | None]:
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with bars(path.rsplit("/", 1)[-1], Console(stderr=True)) as progress:
        yield progress
