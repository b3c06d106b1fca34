"""What part of a trace is asked for: as options have it, and as spans of time and marks of names.

What belongs to such a part is settled in ``cutting``.
"""

from __future__ import annotations

from dataclasses import dataclass

from traceq.model import SliceTable
from traceq.selection import Nested, Patterns, Selection, Windows, select
from traceq.steps import choose_windows, find_steps


@dataclass(frozen=True, slots=True)
class Limits:
    """What part of a trace is wanted: below scopes, in steps, in a window; as the options have it.

    ``under`` are patterns of scopes, or :class:`Nested` ones; the others are as
    :meth:`Trace.windows` takes them.
    """

    under: Patterns = None
    steps: str | None = None
    skip_first: bool = False
    window: str | None = None

    def __bool__(self) -> bool:
        return bool(self.under) or self.is_timed

    @property
    def is_timed(self) -> bool:
        """Whether the time is limited."""
        return self.steps is not None or self.skip_first or self.window is not None

    @property
    def words(self) -> str:
        """As options of the command line, for errors and keys."""
        under = (self.under,) if isinstance(self.under, str) else self.under or ()
        around = Limits(under.around).words if isinstance(under, Nested) else ""
        words = [around, *(f"--under {pattern}" for pattern in under)]
        words += [f"--steps {self.steps}"] if self.steps is not None else []
        words += ["--skip-first"] if self.skip_first else []
        words += [f"--window {self.window}"] if self.window is not None else []
        return " ".join(filter(None, words))

    def windows(self, slices: SliceTable) -> Windows | None:
        """The spans of time; None for all of it. Raises UsageError where nothing is left."""
        if not self.is_timed:
            return None
        return choose_windows(find_steps(slices), slices, self.steps, self.skip_first, self.window)

    def select(self, slices: SliceTable) -> Selection:
        """The part as the tables select it. Raises PatternError, UsageError."""
        return select(slices, self.under, self.windows(slices))
