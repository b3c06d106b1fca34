"""The command line as users meet it: each case is a process, its stdout, stderr and exit code.

The cases are kept in tests/golden/*.txt; ``TRACEQ_UPDATE_GOLDENS=1 pytest tests/test_cli.py``
writes them anew: read the difference before you keep it.
"""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import ROOT

GOLDEN = Path(__file__).parent / "golden"
TRACEQ = Path(sys.executable).parent / "traceq"
UPDATE = os.environ.get("TRACEQ_UPDATE_GOLDENS") == "1"
EINOPS, FLATTEN = "sample_traces/einops-0.json.gz", "sample_traces/flatten-0.json.gz"
GDN = ("--under", "GatedDeltaNet")
FIRST = ("--limit", "1")
CAPTURES = (
    *("--before", "sample_traces/einops-*.json.gz"),
    *("--after", "sample_traces/flatten-*.json.gz"),
)
MAP = ("--map", "rearrange=>built-in method flatten")
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n"

# The two queries of sgl-project/sglang pull request 20386, as they stand.
REARRANGE_SQL = """\
SELECT s.name, COUNT(*) AS call_count,
       AVG(s.dur)/1000.0 AS avg_dur_us, SUM(s.dur)/1000.0 AS total_dur_us
FROM slice s
WHERE s.name LIKE '%rearrange%'
  AND EXISTS (SELECT 1 FROM ancestor_slice(s.id) a WHERE a.name LIKE '%GatedDeltaNet%')
GROUP BY s.name;"""
FLATTEN_SQL = """\
SELECT s.name, COUNT(*) AS call_count,
       AVG(s.dur)/1000.0 AS avg_dur_us, SUM(s.dur)/1000.0 AS total_dur_us,
       MIN(s.dur)/1000.0 AS min_dur_us, MAX(s.dur)/1000.0 AS max_dur_us
FROM slice s
WHERE s.name LIKE '%flatten%'
  AND EXISTS (SELECT 1 FROM ancestor_slice(s.id) a WHERE a.name LIKE '%GatedDeltaNet%')
GROUP BY s.name;"""


@dataclass(frozen=True)
class Case:
    """A command; ``env`` goes on top of COLUMNS=80, ``stdin`` names a file."""

    arguments: Sequence[str]
    code: int = 0
    env: dict[str, str] = field(default_factory=dict)
    stdin: str | None = None


