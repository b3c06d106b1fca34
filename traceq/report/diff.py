"""The report of ``traceq diff``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from traceq import units
from traceq.align import Kind
from traceq.compare import BY_DRIFT_FREE, STATUS_ORDER, Diff, Side
from traceq.evidence import Finding
from traceq.groups import Group, Groups
from traceq.kernels import GpuWork
from traceq.reading import Question
from traceq.report.model import REPLACED_BY, Column, Report, Table, Unit
from traceq.report.verdicts import (
    CAN_NOT_TELL,
    change_cell,
    change_of,
    joined,
    p_cell,
    per_call_text,
    quotable,
    samples_fact,
    scope_fact,
)
from traceq.report.words import activities, plural
from traceq.stats import Verdict
from traceq.steps import MARKED
from traceq.table import records

NOTES = (
    "CPU times in µs, children included, without the GPU's work; ratio = before / after, above 1 "
    "is faster. ⇒ replaced, ↷ moved, ≠ other calls, + added, − removed, ↓ faster, ↑ slower, ? in "
    "some scopes or captures only; change: the median over all pairs of samples (*: beside the "
    "drift of its capture), ~ can't tell from noise, empty: not tested; p: adjusted for all rows."
)
GPU_NOTE = "GPU: kernels, copies and sets that an op, or what is below it, launched; in µs."
MEDIANS = "Ops and kernels: medians of the captures, which do not add up."

MARKS = {
    "replaced": "⇒",
    "changed": "≠",
    "added": "+",
    "removed": "−",
    "uneven": "?",
    "same": "",
}
_DIRECTIONS = {str(Verdict.FASTER): "↓", str(Verdict.SLOWER): "↑"}
_KIND_MARKS = {Kind.ADDED: "+", Kind.REMOVED: "−", Kind.MOVED: "↷"}

_GROUP_COLUMNS = (
    Column("mark", "", Unit.TEXT),
    Column("name", "what replaced what", Unit.NAME),
    Column("scopes", "scopes", Unit.TEXT),
    Column("calls", "calls", Unit.TEXT, 1),
    Column("before", "before µs", Unit.MICROS),
    Column("after", "after µs", Unit.MICROS),
    Column("delta", "Δ µs", Unit.DELTA),
    Column("per_call", "Δ µs a call [interval]", Unit.TEXT, 2),
    Column("change", "change", Unit.TEXT),
    Column("p_text", "p", Unit.TEXT, 4),
)
_GROUP_GPU = Column("gpu_delta", "Δ GPU", Unit.DELTA, 3)

CPU_COLUMNS = (
    Column("mark", "", Unit.TEXT),
    Column("name", "op", Unit.NAME),
    Column("calls", "calls", Unit.TEXT),
    Column("total_before", "before µs", Unit.MICROS),
    Column("total_after", "after µs", Unit.MICROS),
    Column("delta", "Δ µs", Unit.DELTA),
    Column("ratio", "ratio", Unit.RATIO),
    Column("change_text", "change", Unit.TEXT),
    Column("p_text", "p", Unit.TEXT, 4),
    Column("average_before", "avg before", Unit.MICROS, 2),
    Column("average_after", "avg after", Unit.MICROS, 2),
    Column("calls_part", "Δ by calls", Unit.DELTA, 5),
    Column("shapes_part", "Δ by shapes", Unit.DELTA, 5),
    Column("cost_part", "Δ by cost", Unit.DELTA, 5),
    Column("min_before", "min before", Unit.MICROS, 7),
    Column("min_after", "min after", Unit.MICROS, 7),
    Column("max_before", "max before", Unit.MICROS, 6),
    Column("max_after", "max after", Unit.MICROS, 6),
)
GPU_COLUMNS = (
    Column("gpu_total_before", "GPU before", Unit.MICROS, 3),
    Column("gpu_total_after", "GPU after", Unit.MICROS, 3),
    Column("gpu_delta", "Δ GPU", Unit.DELTA, 3),
)
_PARTS = ("calls_part", "shapes_part", "cost_part")
_KERNEL_COLUMNS = (
    Column("mark", "", Unit.TEXT),
    Column("kernel", "kernel (GPU times)", Unit.NAME),
    *(column for column in CPU_COLUMNS[2:] if column.key not in _PARTS),
)

KERNELS_SHOWN = 5
"""How many kernels with the same calls are shown: those with most time."""

GROUPS_SHOWN = 10
"""How many groups are shown at most, unless all rows are."""


def diff_report(diff: Diff, *, show_all: bool = False, limit: int | None = None) -> Report:
    """A comparison: what the samples say, what replaced what, the ops and kernels that changed."""
    return Report(
        headline=" ".join(quotable(diff)),
        facts=tuple(facts(diff)),
        tables=tuple(tables(diff, show_all=show_all, limit=limit)),
        warnings=diff.warnings,
        remarks=(
            *counts(diff),
            *unchanged_lines(diff, " (--all shows them)" if not show_all else ""),
            *account_lines(diff),
            NOTES,
            *((MEDIANS,) if has_several(diff) else ()),
            *((GPU_NOTE,) if diff.has_gpu else ()),
        ),
    )


def facts(diff: Diff) -> Iterator[tuple[str, str]]:
    yield "before", _side_fact(diff.before)
    yield "after", _side_fact(diff.after)
    for name in ("cpu", "gpu") if diff.has_gpu else ("cpu",):
        yield f"{name.upper()} time", scope_fact(diff, name)
    yield "samples", samples_fact(diff.evidence, is_whole=not diff.under)
    yield from limits(diff.within)


def has_several(diff: Diff) -> bool:
    return max(len(diff.before.captures), len(diff.after.captures)) > 1


def _side_fact(side: Side) -> str:
    totals = [item.totals for item in side.captures]
    first = totals[0]
    cpu = _range([item.total for item in totals])
    gpu = _range([item.gpu_here.total for item in totals])
    counts = {item.gpu_here.activities for item in totals}
    number = activities(first.gpu_here.activities) if len(counts) == 1 else "activities"
    work = f", GPU {gpu} µs in {number}" if any(counts) else ""
    files = _files([item.path for item in side.captures])
    if not first.scopes:
        return f"{files}: CPU {cpu} µs{work}; own time of all threads"
    return f"{files}: {plural(first.scopes, 'scope')}, CPU {cpu} µs{work}"


def _files(paths: Sequence[str]) -> str:
    """One file, or how many there are and the first and last of them."""
    if len(paths) == 1:
        return paths[0]
    return f"{len(paths)} captures, {paths[0]} to {Path(paths[-1]).name}"


def _range(times: Sequence[int]) -> str:
    """One time, or the least to the largest."""
    if len(times) == 1:
        return units.micros(times[0])
    return f"{units.micros(min(times))} to {units.micros(max(times))}"


def limits(within: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """The limits of time, and how steps were found where the profiler did not mark them."""
    words = [f"steps {within['steps']}"] if within["steps"] is not None else []
    words += ["without the first step"] if within["skip_first"] else []
    words += [f"window {within['window']}"] if within["window"] is not None else []
    sources = dict.fromkeys(within[side] for side in ("steps_before", "steps_after"))
    words += [f"steps {source}" for source in sources if source not in (None, "", MARKED)]
    return (("within", "; ".join(words)),) if words else ()


def limits_told(question: Question, source: str) -> tuple[tuple[str, str], ...]:
    """The same for one capture."""
    by_steps = question.steps is not None or question.skip_first
    sides = dict.fromkeys(("steps_before", "steps_after"), source if by_steps else None)
    return limits(question.limits | sides)


def tables(
    diff: Diff, *, show_all: bool, limit: int | None, show_kernels: bool = False
) -> Iterator[Table]:
    """All tables of a comparison; ``show_kernels`` shows those with little time as well."""
    if diff.groups.rows:
        yield group_table(diff, diff.groups, "groups", limit)
    columns = CPU_COLUMNS + (GPU_COLUMNS if diff.has_gpu else ())
    if len(diff.changes):
        yield changes(diff.changes, columns, limit)
    if show_all and len(diff.unchanged):
        yield Table("Same calls", columns, tuple(map(diff_row, records(diff.unchanged))))
    if diff.has_gpu and diff.kernel_groups.rows:
        yield group_table(diff, diff.kernel_groups, "kernel_groups", limit)
    if len(diff.kernels):
        yield kernel_table(diff.kernels, show_all or show_kernels, limit)


# What replaced what -----------------------------------------------------------------------


def group_table(diff: Diff, groups: Groups, family: str, limit: int | None) -> Table:
    """The groups, those that are no accident first, and the unchanged code."""
    numbered = sorted(enumerate(groups.rows), key=lambda item: not item[1].is_steady)
    shown = numbered if limit is None else numbered[: min(GROUPS_SHOWN, limit)]
    rest = [group for _, group in numbered[len(shown) :]]
    rows = [group_row(group, diff.evidence.of(family, str(number))) for number, group in shown]
    rows += [sum_row(f"({len(rest):,} more)", rest)] if rest else []
    whole = sum_row("(all of these)", [*groups.rows, groups.unchanged])
    rows += [unchanged_row(groups, rows, whole), whole]
    is_cpu = family == "groups"
    rows += [] if is_cpu or diff.under else _unknown_launches(diff)
    title = "What replaced what" if is_cpu else "What replaced what on the GPU"
    several = "; means of the captures" if has_several(diff) else ""
    columns = _GROUP_COLUMNS + ((_GROUP_GPU,) if is_cpu and diff.has_gpu else ())
    return Table(f"{title}: the rows add up{several}", columns, tuple(rows))


def unchanged_row(
    groups: Groups, rows: Sequence[dict[str, Any]], whole: dict[str, Any]
) -> dict[str, Any]:
    """The unchanged code, rounded so that it and the other rows add up to the whole."""
    left = [whole[side] - sum(row[side] for row in rows) for side in ("before", "after")]
    name = "(unchanged code)"
    return sum_row(name, [groups.unchanged]) | plain_row(name, *left)


def _unknown_launches(diff: Diff) -> list[dict[str, Any]]:
    """GPU work that no launch in the trace explains: it has no place in the order of launches."""
    means = []
    for side in (diff.before, diff.after):
        times = [item.totals.gpu.unknown.total for item in side.captures]
        means.append(round(sum(times) / len(times)))
    if not any(means):
        return []
    return [plain_row("(launch not in the trace)", *means)]


def group_row(group: Group, finding: Finding | None) -> dict[str, Any]:
    kind, old, new = group.key.kind, joined(group.key.before), joined(group.key.after)
    name = f"{old}{REPLACED_BY}{new}" if old and new and kind is not Kind.MOVED else old or new
    if kind is Kind.MOVED:
        name += f" (moved: {group.key.parent})"
    if group.is_alone:
        name += " (without a counterpart)"
    found = min(group.instances)
    name += " (which is not certain)" if group.is_ambiguous else ""
    if group.outside:
        more = "more" if kind is Kind.REMOVED else "fewer"
        name += (
            f" (outside of the scopes: {plural(group.outside, f'{more} call', f'{more} calls')})"
        )
    return sum_row(name, [group]) | {
        "mark": _KIND_MARKS.get(kind, "⇒") if group.is_steady else "?",
        "scopes": f"{found:,}" if group.is_alone else f"{found:,} of {max(group.scopes):,}",
        "calls": _calls(*(_mean_of([group], side, "calls") for side in ("before", "after"))),
        "per_call": per_call_text(finding.per_call) if finding else "",
        "change": change_cell(finding),
        "p_text": p_cell(finding.p if finding else None),
        "sort": {
            "calls": _mean_of([group], "after", "calls"),
            "scopes": found,
            "per_call": finding.per_call.estimate if finding and finding.per_call else None,
            "change": finding.change.estimate if finding else None,
            "p_text": finding.p if finding else None,
        },
    }


def sum_row(name: str, groups: Sequence[Group]) -> dict[str, Any]:
    before, after = (_mean_of(groups, side, "time") for side in ("before", "after"))
    gpu = [_mean_of(groups, side, "gpu") for side in ("before", "after")]
    return plain_row(name, before, after) | {"gpu_delta": gpu[1] - gpu[0]}


def plain_row(name: str, before: int, after: int) -> dict[str, Any]:
    texts = ("mark", "scopes", "calls", "per_call", "change", "p_text")
    row: dict[str, Any] = dict.fromkeys(texts, "")
    return row | {"name": name, "before": before, "after": after, "delta": after - before}


def _mean_of(groups: Sequence[Group], side: str, name: str) -> int:
    """The mean over a side's captures, rounded."""
    sums = [group.sums(side, name) for group in groups]
    return round(sum(map(sum, sums)) / max(len(sums[0]), 1))


