"""Conditions for CI: ``cpu > 2%`` fails a build, where the captures tell that it holds.

Text and figures in, an outcome and its reason out. Measuring, estimating and testing for
significance are the caller's business; so is ending the program with the exit code.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal, get_args

from traceq.conditions import shorter
from traceq.errors import PatternError, UsageError
from traceq.names import Pattern, nearest_names
from traceq.units import percent_floor, plural, printable, signed_micros

GATE_PASSED = 0
GATE_FAILED = 1
"""Exit code where a condition holds."""
GATE_INCONCLUSIVE = 3
"""Exit code where no condition holds for sure, and of one it cannot be told; 2 is an error's."""

ONE_SIDED = ("added", "removed")
"""Verdicts on what is on one side alone: no noise makes it so."""

Measure = Literal["calls", "cpu", "gpu"]
Operator = Literal[">", ">=", "<", "<="]
Unit = Literal["%", "ns", "us", "ms", "s", "calls"]
State = Literal["pass", "fail", "inconclusive"]

_HOLDS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_NANOSECONDS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_SPELLINGS: dict[str, Unit] = {
    "%": "%",
    "ns": "ns",
    "us": "us",
    "µs": "us",
    "μs": "us",
    "ms": "ms",
    "s": "s",
}
_SCOPES: dict[str, Measure] = {"cpu": "cpu", "gpu": "gpu"}

