"""A figure over the runs of a history: one point a run, and where it changed.

Where changes are is found in ``trend``; how a series looks is left to ``report``.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from traceq.errors import HistoryError, PatternError, UsageError
from traceq.history.run import Clock, Run, clock_of, in_order, options_of
from traceq.history.store import History
from traceq.history.trend import ChangePoint, find_changes
from traceq.model import Field
from traceq.names import Pattern
from traceq.plotting import draw_trend
from traceq.reading import Question
from traceq.table import SHOWN, ResultTable
from traceq.units import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Measure = Literal["total", "average", "gpu", "calls"]


_COMMIT = 12
"""Characters of a commit that are shown."""

POINT_FIELDS = (
    Field("run", "STRING", "", "Its id."),
    Field("captured", "TIMESTAMP", "", "When its first capture was made (UTC); none if not told."),
    Field("recorded", "TIMESTAMP", "", "When it was recorded (UTC); none if not kept."),
    Field("commit", "STRING", "", "Its label; empty: none."),
    Field("branch", "STRING", "", "Its label; empty: none."),
    Field("captures", "LONG", "", "Its captures."),
    Field("calls", "LONG", "", "Calls in all captures."),
    Field("value", "DOUBLE", "", "Median of the figure over its captures."),
    Field("low", "DOUBLE", "", "The least."),
    Field("high", "DOUBLE", "", "The most."),
    Field("change", "DOUBLE", "", "Relative change from this run on; none: no change."),
)


@dataclass(frozen=True, slots=True)
class Point:
    """A run: the median of the figure over its captures, the least and the most (ns; calls).

    ``calls`` are those of the op or kernel in all captures.
    """

    run: str
    captured: datetime | None
    recorded: datetime | None
    labels: Mapping[str, str]
    captures: int
    value: float
    low: float
    high: float
    calls: int

    def row(self) -> tuple[object, ...]:
        """The values of all but the last of ``POINT_FIELDS``."""
        named = self.labels.get("commit", ""), self.labels.get("branch", "")
        figures = self.captures, self.calls, self.value, self.low, self.high
        return (self.run, self.captured, self.recorded, *named, *figures)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; times in ns."""
        return {
            "run": self.run,
            "captured": iso(self.captured),
            "recorded": iso(self.recorded),
            "labels": dict(self.labels),
            "captures": self.captures,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "calls": self.calls,
        }


@dataclass(frozen=True, slots=True)
class Series:
    """The points, the oldest first; ``name`` is the op or kernel (empty: the scopes as a whole).

    ``order`` is the time that puts them in order, ``workloads`` what of their work differs, though
    it must be equal for times to compare: its values by what it is called. An op that a run does
    not call has the figure 0 there. ``absent`` is the number of runs that are left out: they were
    not recorded so, or have no call to take the average time of.
    """

    name: str
    kind: str
    measure: Measure
    under: tuple[str, ...]
    points: tuple[Point, ...]
    changes: tuple[ChangePoint, ...]
    absent: int
    order: Clock
    workloads: Mapping[str, tuple[str, ...]]

    @property
    def last_seen(self) -> tuple[Point, Point] | None:
        """The last point with calls and the next one, if no point has any from there on."""
        called = [place for place, point in enumerate(self.points) if point.calls]
        if not called or called[-1] == len(self.points) - 1:
            return None
        return self.points[called[-1]], self.points[called[-1] + 1]

    @property
    def unit(self) -> str:
        """Of the figures."""
        return "calls" if self.measure == "calls" else "ns"

    @property
    def table(self) -> ResultTable:
        """The points as a table, with the relative change at each that begins a new figure."""
        change = {item.at: item.change.estimate for item in self.changes}
        rows = [
            (*point.row(), change.get(place, math.nan)) for place, point in enumerate(self.points)
        ]
        of_time = {"value", "low", "high"} if self.unit == "ns" else set()
        fields = [
            replace(field, unit="ns") if field.name in of_time else field for field in POINT_FIELDS
        ]
        columns = [field.name for field in POINT_FIELDS]
        return ResultTable.of(pd.DataFrame(rows, columns=columns), fields)

    @property
    def df(self) -> pd.DataFrame:
        """The same as a plain pandas data frame."""
        return self.table.df

    @property
    def title(self) -> str:
        """What it is of, in one line."""
        under = f" under {', '.join(self.under)}" if self.under else ""
        name = self.name or ("all scopes" if self.under else "the whole trace")
        return f"{name}{under}: {self.measure} by run, in the order in which they were {self.order}"

    def plot(self) -> Figure:
        """The points and where they change, as a matplotlib figure (the extra ``plot``)."""
        table = self.df
        if self.unit == "ns":
            table[["value", "low", "high"]] /= 1000
        table["name"] = table["commit"].str[:_COMMIT].where(table["commit"] != "", table["run"])
        changes = [
            (item.at, f"{_share(item.change.estimate)} from {table['name'][item.at]} on")
            for item in self.changes
        ]
        return draw_trend(table, changes, self.title, "µs" if self.unit == "ns" else self.unit)

    def _repr_html_(self) -> str:
        table = self.table
        cut = len(table) - SHOWN
        shown = ResultTable.of(table.df.tail(SHOWN), table.fields)
        note = f"; the last {SHOWN} of {len(table)}" if cut > 0 else ""
        return f"<p>{escape(printable(self.title))}{note}</p>{shown._repr_html_()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; times in ns."""
        return {
            "name": self.name,
            "of": self.kind,
            "measure": self.measure,
            "unit": self.unit,
            "under": list(self.under),
            "absent": self.absent,
            "order": self.order,
            "workloads": {what: list(texts) for what, texts in self.workloads.items()},
            "points": [point.to_dict() for point in self.points],
            "changes": [_change_dict(change, self.points) for change in self.changes],
        }


