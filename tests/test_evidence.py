"""What samples can carry: units, verdicts of real captures, and how often unchanged code is called
changed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

import traceq
from tests.bench.detect import Look, paired, take_steps
from tests.conftest import ROOT
from tests.tracemaker import Event, compact, complete
from traceq import stats
from traceq.align import GroupKey, Kind
from traceq.compare import Diff, compare
from traceq.errors import UsageError
from traceq.evidence import BOUND, FLOOR_WIDTH, LEVEL, Evidence, Finding, _of_captures
from traceq.reading import Question, Reading, read
from traceq.samples import CAPTURES, RowKey, Samples, Unit, choose_unit
from traceq.stats import Verdict

UNDER = "GatedDeltaNet"
SAMPLES = ROOT / "sample_traces"
LARGE = "gdn-h200-large/einops.json.gz"
NULLS = int(os.environ.get("TRACEQ_NULLS", "30"))
"""Of 200, which take four times as long, 6 declared a row, and 23 by p alone."""
REPLACED = GroupKey(
    Kind.REPLACED,
    "transformers/models/qwen3_5/modeling_qwen3_5.py: forward",
    ("einops/einops.py: rearrange",),
    ("<built-in method flatten of Tensor object>",),
)
"""What sets the two sides of the captures apart."""


@dataclass(frozen=True)
class Captures:
    """Captures of two sides, read with one question."""

    folder: Path
    under: str
    question: Question = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "question", Question(under=(self.under,)))

    def read(self, name: str) -> Reading:
        with traceq.open(self.folder / name) as trace:
            return read(trace, self.question)

    @cached_property
    def sides(self) -> tuple[list[Reading], list[Reading]]:
        """Three captures a side."""
        one, other = (
            [self.read(f"{side}-{number}.json.gz") for number in range(3)]
            for side in ("einops", "flatten")
        )
        return one, other

    def compare(
        self, before: Sequence[Reading], after: Sequence[Reading], level: float = LEVEL
    ) -> Diff:
        return compare(before, after, self.question, level=level)


@pytest.fixture(scope="module")
def samples() -> Captures:
    return Captures(SAMPLES, UNDER)


def found(diff: Diff, table: str, name: str) -> Finding:
    finding = diff.evidence.of(table, name)
    assert finding is not None
    return finding


def verdicts(diff: Diff) -> dict[str, str]:
    """What is said of the scopes' time."""
    return {name: str(found(diff, "scopes", name).verdict) for name in ("cpu", "gpu")}


def changed(evidence: Evidence) -> set[RowKey]:
    """The rows that are declared faster or slower."""
    moved = (Verdict.FASTER, Verdict.SLOWER)
    return {key for key, item in evidence.findings.items() if item.verdict in moved}


# Units ----------------------------------------------------------------------------------------


def test_captures_are_the_samples_from_three_a_side(samples: Captures) -> None:
    one, other = samples.sides
    assert CAPTURES == 3
    assert choose_unit(one, other) is Unit.CAPTURE
    assert choose_unit(one[:2], other) is Unit.STEP
    assert choose_unit(one[:1], other[:1]) is Unit.STEP
    assert choose_unit(one, other[:2]) is Unit.STEP


def test_a_step_is_no_sample_where_captures_have_other_numbers_of_them(samples: Captures) -> None:
    one, other = samples.sides
    fewer = take_steps(other[0], range(4))
    assert (one[0].steps, fewer.steps) == (5, 4)
    assert choose_unit(one[:1], [fewer]) is Unit.NONE
    assert choose_unit(one, [*other[:2], fewer]) is Unit.CAPTURE
    with pytest.raises(UsageError, match="differ in steps: 5"):
        samples.compare(one[:1], [fewer])
    diff = compare(one[:1], [fewer], samples.question, force=True)
    assert (diff.evidence.unit, diff.evidence.carries) == (Unit.NONE, False)
    assert not changed(diff.evidence)
    assert all(item.p is None for item in diff.evidence.findings.values())


# The change between the sides -----------------------------------------------------------------


def assert_names_the_change(diff: Diff, captures: int) -> Finding:
    """The one steady group is in all scopes; all that is unchanged is the same code."""
    ((number, group),) = diff.steady_groups
    assert group.key == REPLACED
    assert group.instances == group.scopes
    assert len(group.instances) == captures
    assert not group.is_ambiguous
    finding = found(diff, "groups", number)
    assert finding.per_call is not None
    assert finding.per_call.low <= finding.per_call.estimate <= finding.per_call.high < 0
    assert finding.change.high < 0
    return finding