WIDE = {"COLUMNS": "200"}
CASES = {
    "help": Case(["--help"]),
    "help-info": Case(["info", "--help"]),
    "help-report": Case(["report", "--help"]),
    "help-comment": Case(["comment", "--help"]),
    "help-ops": Case(["ops", "--help"]),
    "help-kernels": Case(["kernels", "--help"]),
    "help-scopes": Case(["scopes", "--help"]),
    "help-tree": Case(["tree", "--help"]),
    "help-steps": Case(["steps", "--help"]),
    "help-timeline": Case(["timeline", "--help"]),
    "help-diff": Case(["diff", "--help"]),
    "help-sql": Case(["sql", "--help"]),
    "help-queries": Case(["queries", "-h"]),
    "help-capture": Case(["capture", "--help"]),
    "help-capture-run": Case(["capture", "run", "--help"]),
    "help-capture-server": Case(["capture", "server", "--help"]),
    "help-capture-gdn": Case(["capture", "gdn", "--help"]),
    "help-capture-ab": Case(["capture", "ab", "--help"]),
    "help-capture-cost": Case(["capture", "cost", "--help"]),
    "capture-gdn-list": Case(["capture", "gdn", "--list"]),
    "bad-capture-command": Case(["capture", "everything"], 2),
    "bad-capture-program": Case(["capture", "run", "-o", "out.json", "nowhere.py"], 2),
    "bad-capture-no-file": Case(["capture", "run", "bench.py"], 2),
    "bad-capture-name": Case(["capture", "gdn", "-o", "out.txt"], 2),
    "bad-capture-server": Case(["capture", "server", "http://127.0.0.1:9", "--seconds", "1"], 2),
    "bad-capture-server-window": Case(["capture", "server", "http://127.0.0.1:9"], 2),
    "bad-capture-ab": Case(
        ["capture", "ab", "--a", "nowhere.py", "--b", "nowhere.py", "-o", "ab"], 2
    ),
    "info": Case(["info", FLATTEN]),
    "info-markdown": Case(["info", FLATTEN, "--format", "markdown"]),
    "info-json": Case(["info", "tiny.json", "--format", "json"]),
    "info-csv": Case(["info", FLATTEN, "--format", "csv"]),
    "ops": Case(["ops", FLATTEN, *GDN, "--limit", "5"]),
    "ops-wide": Case(["ops", FLATTEN, *GDN, "--limit", "5"], env=WIDE),
    "ops-whole": Case(["ops", FLATTEN, "--match", "kernel", "--sort", "calls"]),
    "ops-markdown": Case(["ops", FLATTEN, *GDN, "--limit", "5", "--format", "markdown"]),
    "ops-json": Case(["ops", FLATTEN, *GDN, "--match", "flatten", "--format", "json"]),
    "ops-csv": Case(["ops", FLATTEN, *GDN, "--limit", "5", "--sort", "op", "--format", "csv"]),
    "ops-stdin": Case(["ops", "-"], stdin="tiny.json"),
    "ops-gpu": Case(["ops", EINOPS, *GDN, "--limit", "8", "--sort", "gpu_self"]),
    "ops-gpu-wide": Case(["ops", EINOPS, *GDN, "--limit", "8", "--sort", "gpu_self"], env=WIDE),
    "ops-steps": Case(["ops", EINOPS, *GDN, "--limit", "3", "--steps", "9:11"]),
    "kernels": Case(["kernels", EINOPS, *GDN, "--limit", "8"]),
    "kernels-wide": Case(["kernels", EINOPS, *GDN, "--limit", "8"], env=WIDE),
    "kernels-full": Case(["kernels", EINOPS, "--match", "silu", "--full", "--sort", "name"]),
    "kernels-markdown": Case(["kernels", EINOPS, *GDN, "--limit", "3", "--format", "markdown"]),
    "kernels-json": Case(["kernels", EINOPS, *GDN, "--limit", "2", "--format", "json"]),
    "kernels-csv": Case(["kernels", EINOPS, *GDN, "--limit", "3", "--format", "csv"]),
    "kernels-each": Case(["kernels", EINOPS, *GDN, "--each", "--limit", "4"], env=WIDE),
    "activities-json": Case(
        ["kernels", EINOPS, *GDN, "--each", "--match", "l2norm*", *FIRST, "--format", "json"]
    ),
    "kernels-none": Case(["kernels", "tiny.json"]),
    "scopes": Case(["scopes", EINOPS, *GDN]),
    "scopes-wide": Case(["scopes", EINOPS, *GDN], env=WIDE),
    "scopes-layer": Case(["scopes", EINOPS, *GDN, "--by", "layer"]),
    "scopes-markdown": Case(["scopes", EINOPS, *GDN, "--format", "markdown"]),
    "scopes-json": Case(["scopes", EINOPS, *GDN, "--limit", "1", "--format", "json"]),
    "scopes-csv": Case(["scopes", EINOPS, *GDN, "--by", "instance", *FIRST, "--format", "csv"]),
    "scopes-none": Case(["scopes", "tiny.json"]),
    "tree": Case(["tree", EINOPS, *GDN]),
    "tree-wide": Case(["tree", EINOPS, *GDN, "--smallest", "3%"], env=WIDE),
    "tree-cpu": Case(["tree", EINOPS, *GDN, "--by", "cpu", "--depth", "3"]),
    "tree-functions": Case(["tree", EINOPS, *GDN, "--functions", "--smallest", "0.2"]),
    "tree-markdown": Case(["tree", EINOPS, *GDN, "--depth", "2", "--format", "markdown"]),
    "tree-json": Case(["tree", EINOPS, *GDN, "--smallest", "10%", "--format", "json"]),
    "tree-stacks": Case(["tree", EINOPS, *GDN, "--format", "stacks"]),
    "tree-without-gpu": Case(["tree", "tiny.json", "--smallest", "0"]),
    "steps": Case(["steps", EINOPS]),
    "steps-wide": Case(["steps", EINOPS], env=WIDE),
    "steps-markdown": Case(["steps", EINOPS, "--format", "markdown"]),
    "steps-json": Case(["steps", EINOPS, "--format", "json"]),
    "steps-csv": Case(["steps", EINOPS, "--format", "csv"]),
    "steps-none": Case(["steps", "tiny.json"]),
    "steps-cold": Case(["steps", "steps.json"]),
    "ops-cold": Case(["ops", "steps.json"]),
    "ops-skip-first": Case(["ops", "steps.json", "--skip-first"]),
    "timeline": Case(["timeline", EINOPS]),
    "timeline-wide": Case(["timeline", EINOPS, "--skip-first"], env=WIDE),
    "timeline-markdown": Case(["timeline", EINOPS, "--steps", "9:10", "--format", "markdown"]),
    "timeline-json": Case(["timeline", EINOPS, "--window", "100ms:101ms", "--format", "json"]),
    "timeline-none": Case(["timeline", "tiny.json"]),
    "diff": Case(["diff", EINOPS, FLATTEN, *GDN]),
    "diff-map": Case(["diff", EINOPS, FLATTEN, *GDN, *MAP]),
    "diff-wide": Case(["diff", EINOPS, FLATTEN, *GDN, *MAP, "--limit", "3"], env=WIDE),
    "diff-all": Case(["diff", EINOPS, FLATTEN, *GDN, "--match", "aten::*view*", "--all"]),
    "diff-same": Case(["diff", "tiny.json", "tiny.json"]),
    "diff-markdown": Case(["diff", EINOPS, FLATTEN, *GDN, *MAP, "--format", "markdown"]),
    "diff-json": Case(
        ["diff", EINOPS, FLATTEN, *GDN, *MAP, "--match", "flatten", "--format", "json"]
    ),
    "diff-csv": Case(["diff", EINOPS, FLATTEN, *GDN, *MAP, "--format", "csv"]),
    "diff-captures": Case(["diff", *CAPTURES, *GDN]),
    "diff-captures-wide": Case(["diff", *CAPTURES, *GDN, "--skip-first", "--limit", "5"], env=WIDE),
    "diff-level": Case(["diff", *CAPTURES, *GDN, "--level", "0.05", "--bound", "0.05", *FIRST]),
    "sql-rearrange": Case(["sql", EINOPS, REARRANGE_SQL], env=WIDE),
    "sql-flatten": Case(["sql", FLATTEN, FLATTEN_SQL], env=WIDE),
    "sql-json": Case(["sql", "tiny.json", "SELECT name, parent_id FROM slice", "--format", "json"]),
    "sql-csv-from-file": Case(["sql", "tiny.json", "-f", "query.sql", "--format", "csv"]),
    "sql-nothing": Case(["sql", "tiny.json", "SELECT name FROM slice WHERE 0"]),
    "queries": Case(["queries"]),
    # Bad input.
    "bad-missing-file": Case(["ops", "missing.json"], 2),
    "bad-empty-file": Case(["ops", "empty.json"], 2),
    "bad-two-characters": Case(["ops", "two.json"], 2),
    "bad-not-json": Case(["ops", "not.json"], 2),
    "bad-no-trace-events": Case(["ops", "no_events_key.json"], 2),
    "bad-zero-events": Case(["ops", "zero_events.json"], 2),
    "bad-directory": Case(["ops", "folder"], 2),
    "bad-empty-directory": Case(["ops", "empty_folder"], 2),
    "cut-off-file": Case(["ops", "cut.json"]),
    "cut-off-gzip": Case(["ops", "cut.json.gz"]),
    "cut-off-file-info": Case(["info", "cut.json"]),
    "cut-off-gzip-head": Case(["ops", "cut_head.json.gz"], 2),
    "bad-pattern": Case(["ops", FLATTEN, "--under", "GatedDeltanet"], 2),
    "bad-match": Case(["ops", FLATTEN, *GDN, "--match", "flaten"], 2),
    "bad-pattern-diff": Case(["diff", EINOPS, FLATTEN, "--under", "rearange"], 2),
    "bad-diff-one-side": Case(["diff", "--before", EINOPS], 2),
    "bad-diff-twice": Case(["diff", EINOPS, FLATTEN, "--after", EINOPS], 2),
    "bad-diff-glob": Case(["diff", "--before", "nothing-*.json", "--after", EINOPS], 2),
    "bad-diff-other-work": Case(["diff", "scopes1.json", "scopes2.json", "--under", "Net"], 2),
    "bad-diff-copies": Case(
        ["diff", "--before", EINOPS, "--before", EINOPS, "--after", FLATTEN, *GDN], 2
    ),
    "bad-diff-level": Case(["diff", "tiny.json", "tiny.json", "--level", "0"], 2),
    "bad-kernel": Case(["kernels", EINOPS, *GDN, "--match", "l3norm"], 2),
    "bad-kernel-elsewhere": Case(["kernels", EINOPS, "--match", "l2norm*", "--under", "Linear"], 2),
    "bad-steps": Case(["ops", EINOPS, "--steps", "70:90"], 2),
    "bad-steps-text": Case(["scopes", EINOPS, "--steps", "first"], 2),
    "bad-no-steps": Case(["tree", "tiny.json", "--skip-first"], 2),
    "bad-window": Case(["timeline", EINOPS, "--window", "1.2"], 2),
    "bad-smallest": Case(["tree", "tiny.json", "--smallest", "little"], 2),
    "bad-tree-csv": Case(["tree", "tiny.json", "--format", "csv"], 2),
    "bad-regex": Case(["ops", "tiny.json", "--under", "re:("], 2),
    "bad-empty-pattern": Case(["ops", "tiny.json", "--under", ""], 2),
    "bad-map": Case(["diff", "tiny.json", "tiny.json", "--map", "a->b"], 2),
    "bad-map-nothing": Case(["diff", "tiny.json", "tiny.json", "--map", "top=>nothing"], 2),
    "bad-sql": Case(["sql", "tiny.json", "SELECT name,\n  durr\nFROM slice"], 2),
    "bad-sql-table": Case(["sql", "tiny.json", "SELECT * FROM slicces"], 2),
    "bad-timeout": Case(["sql", "tiny.json", ENDLESS, "--timeout", "0.2"], 2),
    "bad-timeout-value": Case(["sql", "tiny.json", "SELECT 1", "--timeout", "0"], 2),
    "bad-output": Case(["ops", "tiny.json", "-o", "nowhere/out.txt"], 2),
    "bad-output-below-a-file": Case(["ops", "tiny.json", "-o", "two.json/out.txt"], 2),
    "bad-output-directory": Case(["ops", "tiny.json", "-o", "folder"], 2),
    "bad-engine": Case(["ops", "tiny.json", "--engine", "nonsense"], 2),
    "bad-engine-shell": Case(["ops", "tiny.json", "--engine", "shell:/no/such/shell"], 2),
    "bad-engine-variable": Case(["ops", "tiny.json"], 2, env={"TRACEQ_ENGINE": "nonsense"}),
    "bad-running-engine": Case(["ops", "tp://localhost:1"], 2),
    "bad-sql-without-query": Case(["sql", "tiny.json"], 2),
    "bad-sql-two-queries": Case(["sql", "tiny.json", "SELECT 1", "-f", "query.sql"], 2),
    "bad-sql-file": Case(["sql", "tiny.json", "-f", "missing.sql"], 2),
    "bad-both-stdin": Case(["diff", "-", "-"], 2),
    "bad-sql-both-stdin": Case(["sql", "-", "-f", "-"], 2, stdin="query.sql"),
    "bad-command": Case(["opps", "tiny.json"], 2),
    "bad-option": Case(["ops", "tiny.json", "--undr", "x"], 2),
    "bad-format": Case(["queries", "--format", "json"], 2),
    "bad-no-trace": Case(["ops"], 2),
}  # fmt: skip

