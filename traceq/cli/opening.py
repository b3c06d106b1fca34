"""Opens traces for commands, with progress on stderr where that is a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import click

from traceq.kineto import ArgSelection
from traceq.loading import Progress, convert_trace, open_trace
from traceq.model import Ledger
from traceq.trace import Trace


@contextlib.contextmanager
def opened(
    path: str, *, engine: str | None, args: ArgSelection, timeout: float | None
) -> Iterator[Trace]:
    """An open trace for the time of a command; notices and progress go to stderr."""
    with _progress(path) as progress:
        trace = open_trace(
            path, engine=engine, args=args, timeout=timeout, progress=progress, notify=_notify
        )
    with trace:
        yield trace


def convert(path: str, args: ArgSelection) -> tuple[list[bytes], Ledger]:
    """A trace as chunks of bytes that other programs open, with progress."""
    with _progress(path) as progress:
        chunks, ledger = convert_trace(path, args=args, progress=progress)
    return [*chunks], ledger


def _notify(message: str) -> None:
    click.echo(f"traceq: {message}", err=True)


@contextlib.contextmanager
def _progress(path: str) -> Iterator[Progress | None]:
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    name = path.rsplit("/", 1)[-1]
    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        tasks = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(f"{stage} {name}")
            bars.update(tasks[stage], completed=done, total=total or None)

        yield report
