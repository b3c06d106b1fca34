"""Figures of tables, as matplotlib's own objects: bars, a waterfall, a distribution, a time line.

Tables and arrays in, a figure out; which ones is the business of those who have the trace.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from traceq.errors import UsageError
from traceq.model import Ints
from traceq.names import shorten
from traceq.units import plural, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEFORE, AFTER, GPU, SOFT = "#8a6fb3", "#2a8f7a", "#c77c11", "#8b929b"
SLOWER, FASTER = "#c0392b", "#2d6cb5"
_NAME, _BINS, _WIDTH = 48, 40, 9.0
_TITLE = 112
"""So many characters of a title fit the width of a figure."""
_ROOM = 125
"""So many characters fit a bar that is as wide as a time line."""
_RUNS = 24
"""Runs of a trend that are named, evenly; more names would lie on each other."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a change: what takes ``delta`` (ns) more or less.

    ``is_told`` is False where that is not shown to be more than noise: it is hatched then.
    """

    name: str
    delta: float
    is_told: bool = True


@dataclass(frozen=True, slots=True)
class Span:
    """What ran from ``start`` for ``dur`` (ns), on the row of its thread's depth, or its stream."""

    name: str
    start: int
    dur: int
    row: str


def draw_ops(names: Sequence[str], cpu: Ints, gpu: Ints, title: str) -> Figure:
    """Own CPU time and own GPU time (ns) of each op, the first on top."""
    figure, axes = _axes(len(names), title)
    scale, unit = _unit(max(cpu.max(initial=0), gpu.max(initial=0)))
    place = np.arange(len(names))[::-1]
    axes.barh(place + 0.2, cpu / scale, 0.38, color=AFTER, label="own CPU time")
    axes.barh(place - 0.2, gpu / scale, 0.38, color=GPU, label="own GPU time")
    axes.set_yticks(place, [_short(name) for name in names])
    _measure(axes, f"own time, {unit}")
    axes.legend(loc="lower right", fontsize=8)
    return figure


def draw_waterfall(before: float, bars: Sequence[Bar], title: str, label: str) -> Figure:
    """From the time before (ns) to the time after: one step for each part of the change.

    ``label`` says what the time is of; its unit is added.
    """
    figure, axes = _axes(len(bars) + 3, title)
    levels = [*accumulate((bar.delta for bar in bars), initial=before)]
    scale, unit = _unit(max(levels))
    names = ["before", *(_short(bar.name) for bar in bars), "after"]
    place = np.arange(len(names))[::-1]
    _bar(axes, place[0], 0, before / scale, f"{before / scale:,.3f} {unit}", color=BEFORE)
    for row, bar, level in zip(place[1:-1], bars, levels, strict=False):
        delta = bar.delta / scale
        text = f"{'−' if delta < 0 else '+'}{abs(delta):,.3f} {unit}"
        _bar(axes, row, level / scale, delta, text, **_look(bar))
    after = levels[-1] / scale
    _bar(axes, place[-1], 0, after, f"{after:,.3f} {unit}", color=AFTER)
    axes.set_yticks(place, names)
    _measure(axes, f"{label}, {unit}; the bars add up")
    axes.set_xlim(0, max(max(levels) / scale, 0.001) * 1.15)
    _explain(axes, bars)
    return figure


def _bar(axes: Any, row: int, left: float, width: float, text: str, **look: Any) -> None:
    axes.barh(row, width, left=left, **look)
    place = (max(left, left + width), row)
    axes.annotate(text, place, xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)


_UNTOLD = {"facecolor": "#e4e6e9", "edgecolor": SOFT, "hatch": "////", "linewidth": 0.5}


def _look(bar: Bar) -> dict[str, Any]:
    return {"color": SLOWER if bar.delta > 0 else FASTER} if bar.is_told else _UNTOLD


def _explain(axes: Any, bars: Sequence[Bar]) -> None:
    """A legend of the looks that there are, beneath the axis."""
    from matplotlib.patches import Patch

    looks = (
        ("less time", {"color": FASTER}, any(bar.is_told and bar.delta <= 0 for bar in bars)),
        ("more time", {"color": SLOWER}, any(bar.is_told and bar.delta > 0 for bar in bars)),
        ("unchanged code, or not more than noise", _UNTOLD, not all(bar.is_told for bar in bars)),
    )
    patches = [Patch(label=label, **look) for label, look, is_there in looks if is_there]
    axes.figure.legend(handles=patches, loc="outside lower right", ncols=3, fontsize=8)


def draw_distribution(sides: Sequence[tuple[str, Ints]], title: str) -> Figure:
    """How long each call took (ns), a histogram a side, on a logarithmic scale."""
    calls = [np.maximum(values, 1) for _, values in sides if len(values)]
    if not calls:
        raise UsageError(f"{title}: there are no calls", hint="Trace.ops() lists what has some.")
    figure, axes = _axes(8, title)
    both = np.concatenate(calls)
    scale, unit = _unit(both.max())
    edges = np.geomspace(both.min(), max(both.max(), both.min() * 1.01), _BINS + 1) / scale
    colors = (BEFORE, AFTER) if len(sides) > 1 else (AFTER,)
    for (name, values), color in zip(sides, colors, strict=True):
        shown = np.maximum(values, 1) / scale
        label = f"{name}: {plural(len(values), 'call')}" if name else plural(len(values), "call")
        if len(values):
            median = float(np.median(shown))
            label += f", median {median:,.3f} {unit}"
            axes.axvline(median, color=color, linestyle="--", linewidth=1.5)
        axes.hist(shown, edges, color=color, alpha=0.6, label=_plain(label))
    _mark_logarithms(axes, edges)
    axes.set_xlabel(f"duration of a call, {unit}; dashed: the median", fontsize=9)
    axes.set_ylabel("calls", fontsize=9)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8)
    return figure


