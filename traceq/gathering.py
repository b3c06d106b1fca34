"""Asks many traces the same, a task each, in whatever processes: above all, reads captures.

Where tasks run is left to ``many``, what is asked of a capture to ``reading``, what is made of
several to ``compare``, ``ranks``, ``history`` and ``op_sums``.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from traceq.errors import TraceqError, TraceReadError
from traceq.history.pack import pack, unpack
from traceq.info import TraceInfo
from traceq.kineto import ArgSelection
from traceq.limits import Limits
from traceq.loading import open_trace
from traceq.many import HERE, Done, Workers, run_each
from traceq.many.local import is_ours
from traceq.part import Part
from traceq.progress import Progress
from traceq.reading import Question, Reading, Words, read
from traceq.trace import Trace

Result = TypeVar("Result")
_log = logging.getLogger("traceq")


@dataclass(frozen=True, slots=True)
class Opening:
    """How traces are opened: as :func:`traceq.loading.open_trace` takes it, whatever process."""

    engine: str | None = None
    args: ArgSelection = "default"
    timeout: float | None = None
    cache: bool = True
    notify: Callable[[str], None] = _log.warning

    def open(
        self, path: str, progress: Progress | None = None, needed: Limits | None = None
    ) -> Trace:
        """``needed`` is all that will be asked for. Raises TraceReadError, EngineError."""
        return open_trace(
            path,
            engine=self.engine,
            args=self.args,
            timeout=self.timeout,
            cache=self.cache,
            notify=self.notify,
            progress=progress,
            needed=needed,
        )


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that could not be read, and why."""

    path: str
    error: TraceqError

    def __str__(self) -> str:
        """One line that names the file."""
        text = self.error.message
        return f"left out: {text}" if self.path in text else f"left out: {self.path}: {text}"


Asked = Callable[[Trace], Result]
"""What is asked of an open trace; it goes to other processes, and so does what it gives."""


@dataclass(frozen=True, slots=True)
class _Answer(Generic[Result]):
    """The result, and what another process would have told of the trace."""

    result: Result
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _OpenAndAsk(Generic[Result]):
    """The task: open a trace, ask, and close it, so that its memory goes before the next comes.

    ``home`` is the process (host and number) that can tell the user what is to be told at once.
    """

    asked: Asked[Result]
    opening: Opening
    needed: Limits | None
    home: tuple[str, int]

    def __call__(self, path: str, progress: Progress | None = None) -> _Answer[Result]:
        told: list[str] = []
        is_home = self.home == _this_process()
        opening = self.opening if is_home else replace(self.opening, notify=told.append)
        with opening.open(path, progress, self.needed) as trace:
            return _Answer(self.asked(trace), tuple(told))


def _this_process() -> tuple[str, int]:
    return platform.node(), os.getpid()


def gather_each(
    paths: Sequence[str],
    asked: Asked[Result],
    opening: Opening,
    workers: Workers = HERE,
    progress: Progress | None = None,
    *,
    needed: Limits | None = None,
) -> Iterator[Done[Result]]:
    """Ask each trace, in the order of the paths; files that cannot be read are told as well.

    ``needed`` is the part of a trace that is asked for: of one that the memory cannot hold, no more
    is read.
    """
    # What notifies is the caller's, and stays with it.
    task = _OpenAndAsk(asked, opening, needed, _this_process())
    for done in run_each(task, paths, workers, progress):
        if done.result is None:
            yield Done(done.path, error=done.error)
            continue
        for text in done.result.told:
            opening.notify(text)
        yield Done(done.path, done.result.result)


def split(found: Sequence[Done[Result]]) -> tuple[list[Result], list[LeftOut]]:
    """The results, and the files that are left out. Raises the first error where there is none."""
    results = [done.result for done in found if done.result is not None]
    left = [LeftOut(done.path, done.error) for done in found if done.error is not None]
    if not results and left:
        raise left[0].error
    return results, left


# Captures ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Packed:
    """A capture on its way between processes; ``part`` stays here, for what cannot be reopened."""

    content: bytes
    info: TraceInfo | None
    part: Part | None


@dataclass(frozen=True, slots=True)
class _ReadCapture:
    """The question without its words, which each process numbers in its own way."""

    question: Question

    def __call__(self, trace: Trace) -> _Packed:
        question = replace(self.question, words=Words())
        capture = read(trace, question)
        part = question.part_of(trace) if is_ours(trace.path) else None
        return _Packed(pack(capture), capture.info, part)


def gather(
    paths: Sequence[str],
    question: Question,
    opening: Opening,
    workers: Workers = HERE,
    progress: Progress | None = None,
    *,
    needed: Limits | None = None,
) -> Iterator[Done[Reading]]:
    """Read captures of one question, in the order of their paths; files that cannot be read too.

    The same captures come of it wherever they were read. ``needed`` is as in :func:`gather_each`.
    """
    asked = _ReadCapture(replace(question, words=Words()))
    for done in gather_each(paths, asked, opening, workers, progress, needed=needed):
        if done.result is None:
            yield Done(done.path, error=done.error)
        else:
            yield Done(done.path, _unpacked(done.path, done.result, question, opening))


def _unpacked(path: str, packed: _Packed, question: Question, opening: Opening) -> Reading:
    def again() -> AbstractContextManager[Part]:
        if packed.part:
            return nullcontext(packed.part)
        return _reopened(path, packed.info, question, opening)

    return replace(unpack(packed.content, question.words), info=packed.info, again=again)


def _extent(info: TraceInfo) -> tuple[Any, ...]:
    """What tells two captures apart: when they began, how long they took, what events they have."""
    return info.start, info.duration, info.categories


@contextmanager
def _reopened(
    path: str, info: TraceInfo | None, question: Question, opening: Opening
) -> Iterator[Part]:
    with opening.open(path) as trace:
        if info is not None and _extent(trace.info) != _extent(info):
            raise TraceReadError(
                f"{path} has changed since it was read",
                hint="Compare it again, or work on a copy.",
            )
        yield question.part_of(trace)
