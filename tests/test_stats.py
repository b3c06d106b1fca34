"""Intervals, permutation tests and verdicts, against scipy.stats, brute force and simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import (
    binomtest,
    mannwhitneyu,
    median_abs_deviation,
    permutation_test,
    ttest_ind,
    wilcoxon,
)

from traceq import stats
from traceq.stats import (
    EXACT_FLIPS,
    FEWEST_ROWS,
    RANDOM_WAYS,
    Floats,
    Interval,
    Verdict,
    captures_needed,
    captures_to_carry,
    carries,
    do_overlap,
    drift_of,
    judge,
    median_interval,
    permuted_pairs,
    permuted_two,
    pooled_spread,
    shift_of_pairs,
    shift_of_two,
    smallest_p,
    smallest_p_pairs,
    spread_of_rows,
)

Rng = np.random.Generator
Bracket = Callable[[Floats, Floats], Interval]

NUDGE = 1e-9
"""Less than the distance of any two candidates of an interval here."""

VALUES = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=8).map(np.array)
CONFIDENCE = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99])


@pytest.fixture
def rng() -> Rng:
    return np.random.default_rng(7)


def margin(share: float, repetitions: int) -> float:
    """Three standard deviations of a share that is estimated from so many repetitions."""
    return 3 * math.sqrt(share * (1 - share) / repetitions)


def one_kind(rows: int) -> stats.Ints:
    return np.zeros(rows, np.int64)


def p_of(adjusted: Floats | None) -> Floats:
    assert adjusted is not None
    return adjusted


# Intervals --------------------------------------------------------------------------------


def is_dual(interval: Interval, p_at: Callable[[float], float], confidence: float) -> None:
    """The interval holds what a test does not reject, and misses as often as that test rejects."""
    for outside, inside in (
        (interval.low - NUDGE, interval.low + NUDGE),
        (interval.high + NUDGE, interval.high - NUDGE),
    ):
        assert p_at(outside) == pytest.approx(1 - interval.confidence, abs=1e-9)
        if interval.confidence >= confidence and interval.low < interval.high:
            assert p_at(inside) > 1 - confidence


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (3, 3), (4, 6), (7, 5), (12, 13)])
def test_interval_of_two_is_that_of_mann_whitney(
    rng: Rng, n: int, m: int, confidence: float
) -> None:
    before, after = rng.normal(size=n), rng.normal(size=m)
    interval = shift_of_two(before, after, confidence)
    is_dual(
        interval,
        lambda shift: float(mannwhitneyu(after - shift, before, method="exact").pvalue),
        confidence,
    )
    assert interval.estimate == np.median([y - x for x in before for y in after])


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("n", [1, 2, 5, 6, 9, 20])
def test_interval_of_pairs_is_that_of_wilcoxon(rng: Rng, n: int, confidence: float) -> None:
    values = rng.normal(size=n)
    interval = shift_of_pairs(values, confidence)
    is_dual(
        interval,
        lambda shift: float(wilcoxon(values - shift, method="exact").pvalue),
        confidence,
    )
    walsh = [(values[i] + values[j]) / 2 for i in range(n) for j in range(i, n)]
    assert interval.estimate == np.median(walsh)


def sign_p(values: Floats, centre: float) -> float:
    return float(binomtest(int((values > centre).sum()), len(values)).pvalue)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("n", [1, 2, 5, 8, 31, 1000])
def test_interval_of_the_median_is_that_of_the_sign_test(
    rng: Rng, n: int, confidence: float
) -> None:
    values = rng.normal(size=n)
    interval = median_interval(values, confidence)
    is_dual(interval, lambda centre: sign_p(values, centre), confidence)
    assert interval.estimate == np.median(values)


def test_many_values_use_the_normal_approximation(rng: Rng) -> None:
    before, after = rng.normal(size=110), rng.normal(size=100)
    two = shift_of_two(before, after, 0.9)
    moved = after - (two.low - 1e-12)
    p = mannwhitneyu(moved, before, method="asymptotic", use_continuity=True).pvalue
    assert two.confidence == pytest.approx(1 - p, abs=1e-9)
    many = rng.normal(size=150)
    pairs = shift_of_pairs(many, 0.9)
    p = wilcoxon(many - (pairs.low - 1e-12), method="asymptotic", correction=True).pvalue
    assert pairs.confidence == pytest.approx(1 - p, abs=1e-9)
    values = rng.normal(size=1001)
    middle = median_interval(values, 0.9)
    assert middle.confidence == pytest.approx(1 - sign_p(values, middle.low - 1e-12), abs=1e-4)
    assert min(two.confidence, pairs.confidence, middle.confidence) >= 0.9


def test_approximate_and_exact_coverage_meet() -> None:
    grid = np.linspace(0, 1, 101) ** 2  # without ties of differences that matter here
    exact = shift_of_two(grid[:100], grid[:100], 0.95)
    near = shift_of_two(grid, grid[:100], 0.95)
    assert near.confidence == pytest.approx(exact.confidence, abs=2e-4)


@pytest.mark.parametrize(
    ("n", "m", "widest"), [(1, 1, 0.0), (1, 2, 1 / 3), (2, 2, 2 / 3), (3, 3, 0.9), (4, 4, 34 / 35)]
)
def test_widest_interval_of_two(n: int, m: int, widest: float) -> None:
    before, after = np.arange(n) ** 2.0, np.arange(m) * 10.0
    interval = shift_of_two(before, after, 0.99)
    assert interval.confidence == pytest.approx(widest)
    assert (interval.low, interval.high) == (-before.max(), after.max())


def test_confidence_that_is_just_reached_counts() -> None:
    three = np.array([0.0, 1.0, 3.0])
    assert shift_of_two(three, three + 9, 0.9) == Interval(9.0, 6.0, 12.0, 0.9)
    assert shift_of_two(three, three + 9, 0.8).high == 11
    assert shift_of_two(three, three + 9, 0.8).confidence == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("n", "widest"), [(1, 0.0), (2, 0.5), (3, 0.75), (4, 0.875), (5, 0.9375), (6, 0.96875)]
)
def test_widest_interval_of_pairs_and_of_the_median(n: int, widest: float) -> None:
    values = np.arange(n) ** 2.0
    for interval in (shift_of_pairs(values, 0.99), median_interval(values, 0.99)):
        assert interval.confidence == pytest.approx(widest)
        assert (interval.low, interval.high) == (values[0], values[-1])


def test_one_value_has_an_interval_without_confidence() -> None:
    one, two = np.array([1.5]), np.array([2.0])
    assert shift_of_two(one, two, 0.9) == Interval(0.5, 0.5, 0.5, 0.0)
    assert shift_of_pairs(one, 0.9) == Interval(1.5, 1.5, 1.5, 0.0)
    assert median_interval(one, 0.9) == Interval(1.5, 1.5, 1.5, 0.0)


@given(VALUES, VALUES, st.integers(-9, 9), CONFIDENCE)
def test_shift_of_two_follows_the_data(
    before: Floats, after: Floats, by: int, confidence: float
) -> None:
    estimate, low, high, reached = astuple(shift_of_two(before, after, confidence))
    assert low <= estimate <= high
    assert 0 <= reached <= 1
    moved = shift_of_two(before, after + by, confidence)
    assert astuple(moved) == (estimate + by, low + by, high + by, reached)
    swapped = shift_of_two(after, before, confidence)
    assert astuple(swapped) == (-estimate, -high, -low, pytest.approx(reached))
    assert shift_of_two(before[::-1], np.sort(after), confidence).low == low


@given(VALUES, CONFIDENCE)
def test_identical_sides_have_no_shift(values: Floats, confidence: float) -> None:
    interval = shift_of_two(values, values, confidence)
    assert interval.estimate == 0
    assert interval.low == -interval.high


@given(VALUES, st.integers(-9, 9), CONFIDENCE, st.sampled_from([shift_of_pairs, median_interval]))
def test_centre_follows_the_data(
    values: Floats, by: int, confidence: float, centre: Callable[[Floats, float], Interval]
) -> None:
    estimate, low, high, reached = astuple(centre(values, confidence))
    assert low <= estimate <= high
    assert astuple(centre(values + by, confidence)) == (
        estimate + by,
        low + by,
        high + by,
        reached,
    )
    assert astuple(centre(-values, confidence)) == (-estimate, -high, -low, reached)


def astuple(interval: Interval) -> tuple[float, float, float, float]:
    return interval.estimate, interval.low, interval.high, interval.confidence


@given(VALUES, VALUES)
def test_more_confidence_is_never_narrower(before: Floats, after: Floats) -> None:
    intervals = [shift_of_two(before, after, level) for level in (0.3, 0.6, 0.9, 0.99)]
    for narrow, wide in pairwise(intervals):
        assert wide.low <= narrow.low
        assert wide.high >= narrow.high
        assert wide.confidence >= narrow.confidence


@pytest.mark.parametrize(
    ("truth", "bracket"),
    [
        (2.0, lambda rng: shift_of_two(rng.exponential(size=3), 2 + rng.exponential(size=3), 0.9)),
        (2.0, lambda rng: shift_of_two(rng.exponential(size=5), 2 + rng.exponential(size=6), 0.9)),
        (1.0, lambda rng: shift_of_pairs(1 + rng.standard_t(2, size=6), 0.9)),
        (math.log(2), lambda rng: median_interval(rng.exponential(size=7), 0.85)),
    ],
)
def test_intervals_cover_as_often_as_they_say(
    rng: Rng, truth: float, bracket: Callable[[Rng], Interval]
) -> None:
    intervals = [bracket(rng) for _ in range(3000)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    stated = intervals[0].confidence
    assert abs(covered - stated) <= margin(stated, 3000)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, math.nan])
def test_confidence_must_be_a_chance(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        median_interval(np.array([1.0]), confidence)


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, 1.0], [[1.0]]])
def test_values_must_be_there_and_finite(values: list[float]) -> None:
    wrong, right = np.array(values, np.float64), np.array([1.0])
    for call in (
        lambda: median_interval(wrong, 0.9),
        lambda: shift_of_pairs(wrong, 0.9),
        lambda: shift_of_two(wrong, right, 0.9),
        lambda: shift_of_two(right, wrong, 0.9),
    ):
        with pytest.raises(ValueError, match="value"):
            call()


# Permutation tests ------------------------------------------------------------------------


def brute_force(
    moderated: Callable[[Floats, Floats], Floats], labels: list[Floats], values: Floats
) -> Floats:
    """Step-down max-T as the book has it, one relabelling after another, the observed first."""
    scores = np.array([moderated(values, label) for label in labels]).T
    adjusted = np.ones(len(values))
    least = 0.0
    order = np.argsort(-scores[:, 0])
    for place, row in enumerate(order):
        greatest = scores[order[place:]].max(axis=0)
        least = max(least, float(np.mean(greatest >= scores[row, 0] * (1 - 1e-9) - 1e-12)))
        adjusted[row] = least
    return adjusted


def moderated_two(kind: stats.Ints) -> Callable[[Floats, Floats], Floats]:
    def score(values: Floats, is_after: Floats) -> Floats:
        before, after = values[:, is_after == 0], values[:, is_after == 1]
        n, m = before.shape[1], after.shape[1]
        within = (n * before.var(axis=1) + m * after.var(axis=1)) / (n + m - 2)
        whole = values.std(axis=1, ddof=1)
        s0 = np.array([np.median(whole[kind == one]) for one in kind])
        difference = np.abs(after.mean(axis=1) - before.mean(axis=1))
        return difference / (np.sqrt(within) + s0) / math.sqrt(1 / n + 1 / m)

    return score


def moderated_pairs(kind: stats.Ints) -> Callable[[Floats, Floats], Floats]:
    def score(values: Floats, signs: Floats) -> Floats:
        flipped = values * signs
        whole = np.sqrt((values**2).mean(axis=1))
        s0 = np.array([np.median(whole[kind == one]) for one in kind])
        n = values.shape[1]
        return np.abs(flipped.mean(axis=1)) / (flipped.std(axis=1, ddof=1) + s0) * math.sqrt(n)

    return score


@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 4), (2, 5), (1, 3), (4, 3)])
def test_permuted_two_is_the_book_s(rng: Rng, n: int, m: int) -> None:
    kind = np.array([0, 0, 0, 1, 1, 1, 1])
    is_before = [np.isin(np.arange(n + m), side) for side in combinations(range(n + m), n)]
    labels = [np.where(side, 0.0, 1.0) for side in is_before]
    for _ in range(10):
        values = rng.normal(size=(7, n + m)) * np.array([[1], [1], [2], [10], [10], [20], [30]])
        values[[0, 4], n:] += np.array([[2], [20]])
        expected = brute_force(moderated_two(kind), labels, values)
        assert permuted_two(values[:, :n], values[:, n:], kind) == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_permuted_pairs_is_the_book_s(rng: Rng, n: int) -> None:
    kind = np.array([0, 1, 0, 1, 0])
    labels = [np.array(signs) for signs in product((1.0, -1.0), repeat=n)]
    for _ in range(40):
        values = rng.normal(size=(5, n)) + np.array([[1], [0], [0], [0.5], [0]])
        expected = brute_force(moderated_pairs(kind), labels, values)
        assert permuted_pairs(values, kind) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (2, 4), (5, 3)])
def test_one_row_alone_is_a_permutation_test_of_means(rng: Rng, n: int, m: int) -> None:
    before, after = rng.normal(size=n), rng.normal(1, size=m)

    def distance(x: Floats, y: Floats, axis: int) -> Floats:
        return np.abs(np.mean(x, axis=axis) - np.mean(y, axis=axis))

    found = permutation_test(
        (before, after), distance, vectorized=True, n_resamples=np.inf, alternative="greater"
    )
    p = p_of(permuted_two(before[np.newaxis], after[np.newaxis], one_kind(1)))
    assert p[0] == pytest.approx(found.pvalue)


def test_one_row_of_pairs_alone_is_a_permutation_test_of_the_mean(rng: Rng) -> None:
    values = rng.normal(0.5, size=6)
    found = permutation_test(
        (values,),
        lambda x, axis: np.abs(np.mean(x, axis=axis)),
        vectorized=True,
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="greater",
    )
    assert p_of(permuted_pairs(values[np.newaxis], one_kind(1)))[0] == pytest.approx(found.pvalue)


def test_random_ways_come_near_all_of_them(rng: Rng) -> None:
    two = rng.normal(size=(1, 18)) + (np.arange(18) >= 9)
    sides = np.array(list(combinations(range(18), 9)))
    sums = np.abs(two[0][sides].sum(axis=1) - two.sum() / 2)
    exact = np.mean(sums >= sums[0] * (1 - 1e-9))
    p = p_of(permuted_two(two[:, :9], two[:, 9:], one_kind(1)))[0]
    assert 0.001 < exact < 0.5
    assert abs(p - exact) <= margin(exact, RANDOM_WAYS) + 1e-4
    pairs = rng.normal(0.3, size=(1, EXACT_FLIPS + 1))
    signs = np.array(list(product((1, -1), repeat=EXACT_FLIPS + 1)))
    sums = np.abs(signs @ pairs[0])
    exact = np.mean(sums >= sums[0] * (1 - 1e-9))
    p = p_of(permuted_pairs(pairs, one_kind(1)))[0]
    assert 0.001 < exact < 0.5
    assert abs(p - exact) <= margin(exact, RANDOM_WAYS) + 1e-4


@pytest.mark.parametrize("n", [4, 10])
def test_p_does_not_depend_on_chunks(rng: Rng, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    before, after = rng.normal(size=(5, n)), rng.normal(0.5, size=(5, n))
    pairs = rng.normal(0.3, size=(5, 2 * n))
    whole = permuted_two(before, after, one_kind(5)), permuted_pairs(pairs, one_kind(5))
    monkeypatch.setattr(stats, "_CELLS", 7 * n)
    parts = permuted_two(before, after, one_kind(5)), permuted_pairs(pairs, one_kind(5))
    np.testing.assert_array_equal(whole, parts)


MATRICES = st.integers(1, 4).flatmap(
    lambda rows: st.tuples(
        *(
            st.lists(
                st.lists(st.integers(-3, 3).map(float), min_size=3, max_size=3),
                min_size=rows,
                max_size=rows,
            ).map(np.array)
            for _ in range(2)
        )
    )
)


@given(MATRICES, st.randoms(use_true_random=False), st.integers(-3, 3))
def test_p_follows_the_data(sides: tuple[Floats, Floats], order: object, by: int) -> None:
    before, after = sides
    kind = np.arange(len(before)) % 2
    with np.errstate(all="raise"):
        p = p_of(permuted_two(before, after, kind))
    assert ((p >= smallest_p(3, 3)) & (p <= 1)).all()
    for same in (
        permuted_two(after, before, kind),
        permuted_two(before[:, ::-1], after[:, [1, 2, 0]], kind),
        permuted_two(before + by / 7, after + by / 7, kind),
        permuted_two(before * 0.37, after * 0.37, kind),
        p_of(permuted_two(before[::-1], after[::-1], kind[::-1]))[::-1],
    ):
        np.testing.assert_array_equal(same, p)


def test_rows_that_do_not_vary_are_no_trouble() -> None:
    before, after = np.full((3, 3), math.log(3.3)), np.full((3, 3), math.log(3.3))
    with np.errstate(all="raise"):
        assert p_of(permuted_two(before, after, one_kind(3))).tolist() == [1, 1, 1]
        after[1] = math.log(3.4)
        assert p_of(permuted_two(before, after, one_kind(3))).tolist() == [1, 0.1, 1]
        assert p_of(permuted_pairs(np.zeros((2, 5)), one_kind(2))).tolist() == [1, 1]
        differences = np.array([[0.0] * 5, [0.1] * 5])
        assert p_of(permuted_pairs(differences, one_kind(2))).tolist() == [1, 0.0625]


def test_rows_that_do_not_vary_do_not_count(rng: Rng) -> None:
    values = rng.normal(size=(5, 11)) + np.array([[0.0]] * 4 + [[1.0]]) * (np.arange(11) > 4)
    alone = p_of(permuted_two(values[:, :5], values[:, 5:], one_kind(5)))
    more = np.concatenate([values, np.repeat(rng.normal(size=(60, 1)), 11, axis=1)])
    p = p_of(permuted_two(more[:, :5], more[:, 5:], one_kind(65)))
    assert p.tolist() == [*alone, *[1.0] * 60]


def test_mirrored_ways_tie_whatever_the_scale(rng: Rng) -> None:
    for _ in range(50):
        shift = 10.0 ** rng.integers(-6, 3)
        noise = 10.0 ** rng.integers(-9, 0)
        values = rng.normal(size=(20, 6)) * noise + rng.normal(size=(20, 1)) * 100
        values[3, 3:] += max(shift, 100 * noise)
        p = p_of(permuted_two(values[:, :3], values[:, 3:], one_kind(20)))
        assert p[3] == 2 / 20


def test_one_kind_does_not_hold_down_the_other(rng: Rng) -> None:
    noise = np.repeat([0.001, 0.3], 25)[:, np.newaxis]
    before, after = (rng.normal(size=(50, 4)) * noise for _ in range(2))
    after[0] += 0.01
    kinds = np.repeat([0, 1], 25)
    assert p_of(permuted_two(before, after, kinds))[0] == 2 / 70
    assert p_of(permuted_two(before, after, one_kind(50)))[0] > 0.1


def test_too_few_samples_give_no_p() -> None:
    rows = np.ones((2, 3))
    assert permuted_two(rows[:, :1], rows[:, :1], one_kind(2)) is None
    assert permuted_two(rows[:, :0], rows, one_kind(2)) is None
    assert permuted_two(rows, rows[:, :0], one_kind(2)) is None
    assert permuted_pairs(rows[:, :1], one_kind(2)) is None
    assert permuted_pairs(rows[:, :0], one_kind(2)) is None


def test_no_rows_give_no_p() -> None:
    assert p_of(permuted_two(np.ones((0, 3)), np.ones((0, 3)), one_kind(0))).shape == (0,)
    assert p_of(permuted_pairs(np.ones((0, 5)), one_kind(0))).shape == (0,)


def test_what_cannot_be_tested_is_refused() -> None:
    rows = np.ones((2, 3))
    with pytest.raises(ValueError, match="kinds"):
        permuted_two(rows, rows, one_kind(3))
    with pytest.raises(ValueError, match="kinds"):
        permuted_pairs(rows, one_kind(3))
    with pytest.raises(ValueError, match="finite"):
        permuted_two(rows, rows * math.nan, one_kind(2))
    with pytest.raises(ValueError, match="dimensions"):
        permuted_pairs(rows[0], one_kind(2))
    with pytest.raises(ValueError, match="rows"):
        permuted_two(rows, rows[:1], one_kind(2))


def noise_of(rng: Rng, rows: int, samples: int) -> Floats:
    """Heavy tails (Student's t, 2 degrees), and whole samples that are slow or fast."""
    common = rng.standard_t(2, size=samples)
    own = rng.standard_t(2, size=(rows, samples)) * rng.choice([0.1, 1, 5], size=(rows, 1))
    return common + own


REPETITIONS = 1500


@pytest.mark.parametrize(("n", "reached"), [(3, 2 / 20), (4, 6 / 70)])
def test_two_samples_without_change_are_called_at_the_level(
    rng: Rng, n: int, reached: float
) -> None:
    """The share is the greatest multiple of the smallest p up to 0.1, within 3 sd (0.023)."""
    called = 0
    for _ in range(REPETITIONS):
        values = noise_of(rng, 8, 2 * n)
        p = p_of(permuted_two(values[:, :n], values[:, n:], np.arange(8) % 2))
        called += bool((p <= 0.1).any())
    assert abs(called / REPETITIONS - reached) <= margin(reached, REPETITIONS)


def test_pairs_without_change_are_called_at_the_level(rng: Rng) -> None:
    """As above: 6 of 64 sign flips, within 3 sd (0.023)."""
    called = 0
    for _ in range(REPETITIONS):
        values = noise_of(rng, 8, 6)
        called += bool((p_of(permuted_pairs(values, np.arange(8) % 2)) <= 0.1).any())
    assert abs(called / REPETITIONS - 6 / 64) <= margin(6 / 64, REPETITIONS)


def test_changed_rows_do_not_make_others_called(rng: Rng) -> None:
    """At most the level and 3 sd (0.023) with 4 of 10 rows changed, which a row hides behind."""
    wrong = right = 0
    for _ in range(REPETITIONS):
        values = rng.normal(size=(10, 8)) + rng.normal(size=8)
        values[:4, 4:] += 12
        p = p_of(permuted_two(values[:, :4], values[:, 4:], one_kind(10)))
        wrong += bool((p[4:] <= 0.1).any())
        right += bool((p[:4] <= 0.1).all())
    assert wrong / REPETITIONS <= 0.1 + margin(0.1, REPETITIONS)
    assert right / REPETITIONS >= 0.9


def test_a_row_that_takes_twice_as_long_is_found(rng: Rng) -> None:
    for _ in range(50):
        values = rng.normal(size=(51, 6)) * 0.03
        values[20, 3:] += math.log(2)
        assert p_of(permuted_two(values[:, :3], values[:, 3:], one_kind(51)))[20] == 0.1


# How much so many samples can tell --------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "m"), [(0, 0), (0, 3), (1, 1), (1, 2), (2, 2), (3, 3), (2, 5), (4, 4), (12, 12), (12, 7)]
)
def test_smallest_p_is_reached_and_not_passed(rng: Rng, n: int, m: int) -> None:
    before, after = rng.normal(size=(3, n)), rng.normal(size=(3, m)) + 1e4
    p = permuted_two(before, after, one_kind(3))
    assert (1 if p is None else p.min()) == smallest_p(n, m)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 6, 14, 40])
