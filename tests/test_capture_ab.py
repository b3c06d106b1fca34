"""``traceq capture ab``: real processes, run in turn; what goes wrong with them; what is told."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from traceq.ab_result import AbResult, Range, Sample
from traceq.capturing.ab import ProgramOptions, capture_ab, parse_command
from traceq.compare import ScopeTotals
from traceq.conditions import conditions, notes
from traceq.errors import CaptureError, UsageError
from traceq.kernels import GpuAccount, GpuWork
from traceq.report.ab import ab_report

PYTHON = shlex.quote(sys.executable)
AB = [sys.executable, "-m", "traceq", "capture", "ab"]
NONE = ProgramOptions()

WRITER = """\
import gzip, json, sys
path, turn = sys.argv[1], sys.argv[1].rsplit("-", 1)[1].split(".")[0]
durations = sys.argv[2:]
dur = float(durations[int(turn) % len(durations)])
event = {"ph": "X", "cat": "cpu_op", "pid": 1, "tid": 1, "ts": 1}
events = [event | {"name": "outer", "dur": dur}, event | {"name": "inner", "dur": dur / 2}]
with gzip.open(path, "wt") as file:
    json.dump({"schemaVersion": 1, "traceEvents": events}, file)
print("wrote", path)
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a program that writes a trace: its turn's duration in µs."""
    (tmp_path / "writer.py").write_text(WRITER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def writer(*durations: float) -> str:
    return f"{PYTHON} writer.py {{out}} {' '.join(map(str, durations))}"


def code(text: str) -> str:
    """A command that runs Python code with the path of its trace in ``sys.argv[1]``."""
    return f"{PYTHON} -c {shlex.quote(text)} {{out}}"


def run(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AB, *arguments],
        env=os.environ | {"COLUMNS": "80", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )


def manifest(folder: Path) -> dict[str, Any]:
    data = json.loads((folder / "ab.json").read_text(encoding="utf-8"))
    assert (data["schema"], data["kind"]) == (1, "ab-manifest")
    return dict(data)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def wait_for(condition: Callable[[], bool]) -> None:
    """Until a condition holds; a test that waits too long fails."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """A zombie whose parent has not read its code yet does nothing any more."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


# The order, and what is kept --------------------------------------------------------------


def test_sides_are_run_in_turn_and_warm_runs_are_thrown_away(desk: Path) -> None:
    told: list[tuple[int, int, str, bool]] = []
    series = capture_ab(
        writer(30),
        writer(20),
        desk / "deep" / "dir",
        repeat=2,
        progress=lambda number, total, name, took: told.append(
            (number, total, name, took is not None)
        ),
    )
    order = ["a-warm-0", "b-warm-0", "a-0", "b-0", "a-1", "b-1"]
    assert [item.name for item in series.runs] == order
    assert told == [(n, 6, name, end) for n, name in enumerate(order, 1) for end in (False, True)]
    assert [item.trace and item.trace.name for item in series.captures] == [
        f"{name}.json.gz" for name in order[2:]
    ]
    traces = [f"{name}.json.gz" for name in order[2:]]
    assert names(series.folder) == sorted([*traces, *(f"{name}.log" for name in order), "ab.json"])
    assert "wrote" in (series.folder / "b-1.log").read_text()


def test_the_manifest_tells_all(desk: Path) -> None:
    series = capture_ab("FAST=1 " + writer(30), writer(20), desk / "dir", repeat=2, warm=0)
    data = manifest(series.folder)
    assert (data["state"], data["repeat"], data["warm"]) == ("done", 2, 0)
    assert [item["name"] for item in data["runs"]] == ["a-0", "b-0", "a-1", "b-1"]
    assert [item["number"] for item in data["runs"]] == [1, 2, 3, 4]
    starts = [item["started"] for item in data["runs"]]
    assert starts == sorted(starts)
    assert all(item["exit_code"] == 0 and item["duration"] > 0 for item in data["runs"])
    assert data["runs"][1]["trace"] == "b-0.json.gz"
    assert data["commands"]["a"]["environment"] == {"FAST": "1"}
    assert "{out}" in data["commands"]["b"]["argv"]


def test_secrets_are_neither_kept_nor_shown(desk: Path) -> None:
    command = f"API_KEY=hush {writer(3)} --token hush"
    series = capture_ab(command, command, desk / "dir", repeat=1, warm=0)
    assert "hush" not in (series.folder / "ab.json").read_text()
    assert all("hush" not in item.shown for item in series.commands.values())
    (desk / "dir" / ".ab-link").symlink_to(desk)
    capture_ab(command, command, desk / "dir", repeat=1, warm=0, force=True)
    assert desk.is_dir()


def test_a_command_finds_its_path_in_the_environment(desk: Path) -> None:
    copy = 'sh -c \'echo "{\\"$WORD\\": 1}" > "$TRACEQ_OUT"\''
    series = capture_ab(f"WORD=one {copy}", f"WORD=two {copy}", desk / "dir", repeat=1, warm=0)
    found = [item.trace.read_text() for item in series.captures if item.trace]
    assert found == ['{"one": 1}\n', '{"two": 1}\n']


def test_paths_hold_for_commands_that_change_the_folder(desk: Path) -> None:
    moving = f"{PYTHON} -c \"import os, sys; os.chdir('/'); open(sys.argv[1], 'w').write('[]')\" "
    capture_ab(moving + "{out}", moving + "{out}", "dir with spaces", repeat=1, warm=0)
    assert (desk / "dir with spaces" / "b-0.json.gz").read_text() == "[]"


def test_standard_input_is_empty_and_what_a_run_leaves_behind_is_ended(desk: Path) -> None:
    text = (
        "import subprocess, sys; assert not sys.stdin.read()\n"
        "left = subprocess.Popen(['sleep', '300'])\n"
        "open('left.pid', 'w').write(str(left.pid)); open(sys.argv[1], 'w').write('[]')"
    )
    capture_ab(code(text), code(text), desk / "dir", repeat=1, warm=0)
    wait_for(lambda: is_gone(int((desk / "left.pid").read_text())))


def test_an_earlier_series_stays_unless_it_is_to_go(desk: Path) -> None:
    folder = desk / "dir"
    capture_ab(writer(30), writer(20), folder, repeat=2, warm=0)
    (folder / "notes.txt").write_text("mine")
    before = (folder / "a-1.json.gz").stat().st_mtime_ns
    with pytest.raises(UsageError, match="earlier 'capture ab'") as error:
        capture_ab(writer(30), writer(20), folder, repeat=1, warm=0)
    assert "--force" in str(error.value)
    assert (folder / "a-1.json.gz").stat().st_mtime_ns == before
    capture_ab(writer(30), writer(20), folder, repeat=1, warm=0, force=True)
    assert "a-1.json.gz" not in names(folder)
    assert (folder / "notes.txt").read_text() == "mine"


# How commands are read --------------------------------------------------------------------

OWN = (sys.executable, "-m", "traceq", "capture")
UNDER_RUN = ("-m", "traceq", "capture", "run", "-o", "{out}")


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("./bench 'two words' --trace={out}", ("./bench", "two words", "--trace={out}")),
        ("traceq capture gdn --layers 2", (*OWN, "gdn", "-o", "{out}", "--layers", "2")),
        ("python -m traceq capture gdn", (*OWN, "gdn", "-o", "{out}")),
        ("/x/traceq capture gdn", ("/x/traceq", "capture", "gdn", "-o", "{out}")),
        (
            "/x/python3.12 -m traceq capture run x.py -o 1",
            ("/x/python3.12", *OWN[1:], "run", "-o", "{out}", "x.py", "-o", "1"),
        ),
        (
            "traceq capture run -- x.py -o 1",
            (*OWN, "run", "-o", "{out}", "--", "x.py", "-o", "1"),
        ),
        ("python x.py -o 1", (sys.executable, *UNDER_RUN, "--", "x.py", "-o", "1")),
        ("x.py a", (sys.executable, *UNDER_RUN, "--", "x.py", "a")),
        ("python3 -u -X dev x.py", (sys.executable, "-u", "-X", "dev", *UNDER_RUN, "--", "x.py")),
        ("-m pkg.mod a", (sys.executable, *UNDER_RUN, "--", "-m", "pkg.mod", "a")),
        ("python -mpkg a", (sys.executable, *UNDER_RUN, "--", "-m", "pkg", "a")),
        ("/opt/python x.py", ("/opt/python", *UNDER_RUN, "--", "x.py")),
        ("bash run.sh", ("bash", "run.sh")),
        ("traceq capture server http://h -o {out}", (*OWN, "server", "http://h", "-o", "{out}")),
    ],
)
def test_commands(text: str, argv: tuple[str, ...]) -> None:
    assert parse_command(text, NONE).argv == argv


