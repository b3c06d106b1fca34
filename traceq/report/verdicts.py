"""Sentences and cells on what the samples say: shared by all that shows a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from math import ceil, expm1, inf, log10
from typing import Any

from traceq import units
from traceq.align import Kind
from traceq.compare import BY_DRIFT_FREE, Diff
from traceq.evidence import Evidence, Finding
from traceq.groups import Group
from traceq.maps import JOINED
from traceq.names import shorten
from traceq.report.words import plural, quoted
from traceq.samples import CAPTURES, Unit
from traceq.stats import Interval, Verdict
from traceq.table import records
from traceq.units import printable

CAN_NOT_TELL = "~"
"""Stands for a change that the samples do not show to be one."""


WEAK = ", by steps and not by captures (weaker evidence)"
"""Follows what is said of times where captures are not the samples."""


def percent_change(part: float) -> str:
    """A relative change with its sign.

    >>> percent_change(-0.8286), percent_change(0.00071)
    ('−82.9%', '+0.07%')
    """
    text = _percent(part)
    return f"{'−' if part < 0 else '+'}{text}" if text.strip("0.%") else "±0%"


def _percent(part: float) -> str:
    """A part without its sign, with two places below 1 %.

    >>> _percent(0.01), _percent(-0.0035), _percent(12.5)
    ('1.0%', '0.35%', '1,250%')
    """
    size = abs(part) * 100
    return f"{size:.2f}%" if size < 1 else f"{size:.1f}%" if size < 1000 else f"{size:,.0f}%"


def change_cell(finding: Finding | None) -> str:
    """A row's change in a table: in figures where it is one, else ``same`` or ``~``."""
    if finding is None:
        return ""
    if finding.verdict is Verdict.UNCLEAR:
        return CAN_NOT_TELL if finding.p is not None else ""  # not tested
    if finding.verdict is Verdict.SAME:
        return "same"
    free = finding.drift_free
    if finding.by_drift_free and free is not None:
        return percent_change(free.estimate) + BESIDE
    return percent_change(finding.change.estimate)


BESIDE = "*"
"""Marks a change that shows beside the drift of its capture alone."""


def p_cell(p: float | None) -> str:
    """An adjusted p with two digits, never rounded down.

    >>> p_cell(0.1), p_cell(1.0), p_cell(1 / 126), p_cell(0.1004), p_cell(None)
    ('0.1', '1', '0.0080', '0.11', '')
    """
    if p is None:
        return ""
    places = 2 - ceil(log10(p)) if p > 0 else 2
    rounded = ceil(p * 10**places - 1e-9) / 10**places
    return f"{rounded:.2g}" if rounded in (1.0, 0.1) else f"{rounded:.{places}f}"


def interval_text(change: Interval, unit: Unit) -> str:
    """The interval of a relative change, with the confidence that it really has."""
    if not change.confidence:
        return "too few samples for an interval"
    words = "" if unit is Unit.CAPTURE else " of the steps alone"
    return (
        f"{units.percent_floor(change.confidence)} interval{words} {percent_change(change.low)} to "
        f"{percent_change(change.high)}"
    )


def per_call_text(change: Interval | None) -> str:
    """The change of a call's time in µs, with its interval."""
    if change is None:
        return ""
    text = units.signed_micros(round(change.estimate))
    if not change.confidence:
        return text
    low, high = units.signed_micros(round(change.low)), units.signed_micros(round(change.high))
    return f"{text} [{low}, {high}]"


def scope_fact(diff: Diff, name: str) -> str:
    """What the samples say of the scopes' CPU or GPU time, in one line."""
    finding = diff.evidence.of("scopes", name)
    if finding is None:
        return "can't tell: no samples that could be compared"
    return _fact(diff.evidence, finding)


def op_fact(diff: Diff, op: str) -> str:
    """What became of an op, or what the samples say of the time of all its calls, in one line."""
    finding = diff.evidence.of("ops", op)
    if finding is None:
        (status,) = diff.ops.loc[diff.ops["op"] == op, "status"]
        return str(status) if status in ("added", "removed") else "not tested"
    if finding.by_drift_free:
        return f"the time of all its calls: {finding.verdict}{_beside_others(finding)}"
    return f"the time of all its calls: {_fact(diff.evidence, finding)}"


def _fact(evidence: Evidence, finding: Finding) -> str:
    interval = interval_text(finding.change, evidence.unit)
    figures = f"{percent_change(finding.change.estimate)}, {interval}"
    if finding.verdict is Verdict.SAME:
        return f"same within {evidence.bound * 100:g}% ({figures})"
    if finding.verdict is Verdict.UNCLEAR:
        return f"can't tell ({figures}){_needed(evidence, finding)}"
    return f"{finding.verdict} ({figures})"


