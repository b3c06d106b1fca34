"""Holds a comparison against conditions (``--fail-if``): what of it each condition is about.

What a condition means, and when it can be told, is decided in ``gate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import expm1, inf, log1p
from typing import Any

from traceq.combine import middle
from traceq.evidence import Evidence, Finding
from traceq.gate import Condition, Interval, Observed, Outcome, evaluate
from traceq.names import Pattern, fold_name
from traceq.reading import Reading
from traceq.samples import CPU, GPU, Asked, RowKey, Unit
from traceq.stats import Verdict


@dataclass(frozen=True, slots=True)
class Subject:
    """What a condition is about: ``chosen`` of the ``names`` of ops, or (``is_gpu``) of kernels."""

    condition: Condition
    names: tuple[str, ...]
    chosen: frozenset[str]
    is_gpu: bool = False

    @property
    def row(self) -> Asked | None:
        """The row whose change is asked for; None for calls, for the scopes, and for nothing."""
        if self.condition.measure == "calls" or not self.chosen:
            return None
        kind = GPU if self.is_gpu else CPU
        return Asked(RowKey("conditions", str(self.condition)), kind, self.chosen)


def subject_of(
    condition: Condition, before: Sequence[Reading], after: Sequence[Reading]
) -> Subject:
    """The ops, or kernels, of either side that a condition's pattern matches."""
    if condition.pattern is None:
        return Subject(condition, (), frozenset())
    pattern = Pattern.parse(condition.pattern)
    known: list[str] = []
    for family in _FAMILIES[condition.measure]:
        names = _names(family, (*before, *after))
        known += names
        chosen = frozenset(name for name in names if pattern.matches(fold_name(name)))
        if chosen:
            return Subject(condition, tuple(names), chosen, is_gpu=family == "kernels")
    return Subject(condition, tuple(known), frozenset())


_FAMILIES = {"cpu": ("ops",), "gpu": ("kernels",), "calls": ("ops", "kernels")}
"""Whose names a pattern is matched with: calls are those of kernels where no op is called so."""


def check(
    subject: Subject, before: Sequence[Reading], after: Sequence[Reading], evidence: Evidence
) -> Outcome:
    """What becomes of a condition. Raises UsageError where it is about the time of nothing.

    Of several ops that match, calls are added up; so are times, each counted once where one of
    them is below another.
    """
    observed = _observe(subject, before, after, evidence)
    return evaluate(subject.condition, observed, names=subject.names, confidence=1 - evidence.level)


def _observe(
    subject: Subject, before: Sequence[Reading], after: Sequence[Reading], evidence: Evidence
) -> Observed | None:
    condition = subject.condition
    if condition.pattern is None:
        times = [_scope_time(item, condition.measure) for item in before]
        finding = evidence.of("scopes", condition.measure)
        return _observed(evidence, finding, times, condition.measure)
    if not subject.chosen:
        return None
    if condition.measure == "calls":
        return Observed(calls_before=_calls(subject, before), calls_after=_calls(subject, after))
    row = subject.row
    assert row is not None
    one, other = ([row.time(item) for item in side] for side in (before, after))
    finding = evidence.of(*row.key)
    if finding is not None:
        return _observed(evidence, finding, one, condition.measure)
    if any(one) and any(other):
        return Observed(verdict=Verdict.UNCLEAR)
    return _one_sided(one, other)


def _names(family: str, captures: Sequence[Reading]) -> list[str]:
    """The names of all ops, or kernels, in the order in which they are seen first."""
    found: dict[str, None] = {}
    for item in captures:
        found |= dict.fromkeys(_table(item, family)[family.removesuffix("s")].tolist())
    return [*found]


def _table(item: Reading, family: str) -> Any:
    return item.kernels if family == "kernels" else item.ops


def _calls(subject: Subject, side: Sequence[Reading]) -> tuple[int, ...]:
    """The calls of the chosen ops, or kernels, in each capture."""
    family = "kernels" if subject.is_gpu else "ops"
    tables = [_table(item, family).set_index(family.removesuffix("s"))["calls"] for item in side]
    return tuple(int(calls[calls.index.isin(subject.chosen)].sum()) for calls in tables)


def _scope_time(item: Reading, measure: str) -> int:
    return item.totals.gpu_here.total if measure == "gpu" else item.totals.total


def _one_sided(before: Sequence[int], after: Sequence[int]) -> Observed:
    """Ops of one side alone: all their time is more, or less, than before, whatever the noise."""
    is_added = not any(before)
    end = inf if is_added else -inf
    ends = min(after) - max(before), max(after) - min(before)
    estimate = int(middle(after)) - int(middle(before))
    return Observed(
        log_ratio=Interval(end, end, end),
        delta=Interval(estimate, *ends),
        confidence=1.0,
        is_significant=True,
        verdict="added" if is_added else "removed",
        unit="captures",
    )


def _observed(
    evidence: Evidence, finding: Finding | None, times: Sequence[int], measure: str
) -> Observed:
    if finding is None:
        return Observed(verdict=Verdict.UNCLEAR)
    change = finding.change
    low, high = _log1p(change.low), _log1p(change.high)
    if is_wider := evidence.unit is not Unit.CAPTURE and finding.verdict is not Verdict.SAME:
        # Steps of one capture do not show how far captures of the same code lie apart.
        drift, width = evidence.drift[measure]
        low, high = low - abs(drift) - width, high + abs(drift) + width
    delta = finding.delta
    if delta is not None:
        ends = (delta.estimate, delta.low, delta.high)
    else:
        before = int(middle(times))
        ends = (change.estimate * before, _expm1(low) * before, _expm1(high) * before)
    return Observed(
        log_ratio=Interval(_log1p(change.estimate), low, high),
        delta=Interval(*ends),
        confidence=change.confidence,
        is_significant=finding.verdict in (Verdict.FASTER, Verdict.SLOWER),
        verdict=finding.verdict,
        unit=_SAMPLES[evidence.unit] + (_WIDER if is_wider else ""),
    )


_WIDER = ", made wider by how far unchanged code moved between the captures"
_SAMPLES = {Unit.CAPTURE: "captures", Unit.STEP: "steps", Unit.NONE: "one sample a side"}


def _log1p(part: float) -> float:
    """Also where next to nothing is left, of which the relative change has been rounded to -1."""
    return log1p(max(part, -1 + 1e-15))


def _expm1(log: float) -> float:
    """Without an overflow, of which the log of a ratio is not far where nothing is known."""
    return expm1(log) if log < 700 else inf
