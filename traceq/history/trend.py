"""Finds where a figure changed over a series of runs, and by how much.

One figure a run in, change points out. Figures come from ``series``; ``report`` shows them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from traceq import stats
from traceq.stats import Interval

Floats = NDArray[np.float64]

LEVEL = 0.01
"""Share of series without a change in which one is marked."""

PERMUTATIONS = 1_999
SHORTEST = 4
"""Runs on each side of a change point: fewer cannot tell a change from an accident."""

_SEED = 20386


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """From run ``at`` (counted from 0) on the figure is another.

    ``change`` is the relative change between the runs since the change point before and those up
    to the next one (Hodges and Lehmann's, with its interval; from 0: infinite), ``p`` that of the
    permutation test.
    """

    at: int
    change: Interval
    p: float


def find_changes(values: Sequence[float], level: float = LEVEL) -> list[ChangePoint]:
    """The change points of a series of positive figures, the earliest first.

    The series is divided where Mann and Whitney's statistic, over its standard deviation, is
    largest (Pettitt 1979, here over all divisions of a part); a division counts if no more than
    ``level`` of the permutations of the runs have one as large, and each part is then divided
    further (binary segmentation). It rests on ranks: single runs far off move nothing. Runs are
    taken as independent: a machine that drifts for days looks like a change.
    """
    series = np.asarray(values, np.float64)
    found: dict[int, float] = {}
    _divide(series, 0, level, np.random.default_rng(_SEED), found)
    ends = [0, *sorted(found), len(series)]
    logs = np.log(np.maximum(series, np.finfo(float).tiny))
    return [
        ChangePoint(
            at, _relative(stats.shift_of_two(logs[start:at], logs[at:end], 0.95)), found[at]
        )
        for start, at, end in zip(ends[:-2], ends[1:-1], ends[2:], strict=True)
    ]


def _divide(
    series: Floats, start: int, level: float, random: np.random.Generator, found: dict[int, float]
) -> None:
    if len(series) < 2 * SHORTEST or series.min() == series.max():
        return
    rank = _ranks(series)
    sizes = _sizes(rank[None, :])[0]
    at = int(sizes.argmax()) + SHORTEST
    shuffled = random.permuted(np.tile(rank, (PERMUTATIONS, 1)), axis=1)
    larger = np.count_nonzero(_sizes(shuffled).max(axis=1) >= sizes.max() - 1e-9)
    p = float((larger + 1) / (PERMUTATIONS + 1))
    if p > level:
        return
    found[start + at] = p
    _divide(series[:at], start, level, random, found)
    _divide(series[at:], start + at, level, random, found)


def _ranks(series: Floats) -> Floats:
    """Ranks from 1, the mean of those that tie."""
    _, place, count = np.unique(series, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2)[place.reshape(-1)], np.float64)


def _sizes(ranks: Floats) -> Floats:
    """For each division of each row (SHORTEST runs on either side): how far the ranks are apart.

    The sum of the first ranks less what it is by chance, over its standard deviation.
    """
    count = ranks.shape[1]
    first = np.arange(SHORTEST, count - SHORTEST + 1)
    sums = np.cumsum(ranks, axis=1)[:, first - 1]
    spread = np.sqrt(first * (count - first) * ranks[0].var() * count / (count - 1) / count)
    return np.asarray(np.abs(sums - first * (count + 1) / 2) / spread, np.float64)


_FROM_NOTHING = 100.0
"""A change of the logarithm that no figure but 0 can have before it."""


def _relative(change: Interval) -> Interval:
    low, estimate, high = map(_share, (change.low, change.estimate, change.high))
    return Interval(estimate, low, high, change.confidence)


def _share(change: float) -> float:
    return math.inf if change > _FROM_NOTHING else math.expm1(change)