def test_three_captures_a_side_name_the_change(samples: Captures) -> None:
    diff = samples.compare(*samples.sides)
    finding = assert_names_the_change(diff, 3)
    assert diff.steady_groups[0][1].scopes == [15] * 3
    assert (diff.evidence.unit, diff.evidence.samples) == (Unit.CAPTURE, (3, 3))
    assert (diff.evidence.carries, diff.evidence.drift) == (True, {})
    assert finding.verdict is Verdict.FASTER
    assert finding.p == pytest.approx(0.1)
    assert finding.change.confidence == pytest.approx(0.9)
    # All that is declared: what was replaced, and aten::flatten, which is called 15 times more.
    flatten = RowKey("ops", "aten::flatten")
    assert changed(diff.evidence) == {RowKey("groups", diff.steady_groups[0][0]), flatten}
    assert found(diff, *flatten).verdict is Verdict.SLOWER
    assert verdicts(diff) == {"cpu": "can't tell", "gpu": "same"}
    noise = diff.evidence.noise
    assert noise["cpu"] > 100 * noise["gpu"] > 0


@pytest.mark.parametrize("number", range(3))
def test_single_pairs_name_it_too(samples: Captures, number: int) -> None:
    one, other = samples.sides
    diff = samples.compare([one[number]], [other[number]])
    finding = assert_names_the_change(diff, 1)
    assert diff.steady_groups[0][1].scopes == [15]
    assert (diff.evidence.unit, diff.evidence.samples) == (Unit.STEP, (5, 5))
    assert diff.evidence.noise == {"cpu": None, "gpu": None}
    assert finding.p == pytest.approx(0.0625)
    assert verdicts(diff) == {"cpu": "can't tell", "gpu": "same"}
    # Captures of the same code are up to 1.6 times apart: what is less than that is not told.
    drift, width = diff.evidence.drift["cpu"]
    beyond = abs(np.log1p(finding.change.estimate)) - abs(drift)
    assert (finding.verdict is Verdict.FASTER) == (beyond > width) == (number < 2)


def test_both_ways_round(samples: Captures) -> None:
    one, other = samples.sides
    diff = samples.compare(other, one)
    ((number, group),) = diff.steady_groups
    assert (group.key.before, group.key.after) == (REPLACED.after, REPLACED.before)
    assert found(diff, "groups", number).verdict is Verdict.SLOWER


@pytest.mark.corpus
def test_the_change_in_the_corpus(corpus: Path) -> None:
    captures = Captures(corpus / "gdn-h200", UNDER)
    one, other = captures.sides
    diff = captures.compare(one, other)
    assert assert_names_the_change(diff, 3).verdict is Verdict.FASTER
    assert diff.steady_groups[0][1].instances == [30] * 3
    assert verdicts(diff)["cpu"] == "can't tell"
    for before, after in zip(one, other, strict=True):
        assert_names_the_change(captures.compare([before], [after]), 1)


# Levels ---------------------------------------------------------------------------------------


def test_a_level_that_three_captures_cannot_carry(samples: Captures) -> None:
    diff = samples.compare(*samples.sides, level=0.05)
    assert (diff.evidence.carries, diff.evidence.level) == (False, 0.05)
    assert all(item.p is None for item in diff.evidence.findings.values())
    assert not changed(diff.evidence)
    # What is found by structure, and the intervals, stay; these have the confidence they can have.
    finding = assert_names_the_change(diff, 3)
    assert (finding.verdict, finding.change.confidence) == (Verdict.UNCLEAR, pytest.approx(0.9))
    assert finding.needed is not None
    assert finding.needed >= stats.captures_to_carry(0.05) == 4


def test_a_level_that_five_steps_cannot_carry(samples: Captures) -> None:
    one, other = samples.sides
    for level, carries in ((0.07, True), (0.05, False)):
        evidence = samples.compare(one[:1], other[:1], level).evidence
        assert (evidence.unit, evidence.carries) == (Unit.STEP, carries)
        assert bool(changed(evidence)) == carries
        tested = {key.table for key, item in evidence.findings.items() if item.p is not None}
        assert tested == ({"scopes", "ops", "kernels", "groups"} if carries else set())


def test_no_interval_claims_more_than_it_has(samples: Captures) -> None:
    one, other = samples.sides
    for before, after in ((one, other), (one[:1], other[:1])):
        for item in samples.compare(before, after).evidence.findings.values():
            for interval in (item.before, item.change, item.after):
                assert interval.low <= interval.estimate <= interval.high
                assert 0 <= interval.confidence <= 1
            # The same is only said with the confidence that was asked for.
            if item.verdict is Verdict.SAME:
                assert item.change.confidence >= 1 - LEVEL - 1e-9
            assert item.p is None or 0 < item.p <= 1


# Unchanged code -------------------------------------------------------------------------------


