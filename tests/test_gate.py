"""Conditions for CI: what is read, what is refused, what passes, fails or cannot be told."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceq import gate
from traceq.errors import UsageError
from traceq.gate import (
    GATE_FAILED,
    GATE_INCONCLUSIVE,
    GATE_PASSED,
    Condition,
    Interval,
    Observed,
    Operator,
    Outcome,
    State,
    Unit,
    exit_code,
    parse_condition,
)

evaluate = partial(gate.evaluate, confidence=0.95)

# Reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pattern", "measure", "operator", "value", "unit"),
    [
        ("cpu > 2%", None, "cpu", ">", "2", "%"),
        ("GPU>=-1.5%", None, "gpu", ">=", "-1.5", "%"),
        ("  gpu <= 50 us ", None, "gpu", "<=", "50", "us"),
        ("cpu > −3µs", None, "cpu", ">", "-3", "us"),
        ("cpu > +1.5ms", None, "cpu", ">", "1.5", "ms"),
        ("rearrange.calls > 0", "rearrange", "calls", ">", "0", "calls"),
        ("aten::mul < 200ns", "aten::mul", "cpu", "<", "200", "ns"),
        ("aten::*.gpu > 1s", "aten::*", "gpu", ">", "1", "s"),
        ("re:^aten::(mul|add)$.calls>=3", "re:^aten::(mul|add)$", "calls", ">=", "3", "calls"),
        ("'einops.py: rearrange'.cpu > 2%", "einops.py: rearrange", "cpu", ">", "2", "%"),
        ('"<built-in method it\'s>" > 2%', "<built-in method it's>", "cpu", ">", "2", "%"),
        ("'it''s' > 2%", "it's", "cpu", ">", "2", "%"),
        ("'gpu'.calls > 1", "gpu", "calls", ">", "1", "calls"),
    ],
)
def test_parse(
    text: str, pattern: str | None, measure: str, operator: str, value: str, unit: str
) -> None:
    condition = parse_condition(text)
    found = (condition.pattern, condition.measure, condition.operator, condition.unit)
    assert found == (pattern, measure, operator, unit)
    assert condition.value == Decimal(value)
    assert parse_condition(str(condition)) == condition


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no condition"),
        ("cpu", "is no condition"),
        ("cpu = 2%", "is no condition"),
        ("cpu > x%", "is no condition"),
        ("cpu > 1e999%", "is no condition"),
        ("cpu > 1234567890123456%", "is no condition"),
        ("built-in method flatten.calls > 0", "is no condition"),
        ("'' > 2%", "is no condition"),
        ("einops.py.calls > 0", "is no condition"),
        ("cpu.calls > 0", "scopes' time"),
        ("cpu. > 2%", "scopes' time"),
        ("mul.kernels > 0", "no measure after the dot, but 'kernels'"),
        ("mul. > 2%", "no measure"),
        ("mul.calls > 2%", "gives calls a unit"),
        ("mul.calls > 0.5", "no number of them"),
        ("mul.calls > -1", "no number of them"),
        ("mul > 0", "lacks a unit"),
        ("cpu > 2h", "no unit that is known, but 'h'"),
        ("cpu > -100%", "cannot be"),
        ("re:(.calls > 0", "not a regular expression"),
        ("re:.calls > 0", "a pattern is empty"),
    ],
)
def test_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_condition(text)
    assert why in refused.value.message
    assert refused.value.hint


def test_a_refused_text_is_kept_short_and_printable() -> None:
    with pytest.raises(UsageError) as refused:
        parse_condition("\x1b[2J" * 1000)
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 500


PARTS = ["cpu", "gpu", "a", "'", "''", '"', ".", ".calls", ">", ">=", "<", "2", "-", "%", "us"]
ODD = ["re:", "(", "[", "*", "é", "٣", "=", " ", "\n"]
FRAGMENTS = st.lists(st.sampled_from([*PARTS, *ODD]), max_size=12).map("".join)


@given(st.text() | FRAGMENTS)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        condition = parse_condition(text)
    except UsageError:
        return
    assert parse_condition(str(condition)) == condition
    assert math.isfinite(condition.bound)


UNITS = [unit for unit in get_args(Unit) if unit != "calls"]
PATTERNS = st.text(min_size=1).filter(lambda text: not text.startswith("re:"))


@given(
    PATTERNS | st.sampled_from(["cpu", "GPU", "re:a.b>c", "'", '"', "''\"", " "]),
    st.sampled_from(["calls", "cpu", "gpu"]),
    st.sampled_from(get_args(Operator)),
    st.decimals(-99, 10**12, places=9),
    st.sampled_from(UNITS),
)
def test_round_trip(pattern: str, measure: Any, operator: Any, value: Decimal, unit: Any) -> None:
    whole = Decimal(abs(int(value)))
    of_calls = measure == "calls"
    condition = Condition(
        pattern, measure, operator, whole if of_calls else value, "calls" if of_calls else unit
    )
    assert parse_condition(str(condition)) == condition


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("cpu > 2%", math.log(1.02)),
        ("cpu > -50%", math.log(0.5)),
        ("cpu > 1.5us", 1500.0),
        ("cpu > -2ms", -2e6),
        ("a.calls > 7", 7.0),
    ],
)
def test_bound(text: str, bound: float) -> None:
    assert parse_condition(text).bound == pytest.approx(bound)


# Times ----------------------------------------------------------------------------------------


def observed(low: float, high: float, **more: Any) -> Observed:
    """A change, its interval from ``low`` to ``high`` %, or µs."""
    middle = (low + high) / 2
    logs = [math.log1p(part / 100) for part in (middle, low, high)]
    return replace(
        Observed(
            log_ratio=Interval(*logs),
            delta=Interval(middle * 1000, low * 1000, high * 1000),
            confidence=0.95,
            is_significant=low > 0 or high < 0,
            verdict="some verdict",
            calls_before=(5, 5),
            calls_after=(5, 5),
        ),
        **more,
    )


@pytest.mark.parametrize(
    ("text", "low", "high", "state"),
    [
        ("cpu > 2%", 3, 5, "fail"),
        ("cpu > 2%", -1, 1, "pass"),
        ("cpu > 2%", 0.5, 1.5, "pass"),  # significant, but harmless
        ("cpu > 2%", 1, 3, "inconclusive"),
        ("cpu < -2%", -5, -3, "fail"),
        ("cpu < -2%", -1, 1, "pass"),
        ("cpu <= 0%", -5, -3, "fail"),
        ("cpu > -5%", -9, -6, "pass"),
        ("cpu > -5%", -1, 1, "fail"),  # no change is not the improvement that is asked for
        ("cpu > -5%", -6, -4, "inconclusive"),
        ("cpu > 2us", 3, 5, "fail"),
        ("cpu > 2us", 1, 2, "pass"),
        ("cpu >= 2us", 1, 2, "inconclusive"),
        ("cpu >= 2us", 2, 2, "fail"),
        ("'mul'.gpu < -1ns", 0, 0, "pass"),
    ],
)
def test_a_time_is_judged_by_its_whole_interval(
    text: str, low: float, high: float, state: State
) -> None:
    outcome = evaluate(parse_condition(text), observed(low, high))
    assert outcome.state == state
    assert outcome.reason.startswith(str(outcome.condition))
    assert "some verdict" in outcome.reason


def test_the_reason_has_the_figures() -> None:
    reason = evaluate(parse_condition("cpu > 2%"), observed(3, 5)).reason
    assert reason == (
        "cpu > 2% holds: +4.00% (95% interval +3.00% to +5.00%, over captures; some verdict)."
    )
    reason = evaluate(parse_condition("cpu > 2us"), observed(-3, -1, unit="steps")).reason
    assert "−2.000 µs (95% interval −3.000 µs to −1.000 µs, over steps" in reason


def test_a_change_that_is_not_significant_does_not_fail() -> None:
    outcome = evaluate(parse_condition("cpu > 2%"), observed(3, 5, is_significant=False))
    assert outcome.state == "inconclusive"
    assert "not significant" in outcome.reason


@pytest.mark.parametrize("ends", [(3, 5), (-1, 1)])
def test_an_interval_of_less_confidence_tells_nothing(ends: tuple[float, float]) -> None:
    few = observed(*ends, confidence=0.9)
    condition = parse_condition("cpu > 2%")
    assert evaluate(condition, few).state == "inconclusive"
    assert "90% of confidence, not the 95%" in evaluate(condition, few).reason
    assert evaluate(condition, few, confidence=0.9).state != "inconclusive"


@pytest.mark.parametrize("interval", [None, Interval(math.nan, math.nan, math.nan)])
def test_no_interval_tells_nothing(interval: Interval | None) -> None:
    one = observed(3, 5, log_ratio=interval, calls_before=(5,), calls_after=(5,))
    outcome = evaluate(parse_condition("cpu > 2%"), one)
    assert outcome.state == "inconclusive"
    assert "there is no interval of the change" in outcome.reason


@pytest.mark.parametrize(
    ("end", "state", "shown"), [(math.inf, "fail", "+∞%"), (-math.inf, "pass", "−100.00%")]
)
def test_time_from_or_to_nothing_has_no_end(end: float, state: State, shown: str) -> None:
    gone = observed(3, 5, log_ratio=Interval(end, end, end))
    outcome = evaluate(parse_condition("cpu > 2%"), gone)
    assert outcome.state == state
    assert shown in outcome.reason


@given(st.floats(), st.floats(), st.floats(), st.sampled_from(["cpu > 2%", "gpu <= -3us"]))
def test_any_interval_is_judged(estimate: float, low: float, high: float, text: str) -> None:
    interval = Interval(estimate, low, high)
    outcome = evaluate(parse_condition(text), observed(1, 2, log_ratio=interval, delta=interval))
    assert outcome.state in get_args(State)
    assert outcome.reason.isprintable()


# Calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "after", "state"),
    [
        ("mul.calls > 0", (0, 0), "pass"),
        ("mul.calls > 0", (3, 1), "fail"),
        ("mul.calls > 0", (0, 3), "inconclusive"),
        ("mul.calls < 3", (3, 4), "pass"),
        ("mul.calls <= 3", (3, 4), "inconclusive"),
        ("mul.calls > 0", (), "inconclusive"),
    ],
)
def test_calls_are_counted(text: str, after: tuple[int, ...], state: State) -> None:
    seen = Observed(calls_before=(1500, 1500), calls_after=after)  # no interval is asked for
    assert evaluate(parse_condition(text), seen).state == state


def test_the_reason_has_the_calls() -> None:
    seen = Observed(calls_before=(1500,), calls_after=(0, 1))
    assert evaluate(parse_condition("mul.calls > 0"), seen).reason == (
        "mul.calls > 0 cannot be told: 0 to 1 call after, 1,500 calls before: "
        "the captures do not agree."
    )


def test_an_op_that_is_nowhere_has_no_calls() -> None:
    names = ["einops/einops.py(561): rearrange", "aten::mul"]
    outcome = evaluate(parse_condition("rearange.calls > 0"), None, names=names)
    assert outcome.state == "pass"
    assert "0 calls (nearest: einops/einops.py: rearrange)" in outcome.reason
    assert evaluate(parse_condition("x.calls < 1"), None).state == "fail"


def test_an_op_that_is_nowhere_has_no_time() -> None:
    with pytest.raises(UsageError, match="'rearange'") as refused:
        evaluate(parse_condition("rearange > 2%"), None, names=["e.py(1): rearrange"])
    assert refused.value.hint == "Nearest: e.py: rearrange"
    with pytest.raises(UsageError) as refused:
        evaluate(parse_condition("rearange.gpu > 2%"), None)
    assert refused.value.hint == "'traceq kernels' lists the kernels of a trace."


# Exit codes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "inconclusive", "code"),
    [
        ([], None, GATE_PASSED),
        (["pass", "pass"], None, GATE_PASSED),
        (["pass", "inconclusive"], None, GATE_INCONCLUSIVE),
        (["pass", "inconclusive"], "pass", GATE_PASSED),
        (["pass", "inconclusive"], "fail", GATE_FAILED),
        (["inconclusive", "fail"], None, GATE_FAILED),
        (["fail", "inconclusive"], "pass", GATE_FAILED),
    ],
)
def test_exit_code(
    states: list[State], inconclusive: Literal["pass", "fail"] | None, code: int
) -> None:
    condition = parse_condition("cpu > 2%")
    outcomes = [Outcome(condition, state, "") for state in states]
    assert exit_code(iter(outcomes), inconclusive) == code


def test_codes_are_told_from_errors() -> None:
    assert (GATE_PASSED, GATE_FAILED, GATE_INCONCLUSIVE) == (0, 1, 3)
    assert UsageError.exit_code not in (GATE_FAILED, GATE_INCONCLUSIVE)


def test_plain_data() -> None:
    outcome = evaluate(parse_condition("cpu>2%"), observed(3, 5))
    data = json.loads(json.dumps(outcome.to_dict()))
    assert (data["condition"], data["state"]) == ("cpu > 2%", "fail")
