"""The bench beside other tools: its tables, limits and traces; no other tool is run."""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench import measured, others, others_plot, others_report, pair, venvs
from tests.bench.measured import Limits
from tests.bench.others import Tool
from tests.bench.size import Text, repeat
from traceq.loading import open_trace

SAMPLE = Path(__file__).parent.parent / "sample_traces" / "einops-0.json.gz"
CALLS, STEPS = 15, 5
RIGHT = {"events": 1000, "calls": 10, "total_ns": 5000}
DIFF = {"calls": [10, 10], "total_ns": [5000, 10000]}


# Made-up results ------------------------------------------------------------------------------


def a_trace(megabytes: int, copies: int) -> dict[str, Any]:
    before = {**RIGHT, "json_bytes": megabytes * 10**6, "sha256": "0"}
    return {
        "gigabytes": megabytes / 1000,
        "copies": copies,
        "is_cut": False,
        "before": before,
        "after": {**before, "total_ns": 10000},
    }


def a_tool(name: str, reason: str = "", reopens: bool = False) -> dict[str, Any]:
    state = {"is_available": not reason, "reason": reason, "reopens": reopens}
    return {"name": name, "versions": {name: "1.0"}, "note": "", **state}


def a_run(
    tool: str, question: str, trace: int, wall: float, peak: float, **changed: Any
) -> dict[str, Any]:
    figures = {"wall_s": wall, "cpu_s": wall, "peak_mb": peak, "work_s": wall, "load": 0.0}
    answer = DIFF if question == "diff" else RIGHT
    state = {"outcome": "ok", "reason": "", "answer": answer, **figures, **changed}
    return {"tool": tool, "question": question, "trace": trace, **state}


@pytest.fixture
def results() -> dict[str, Any]:
    """traceq, the engine that lacks slices, one that is not here, one that is over its limit."""
    runs = [
        *(a_run("traceq", "first", 0, wall, 100) for wall in (2.0, 9.0, 3.0)),
        a_run("traceq", "second", 0, 1, 90),
        a_run("traceq", "diff", 0, 6, 150),
        a_run("trace_processor", "first", 0, 10, 200, answer={**RIGHT, "events": 990}),
        a_run("trace_processor", "diff", 0, 20, 200),
        a_run("json + pandas", "first", 0, 12, 900),
        a_run("json + pandas", "diff", 0, 25, 1200, answer={"calls": [9, 9], "note": "a note"}),
        a_run("traceq", "first", 1, 20, 1000),
        a_run("traceq", "second", 1, 4, 900),
        a_run("traceq", "diff", 1, 60, 1500),
        a_run("trace_processor", "first", 1, 100, 2000, answer={**RIGHT, "events": 900}),
        a_run("trace_processor", "diff", 1, 200, 2000),
        a_run("json + pandas", "first", 1, 80, 19000, outcome="memory", reason="over 19.5 GB"),
    ]
    machine = {"cpu": "A processor", "cores": 2, "memory_gb": 23.5, "os": "Linux", "python": "3"}
    return {
        "schema": others.SCHEMA,
        "started": "2026-01-01T00:00:00+00:00",
        "machine": machine,
        "limits": {"seconds": 600, "memory_mb": 20000},
        "tools": [
            a_tool("traceq", reopens=True),
            a_tool("trace_processor"),
            a_tool("TraceLens", "no such host"),
            a_tool("json + pandas"),
        ],
        "traces": [a_trace(300, 1), a_trace(3000, 10)],
        "runs": runs,
    }


def test_a_cell_is_the_median_of_its_runs(results: dict[str, Any]) -> None:
    found = others_report.cell(results, "traceq", "first", 0)
    assert (found.text("wall_s"), found.text("peak_mb")) == ("3.0 s", "100 MB")
    again = others_report.cell(results, "trace_processor", "second", 1)
    assert (again.text("wall_s"), again.text("peak_mb")) == ("100 s", "2.0 GB")


def test_what_is_wrong_or_missing_is_said(results: dict[str, Any]) -> None:
    def said(tool: str, question: str, trace: int) -> str:
        return others_report.judgement(results, tool, question, trace)

    assert said("traceq", "diff", 0) == "right"
    assert said("trace_processor", "first", 0) == "lacks 10 of 1,000 slices"
    assert said("json + pandas", "diff", 0) == "9 and 9 calls, not 10 and 10; no ns (a note)"
    assert said("json + pandas", "first", 1) == "over 19.5 GB"
    assert said("json + pandas", "diff", 1) == "over a limit, or failed, with a smaller trace"
    assert said("TraceLens", "first", 0) == "no such host"
    results["runs"].append(a_run("traceq", "diff", 0, 6, 150, answer={}))
    assert said("traceq", "diff", 0) == "differs from run to run"