TINY = """\
{"traceEvents": [
{"ph": "X", "name": "top", "cat": "cpu_op", "pid": 1, "tid": 1, "ts": 0, "dur": 100},
{"ph": "X", "name": "a|b <i>", "cat": "cpu_op", "pid": 1, "tid": 1, "ts": 10, "dur": 20.5},
{"ph": "X", "name": "two\\nlines", "cat": "cpu_op", "pid": 1, "tid": 1, "ts": 40, "dur": 0},
{"ph": "X", "name": "last", "cat": "cpu_op", "pid": 1, "tid": 1, "ts": 50, "dur": 30}
]}
"""


def deep_text(levels: int) -> str:
    """Calls, each within the one before; the innermost launches a kernel."""
    lane = {"ph": "X", "pid": 1, "tid": 1, "cat": "cpu_op"}
    events: list[dict[str, object]] = [
        lane | {"name": f"op{level}", "ts": level, "dur": 10 * levels - 2 * level}
        for level in range(levels)
    ]
    call = {"name": "cudaLaunchKernel", "cat": "cuda_runtime", "ts": levels, "dur": 1}
    kernel = {"name": "k", "cat": "kernel", "ts": levels + 5, "dur": 3, "pid": 0, "tid": 7}
    events += [lane | item | {"args": {"correlation": 1}} for item in (call, kernel)]
    return json.dumps({"traceEvents": events})