# Ops and kernels --------------------------------------------------------------------------


def changes(rows: pd.DataFrame, columns: Sequence[Column], limit: int | None) -> Table:
    shown = rows if limit is None else rows.head(limit)
    left = len(rows) - len(shown)
    note = f"{plural(left, 'more changed op')} (--limit 0 shows all)." if left else ""
    return Table("Ops that changed", tuple(columns), tuple(map(diff_row, records(shown))), note)


def kernel_table(kernels: pd.DataFrame, show_all: bool, limit: int | None) -> Table:
    """The kernels that changed, and those with most time."""
    is_same = kernels["status"].isin(["same", "uneven"]) & ~kernels["verdict"].isin(_DIRECTIONS)
    changed, same = kernels[~is_same], kernels[is_same]
    changed = changed if limit is None else changed.head(limit)
    by_time = same.sort_values("total_before", ascending=False, kind="stable")
    shown = pd.concat([changed, by_time if show_all else by_time.head(KERNELS_SHOWN)])
    left = len(kernels) - len(shown)
    note = f"{plural(left, 'more kernel')} with less time (--all shows them)." if left else ""
    rows = tuple(map(diff_row, records(shown)))
    return Table("Kernels, copies and sets", _KERNEL_COLUMNS, rows, note)


def diff_row(row: dict[str, Any]) -> dict[str, Any]:
    name = row.get("op", "")
    if row.get("replaced_by") is not None:
        name += REPLACED_BY + row["replaced_by"]
    calls = _calls(row["calls_before"], row["calls_after"])
    mark = MARKS[row["status"]]
    if row["status"] in ("same", "uneven"):
        mark = _DIRECTIONS.get(row["verdict"], mark)
    shown = {"mark": mark, "name": name, "calls": calls, "change_text": change_text(row)}
    shown["p_text"] = p_cell(row["p"])
    change = row["drift_free_change"] if row["told_by"] == BY_DRIFT_FREE else row["change"]
    sort = {"calls": row["calls_after"] or 0, "change_text": change, "p_text": row["p"]}
    if not row.get("gpu_total_before") and not row.get("gpu_total_after"):
        shown |= dict.fromkeys(("gpu_total_before", "gpu_total_after", "gpu_delta"))
    return row | shown | {"sort": sort}


