"""Draws the results of ``python -m tests.bench others``: wall time and peak memory by size.

One line for each tool, named at its end; a cross where a larger trace was too much for it. Needs
matplotlib, and takes its figures from ``others_report``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
_LABELS = 1.5
"""At least so many times as high is a label than the one below it (both axes are logarithmic)."""
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
    figure, axes = plt.subplots(2, len(QUESTIONS), figsize=(14, 8.5), sharex=True, sharey="row")
    for column, (question, name) in enumerate(QUESTIONS.items()):
        for row, key in enumerate(_FIGURES):
            _draw(axes[row][column], results, question, key)
        axes[0][column].set_title(name)
        axes[1][column].set_xlabel("JSON, MB")
    for row, text in enumerate(_FIGURES.values()):
        axes[row][0].set_ylabel(text)
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


def _draw(axis: Any, results: Results, question: str, key: str) -> None:
    sizes = [trace["before"]["json_bytes"] / 1e6 for trace in results["traces"]]
    lines = [_line(results, tool, question, key, sizes) for tool in results["tools"]]
    lines = [line for line in lines if line.points]
    for line in lines:
        axis.plot(*zip(*line.points, strict=True), line.style, marker="o", ms=3.5, color=line.color)
        if line.stops:
            axis.plot(*line.points[-1], marker="x", markersize=10, color=line.color)
    axis.set(xscale="log", yscale="log", xlim=(min(sizes) * 0.8, max(sizes) * 30))
    axis.set_xticks(sizes, [f"{size:,.0f}" for size in sizes], fontsize=8)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    for line, height in _apart(lines):
        place = (line.points[-1][0] * 1.25, height)
        axis.annotate(line.label, place, color=line.color, fontsize=8, va="center")


def _line(
    results: Results, tool: dict[str, Any], question: str, key: str, sizes: list[float]
) -> _Line:
    name = tool["name"]
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


def _apart(lines: Iterable[_Line]) -> Iterator[tuple[_Line, float]]:
    """Heights of the labels, so that those of lines that end close together do not touch."""
    last = 0.0
    for line in sorted(lines, key=lambda line: line.points[-1][1]):
        last = max(line.points[-1][1], last * _LABELS)
        yield line, last
