"""What the results of ``python -m tests.bench others`` say: tables, promises, a plot.

Pure: takes the JSON that ``others`` has made and measures nothing. A cell holds the median of its
runs; where a tool gave none, a word that says why, and the reason below the table.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Results = dict[str, Any]

TRACEQ, ENGINE = "traceq", "trace_processor"
QUESTIONS = {"first": "first open", "second": "second open", "diff": "diff"}
LIMITS = {
    ("first", "wall_s"): 0.6,
    ("first", "peak_mb"): 1.0,
    ("second", "wall_s"): 0.3,
    ("diff", "wall_s"): 0.7,
}
"""What traceq may take, as parts of what the same engine takes that is fed the raw JSON."""
PROMISED_FROM = 0.25
"""Gigabytes of JSON from which on the limits hold: below it a start of Python counts most."""

_WORDS = {"failed": "failed", "time": "too slow", "memory": "too large"}
_COLORS = {
    TRACEQ: "#d62728",
    ENGINE: "#1f77b4",
    "trace_processor, native": "#17becf",
    "HolisticTraceAnalysis": "#2ca02c",
    "TraceLens": "#9467bd",
    "json + pandas": "#7f7f7f",
}


@dataclass(frozen=True)
class Cell:
    """What one tool made of one question about one trace."""

    outcome: str
    figures: dict[str, float]
    answers: list[dict[str, Any]]
    reason: str = ""

    def text(self, key: str) -> str:
        """A figure, or why there is none."""
        if self.outcome == "ok":
            return _seconds(self.figures[key]) if key == "wall_s" else _memory(self.figures[key])
        return _WORDS.get(self.outcome, "–")


@dataclass(frozen=True)
class Promise:
    """A limit, what was measured against it, and whether it was kept."""

    text: str
    is_kept: bool


def cell(results: Results, tool: str, question: str, trace: int) -> Cell:
    """The medians of a tool's runs; of a tool that keeps nothing a second open is a first."""
    entry = next(item for item in results["tools"] if item["name"] == tool)
    if not entry["is_available"]:
        return Cell("absent", {}, [], entry["reason"])
    of = "first" if question == "second" and not entry["reopens"] else question
    runs = [run for run in results["runs"] if (run["tool"], run["question"]) == (tool, of)]
    here = [run for run in runs if run["trace"] == trace]
    if bad := [run for run in here if run["outcome"] != "ok"]:
        return Cell(bad[0]["outcome"], {}, [], bad[0]["reason"])
    if not here:
        return Cell("not tried", {}, [], "over a limit, or failed, with a smaller trace")
    figures = {
        key: statistics.median(run[key] for run in here) for key in ("wall_s", "cpu_s", "peak_mb")
    }
    return Cell("ok", figures, [run["answer"] for run in here])


# Answers ----------------------------------------------------------------------------------


def judgement(results: Results, tool: str, question: str, trace: int) -> str:
    """Whether a tool's answers are the truth: ``right``, or what they say instead."""
    found = cell(results, tool, question, trace)
    if found.outcome != "ok":
        return ""
    truth, answer = results["traces"][trace], found.answers[0]
    if any(other != answer for other in found.answers):
        return "differs from run to run"
    note = f" ({answer['note']})" if "note" in answer else ""
    return (_against(answer, truth, question) or "right") + note


def _against(answer: dict[str, Any], truth: dict[str, Any], question: str) -> str:
    sides = [truth["before"], truth["after"]]
    said = []
    for key, unit in (("calls", "calls"), ("total_ns", "ns")):
        wanted = [side[key] for side in sides] if question == "diff" else sides[0][key]
        if key not in answer:
            said.append(f"no {unit}")
        elif answer[key] != wanted:
            said.append(f"{_numbers(answer[key])} {unit}, not {_numbers(wanted)}")
    missing = sides[0]["events"] - answer.get("events", sides[0]["events"])
    if missing:
        verb = "lacks" if missing > 0 else "has more:"
        said.append(f"{verb} {abs(missing):,} of {sides[0]['events']:,} slices")
    return "; ".join(said)


