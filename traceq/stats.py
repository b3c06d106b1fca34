"""What repeated captures can tell: intervals, tests over many rows, a verdict.

A *sample* is a capture, or a step of one; a *row* is what is measured in each of them (an op, a
kernel). All values are natural logarithms of times, so that a difference of two is the logarithm
of a ratio and noise is alike for short and for long rows. Where nothing changed, samples must be
exchangeable: captures taken in turns are; steps that drift are not, and look more certain than
they are. Arrays in, numbers out: which samples and rows go together, taking the logarithms and
the wording are left to the caller.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import combinations, count, islice
from math import ceil, comb, isfinite, log1p, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from traceq.model import Bools, Ints

Floats = NDArray[np.float64]

EXACT_VALUES = 1_000
EXACT_PAIRS = 10_000
"""Up to so many values (sign test) and pairs of values (rank tests) the coverage of an interval is
exact, above it is that of the normal approximation: counts beyond would not fit a float."""

EXACT_WAYS = 20_000
EXACT_FLIPS = 14
"""Up to so many relabellings of two samples, and flipped differences, every way is tried."""

RANDOM_WAYS = 9_999
SEED = 20_250_101
"""Else so many random ways besides the observed one, always the same: results can be repeated."""

LEAST_LEVEL = 0.001
"""Random ways tell a p near this to a third of it, and one below it hardly at all."""

FEWEST_ROWS = 20
"""With fewer rows it cannot be told how far rows of unchanged code move."""

MOST_CAPTURES = 1_000
"""Nobody takes more captures than this."""

POWER = 0.8
"""Chance of seeing a change that is there, for :func:`captures_needed`."""

_SLACK = 1e-9  # of probabilities and statistics: rounding
_TIE = 1e-7  # of a statistic, relative: rounding, with the least spread below
_LEAST_SPREAD = 1e-3  # of a row's whole spread
_CELLS = 1 << 19  # of the largest array of a permutation test: 4 MiB

_Tail = Callable[[int], float]


# Intervals --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the interval around it, ends included.

    ``confidence`` is the coverage that the interval really has for values from a continuous
    distribution, which is not the one asked for; ties and rounded values make it larger.
    """

    estimate: float
    low: float
    high: float
    confidence: float


def median_interval(values: Floats, confidence: float) -> Interval:
    """The median of values (n,), and the narrowest interval of order statistics that covers it.

    The interval of the sign test: Hollander, Wolfe & Chicken, Nonparametric Statistical Methods
    (2014), 3.6. Where even that from least to greatest has not the confidence asked for, it is
    returned with what it has. Raises ValueError for no values, for values that are not finite,
    and for a confidence that is not between 0 and 1.
    """
    _check(values, 1)
    return _interval(values, _tail_of_signs(len(values)), confidence)


def shift_of_two(before: Floats, after: Floats, confidence: float) -> Interval:
    """How far values (m,) lie above others (n,): the median of all differences, its interval.

    The estimate of Hodges & Lehmann (1963) and the interval of the Mann–Whitney test (Moses):
    Hollander, Wolfe & Chicken (2014), 4.2 and 4.3; it covers the shift if that is all that sets the
    sides apart. Where even the widest has not the confidence asked for (3 and 3 values: 0.9; 1 and
    1: 0), it is returned with what it has. Memory grows as n times m. Raises ValueError as
    :func:`median_interval` does.
    """
    _check(before, 1)
    _check(after, 1)
    differences = np.subtract.outer(after, before).ravel()
    return _interval(differences, _tail_of_two(len(before), len(after)), confidence)


def shift_of_pairs(differences: Floats, confidence: float) -> Interval:
    """The centre of differences (n,) within pairs: the median of the Walsh averages, its interval.

    The estimate of Hodges & Lehmann (1963) and the interval of the signed-rank test (Tukey):
    Hollander, Wolfe & Chicken (2014), 3.2 and 3.3; it covers the centre if differences lie evenly
    about it. Where even the widest has not the confidence asked for (5 pairs: 0.9375; 1: 0), it is
    returned with what it has. Memory grows as n squared. Raises ValueError as
    :func:`median_interval` does.
    """
    _check(differences, 1)
    first, second = np.triu_indices(len(differences))
    walsh = (differences[first] + differences[second]) / 2
    return _interval(walsh, _tail_of_ranks(len(differences)), confidence)