def steps_text() -> str:
    """Five steps, of which the first is cold; each launches a kernel."""
    events = []
    for number, start in enumerate((0, 900, 1000, 1100, 1200)):
        took = 800 if number == 0 else 80 + number
        lane = {"ph": "X", "pid": 1, "tid": 1}
        label = {"name": f"ProfilerStep#{number}", "cat": "user_annotation", "dur": took}
        launch = {"name": "cudaLaunchKernel", "cat": "cuda_runtime", "dur": 2}
        kernel = {"name": "void k<int>(int)", "cat": "kernel", "ts": start + 30, "dur": 5}
        op = {"name": "aten::mul", "cat": "cpu_op", "ts": start + 10, "dur": 20}
        args = {"correlation": number + 1, "stream": 7, "device": 0}
        events += [
            lane | label | {"ts": start},
            lane | op,
            lane | launch | {"ts": start + 12, "args": args},
            {"ph": "X", "pid": 0, "tid": 7, "args": args} | kernel,
        ]
    return json.dumps({"traceEvents": events})


def scopes_text(number: int) -> str:
    """So many modules, each with an op."""
    lane = {"ph": "X", "pid": 1, "tid": 1, "cat": "python_function", "dur": 50}
    events = [
        lane | {"name": name, "ts": 100 * index, "dur": dur}
        for index in range(number)
        for name, dur in ((f"nn.Module: Net_{index}", 50), ("mm", 20))
    ]
    return json.dumps({"traceEvents": events})


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good and bad files, in which the commands are run."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "sample_traces").symlink_to(ROOT / "sample_traces")
    (folder / "folder").mkdir()
    (folder / "folder" / "one.json").write_text(TINY)
    (folder / "folder" / "two.json.gz").write_bytes(gzip.compress(TINY.encode(), mtime=0))
    (folder / "empty_folder").mkdir()
    packed = gzip.compress(TINY.encode() + b" " * 5_000, mtime=0)
    texts = {
        "tiny.json": TINY,
        "steps.json": steps_text(),
        "scopes1.json": scopes_text(1),
        "scopes2.json": scopes_text(2),
        "deep.json": deep_text(500),
        "empty.json": "",
        "two.json": "{}",
        "not.json": "This is a log, not a trace.\n",
        "no_events_key.json": '{"schemaVersion": 1, "events": []}',
        "zero_events.json": '{"traceEvents": []}',
        "cut.json": TINY[: TINY.index('"last"') + 20],
        "query.sql": "SELECT name, dur FROM slice ORDER BY ts",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "cut.json.gz").write_bytes(packed[:-20])
    (folder / "cut_head.json.gz").write_bytes(packed[:15])
    # Compiles the engine where that has not been done yet, so that no command has to say so.
    run(["sql", "tiny.json", "SELECT 1"], folder)
    return folder


