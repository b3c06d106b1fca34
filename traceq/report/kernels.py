"""The reports of ``traceq kernels``: one row a kernel, or one row an activity."""

from __future__ import annotations

from typing import Any

import pandas as pd

from traceq import units
from traceq.report.model import Column, Report, Table, Unit, kept
from traceq.report.part import Cut, Part, cut, gpu_remark, left_note
from traceq.report.words import activities, plural, without_zeros
from traceq.table import records

KERNEL_SORT_KEYS = ("total", "calls", "average", "max", "delay", "name")

_KERNEL_COLUMNS = (
    Column("kernel", "kernel", Unit.NAME, ample=46),
    Column("calls", "calls", Unit.COUNT),
    Column("total", "total µs", Unit.MICROS),
    Column("average", "avg µs", Unit.MICROS),
    Column("share", "of all GPU", Unit.SHARE),
    Column("min", "min µs", Unit.MICROS, 4),
    Column("max", "max µs", Unit.MICROS, 3),
    Column("delay", "median delay µs", Unit.MICROS, 5),
    Column("busy", "busy µs", Unit.MICROS, 6),
    Column("launches", "launches", Unit.COUNT, 7),
    Column("variants", "variants", Unit.COUNT, 7),
    Column("backward", "of backward", Unit.COUNT, 2),
    Column("ops", "launched by", Unit.NAME, 1, ample=24),
)
_ACTIVITY_COLUMNS = (
    Column("start", "start µs", Unit.MICROS),
    Column("kernel", "kernel", Unit.NAME, ample=46),
    Column("dur", "µs", Unit.MICROS),
    Column("delay", "delay µs", Unit.MICROS, 2),
    Column("stream", "stream", Unit.TEXT, 3),
    Column("device", "GPU", Unit.TEXT, 4),
    Column("op", "launched by", Unit.NAME, 1, ample=24),
    Column("scope", "scope", Unit.NAME, 5, ample=24),
    Column("id", "slice id", Unit.TEXT, 6),
)
_MIXED = ("average", "min", "max", "delay", "variants", "ops")
"""Columns that say nothing of a row in parentheses: it mixes kernels."""

DELAY_REMARK = "Delay: from the launching call to the start on the GPU, with the wait in the queue."


def sorted_kernels(kernels: pd.DataFrame, key: str) -> pd.DataFrame:
    """Kernels by one of KERNEL_SORT_KEYS, largest first; by name where they are equal."""
    column = "kernel" if key == "name" else key
    return kernels.sort_values([column, "kernel"], ascending=[key == "name", True], kind="stable")


def kernels_report(
    kernels: pd.DataFrame, part: Part, *, sort: str = "total", limit: int | None = None
) -> Report:
    """Kernels, copies and sets, at most ``limit`` of them; what is left out is said."""
    parts = cut(sorted_kernels(kernels, sort), "kernel", limit)
    note = left_note(parts.left, "kernels", {"total": "total"})
    columns = [
        column
        for column in _KERNEL_COLUMNS
        if column.key != "backward" or kernels["backward"].any()
    ]
    rows = tuple(map(_kernel_row, parts.all_shown))
    remarks = ("Times are the GPU's. " + DELAY_REMARK,) if rows else ()
    return Report(
        headline=_headline(parts, part),
        facts=part.facts,
        tables=(Table("", kept(columns, sort, "average"), rows, note),) if rows else (),
        warnings=part.warnings,
        remarks=(*remarks, *([gpu_remark(part)] if part.has_gpu else [])),
    )


def _headline(parts: Cut, part: Part) -> str:
    if not part.has_gpu:
        return f"No GPU activity {part.place}"
    rows = pd.concat([parts.shown, parts.left])
    what = plural(len(rows), "kernel, copy or set", "kernels, copies and sets")
    calls, total = int(rows["calls"].sum()), int(rows["total"].sum())
    return f"{activities(calls)} of {what} {part.place}, {units.micros(total)} µs on the GPU"


def _kernel_row(row: dict[str, Any]) -> dict[str, Any]:
    row = without_zeros(row, ["backward", "launches"])
    return row | dict.fromkeys(_MIXED) if row.get("status") == "account" else row


def activities_report(
    found: pd.DataFrame, part: Part, *, origin: int, full_names: bool, limit: int | None
) -> Report:
    """Activities in the order of their start, counted from ``origin`` (ns)."""
    shown = found.head(len(found) if limit is None else limit)
    columns = [column for column in _ACTIVITY_COLUMNS if column.key != "scope" or part.under]
    rows = tuple(_activity_row(row, origin, full_names) for row in records(shown))
    note = left_note(found.iloc[len(shown) :], "activities", {"dur": "total"})
    if not part.has_gpu:
        return Report(f"No GPU activity {part.place}", part.facts, warnings=part.warnings)
    total = f"{units.micros(int(found['dur'].sum()))} µs on the GPU"
    return Report(
        headline=f"{activities(len(found))} {part.place}, {total}",
        facts=part.facts,
        tables=(Table("", tuple(columns), rows, note),) if rows else (),
        warnings=part.warnings,
        remarks=("Start: from the start of the trace. " + DELAY_REMARK, gpu_remark(part)),
    )


def _activity_row(row: dict[str, Any], origin: int, full_names: bool) -> dict[str, Any]:
    scope = f"{row['scope']} (backward)" if row["is_backward"] else row["scope"]
    name = row["name"] if full_names else row["kernel"]
    return row | {"start": row["ts"] - origin, "kernel": name, "scope": scope}
