"""What is known of every slice of a trace before it is known which are wanted, in few bytes each.

Some 30 bytes a slice: times, a number for name, category and track, and the numbers by which slices
are joined. Filled by the reader or taken from columns; what is to be kept is left to ``narrowing``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traceq.model import ArgColumn, Bools, Flows, Ints, Ledger, Slices, TraceData, Track

JOIN_ARGS = ("correlation", "External id", "Sequence number", "Fwd thread id")
"""The arguments by whose numbers slices are joined."""

JOIN_KEYS = tuple(f"args.{name}" for name in JOIN_ARGS)


@dataclass(frozen=True, slots=True)
class Overview:
    """The slices of a trace by row, and what joins them.

    ``kind`` has one entry a slice; ``name``, ``category`` (-1: none) and ``track`` one a kind.
    ``args`` are columns of :data:`JOIN_KEYS`. Arrows that differ may have one ``key`` in ``flows``.
    """

    strings: list[str]
    tracks: list[Track]
    ts: Ints
    dur: Ints
    kind: NDArray[np.int32]
    name: Ints
    category: Ints
    track: Ints
    args: tuple[ArgColumn, ...]
    flows: Flows

    def __len__(self) -> int:
        return len(self.ts)

    @classmethod
    def of(cls, data: TraceData) -> Overview:
        """That of a trace which is at hand."""
        slices = data.slices
        width = len(data.strings) + 1
        code = (slices.track * width + slices.category + 1) * width + slices.name
        codes, kind = np.unique(code, return_inverse=True)
        rest, name = np.divmod(codes, width)
        return cls(
            strings=data.strings,
            tracks=data.tracks,
            ts=slices.ts,
            dur=slices.dur,
            kind=kind.astype(np.int32),
            name=name,
            category=rest % width - 1,
            track=rest // width,
            args=tuple(column for column in slices.args if column.key in JOIN_KEYS),
            flows=data.flows,
        )

    def of_category(self, *wanted: str) -> Bools:
        """Marks the kinds of some categories; "" is for none as well."""
        texts = ["", *self.strings]
        return np.array([texts[item + 1] in wanted for item in self.category.tolist()], np.bool_)

    def named(self, chosen: Callable[[str], object]) -> Bools:
        """Marks the kinds whose name is chosen."""
        found = np.array([bool(chosen(text)) for text in self.strings], np.bool_)
        return found[self.name] if len(found) else np.zeros(0, np.bool_)

    def marked(self, kinds: Bools) -> Bools:
        """Marks the slices of some kinds."""
        return kinds[self.kind] if len(self.kind) else np.zeros(0, np.bool_)

    def number(self, key: str) -> tuple[Ints, Ints]:
        """The rows that have an argument as a whole number, and the numbers."""
        for column in self.args:
            if column.key == f"args.{key}" and column.kind == "int":
                return column.row, column.value
        return np.zeros(0, np.int64), np.zeros(0, np.int64)

    def trace(self, rows: Ints) -> TraceData:
        """Some of the slices as a trace of nothing else."""
        kind = self.kind[rows]
        none = np.zeros(len(rows), np.bool_)
        slices = Slices(
            ts=self.ts[rows],
            dur=self.dur[rows],
            name=self.name[kind],
            category=self.category[kind],
            track=self.track[kind],
            instant=none,
            phase=none.astype(np.uint8),
        )
        nothing = np.zeros(0, np.int64)
        flows = Flows(nothing, nothing, nothing, nothing, nothing.astype(np.bool_), nothing)
        ledger = Ledger({}, Counter(), [])
        return TraceData(self.strings, self.tracks, slices, flows, [], [], {}, {}, {}, {}, ledger)