_BARE = r"[^\s.'\"<>=]+"
_CONDITION = re.compile(
    rf"""
    \s*(?:'(?P<single>(?:[^']|'')+)'|"(?P<double>(?:[^"]|"")+)"|(?P<bare>{_BARE}))
    (?:\.(?P<measure>\w*))?
    \s*(?P<operator>[<>]=?)
    \s*(?P<sign>[-+−]?)(?P<value>[0-9]{{1,15}}(?:\.[0-9]{{1,9}})?)
    \s*(?P<unit>%|\w*)\s*
    """,
    re.VERBOSE,
)
_EXAMPLES = (
    "Write it as 'cpu > 2%', 'gpu > 50us' or 'rearrange.calls > 0'; a pattern with spaces, dots or "
    "operators in quotes: \"'built-in method flatten'.calls > 0\"."
)
_TEXT_WIDTH = 80
_LARGEST_LOG = 700.0
"""Beyond, e to the power of it is no float any more."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What must not be so: a subject's ``measure`` against a bound.

    ``pattern`` chooses ops as --match does; None stands for the scopes' totals. With the unit
    ``%`` the relative change (after/before − 1) is compared, with a unit of time the difference
    (after − before), with ``calls`` the number of calls after.
    """

    pattern: str | None
    measure: Measure
    operator: Operator
    value: Decimal
    unit: Unit

    def __str__(self) -> str:
        """As :func:`parse_condition` reads it."""
        subject = self.measure if self.pattern is None else f"{self._quoted}.{self.measure}"
        unit = "" if self.unit == "calls" else self.unit
        return f"{subject} {self.operator} {self.value:f}{unit}"

    @property
    def _quoted(self) -> str:
        pattern = self.pattern or ""
        if re.fullmatch(_BARE, pattern) and pattern.lower() not in _SCOPES:
            return pattern
        return "'" + pattern.replace("'", "''") + "'"

    @property
    def bound(self) -> float:
        """The value as what it is compared with: log of after/before, ns, or calls."""
        if self.unit == "%":
            return math.log1p(float(self.value) / 100)
        return float(self.value * _NANOSECONDS.get(self.unit, 1))

    def holds(self, figure: float) -> bool:
        """Whether a figure in the unit of :attr:`bound` is what must not be."""
        return _HOLDS[self.operator](figure, self.bound)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the ends of its interval; they may be infinite."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Observed:
    """What was observed of a condition's subject, by its measure.

    ``log_ratio`` is of ln(after/before), ``delta`` of after − before (ns); None where it cannot be
    estimated. ``confidence`` (0 to 1) is what both intervals reach (``delta_confidence`` that of
    ``delta``, where it is another), ``is_significant`` whether the
    change is told from noise, ``verdict`` the words for it, ``unit`` what the samples are
    ("captures"). ``calls_before`` and ``calls_after`` have one entry a capture.
    """

    log_ratio: Interval | None = None
    delta: Interval | None = None
    confidence: float = 0.0
    delta_confidence: float | None = None
    is_significant: bool = False
    verdict: str = ""
    calls_before: tuple[int, ...] = (0,)
    calls_after: tuple[int, ...] = (0,)
    unit: str = "captures"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a condition, and why: one sentence with the figures."""

    condition: Condition
    state: State
    reason: str
    is_about_nothing: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"condition": str(self.condition), "state": self.state, "reason": self.reason}


# Reading --------------------------------------------------------------------------------------


def parse_condition(text: str) -> Condition:
    """Read ``SUBJECT[.MEASURE] OPERATOR VALUE[UNIT]``. Raises UsageError where it is none.

    Within quotes, the quote itself is written twice.

    >>> str(parse_condition("cpu>2%")), str(parse_condition("'aten::mul' >= 1.5ms"))
    ('cpu > 2%', 'aten::mul.cpu >= 1.5ms')
    """
    match = _CONDITION.fullmatch(text)
    if not match:
        raise _refused(text, "is no condition", _EXAMPLES)
    pattern, measure = _subject(text, match)
    unit = _unit(text, match["unit"], measure)
    value = Decimal(match["sign"].replace("−", "-") + match["value"])
    _check_value(text, value, unit)
    return Condition(pattern, measure, _one_of(match["operator"]), value, unit)


def _one_of(text: str) -> Operator:
    return next(sign for sign in get_args(Operator) if sign == text)


def _subject(text: str, match: re.Match[str]) -> tuple[str | None, Measure]:
    """The pattern, None for the scopes; and the measure: CPU time where none is named."""
    bare, measure = match["bare"], match["measure"]
    if bare and bare.lower() in _SCOPES:
        if measure is not None:
            hint = f"Write '{bare} > 2%'; an op of that name in quotes: \"'{bare}'.calls > 0\"."
            raise _refused(text, f"asks {bare!r} for more, but it is the scopes' time", hint)
        return None, _SCOPES[bare.lower()]
    measures: tuple[Measure, ...] = get_args(Measure)
    chosen = next((known for known in measures if known == (measure or "cpu")), None)
    if chosen is None or measure == "":
        raise _refused(text, f"has no measure after the dot, but {measure!r}", _MEASURES)
    return _pattern(text, match), chosen


_MEASURES = (
    "Measures are calls, cpu and gpu, as in 'rearrange.calls > 0'; a pattern with dots in quotes: "
    "\"'einops.py: rearrange'.cpu > 2%\"."
)


def _pattern(text: str, match: re.Match[str]) -> str:
    single, double = match["single"], match["double"]
    if single:
        pattern = single.replace("''", "'")
    else:
        pattern = double.replace('""', '"') if double else match["bare"]
    try:
        Pattern.parse(pattern)
    except PatternError as error:
        told = shorter(error.message, 2 * _TEXT_WIDTH)
        raise _refused(text, f"has a pattern that cannot be used: {told}", error.hint) from error
    return pattern


def _unit(text: str, unit: str, measure: Measure) -> Unit:
    if measure == "calls":
        if unit:
            raise _refused(text, "gives calls a unit", "They are counted: 'rearrange.calls > 0'.")
        return "calls"
    if not unit:
        hint = "Write 'cpu > 2%' or 'cpu > 50us'; of calls 'rearrange.calls > 0'."
        raise _refused(text, "lacks a unit", hint)
    if unit not in _SPELLINGS:
        raise _refused(text, f"has no unit that is known, but {unit!r}", "Use %, ns, us, ms or s.")
    return _SPELLINGS[unit]


def _check_value(text: str, value: Decimal, unit: Unit) -> None:
    if unit == "%" and value <= -100:
        hint = "Write a bound above -100%, such as 'cpu > -5%'."
        raise _refused(text, "bounds what cannot be: no time falls by 100% or more", hint)
    if unit == "calls" and (value < 0 or value != value.to_integral_value()):
        hint = "Write a whole number: 'rearrange.calls > 0'."
        raise _refused(text, "bounds calls by what is no number of them", hint)


def _refused(text: str, why: str, hint: str | None) -> UsageError:
    return UsageError(f"{shorter(text, _TEXT_WIDTH)!r} {why}", hint=hint or _EXAMPLES)


# Judging --------------------------------------------------------------------------------------


def evaluate(
    condition: Condition,
    observed: Observed | None,
    *,
    names: Iterable[str] = (),
    confidence: float,
) -> Outcome:
    """Whether a condition holds (``fail``), does not (``pass``), or cannot be told.

    ``observed`` is None where no op of either side matches: that is no calls, but no time either;
    ``names`` are those of the ops, to say which are near. ``confidence`` (0 to 1) is what the
    interval has to reach. Raises UsageError where there is no time to compare.
    """
    if observed is None:
        return _judge_unmatched(condition, names)
    if condition.measure == "calls":
        return _judge_calls(condition, observed)
    return _judge_time(condition, observed, confidence)


def _judge_unmatched(condition: Condition, names: Iterable[str]) -> Outcome:
    """A misspelt pattern has no calls either, so the nearest names are told with a pass as well."""
    text = shorter(condition.pattern or condition.measure, _TEXT_WIDTH)
    near = "; ".join(printable(name) for name in nearest_names(condition.pattern or "", names))
    if condition.measure != "calls":
        noun, command = ("kernel", "kernels") if condition.measure == "gpu" else ("op", "ops")
        where = f"'traceq {command}' lists the {noun}s of a trace."
        raise UsageError(
            f"no {noun} of either side matches {text!r}: there is no {condition.measure} time of "
            "it",
            hint=f"Nearest: {near}" if near else where,
        )
    told = f"no op or kernel of either side matches {text!r}, which is 0 calls"
    outcome = _counted(condition, (0,), f"{told} (nearest: {near})" if near else told)
    return replace(outcome, is_about_nothing=True)


def _judge_calls(condition: Condition, observed: Observed) -> Outcome:
    before, after = _range(observed.calls_before), _range(observed.calls_after)
    told = f"{after} after, {before} before"
    return _counted(condition, observed.calls_after, told)


def _counted(condition: Condition, after: Sequence[int], told: str) -> Outcome:
    """Calls are counted, not estimated: only captures that do not agree leave it open."""
    state = _state(condition, after)
    if state == "inconclusive":
        told = f"{told}: the captures do not agree" if after else "no capture after tells of calls"
    return _outcome(condition, state, told)


def _range(numbers: Sequence[int]) -> str:
    """A number of calls, or the least and the largest.

    >>> _range([3, 3]), _range([0, 15])
    ('3 calls', '0 to 15 calls')
    """
    least, most = min(numbers, default=0), max(numbers, default=0)
    return plural(most, "call") if least == most else f"{least:,} to {plural(most, 'call')}"


def _judge_time(condition: Condition, observed: Observed, confidence: float) -> Outcome:
    interval = observed.log_ratio
    if condition.unit != "%":
        interval = observed.delta
        if observed.delta_confidence is not None:
            observed = replace(observed, confidence=observed.delta_confidence)
    if interval is None or not interval.low <= interval.high:  # not a number: no order
        return _outcome(condition, "inconclusive", _no_interval(observed))
    state = _state(condition, (interval.low, interval.high))
    told = _figures(condition, interval, observed)
    if doubt := _doubt(condition, observed, state, confidence):
        return _outcome(condition, "inconclusive", f"{told}: {doubt}")
    return _outcome(condition, state, told)


def _state(condition: Condition, figures: Iterable[float]) -> State:
    """Bounds have one side: what is so of both ends is so of all that lies between."""
    held = {condition.holds(figure) for figure in figures}
    if len(held) != 1:
        return "inconclusive"
    return "fail" if held == {True} else "pass"


def _doubt(condition: Condition, observed: Observed, state: State, confidence: float) -> str:
    """Why nothing can be told in spite of an interval; empty where something can.

    A change that is not significant may be none. Where no change at all would fail as well
    (``cpu > -5%`` asks for an improvement), that is no excuse.
    """
    if observed.confidence < confidence - 1e-9:
        return (
            f"the interval reaches {percent_floor(observed.confidence)} of confidence, not the "
            f"{percent_floor(confidence)} asked for"
        )
    if state == "inconclusive":
        return "the bound lies within the interval"
    if state == "fail" and not observed.is_significant and not condition.holds(0.0):
        return "the change is not significant"
    return ""


def _no_interval(observed: Observed) -> str:
    told = f": {observed.verdict}" if observed.verdict else ""
    return f"there is no interval of the change{told}"


def _figures(condition: Condition, interval: Interval, observed: Observed) -> str:
    show = _percent if condition.unit == "%" else _micros
    estimate, low, high = map(show, (interval.estimate, interval.low, interval.high))
    if observed.verdict in ONE_SIDED:
        spread = "" if low == high else f"{low} to {high}, over captures; "
        return f"{estimate} ({spread}{observed.verdict})"
    verdict = f"; {observed.verdict}" if observed.verdict else ""
    return (
        f"{estimate} ({percent_floor(observed.confidence)} interval {low} to {high}, over "
        f"{observed.unit}{verdict})"
    )


def _outcome(condition: Condition, state: State, told: str) -> Outcome:
    words = {"fail": "holds", "pass": "does not hold", "inconclusive": "cannot be told"}
    return Outcome(condition, state, printable(f"{condition} {words[state]}: {told}."))


def _percent(log_ratio: float) -> str:
    """A relative change with its sign.

    >>> _percent(0.0), _percent(math.log(0.95)), _percent(math.inf)
    ('0.00%', '−5.00%', '+∞%')
    """
    if log_ratio > _LARGEST_LOG:
        return "+∞%"
    change = 100 * math.expm1(log_ratio)
    sign = "+" if change > 0 else "−" if change < 0 else ""
    return f"{sign}{abs(change):,.2f}%"


def _micros(ns: float) -> str:
    if math.isinf(ns):
        return "+∞ µs" if ns > 0 else "−∞ µs"
    return f"{signed_micros(ns)} µs"


def exit_code(
    outcomes: Iterable[Outcome], inconclusive: Literal["pass", "fail"] | None = None
) -> int:
    """GATE_FAILED where any failed; else GATE_INCONCLUSIVE where of any it cannot be told.

    ``inconclusive`` counts the latter as passed or as failed instead.
    """
    states = {outcome.state for outcome in outcomes}
    if "fail" in states:
        return GATE_FAILED
    if "inconclusive" not in states:
        return GATE_PASSED
    return {"pass": GATE_PASSED, "fail": GATE_FAILED, None: GATE_INCONCLUSIVE}[inconclusive]
