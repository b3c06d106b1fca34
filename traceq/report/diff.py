"""The report of ``traceq diff``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from traceq import units
from traceq.compare import STATUS_ORDER, Diff, ScopeTotals, records
from traceq.kernels import GpuWork
from traceq.report.model import REPLACED_BY, Column, Report, Table, Unit
from traceq.report.words import activities, plural, quoted
from traceq.steps import MARKED

RATIO_NOTE = (
    "CPU times in µs, children included, without the GPU's work; ratio = before / after, above 1 "
    "is faster. ⇒ replaced, ~ other calls, ≈ same calls, time shifted, + added, − removed."
)
GPU_NOTE = "GPU: kernels, copies and sets that an op, or what is below it, launched; in µs."

MARKS = {
    "replaced": "⇒",
    "changed": "~",
    "shifted": "≈",
    "added": "+",
    "removed": "−",
    "same": "",
}

_CPU_COLUMNS = (
    Column("mark", "", Unit.TEXT),
    Column("name", "op", Unit.NAME),
    Column("calls", "calls", Unit.TEXT),
    Column("total_before", "before µs", Unit.MICROS),
    Column("total_after", "after µs", Unit.MICROS),
    Column("delta", "Δ µs", Unit.DELTA),
    Column("ratio", "ratio", Unit.RATIO),
    Column("average_before", "avg before", Unit.MICROS, 2),
    Column("average_after", "avg after", Unit.MICROS, 2),
    Column("min_before", "min before", Unit.MICROS, 5),
    Column("min_after", "min after", Unit.MICROS, 5),
    Column("max_before", "max before", Unit.MICROS, 4),
    Column("max_after", "max after", Unit.MICROS, 4),
)
_GPU_COLUMNS = (
    Column("gpu_total_before", "GPU before", Unit.MICROS, 3),
    Column("gpu_total_after", "GPU after", Unit.MICROS, 3),
    Column("gpu_delta", "Δ GPU", Unit.DELTA, 3),
)
_KERNEL_COLUMNS = (
    Column("mark", "", Unit.TEXT),
    Column("kernel", "kernel (GPU times)", Unit.NAME),
    *_CPU_COLUMNS[2:],
)


KERNELS_SHOWN = 5
"""How many kernels with the same calls are shown: those with most time."""


def diff_report(diff: Diff, *, show_all: bool = False, limit: int | None = None) -> Report:
    """A comparison: the scopes' totals, what changed, and the rest in one line or in full."""
    return Report(
        headline=_diff_headline(diff),
        facts=_facts(diff),
        tables=tuple(_tables(diff, show_all, limit)),
        warnings=diff.warnings,
        remarks=(
            *_unchanged_line(diff, show_all),
            *_unchanged_kernels(diff, show_all),
            *_account_lines(diff),
            RATIO_NOTE,
            *((GPU_NOTE,) if diff.has_gpu else ()),
        ),
    )


def _facts(diff: Diff) -> tuple[tuple[str, str], ...]:
    before, after = diff.before.totals, diff.after.totals
    change = f"CPU {units.signed_micros(after.total - before.total)} µs"
    if diff.has_gpu:
        delta = _here(after).total - _here(before).total
        change += f", GPU {units.signed_micros(delta)} µs"
    return (
        ("before", _side_fact(diff.before.path, before)),
        ("after", _side_fact(diff.after.path, after)),
        ("change", change),
        *_limits(diff.within),
    )