def _share(change: float) -> str:
    return f"{change:+.1%}".replace("-", "−") if math.isfinite(change) else "from 0"


def iso(time: datetime | None) -> str | None:
    """A time as ISO 8601 has it."""
    return None if time is None else time.isoformat()


def _change_dict(change: ChangePoint, points: Sequence[Point]) -> dict[str, Any]:
    interval = change.change
    return {
        "at": change.at,
        "run": points[change.at].run,
        "change": _finite(interval.estimate),
        "change_low": _finite(interval.low),
        "change_high": _finite(interval.high),
        "confidence": interval.confidence,
        "p": change.p,
    }


def _finite(change: float) -> float | None:
    """None for a change from 0, which no share tells."""
    return change if math.isfinite(change) else None


def follow(
    history: History,
    runs: Sequence[Run],
    question: Question,
    name: str | None,
    measure: Measure = "total",
) -> Series:
    """The figure of an op or a kernel (of the scopes as a whole: None) over some runs.

    Raises HistoryError where nothing was recorded under these scopes, PatternError where the name
    fits no op or kernel, or several.
    """
    values = {
        "under": [*question.under],
        "within": json.dumps(question.limits, sort_keys=True),
        "runs": [run.run for run in runs],
    }
    kind, full = ("whole", "") if name is None else _chosen(history, values, name)
    rows = history.query(f"{kind}_trend", values if name is None else values | {"name": full})
    if rows.empty:
        raise not_recorded(question, runs)
    told, points = _points(runs, rows.assign(value=_figures(rows, measure)).dropna())
    return Series(
        name=full,
        kind=kind,
        measure=measure,
        under=question.under,
        points=points,
        changes=tuple(find_changes([point.value for point in points])),
        absent=len(runs) - len(points),
        order=clock_of(told),
        workloads=_workloads(history, values),
    )


def _points(runs: Sequence[Run], rows: pd.DataFrame) -> tuple[list[Run], tuple[Point, ...]]:
    """The runs that have a figure, in order, and their points. Raises UsageError for none."""
    by_run = {str(run): group for run, group in rows.groupby("run")}
    told = in_order([run for run in runs if run.run in by_run])
    if not told:
        raise UsageError(
            "there are no calls to take the time of one of", hint="Choose another --measure."
        )
    return told, tuple(_point(run, by_run[run.run]) for run in told)


def _workloads(history: History, values: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What differs in the work of captures; what some do not tell may be equal."""
    found: dict[str, list[str]] = {}
    for text in history.query("workloads", values)["workload"].tolist():
        for what, value in json.loads(text).items():
            found.setdefault(what, []).append(value)
    several = {what: tuple(dict.fromkeys(texts)) for what, texts in found.items()}
    return {what: texts for what, texts in sorted(several.items()) if len(texts) > 1}


def _figures(rows: pd.DataFrame, measure: Measure) -> pd.Series[float]:
    """The figure of each capture; NaN for the time of a call where there is none."""
    if measure == "average":
        return rows["total"] / rows["calls"].where(rows["calls"] > 0)
    return rows[measure].astype(float)


def _point(run: Run, rows: pd.DataFrame) -> Point:
    values = rows["value"].tolist()
    return Point(
        run=run.run,
        captured=run.captured,
        recorded=run.recorded,
        labels=run.labels,
        captures=len(values),
        value=float(np.median(values)),
        low=min(values),
        high=max(values),
        calls=int(rows["calls"].sum()),
    )


def _chosen(history: History, values: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Whether a name is that of an op or of a kernel, and all of it; of both: that of the op."""
    table = history.query("names", values)
    known = [*zip(table["kind"].tolist(), table["name"].tolist(), strict=True)]
    exact = [item for item in known if item[1] == name]
    pattern = Pattern.parse(name)
    found = exact or [item for item in known if pattern.matches(item[1])]
    if len({text for _, text in found}) == 1:
        kind, text = max(found)  # "op" before "kernel"
        return kind, text
    if not found:
        near = difflib.get_close_matches(name, [text for _, text in known], 3, 0.5)
        raise PatternError(
            f"no recorded op or kernel matches {name!r}",
            hint=f"Near: {'; '.join(near)}." if near else "Was it recorded under these scopes?",
        )
    shown = "; ".join(text for _, text in found[:5])
    raise PatternError(
        f"{name!r} matches {len(found)} ops and kernels: {shown}"
        + ("" if len(found) < 6 else "; ..."),
        hint="Give the whole name of one.",
    )


def not_recorded(question: Question, runs: Sequence[Run]) -> HistoryError:
    """The error for scopes or limits of time that were not recorded; it names those that were."""
    recorded = sorted({text for run in runs for text in run.asked})
    return HistoryError(
        f"these runs were not recorded with {options_of(question.under, question.limits)}",
        hint=f"They were with: {'; '.join(recorded)}.",
    )