def _needed(evidence: Evidence, finding: Finding) -> str:
    if evidence.unit is not Unit.CAPTURE:
        return f"; take {finding.needed or CAPTURES} captures a side"
    if finding.needed is None:
        return "; more captures than can be taken would be needed"
    return (
        f"; if it is really {percent_change(finding.change.estimate)}, about {finding.needed} "
        "captures a side would tell"
    )


def samples_fact(evidence: Evidence, *, is_whole: bool) -> str:
    """What the samples are, and what they can carry."""
    share = f"{evidence.level * 100:.3g}%"
    if evidence.unit is Unit.CAPTURE:
        one, other = evidence.samples
        text = f"{one} captures before, {other} after"
        if not evidence.carries:
            return f"{text}; too few for a test at the level {share}: no row is declared changed"
        return (
            f"{text}; if they were taken in turns, any row is declared changed in at most {share} "
            f"of comparisons of unchanged code{_noise(evidence)}"
        )
    if evidence.unit is Unit.NONE:
        advice = "give --under, or take" if is_whole else "take"
        return (
            f"none: the captures have no equal steps with scopes in them; {advice} {CAPTURES} "
            "captures a side"
        )
    number = evidence.samples[0]
    text = f"the {plural(number, 'step')} of the captures{_pooled(evidence)}: weaker evidence than "
    text += f"{CAPTURES} captures"
    if not evidence.carries:
        return f"{text}, and too few for a test at the level {share}{_outside(evidence)}"
    return f"{text} a side{_outside(evidence)}{_drift(evidence)}"


def _pooled(evidence: Evidence) -> str:
    return ", each the mean of a side's captures" if evidence.has_several else ""


def _outside(evidence: Evidence) -> str:
    if evidence.outside < _LEAST_TOLD:
        return ""
    return f"; {units.percent(evidence.outside)} of the CPU time is in no step"


_LEAST_TOLD = 0.001


def _noise(evidence: Evidence) -> str:
    known = [
        f"{name.upper()} {units.percent(noise)}"
        for name, noise in evidence.noise.items()
        if noise is not None
    ]
    return f"; captures of one side spread by {', '.join(known)}" if known else ""


def _drift(evidence: Evidence) -> str:
    """How far unchanged code moved: what a row must be beyond."""
    texts = []
    for name in ("cpu", "gpu"):
        drift, width = evidence.drift[name]
        if width < inf:
            texts.append(
                f"{name.upper()} rows moved by {percent_change(expm1(drift))} between them, one "
                f"counts from a factor of {expm1(width) + 1:.2g} beyond that"
            )
    return (
        f"; {'; '.join(texts)}" if texts else "; too few rows to tell how far they move by chance"
    )


def quotable(diff: Diff) -> Iterator[str]:
    """The sentences that a reviewer may quote: what was replaced, then the scopes' times."""
    where = f"Under {quoted(diff.under)}" if diff.under else "In the whole trace"
    groups = diff.steady_groups
    if groups:
        number, group = groups[0]
        noun = "scope" if diff.under else "place"
        yield f"{where}, {_told(diff.evidence, group, number, noun)}."
    else:
        yield f"{where}, {_no_change(diff)}."
    if len(groups) > 1:
        yield f"{plural(len(groups) - 1, 'more change')} of the code below."
    yield from _declared(diff)
    for name in ("cpu", "gpu") if diff.has_gpu else ("cpu",):
        yield f"{name.upper()} time{' of the scopes' if diff.under else ''}: {_short(diff, name)}."


CHANGES = [str(verdict) for verdict in Verdict if verdict.is_change]


def change_of(row: dict[str, Any]) -> str:
    """The change of a row that is declared one, in figures."""
    if row["told_by"] == BY_DRIFT_FREE:
        return percent_change(row["drift_free_change"]) + BESIDE
    return percent_change(row["change"])


def declared_rows(diff: Diff) -> list[dict[str, Any]]:
    """The ops that are declared changed, with most own time first: neither in nor around a group.

    An op that takes longer makes all around it longer: the own time tells which it is, and what is
    around a group changed with it.
    """
    table = diff.ops
    moved = table["verdict"].isin(CHANGES)
    told = diff.groups.steady_ops | diff.groups.ops_around
    rows = records(table[moved & ~table["op"].isin(told)])
    return sorted(rows, key=lambda row: -abs(row["self_delta"]))


NAMED = 2
"""So many ops, or kernels, are named in a sentence."""


def _declared(diff: Diff) -> Iterator[str]:
    """Which code of the same structure takes longer, or shorter."""
    kernels = diff.kernels[diff.kernels["verdict"].isin(CHANGES)]
    by_time = sorted(records(kernels), key=lambda row: -abs(row["delta"]))
    for rows, key, noun in ((declared_rows(diff), "op", "op"), (by_time, "kernel", "kernel")):
        if not rows:
            continue
        named = ", ".join(
            f"{shorten(printable(row[key]), WIDTH)} ({change_of(row)})" for row in rows[:NAMED]
        )
        more = len(rows) - NAMED
        and_more = f" and {more} more" if more > 0 else ""
        yield f"By time alone, {plural(len(rows), noun)} changed: {named}{and_more}."