def splits(side: Sequence[Reading]) -> Iterator[tuple[list[Reading], list[Reading]]]:
    """Every way to take captures of one side for before and others for after."""
    for n, m in ((1, 1), (1, 2)):
        for before in itertools.combinations(range(len(side)), n):
            left = [item for item in range(len(side)) if item not in before]
            for after in itertools.combinations(left, m):
                yield [side[i] for i in before], [side[i] for i in after]


def assert_unchanged(captures: Captures) -> None:
    """The share of splits with any row declared is at most the level; and no code is changed."""
    tried, wrong = 0, []
    for side in captures.sides:
        for before, after in splits(side):
            diff = captures.compare(before, after)
            assert not diff.steady_groups
            assert not any(group.is_steady for group in diff.kernel_groups.rows)
            assert set(diff.table["status"]) <= {"same", "uneven"}
            assert verdicts(diff)["cpu"] == "can't tell"
            tried += 1
            wrong += [changed(diff.evidence)] if changed(diff.evidence) else []
    assert tried == 2 * (6 + 3)
    assert len(wrong) <= LEVEL * tried, wrong


def test_every_split_of_same_side_captures(samples: Captures) -> None:
    assert_unchanged(samples)


@pytest.mark.corpus
def test_every_split_of_same_side_captures_of_the_corpus(corpus: Path) -> None:
    assert_unchanged(Captures(corpus / "gdn-h200", UNDER))


@pytest.mark.corpus
def test_resampled_null_comparisons_by_step(corpus: Path) -> None:
    # 30 steps of one capture, which is nothing but unchanged code, in 15 random pairs: one of each
    # is before, the other after, by the way that a comparison by step takes, groups and all.
    if not (corpus / LARGE).is_file():
        pytest.skip(f"the corpus has no {LARGE}")
    reading = Captures(corpus / "gdn-h200-large", UNDER).read("einops.json.gz")
    generator = np.random.default_rng(stats.SEED)
    floored = passing = 0
    for _ in range(NULLS):
        one, other = paired(generator, range(reading.steps))
        look = Look.at([take_steps(reading, one)], [take_steps(reading, other)])
        assert look.evidence.unit is Unit.STEP
        assert (look.evidence.samples, look.evidence.carries) == ((15, 15), True)
        floored += bool(look.declared)
        passing += bool(look.passing)
    margin = 2 * sqrt(LEVEL * (1 - LEVEL) / NULLS)
    print(f"of {NULLS}: any row declared {floored}, p alone {passing}; margin {margin:.3f}")
    assert floored <= LEVEL * NULLS
    # Each draw is an exact test at the level, whatever the steps are, so the count is binomial: of
    # 2400 draws from other seeds 238 pass (0.099), of the first 200 from one of them 31.
    assert passing <= (LEVEL + margin) * NULLS


# Drift -----------------------------------------------------------------------------------------


def drifting(
    rows: int, captures: int, changed: int, by: float, rng: np.random.Generator
) -> Samples:
    """Rows with noise of 2 %, captures that drift by 5 %, and some rows that really changed."""
    logs = 10 + rng.normal(0, 0.02, (rows, 2 * captures)) + rng.normal(0, 0.05, 2 * captures)
    logs[:changed, captures:] += np.log1p(by)
    keys = tuple(RowKey("ops", str(number)) for number in range(rows))
    times = np.exp(logs)
    kind, tested = np.zeros(rows, np.int64), np.ones(rows, np.bool_)
    return Samples(keys, kind, times[:, :captures], times[:, captures:], {}, tested)


@pytest.mark.parametrize(
    ("captures", "changed", "by", "power"),
    [(3, 0, 0, 0), (3, 2, 0.3, 0.9), (3, 16, 0.3, 0.9), (6, 10, 0.3, 0.9), (5, 16, -0.1, 0.4)],
)
def test_rows_that_changed_do_not_make_others_seem_to(
    captures: int, changed: int, by: float, power: float
) -> None:
    # Without FREE_WIDTH and the look at the drift itself: 0.49 of the third and 0.49 of the fourth.
    rng, trials, rows, wrong, found = np.random.default_rng(stats.SEED), 60, 40, 0, 0
    for _ in range(trials):
        evidence = _of_captures(drifting(rows, captures, changed, by, rng), LEVEL, BOUND)
        declared = [item.verdict.is_change for item in evidence.findings.values()]
        wrong += any(declared[changed:])
        found += sum(declared[:changed])
    assert wrong <= (LEVEL + 2 * sqrt(LEVEL * (1 - LEVEL) / trials)) * trials
    assert found >= power * changed * trials


def test_what_only_the_drift_hides_is_marked() -> None:
    rng = np.random.default_rng(7)
    evidence = _of_captures(drifting(40, 3, 1, 0.3, rng), LEVEL, BOUND)
    one = evidence.of("ops", "0")
    assert one is not None
    assert one.verdict is Verdict.SLOWER
    assert one.drift_free is not None
    assert one.drift_free.low > 0
    few = _of_captures(drifting(stats.FEWEST_ROWS - 1, 3, 1, 0.3, rng), LEVEL, BOUND)
    assert all(item.drift_free is None for item in few.findings.values())