def test_programs_get_the_options_and_may_be_left_as_they_are() -> None:
    options = ProgramOptions(("GDN", "x"), "modules", 2, 10, "mod:f")
    words = parse_command("python x.py", options).argv
    expected = "--under GDN --under x --stack modules --warmup 2 --steps 10 --from mod:f -- x.py"
    assert " ".join(words).endswith(expected)
    assert parse_command("python x.py", NONE, as_is=True).argv == ("python", "x.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("python 'x.py", "No closing quotation"),
        ("  ", "holds no command"),
        ("A=1", "holds no command"),
        ("x.py | tee log", "without a shell"),
        ("python -c 'pass'", "names no file"),
        ("python", "names no file"),
        ("traceq capture", "does not write one trace"),
        ("traceq capture ab --a x", "does not write one trace"),
        ("traceq capture server http://h", "does not write one trace"),
        ("traceq capture gdn --output=x.json", "-o is set for each run"),
        ("traceq capture run -o x.json -- x.py", "-o is set for each run"),
    ],
)
def test_commands_that_cannot_be_run(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        parse_command(text, NONE)
    assert error.value.hint


@pytest.mark.parametrize(
    ("b", "options", "message"),
    [
        ("no-such-command {out}", NONE, "--b: no-such-command: command not found"),
        ("python missing.py", NONE, "--b: missing.py: no such file"),
        ("sh x {out}", ProgramOptions(stack="none"), "--stack is for Python programs"),
    ],
)
def test_nothing_is_run_where_one_side_cannot_be(
    desk: Path, b: str, options: ProgramOptions, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        capture_ab("python writer.py", b, desk / "dir", options=options)
    assert not (desk / "dir").exists()


# Runs that go wrong -----------------------------------------------------------------------


def failing(desk: Path, b: str, **options: Any) -> CaptureError:
    """Run a good A and a bad B: what is said; A's capture stays, B has none."""
    with pytest.raises(CaptureError) as error:
        capture_ab(writer(30), b, desk / "dir", warm=0, **options)
    assert names(desk / "dir") == ["a-0.json.gz", "a-0.log", "ab.json", "b-0.log"]
    data = manifest(desk / "dir")
    assert data["state"] == "failed"
    assert data["runs"][1]["trace"] is None
    assert data["runs"][1]["problem"] in error.value.message
    assert error.value.message.startswith("run 2 of 10 (b-0, ")
    assert "Captures kept" in str(error.value.hint)
    return error.value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("print('one'); sys.exit('out of memory')", "ended with exit code 1"),
        ("open(sys.argv[1], 'w').write('[]'); sys.exit(3)", "ended with exit code 3"),
        ("os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
        ("pass", "wrote no trace"),
        ("open(sys.argv[1] + '.tmp', 'w')", "wrote no trace, but b-0.json.gz.tmp"),
        ("os.mkdir(sys.argv[1])", "no file in the place of its trace"),
        ("os.symlink('/etc/hostname', sys.argv[1])", "wrote a link"),
        ("import shutil; shutil.rmtree(os.path.dirname(sys.argv[1]))", "removed the folder"),
        ("open(sys.argv[1], 'w')", "wrote an empty trace"),
        ("open(sys.argv[1], 'w').write('{\"traceEvents\": [')", "cut off, or is no JSON"),
        ("open(sys.argv[1], 'w').write('a log')", "cut off, or is no JSON"),
        (
            "import gzip; open(sys.argv[1], 'wb').write(gzip.compress(b'[1, 2, 3]')[:-4])",
            "cut off or damaged",
        ),
        (
            "import zstandard as z; open(sys.argv[1], 'wb').write(z.compress(b'[1, 2]' * 9)[:-4])",
            "cut off",
        ),
    ],
)
def test_a_run_that_fails_ends_the_series(desk: Path, text: str, message: str) -> None:
    error = failing(desk, code(f"import os, sys; {text}"))
    assert message in error.message


def test_the_end_of_its_output_is_shown(desk: Path) -> None:
    text = "for i in range(9): print('line', i)\nraise SystemExit('\\x1b[31mno GPU')"
    hint = str(failing(desk, code(text)).hint)
    assert "  | line 8\n  | \\x1b[31mno GPU\n" in hint
    assert "line 3" not in hint
    assert "b-0.log" in hint


def test_a_run_that_takes_too_long_is_ended_with_all_it_started(desk: Path) -> None:
    text = (
        "import subprocess, time\n"
        "left = subprocess.Popen(['sleep', '300'])\n"
        "open('left.pid', 'w').write(str(left.pid))\n"
        "time.sleep(300)"
    )
    (desk / "hang.py").write_text(text)
    error = failing(desk, f"{PYTHON} hang.py {{out}}", run_timeout=2)
    assert "took longer than 2.000 s" in error.message
    wait_for(lambda: is_gone(int((desk / "left.pid").read_text())))


def test_a_command_that_cannot_know_where_to_write_is_told_how(desk: Path) -> None:
    assert "TRACEQ_OUT" in str(failing(desk, "echo done").hint)


def test_a_folder_that_cannot_be_written(desk: Path) -> None:
    (desk / "file").write_text("")
    with pytest.raises(CaptureError, match="cannot be written"):
        capture_ab(writer(30), writer(20), desk / "file" / "dir")


# Signals ----------------------------------------------------------------------------------

HANGS = """\
import os, signal, subprocess, sys, time
if "/a-" in sys.argv[1]:
    open(sys.argv[1], "w").write("[]")
    sys.exit()
open(sys.argv[1], "w").write('{"traceEvents": [')
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
child = subprocess.Popen([sys.executable, "-c", deaf + "print(1, flush=True); time.sleep(300)"],
                         stdout=subprocess.PIPE)
child.stdout.readline()
if len(sys.argv) > 2:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open("pids.tmp", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename("pids.tmp", "pids")
time.sleep(300)
"""


def start_hanging(desk: Path, *words: str) -> tuple[subprocess.Popen[str], list[int]]:
    """The command line at work on a B that hangs: its process, and those that it started."""
    (desk / "hang.py").write_text(HANGS)
    command = f"{PYTHON} hang.py {{out}} {' '.join(words)}"
    process = subprocess.Popen(
        [*AB, "--a", command, "--b", command, "--warm", "0", "-o", "dir"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((desk / "pids").exists)
    return process, [int(pid) for pid in (desk / "pids").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_run_and_keep_what_is_whole(desk: Path, number: signal.Signals) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here, as by nohup")
    process, children = start_hanging(desk)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.endswith("traceq: interrupted\n")
    wait_for(lambda: all(map(is_gone, children)))
    assert names(desk / "dir") == ["a-0.json.gz", "a-0.log", "ab.json", "b-0.log"]
    data = manifest(desk / "dir")
    assert (data["state"], data["runs"][1]["problem"]) == ("interrupted", "was interrupted")


def test_a_second_signal_does_not_wait_for_a_deaf_command(desk: Path) -> None:
    process, children = start_hanging(desk, "deaf")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    wait_for(lambda: all(map(is_gone, children)))


def test_killed_at_once_it_leaves_nothing_half_written_under_a_final_name(desk: Path) -> None:
    process, children = start_hanging(desk)
    process.kill()
    process.communicate(timeout=60)
    os.killpg(children[0], signal.SIGKILL)
    left = [name for name in names(desk / "dir") if not name.startswith(".")]
    assert left == ["a-0.json.gz", "a-0.log", "ab.json", "b-0.log"]
    assert manifest(desk / "dir")["state"] == "running"
    capture_ab(writer(30), writer(20), desk / "dir", repeat=1, warm=0, force=True)
    assert not [name for name in names(desk / "dir") if name.startswith(".")]


# What is told -----------------------------------------------------------------------------


def sample(name: str, cpu: int, gpu: int = 0, scopes: int = 3) -> Sample:
    work, nothing = GpuWork(int(gpu > 0), gpu), GpuWork()
    account = GpuAccount(work, work, nothing, nothing, nothing, gpu, int(gpu > 0))
    return Sample(name, name[0], f"{name}.json.gz", ScopeTotals(scopes, cpu, cpu, account), 1)


def result(a: list[int], b: list[int], *, same: bool = False, gpu: bool = False) -> AbResult:
    sides = {"a": a, "b": b}
    turns = [(f"{side}-{turn}", sides[side][turn]) for turn in range(len(a)) for side in "ab"]
    samples = tuple(sample(name, time, 1000 - time if gpu else 0) for name, time in turns)
    return AbResult("dir", {"a": "x", "b": "y"}, same, ("GDN",), samples)


def facts(found: AbResult) -> dict[str, str]:
    return dict(ab_report(found).facts)


def test_ranges() -> None:
    assert Range(1, 2, 3).overlaps(Range(3, 4, 5))
    assert Range(4, 4, 4).overlaps(Range(1, 2, 9))
    assert not Range(4, 5, 6).overlaps(Range(1, 2, 3))


def test_ranges_that_overlap_show_no_difference() -> None:
    found = result([20, 29, 25, 21], [27, 18, 19, 20])
    assert found.overlap("cpu") is True
    verdict = "the ranges overlap: these captures do not show a difference in CPU time"
    assert facts(found)["CPU time"] == verdict
    assert (found.pair[0].name, found.pair[1].name) == ("a-3", "b-2")
    assert found.range("a", "cpu") == Range(20, 21, 29)
    assert found.warnings == ()


def test_ranges_that_lie_apart_say_which_side_took_less() -> None:
    found = result([30, 31, 32, 33], [20, 21, 22, 23])
    assert "each of b took less than each of a" in facts(found)["CPU time"]
    found = result([20, 21, 22, 23], [30, 31, 32, 33])
    assert "each of b took more than each of a" in facts(found)["CPU time"]
    assert "significan" not in str(ab_report(found))


def test_an_aa_is_called_one() -> None:
    found = result([30, 31, 32, 33], [20, 21, 22, 23], same=True)
    assert "one and the same command" in facts(found)["CPU time"]
    assert "chance" in facts(found)["CPU time"]
    assert "A/A" in found.warnings[0]


def test_the_pair_is_chosen_by_gpu_time_where_there_is_any() -> None:
    found = result([10, 30, 20], [11, 12, 13], gpu=True)
    assert found.measures == ("cpu", "gpu")
    assert (found.pair[0].name, found.pair[1].name) == ("a-2", "b-1")
    assert "by GPU time" in facts(found)["median pair"]


def test_few_captures_and_copies_are_warned_of() -> None:
    assert "One capture a side" in result([1], [2]).warnings[0]
    assert result([1], [2]).overlap("cpu") is None
    assert "CPU time" not in facts(result([1], [2]))
    assert len(ab_report(result([1], [2])).tables) == 1
    assert "in 1 of 3 " in result([1, 2], [3, 4]).warnings[0]
    assert "in 1 of 10 " in result([1, 2, 3], [3, 4, 5]).warnings[0]
    assert "CPU times of b differ by 66.7%" in result([5, 6, 7, 8], [9, 9, 10, 15]).warnings[0]
    assert "copies" in result([7, 7, 7, 7], [1, 2, 3, 4]).warnings[0]


def test_few_captures_take_the_weight_out_of_the_sentence_itself() -> None:
    verdict = facts(result([30, 31], [20, 21]))["CPU time"]
    assert verdict.startswith(
        "the ranges lie apart in these 2 captures a side, as by chance alone in 1 of 3 "
        "comparisons: each of b took less"
    )
    same = facts(result([30, 31, 32], [20, 21, 22], same=True))["CPU time"]
    assert "by chance alone in 1 of 10 comparisons; it is one and the same command" in same
    assert "chance" not in facts(result([30, 31, 32, 33], [20, 21, 22, 23]))["CPU time"]


# Equal conditions -------------------------------------------------------------------------

RECORD: dict[str, Any] = {
    "version": 1,
    "kind": "session",
    "argv": ["x.py"],
    "versions": {"python": "3.12.3", "torch": "2.13.0", "cuda": "13.0", "triton": None},
    "machine": {
        "cpu": {"name": "Xeon", "cores": 16},
        "gpus": [{"name": "H100", "memory": 1}],
        "driver": "580.1",
    },
    "rank": None,
    "world_size": None,
    "settings": {"stack": "python", "warmup": 3, "steps": 5, "shapes": True, "device": "cuda"},
    "steps": {"free": [1], "window": [1, 2, 3, 4, 5]},
    "shapes": [{"module": "Net", "inputs": ["float32[2, 3]"], "calls": 5}],
    "workload": {"variant": "einops"},
    "notes": [],
}


def recorded(*records: dict[str, Any]) -> tuple[str, ...]:
    """What is warned of where captures a-0, b-0, a-1, b-1 … have these records."""
    samples = [
        replace(
            sample(f"{'ab'[turn % 2]}-{turn // 2}", 100 + turn),
            conditions=conditions(record),
            notes=notes(record),
            has_record=bool(record),
        )
        for turn, record in enumerate(records)
    ]
    found = AbResult("dir", {"a": "x", "b": "y"}, False, (), tuple(samples))
    return tuple(text for text in found.warnings if "--repeat" not in text)


def test_equal_conditions_are_no_news_whatever_was_run() -> None:
    other = RECORD | {
        "argv": ["y.py"],
        "time": "later",
        "workload": {"variant": "flatten"},
        "shapes": [{"module": "OtherNet", "inputs": ["float32[2, 3]"], "calls": 5}],
    }
    assert recorded(RECORD, other) == ()


@pytest.mark.parametrize(
    ("part", "values", "told"),
    [
        ("machine", {"gpus": [{"name": "A100"}] * 2}, "GPU: H100 (a), 2 × A100 (b)"),
        ("machine", {"gpus": []}, "GPU: H100 (a), none (b)"),
        ("machine", {"driver": "590"}, "driver: 580.1 (a), 590 (b)"),
        ("machine", {"cpu": {"name": "Xeon", "cores": 2}}, "CPU: Xeon, 16 cores (a), Xeon, 2 c"),
        ("versions", {"torch": "2.12.0"}, "torch: 2.13.0 (a), 2.12.0 (b)"),
        ("versions", {"cuda": "12.9"}, "CUDA: 13.0 (a), 12.9 (b)"),
        ("versions", {"triton": "3.6.0"}, "Triton: none (a), 3.6.0 (b)"),
        ("settings", {"stack": "none"}, "stack: python (a), none (b)"),
        ("settings", {"warmup": 0}, "warm-up: 3 (a), 0 (b)"),
        ("settings", {"shapes": False}, "recording of shapes: yes (a), no (b)"),
        ("steps", {"window": [1, 2]}, "steps: 5 (a), 2 (b)"),
    ],
)
def test_unequal_conditions_are_warned_of_in_a_line(
    part: str, values: dict[str, Any], told: str
) -> None:
    (warning,) = recorded(RECORD, RECORD | {part: RECORD[part] | values})
    assert warning.startswith(f"The captures differ in {told}")


def test_other_inputs_and_ranks_are_warned_of() -> None:
    row = {"module": "Net", "inputs": ["float32[2, 4]"], "calls": 5}
    (warning,) = recorded(RECORD, RECORD | {"shapes": [row]})
    assert "shapes of inputs: 5 × (float32[2, 3]) (a), 5 × (float32[2, 4]) (b)." in warning
    (warning,) = recorded(RECORD, RECORD | {"rank": 0, "world_size": 8})
    assert "number of ranks: 1 (a), 8 (b)." in warning


def test_long_values_are_cut_to_where_they_part() -> None:
    rows = [{"inputs": [f"float32[{'1, ' * 200}{last}]"], "calls": 1} for last in "23"]
    (warning,) = recorded(*(RECORD | {"shapes": [row]} for row in rows))
    assert len(warning) < 200
    assert "1, 2]) (a), " in warning
    assert "1, 3]) (b)." in warning


def test_captures_of_one_side_are_compared_too() -> None:
    other = RECORD | {"settings": RECORD["settings"] | {"warmup": 9}}
    (warning,) = recorded(RECORD, RECORD, other, RECORD)
    assert warning == "The captures differ in warm-up: 3 (a-0, b), 9 (a-1)."


def test_what_only_some_captures_tell() -> None:
    (warning,) = recorded(RECORD, {})
    assert warning.startswith("No record of the conditions of b: ")
    assert recorded({}, {}) == ()
    assert recorded(RECORD, {"version": 1}) == ()


def test_notes_of_captures_are_shown_once() -> None:
    noted = RECORD | {"notes": ["the profiler\nlost \x1b[31mevents", 5, "x" * 9999]}
    first, second = recorded(RECORD, noted, RECORD, noted)
    assert first == "Noted in the record of b: the profiler lost \\x1b[31mevents"
    assert len(second) < 400
    many = RECORD | {"notes": [f"note {number}" for number in range(1000)]}
    assert "990 more notes" in recorded(RECORD, many)[-1]


RUBBISH: list[Any] = [None, 5, -1.5, True, "text", [], [None, [1]], {}, {"name": {}}, 10**5000]


@pytest.mark.parametrize("key", [*RECORD, "unknown"])
def test_a_record_may_hold_anything(key: str) -> None:
    for rubbish in RUBBISH:
        values = [rubbish, [rubbish], {"name": rubbish}]
        inner = RECORD.get(key)
        values += [dict.fromkeys(inner, rubbish)] if isinstance(inner, dict) else []
        values += [[{"inputs": rubbish, "calls": rubbish, "name": rubbish}]]
        for value in values:
            for warning in recorded(RECORD, RECORD | {key: value}):
                assert warning.isprintable()
                assert len(warning) < 500


def test_conditions_come_from_the_traces(desk: Path) -> None:
    (desk / "records.json").write_text(json.dumps(RECORD | {"notes": ["no kernel was recorded"]}))
    text = (
        "import json, sys; record = json.load(open('records.json'))\n"
        "if '/b-' in sys.argv[1]: record['machine']['gpus'][0]['name'] = 'A100'\n"
        "event = dict(ph='X', cat='cpu_op', pid=1, tid=1, ts=1, dur=1, name='x')\n"
        "json.dump(dict(schemaVersion=1, traceEvents=[event], traceq=record), "
        "open(sys.argv[1], 'w'))"
    )
    words = ("--a", code(text), "--b", code(text), "--repeat", "1", "--warm", "0", "--no-diff")
    done = run(*words, "-o", "dir", "--format", "json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert "The captures differ in GPU: H100 (a), A100 (b)." in data["warnings"]
    assert "Noted in the record of a, b: no kernel was recorded" in data["warnings"]
    assert data["runs"][1]["conditions"]["GPU"] == "A100"


def test_captures_of_a_side_with_other_work_are_warned_of() -> None:
    samples = (sample("a-0", 1), sample("b-0", 1), sample("a-1", 2, scopes=4), sample("b-1", 2))
    found = AbResult("dir", {"a": "x", "b": "y"}, False, ("GDN",), samples)
    assert any("captures of a differ in their scopes (3 to 4)" in text for text in found.warnings)


# The command line -------------------------------------------------------------------------


def test_from_commands_to_the_diff(desk: Path) -> None:
    done = run("--a", writer(30, 32, 31), "--b", writer(20, 22, 21), "--repeat", "3", "-o", "dir")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("traceq: run ") == 8
    assert "traceq: run 3 of 8: a-0, " in done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert lines[0] == "A B A B …: 3 captures a side, times of whole traces."
    assert "b-2  21.000      2  median  dir/b-2.json.gz" in lines
    assert "a     CPU   30.000     31.000  32.000       6.5%" in lines
    text = " ".join(lines)
    assert "chance" not in text  # the diff tests what ranges can but hint at
    assert "hold no record of traceq capture" in text
    starts = ("--before dir/a-", "--after dir/b-")
    files = [f"{start}{number}.json.gz" for start in starts for number in range(3)]
    assert f"traceq diff {' '.join(files)} --all" in text
    assert "before: 3 captures, dir/a-0.json.gz to a-2.json.gz: CPU 30.000 to 32.000 µs" in text
    assert "after: 3 captures, dir/b-0.json.gz to b-2.json.gz: CPU 20.000 to 22.000 µs" in text
    assert "samples: 3 captures before, 3 after; " in text
    assert "declared changed in at most 10% of comparisons of unchanged code" in text
    assert "CPU time: faster (−32.3%, 90% interval −37.5% to −26.7%)" in text
    assert "↓  outer      1     31.000    21.000  −10.000  1.48x  −32.3%" in lines


def test_on_a_terminal_a_line_tells_which_run_it_is(desk: Path) -> None:
    ours, theirs = pty.openpty()
    words = ("--a", writer(30), "--b", writer(20), "--repeat", "1", "--warm", "0", "--no-diff")
    with subprocess.Popen(
        [*AB, *words, "-o", "dir"],
        env=os.environ | {"COLUMNS": "80", "TERM": "xterm-256color"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as process:
        os.close(theirs)
        told = b"".join(iter(lambda: read_terminal(ours), b""))
        assert process.stdout is not None
        assert process.stdout.read().startswith("A B A B")
    os.close(ours)
    assert b"run 1 of 2: a-0" in told
    assert b"run 2 of 2: b-0" in told
    assert b"traceq: run" not in told


def read_terminal(handle: int) -> bytes:
    """What has been written; nothing once the other end is closed, which Linux calls an error."""
    try:
        return os.read(handle, 1 << 16)
    except OSError:
        return b""


def test_json_and_markdown(desk: Path) -> None:
    same = writer(30, 32, 31)
    words = ("--warm", "0", "--repeat", "2", "--under", "outer", "--a", same, "--b", same)
    done = run(*words, "-o", "one", "--format", "json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert (data["schema"], data["kind"]) == (2, "ab")
    assert (data["diff"]["schema"], data["diff"]["kind"]) == (2, "diff")
    assert (data["same_command"], data["overlap"]) == (True, {"cpu": True})
    assert data["ranges"]["a"]["cpu"] == {"min": 30_000, "median": 30_000, "max": 32_000}
    assert [row["run"] for row in data["runs"]] == ["a-0", "b-0", "a-1", "b-1"]
    assert data["runs"][0]["scopes"] == 1
    assert data["median"] == {"a": "a-0", "b": "b-0"}
    for side, letter in (("before", "a"), ("after", "b")):
        captures = [item["path"] for item in data["diff"][side]["captures"]]
        assert captures == [f"one/{letter}-{number}.json.gz" for number in range(2)]
    assert data["diff"]["scopes"]["cpu"]["verdict"] == "can't tell"
    assert {row["status"] for row in data["diff"]["rows"]} == {"same"}
    done = run(*words, "-o", "two", "--format", "markdown", "--no-diff")
    assert "| b\\-1 | 32.000 | 1 | 1 |" in done.stdout
    assert "Under outer" not in done.stdout


def test_what_cannot_be_read_is_said_and_the_captures_stay(desk: Path) -> None:
    done = run(
        *("--a", writer(30), "--b", writer(20), "--repeat", "1", "--warm", "0"),
        *("--under", "GatedDeltaNet", "-o", "dir"),
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "dir/a-0.json.gz" in done.stderr
    assert "The captures are kept" in done.stderr
    assert manifest(desk / "dir")["state"] == "done"


def test_errors_are_short(desk: Path) -> None:
    done = run("--a", "nothing-here {out}", "--b", writer(20), "-o", "dir")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("traceq: --a: nothing-here: command not found\n")
    assert len(done.stderr.splitlines()) == 2
    done = run("--a", writer(20), "--b", writer(20), "--map", "nonsense", "-o", "dir")
    assert "is not a mapping" in done.stderr
    assert not (desk / "dir").exists()


def test_the_sample_traces(desk: Path) -> None:
    """Real GPU captures, under a scope, with a replaced pair."""
    samples = ROOT / "sample_traces"
    copy = f"{PYTHON} -c 'import shutil, sys; shutil.copyfile(*sys.argv[1:])'"
    done = run(
        *("--a", f"{copy} {samples}/einops-0.json.gz {{out}}", "--repeat", "1", "--warm", "0"),
        *("--b", f"{copy} {samples}/flatten-0.json.gz {{out}}", "--under", "GatedDeltaNet"),
        *("--map", "rearrange=>built-in method flatten", "-o", "dir"),
    )
    assert done.returncode == 0, done.stderr
    line = "a-0  70,424.997  3,453.340      15  12,471  median  dir/a-0.json.gz"
    assert line in done.stdout.splitlines()
    assert "−787.710  5.82x" in done.stdout
    assert "One capture a side" in done.stdout


PROGRAM = """\
import sys
import torch

def step(x):
    return (x @ x).relu() if sys.argv[1] == "relu" else x @ x

for _ in range(8):
    step(torch.ones(16, 16))
"""


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None
    or importlib.util.find_spec("traceq.cli.capture.run") is None,
    reason="needs torch, and traceq capture run",
)
def test_a_program_under_the_profiler(desk: Path) -> None:
    (desk / "prog.py").write_text(PROGRAM)
    done = run(
        *("--a", "python prog.py relu", "--b", "prog.py plain", "--repeat", "1", "--warm", "0"),
        *("--from", "__main__:step", "--steps", "3", "--warmup", "2", "--stack", "none"),
        *("-o", "dir", "--format", "json"),
    )
    assert done.returncode == 0, done.stderr
    rows = {row["op"]: row for row in json.loads(done.stdout)["diff"]["rows"]}
    assert rows["aten::matmul"]["calls_before"] == rows["aten::matmul"]["calls_after"] == 3
    assert (rows["aten::relu"]["status"], rows["aten::relu"]["calls_before"]) == ("removed", 3)
