"""Asks many traces the same, a task each, in whatever processes: above all, reads captures.

Where tasks run is left to ``many``, what is asked of a capture to ``reading``, what is made of
several to ``compare``, ``ranks``, ``history`` and ``op_sums``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from traceq.errors import TraceqError
from traceq.history.pack import pack, unpack
from traceq.info import TraceInfo
from traceq.kineto import ArgSelection
from traceq.limits import Limits
from traceq.loading import open_trace
from traceq.many import HERE, Done, Workers, run_each
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
class _OpenAndAsk(Generic[Result]):
    """The task: open a trace, ask, and close it, so that its memory goes before the next comes."""

    asked: Asked[Result]
    opening: Opening
    needed: Limits | None

    def __call__(self, path: str, progress: Progress | None = None) -> Result:
        with self.opening.open(path, progress, self.needed) as trace:
            return self.asked(trace)


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
    return run_each(_OpenAndAsk(asked, opening, needed), paths, workers, progress)


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
        part = question.part_of(trace) if trace.path == "-" else None
        return _Packed(pack(capture), capture.info, part)


def gather(
    paths: Sequence[str],
    question: Question,
    opening: Opening,
    workers: Workers = HERE,
    progress: Progress | None = None,
) -> Iterator[Done[Reading]]:
    """Read captures of one question, in the order of their paths; files that cannot be read too.

    The same captures come of it wherever they were read.
    """
    asked = _ReadCapture(replace(question, words=Words()))
    for done in gather_each(paths, asked, opening, workers, progress):
        if done.result is None:
            yield Done(done.path, error=done.error)
        else:
            yield Done(done.path, _unpacked(done.path, done.result, question, opening))


def _unpacked(path: str, packed: _Packed, question: Question, opening: Opening) -> Reading:
    def again() -> AbstractContextManager[Part]:
        return nullcontext(packed.part) if packed.part else _reopened(path, question, opening)

    return replace(unpack(packed.content, question.words), info=packed.info, again=again)


@contextmanager
def _reopened(path: str, question: Question, opening: Opening) -> Iterator[Part]:
    with opening.open(path) as trace:
        yield question.part_of(trace)
