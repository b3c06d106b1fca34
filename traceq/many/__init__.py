"""Runs one task for each of many traces: in processes of this machine, or on a Ray cluster.

A task is something picklable that is called with the path of one trace (and a progress, or None)
and gives something small: a table, a packed capture. What it asks, and how, is left to it.
Results come in the order of the paths, wherever and whenever they were made, so that what is put
together from them is the same, to the byte. A trace that cannot be read, or whose process is
killed twice, is a result as well: its error. Nothing of the others is lost by it.

How far this goes: the traces of a job of 1,000 ranks are 1,000 tasks, of which each gives 20 to 60
kB; putting these together takes seconds, so that one process does it. For 100,000 that process
would hold 5 GB and work for minutes. There the same tasks should give what can be added up (sums,
counts, least and most) and be put together in a
tree of tasks of some hundred results each, so that two levels suffice and no process sees more than
a few MB; only what needs all of a kind at once (medians, who was waited for in a collective) goes
by columns of its own, one task for each op or collective. Files are then to be listed by those
who have them, a folder a task, as one list of 100,000 paths takes a shared file system minutes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from traceq.errors import TraceqError, UsageError
from traceq.progress import Progress

Result = TypeVar("Result")
Task = Callable[[str, Progress | None], Result]

RAY = "ray"
_RAY_CLIENT = re.compile(r"ray://[^/\s]+:\d+")


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """What became of one trace: its result, or its error."""

    path: str
    result: Result | None = None
    error: TraceqError | None = None


@dataclass(frozen=True, slots=True)
class Workers:
    """Where tasks run: ``jobs`` processes of this machine (None: as many as pay), or ``on`` Ray.

    ``on`` is ``ray`` (the cluster that ``RAY_ADDRESS`` names or that this machine is part of, else
    one of this machine alone) or ``ray://HOST:PORT``.
    """

    jobs: int | None = None
    on: str | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for what names no place."""
        if self.on not in (None, RAY) and not _RAY_CLIENT.fullmatch(str(self.on)):
            raise UsageError(
                f"tasks cannot be run on {self.on!r}",
                hint="Say ray, or ray://HOST:PORT; without it, processes of this machine are used.",
            )
        if self.on is not None and self.jobs is not None:
            raise UsageError(
                "--jobs is for processes of this machine, and --on names a cluster",
                hint="Leave --jobs away: the cluster knows how many tasks it can run.",
            )


HERE = Workers()


def run_each(
    task: Task[Result],
    paths: Sequence[str],
    workers: Workers = HERE,
    progress: Progress | None = None,
) -> Iterator[Done[Result]]:
    """Run the task for each path and give what became of them, in the order of the paths.

    ``progress`` is called with ("captures", done, in all) where there are several. Errors
    that no file explains are raised: a defect of the task, a cluster that is not there
    (EngineError).
    """
    with closing(_run(task, paths, workers, progress)) as found:
        yield from found


def _run(
    task: Task[Result], paths: Sequence[str], workers: Workers, progress: Progress | None
) -> Generator[Done[Result]]:
    from traceq.many import local, on_ray

    run = local.run_here if workers.on is None else on_ray.run_on_ray
    return run(task, paths, workers, progress)