def _numbers(value: Any) -> str:
    return (
        " and ".join(f"{number:,}" for number in value) if isinstance(value, list) else f"{value:,}"
    )


# Tables -----------------------------------------------------------------------------------


def text_lines(results: Results) -> Iterator[str]:
    """Everything, for a terminal."""
    yield _machine_line(results)
    yield from ("", *_tools_lines(results))
    for question, name in QUESTIONS.items():
        for key, unit in (("wall_s", "wall time"), ("peak_mb", "peak memory")):
            yield from ("", f"{name}, {unit}, by JSON")
            yield from _aligned([["", *_sizes(results)], *_rows(results, question, key)])
    yield from ("", "answers", *_answer_lines(results))


def markdown_lines(results: Results) -> Iterator[str]:
    """Two tables for a README: wall time / peak memory of each question by size, and answers."""
    yield _machine_line(results)
    for question, name in QUESTIONS.items():
        yield from ("", f"| {name} | " + " | ".join(_sizes(results)) + " |")
        yield "| --- |" + " --- |" * len(results["traces"])
        pairs = zip(
            _rows(results, question, "wall_s"), _rows(results, question, "peak_mb"), strict=True
        )
        for times, peaks in pairs:
            both = zip(times[1:], peaks[1:], strict=True)
            cells = [time if time == peak else f"{time}, {peak}" for time, peak in both]
            yield f"| {times[0]} | " + " | ".join(cells) + " |"
    yield from ("", *(f"- {line}" for line in _answer_lines(results)))


def _machine_line(results: Results) -> str:
    machine, limits = results["machine"], results["limits"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['os']}, "
        f"Python {machine['python']}; limits {limits['seconds']:.0f} s and "
        f"{limits['memory_mb'] / 1024:.1f} GB for a process; {results['started']}"
    )


def _tools_lines(results: Results) -> Iterator[str]:
    for tool in results["tools"]:
        versions = ", ".join(f"{name} {version}" for name, version in tool["versions"].items())
        state = versions if tool["is_available"] else f"not here: {tool['reason']}"
        yield f"{tool['name']}: {state}" + (f" ({tool['note']})" if tool["note"] else "")


def _sizes(results: Results) -> list[str]:
    return [_memory(trace["before"]["json_bytes"] / 1e6) for trace in results["traces"]]


def _rows(results: Results, question: str, key: str) -> list[list[str]]:
    """One line for each tool; a second open in brackets is a first one over again."""
    rows = []
    for tool in results["tools"]:
        cells = [
            cell(results, tool["name"], question, trace).text(key)
            for trace in range(len(results["traces"]))
        ]
        if question == "second" and not tool["reopens"]:
            cells = [f"({text})" if text[0].isdigit() else text for text in cells]
        rows.append([tool["name"], *cells])
    return rows


def _answer_lines(results: Results) -> Iterator[str]:
    """What each tool answered, the sizes with the same judgement together; and all reasons."""
    for tool in (entry["name"] for entry in results["tools"]):
        for question in ("first", "diff"):
            said: dict[str, list[str]] = {}
            for trace, size in enumerate(_sizes(results)):
                found = cell(results, tool, question, trace)
                judged = judgement(results, tool, question, trace) or found.reason
                said.setdefault(judged, []).append(size)
            for judged, sizes in said.items():
                yield f"{tool}, {QUESTIONS[question]} ({', '.join(sizes)}): {judged}"


