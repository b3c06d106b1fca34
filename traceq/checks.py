"""Holds a comparison against conditions (``--fail-if``): what of it each condition is about.

What a condition means, and when it can be told, is decided in ``gate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import expm1, inf, log1p
from typing import Any

import numpy as np

from traceq.combine import middle
from traceq.evidence import Evidence, Finding
from traceq.gate import Condition, Interval, Observed, Outcome, evaluate
from traceq.model import Ints
from traceq.names import Pattern, fold_name
from traceq.reading import Reading
from traceq.samples import CAPTURES, CPU, GPU, Asked, RowKey, Unit
from traceq.stats import Verdict
from traceq.units import percent


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
        sides = [
            [_scope_times(item, condition.measure) for item in side] for side in (before, after)
        ]
        finding = evidence.of("scopes", condition.measure)
        return _observed(evidence, finding, sides, condition.measure)
    if not subject.chosen:
        return None
    if condition.measure == "calls":
        return Observed(calls_before=_calls(subject, before), calls_after=_calls(subject, after))
    row = subject.row
    assert row is not None
    sides = [[row.by_step(item) for item in side] for side in (before, after)]
    finding = evidence.of(*row.key)
    if finding is not None:
        return _observed(evidence, finding, sides, condition.measure)
    one, other = ([int(times.sum()) for times in side] for side in sides)
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


def _scope_times(item: Reading, measure: str) -> Ints:
    """Time (ns) of the scopes by step, and last outside of steps."""
    steps = item.steps
    if measure == "cpu":
        return item.scope_time(steps)
    inside = item.by_step(steps)["gpu"][""]
    return np.append(inside, item.totals.gpu_here.total - int(inside.sum()))


def _one_sided(before: Sequence[int], after: Sequence[int]) -> Observed:
    """Ops of one side alone: all their time is more, or less, than before.

    That is so whatever the noise, if all captures of the other side have them; how much it is,
    three of them tell by all they are, and one does not.
    """
    if all(after) and not any(before):
        end, times, verdict = inf, [*after], "added"
    elif all(before) and not any(after):
        end, times, verdict = -inf, [-time for time in before], "removed"
    else:
        return Observed(verdict=Verdict.UNCLEAR)
    return Observed(
        log_ratio=Interval(end, end, end),
        delta=Interval(int(middle(times)), min(times), max(times)),
        confidence=1.0,
        delta_confidence=1.0 if len(times) >= CAPTURES else 0.0,
        is_significant=True,
        verdict=verdict,
    )


def _observed(
    evidence: Evidence,
    finding: Finding | None,
    sides: Sequence[Sequence[Ints]],
    measure: str,
) -> Observed:
    """What the samples say of a row; ``sides`` are its times by capture and step."""
    if finding is None:
        return Observed(verdict=Verdict.UNCLEAR)
    change = finding.change
    low, high = _log1p(change.low), _log1p(change.high)
    by_steps = evidence.unit is not Unit.CAPTURE
    if by_steps and (told := _outside(sides, evidence)):
        return Observed(verdict=told)
    if is_wider := by_steps and finding.verdict is not Verdict.SAME:
        # Steps of one capture do not show how far captures of the same code lie apart.
        drift, width = evidence.drift[measure]
        low, high = low - abs(drift) - width, high + abs(drift) + width
    delta = finding.delta
    if delta is not None:
        ends = (delta.estimate, delta.low, delta.high)
    else:
        before = int(middle([int(times.sum()) for times in sides[0]]))
        ends = (change.estimate * before, _expm1(low) * before, _expm1(high) * before)
    return Observed(
        log_ratio=Interval(_log1p(change.estimate), low, high),
        delta=Interval(*ends),
        confidence=change.confidence,
        is_significant=finding.verdict.is_change,
        verdict=finding.verdict,
        unit=_SAMPLES[evidence.unit] + (_WIDER if is_wider else ""),
    )


def _outside(sides: Sequence[Sequence[Ints]], evidence: Evidence) -> str:
    """Said where so much of a row's time is in no step that the steps do not tell of it."""
    if evidence.unit is not Unit.STEP:
        return ""
    parts = [int(times[-1]) / max(int(times.sum()), 1) for side in sides for times in side]
    if max(parts) <= evidence.bound:
        return ""
    return f"{percent(max(parts))} of its time is in no step"


_WIDER = ", made wider by how far unchanged code moved between the captures"
_SAMPLES = {Unit.CAPTURE: "captures", Unit.STEP: "steps", Unit.NONE: "one sample a side"}


def _log1p(part: float) -> float:
    """Also where next to nothing is left, of which the relative change has been rounded to -1."""
    return log1p(max(part, -1 + 1e-15))


def _expm1(log: float) -> float:
    """Without an overflow, of which the log of a ratio is not far where nothing is known."""
    return expm1(log) if log < 700 else inf