def _interval(candidates: Floats, tail: _Tail, confidence: float) -> Interval:
    """The median of the candidates, and the narrowest interval between two of them.

    The interval without the ``depth`` least and greatest misses with twice the chance that the
    test's statistic is ``depth`` or less, which is ``tail``.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence must be between 0 and 1, not {confidence}")
    ordered = np.sort(candidates)
    depths = range((len(ordered) + 1) // 2)
    depth = max(bisect_right(depths, (1 - confidence) / 2 + _SLACK, key=tail) - 1, 0)
    low, high = float(ordered[depth]), float(ordered[-1 - depth])
    return Interval(float(np.median(ordered)), low, high, max(1 - 2 * tail(depth), 0.0))


@lru_cache(64)
def _tail_of_signs(n: int) -> _Tail:
    """Chance of so many positive signs, or fewer, among n."""
    if n > EXACT_VALUES:
        return _normal_tail(n / 2, n / 4)
    counts = np.array([comb(n, positive) for positive in range((n + 1) // 2)], np.float64)
    return _exact_tail(counts, 2**n)


@lru_cache(64)
def _tail_of_two(n: int, m: int) -> _Tail:
    """Chance of a Mann–Whitney statistic of so much, or less; n and m values without ties.

    The recurrence of Mann & Whitney (1947): the greatest value is one of the n, and then above all
    m others, or one of the m. Only the lower half is counted, the upper mirrors it.
    """
    if n * m > EXACT_PAIRS:
        return _normal_tail(n * m / 2, n * m * (n + m + 1) / 12)
    counts = np.zeros((n + 1, (n * m + 1) // 2))
    counts[:, 0] = 1
    for others in range(1, m + 1):
        for ours in range(1, n + 1):
            counts[ours, others:] += counts[ours - 1, :-others]
    return _exact_tail(counts[n], comb(n + m, n))


@lru_cache(64)
def _tail_of_ranks(n: int) -> _Tail:
    """Chance of a signed-rank statistic of so much, or less; n differences without ties.

    Counts the subsets of the ranks 1 to n by their sum: Hollander, Wolfe & Chicken (2014), 3.1.
    """
    pairs = n * (n + 1) // 2
    if pairs > EXACT_PAIRS:
        return _normal_tail(pairs / 2, pairs * (2 * n + 1) / 12)
    counts = np.zeros((pairs + 1) // 2)
    counts[0] = 1
    for rank in range(1, n + 1):
        counts[rank:] += counts[:-rank].copy()
    return _exact_tail(counts, 2**n)


def _exact_tail(counts: Floats, ways: int) -> _Tail:
    """From the number of ways that each value of a statistic, from 0 on, comes about."""
    chances: list[float] = (np.cumsum(counts) / float(ways)).tolist()
    return chances.__getitem__


def _normal_tail(mean: float, variance: float) -> _Tail:
    normal = NormalDist(mean, sqrt(variance))
    return lambda statistic: normal.cdf(statistic + 0.5)  # whole numbers only: half a step on


# Tests over many rows ---------------------------------------------------------------------


def permuted_two(before: Floats, after: Floats, kind: Ints) -> Floats | None:
    """Adjusted two-sided p of each row, that before (rows, n) and after (rows, m) are alike.

    A row with p <= level is called changed; the chance of calling any row that is not is at most
    level, however rows hang together, as whole samples are relabelled: Westfall & Young,
    Resampling-Based Multiple Testing (1993), step-down max-T (algorithms 2.8 and 4.1). Up to
    EXACT_WAYS relabellings are all tried, else RANDOM_WAYS random ones from a fixed SEED and the
    observed one (Phipson & Smyth 2010).

    The statistic is that of SAM, d / (s + s0), Tusher, Tibshirani & Chu (2001): d is the difference
    of the means, s its standard error within the sides (at least a thousandth of that of the whole
    row: less is rounding), s0 holds down rows that happen to vary little. Here s0 is the median,
    over the rows of one ``kind`` (rows,) that vary at all, of the standard error with all n + m
    values taken together: no relabelling changes it, so the test is exact where no row changed.
    Where some did, their place in that median is their only hold on the p of the others.

    None if no p below 1 can be had (no value on a side, or one on each). Raises ValueError for
    shapes that do not fit and for values that are not finite.
    """
    _check(before, 2)
    _check(after, 2)
    if len(before) != len(after):
        raise ValueError(f"{len(before)} rows before cannot be compared with {len(after)} after")
    n, m = before.shape[1], after.shape[1]
    if smallest_p(n, m) >= 1:
        return None
    values = np.concatenate([before, after], axis=1)
    # From the first value, so that equal values become exact zeros, which the mean may not do.
    values -= values[:, :1].copy()
    values -= values.mean(axis=1, keepdims=True)
    rows = _moderate(values, kind, n * m / (n + m), n + m - 2)
    ways = (_weights_of_two(is_before) for is_before in _relabel(n, m, _chunk(values)))
    return _step_down(rows, _weights_of_two(np.arange(n + m)[np.newaxis] < n), ways)


def drift_of(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """What is common to the rows before (rows, n) and after (rows, m) of a sample: (n,) and (m,).

    The median, over the rows, of how far they are from their mean over all samples: a capture made
    while the machine was slow has most rows longer. Relabelling samples relabels these medians
    alike, so :func:`permuted_two` of rows without them is exact where no row changed. Where some
    rows changed, they pull the median to their side, and rows that did not seem to have moved the
    other way: what is found so has to be held against the spread of the rows (``spread_of_rows``).
    """
    values = np.concatenate([before, after], axis=1)
    values = values - values[:, :1]  # equal values become exact zeros
    drift = np.median(values - values.mean(axis=1, keepdims=True), axis=0)
    return drift[: before.shape[1]], drift[before.shape[1] :]


def do_overlap(before: Floats, after: Floats) -> bool:
    """Whether two sides' ranges of values have a part in common."""
    return bool(before.min() <= after.max() and after.min() <= before.max())