def _mark_logarithms(axes: Any, edges: NDArray[np.float64]) -> None:
    """A logarithmic axis with numbers: those of 1, 2 and 5, or more where it is short."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    low, high = float(edges[0]), float(edges[-1])
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high) + 1)
    marks = [mark for mark in np.outer(powers, (1, 2, 5)).ravel().tolist() if low <= mark <= high]
    if len(marks) < 3:
        marks = [mark for mark in MaxNLocator(6).tick_values(low, high) if low <= mark <= high]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(marks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(_grouped)


def draw_timeline(spans: Sequence[Span], title: str) -> Figure:
    """What ran when: a row for each depth of the calls, below them one for each stream."""
    rows = [*dict.fromkeys(span.row for span in spans)]
    figure, axes = _axes(len(rows), title)
    start = min(span.start for span in spans)
    whole = max(span.start + span.dur for span in spans) - start
    scale, unit = _unit(whole)
    colors = [AFTER, "#4db39d"]
    for number, row in enumerate(rows):
        own = [span for span in spans if span.row == row]
        bars = [((span.start - start) / scale, max(span.dur, 1) / scale) for span in own]
        color: Any = GPU if row.startswith("stream") else [colors[n % 2] for n in range(len(own))]
        bottom = len(rows) - 1 - number + 0.08
        axes.broken_barh(bars, (bottom, 0.84), facecolors=color)
        for span, (left, width) in zip(own, bars, strict=True):
            _name_bar(axes, span.name, left, bottom, width, int(_ROOM * span.dur / max(whole, 1)))
    axes.set_yticks(np.arange(len(rows))[::-1] + 0.5, rows)
    axes.set_ylim(0, len(rows))
    axes.set_xlim(0, max(whole, 1) / scale)
    _measure(axes, f"time since the start of the call, {unit}")
    return figure


def _name_bar(axes: Any, name: str, left: float, bottom: float, width: float, room: int) -> None:
    """Write a name into a bar that has room for so many characters; nothing beyond the bar."""
    from matplotlib.patches import Rectangle

    if room < 9:
        return
    text = _plain(shorten(printable(name), room - 1))
    place = (left, bottom + 0.42)
    written = axes.annotate(
        text, place, xytext=(2, 0), textcoords="offset points", va="center", fontsize=7
    )
    written.set_clip_path(Rectangle((left, bottom), width, 0.84, transform=axes.transData))


def draw_trend(
    table: pd.DataFrame, changes: Sequence[tuple[int, str]], title: str, unit: str
) -> Figure:
    """A figure over runs (columns ``name``, ``value``, ``low``, ``high``).

    ``changes`` are the places from which on it is another, and by how much.
    """
    figure, axes = _axes(9, title)
    place = np.arange(len(table))
    axes.fill_between(place, table["low"], table["high"], color=AFTER, alpha=0.25, linewidth=0)
    axes.plot(place, table["value"], color=AFTER, marker="o", markersize=3, linewidth=1)
    for at, text in changes:
        axes.axvline(at - 0.5, color=SLOWER, linestyle="--", linewidth=1.5)
        axes.annotate(
            text,
            (at - 0.5, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color=SLOWER,
        )
    shown = place[:: -(-len(place) // _RUNS)]
    names = [_short(name) for name in table["name"].iloc[shown]]
    axes.set_xticks(shown, names, rotation=45, ha="right", fontsize=7)
    axes.set_xlabel("run, by commit where it is known")
    axes.set_ylabel(unit)
    return figure


@cache
def _figure_class() -> type[Figure]:
    """matplotlib's figure, which shows itself in a notebook.

    Not one of pyplot's: that keeps every figure until it is closed, and needs ``%matplotlib``.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "plots need matplotlib",
            hint="Install traceq with the extra 'plot' (pip install '.[plot]'), or matplotlib.",
        ) from error

    class NotebookFigure(Figure):
        def _repr_png_(self) -> bytes:
            file = BytesIO()
            self.savefig(file, format="png", dpi=100)
            return file.getvalue()

    return NotebookFigure


def as_svg(figure: Figure) -> str:
    """A figure as SVG, the same for the same data; its texts can be searched and read aloud."""
    import matplotlib

    file = BytesIO()
    title = figure.get_suptitle().replace("\n", " ").replace(r"\$", "$")
    told = {"Date": None, "Title": title}
    with matplotlib.rc_context({"svg.hashsalt": "traceq", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata=told)
    return file.getvalue().decode()


def _axes(rows: int, title: str) -> tuple[Figure, Any]:
    lines = textwrap.wrap(printable(title), _TITLE, max_lines=3, placeholder=" …") or [""]
    height = max(2.0, 0.32 * rows + 0.9 + 0.2 * len(lines))
    figure = _figure_class()(figsize=(_WIDTH, height), layout="constrained")
    figure.suptitle(_plain("\n".join(lines)), fontsize=10, x=0.01, ha="left")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes


_UNITS = ((10**9, "s"), (10**6, "ms"), (10**3, "µs"))


def _unit(most: float) -> tuple[int, str]:
    """What to divide times (ns) by, and the unit they have then: figures stay below 10,000."""
    return next((item for item in _UNITS if most >= 10 * item[0]), _UNITS[-1])


def _measure(axes: Any, label: str) -> None:
    axes.set_xlabel(label, fontsize=9)
    axes.xaxis.set_major_formatter(_grouped)


def _grouped(value: float, _: object) -> str:
    return f"{value:,.10g}"


def _short(name: str) -> str:
    return _plain(shorten(printable(name), _NAME))


def _plain(text: str) -> str:
    """Text that matplotlib takes for no formula."""
    return text.replace("$", r"\$")