def test_tables_have_a_line_for_each_tool(results: dict[str, Any]) -> None:
    lines = list(others_report.markdown_lines(results))
    assert "| traceq | 3.0 s, 100 MB | 1.0 s, 90 MB | 6.0 s, 150 MB | right |" in lines
    assert "| TraceLens | not here | not here | not here | no such host |" in lines
    assert "| json + pandas | 12.0 s, 900 MB | too much memory |" in lines
    assert "| json + pandas | 25.0 s, 1.2 GB | not tried |" in lines
    text = "\n".join(others_report.text_lines(results))
    assert "json + pandas    (12.0 s)  too much memory" in text
    assert "TraceLens, diff (300 MB, 3.0 GB): no such host" in text


def test_promises_are_ratios_within_the_run(results: dict[str, Any]) -> None:
    assert all(promise.is_kept for promise in others_report.promises(results))
    results["runs"] += [a_run("traceq", "first", 0, 9.0, 201)] * 5
    broken = [one.text for one in others_report.promises(results) if not one.is_kept]
    assert [text.split(",")[0] for text in broken] == ["BROKEN: first open", "BROKEN: first open"]
    results["runs"] = [a_run("traceq", "first", 0, 1, 1, answer={**RIGHT, "events": 999})]
    broken = [one.text for one in others_report.promises(results) if not one.is_kept]
    assert "BROKEN: traceq's answer, first open at 300 MB: lacks 1 of 1,000 slices" in broken


def test_the_plot_names_each_line(results: dict[str, Any], tmp_path: Path) -> None:
    others_plot.plot(results, tmp_path / "others.svg")
    text = (tmp_path / "others.svg").read_text()
    assert "<!-- json + pandas: too much memory -->" in text
    assert "TraceLens" not in text


@pytest.mark.parametrize("heights", [[0.1, 0.11, 0.5], [0.9, 0.95, 0.96, 0.97], [0.2], []])
def test_labels_keep_apart(heights: list[float]) -> None:
    moved = others_plot.apart(heights)
    assert all(higher - lower > 0.059 for lower, higher in itertools.pairwise(moved))
    assert all(height <= 0.97 for height in moved)


def test_saved_results_are_shown_again(
    results: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others.write(results, tmp_path)
    assert others.show(json.loads((tmp_path / "others.json").read_text()), None) == 0
    assert "kept: diff, wall_s at 3.0 GB, beside the engine fed the JSON" in capsys.readouterr().out


# Running --------------------------------------------------------------------------------------


def run_python(code: str, seconds: float = 30, memory_mb: float = 1000) -> measured.Run:
    return measured.run([sys.executable, "-c", code], {}, Limits(seconds, memory_mb))


def test_a_run_is_measured_with_its_children() -> None:
    child = "held = b'x' * 80_000_000; import time; time.sleep(0.4)"
    answer = 'print(\'talk\'); print(\'{"work_s": 1.5, "answer": {"calls": 2}}\')'
    run = run_python(f'import subprocess, sys; subprocess.run([sys.executable, "-c", "{child}"])\n'
                     f"{answer}")  # fmt: skip
    assert (run.outcome, run.work_s, run.answer) == ("ok", 1.5, {"calls": 2})
    assert run.peak_mb > 80
    assert run.wall_s > 0.4


@pytest.mark.parametrize(
    ("code", "outcome", "reason"),
    [
        ("raise ValueError('bad trace')", "failed", "ValueError: bad trace"),
        ("import sys; sys.exit(3)", "failed", "exit code 3"),
        ("import time; time.sleep(30)", "time", "over the limit of 1 s"),
        ("held = b'x' * 300_000_000; import time; time.sleep(30)", "memory", "of 0.2 GB"),
        ("print('no answer')", "failed", "it gave no answer"),
    ],
)
def test_a_run_that_goes_wrong_says_why(code: str, outcome: str, reason: str) -> None:
    run = run_python(code, seconds=1 if outcome == "time" else 30, memory_mb=200)
    assert run.outcome == outcome
    assert reason in run.reason


def test_a_tool_that_does_not_install_has_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        text = "Collecting it\nfatal: no such host\nERROR: it could not be had\n"
        return subprocess.CompletedProcess(command, 1, "", text)

    monkeypatch.setattr(subprocess, "run", fail)
    found = venvs.install(tmp_path, "Tool", ["tool==1"], "tool", ["tool"])
    assert (found.python, found.reason) == (None, "fatal: no such host")
    assert not list(tmp_path.iterdir())


SCRIPT = "import json; print(json.dumps({'work_s': 0, 'answer': {'calls': 1}}))"


def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripts: dict[str, str], seconds: float
) -> Callable[[float], dict[str, Any]]:
    """A bench of made-up tools; measures a size and gives the results so far."""
    tools = []
    for name, code in scripts.items():
        path = tmp_path / f"{name}.py"
        path.write_text(code)
        tools.append(Tool(name, str(path), reopens=name == "traceq"))
    monkeypatch.setattr(others, "TOOLS", tuple(tools))
    monkeypatch.setattr(others, "_make_pair", lambda *_: a_trace(300, 1))
    options = argparse.Namespace(
        trace="", work=tmp_path, runs=2, tools=None, source=[], output=tmp_path / "out"
    )
    made = others._Bench(options, Limits(seconds, 1000), tmp_path)

    def measure(gigabytes: float) -> dict[str, Any]:
        made.measure_size(gigabytes)
        return made.results

    return measure