def permuted_pairs(differences: Floats, kind: Ints) -> Floats | None:
    """Adjusted two-sided p of each row, that its differences (rows, n) lie evenly about 0.

    As :func:`permuted_two`, with the signs of whole samples flipped: all 2**n ways for up to
    EXACT_FLIPS samples. d is the mean, s its standard error, and s0 the median over the rows of
    one ``kind`` of the root mean square divided by the root of n. None for fewer than 2 samples.
    """
    _check(differences, 2)
    n = differences.shape[1]
    if smallest_p_pairs(n) >= 1:
        return None
    rows = _moderate(differences, kind, n, n - 1)
    ways = (signs / n for signs in _flip(n, _chunk(differences)))
    return _step_down(rows, np.full((1, n), 1 / n), ways)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of which d is the product of ``values`` (rows, samples) with weights of the samples.

    ``total`` (rows,) is their sum of squares, of which d takes ``size`` times its square and leaves
    the rest, with so many degrees of ``freedom``, as that within the sides: no pass over the values
    but one product. ``extra`` (rows,) is s0.
    """

    values: Floats
    total: Floats
    extra: Floats
    size: float
    freedom: int

    def take(self, order: Ints) -> _Rows:
        values, total, extra = self.values[order], self.total[order], self.extra[order]
        return _Rows(values, total, extra, self.size, self.freedom)

    def score(self, weights: Floats) -> Floats:
        """|d| / (s + s0) of each row for weights (ways, samples): (rows, ways)."""
        effect = np.abs(self.values @ weights.T)
        total = self.total[:, np.newaxis]
        within = total - self.size * effect**2
        # What is left of the total where sides hardly vary is rounding: it must not break ties.
        np.maximum(within, _LEAST_SPREAD**2 * total, out=within)
        within /= self.freedom * self.size
        effect /= np.sqrt(within, out=within) + self.extra[:, np.newaxis]
        return effect


def _moderate(values: Floats, kind: Ints, size: float, freedom: int) -> _Rows:
    """The rows with s0 of their kind, which is 1 if no row of it varies: all its d are 0."""
    if kind.shape != values.shape[:1]:
        raise ValueError(f"{len(values)} rows need as many kinds, not an array {kind.shape}")
    total = np.einsum("ij,ij->i", values, values)
    extra = np.ones(len(values))
    for one in np.unique(kind[total > 0]):
        of_kind = kind == one
        varying = total[of_kind & (total > 0)]
        extra[of_kind] = np.median(np.sqrt(varying / (size * (freedom + 1))))
    return _Rows(values, total, extra, size, freedom)


def _step_down(rows: _Rows, observed: Floats, ways: Iterable[Floats]) -> Floats:
    """Adjusted p (rows,) from the weights that were observed and those of every way tried.

    A row's p is the share of ways in which it, or a row that was observed to be less extreme,
    scores as much as it did; and not less than that of a row that is more extreme.
    """
    score = rows.score(observed)[:, 0]
    order = np.argsort(-score, kind="stable")
    rows, bar = rows.take(order), (score[order] * (1 - _TIE) - _SLACK)[:, np.newaxis]
    reached, tried = np.zeros(len(order), np.int64), 0
    for weights in ways:
        greatest = np.maximum.accumulate(rows.score(weights)[::-1], axis=0)[::-1]
        reached += np.count_nonzero(greatest >= bar, axis=1)
        tried += len(weights)
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(reached) / tried
    return adjusted


def _chunk(values: Floats) -> int:
    """How many ways to try at once, so that memory does not grow with rows or samples."""
    rows, samples = len(values), int(values.shape[1])
    return max(1, _CELLS // max(rows, samples))


def _weights_of_two(is_before: Bools) -> Floats:
    """Weights (ways, samples) that give the difference of the two means."""
    n = int(is_before[0].sum())
    return np.where(is_before, -1 / n, 1 / (is_before.shape[1] - n))


def _relabel(n: int, m: int, chunk: int) -> Iterator[Bools]:
    """Which samples are called before (ways, n + m): all ways or random ones, the observed first.

    With as many on each side, every way has its mirror image with the same |t|: one of the two is
    left out, which leaves all shares as they are.
    """
    if comb(n + m, n) > EXACT_WAYS:
        yield np.arange(n + m)[np.newaxis] < n
        random = np.random.default_rng(SEED)
        for some in _portions(RANDOM_WAYS, chunk):
            yield random.random((some, n + m)).argsort(axis=1) < n
        return
    sides = islice(combinations(range(n + m), n), comb(n + m, n) // (2 if n == m else 1))
    while portion := list(islice(sides, chunk)):
        is_before = np.zeros((len(portion), n + m), np.bool_)
        np.put_along_axis(is_before, np.array(portion), True, axis=1)
        yield is_before


def _flip(n: int, chunk: int) -> Iterator[Floats]:
    """Signs (ways, n): all ways or random ones, the observed (no flip) first.

    Of all ways only those that keep the last sign: the others mirror them, with the same |t|.
    """
    if n > EXACT_FLIPS:
        yield np.ones((1, n))
        random = np.random.default_rng(SEED)
        for some in _portions(RANDOM_WAYS, chunk):
            yield np.where(random.random((some, n)) < 0.5, -1.0, 1.0)
        return
    first = 0
    for some in _portions(2 ** (n - 1), chunk):
        codes = np.arange(first, first + some)[:, np.newaxis]
        yield np.where(codes >> np.arange(n) & 1, -1.0, 1.0)
        first += some


def _portions(total: int, most: int) -> Iterator[int]:
    """The sizes of parts of ``total`` with at most so many each."""
    for first in range(0, total, most):
        yield min(most, total - first)


# How much so many samples can tell --------------------------------------------------------


def smallest_p(n: int, m: int) -> float:
    """The least p that :func:`permuted_two` can give for n and m samples.

    Of all C(n + m, n) relabellings the observed one always scores as much as itself. If n = m, so
    does the one that swaps the sides, as it only turns the sign of t: 2 of them. If not, swapping
    gives sides of other sizes, which is no relabelling, and no other way needs to score as much: 1.
    Of RANDOM_WAYS + 1 it is 1 as well; where they are few more than EXACT_WAYS to choose from, it
    may have been drawn again, and the p that can be had is up to three times as large.

    >>> smallest_p(3, 3), smallest_p(1, 3), smallest_p(1, 1)
    (0.1, 0.25, 1.0)
    """
    ways = comb(n + m, n)
    if ways > EXACT_WAYS:
        return 1 / (RANDOM_WAYS + 1)
    return min((2 if n == m else 1) / ways, 1.0)


def smallest_p_pairs(n: int) -> float:
    """The least p that :func:`permuted_pairs` can give for n pairs: no sign flipped, and all.

    For random flips as :func:`smallest_p` says.

    >>> smallest_p_pairs(5)
    0.0625
    """
    return min(2 / 2**n, 1.0) if n <= EXACT_FLIPS else 1 / (RANDOM_WAYS + 1)


def carries(level: float, n: int, m: int) -> bool:
    """Whether n and m samples can give a p of ``level`` at all."""
    return smallest_p(n, m) <= level


def captures_to_carry(level: float) -> int:
    """The fewest captures a side that can give a p of ``level``.

    Raises ValueError for a level that is not from LEAST_LEVEL to below 1.

    >>> captures_to_carry(0.1), captures_to_carry(0.05)
    (3, 4)
    """
    if not LEAST_LEVEL <= level < 1:
        raise ValueError(f"the level must be from {LEAST_LEVEL} to below 1, not {level}")
    return next(n for n in count(1) if smallest_p(n, n) <= level)


# Verdicts ---------------------------------------------------------------------------------


class Verdict(StrEnum):
    """What can be said of a row."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    UNCLEAR = "can't tell"

    @property
    def is_change(self) -> bool:
        """Whether it says that something changed."""
        return self in (Verdict.FASTER, Verdict.SLOWER)