def test_smallest_p_of_pairs_is_reached_and_not_passed(rng: Rng, n: int) -> None:
    p = permuted_pairs(rng.normal(size=(3, n)) + 1e4, one_kind(3))
    assert (1 if p is None else p.min()) == smallest_p_pairs(n)


def test_random_ways_may_draw_the_observed_one_again(rng: Rng) -> None:
    pairs = rng.normal(size=(3, 15)) + 1e4
    assert 1e-4 <= p_of(permuted_pairs(pairs, one_kind(3))).min() <= 3e-4
    before, after = np.zeros((1, 9)), np.ones((1, 9))
    assert 1e-4 <= p_of(permuted_two(before, after, one_kind(1)))[0] <= 3e-4


def test_a_change_of_sides_of_two_sizes_has_no_mirror_image() -> None:
    before, after = np.array([[0.0, 0.1]]), np.array([[5.0, 5.1, 5.2]])
    assert p_of(permuted_two(before, after, one_kind(1)))[0] == smallest_p(2, 3) == 1 / 10


def test_levels_and_how_many_samples_carry_them() -> None:
    levels = (0.5, 0.1, 0.05, 0.01, 0.001)
    assert [captures_to_carry(level) for level in levels] == [2, 3, 4, 5, 7]
    assert carries(0.1, 3, 3)
    assert not carries(0.05, 3, 3)
    assert carries(0.05, 3, 4)
    for level in (0.0, 0.0009, 1.0, math.nan):
        with pytest.raises(ValueError, match="level"):
            captures_to_carry(level)


