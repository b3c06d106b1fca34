"""The report of ``traceq steps``."""

from __future__ import annotations

from typing import Any

import pandas as pd

from traceq import units
from traceq.report.model import Column, Report, Table, Unit
from traceq.report.words import plural, without_zeros
from traceq.steps import OUTSIDE_STEPS
from traceq.table import records

_COLUMNS = (
    Column("step", "step", Unit.TEXT),
    Column("stage", "stage", Unit.TEXT),
    Column("start", "start µs", Unit.MICROS),
    Column("dur", "CPU µs", Unit.MICROS),
)
_GPU_COLUMNS = (
    Column("gpu_total", "GPU total µs", Unit.MICROS),
    Column("gpu_busy", "GPU busy µs", Unit.MICROS, 2),
    Column("activities", "activities", Unit.COUNT),
    Column("launches", "launches", Unit.COUNT, 3),
)
_LAST_COLUMNS = (
    Column("mark", "", Unit.TEXT),
    Column("name", "name", Unit.NAME, 1, ample=24),
)
_COUNTS = ("launches", "activities", "gpu_total", "gpu_busy")
START_REMARK = "Start: from the start of the trace, as --window counts."
NO_STEPS = (
    "No steps: neither ProfilerStep labels nor a module or label that repeats. "
    "Call the profiler's step(), or use --window."
)


def cold_warning(steps: pd.DataFrame) -> tuple[str, ...]:
    """What to do where the first step is cold."""
    if steps.empty or not bool(steps["is_cold"].iloc[0]):
        return ()
    first = steps.iloc[0]
    peers = steps[(steps["stage"] == first["stage"]) & steps["step"].notna()].iloc[1:]
    others = f"other {first['stage']} steps" if first["stage"] else "others"
    median = round(float(peers["dur"].median()))
    return (
        f"The first step took {units.micros(int(first['dur']))} µs, the median of the {others} "
        f"{units.micros(median)} µs: --skip-first leaves it out.",
    )


def steps_report(steps: pd.DataFrame, *, origin: int, doubts: tuple[str, ...] = ()) -> Report:
    """The steps in order, with times from ``origin`` (ns), and how they were found."""
    count = int(steps["step"].notna().sum())
    has_gpu = bool(steps["activities"].any())
    has_stages = bool((steps["stage"] != "").any())
    columns = [item for item in _COLUMNS if item.key != "stage" or has_stages]
    columns += [*(_GPU_COLUMNS if has_gpu else ()), *_last_columns(steps)]
    rows = tuple(_row(row, origin) for row in records(steps))
    source = steps.attrs["source"]
    return Report(
        headline=f"{plural(count, 'step')}{', ' + source if source else ''}",
        tables=(Table("", tuple(columns), rows, "" if count else NO_STEPS),),
        warnings=(*doubts, *cold_warning(steps)),
        remarks=tuple(_remarks(steps, has_gpu)) if count else (),
    )


def _last_columns(steps: pd.DataFrame) -> list[Column]:
    """The name is told once, in the headline, where all steps have the same."""
    cold = bool(steps["is_cold"].any())
    several = steps.loc[steps["step"].notna(), "name"].nunique() > 1
    wanted = {"mark": cold, "name": several}
    return [column for column in _LAST_COLUMNS if wanted[column.key]]


def _row(row: dict[str, Any], origin: int) -> dict[str, Any]:
    start = None if row["ts"] is None else row["ts"] - origin
    row = without_zeros(row, _COUNTS)
    row |= {"start": start, "mark": "cold" if row["is_cold"] else ""}
    if row["name"] != OUTSIDE_STEPS:
        return row
    return row | {"status": "account", "step": OUTSIDE_STEPS, "name": ""}


def _remarks(steps: pd.DataFrame, has_gpu: bool) -> list[str]:
    if not has_gpu:
        return [START_REMARK]
    total, number = int(steps["gpu_total"].sum()), int(steps["activities"].sum())
    return [
        f"{START_REMARK} GPU work counts in the step that launched it, also where it ran later.",
        f"GPU: {plural(number, 'activity', 'activities')}, {units.micros(total)} µs in all rows.",
    ]