def environment(**extra: str) -> dict[str, str]:
    dropped = ("TRACEQ_ENGINE", "TRACEQ_TRACE_PROCESSOR", "NO_COLOR", "FORCE_COLOR", "PYTHONPATH")
    env = {key: value for key, value in os.environ.items() if key not in dropped}
    return env | {"COLUMNS": "80", "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | extra


def run(
    arguments: Sequence[str | bytes | Path],
    cwd: Path,
    stdin: Path | None = None,
    **extra: str,
) -> subprocess.CompletedProcess[str]:
    with open(stdin or os.devnull, "rb") as file:
        return subprocess.run(
            [TRACEQ, *arguments],
            cwd=cwd,
            env=environment(**extra),
            stdin=file,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )


def as_golden(case: Case, done: subprocess.CompletedProcess[str]) -> str:
    words = [f"{key}={value}" for key, value in case.env.items()]
    words += ["traceq", *(shlex.quote(word) for word in case.arguments)]
    words += ["<", case.stdin] if case.stdin else []
    # Where sessions of the engine have their sockets differs from machine to machine.
    errors = re.sub(r"/\S+/(\w+\.sock)", r"…/\1", done.stderr)
    return (
        f"$ {' '.join(words)}\nexit code {done.returncode}\n"
        f"--- stdout\n{done.stdout}--- stderr\n{errors}"
    )


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, desk: Path) -> None:
    case = CASES[name]
    done = run(case.arguments, desk, desk / case.stdin if case.stdin else None, **case.env)
    found, path = as_golden(case, done), GOLDEN / f"{name}.txt"
    if UPDATE:
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")
    check_manners(case, done)


