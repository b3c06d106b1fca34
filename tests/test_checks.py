"""Conditions held against real comparisons: what ``--fail-if`` says of the sample traces."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import traceq
from tests.conftest import ROOT
from tests.tracemaker import Event, compact, complete
from traceq.compare import Diff
from traceq.errors import UsageError
from traceq.gate import Outcome, parse_condition
from traceq.reading import Question, read
from traceq.samples import CPU, GPU, RowKey, _kind_of

pytestmark = pytest.mark.filterwarnings(
    "error",
    # What an earlier test left to the garbage collector is not for these to answer for.
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def captures(stack: ExitStack, kind: str, numbers: range) -> list[traceq.Trace]:
    paths = [ROOT / "sample_traces" / f"{kind}-{number}.json.gz" for number in numbers]
    return [stack.enter_context(traceq.open(path)) for path in paths]


THREE = {
    "gpu > 1%": "pass",
    "gpu > 100us": "pass",
    "gpu < -5%": "pass",
    "cpu > 2%": "inconclusive",
    "cpu > 500%": "pass",
    "cpu > 5ms": "inconclusive",
    "rearrange.calls > 0": "pass",
    "'einops.py: rearrange'.calls > 0": "pass",
    "'flatten of Tensor'.calls > 14": "fail",
    "'aten::flatten'.calls >= 45": "fail",
    "'aten::flatten'.calls > 45": "pass",
    "'flatten of Tensor' > 50us": "fail",  # added: all of its time is more
    "'einops.py: rearrange' > 0%": "pass",  # removed
    "conv_depthwise2d.gpu > 2%": "pass",
    "nothing_like_it.calls > 0": "pass",
    # A replaced op and what replaced it are one row: less time, though an op was added.
    "'re:(einops.py: rearrange|flatten of Tensor object)' > 0%": "pass",
    "'re:(einops.py: rearrange|flatten of Tensor object)' < -50%": "fail",
    "'re:(einops.py: rearrange|flatten of Tensor object)' < -400us": "inconclusive",
    "flatten > 10us": "fail",
    "direct_copy.calls > 0": "fail",  # of kernels, as no op is called so
}
ONE = {
    "gpu > 1%": "pass",  # shown to be the same by the steps
    "cpu > 2%": "inconclusive",
    "cpu < -5%": "inconclusive",  # the steps alone would say so: -26.5 % to -11.6 %
    "rearrange.calls > 0": "pass",
    "'flatten of Tensor'.calls > 0": "fail",
}


def compare(count: int, conditions: Sequence[str]) -> Diff:
    """So many captures a side."""
    with ExitStack() as stack:
        before, after = (captures(stack, kind, range(count)) for kind in ("einops", "flatten"))
        return traceq.diff(before, after, under="GatedDeltaNet", fail_if=conditions)


@pytest.fixture(scope="module")
def three() -> Diff:
    return compare(3, [*THREE])


def test_three_captures_a_side(three: Diff) -> None:
    assert {str(item.condition): item.state for item in three.outcomes} == {
        str(parse_condition(text)): state for text, state in THREE.items()
    }
    for outcome in three.outcomes:
        assert outcome.reason.startswith(str(outcome.condition))


def test_one_capture_a_side_is_no_proof_of_cpu_time() -> None:
    outcomes = compare(1, [*ONE]).outcomes
    assert [item.state for item in outcomes] == [*ONE.values()]


def test_time_of_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="no op of either side matches 'rearrang_'"):
        compare(1, ["rearrang_ > 1%"])


def test_ops_of_one_side_have_no_interval_of_a_ratio(three: Diff) -> None:
    reasons = [item.reason for item in three.outcomes if item.condition.pattern is not None]
    assert "'einops.py: rearrange'.cpu > 0% does not hold: −100.00% (removed)." in reasons
    (added,) = (text for text in reasons if text.startswith("'flatten of Tensor'.cpu > 50us"))
    assert "interval" not in added
    assert added.endswith("(+162.214 µs to +208.541 µs, over captures; added).")


def test_bounds_in_time_are_held_against_the_captures_times(three: Diff) -> None:
    # 951.209, 856.131 and 519.456 before, 163.499, 162.214 and 208.541 after: all nine differences.
    (reason,) = (item.reason for item in three.outcomes if "< -400us" in str(item.condition))
    assert "−692.632 µs (90% interval −788.995 µs to −310.915 µs, over captures" in reason


def test_outcomes_are_in_the_plain_data(three: Diff) -> None:
    (first, *_) = three.to_dict()["conditions"]
    assert first["condition"] == "gpu > 1%"
    assert first["state"] == "pass"


def test_the_pair_of_a_map_has_a_verdict() -> None:
    with ExitStack() as stack:
        before, after = (captures(stack, kind, range(3)) for kind in ("einops", "flatten"))
        result = traceq.diff(
            before, after, under="GatedDeltaNet", maps=["einops.py: rearrange=>method flatten"]
        )
    (row,) = result.table[result.table["status"] == "replaced"].to_dict("records")
    assert row["verdict"] == "faster"
    _, group = result.steady_groups[0]
    assert row["change"] == result.evidence.of("groups", "0").change.estimate
    assert row["total_before"] in group.sums("before", "time")


# Small traces ---------------------------------------------------------------------------------


def traces(folder: Path, sides: Sequence[Sequence[Sequence[Event]]]) -> list[list[traceq.Trace]]:
    """A capture for each list of events, on either side."""
    found = []
    for side, captures_ in enumerate(sides):
        opened = []
        for number, events in enumerate(captures_):
            path = folder / f"{side}-{number}.json"
            path.write_bytes(compact(events))
            opened.append(traceq.open(path))
        found.append(opened)
    return found


def step(number: int, ts: int, dur: int = 100) -> Event:
    return complete(f"ProfilerStep#{number}", ts, dur, cat="user_annotation")


def outcomes(sides: list[list[traceq.Trace]], *conditions: str, **options: Any) -> list[Outcome]:
    return list(traceq.diff(*sides, fail_if=conditions, **options).outcomes)


def test_an_op_of_some_captures_is_neither_added_nor_removed(tmp_path: Path) -> None:
    with_op = [complete("base", 0, 1000), complete("collect", 10, 500)]
    without = [complete("base", 0, 1000)]
    sides = traces(tmp_path, [[without] * 3, [without, without, with_op]])
    (outcome,) = outcomes(sides, "collect > 2%", force=True)
    assert outcome.state == "inconclusive"


def test_one_capture_tells_that_an_op_is_new_but_not_how_long_it_takes(tmp_path: Path) -> None:
    sides = traces(
        tmp_path,
        [[[complete("base", 0, 1000)]], [[complete("base", 0, 1000), complete("new", 5, 51)]]],
    )
    found = outcomes(sides, "new > 2%", "new > 50us", "new.calls > 0")
    assert [item.state for item in found] == ["fail", "inconclusive", "fail"]


def test_what_takes_no_time_is_nothing_new(tmp_path: Path) -> None:
    events = [complete("base", 0, 1000), complete("mark", 5, 0)]
    (outcome,) = outcomes(traces(tmp_path, [[events] * 3, [events] * 3]), "mark > 2%", force=True)
    assert outcome.state == "inconclusive"


def test_work_outside_of_steps_is_not_told_by_steps(tmp_path: Path) -> None:
    def capture(before: int) -> list[Event]:
        steps = [item for n in range(6) for item in (step(n, 1000 + 200 * n), op(n))]
        return [complete("load", 0, before), *steps]

    def op(number: int) -> Event:
        return complete("mm", 1010 + 200 * number, 50)

    sides = traces(tmp_path, [[capture(300)], [capture(900)]])
    (cpu, load) = outcomes(sides, "cpu > 2%", "load > 2%")
    assert cpu.state == "inconclusive"
    assert "in no step" in cpu.reason
    assert load.state == "inconclusive"


def test_the_steps_of_all_threads_count(tmp_path: Path) -> None:
    events: list[Event] = []
    for thread in (1, 2):
        events.append(complete("run", 0, 1000, tid=thread, cat="python_function"))
        for n in range(3):
            events.append({**step(n, 100 + 200 * n), "tid": thread})
            events.append(complete("aten::mm", 110 + 200 * n, 50, tid=thread))
    ((trace,), _) = traces(tmp_path, [[events], []])
    reading = read(trace, Question())
    assert reading.op_time({"aten::mm"}).tolist() == [100_000] * 3 + [0]
    assert reading.op_time({"run", "aten::mm"}).sum() == 2_000_000  # nothing counts twice
    assert int(reading.own_time.sum()) == reading.totals.total == 2_000_000
    assert reading.scope_time(3).tolist() == [200_000] * 3 + [1_400_000]


def test_an_op_named_gpu_is_not_the_gpus_time(tmp_path: Path) -> None:
    events = [complete("gpu", 0, 1000), complete("cpu", 2000, 10)]
    diff = traceq.diff(*traces(tmp_path, [[events] * 3, [events] * 3]), force=True)
    assert _kind_of(RowKey("ops", "gpu")) == CPU
    assert _kind_of(RowKey("scopes", "gpu")) == GPU
    assert diff.evidence.of("ops", "gpu") is not None