def _aligned(rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = (text.rjust(width) for text, width in zip(rest, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def _memory(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 995 else f"{megabytes:.0f} MB"


# Promises ---------------------------------------------------------------------------------


def promises(results: Results) -> list[Promise]:
    """Right answers at every size, and the limits where the engine got through."""
    made = list(_right_answers(results))
    for trace, of in enumerate(results["traces"]):
        if of["before"]["json_bytes"] < PROMISED_FROM * 1e9:
            continue
        for (question, key), limit in LIMITS.items():
            ours, theirs = (cell(results, tool, question, trace) for tool in (TRACEQ, ENGINE))
            if ours.outcome == theirs.outcome == "ok":
                ratio = ours.figures[key] / theirs.figures[key]
                size = _memory(of["before"]["json_bytes"] / 1e6)
                what = f"{QUESTIONS[question]}, {key} at {size}, beside the engine fed the JSON"
                made.append(_promise(f"{what}: {ratio:.2f} (limit {limit})", ratio <= limit))
    return made


def _right_answers(results: Results) -> Iterator[Promise]:
    for trace, size in enumerate(_sizes(results)):
        for question, name in QUESTIONS.items():
            said = judgement(results, TRACEQ, question, trace)
            reason = said or cell(results, TRACEQ, question, trace).reason
            yield _promise(f"traceq's answer, {name} at {size}: {reason}", said == "right")


def _promise(text: str, is_kept: bool) -> Promise:
    return Promise(f"{'kept' if is_kept else 'BROKEN'}: {text}", is_kept)


# Plot -------------------------------------------------------------------------------------


def plot(results: Results, path: Path) -> None:
    """Wall time and peak memory of each question by the JSON's size, one line for each tool."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "traceq"  # the same picture from the same results
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.5), sharex=True, sharey="row")
    for column, (question, name) in enumerate(QUESTIONS.items()):
        for row, key in enumerate(("wall_s", "peak_mb")):
            _draw(axes[row][column], results, question, key)
        axes[0][column].set_title(name)
        axes[1][column].set_xlabel("JSON, MB")
    axes[0][0].set_ylabel("wall time of the process, s")
    axes[1][0].set_ylabel("peak memory, MB")
    machine = results["machine"]
    figure.suptitle(
        "One op under a module: ask once, ask again, compare two traces  "
        f"({machine['cores']} cores, {machine['memory_gb']} GB; less is better)"
    )
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
    plt.close(figure)


def _draw(axis: Any, results: Results, question: str, key: str) -> None:
    sizes = [trace["before"]["json_bytes"] / 1e6 for trace in results["traces"]]
    ends = []
    for tool in results["tools"]:
        cells = [cell(results, tool["name"], question, trace) for trace in range(len(sizes))]
        points = [
            (size, found.figures[key])
            for size, found in zip(sizes, cells, strict=True)
            if found.outcome == "ok"
        ]
        if not points:
            continue
        is_again = question == "second" and not tool["reopens"]
        color = _COLORS.get(tool["name"], "black")
        style = "--" if is_again else "-"
        axis.plot(*zip(*points, strict=True), style, marker="o", markersize=3.5, color=color)
        stops = [found for found in cells if found.outcome in _WORDS]
        if stops and len(points) < len(sizes):
            axis.plot(*points[-1], marker="x", markersize=9, color=color)
        label = tool["name"] + (f" ({_WORDS[stops[0].outcome]} above)" if stops else "")
        ends.append((points[-1], label, color))
    axis.set(xscale="log", yscale="log", xlim=(min(sizes) * 0.8, max(sizes) * 14))
    axis.set_xticks(sizes, [f"{size:,.0f}" for size in sizes], fontsize=8)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    for (x, y), label, color, height in _apart(ends):
        axis.annotate(label, (x, y), (x * 1.15, height), color=color, fontsize=7.5, va="center")


def _apart(
    ends: Iterable[tuple[tuple[float, float], str, str]],
) -> Iterator[tuple[tuple[float, float], str, str, float]]:
    """Labels' heights, so that those of lines that end close together do not touch."""
    last = 0.0
    for point, label, color in sorted(ends, key=lambda end: end[0][1]):
        last = max(point[1], last * 1.45)
        yield point, label, color, last
