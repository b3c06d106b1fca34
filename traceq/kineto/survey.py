"""Reads of the events only what tells which of them belong together: an overview.

The rows are those that ``columns`` gives the same file, so that what is chosen by the overview can
be read the next time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traceq.kineto.args import ArgReader
from traceq.kineto.columns import ColumnBuilder
from traceq.kineto.events import Scalar
from traceq.model import Bools, Ints, Ledger
from traceq.overview import JOIN_ARGS, Overview


class OverviewBuilder(ColumnBuilder):
    """Takes chunks of events, and gives an overview of the slices and arrows."""

    def __init__(self) -> None:
        super().__init__(Ledger())
        self._args = ArgReader("default", self._strings.__getitem__, JOIN_ARGS)

    def overview(self) -> Overview:
        """The overview; the builder is used up."""
        for edges in self._edges.values():
            self._pair_edges(edges)
        parts = self._slices
        parts.instant.clear()
        fields = [self._kind_fields(*key) for key in self._kinds]
        name, category, track = np.array(fields, np.int64).reshape(-1, 3).T
        return Overview(
            strings=self._strings.spellings,
            tracks=list(self._tracks),
            ts=_drained(parts.ts, np.int64),
            dur=_drained(parts.dur, np.int64),
            kind=_drained(parts.kind, np.int32),
            name=name,
            category=category,
            track=track,
            args=self._args.finish(),
            flows=self._build_flows(),
        )

    def _chosen(self, kind: Ints, chosen: Bools) -> Any:
        return kind[chosen].astype(np.int32)

    def _number_arrows(self, arrows: Sequence[tuple[int, Scalar]]) -> Ints:
        """Two arrows may get one number: keeping one more than needed costs little."""
        numbers = ((hash(arrow) & (2**62 - 1)) for arrow in arrows)
        return np.fromiter(numbers, np.int64, len(arrows))


def _drained(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    """The parts put end to end; each is let go when it has been copied."""
    found = np.empty(sum(map(len, parts)), dtype)
    at = len(found)
    while parts:
        part = parts.pop()
        found[at - len(part) : at] = part
        at -= len(part)
    return found
