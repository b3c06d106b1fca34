"""What the results of ``python -m tests.bench others`` say: tables, answers, promises.

Pure: takes the JSON that ``others`` has made and measures nothing. A cell holds the median of its
runs; where a tool gave none, a word that says why, and the reason below the table. The picture is
drawn by ``others_plot``.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Results = dict[str, Any]

TRACEQ, ENGINE = "traceq", "trace_processor"
QUESTIONS = {"first": "first open", "second": "second open", "diff": "diff"}
LIMITS = {
    ("first", "wall_s"): 0.6,
    ("first", "peak_mb"): 1.0,
    ("second", "wall_s"): 0.3,
    ("diff", "wall_s"): 1.0,
    ("diff", "peak_mb"): 1.5,  # both traces are read at once, each by a core
}
"""What traceq may take, as parts of what the same engine takes that is fed the raw JSON."""
PROMISED_FROM = 0.25
"""Gigabytes of JSON from which on the limits hold: below it a start of Python counts most."""

OVER = {"failed": "failed", "time": "too slow", "memory": "too much memory"}
_WORDS = {**OVER, "absent": "not here", "not tried": "not tried"}


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
        return _WORDS[self.outcome]


@dataclass(frozen=True)
class Promise:
    """A limit, what was measured against it, and whether it was kept."""

    text: str
    is_kept: bool


def cell(results: Results, tool: str, question: str, trace: int) -> Cell:
    """The medians of a tool's runs; of a tool that keeps nothing a second open is a first."""
    entry = _entry(results, tool)
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


def _entry(results: Results, tool: str) -> dict[str, Any]:
    entry: dict[str, Any] = next(item for item in results["tools"] if item["name"] == tool)
    return entry


def _names(results: Results) -> list[str]:
    return [entry["name"] for entry in results["tools"]]


# Answers ----------------------------------------------------------------------------------


def judgement(results: Results, tool: str, question: str, trace: int) -> str:
    """Whether a tool's answers are the truth: ``right``, or what is wrong; why there is none."""
    found = cell(results, tool, question, trace)
    if found.outcome != "ok":
        return found.reason
    of, answer = results["traces"][trace], found.answers[0]
    if any(other != answer for other in found.answers):
        return "differs from run to run"
    note = f" ({answer['note']})" if "note" in answer else ""
    wrong = [*_wrong_sums(answer, of, question), *_wrong_events(answer, of["before"]["events"])]
    return ("; ".join(wrong) or "right") + note


def _wrong_sums(answer: dict[str, Any], of: dict[str, Any], question: str) -> Iterator[str]:
    for key, unit in (("calls", "calls"), ("total_ns", "ns")):
        truth = [of[side][key] for side in ("before", "after")]
        said, wanted = answer.get(key), truth if question == "diff" else truth[0]
        if said is None:
            yield f"no {unit}"
        elif said != wanted:
            yield f"{_numbers(said)} {unit}, not {_numbers(wanted)}"


def _wrong_events(answer: dict[str, Any], events: int) -> Iterator[str]:
    missing = events - answer.get("events", events)
    if missing:
        verb = "lacks" if missing > 0 else "has more:"
        yield f"{verb} {abs(missing):,} of {events:,} slices"


def _numbers(value: int | list[int]) -> str:
    values = value if isinstance(value, list) else [value]
    return " and ".join(f"{number:,}" for number in values)


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
    """For a README: everything about the whole trace, then how first opens and diffs grow."""
    trace, sizes = whole_trace(results), _sizes(results)
    yield from (_machine_line(results), "")
    yield from _markdown(
        [f"JSON of {sizes[trace]}", *QUESTIONS.values(), "answer of the first open"]
    )
    for tool in _names(results):
        cells = [_both(results, tool, question, trace) for question in QUESTIONS]
        yield _markdown_row([tool, *cells, judgement(results, tool, "first", trace)])
    for question in ("first", "diff"):
        yield from ("", *_markdown([QUESTIONS[question], *sizes]))
        for tool in _names(results):
            traces = range(len(sizes))
            cells = [_both(results, tool, question, trace) for trace in traces]
            yield _markdown_row([tool, *cells])


def whole_trace(results: Results) -> int:
    """The place of the trace that was neither cut nor repeated, else of the largest."""
    for place, trace in enumerate(results["traces"]):
        if trace["copies"] == 1 and not trace["is_cut"]:
            return place
    return len(results["traces"]) - 1


def _both(results: Results, tool: str, question: str, trace: int) -> str:
    """Wall time and peak memory; of a tool that keeps nothing no second open."""
    found = cell(results, tool, question, trace)
    if found.outcome != "ok":
        return found.text("wall_s")
    if question == "second" and not _entry(results, tool)["reopens"]:
        return "as the first"
    return f"{found.text('wall_s')}, {found.text('peak_mb')}"


def _markdown(head: list[str]) -> list[str]:
    return [_markdown_row(head), _markdown_row(["---"] * len(head))]


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


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
    for tool in _names(results):
        for question in ("first", "diff"):
            said: dict[str, list[str]] = {}
            for trace, size in enumerate(_sizes(results)):
                said.setdefault(judgement(results, tool, question, trace), []).append(size)
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
            yield _promise(f"traceq's answer, {name} at {size}: {said}", said == "right")


def _promise(text: str, is_kept: bool) -> Promise:
    return Promise(f"{'kept' if is_kept else 'BROKEN'}: {text}", is_kept)