def _no_change(diff: Diff) -> str:
    """Said where no group is in enough of the scopes: what there is in some of them."""
    kernels = [group for group in diff.kernel_groups.rows if group.is_steady]
    if kernels:
        return f"the code is the same, but {plural(len(kernels), 'change')} of kernels (below)"
    if not diff.groups.rows:
        return "the code is the same on both sides"
    most = max(diff.groups.rows, key=lambda group: max(group.instances))
    words = _DEEDS[most.key.kind].format(old=joined(most.key.before), new=joined(most.key.after))
    return (
        f"no change of the code is in all places; {plural(len(diff.groups.rows), 'difference')} "
        f"in some (most often: {words} in {max(most.instances):,} of {max(most.scopes):,})"
    )


def _told(evidence: Evidence, group: Group, number: str, noun: str) -> str:
    """What became of a group, in how many scopes, and what it takes, before and after."""
    words = _DEEDS[group.key.kind].format(old=joined(group.key.before), new=joined(group.key.after))
    words += ", which is not certain," if group.is_ambiguous else ""
    if group.is_alone:
        return f"{words} ({plural(min(group.instances), noun)} without a counterpart)"
    text = f"{words} in {min(group.instances):,} of {plural(max(group.scopes), noun)}"
    finding = evidence.of("groups", number)
    if finding is None:
        return text
    weak = "" if evidence.unit is Unit.CAPTURE else WEAK
    measure, words = (mean_time, "in all") if finding.per_call is None else (average_call, "a call")
    before, after = (units.micros(measure(group, side)) for side in ("before", "after"))
    text += f", {before} → {after} µs {words}"
    if finding.per_call is not None:
        text += _per_call_interval(finding.per_call, evidence.unit)
    return f"{text}: {finding.verdict}{_beside_others(finding)}{weak}"


def _beside_others(finding: Finding) -> str:
    """Said where only the change against the other rows of its capture tells."""
    free = finding.drift_free
    if not finding.by_drift_free or free is None:
        return ""
    return f" than the other ops ({percent_change(free.low)} to {percent_change(free.high)})"


def _per_call_interval(change: Interval, unit: Unit) -> str:
    if not change.confidence:
        return ""
    ends = (change.estimate, change.low, change.high)
    estimate, low, high = (units.signed_micros(round(end)) for end in ends)
    words = "" if unit is Unit.CAPTURE else " of the steps alone"
    told = f"{units.percent_floor(change.confidence)} interval{words} {low} to {high}"
    return f" (median difference {estimate} µs, {told})"


_DEEDS = {
    Kind.REPLACED: "{old} became {new}",
    Kind.RENAMED: "{old} is now called {new}",
    Kind.FUSED: "{old} became one: {new},",
    Kind.SPLIT: "{old} became several: {new},",
    Kind.WRAPPED: "{new} was put around {old}",
    Kind.UNWRAPPED: "{old} was taken from around {new}",
    Kind.MOVED: "{old} was moved",
    Kind.REMOVED: "{old} was removed",
    Kind.ADDED: "{new} was added",
}


WIDTH = 80
"""Longest name in a sentence or in a group."""


def joined(ops: tuple[str, ...], most: int = 4) -> str:
    """The ops of a group, equal neighbours counted, and no more than so many of them.

    >>> joined(("mul", "mul", "add")), joined(("a", "b", "c", "d"), most=2)
    ('mul ×2 + add', 'a + b + 2 more')
    """
    runs = [(op, len([*same])) for op, same in groupby(ops)]
    names = [(shorten(op, WIDTH), number) for op, number in runs[:most]]
    texts = [f"{op} ×{number}" if number > 1 else op for op, number in names]
    more = sum(number for _, number in runs[most:])
    return JOINED.join([*texts, *([f"{more} more"] if more else [])])


def mean_time(group: Group, side: str) -> float | None:
    """The mean time (ns) of a group over the captures of a side."""
    sums = group.sums(side, "time")
    return sum(sums) / max(len(sums), 1)


def average_call(group: Group, side: str) -> float | None:
    """The mean time (ns) of a call of a group over all captures of a side; None without calls."""
    calls = sum(group.sums(side, "calls"))
    return sum(group.sums(side, "time")) / calls if calls else None


def _short(diff: Diff, name: str) -> str:
    finding = diff.evidence.of("scopes", name)
    if finding is None or finding.verdict is Verdict.UNCLEAR:
        return "can't tell"
    weak = "" if diff.evidence.unit is Unit.CAPTURE else WEAK
    if finding.verdict is Verdict.SAME:
        return f"same within {diff.evidence.bound * 100:g}%{weak}"
    return f"{finding.verdict}, {percent_change(finding.change.estimate)}{weak}"
