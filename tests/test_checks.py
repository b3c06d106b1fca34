"""Conditions held against real comparisons: what ``--fail-if`` says of the sample traces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import traceq
from tests.conftest import ROOT
from traceq.checks import check
from traceq.compare import Diff
from traceq.errors import UsageError
from traceq.gate import parse_condition

pytestmark = pytest.mark.filterwarnings("error")


def captures(stack: ExitStack, kind: str, numbers: range) -> list[traceq.Trace]:
    paths = [ROOT / "sample_traces" / f"{kind}-{number}.json.gz" for number in numbers]
    return [stack.enter_context(traceq.open(path)) for path in paths]


@pytest.fixture(scope="module")
def three() -> Iterator[Diff]:
    """Three captures a side."""
    with ExitStack() as stack:
        before, after = (captures(stack, kind, range(3)) for kind in ("einops", "flatten"))
        yield traceq.diff(before, after, under="GatedDeltaNet")


@pytest.fixture(scope="module")
def pair() -> Iterator[Diff]:
    """One capture a side."""
    with ExitStack() as stack:
        before, after = (captures(stack, kind, range(1)) for kind in ("einops", "flatten"))
        yield traceq.diff(before[0], after[0], under="GatedDeltaNet")


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("gpu > 1%", "pass"),
        ("gpu > 100us", "pass"),
        ("gpu < -5%", "pass"),
        ("cpu > 2%", "inconclusive"),
        ("cpu > 500%", "pass"),
        ("cpu > 5ms", "inconclusive"),
        ("rearrange.calls > 0", "pass"),
        ("'einops.py: rearrange'.calls > 0", "pass"),
        ("'flatten of Tensor'.calls > 14", "fail"),
        ("'aten::flatten'.calls >= 45", "fail"),
        ("'aten::flatten'.calls > 45", "pass"),
        ("'flatten of Tensor' > 50us", "fail"),  # added: all of its time is more
        ("'einops.py: rearrange' > 0%", "pass"),  # removed
        ("conv_depthwise2d.gpu > 2%", "pass"),
        ("nothing_like_it.calls > 0", "pass"),
    ],
)
def test_three_captures_a_side(three: Diff, text: str, state: str) -> None:
    (outcome,) = check(three, [parse_condition(text)])
    assert (outcome.state, outcome.reason.startswith(str(parse_condition(text)))) == (state, True)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("gpu > 1%", "pass"),  # shown to be the same by the steps
        ("cpu > 2%", "inconclusive"),
        ("cpu < -5%", "inconclusive"),  # the steps alone would say so: -26.5 % to -11.6 %
        ("rearrange.calls > 0", "pass"),
        ("'flatten of Tensor'.calls > 0", "fail"),
    ],
)
def test_one_capture_a_side_is_no_proof_of_cpu_time(pair: Diff, text: str, state: str) -> None:
    (outcome,) = check(pair, [parse_condition(text)])
    assert outcome.state == state


def test_time_of_nothing_is_an_error(three: Diff) -> None:
    with pytest.raises(UsageError, match="no op of either side matches 'rearrang_'"):
        check(three, [parse_condition("rearrang_ > 1%")])


def test_of_several_ops_the_worst_counts(three: Diff) -> None:
    (outcome,) = check(three, [parse_condition("flatten > 10us")])
    assert outcome.state == "fail"
    assert "added" in outcome.reason