def check_manners(case: Case, done: subprocess.CompletedProcess[str]) -> None:
    """What holds for every command, whatever its golden says."""
    assert done.returncode == case.code
    assert "\x1b" not in done.stdout + done.stderr
    python_traceback = r'Traceback \(most recent call last\):\n  File "[^"]*\.py"'
    assert not re.search(python_traceback, done.stdout + done.stderr)
    if case.code == 0:
        assert done.stderr == ""
        assert done.stdout.endswith("\n") or done.stdout == ""
        width = int(case.env.get("COLUMNS", "80"))
        if "--format" not in case.arguments and "sql" not in case.arguments:
            assert [line for line in done.stdout.splitlines() if len(line) > width] == []
    else:
        assert done.stdout == ""
        assert done.stderr
        if "Usage:" not in done.stderr and case.arguments[0] != "sql":
            assert len(done.stderr.splitlines()) <= 2, done.stderr
            assert done.stderr.startswith("traceq: ")


def test_every_golden_has_a_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)


def test_json_results_are_versioned_json() -> None:
    kinds = ("kernels", "activities", "scopes", "tree", "steps", "timeline")
    for kind in ("info", "ops", "diff", "sql", *kinds):
        text = (GOLDEN / f"{kind}-json.txt").read_text(encoding="utf-8")
        data = json.loads(text.partition("--- stdout\n")[2].partition("--- stderr")[0])
        assert (data["schema"], data["kind"]) == (2 if kind == "diff" else 1, kind)


def test_figures_of_the_two_queries() -> None:
    rearrange = (GOLDEN / "sql-rearrange.txt").read_text(encoding="utf-8")
    assert re.search(r"einops/einops.py\(\d+\): rearrange +15 +63\.413\d* +951\.209", rearrange)
    flatten = (GOLDEN / "sql-flatten.txt").read_text(encoding="utf-8")
    assert re.search(r"aten::flatten +45 +4\.783\d* +215\.239", flatten)


def stdout_of(golden: str) -> str:
    text = (GOLDEN / f"{golden}.txt").read_text(encoding="utf-8")
    return text.partition("--- stdout\n")[2].partition("--- stderr")[0]


def rows_below(golden: str) -> dict[str, list[str]]:
    """The lines of a wide table by what they begin with, split at their gaps."""
    lines = (re.split(r"  +", line.strip()) for line in stdout_of(golden).splitlines())
    return {words[0]: words[1:] for words in lines if len(words) > 1}


