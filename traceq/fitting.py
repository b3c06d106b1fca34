"""Tells what of a trace fits: into the memory that is free, into an engine; and what to ask for.

Needs are bytes a slice, as measured. What a part is, and reading it, is left to others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from traceq.errors import UsageError
from traceq.joins import slice_table
from traceq.layout import arrange
from traceq.limits import Limits
from traceq.model import Ints
from traceq.narrowing import marks, narrow
from traceq.overview import Overview
from traceq.selection import span_of
from traceq.steps import Steps, find_steps
from traceq.units import file_size, plural

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

_TRIES = 5
"""Parts that are tried, each half as long as the one before."""


# Words --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Extent:
    """The span and steps of a trace, by which parts are measured; ``starts`` are in order."""

    overview: Overview
    starts: Ints
    begin: int
    end: int
    steps: Steps

    @classmethod
    def of(cls, overview: Overview) -> Extent:
        """That of a whole trace."""
        trace = overview.trace(marks(overview))
        slices = slice_table(trace, arrange(trace))
        return cls(overview, np.sort(overview.ts), *span_of(slices), find_steps(slices))

    def __len__(self) -> int:
        return len(self.starts)

    def advice(self, room: int) -> str:
        """What to ask for where so many slices fit."""
        ways = (("--window", self._windows(room)), ("--steps", self._steps(room)))
        found = [way for way in (self._first(*way, room) for way in ways) if way]
        listed = " or ".join(filter(None, (", ".join(found), "--under NAME")))
        return f"Use {listed}{WHERE}"

    def _first(self, option: str, ways: Iterator[str], room: int) -> str | None:
        """The first of the ways by which no more than fits is read."""
        for way in ways:
            limits = Limits(window=way) if option == "--window" else Limits(steps=way)
            with suppress(UsageError):
                if int(narrow(self.overview, limits).slices.sum()) <= room:
                    return f"{option} {way}"
        return None

    def _windows(self, room: int) -> Iterator[str]:
        """Windows, ever shorter, from the start; or later, where no outermost frame begins."""
        for part in (0, 2) if len(self) else ():
            first = len(self) // part if part else 0
            since = int(self.starts[first]) - self.begin if first else 0
            for size in (room // 2 >> step for step in range(_TRIES)):
                last = min(first + size, len(self) - 1)
                text = _window(since, int(self.starts[last]) - self.begin - since)
                if size and text:
                    yield text

    def _steps(self, room: int) -> Iterator[str]:
        """Steps from the second on (the first is cold), ever fewer."""
        number, first = self.steps.number, min(1, max(0, len(self.steps) - 1))
        begins, ends = self.steps.start[first:], self.steps.end[first:]
        slices = np.searchsorted(self.starts, ends) - np.searchsorted(self.starts, begins[:1])
        fits = int(np.searchsorted(slices, room, side="right"))
        if (np.diff(number) == 1).all():
            for count in dict.fromkeys(fits >> step for step in range(_TRIES)):
                if count:
                    yield f"{number[first]}:{number[first] + count}"


def _window(since: int, length: int) -> str | None:
    """A window as the option has it, in round numbers; None for less than a microsecond."""
    for size, unit in ((10**9, "s"), (10**6, "ms"), (10**3, "us")):
        if length >= size:
            begin = -(-since // size)
            return f"{begin}{unit}:{begin + _rounded(length // size)}{unit}"
    return None


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