# Drift ------------------------------------------------------------------------------------


def test_what_is_common_to_a_sample_is_taken_out() -> None:
    random = np.random.default_rng(3)
    own = random.normal(0, 0.01, (40, 6))
    drift = np.array([0.0, 0.4, -0.3, 0.1, 0.5, -0.2])
    own[7, 3:] += 0.5
    rows = own + drift
    assert p_of(permuted_two(rows[:, :3], rows[:, 3:], one_kind(40)))[7] > 0.1
    one, other = drift_of(rows[:, :3], rows[:, 3:])
    found = np.concatenate([one, other])
    assert np.abs(found - found.mean() - drift + drift.mean()).max() < 0.02
    p = p_of(permuted_two(rows[:, :3] - one, rows[:, 3:] - other, one_kind(40)))
    assert np.flatnonzero(p <= 0.1).tolist() == [7]


def test_relabelling_samples_relabels_their_drift() -> None:
    random = np.random.default_rng(4)
    rows, order = random.normal(0, 1, (9, 7)), random.permutation(7)
    drift = np.concatenate(drift_of(rows[:, :3], rows[:, 3:]))
    moved = rows[:, order]
    again = np.concatenate(drift_of(moved[:, :4], moved[:, 4:]))
    np.testing.assert_allclose(again, drift[order])


