"""Reads a trace file and lays it out: whole or only a part, within the memory that there is.

What belongs to a part is settled in ``cutting`` and ``narrowing``, what fits in ``fitting``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from traceq.content import file_identity
from traceq.cutting import cut, cut_narrowed
from traceq.errors import TraceReadError
from traceq.fitting import READ_BYTES, SURVEY_BYTES, WHERE, Extent, needs
from traceq.kineto import ArgSelection, Keep, estimate_slices, read_trace, survey_trace
from traceq.layout import Layout, arrange
from traceq.limits import Limits
from traceq.memory import free_memory, give_back
from traceq.model import TraceData
from traceq.narrowing import Narrowed, narrow
from traceq.progress import Progress
from traceq.units import duration, file_size

_READ_TWICE = 1_000_000
"""Slices from which on a file is read twice for a part of it: a smaller one is held in 260 MB."""


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A trace file beside the memory that is free, as both are when it is opened.

    ``slices`` is a guess, None where there can be none; so is ``free`` where it is not known.
    """

    path: str | Path
    slices: int | None
    free: int | None

    @classmethod
    def at(cls, path: str | Path) -> Self:
        return cls(path, estimate_slices(path), free_memory())

    @property
    def is_large(self) -> bool:
        """Whether reading it twice, for a part of it, takes less memory."""
        return (self.slices or 0) >= _READ_TWICE

    @property
    def fits(self) -> bool:
        """Whether the memory can hold all of it, as far as that can be told."""
        return self.has_room(self.slices, READ_BYTES)

    def has_room(self, slices: int | None, each: int) -> bool:
        """Whether the memory can hold so many slices."""
        return self.free is None or slices is None or slices * each <= self.free


def read_file(
    file: TraceFile, args: ArgSelection, part: Limits | None, progress: Progress | None
) -> tuple[TraceData, Layout]:
    """A trace, or a part of it, laid out; of a large file a part is read in two passes.

    Raises TraceReadError for what is no trace or too large for the memory, PatternError and
    UsageError where there is no such part.
    """
    if part and (file.is_large or not file.fits):
        return _read_twice(file, args, part, progress)
    if not file.fits:
        _check_size(file, progress)
    data = read_trace(file.path, args=args, progress=stage(progress, "reading"))
    return cut(data, part) if part else (data, arrange(data))


def _read_twice(
    file: TraceFile, args: ArgSelection, part: Limits, progress: Progress | None
) -> tuple[TraceData, Layout]:
    """First what tells what belongs to the part, then that."""
    identity = file_identity(file.path)
    narrowed = _choose(file, part, progress)
    give_back()
    keep = Keep(narrowed.slices, narrowed.flows)
    data = read_trace(file.path, args=args, progress=stage(progress, "reading"), keep=keep)
    if file_identity(file.path) != identity:  # the marks are of another file's slices
        raise has_changed(file.path)
    return cut_narrowed(data, part)


def _choose(file: TraceFile, part: Limits, progress: Progress | None) -> Narrowed:
    """What of the file to read. Raises TraceReadError where that is too much."""
    if not file.has_room(file.slices, SURVEY_BYTES):
        raise TraceReadError(
            f"{file.path} is too large to be looked through: "
            f"{needs(file.slices or 0, SURVEY_BYTES, file.free or 0)}",
            hint="Use a machine with more memory; TRACEQ_MEMORY sets what may be used.",
        )
    overview = survey_trace(file.path, progress=stage(progress, "looking through"))
    narrowed = narrow(overview, part)
    slices = int(narrowed.slices.sum())
    if not file.has_room(slices, READ_BYTES):
        free = file.free or 0
        raise TraceReadError(
            f"{file.path}: too large a part: {needs(slices, READ_BYTES, free)}",
            hint=Extent.of(overview).advice(free // READ_BYTES),
        )
    return narrowed


def _check_size(file: TraceFile, progress: Progress | None) -> None:
    """Look through a file that seems too large. Raises TraceReadError, with what would fit."""
    free, slices, hint = (
        file.free or 0,
        file.slices or 0,
        f"Use --window, --steps or --under{WHERE}",
    )
    size = file_size(os.stat(file.path).st_size)
    if file.has_room(slices, SURVEY_BYTES):
        extent = Extent.of(survey_trace(file.path, progress=stage(progress, "looking through")))
        slices = len(extent)
        if file.has_room(slices, READ_BYTES):
            return
        hint = extent.advice(free // READ_BYTES)
        size += f", {duration(extent.end - extent.begin)}"
    raise TraceReadError(
        f"{file.path} ({size}) is too large: {needs(slices, READ_BYTES, free)}", hint=hint
    )


@contextmanager
def enough_memory(path: str) -> Iterator[None]:
    """Turns the end of the memory into an error that says what to do."""
    try:
        yield
    except MemoryError as error:
        raise TraceReadError(
            f"{path}: the memory does not suffice",
            hint=f"Use --window, --steps or --under{WHERE}",
        ) from error


def has_changed(path: str | Path) -> TraceReadError:
    return TraceReadError(
        f"{path} has changed since it was opened", hint="Open it again, or work on a copy."
    )


def stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    """The progress of one stage; None where nobody looks."""
    return None if progress is None else lambda done, total: progress(name, done, total)