WHOLE, INSIDE, OUTSIDE = 8_002_600, 3_453_340, 4_549_260


def test_gpu_figures_of_the_sample_are_the_same_in_every_report() -> None:
    remark = "GPU: 540 of 1,457 activities, 3,453.340 of 8,002.600 µs under the scopes"
    for golden in ("ops-gpu-wide", "kernels-wide", "scopes-wide", "tree-wide"):
        assert remark in stdout_of(golden), golden
        assert "outside 917, 4,549.260 µs." in stdout_of(golden), golden
        assert "(outside the scopes)" in rows_below(golden), golden
    for golden in ("kernels-json", "activities-json", "scopes-json", "tree-json", "ops-json"):
        gpu = json.loads(stdout_of(golden))["gpu"]
        assert gpu["under"]["total"] + gpu["outside"]["total"] == gpu["all"]["total"], golden
        if golden != "ops-json":  # of the other sample
            assert (gpu["all"]["total"], gpu["under"]["total"]) == (WHOLE, INSIDE)


@pytest.mark.parametrize(
    ("command", "column"),
    [("kernels", "total"), ("scopes", "gpu_self"), ("ops", "gpu_self")],
)
def test_rows_of_a_table_add_up_to_the_gpu_time(desk: Path, command: str, column: str) -> None:
    """Also where --limit cuts: the rest is told in the note, and nothing of the account is left."""
    rows = json.loads(run([command, EINOPS, *GDN, "--format", "json"], desk).stdout)["rows"]
    assert sum(row[column] for row in rows) == WHOLE
    assert rows[-1][column] == OUTSIDE
    cut = run([command, EINOPS, *GDN, "--format", "json", "--limit", "1"], desk)
    data = json.loads(cut.stdout)
    assert data["rows"] == [rows[0], rows[-1]]
    assert data["rows_total"] == len(rows)


def test_stacks_add_up_and_are_all_of_the_output() -> None:
    lines = stdout_of("tree-stacks").splitlines()
    values = [re.fullmatch(r"\S.* (\d+)", line) for line in lines]
    # Those of the scope: what other code launched is no part of its flame graph.
    assert sum(int(value[1]) for value in values if value) == INSIDE
    assert all(values)


def test_trees_deeper_than_python_recurses(desk: Path) -> None:
    text = run(["tree", "deep.json", "--format", "json"], desk).stdout
    names = re.findall(r'"name": "(\w+)"', text)
    assert names == [*(f"op{level}" for level in range(500)), "k"]
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(5_000)
        node, depth = json.loads(text)["nodes"], 0
    finally:
        sys.setrecursionlimit(limit)
    while node:
        (only,) = node
        node, depth = only["children"], depth + 1
    assert depth == 501
    for format_ in ("table", "markdown"):
        shown = run(["tree", "deep.json", "--format", format_], desk)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "[499] op499" in shown.stdout
        assert format_ == "markdown" or max(map(len, shown.stdout.splitlines())) <= 80


# Output -------------------------------------------------------------------------------------------


