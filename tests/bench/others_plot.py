"""Draws the results of ``python -m tests.bench others``: wall time and peak memory by size.

One line for each tool, named at its end; a cross where a larger trace was too much for it. Needs
matplotlib, and takes its figures from ``others_report``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.others_report import ENGINE, OVER, QUESTIONS, TRACEQ, Results, cell

_COLORS = {
    TRACEQ: "#d62728",
    ENGINE: "#1f77b4",
    "trace_processor, native": "#0b8a99",
    "HolisticTraceAnalysis": "#2a8a2a",
    "TraceLens": "#9467bd",
    "json + pandas": "#6b6b6b",
}
_GAP, _TOP = 0.06, 0.97
"""Parts of a panel's height: between two labels, and where the highest may be."""
_FIGURES = {"wall_s": "wall time of the process, s", "peak_mb": "peak memory, MB"}


class _Line(NamedTuple):
    """A tool's line: its points, where it ends, and what is written there."""

    points: list[tuple[float, float]]
    label: str
    color: str
    style: str
    stops: bool


def plot(results: Results, path: Path) -> None:
    """Write the picture; .svg or .png."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "traceq"  # the same picture from the same results
    figure, axes = plt.subplots(2, len(QUESTIONS), figsize=(15.5, 8.5), sharex=True, sharey="row")
    panels = []
    for column, (question, name) in enumerate(QUESTIONS.items()):
        for row, key in enumerate(_FIGURES):
            panels.append((axes[row][column], _lines(results, question, key)))
        axes[0][column].set_title(name)
        axes[1][column].set_xlabel("JSON, MB")
    for row, text in enumerate(_FIGURES.values()):
        axes[row][0].set_ylabel(text)
    for axis, lines in panels:
        _draw(axis, lines, _sizes(results))
    for axis, lines in panels:  # now that the heights of all are known, which a row shares
        _name(axis, lines, _sizes(results)[-1])
    figure.suptitle(_title(results))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=100)
    plt.close(figure)


def _title(results: Results) -> str:
    machine = results["machine"]
    return (
        "Calls and time of an op under a module: asked, asked again, of two traces. Less is better."
        f"\n{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB; "
        "dashed: keeps nothing, as the first open; cross: larger traces were too much"
    )


def _sizes(results: Results) -> list[float]:
    return [trace["before"]["json_bytes"] / 1e6 for trace in results["traces"]]


def _draw(axis: Any, lines: list[_Line], sizes: list[float]) -> None:
    for line in lines:
        axis.plot(*zip(*line.points, strict=True), line.style, marker="o", ms=3.5, color=line.color)
        if line.stops:
            axis.plot(*line.points[-1], marker="x", markersize=10, color=line.color)
    axis.set(xscale="log", yscale="log", xlim=(min(sizes) * 0.8, max(sizes) * 1.25))
    axis.set_xticks(sizes, [f"{size:,.0f}" for size in sizes], fontsize=8)
    axis.minorticks_off()
    axis.margins(y=0.08)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.3)


def _name(axis: Any, lines: list[_Line], largest: float) -> None:
    """Names in a column at the right, in the order of the ends, with a thin line to each."""
    low, high = (math.log(limit) for limit in axis.get_ylim())
    lines = sorted(lines, key=lambda line: line.points[-1][1])
    heights = [(math.log(line.points[-1][1]) - low) / (high - low) for line in lines]
    for line, height in zip(lines, apart(heights), strict=True):
        place = (largest * 1.7, math.exp(low + height * (high - low)))
        axis.annotate(
            line.label,
            line.points[-1],
            place,
            color=line.color,
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": line.color, "alpha": 0.35, "lw": 0.7},
        )


def apart(heights: Sequence[float]) -> list[float]:
    """Heights near these (ascending) that keep their order and a distance, and stay inside."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + _GAP) if moved else height)
    limit = _TOP
    for place in reversed(range(len(moved))):
        moved[place] = min(moved[place], limit)
        limit = moved[place] - _GAP
    return moved


def _lines(results: Results, question: str, key: str) -> list[_Line]:
    lines = [_line(results, tool, question, key) for tool in results["tools"]]
    return [line for line in lines if line.points]


def _line(results: Results, tool: dict[str, Any], question: str, key: str) -> _Line:
    name, sizes = tool["name"], _sizes(results)
    cells = [cell(results, name, question, trace) for trace in range(len(sizes))]
    points = [
        (size, found.figures[key])
        for size, found in zip(sizes, cells, strict=True)
        if found.outcome == "ok"
    ]
    stop = next((OVER[found.outcome] for found in cells if found.outcome in OVER), "")
    style = "--" if question == "second" and not tool["reopens"] else "-"
    label = f"{name}: {stop}" if stop else name
    return _Line(points, label, _COLORS.get(name, "black"), style, bool(stop))