def test_equal_rows_do_not_drift() -> None:
    one, other = drift_of(np.full((4, 2), 0.1), np.full((4, 3), 0.1))
    assert not one.any()
    assert not other.any()


@pytest.mark.parametrize(
    ("before", "after", "overlap"),
    [([1, 2], [2, 3], True), ([1, 2], [2.5, 3], False), ([5], [1, 9], True), ([5, 6], [1], False)],
)
def test_ranges_overlap(before: list[float], after: list[float], overlap: bool) -> None:
    assert do_overlap(np.array(before), np.array(after)) is overlap


# Verdicts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "p", "floor", "verdict"),
    [
        ((0.0, -0.005, 0.005, 0.9), 1.0, 0.0, Verdict.SAME),
        ((0.0, -0.005, 0.005, 0.9), None, 0.0, Verdict.SAME),
        ((0.004, 0.003, 0.005, 0.95), 0.1, 0.0, Verdict.SAME),
        ((0.0, -0.005, 0.005, 0.89), 1.0, 0.0, Verdict.UNCLEAR),
        ((0.0, -0.005, 0.005, 0.9), 1.0, 0.011, Verdict.UNCLEAR),
        ((0.0, -0.005, 0.005, 0.9), 1.0, math.inf, Verdict.UNCLEAR),
        ((0.0, -0.005, 0.005, 0.9), 1.0, math.nan, Verdict.UNCLEAR),
        ((0.0, -0.005, 0.011, 0.9), 1.0, 0.0, Verdict.UNCLEAR),
        ((0.0, -0.011, 0.005, 0.9), 1.0, 0.0, Verdict.UNCLEAR),
        ((0.3, 0.2, 0.4, 0.9), 0.1, 0.0, Verdict.SLOWER),
        ((-0.3, -0.4, -0.2, 0.9), 0.1, 0.0, Verdict.FASTER),
        ((-0.3, -0.4, -0.2, 0.9), 0.11, 0.0, Verdict.UNCLEAR),
        ((-0.3, -0.4, -0.2, 0.9), None, 0.0, Verdict.UNCLEAR),
        ((-0.3, -0.4, -0.2, 0.9), 0.1, 0.3, Verdict.UNCLEAR),
        ((-0.3, -0.4, -0.2, 0.0), 0.1, 0.29, Verdict.FASTER),
        ((math.nan, math.nan, math.nan, 0.9), 0.1, 0.0, Verdict.UNCLEAR),
    ],
)
def test_judge(
    change: tuple[float, float, float, float], p: float | None, floor: float, verdict: Verdict
) -> None:
    assert judge(Interval(*change), p, level=0.1, bound=0.01, floor=floor) is verdict