def test_output_goes_to_the_file_and_nowhere_else(desk: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("an older and much longer result " * 100)
    printed = run(["ops", "tiny.json"], desk)
    written = run(["ops", "tiny.json", "-o", target], desk)
    assert (written.returncode, written.stdout, written.stderr) == (0, "", "")
    assert target.read_text(encoding="utf-8") == printed.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    assert target.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_failing_command_leaves_the_file_as_it_was(desk: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("kept")
    done = run(["ops", "tiny.json", "--under", "nothing", "-o", target], desk)
    assert done.returncode == 2
    assert target.read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_output_through_a_link_goes_to_what_it_links_to(desk: Path, tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    assert run(["queries", "-o", tmp_path / "link.txt"], desk).returncode == 0
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text().startswith("Tables and functions")


def test_output_to_a_device(desk: Path) -> None:
    done = run(["queries", "--format", "markdown", "-o", "/dev/stdout"], desk)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (ROOT / "queries" / "README.md").read_text(encoding="utf-8")


def test_markdown_of_the_queries_is_their_readme(desk: Path) -> None:
    done = run(["queries", "--format", "markdown"], desk)
    assert done.stdout == (ROOT / "queries" / "README.md").read_text(encoding="utf-8")


def test_a_reader_that_leaves_early_is_no_error(desk: Path) -> None:
    command = (
        f"set -o pipefail; {shlex.quote(str(TRACEQ))} sql {FLATTEN} "
        "'SELECT id, name, ts, dur FROM slice' --format csv | head -1"
    )
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=desk,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "id,name,ts,dur\n", "")


def test_a_full_disk_is_told(desk: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [TRACEQ, "queries"],
            cwd=desk,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr


def test_a_path_that_is_not_utf8(desk: Path) -> None:
    path = os.fsencode(desk) + b"/caf\xe9.json"
    try:
        with open(path, "w") as file:
            file.write(TINY)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for format_ in ("table", "json"):
        done = subprocess.run(
            [TRACEQ, "info", b"caf\xe9.json", "--format", format_],
            cwd=desk,
            env=environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        done.stdout.decode("utf-8")  # what goes out is UTF-8, also where the path is not


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_cannot_show_all_characters(desk: Path, encoding: str) -> None:
    done = subprocess.run(
        [TRACEQ, "diff", "tiny.json", "tiny.json"],
        cwd=desk,
        env=environment(PYTHONIOENCODING=encoding, PYTHONUTF8="0"),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0


# A terminal ---------------------------------------------------------------------------------------


def on_terminal(arguments: Sequence[str], cwd: Path, **extra: str) -> str:
    """What a command writes to a terminal that is its stdout."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [TRACEQ, *arguments],
            cwd=cwd,
            env=environment(**extra),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
        )
        os.close(theirs)
        written = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux's way of saying that the other end is closed
                break
            if not part:
                break
            written += part
        _, errors = process.communicate(timeout=60)
    finally:
        os.close(ours)
    assert (process.returncode, errors) == (0, b"")
    return written.decode("utf-8").replace("\r\n", "\n")


def test_colours_are_for_terminals_that_want_them(desk: Path) -> None:
    arguments = ["ops", "tiny.json"]
    plain = run(arguments, desk).stdout
    coloured = on_terminal(arguments, desk)
    assert "\x1b[" in coloured
    bare = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [line.rstrip() for line in bare.splitlines()] == plain.splitlines()
    assert on_terminal(arguments, desk, NO_COLOR="1") == plain


def test_a_pipe_has_no_colours_whatever_is_set(desk: Path) -> None:
    plain = run(["ops", "tiny.json"], desk).stdout
    assert run(["ops", "tiny.json"], desk, FORCE_COLOR="1").stdout == plain


def test_the_width_of_a_pipe_suits_a_log(desk: Path) -> None:
    env = environment()
    del env["COLUMNS"]
    done = subprocess.run(
        [TRACEQ, "ops", FLATTEN, *GDN],
        cwd=desk,
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    longest = max(len(line) for line in done.stdout.splitlines())
    assert 100 < longest <= 120


# Interruption -------------------------------------------------------------------------------------


def test_an_interrupted_query_ends_soon(desk: Path) -> None:
    process = subprocess.Popen(
        [TRACEQ, "sql", "tiny.json", ENDLESS],
        cwd=desk,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    try:
        wait_until_busy(process.pid)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert time.monotonic() - started < 10
    assert (process.returncode, out) == (130, "")
    assert errors.strip() == "traceq: interrupted"


def wait_until_busy(pid: int) -> None:
    """Until the process has used so much time that it must be in its endless query."""
    deadline, ticks = time.monotonic() + 60, os.sysconf("SC_CLK_TCK")
    used = 0.0
    while used < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used = (int(fields[11]) + int(fields[12])) / ticks


def test_python_minus_c_is_the_same_program(desk: Path) -> None:
    program = "from traceq.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "queries"],
        cwd=desk,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.stdout == run(["queries"], desk).stdout
