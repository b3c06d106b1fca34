"""Many traces, whoever reads them: the same results, and a bad one costs none of the others."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

import traceq
from tests.rank_files import write_ranks
from traceq.cache import Cache
from traceq.cli import group
from traceq.cli.early import start_readers
from traceq.errors import EngineError, PatternError, TraceqError, TraceReadError, UsageError
from traceq.many import Done, Workers, local, on_ray, run_each
from traceq.many.local import FEW, WORTHWHILE
from traceq.progress import Progress

FOLDER = Path(__file__).parent
SAMPLES = FOLDER.parent / "sample_traces"
RANK = FOLDER / "data" / "ranks-h200" / "after-rank0.json.gz"
SIDES = ("--before", str(SAMPLES / "einops-*.gz"), "--after", str(SAMPLES / "flatten-*.gz"))

pytestmark = pytest.mark.usefixtures("cache")


def run(*words: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(group, [*map(str, words)], input=stdin)


# The tasks ----------------------------------------------------------------------------------


class Unreadable:
    """What cannot be put together again where it arrives."""

    def __reduce__(self) -> tuple[object, ...]:
        return _fail, ()


def _fail() -> None:
    raise MemoryError


@dataclass(frozen=True)
class Task:
    """Gives a path's length; paths that begin with a word of its own do something else."""

    folder: Path
    home: int = field(default_factory=os.getpid)

    def __call__(self, path: str, progress: Progress | None = None) -> int:
        if path.startswith("die"):
            self.die()
        if path.startswith("once"):
            self.die_once(path)
        if path.startswith("bad"):
            raise TraceReadError(f"{path}: no trace", hint="Look at it.")
        if path.startswith("large"):
            raise MemoryError
        if path.startswith("unreadable"):
            return Unreadable()  # type: ignore[return-value]
        if path.startswith("lambda"):
            return lambda: None  # type: ignore[return-value]
        if path.startswith("defect"):
            raise KeyError(path)
        if path.startswith("slow"):
            time.sleep(0.3)
        return len(path)

    def die_once(self, path: str) -> None:
        mark = self.folder / path
        if not mark.exists():
            mark.touch()
            self.die()

    def die(self) -> None:
        assert os.getpid() != self.home, "what may die is read in the process of the tests"
        os.kill(os.getpid(), signal.SIGKILL)