def test_what_went_wrong_is_not_tried_with_larger_traces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "import sys, time; time.sleep(30 if sys.argv[1] == 'diff' else 0)\n" + SCRIPT
    scripts = {"traceq": SCRIPT, "bad": "raise SystemExit('broken')", "slow": slow}
    measure = bench(tmp_path, monkeypatch, scripts, seconds=1.5)
    measure(0.1)
    results = measure(1.0)
    counts: dict[tuple[str, str, int, str], int] = {}
    for run in results["runs"]:
        key = (run["tool"], run["question"], run["trace"], run["outcome"])
        counts[key] = counts.get(key, 0) + 1
    ok = {("traceq", name, trace): 2 - trace for name in others.QUESTIONS for trace in (0, 1)}
    ok |= {("slow", "first", trace): 2 - trace for trace in (0, 1)}
    wrong = {("bad", "first", 0, "failed"): 1, ("slow", "diff", 0, "time"): 1}
    assert counts == {(*key, "ok"): count for key, count in ok.items()} | wrong
    assert others_report.judgement(results, "bad", "first", 0) == "broken"


# The traces -----------------------------------------------------------------------------------


def test_a_pair_of_traces_has_what_is_said_of_it(tmp_path: Path) -> None:
    size = 2 * len(Text.read(SAMPLE).body)
    told = pair.make(SAMPLE, tmp_path, size)
    assert told["copies"] == 2
    assert told["before"]["calls"] == told["after"]["calls"] == 2 * CALLS
    assert told["after"]["total_ns"] == pair.FACTOR * told["before"]["total_ns"]
    for side in ("before", "after"):
        with open_trace(tmp_path / f"{side}.json", cache=False) as trace:
            ops = trace.ops(pair.UNDER, match=f"*{pair.WORD}*")
            said = [int(ops["calls"].sum()), int(ops["total"].sum())]
        assert said == [told[side]["calls"], told[side]["total_ns"]]


def test_copies_are_other_ranks_with_other_names(tmp_path: Path) -> None:
    repeat(SAMPLE, tmp_path / "two.json", 2 * len(Text.read(SAMPLE).body), vary=True)
    events = json.loads((tmp_path / "two.json").read_text())["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    first, second = slices[: len(slices) // 2], slices[len(slices) // 2 :]
    modules = [
        {event["name"] for event in half if event["name"].startswith("nn.Module")}
        for half in (first, second)
    ]
    assert modules[0].isdisjoint(modules[1])
    processes = [{event["pid"] for event in half} - {"Spans"} for half in (first, second)]
    assert processes[0].isdisjoint(processes[1])


def test_a_trace_is_cut_in_time(tmp_path: Path) -> None:
    text = Text.read(SAMPLE)
    cut = text.cut(len(text.body) // 3)
    assert len(cut.body) == pytest.approx(len(text.body) / 3, rel=0.1)
    assert text.begin == cut.begin
    events = json.loads(b"[" + cut.body + b"]")
    everything = json.loads(b"[" + text.body + b"]")
    last = max(event["ts"] for event in events if "ts" in event)
    assert len(events) == sum(event.get("ts", 0) < int(last) + 1 for event in everything)


def test_a_step_over_everything(tmp_path: Path) -> None:
    text = Text.read(SAMPLE)
    (tmp_path / "trace.json").write_bytes(b"".join((text.head, text.body, text.tail)))
    pair.add_step(tmp_path / "trace.json", tmp_path / "step.json")
    with open_trace(tmp_path / "step.json", cache=False) as trace:
        assert trace.ledger.tally("X", "user_annotation").loaded == STEPS + 1