def test_verdicts_are_words() -> None:
    assert [str(verdict) for verdict in Verdict] == ["faster", "slower", "same", "can't tell"]


def needed(estimate: float, spread: float, level: float = 0.05, bound: float = 0.01) -> int | None:
    change = Interval(estimate, estimate - 1, estimate + 1, 0.9)
    return captures_needed(change, spread, level=level, bound=bound)


def test_captures_needed_is_lehr_s_rule() -> None:
    assert needed(0.1, 0.1) == 16
    assert needed(-0.1, 0.2) == 63
    assert needed(0.1, 0.1, level=0.1) == 13
    assert needed(0.0, math.log1p(0.01)) == 16  # the bound is the effect


def test_captures_needed_has_ends() -> None:
    assert needed(0.5, 0.01) == 4
    assert needed(0.5, 0.0, level=0.1) == 3
    assert needed(0.01, 0.07) == 770
    assert needed(0.01, 0.08) is None  # 1005
    assert needed(0.1, math.nan) is None
    assert needed(0.1, math.inf) is None
    assert needed(math.nan, 0.1) is None
    assert needed(0.0, 0.1, bound=0.0) is None


def test_pooled_spread_is_student_s(rng: Rng) -> None:
    before, after = rng.normal(size=(6, 3)), rng.normal(1, size=(6, 5))
    t = ttest_ind(after, before, axis=1).statistic
    expected = (after.mean(axis=1) - before.mean(axis=1)) / t / math.sqrt(1 / 3 + 1 / 5)
    assert pooled_spread(before, after) == pytest.approx(expected)
    assert pooled_spread(before, after[:, :1]) == pytest.approx(before.std(axis=1, ddof=1))
    assert pooled_spread(before[:, :0], after) == pytest.approx(after.std(axis=1, ddof=1))
    assert np.isnan(pooled_spread(before[:, :1], after[:, :1])).tolist() == [True] * 6


def test_spread_of_rows_is_the_median_and_its_deviation(rng: Rng) -> None:
    changes = rng.normal(0.2, size=FEWEST_ROWS)
    drift, scale = spread_of_rows(np.append(changes, [math.nan, math.inf]))
    assert drift == np.median(changes)
    assert scale == pytest.approx(median_abs_deviation(changes, scale="normal"), rel=1e-4)
    assert spread_of_rows(changes[1:]) == (np.median(changes[1:]), math.inf)
    assert spread_of_rows(np.array([])) == (0.0, math.inf)
    assert spread_of_rows(np.array([math.nan])) == (0.0, math.inf)
