"""The reports of ``traceq runs`` and ``traceq history``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from traceq import units
from traceq.conditions import shorter
from traceq.history.run import Clock, Run, clock_of
from traceq.history.series import Point, Series
from traceq.history.trend import LEVEL, SHORTEST, ChangePoint
from traceq.report.model import Column, Report, Table, Unit
from traceq.report.verdicts import percent_change
from traceq.report.words import plural

_FIRST = ("branch", "gpu", "torch")
_BARS = "▁▂▃▄▅▆▇█"
_COMMIT = 12
SPARKLINE = 60
"""Points of a sparkline at most: the last ones."""


def runs_report(runs: Sequence[Run], path: str) -> Report:
    """The runs of a history, the oldest first."""
    rows = tuple(_run_row(run) for run in runs)
    captures = plural(sum(run.captures for run in runs), "capture")
    order = clock_of(runs)
    columns = _run_columns(order)
    told = f", in the order of {_ORDERS[order]}" if len(rows) > 1 else ""
    shared = _shared(columns, rows)
    return Report(
        headline=f"{plural(len(runs), 'run')} with {captures} in {path}{told}",
        facts=tuple((column.title, rows[0][column.key]) for column in shared),
        tables=(Table("", _telling(columns, shared, rows), rows),) if rows else (),
    )


def _shared(columns: Sequence[Column], rows: Sequence[dict[str, Any]]) -> list[Column]:
    """The columns that say the same of several runs: said once, they leave room for others."""
    named = [column for column in columns if column.key in ("under", "gpu") and len(rows) > 1]
    return [item for item in named if rows[0][item.key] and len({r[item.key] for r in rows}) == 1]


def _telling(
    columns: Sequence[Column], shared: Sequence[Column], rows: Sequence[dict[str, Any]]
) -> tuple[Column, ...]:
    """The columns that have something to tell, less those that are told already."""
    return tuple(
        column
        for column in columns
        if column not in shared and any(row[column.key] != "" for row in rows)
    )


def _run_columns(order: Clock) -> tuple[Column, ...]:
    return (
        Column("run", "run", Unit.TEXT),
        *_times(order, 0, 4),
        Column("commit", "commit", Unit.TEXT),
        Column("captures", "captures", Unit.COUNT),
        Column("branch", "branch", Unit.TEXT, 1),
        Column("under", "under", Unit.TEXT, 2),
        Column("gpu", "GPU", Unit.TEXT, 3),
        Column("labels", "other labels", Unit.NAME, 0, ample=20),
    )


def _times(order: Clock, rank: int, other_rank: int) -> tuple[Column, Column]:
    """When runs were captured and recorded: first the time that puts them in order."""
    other: Clock = "recorded" if order == "captured" else "captured"
    return (
        Column(order, f"{order} (UTC)", Unit.TEXT, rank),
        Column(other, f"{other} (UTC)", Unit.TEXT, other_rank),
    )


def _time_texts(item: Run | Point) -> dict[str, str]:
    times = {"captured": item.captured, "recorded": item.recorded}
    return {key: f"{time:%Y-%m-%d %H:%M}" if time else "" for key, time in times.items()}


def _run_row(run: Run) -> dict[str, Any]:
    labels = dict(run.labels)
    rest = [f"{key}={value}" for key, value in labels.items() if key not in ("commit", *_FIRST)]
    return {
        "run": run.run,
        **_time_texts(run),
        "commit": _short(labels.get("commit", "")),
        "branch": labels.get("branch", ""),
        "gpu": labels.get("gpu", ""),
        "under": "; ".join(", ".join(item) or "(whole trace)" for item in run.unders),
        "captures": run.captures,
        "labels": ", ".join(rest),
    }


def history_report(series: Series, *, limit: int | None = None) -> Report:
    """A figure over the runs: its points, a sparkline, where it changed."""
    points = series.points if limit is None else series.points[-limit:]
    cut = len(series.points) - len(points)
    by_place = {change.at: change for change in series.changes}
    rows = tuple(
        _point_row(point, by_place.get(place))
        for place, point in enumerate(points, len(series.points) - len(points))
    )
    shown = f"the last {len(points)} of {plural(len(series.points), 'run')}" if cut else ""
    return Report(
        headline=_headline(series),
        facts=(("trend", sparkline([point.value for point in series.points])),),
        tables=(Table("", _columns(series), rows, shown),),
        warnings=series_warnings(series),
        remarks=tuple(_remarks(series)),
    )


def _remarks(series: Series) -> Iterator[str]:
    """What the table's figures and marks mean, where it has them."""
    if _has_several(series):
        yield "A run's figure is the median of its captures."
    if series.changes:
        yield (
            "≠: another figure from this run on, by the median difference to the runs before (95% "
            f"interval). Of series of unchanged, independent runs at most {LEVEL * 100:g}% "
            "have a mark; a machine that drifts looks like a change."
        )


