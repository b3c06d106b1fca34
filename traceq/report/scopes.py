"""The report of ``traceq scopes``."""

from __future__ import annotations

from typing import Any

import pandas as pd

from traceq.report.model import Column, Report, Table, Unit
from traceq.report.part import CPU_REMARK, Part, cut, gpu_remark, left_note
from traceq.report.words import plural, without_zeros

_CPU_COLUMNS = (
    Column("scope", "scope", Unit.NAME, ample=32),
    Column("calls", "calls", Unit.COUNT),
    Column("total", "CPU total µs", Unit.MICROS),
    Column("self", "CPU self µs", Unit.MICROS, 3),
    Column("share", "of parent", Unit.SHARE, 2),
    Column("average", "CPU avg µs", Unit.MICROS, 6),
    Column("instances", "instances", Unit.COUNT, 7),
)
_GPU_COLUMNS = (
    Column("gpu_total", "GPU total µs", Unit.MICROS),
    Column("gpu_self", "GPU own µs", Unit.MICROS, 4),
    Column("backward", "own backward µs", Unit.MICROS),
    Column("gpu_share", "of all GPU", Unit.SHARE, 1),
    Column("gpu_busy", "GPU busy µs", Unit.MICROS, 6),
    Column("launches", "launches", Unit.COUNT, 5),
    Column("kernels_per_call", "kernels/call", Unit.NUMBER, 3),
)
_NOT_OF_ACCOUNT = ("calls", "instances", "total", "self")
_CPU_ONLY_REMARK = "CPU self leaves the scopes directly below out; of parent: part of theirs."
SCOPE_REMARK = (
    "CPU self leaves the scopes directly below out; of parent: part of the CPU time of the scopes "
    "directly around. GPU total: activities launched in the scope; GPU own: those of no scope "
    "below it."
)
BACKWARD_REMARK = (
    "GPU total holds what the scope's backward pass launched, later and on another thread; own "
    "backward: that part of GPU own."
)


def sorted_scopes(scopes: pd.DataFrame, by: str, has_gpu: bool) -> pd.DataFrame:
    """Classes by their time, heaviest first; instances and layers in the order of first call."""
    if by != "class":
        return scopes
    return scopes.sort_values(
        ["gpu_total", "total"] if has_gpu else ["total"], ascending=False, kind="stable"
    )


def scopes_report(
    scopes: pd.DataFrame, part: Part, *, by: str = "class", limit: int | None = None
) -> Report:
    """Modules and labels, at most ``limit`` of them; what is left out is said."""
    parts = cut(sorted_scopes(scopes, by, part.has_gpu), "scope", limit)
    columns = [*_CPU_COLUMNS, *(_GPU_COLUMNS if part.has_gpu else ())]
    has_backward = bool(scopes["backward"].any())
    columns = [column for column in columns if column.key != "backward" or has_backward]
    note = left_note(parts.left, "rows", {"self": "CPU self", "gpu_self": "GPU own"})
    cpu = [CPU_REMARK, SCOPE_REMARK] if part.has_gpu else [_CPU_ONLY_REMARK]
    rows = tuple(_row(row) for row in parts.all_shown)
    return Report(
        headline=_headline(len(parts.shown) + len(parts.left), by, part),
        facts=part.facts,
        tables=(Table("", tuple(columns), rows, note or _nothing(scopes)),),
        warnings=part.warnings,
        remarks=(" ".join([*cpu, BACKWARD_REMARK] if has_backward else cpu), gpu_remark(part)),
    )


def _headline(rows: int, by: str, part: Part) -> str:
    what = {
        "class": plural(rows, "class or label", "classes and labels"),
        "instance": plural(rows, "instance or label", "instances and labels"),
        "layer": plural(rows, "layer"),
    }[by]
    return f"{what} {part.place}"


def _row(row: dict[str, Any]) -> dict[str, Any]:
    gpu = [column.key for column in _GPU_COLUMNS]
    return without_zeros(row, [*gpu, *(() if row["calls"] else _NOT_OF_ACCOUNT)])


def _nothing(scopes: pd.DataFrame) -> str:
    if len(scopes):
        return ""
    return "No modules or labels: capture with with_stack=True, or use record_function."
