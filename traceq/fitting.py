"""Tells what of a trace fits: into the memory that is free, into an engine; and what to ask for.

Needs are bytes a slice, as measured. What a part is, and reading it, is left to others.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from traceq.errors import UsageError
from traceq.joins import slice_table
from traceq.layout import arrange
from traceq.model import Ints
from traceq.narrowing import marks
from traceq.overview import Overview
from traceq.steps import Steps, find_steps
from traceq.units import duration, file_size, parse_bytes, plural

READ_BYTES = 260
"""Memory for a slice while a trace is read whole; measured on traces of 0.8 to 27 million."""

SURVEY_BYTES = 60
"""Memory for a slice while a trace is read for what decides what belongs to a part."""

ENGINE_BYTES = 430
"""Memory of an engine for a slice that it holds."""

ENGINE_LIMIT = 4 << 30
"""Memory that the 32-bit engine can have."""

WHERE = ", which ops, kernels, scopes, tree, sql, view and convert take."
"""Ends a hint: what reads no more of a trace than is asked for."""

_CONTEXT = 2
"""A part holds what is around and launched by what it selects: so many times that, at most."""


def free_memory() -> int | None:
    """Bytes that may be used: ``TRACEQ_MEMORY``, else what is free; None where that is unknown.

    Raises UsageError where TRACEQ_MEMORY is no size.
    """
    text = os.environ.get("TRACEQ_MEMORY")
    if text:
        size = parse_bytes(text)
        if size is None:
            raise UsageError(
                f"TRACEQ_MEMORY is {text!r}, which is no size", hint="Write 500MB or 4GB."
            )
        return size
    found = [size for size in (_free_in_system(), _free_in_group()) if size is not None]
    return min(found, default=None)


def _free_in_system() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    sizes = re.findall(r"^(?:MemAvailable|SwapFree):\s+(\d+) kB", text, re.MULTILINE)
    return sum(map(int, sizes)) * 1024 if sizes else None


def _free_in_group() -> int | None:
    """What the container may still have."""
    folder = Path("/sys/fs/cgroup")
    try:
        most, used = ((folder / f"memory.{name}").read_text() for name in ("max", "current"))
        return max(0, int(most) - int(used))
    except (OSError, ValueError):  # there is no limit
        return None


# Words --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Extent:
    """When the slices of a trace start, in order, and its steps: by these parts are measured."""

    starts: Ints
    begin: int
    steps: Steps

    @classmethod
    def of(cls, overview: Overview) -> Extent:
        """That of a whole trace."""
        trace = overview.trace(marks(overview))
        slices = slice_table(trace, arrange(trace))
        return cls(np.sort(overview.ts), int(overview.ts.min(initial=2**62)), find_steps(slices))

    def __len__(self) -> int:
        return len(self.starts)

    def advice(self, room: int) -> str:
        """What to ask for where so many slices fit."""
        room //= _CONTEXT
        ways = [self._window(room), self._steps(room), "--under NAME"]
        *first, last = filter(None, ways)
        return f"Use {', '.join(first)}{' or ' if first else ''}{last}{WHERE}"

    def _window(self, room: int) -> str | None:
        """The longest window from the start that fits, in round numbers."""
        if not 0 < room < len(self):
            return None
        length = int(self.starts[room]) - self.begin
        for size, unit in ((10**9, "s"), (10**6, "ms"), (10**3, "us")):
            if length >= size:
                return f"--window 0:{_rounded(length // size)}{unit}"
        return None

    def _steps(self, room: int) -> str | None:
        """The steps from the second on (the first is cold) that fit together."""
        number, first = self.steps.number, min(1, max(0, len(self.steps) - 1))
        begins, ends = self.steps.start[first:], self.steps.end[first:]
        slices = np.searchsorted(self.starts, ends) - np.searchsorted(self.starts, begins[:1])
        fits = int(np.searchsorted(slices, room, side="right"))
        if not fits or (np.diff(number) != 1).any():
            return None
        return f"--steps {number[first]}:{number[first] + fits}"


def _rounded(number: int) -> int:
    """A whole number with one digit that counts, not above the other."""
    scale = int(10 ** (len(str(number)) - 1))
    return number // scale * scale


def needs(slices: int, each: int, free: int) -> str:
    """What so many slices take, and what there is."""
    return (
        f"{plural(slices, 'slice')} take about {file_size(slices * each)}, "
        f"and {file_size(free)} are free"
    )


def span_words(extent: Extent) -> str:
    """How long the slices of a trace last."""
    return duration(int(extent.starts[-1]) - extent.begin) if len(extent) else duration(0)