def _headline(series: Series) -> str:
    name = units.printable(series.name) or ("all scopes" if series.under else "the whole trace")
    under = f" under {', '.join(series.under)}" if series.under else ""
    count = plural(len(series.points), "run")
    what = f"{name}{under}, {_TITLES[series.measure]}"
    text = f"{what} in {count} in the order of {_ORDERS[series.order]}: "
    if not series.changes:
        few = len(series.points) < 2 * SHORTEST
        return text + (
            f"fewer than {2 * SHORTEST}, too few to tell a change" if few else "no change"
        )
    return text + ", ".join(_told(change, series.points) for change in series.changes)


_ORDERS = {"captured": "capture", "recorded": "recording"}
_TITLES = {"total": "CPU time", "average": "time per call", "gpu": "GPU time", "calls": "calls"}


def _told(change: ChangePoint, points: Sequence[Point]) -> str:
    return f"{_percent(change.change.estimate)} from {_name(points[change.at])} on"


def _percent(change: float) -> str:
    return percent_change(change) if math.isfinite(change) else "more than 0"


def _name(point: Point) -> str:
    commit = point.labels.get("commit")
    return f"commit {_short(commit)}" if commit else f"run {point.run}"


def _short(commit: str) -> str:
    hexadecimal = set(commit) <= set("0123456789abcdef")
    return commit[:_COMMIT] if hexadecimal else units.printable(commit)


def _columns(series: Series) -> tuple[Column, ...]:
    unit = Unit.COUNT if series.measure == "calls" else Unit.MICROS
    scale = "" if series.measure == "calls" else " µs"
    titles = {"branch": "branch", "gpu": "GPU"}
    low = Column("low", f"least{scale}", unit, 4)
    high = Column("high", f"most{scale}", unit, 4)
    return (
        Column("mark", "", Unit.TEXT),
        Column("run", "run", Unit.TEXT),
        _times(series.order, 2, 5)[0],
        Column("commit", "commit", Unit.TEXT, 1),
        *(Column(key, titles[key], Unit.TEXT, 2) for key in titles if _several(series, key)),
        Column("captures", "captures", Unit.COUNT, 3),
        Column("value", f"{_TITLES[series.measure]}{scale}", unit),
        *((low, high) if _has_several(series) else ()),
        *((Column("change", "change", Unit.TEXT),) if series.changes else ()),
    )


def _has_several(series: Series) -> bool:
    """Whether some run has more than one capture, so that least and most differ from the median."""
    return any(point.captures > 1 for point in series.points)


def _point_row(point: Point, change: ChangePoint | None) -> dict[str, Any]:
    return {
        "mark": "≠" if change else "",
        "run": point.run,
        **_time_texts(point),
        "commit": _short(point.labels.get("commit", "")),
        "branch": point.labels.get("branch", ""),
        "gpu": point.labels.get("gpu", ""),
        "captures": point.captures,
        "value": round(point.value),
        "low": round(point.low),
        "high": round(point.high),
        "change": _change_text(change) if change else "",
    }


def _change_text(change: ChangePoint) -> str:
    ends = change.change
    return f"{_percent(ends.estimate)} ({_percent(ends.low)} to {_percent(ends.high)})"


def series_warnings(series: Series) -> tuple[str, ...]:
    """What a reader must know before believing the trend."""
    return tuple(_warnings(series))


def _warnings(series: Series) -> Iterator[str]:
    if series.workloads:
        shown = [f"{what}: {_some(texts)}" for what, texts in series.workloads.items()]
        yield (
            f"These runs are of different work ({'; '.join(shown[:_MOST])}): their figures do not "
            "compare. --of chooses those of a label (record --label work=decode, --of work=decode)."
        )
    for key, what in _GROUPS.items():
        if values := _several(series, key):
            yield f"These runs are of several {what} ({_some(values)}): --of chooses some."
    if series.order == "recorded" and any(point.captured for point in series.points):
        yield "Not all of these runs tell when they were captured."
    if series.last_seen:
        last, first = map(_name, series.last_seen)
        yield f"Last seen in {last}, not from {first} on."
    if series.absent:
        without = " without a call of it, or" if series.measure == "average" else ""
        yield f"{plural(series.absent, 'run')}{without} not recorded under these scopes: left out."


_GROUPS = {"branch": "branches", "gpu": "GPUs"}
_MOST = 4


def _several(series: Series, key: str) -> list[str]:
    """The values of a label where the runs have several."""
    values = {point.labels.get(key) for point in series.points} - {None}
    return sorted(map(str, values)) if len(values) > 1 else []


def _some(values: Sequence[str]) -> str:
    more = [f"{len(values) - _MOST} more"] if len(values) > _MOST else []
    return ", ".join([*(shorter(units.printable(text), 80) for text in values[:_MOST]), *more])


def sparkline(values: Sequence[float]) -> str:
    """The last values as bars, from the least to the most.

    >>> sparkline([1.0, 2.0, 3.0])
    '▁▅█'
    """
    shown = values[-SPARKLINE:]
    low, high = min(shown), max(shown)
    if high <= low:
        return _BARS[3] * len(shown)
    top = len(_BARS) - 1
    return "".join(_BARS[round((value - low) / (high - low) * top)] for value in shown)
