"""Opens traces for commands, with progress on stderr where that is a terminal."""

from __future__ import annotations

import contextlib
import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from traceq.cli.output import remember_input
from traceq.errors import TraceReadError
from traceq.kineto import ArgSelection
from traceq.limits import Limits
from traceq.loading import convert_trace, open_trace
from traceq.progress import Progress, bars
from traceq.trace import Trace
from traceq.units import plural, printable

if TYPE_CHECKING:
    from traceq.gathering import LeftOut, Opening
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


@contextlib.contextmanager
def reading(paths: Sequence[str]) -> Iterator[Progress | None]:
    """Progress on stderr while several files are read, over none of which a result is written."""
    for path in paths:
        remember_input(path)
    with _progress(paths[0] if len(paths) == 1 else "") as progress:
        yield progress


def how_to_open(opening: dict[str, Any]) -> Opening:
    """The options of :func:`traceq.cli.options.opening`, for tasks of any process."""
    from traceq.gathering import Opening  # what shows one trace needs none of it

    no_cache = opening["no_cache"]
    rest = {key: value for key, value in opening.items() if key != "no_cache"}
    return Opening(**rest, cache=not no_cache, notify=_notify)


_MOST_TOLD = 20


def tell_left_out(left: Sequence[LeftOut]) -> None:
    """Say on stderr which files could not be read, and why."""
    for item in left[:_MOST_TOLD]:
        _notify(str(item))
    if len(left) > _MOST_TOLD:
        _notify(f"left out: {len(left) - _MOST_TOLD:,} more that could not be read")


def history_in(db: str) -> History:
    """The history in a file; who is waited for is told on stderr."""
    from traceq.history.store import History  # most commands need none of it

    return History(Path(db), notify=_notify)


def expand(texts: Sequence[str]) -> list[str]:
    """The files that names and globs stand for. Raises TraceReadError."""
    return [path for text in texts for path in _files(text)]


def _files(text: str) -> list[str]:
    """The files of a glob, in the order of their names; a name that is none stands for itself."""
    if not glob.has_magic(text) or Path(text).exists():
        return [text]
    found = sorted(glob.glob(text))
    if found:
        return found
    raise TraceReadError(f"{text}: no file has such a name", hint="Check the path and the quotes.")


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
