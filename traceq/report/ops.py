"""The report of ``traceq ops``."""

from __future__ import annotations

import pandas as pd

from traceq import units
from traceq.ops import sorted_ops
from traceq.report.model import Column, Report, Table, Unit, kept
from traceq.report.part import CPU_REMARK, Cut, Part, cut, gpu_remark, left_note
from traceq.report.words import plural, without_zeros
from traceq.table import records

NOT_CPU = ("kernel", "gpu_memcpy", "gpu_memset", "gpu_user_annotation", "cuda_sync", "Trace")
"""Categories of slices whose durations are not CPU times: those on the GPU's own tracks, and the
profiler's mark of the whole capture."""

GPU_COLUMNS = (
    Column("gpu_total", "GPU total µs", Unit.MICROS),
    Column("gpu_self", "GPU own µs", Unit.MICROS, 1),
    Column("gpu_busy", "GPU busy µs", Unit.MICROS, 4),
    Column("launches", "launches", Unit.COUNT, 3),
    Column("kernels_per_call", "kernels/call", Unit.NUMBER, 3),
)

_CPU_COLUMNS = (
    Column("op", "op", Unit.NAME),
    Column("calls", "calls", Unit.COUNT),
    Column("total", "CPU total µs", Unit.MICROS),
    Column("self", "CPU self µs", Unit.MICROS),
    Column("average", "CPU avg µs", Unit.MICROS, 2),
)
_MORE_COLUMNS = (
    Column("min", "CPU min µs", Unit.MICROS, 6),
    Column("max", "CPU max µs", Unit.MICROS, 5),
    Column("outermost", "CPU outermost µs", Unit.MICROS, 7),
    Column("category", "category", Unit.TEXT, 8),
)
_OF_TRACES = (
    Column("traces", "traces", Unit.COUNT, 2),
    Column("total_median", "median/trace µs", Unit.MICROS, 3),
    Column("total_least", "least µs", Unit.MICROS, 4),
    Column("total_most", "most µs", Unit.MICROS, 4),
    Column("most_path", "in", Unit.NAME, 8, ample=24),
)
_TRACK_COLUMNS = (
    Column("op", "not CPU time", Unit.NAME),
    Column("calls", "slices", Unit.COUNT),
    Column("total", "total µs", Unit.MICROS),
    Column("average", "avg µs", Unit.MICROS),
    Column("min", "min µs", Unit.MICROS, 1),
    Column("max", "max µs", Unit.MICROS, 1),
    Column("category", "category", Unit.TEXT, 2),
)
_CPU_ONLY_KEYS = (
    *("calls", "total", "self", "outermost"),
    *("total_median", "total_least", "total_most"),
)
OP_REMARK = (
    "CPU total includes children, CPU self leaves them out. GPU total: activities launched by the "
    "op or below it; GPU own: those that no other row has; GPU busy: while any of them ran."
)
NOT_CPU_NOTE = "(the GPU's own tracks, the profiler's marks): see traceq kernels."
_CPU_ONLY_REMARK = "CPU total includes children, CPU self leaves them out."


def ops_report(
    ops: pd.DataFrame,
    part: Part,
    *,
    sort: str = "total",
    limit: int | None = None,
    matched: bool = False,
) -> Report:
    """Ops of one trace or the sum of several, sorted, at most ``limit``; what is left out is said.

    Slices on the GPU's own tracks get a table of their own where they were asked for by name.
    """
    on_gpu = ops["category"].isin(NOT_CPU)
    host, device = sorted_ops(ops[~on_gpu], sort), sorted_ops(ops[on_gpu], sort)
    parts = cut(host, "op", limit)
    tables = [_host_table(parts, part, device, sort, matched)] if len(host) or not matched else []
    if matched and len(device):
        tables.append(_device_table(cut(device, "op", limit)))
    cpu = (CPU_REMARK, OP_REMARK) if part.has_gpu else (_CPU_ONLY_REMARK,)
    return Report(
        headline=_headline(host[host["calls"] > 0], part),
        facts=part.facts,
        tables=tuple(tables),
        warnings=part.warnings,
        remarks=(" ".join(cpu), gpu_remark(part)),
    )


def _headline(ops: pd.DataFrame, part: Part) -> str:
    calls = f"{plural(int(ops['calls'].sum()), 'slice')} of {plural(len(ops), 'op')}"
    if part.scopes_total is None:
        return f"{calls} {part.place}"
    return f"{calls} {part.place}, in all {units.micros(part.scopes_total)} µs on the CPU"


def _host_table(parts: Cut, part: Part, device: pd.DataFrame, sort: str, matched: bool) -> Table:
    gpu = GPU_COLUMNS if part.has_gpu else ()
    more = (*_OF_TRACES, *gpu) if part.traces > 1 else gpu
    notes = [left_note(parts.left, "ops", {"self": "CPU self", "gpu_self": "GPU own"})]
    if len(device) and not matched:
        slices = plural(int(device["calls"].sum()), "slice")
        notes.append(f"Not shown, as no CPU time: {slices} {NOT_CPU_NOTE}")
    return Table(
        "",
        kept((*_CPU_COLUMNS, *more, *_MORE_COLUMNS), sort, "self"),
        tuple(map(_host_row, parts.all_shown)),
        " ".join(filter(None, notes)),
    )


def _host_row(row: dict[str, object]) -> dict[str, object]:
    keys = [column.key for column in GPU_COLUMNS]
    keys += () if row["calls"] else (key for key in _CPU_ONLY_KEYS if key in row)
    return without_zeros(row, keys)


def _device_table(parts: Cut) -> Table:
    note = left_note(parts.left, "names", {"total": "total"})
    return Table("", _TRACK_COLUMNS, tuple(records(parts.shown)), note)