def judge(
    change: Interval, p: float | None, *, level: float, bound: float, floor: float
) -> Verdict:
    """What a row's ``change``, the log of the ratio after / before, and its adjusted p say.

    SAME by two one-sided tests at level / 2 each: the interval of confidence 1 - level lies within
    ``bound`` (relative: 0.01 is 1 %) of no change: Schuirmann (1987). That is of one row, not
    adjusted for the number of rows. Else FASTER or SLOWER where p (None: no test) is at most
    ``level`` and the estimate beyond ``floor``: how far, as a log of a ratio, rows of unchanged
    code move between captures; 0 where the samples themselves show it. With a floor above the
    bound no row can be told to be the same.
    """
    most = log1p(bound)
    is_within = -most <= change.low and change.high <= most and floor <= most
    if is_within and change.confidence >= 1 - level - _SLACK:
        return Verdict.SAME
    if p is not None and p <= level and abs(change.estimate) > floor:
        return Verdict.FASTER if change.estimate < 0 else Verdict.SLOWER
    return Verdict.UNCLEAR


def captures_needed(change: Interval, spread: float, *, level: float, bound: float) -> int | None:
    """About how many captures a side would settle a row: a rough guide, not a promise.

    The sample size of a two-sided comparison of two means by normal approximation, with a chance
    of POWER: n = 2 ((z(1 - level/2) + z(POWER)) spread / effect)**2 (at 0.05 the rule "16 over the
    effect squared": Lehr 1992; van Belle, Statistical Rules of Thumb, 2008, 2.1). ``spread`` is the
    standard deviation of logs within the sides, ``effect`` the larger of the estimated change and
    the bound. The estimate is itself uncertain; many rows at once, and showing that a row is the
    same when it lies near the bound, take more. At least :func:`captures_to_carry`, which says
    what it raises; None above MOST_CAPTURES, or where spread or effect are not known.
    """
    fewest = captures_to_carry(level)
    effect = max(abs(change.estimate), log1p(bound))
    if not (isfinite(spread) and isfinite(change.estimate) and effect > 0):
        return None
    normal = NormalDist()
    quantiles = normal.inv_cdf(1 - level / 2) + normal.inv_cdf(POWER)
    needed = 2 * (quantiles * (spread / effect)) ** 2
    return max(ceil(needed), fewest) if needed <= MOST_CAPTURES else None