EVERYWHERE = pytest.mark.parametrize("workers", [Workers(jobs=3), Workers(on="ray")], ids=str)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of this machine, as long as these tests need it."""
    ray = pytest.importorskip("ray")
    folders = os.pathsep.join(filter(None, sys.path))
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100_000_000,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": folders}},
    )
    yield
    ray.shutdown()


def results(paths: list[str], workers: Workers, folder: Path) -> list[Done[int]]:
    return [*run_each(Task(folder), paths, workers)]


@EVERYWHERE
@pytest.mark.usefixtures("cluster")
def test_results_come_in_the_order_of_the_paths(workers: Workers, tmp_path: Path) -> None:
    paths = ["slow", *(f"{'x' * number}" for number in range(1, 40)), "slow"]
    found = results(paths, workers, tmp_path)
    assert [(done.path, done.result) for done in found] == [(path, len(path)) for path in paths]


@EVERYWHERE
@pytest.mark.usefixtures("cluster")
def test_what_fails_costs_only_itself(workers: Workers, tmp_path: Path) -> None:
    paths = ["a", "bad", "die", "b", "once", "large", *"cdefghi"]
    found = {done.path: done for done in results(paths, workers, tmp_path)}
    assert [*found] == paths
    errors = {path: done.error for path, done in found.items() if done.error}
    assert errors.keys() == {"bad", "die", "large"}
    assert all(isinstance(error, TraceReadError) and error.hint for error in errors.values())
    assert str(errors["bad"]) == "bad: no trace\nLook at it."
    assert found["once"].result == 4
    assert "die: " in str(errors["die"])


@EVERYWHERE
@pytest.mark.usefixtures("cluster")
def test_a_defect_is_raised_with_where_it_is(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="KeyError: 'defect'"):
        results(["defect", *"abcdefghi"], workers, tmp_path)


def test_an_answer_that_cannot_be_sent_or_read(tmp_path: Path) -> None:
    found = results(["unreadable", *"abcdefgh"], Workers(jobs=2), tmp_path)
    assert "does not fit into memory" in str(found[0].error)
    assert [done.result for done in found[1:]] == [1] * 8
    with pytest.raises(RuntimeError, match="lambda"):
        results(["lambda", *"abcdefgh"], Workers(jobs=2), tmp_path)


def test_what_has_killed_a_child_is_not_read_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start, started = local._start_child, []

    def start_once(*words: object) -> subprocess.Popen[bytes]:
        if started:
            raise OSError("no memory for a process")
        started.append(1)
        return start(*words)

    monkeypatch.setattr(local, "_start_child", start_once)
    paths = ["die", *"abcdefgh"]
    done = [*local.run_here(Task(tmp_path), paths, Workers(jobs=2), None)]
    assert [item.result for item in done] == [None, *[1] * 8]
    assert "was killed" in str(done[0].error)


def test_processes_share_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEQ_MEMORY", "8GB")
    paths = [f"{number}.json" for number in range(20)]
    for given, share in (
        (paths, local._Share(4, 2 * 10**9)),
        (paths[:5], local._Share(3, 2 * 10**9)),
        (paths[:1], local._Share(0, 8 * 10**9)),
    ):
        assert local._Share.of(given, Workers(jobs=4)) == share
    monkeypatch.setattr(local, "_cores", lambda: 64)
    monkeypatch.setattr(local, "file_bytes", lambda path: 10**9)
    assert local._Share.of(paths, Workers()).children == 3  # 2 GB each, and a byte


def test_of_few_this_process_does_some(tmp_path: Path) -> None:
    assert len(results([*"abc"], Workers(jobs=2), tmp_path)) == 3
    assert [done.result for done in results(["bad", "a"], Workers(jobs=1), tmp_path)] == [None, 1]


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_cores", lambda: 2)


@pytest.mark.usefixtures("two_cores")
def test_processes_are_started_early_and_taken(tmp_path: Path) -> None:
    module, mark = tmp_path / "slow_import.py", tmp_path / "imported"
    module.write_text(f"import os; open({str(mark)!r}, 'a').write(f'{{os.getpid()}} ')")
    traces = [tmp_path / f"{name}.json.gz" for name in "ab"]
    for path in traces:
        path.write_bytes(bytes(WORTHWHILE))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        local.start_early([*map(str, traces)], "slow_import")
    (child,) = local._early
    results(["once", *"abcdefghij"], Workers(jobs=2), tmp_path)
    assert mark.read_text() == f"{child.pid} "  # one is started early; what dies is replaced
    assert local._early == []


@pytest.mark.usefixtures("two_cores")
def test_processes_that_nobody_takes_are_ended(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.json").write_bytes(bytes(WORTHWHILE))
    started, start = [], local._start_child
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            local, "_start_child", lambda *words: started.append(start(*words)) or started[-1]
        )
        said = run("ops", f"{tmp_path}/?.json", "--format", "none")  # refused before it reads
    assert said.exit_code != 0
    assert [child.returncode for child in started] == [-signal.SIGKILL]
    assert local._early == []


@pytest.mark.parametrize("words", [["-j1"], ["--jobs", "2"], ["--on", "ray"]])
def test_none_is_started_early_where_it_is_said_how(words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_start_child", lambda *_: pytest.fail("a process was started"))
        start_readers("ops", [str(SAMPLES / "*.gz"), *words])


def test_where_no_process_can_be_started_all_is_read_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr("subprocess.Popen", refuse)
    paths = ["x" * number for number in range(1, 2 * FEW)]
    found = results(paths, Workers(jobs=4), tmp_path)
    assert [done.result for done in found] == [len(path) for path in paths]


def test_where_a_process_cannot_even_start_all_is_read_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert [done.result for done in results([*"ab" * FEW], Workers(jobs=2), tmp_path)] == [1] * 16


def test_leaving_early_ends_the_processes(tmp_path: Path) -> None:
    found = run_each(Task(tmp_path), ["x", *["slow"] * 100], Workers(jobs=2))
    assert next(found).result == 1
    started = time.monotonic()
    found.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 10


def test_places_that_are_none() -> None:
    with pytest.raises(UsageError, match="spark"):
        Workers(on="spark")
    with pytest.raises(UsageError, match="--jobs"):
        Workers(jobs=2, on="ray")


def test_without_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match="not installed") as caught:
        results(["a"], Workers(on="ray"), tmp_path)
    assert "traceq[ray]" in (caught.value.hint or "")


def test_errors_go_between_processes() -> None:
    import pickle

    for kind in (TraceqError, PatternError, EngineError):
        again = pickle.loads(pickle.dumps(kind("what", hint="how")))
        assert (type(again), again.message, again.hint) == (kind, "what", "how")


# The commands -------------------------------------------------------------------------------

PLACES = pytest.mark.parametrize("more", [["-j", "3"], ["--on", "ray"]], ids=" ".join)


@PLACES
@pytest.mark.parametrize(
    "words",
    [
        ["ops", str(SAMPLES / "*.json.gz"), "--under", "GatedDeltaNet", "--format", "json"],
        ["ops", str(SAMPLES / "*.json.gz"), "--by", "trace", "--format", "csv"],
        ["diff", *SIDES, "--under", "GatedDeltaNet", "--map", "rearrange=>flatten"],
    ],
    ids=["ops", "ops-by-trace", "diff"],
)
@pytest.mark.usefixtures("cluster")
def test_results_are_the_same_to_the_byte(words: list[str], more: list[str]) -> None:
    alone = run(*words, "-j", "1", "--no-cache")
    assert alone.exit_code == 0, alone.output
    assert run(*words, *more).stdout == alone.stdout


def test_what_other_processes_tell_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(path) for path in write_ranks(RANK, tmp_path, FEW + 1)]
    monkeypatch.setenv("TRACEQ_MEMORY", "1MB")  # of three processes, each with less than a trace
    done = run("ops", *paths, "--no-cache", "--steps", "1", "-j", "3")
    assert done.exit_code == 0, done.output
    told = [line for line in done.stderr.splitlines() if "larger than the memory" in line]
    assert [line.split()[1] for line in told] == paths


def test_ranks_of_which_only_a_part_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["ops", f"{RANK.parent}/before-*.gz", "--by", "rank", "--steps", "1", "-j", "1"]
    words += ["--no-cache", "--under", "Block", "--format", "json"]
    whole = run(*words)
    monkeypatch.setenv("TRACEQ_MEMORY", "450kB")
    part = run(*words)
    assert "larger than the memory" in part.stderr
    assert part.stdout == whole.stdout


@pytest.mark.parametrize("word", ["--match=aten", "--sort=calls"])
def test_options_that_ranks_do_not_have(word: str) -> None:
    done = run("ops", f"{RANK.parent}/before-*.gz", "--by", "rank", word)
    assert isinstance(done.exception, UsageError)


def test_rows_of_each_trace_are_sorted_and_cut() -> None:
    paths = [str(SAMPLES / f"einops-{number}.json.gz") for number in range(2)]
    words = ["--sort", "calls", "--limit", "3", "--format", "json"]
    rows = json.loads(run("ops", *paths, "--by", "trace", *words).stdout)["rows"]
    alone = [json.loads(run("ops", path, *words).stdout)["rows"] for path in paths]
    assert rows == [
        {"path": p, **row} for p, of_one in zip(paths, alone, strict=True) for row in of_one
    ]


@pytest.mark.parametrize("again", ["{}", "./{}", "link"])
def test_a_file_that_is_named_twice(
    again: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(RANK, tmp_path / "a.gz")
    (tmp_path / "link").symlink_to("a.gz")
    monkeypatch.chdir(tmp_path)
    done = run("ops", "a.gz", again.format("a.gz"))
    assert isinstance(done.exception, UsageError)
    assert "added twice" in str(done.exception)


def test_what_a_shell_hands_over_is_read_here(tmp_path: Path) -> None:
    first, *others = map(str, write_ranks(RANK, tmp_path, FEW + 1))
    tables = []
    for name in (first, "/dev/stdin", "-", f"<(cat {first})"):
        words = f"{sys.executable} -m traceq ops -j 2 --format csv --no-cache {name}"
        with open(first, "rb") as given:
            done = subprocess.run(
                ["bash", "-c", f"{words} {' '.join(others)}"],
                stdin=given,
                capture_output=True,
                check=True,
                timeout=60,
            )
        tables.append(pd.read_csv(io.BytesIO(done.stdout)).drop(columns="most_path"))
    assert len(tables[0]) > 100
    assert all(table.equals(tables[0]) for table in tables)


def test_an_address_that_is_none() -> None:
    for on in ("ray://", "ray://host", "ray://:1", "cluster"):
        with pytest.raises(UsageError):
            Workers(on=on)
    assert Workers(on="ray://[::1]:10001").on


@pytest.mark.parametrize(("more", "code"), [("", "0"), ("none.json", "2")])
def test_the_exit_code_where_the_reader_has_gone(more: str, code: str) -> None:
    words = f"{sys.executable} -m traceq ops {RANK} {more} --no-cache"
    command = f"{words} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == code


def test_one_path_is_one_trace() -> None:
    path = SAMPLES / "einops-0.json.gz"
    assert traceq.sum_ops(path).equals(traceq.sum_ops([path]))
    assert traceq.sum_ops(str(path)).equals(traceq.sum_ops([path]))


@pytest.mark.usefixtures("cluster")
def test_a_machine_that_does_not_know_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "known_here.py").write_text("def task(path, progress=None):\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import known_here

    with pytest.raises(EngineError, match="No module named 'known_here'") as error:
        list(run_each(known_here.task, ["a"], Workers(on="ray")))
    assert "Install the same traceq" in str(error.value.hint)


def test_a_folder_that_a_machine_does_not_have(tmp_path: Path) -> None:
    task = Task(tmp_path)
    assert on_ray._in_folder(task, "/abc", "/not there").result == 4
    assert "has no folder" in str(on_ray._in_folder(task, "abc", "/not there").error)


def test_an_error_of_the_task_is_not_one_of_the_folder(tmp_path: Path) -> None:
    def fail(path: str, progress: Progress | None = None) -> int:
        raise OSError(os.getcwd())

    with pytest.raises(OSError, match=tmp_path.name):
        on_ray._in_folder(fail, "abc", str(tmp_path))


@PLACES
@pytest.mark.usefixtures("cluster")
def test_what_is_recorded_is_the_same(more: list[str], tmp_path: Path) -> None:
    import duckdb

    kept = []
    for number, words in enumerate((["-j", "1"], more)):
        db = tmp_path / f"{number}.duckdb"
        done = run("record", str(SAMPLES / "einops-*.gz"), "--db", str(db), *words)
        assert done.exit_code == 0, done.output
        with duckdb.connect(str(db)) as opened:
            kept.append(opened.sql("SELECT path, packed FROM captures ORDER BY place").fetchall())
    assert kept[0] == kept[1]
    assert len(kept[0]) == 3


def test_sums_are_those_of_the_traces() -> None:
    paths = sorted(SAMPLES.glob("*.json.gz"))
    table = traceq.sum_ops(paths, "GatedDeltaNet").set_index("op")
    calls, totals = {}, {}
    for path in paths:
        with traceq.open(path) as trace:
            for row in trace.ops("GatedDeltaNet").itertuples():
                calls[row.op] = calls.get(row.op, 0) + row.calls
                totals.setdefault(row.op, []).append((row.total, str(path)))
    assert table["calls"].to_dict() == calls
    assert table["traces"].to_dict() == {op: len(of_op) for op, of_op in totals.items()}
    for op, of_op in totals.items():
        row, times = table.loc[op], [time for time, _ in of_op]
        assert (row["total"], row["total_least"], row["total_most"]) == (
            *(sum(times), min(times)),
            max(times),
        )
        assert (row["total_most"], row["most_path"]) in of_op or not row["calls"]
    assert table.attrs["left_out"] == []


@pytest.fixture
def with_broken(tmp_path: Path) -> list[Path]:
    """Six rank files, of which the third is cut off in the middle and the fifth is none."""
    paths = write_ranks(RANK, tmp_path / "ranks", 6)
    paths[2].write_bytes(b"no trace")
    paths[4].unlink()
    return paths


@pytest.mark.parametrize("more", [["-j", "1"], ["-j", "3"]], ids=" ".join)
def test_ops_of_what_can_be_read(with_broken: list[Path], more: list[str]) -> None:
    done = run("ops", *map(str, with_broken), "--format", "json", *more)
    assert done.exit_code == 2
    found = json.loads(done.stdout)
    assert [item["path"] for item in found["left_out"]] == [*map(str, with_broken[2::2])]
    assert len(found["traces"]) == 4
    assert found["rows"][0]["traces"] == 4
    assert [line.split(": ")[:3] for line in done.stderr.splitlines()] == [
        ["traceq", "left out", str(with_broken[2])],
        ["traceq", "left out", str(with_broken[4])],
    ]
    shown = run("ops", *map(str, with_broken), *more)
    assert "in 4 whole traces" in shown.stdout
    assert "left out" in shown.stdout


def test_a_diff_of_what_can_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "einops-broken.json"
    broken.write_text("no trace")
    sides = (*SIDES[:2], "--before", str(broken), *SIDES[2:])
    whole, lacking = (
        run("diff", *words, "--under", "GatedDeltaNet", "--format", "json")
        for words in (SIDES, sides)
    )
    assert (whole.exit_code, lacking.exit_code) == (0, 2)
    one, other = json.loads(whole.stdout), json.loads(lacking.stdout)
    assert "einops-broken.json: not a JSON trace" in other["warnings"][0]
    other["warnings"] = other["warnings"][1:]
    assert one == other
    markdown = run("diff", *sides, "--under", "GatedDeltaNet", "--format", "markdown")
    assert "left out" in markdown.stdout
    assert "broken.json" in markdown.stdout


def test_a_side_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    done = run("diff", str(tmp_path / "none.json"), str(SAMPLES / "einops-0.json.gz"))
    assert isinstance(done.exception, TraceReadError)
    assert done.stdout == ""


def test_recording_what_can_be_read(with_broken: list[Path], tmp_path: Path) -> None:
    db = str(tmp_path / "x.duckdb")
    samples = [*map(str, sorted(SAMPLES.glob("einops-*.gz")))]
    done = run("record", *samples, str(with_broken[2]), "--db", db)
    assert done.exit_code == 2
    assert "3 captures recorded" in done.stderr
    assert "left out" in done.stderr
    again = run("record", *samples, "--db", db)
    assert again.exit_code == 0


def test_standard_input_is_one_of_several() -> None:
    words = ("ops", str(SAMPLES / "einops-1.json.gz"), "-", "-j", "2", "--format", "json")
    content = (SAMPLES / "einops-0.json.gz").read_bytes()
    found = json.loads(run(*words, stdin=content).stdout)
    assert [item["path"] for item in found["traces"]] == [words[1], "-"]


def test_a_pattern_that_matches_nowhere_is_an_error() -> None:
    done = run("ops", str(SAMPLES / "*.json.gz"), "--under", "NoSuchLayer")
    assert isinstance(done.exception, PatternError)


def test_rows_of_each_trace_are_data() -> None:
    done = run("ops", str(SAMPLES / "*.json.gz"), "--by", "trace")
    assert isinstance(done.exception, UsageError)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_ends_all(tmp_path: Path) -> None:
    paths = write_ranks(RANK, tmp_path, 300)
    command = [sys.executable, "-m", "traceq", "ops", *map(str, paths), "-j", "2", "--no-cache"]
    with subprocess.Popen(
        command, cwd=FOLDER.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == b""


def test_a_thousand_ranks(tmp_path: Path, cache: Cache) -> None:
    paths = write_ranks(RANK, tmp_path, 1000)
    paths[500].write_bytes(b"no trace")
    table = traceq.sum_ops(paths, jobs=2)
    [(path, reason)] = table.attrs["left_out"]
    assert path == str(paths[500])
    assert reason
    with traceq.open(paths[0]) as trace:
        one = trace.ops().set_index("op")["calls"]
    assert (table.set_index("op")["calls"] == one * 999).all()