def change_text(row: dict[str, Any]) -> str:
    """A row's change as :func:`change_cell` has it, from the columns of a finding."""
    verdict = row["verdict"]
    if verdict is None:
        return ""
    if verdict in _DIRECTIONS:
        return change_of(row)
    if verdict == Verdict.SAME:
        return "same"
    return CAN_NOT_TELL if row["p"] is not None else ""  # not tested


def _calls(before: int | None, after: int | None) -> str:
    if before == after:
        return units.count(before)
    return f"{units.count(before or 0)}→{units.count(after or 0)}"


# Remarks ----------------------------------------------------------------------------------


def counts(diff: Diff) -> Iterator[str]:
    """How many ops and kernels changed, of how many."""
    for table, noun in ((diff.table, "op"), (diff.kernels, "kernel")):
        counts = table["status"].value_counts()
        found = [
            f"{counts[status]:,} {_STATUS_WORDS.get(status, status)}"
            for status in STATUS_ORDER
            if status != "same" and counts.get(status, 0)
        ]
        if found:
            yield f"{', '.join(found)} of {plural(len(table), noun)}."


_STATUS_WORDS = {
    "changed": "with other calls",
    "uneven": "with other calls in some scopes or captures only",
}


def unchanged_lines(diff: Diff, more: str = "") -> Iterator[str]:
    """On the ops (their self time, since totals hold each other) and kernels of the same calls."""
    kernels = diff.kernels[diff.kernels["status"] == "same"]
    for noun, time, same, key in (
        ("op", "self", diff.unchanged, "self"),
        ("kernel", "GPU", kernels, "total"),
    ):
        if same.empty:
            continue
        before, after = (int(same[f"{key}_{side}"].sum()) for side in ("before", "after"))
        yield (
            f"{plural(len(same), noun)} with the same calls: {time} time {units.micros(before)} → "
            f"{units.micros(after)} µs, Δ {units.signed_micros(after - before)} µs{more}."
        )


def account_lines(diff: Diff) -> Iterator[str]:
    """Where the rest of the GPU time is, in the captures with the median GPU time."""
    for name, side in (("before", diff.before), ("after", diff.after)):
        in_order = sorted(side.captures, key=lambda item: item.totals.gpu_here.total)
        median = in_order[(len(in_order) - 1) // 2]
        gpu = median.totals.gpu
        if not gpu.all.activities or gpu.all == gpu.under:
            continue
        parts = [("backward, of these", gpu.backward), ("outside", gpu.outside)]
        parts += [("launch not in the trace", gpu.unknown)]
        rest = "; ".join(f"{word} {_work(work)}" for word, work in parts if work.activities)
        here = "launched in the trace" if median.totals.is_whole else "here"
        which = f", {Path(median.path).name}" if len(side.captures) > 1 else ""
        yield f"GPU {name}{which}: {_work(gpu.under)} of {_work(gpu.all)} {here}; {rest}."


def _work(work: GpuWork) -> str:
    return f"{units.micros(work.total)} µs ({work.activities:,})"