# The floor of one capture a side --------------------------------------------------------------

OPS, STEPS = 30, 6
Length = Callable[[int, int], int]
"""How long (ns) an op takes in a step."""


def write_steps(path: Path, length: Length, *, ops: int = OPS, steps: int = STEPS) -> Path:
    """Steps of one scope, in which each op is called once."""
    events, now = [], 0
    for step in range(steps):
        calls, begin = [], now
        for op in range(ops):
            ns = length(op, step)
            calls.append(_slice(f"op{op:02}", now, ns))
            now += ns + 50
        end = now
        events += [
            _slice(f"ProfilerStep#{step}", begin, end - begin, cat="user_annotation"),
            _slice("nn.Module: Scope_0", begin, end - begin, cat="python_function"),
            *calls,
        ]
        now = end + 1_000
    path.write_bytes(compact(events, schemaVersion=1))
    return path


def _slice(name: str, ts: int, dur: int, **fields: str) -> Event:
    return complete(name, ts / 1000, dur / 1000, **fields)


def jitter(seed: int) -> Length:
    """Each op has its own time, and each call of it some noise."""
    generator = np.random.default_rng(seed)
    spread = generator.normal(1, 0.03, (OPS, STEPS))
    return lambda op, step: round((1_000 + 100 * op) * 10 * spread[op, step])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Length, Length], Diff]:
    """Compares two captures that are made of lengths."""
    folder = tmp_path_factory.mktemp("evidence")

    def compare_made(before: Length, after: Length) -> Diff:
        captures = Captures(folder, "Scope")
        sides = []
        for name, length in (("before.json", before), ("after.json", after)):
            write_steps(folder / name, length)
            sides.append([captures.read(name)])
        return captures.compare(*sides)

    return compare_made


def slower(length: Length, factor: float, *ops: int) -> Length:
    """Some ops (all, if none is named) take so many times as long."""
    return lambda op, step: round(length(op, step) * (factor if op in ops or not ops else 1))


Made = Callable[[Length, Length], Diff]


def test_what_all_rows_do_is_drift(made: Made) -> None:
    diff = made(jitter(1), slower(jitter(2), 1.5))
    drift, width = diff.evidence.drift["cpu"]
    assert drift == pytest.approx(np.log(1.5), abs=0.03)
    assert 0 < width < FLOOR_WIDTH * 0.05
    assert (diff.evidence.unit, diff.evidence.carries) == (Unit.STEP, True)
    assert not changed(diff.evidence)
    assert found(diff, "ops", "op03").p == pytest.approx(2 / 2**STEPS)
    assert diff.changes.empty


@pytest.mark.parametrize("factor", [0.2, 10])
def test_a_row_that_goes_against_the_drift_or_far_beyond_it_is_declared(
    made: Made, factor: float
) -> None:
    diff = made(jitter(1), slower(slower(jitter(2), 1.5), factor, 7))
    expected = Verdict.SLOWER if factor > 1 else Verdict.FASTER
    assert found(diff, "ops", "op07").verdict is expected
    assert {key for key in changed(diff.evidence) if key.table == "ops"} == {RowKey("ops", "op07")}
    assert list(diff.changes["op"]) == ["op07"]


def test_a_row_that_did_not_move_is_not_called_the_same_against_a_drift(made: Made) -> None:
    diff = made(jitter(1), slower(slower(jitter(1), 1.5), 1 / 1.5, 7))
    assert found(diff, "ops", "op07").verdict is Verdict.UNCLEAR
    assert abs(found(diff, "ops", "op07").change.estimate) < 1e-3


def test_without_a_drift_a_small_change_of_one_row_is_hidden_by_the_width(made: Made) -> None:
    small, large = (made(jitter(1), slower(jitter(2), factor, 7)) for factor in (1.05, 2))
    assert not changed(small.evidence)
    assert RowKey("ops", "op07") in changed(large.evidence)


def test_too_few_rows_have_no_width(tmp_path: Path) -> None:
    captures = Captures(tmp_path, "Scope")
    sides = []
    for name, factor in (("before.json", 1), ("after.json", 50)):
        length = slower(jitter(factor), factor, 7)
        write_steps(tmp_path / name, length, ops=stats.FEWEST_ROWS - 1)
        sides.append([captures.read(name)])
    evidence = captures.compare(*sides).evidence
    assert evidence.drift["cpu"][1] == np.inf
    assert evidence.to_dict()["drift"]["cpu"]["width"] is None
    assert not changed(evidence)
