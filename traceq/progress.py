"""Shows how far long work is: a bar on a terminal or in a notebook, nothing elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done so far, in all; 0 where that is unknown)."""

LONG = 5_000_000
"""Bytes of a file from which on a notebook shows a bar: smaller ones open in a second or two."""


@contextlib.contextmanager
def bars(name: str, console: Any) -> Iterator[Progress]:
    """Bars on one of rich's consoles, a stage a line, gone at the end."""
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True) as shown:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(f"{stage} {name}")
            shown.update(tasks[stage], completed=done, total=total or None)

        yield report


@contextlib.contextmanager
def in_notebook(path: str) -> Iterator[Progress | None]:
    """Bars below the cell of a notebook that reads a large file; None elsewhere."""
    if not (_is_notebook() and file_bytes(path) > LONG):
        yield None
        return
    from rich.console import Console

    with bars(os.path.basename(path), Console()) as progress:
        yield progress


def _is_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def file_bytes(path: str) -> int:
    """The size of a file; 0 where there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
