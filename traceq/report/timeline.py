"""The report of ``traceq timeline``."""

from __future__ import annotations

from typing import Any

from traceq import units
from traceq.kernel_names import short_kernel
from traceq.report.model import Column, Report, Table, Unit
from traceq.report.words import plural
from traceq.table import records
from traceq.timeline import Timeline

_DEVICE = Column("device", "GPU", Unit.TEXT)
_STATE_COLUMNS = (
    Column("state", "state", Unit.TEXT),
    Column("time", "µs", Unit.MICROS),
    Column("share", "of the span", Unit.SHARE),
)
_STREAM_COLUMNS = (
    Column("stream", "stream", Unit.TEXT),
    Column("activities", "activities", Unit.COUNT),
    Column("total", "total µs", Unit.MICROS),
    Column("busy", "busy µs", Unit.MICROS),
    Column("busy_share", "of the span", Unit.SHARE, 1),
    Column("compute", "compute µs", Unit.MICROS, 2),
    Column("communication", "communication µs", Unit.MICROS, 2),
    Column("hidden", "hidden µs", Unit.MICROS, 3),
    Column("copy", "copy µs", Unit.MICROS, 2),
)
_GAP_COLUMNS = (
    Column("start", "start µs", Unit.MICROS),
    Column("dur", "idle µs", Unit.MICROS),
    Column("cause", "mostly", Unit.TEXT),
    Column("next", "then runs", Unit.NAME),
)
REMARK = (
    "The states of a GPU add up to the span; work counts where it ran. Idle, launch latency: "
    "something was launched and had "
    "not started; CPU: nothing was launched, and no thread waited; sync: nothing was launched, "
    "and a thread waited for the GPU. Start: from the start of the trace, as --window counts."
)
HIDDEN_REMARK = " Hidden: communication during which another stream computed."


def timeline_report(
    timeline: Timeline,
    *,
    origin: int,
    within: str = "",
    warnings: tuple[str, ...] = (),
    limit: int | None = None,
) -> Report:
    """What each GPU did; the longest idle times, at most ``limit`` of those that are known."""
    span = timeline.end - timeline.start
    limits = (("within", within),) if within else ()
    if timeline.states.empty:
        return Report(f"No GPU activity in {units.duration(span)}", limits, warnings=warnings)
    hidden = bool(timeline.streams["hidden"].any())
    return Report(
        headline=f"{_busy(timeline)} of {units.duration(span)}",
        facts=limits,
        tables=tuple(
            table
            for table in (_states(timeline), _streams(timeline), _gaps(timeline, origin, limit))
            if table.rows
        ),
        warnings=warnings,
        remarks=(REMARK + (HIDDEN_REMARK if hidden else ""),),
    )


def _busy(timeline: Timeline) -> str:
    shares = timeline.busy_share
    return ", ".join(
        f"{_gpu(device)} busy {units.percent(float(share))}" for device, share in shares.items()
    )


def _gpu(device: Any) -> str:
    return "GPU of unknown number" if device < 0 else f"GPU {device}"


def _with_device(timeline: Timeline, columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """The number of the GPU, where there is more than one."""
    return columns if timeline.states["device"].nunique() == 1 else (_DEVICE, *columns)


def _numbers(row: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Device and stream as they are named; a dash where they are not known."""
    return row | {key: units.NOTHING if row[key] < 0 else row[key] for key in keys}


def _states(timeline: Timeline) -> Table:
    rows = [_numbers(row, "device") for row in records(timeline.states) if row["time"]]
    return Table("", _with_device(timeline, _STATE_COLUMNS), tuple(rows))


def _streams(timeline: Timeline) -> Table:
    span = max(timeline.end - timeline.start, 1)
    rows = [
        _numbers(row, "device", "stream")
        | {"busy_share": row["busy"] / span}
        | {key: row[key] or None for key in ("compute", "communication", "hidden", "copy")}
        for row in records(timeline.streams)
    ]
    columns = [
        column
        for column in _STREAM_COLUMNS
        if column.rank < 2 or timeline.streams[column.key].any()
    ]
    return Table("Streams", _with_device(timeline, tuple(columns)), tuple(rows))


def _gaps(timeline: Timeline, origin: int, limit: int | None) -> Table:
    found = timeline.gaps.head(len(timeline.gaps) if limit is None else limit)
    rows = [
        _numbers(row, "device")
        | {"start": row["ts"] - origin, "next": short_kernel(row["next_name"])}
        | {"cause": row["cause"].removeprefix("idle: ")}
        for row in records(found)
    ]
    gaps = plural(timeline.gap_count, "gap")
    note = f"{gaps} between activities in all, {units.micros(timeline.gap_total)} µs."
    columns = _with_device(timeline, _GAP_COLUMNS)
    return Table("Longest idle times", columns, tuple(rows), note)