def pooled_spread(before: Floats, after: Floats) -> Floats:
    """Standard deviation of logs within before (rows, n) and after (rows, m) together: (rows,).

    The root of the summed squares about each side's mean over n + m less one for each side, as in
    Student's test of two samples; a side of one has no part in it. nan if no side has two.
    """
    sides = [side for side in (before, after) if side.shape[1] > 1]
    if not sides:
        return np.full(len(before), np.nan)
    squares = np.sum([side.var(axis=1) * side.shape[1] for side in sides], axis=0)
    freedom = sum(side.shape[1] - 1 for side in sides)
    return np.asarray(np.sqrt(squares / freedom), np.float64)


def spread_of_rows(changes: Floats) -> tuple[float, float]:
    """Centre and scale of the changes (rows,) of rows of unchanged code, of finite ones alone.

    The median, and the median distance from it times 1.4826, the standard deviation if changes are
    normal: Hampel (1974). The scale is inf, not known, for fewer than FEWEST_ROWS; the centre of
    no rows is 0.
    """
    known = changes[np.isfinite(changes)]
    drift = float(np.median(known)) if len(known) else 0.0
    if len(known) < FEWEST_ROWS:
        return drift, float("inf")
    return drift, 1.4826 * float(np.median(np.abs(known - drift)))


def _check(values: Floats, dimensions: int) -> None:
    if values.ndim != dimensions:
        raise ValueError(f"values of {dimensions} dimensions are needed, not {values.ndim}")
    if dimensions == 1 and not len(values):
        raise ValueError("at least one value is needed")
    if not np.isfinite(values).all():
        raise ValueError("all values must be finite")