def _limits(within: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """The limits of time, and how steps were found where the profiler did not mark them."""
    words = [f"steps {within['steps']}"] if within["steps"] is not None else []
    words += ["without the first step"] if within["skip_first"] else []
    words += [f"window {within['window']}"] if within["window"] is not None else []
    sources = dict.fromkeys(within[side] for side in ("steps_before", "steps_after"))
    words += [f"steps {source}" for source in sources if source not in (None, "", MARKED)]
    return (("within", "; ".join(words)),) if words else ()


def _tables(diff: Diff, show_all: bool, limit: int | None) -> Iterator[Table]:
    columns = _CPU_COLUMNS + (_GPU_COLUMNS if diff.has_gpu else ())
    if len(diff.changes):
        yield _changes(diff.changes, columns, limit)
    if show_all and len(diff.unchanged):
        yield Table("Same calls", columns, tuple(map(_diff_row, records(diff.unchanged))))
    if len(diff.kernels):
        yield _kernel_table(diff.kernels, show_all, limit)


def _changes(rows: pd.DataFrame, columns: Sequence[Column], limit: int | None) -> Table:
    shown = rows if limit is None else rows.head(limit)
    left = len(rows) - len(shown)
    note = f"{plural(left, 'more changed op')} (--limit 0 shows all)." if left else ""
    return Table("", tuple(columns), tuple(map(_diff_row, records(shown))), note)


def _kernel_table(kernels: pd.DataFrame, show_all: bool, limit: int | None) -> Table:
    """The kernels that changed, and those with most time."""
    is_same = kernels["status"] == "same"
    changed, same = kernels[~is_same], kernels[is_same]
    changed = changed if limit is None else changed.head(limit)
    by_time = same.sort_values("total_before", ascending=False, kind="stable")
    shown = pd.concat([changed, by_time if show_all else by_time.head(KERNELS_SHOWN)])
    left = len(kernels) - len(shown)
    note = f"{plural(left, 'more kernel')} with less time (--all shows them)." if left else ""
    rows = tuple(map(_diff_row, records(shown)))
    return Table("Kernels, copies and sets", _KERNEL_COLUMNS, rows, note)


def _diff_row(row: dict[str, Any]) -> dict[str, Any]:
    name = row.get("op", "")
    if row.get("replaced_by") is not None:
        name += REPLACED_BY + row["replaced_by"]
    calls = _calls(row["calls_before"], row["calls_after"])
    shown = {"mark": MARKS[row["status"]], "name": name, "calls": calls}
    if not row.get("gpu_total_before") and not row.get("gpu_total_after"):
        shown |= dict.fromkeys(("gpu_total_before", "gpu_total_after", "gpu_delta"))
    return row | shown


def _calls(before: int | None, after: int | None) -> str:
    if before is None:
        return f"0→{units.count(after)}"
    if after is None:
        return f"{units.count(before)}→0"
    if before == after:
        return units.count(before)
    return f"{units.count(before)}→{units.count(after)}"


def _diff_headline(diff: Diff) -> str:
    where = f"Under {quoted(diff.under)}" if diff.under else "In the whole trace"
    counts = diff.table["status"].value_counts()
    found = [
        f"{counts[status]:,} {status}"
        for status in STATUS_ORDER
        if status != "same" and counts.get(status, 0)
    ]
    kernels = _kernel_counts(diff)
    if not found and not kernels:
        return f"{where}: no op changed its calls, and no time shifted much."
    ops = f"{', '.join(found) or 'none changed'} of {plural(len(diff.table), 'op')}"
    return f"{where}: {ops}{kernels}."


def _kernel_counts(diff: Diff) -> str:
    counts = diff.kernels["status"].value_counts()
    found = [
        f"{counts[status]:,} {status}"
        for status in STATUS_ORDER
        if status != "same" and counts.get(status, 0)
    ]
    return f"; {', '.join(found)} of {plural(len(diff.kernels), 'kernel')}" if found else ""


def _here(totals: ScopeTotals) -> GpuWork:
    """The GPU work that is compared: without scopes also what no launch in the trace explains."""
    return totals.gpu.under if totals.scopes else totals.gpu.all


def _side_fact(path: str, totals: ScopeTotals) -> str:
    gpu = _here(totals)
    work = f", GPU {units.micros(gpu.total)} µs in {activities(gpu.activities)}"
    time = f"CPU {units.micros(totals.total)} µs{work if gpu.activities else ''}"
    if not totals.scopes:
        return f"{path}: {time}; own time of all threads"
    return f"{path}: {plural(totals.scopes, 'scope')}, {time}"


def _unchanged_line(diff: Diff, show_all: bool) -> tuple[str, ...]:
    """One sentence on the ops with the same calls; self time, since totals hold each other."""
    same = diff.unchanged
    if same.empty:
        return ()
    before, after = int(same["self_before"].sum()), int(same["self_after"].sum())
    more = "" if show_all else " (--all shows them)"
    return (
        f"{plural(len(same), 'op')} with the same calls: self time {units.micros(before)} → "
        f"{units.micros(after)} µs, Δ {units.signed_micros(after - before)} µs{more}.",
    )


def _unchanged_kernels(diff: Diff, show_all: bool) -> tuple[str, ...]:
    same = diff.kernels[diff.kernels["status"] == "same"]
    if same.empty:
        return ()
    before, after = int(same["total_before"].sum()), int(same["total_after"].sum())
    more = "" if show_all else " (--all shows them)"
    return (
        f"{plural(len(same), 'kernel')} with the same calls: GPU time {units.micros(before)} → "
        f"{units.micros(after)} µs, Δ {units.signed_micros(after - before)} µs{more}.",
    )


def _account_lines(diff: Diff) -> Iterator[str]:
    """Where the rest of the GPU time is, on each side."""
    for name, side in (("before", diff.before), ("after", diff.after)):
        gpu = side.totals.gpu
        if not gpu.all.activities or gpu.all == gpu.under:
            continue
        parts = [("backward, of these", gpu.backward), ("outside", gpu.outside)]
        parts += [("launch not in the trace", gpu.unknown)]
        rest = "; ".join(f"{word} {_work(work)}" for word, work in parts if work.activities)
        here = "here" if side.totals.scopes else "launched in the trace"
        yield f"GPU {name}: {_work(gpu.under)} of {_work(gpu.all)} {here}; {rest}."


def _work(work: GpuWork) -> str:
    return f"{units.micros(work.total)} µs ({work.activities:,})"
