"""Holds a comparison against conditions (``--fail-if``): what of it each condition is about.

What a condition means, and when it can be told, is decided in ``gate``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import expm1, inf, log1p
from typing import Any

from traceq.compare import Diff, records
from traceq.evidence import Evidence, Finding, Unit
from traceq.gate import Condition, Interval, Observed, Outcome, evaluate
from traceq.names import Pattern, fold_name
from traceq.stats import Verdict

_WORST = ("fail", "inconclusive", "pass")


def check(diff: Diff, conditions: Sequence[Condition]) -> list[Outcome]:
    """What becomes of each condition. Raises UsageError where one is about nothing."""
    return [_check(diff, condition) for condition in conditions]


def _check(diff: Diff, condition: Condition) -> Outcome:
    confidence = 1 - diff.evidence.level
    if condition.pattern is None:
        return evaluate(condition, _of_scopes(diff, condition.measure), confidence=confidence)
    rows = _matching(diff, condition)
    if not rows:
        names = (diff.kernels["kernel"] if condition.measure == "gpu" else diff.ops["op"]).tolist()
        return evaluate(condition, None, names=names, confidence=confidence)
    if condition.measure == "calls":
        return evaluate(condition, _calls(rows), confidence=confidence)
    outcomes = [
        evaluate(condition, observed, confidence=confidence)
        for observed in _times(diff.evidence, rows, condition)
    ]
    return min(outcomes, key=lambda outcome: _WORST.index(outcome.state))


def _matching(diff: Diff, condition: Condition) -> list[dict[str, Any]]:
    """The rows of ops, or for GPU time of kernels, that a condition's pattern matches."""
    pattern = Pattern.parse(condition.pattern or "")
    is_gpu = condition.measure == "gpu"
    table, key = (diff.kernels, "kernel") if is_gpu else (diff.ops, "op")
    return [row | {"name": row[key]} for row in records(table) if _is_meant(pattern, row, key)]


def _is_meant(pattern: Pattern, row: dict[str, Any], key: str) -> bool:
    names = (row[key], row.get("replaced_by"))
    return any(name is not None and pattern.matches(fold_name(name)) for name in names)


def _calls(rows: Sequence[dict[str, Any]]) -> Observed:
    """The calls of some ops: the least and the most that the captures of a side may have."""
    return Observed(
        calls_before=_ends(rows, "before"),
        calls_after=_ends(rows, "after"),
    )


def _ends(rows: Sequence[dict[str, Any]], side: str) -> tuple[int, int]:
    low, high = (sum(_calls_of(row, end, side) for row in rows) for end in ("low", "high"))
    return low, high


def _calls_of(row: dict[str, Any], end: str, side: str) -> int:
    """The least or the most calls of a row; a replaced pair has but one figure."""
    found = row.get(f"calls_{end}_{side}")
    return int(row[f"calls_{side}"] or 0) if found is None else int(found)


def _of_scopes(diff: Diff, measure: str) -> Observed:
    finding = diff.evidence.of("scopes", measure)
    totals = [item.totals for item in diff.before.captures]
    times = sorted(item.gpu_here.total if measure == "gpu" else item.total for item in totals)
    return _observed(diff.evidence, finding, times[(len(times) - 1) // 2], measure)


def _times(
    evidence: Evidence, rows: Sequence[dict[str, Any]], condition: Condition
) -> Iterator[Observed]:
    table = "kernels" if condition.measure == "gpu" else "ops"
    for row in rows:
        finding = evidence.of(table, row["name"])
        if finding is None:
            yield _one_sided(row)
        else:
            yield _observed(evidence, finding, row["total_before"] or 0, condition.measure)


def _one_sided(row: dict[str, Any]) -> Observed:
    """An op of one side alone: all its time is more, or less, than before; no samples say so."""
    if row["status"] not in ("added", "removed"):
        return Observed(verdict=Verdict.UNCLEAR)
    end = inf if row["status"] == "added" else -inf
    delta = row["delta"]
    return Observed(
        log_ratio=Interval(end, end, end),
        delta=Interval(delta, delta, delta),
        confidence=1.0,
        is_significant=True,
        verdict=row["status"],
        unit="calls",
    )


def _observed(evidence: Evidence, finding: Finding | None, before: int, measure: str) -> Observed:
    if finding is None:
        return Observed(verdict=Verdict.UNCLEAR)
    change = finding.change
    low, high = _log1p(change.low), _log1p(change.high)
    if evidence.unit is not Unit.CAPTURE and finding.verdict is not Verdict.SAME:
        # Steps of one capture do not show how far captures of the same code lie apart.
        drift, width = evidence.drift[measure]
        low, high = low - abs(drift) - width, high + abs(drift) + width
    ends = [change.estimate * before, _expm1(low) * before, _expm1(high) * before]
    return Observed(
        log_ratio=Interval(_log1p(change.estimate), low, high),
        delta=Interval(*ends),
        confidence=change.confidence,
        is_significant=finding.verdict in (Verdict.FASTER, Verdict.SLOWER),
        verdict=finding.verdict,
        unit=_SAMPLES[evidence.unit],
    )


_SAMPLES = {Unit.CAPTURE: "captures", Unit.STEP: "steps", Unit.NONE: "one sample a side"}


def _log1p(part: float) -> float:
    """Also where next to nothing is left, of which the relative change has been rounded to -1."""
    return log1p(max(part, -1 + 1e-15))


def _expm1(log: float) -> float:
    """Without an overflow, of which the log of a ratio is not far where nothing is known."""
    return expm1(log) if log < 700 else inf
