"""What part of a trace a table is about: the scopes of a pattern, and a window of time.

Marks slices and nodes; what is summed over them is left to the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from traceq.calltree import CallTree, Forest, merge, nearest
from traceq.categories import GPU_WORK
from traceq.errors import PatternError
from traceq.gpu import Activities, Homes, at
from traceq.model import Bools, Ints, SliceTable
from traceq.names import matching_names

Patterns = str | Sequence[str] | None

GPU_LABEL = "gpu_user_annotation"
"""Category of the GPU's copy of a label: never a scope, never summed with kernels."""

THE_SCOPES = "(the scopes themselves)"
BACKWARD = "(backward of the scopes)"
OUTSIDE = "(outside the scopes)"
UNKNOWN = "(launch not in the trace)"


@dataclass(frozen=True, slots=True)
class Windows:
    """Spans of time, ``start`` to ``end`` (ns, half-open), in order and without overlap.

    A slice is within where it starts; a GPU activity where the call that launched it does.
    """

    start: Ints
    end: Ints

    @property
    def span(self) -> tuple[int, int]:
        """From the start of the first to the end of the last."""
        return int(self.start[0]), int(self.end[-1])

    def contain(self, ts: Ints) -> Bools:
        """Marks the times that lie within."""
        if not len(self.start):
            return np.zeros(len(ts), np.bool_)
        span = np.searchsorted(self.start, ts, side="right") - 1
        return (span >= 0) & (ts < self.end[np.maximum(span, 0)])


def span_of(slices: SliceTable) -> tuple[int, int]:
    """Start and end (ns) of what was recorded; the profiler's own marks are left out."""
    work = ~slices.of_category("", "Trace")
    if not work.any():
        work = np.ones(len(slices), np.bool_)
    if not len(slices):
        return 0, 0
    return int(slices.ts[work].min()), int((slices.ts[work] + slices.dur[work]).max())


class Nested(tuple[str, ...]):
    """Patterns of scopes of which only those count that are below slices of other patterns.

    ``around`` are these others, maybe nested themselves.
    """

    around: Sequence[str]

    @classmethod
    def of(cls, levels: Sequence[Sequence[str]]) -> Nested:
        """Patterns by level, those of the outermost slices first."""
        found = cls(levels[-1])
        found.around = cls.of(levels[:-1]) if len(levels) > 1 else ()
        return found


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a trace that a table is about.

    ``under`` marks, one entry a name of the trace, those that make a slice a scope (None: the
    whole trace); ``windows`` limits the time (None: all of it). Only slices below the marks of
    ``around`` (None: all) can be scopes.
    """

    under: Bools | None = None
    windows: Windows | None = None
    around: Selection | None = None

    @classmethod
    def of_names(
        cls, slices: SliceTable, names: Sequence[str] | None, windows: Windows | None
    ) -> Selection:
        """A selection by the exact names of scopes; None for the whole trace."""
        if names is None:
            return cls(None, windows)
        chosen = set(names)
        return cls(np.array([name in chosen for name in slices.names], np.bool_), windows)

    def marks(self, slices: SliceTable) -> Bools:
        """Marks the slices that match the scopes' pattern, where they may be scopes."""
        if self.under is None or not len(slices):
            return np.zeros(len(slices), np.bool_)
        # What runs on the GPU is launched by scopes: a kernel that is named like one is none.
        found = self.under[slices.name] & ~slices.of_category(GPU_LABEL, *GPU_WORK)
        if self.around is None:
            return found
        above = nearest(slices.parent, self.around.marks(slices))
        return found & (at(above, slices.parent) >= 0)

    def counted(self, slices: SliceTable) -> Bools | None:
        """Marks the slices that start within the windows; None where all do."""
        return None if self.windows is None else self.windows.contain(slices.ts)

    def activities(self, slices: SliceTable, activities: Activities) -> Activities:
        """The activities whose launch starts within the windows; their own start if unknown."""
        if self.windows is None or not len(activities):
            return activities
        launch = activities.launch
        ts = np.where(launch >= 0, slices.ts[launch], activities.ts)
        return activities.where(self.windows.contain(ts))


def resolve(slices: SliceTable, patterns: Patterns) -> list[str]:
    """The names of slices that patterns match. Raises PatternError naming the nearest."""
    chosen = [patterns] if isinstance(patterns, str) else list(patterns or ())
    return matching_names(chosen, slices.names)


def select(slices: SliceTable, under: Patterns, windows: Windows | None) -> Selection:
    """The part below what matches, within windows. Raises PatternError."""
    is_whole = under is None or (not isinstance(under, str) and not under)
    found = Selection.of_names(slices, None if is_whole else resolve(slices, under), windows)
    if not isinstance(under, Nested) or not under.around:
        return found
    found = replace(found, around=select(slices, under.around, None))
    if not found.marks(slices).any():
        raise PatternError(
            f"nothing that matches {', '.join(under)!r} is below {', '.join(under.around)!r}",
            hint="Trace.tree() shows what is below what; patterns of one under() are 'or'.",
        )
    return found


@dataclass(frozen=True, slots=True)
class ScopedTree:
    """A call tree and which of its nodes are scopes, below one, or either (``included``).

    Without scopes every node is included, as if it were below one.
    """

    tree: CallTree
    scope: Bools
    below: Bools
    included: Bools


def grow(slices: SliceTable, forest: Forest, label: Ints, selection: Selection) -> ScopedTree:
    """Merge a forest, keeping apart slices that match the scopes' pattern and others.

    ``label`` has one entry a slice of the forest. Slices that match must be in the forest.
    """
    if selection.under is None:
        tree = merge(forest, label)
        everything = np.ones(len(tree), np.bool_)
        return ScopedTree(tree, ~everything, everything, everything)
    marks = selection.marks(slices)[forest.ids]
    split = merge(forest, label * 2 + marks)
    tree = CallTree(split.forest, split.parent, split.label // 2, split.node, split.starts)
    at_or_below = tree.spread_down(split.label % 2 == 1)
    above = (
        np.where(tree.parent >= 0, at_or_below[tree.parent], False) if len(tree) else at_or_below
    )
    return ScopedTree(tree, at_or_below & ~above, above, at_or_below)


# GPU time that no row of a table holds ------------------------------------------------------


def remainder(
    activities: Activities, homes: Homes, outside: str = OUTSIDE
) -> list[tuple[str, Bools]]:
    """The activities that no row of a table has, by the name of the row that they get instead."""
    homeless = homes.node < 0
    unknown = homeless & (activities.op < 0)
    return [(outside, homeless & ~unknown), (UNKNOWN, unknown)]
