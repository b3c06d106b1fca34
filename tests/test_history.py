"""The history: captures packed whole; runs that are there once or not at all; trends."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import pytest
import zstandard
from click.testing import CliRunner, Result

import traceq
from tests.conftest import CORPUS, NO_CORPUS, ROOT
from traceq.cli import group
from traceq.compare import compare
from traceq.errors import HistoryError, PatternError, TraceqError, UsageError
from traceq.history import pack as packing
from traceq.history import store
from traceq.history.labels import known_labels, parse_labels
from traceq.history.pack import pack, unpack
from traceq.history.refs import runs_meant, runs_named
from traceq.history.run import Run
from traceq.history.schema import workload_of
from traceq.history.series import follow
from traceq.history.store import History
from traceq.history.trend import find_changes
from traceq.library import history_migrations
from traceq.outline import rebuild
from traceq.reading import Question, Reading, read
from traceq.report.history import history_report, sparkline

SAMPLES = ROOT / "sample_traces"
UNDER = Question(under=("GatedDeltaNet",))
FORK = multiprocessing.get_context("fork")  # a writer starts at once, with all that is imported


def readings(kind: str, count: int = 3, question: Question = UNDER) -> list[Reading]:
    found = []
    for number in range(count):
        with traceq.open(SAMPLES / f"{kind}-{number}.json.gz") as trace:
            found.append(read(trace, question))
    return found


@pytest.fixture(scope="module")
def sides() -> tuple[list[Reading], list[Reading]]:
    return readings("einops"), readings("flatten")


def varied(capture: Reading, seed: int, factor: float = 1.0) -> Reading:
    """Another capture of the same code: each call takes a little longer or shorter."""
    random_ = np.random.default_rng(seed)
    outline, ops = capture.outline, capture.ops.copy()
    noise = np.exp(random_.normal(0, NOISE, len(ops))) * factor
    ops["total"] = (ops["total"] * noise).astype("int64")
    dur = np.maximum(outline.dur + random_.integers(0, 50, len(outline)), 1)
    told = {"time": 1_700_000_000.0 + 3600 * seed, "fingerprint": f"{seed:032x}"}
    facts = dataclasses.replace(capture.facts, **told)
    changed = dataclasses.replace(outline, dur=dur)
    return dataclasses.replace(
        capture, outline=changed, ops=ops, sha256=f"{seed:064x}", facts=facts
    )


KILLS = int(os.environ.get("TRACEQ_KILLS", "20"))
"""Fifty were run; each takes a third of a second."""

NOISE = 0.02
"""How far ops of captures of the same code lie apart on a quiet machine, as a log."""


# Packed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("under", [("GatedDeltaNet",), ()])
def test_what_was_packed_compares_as_the_traces_do(under: tuple[str, ...]) -> None:
    question, again = Question(under=under), Question(under=under)
    one, other = (readings(kind, 1, question) for kind in ("einops", "flatten"))
    back = [[unpack(pack(item), again.words) for item in side] for side in (one, other)]
    plain = compare(one, other, question)
    packed = compare(back[0], back[1], again)
    assert json.dumps(packed.to_dict()) == json.dumps(plain.to_dict())
    if under:
        assert packed.to_page() == plain.to_page()
        assert packed.to_markdown() == plain.to_markdown()


def test_it_takes_about_two_bytes_a_call(sides: tuple[list[Reading], list[Reading]]) -> None:
    capture = sides[0][0]
    count = len(capture.outline) + len(capture.work.dur)
    assert len(pack(capture)) < 8 * count  # names and tables are most of a small one


@pytest.mark.corpus
@pytest.mark.skipif(NO_CORPUS is not None, reason=str(NO_CORPUS))
def test_the_large_trace_is_less_than_a_megabyte(tmp_path: Path) -> None:
    with traceq.open(CORPUS / "gdn-h200-large" / "einops.json.gz") as trace:
        capture = read(trace, UNDER)
    assert len(pack(capture)) < 2 * len(capture.outline)
    history = History(tmp_path / "large.duckdb")
    history.record([capture], UNDER, {})
    assert history.path.stat().st_size <= 1 << 20


@pytest.mark.parametrize("column", ["parent", "around", "op", "step", "node", "short", "dur"])
def test_columns_that_do_not_fit_are_told(
    sides: tuple[list[Reading], list[Reading]], column: str
) -> None:
    plain = msgspec.msgpack.decode(zstandard.decompress(pack(sides[0][0])))
    found = plain["columns"][column]
    count = len(found["data"]) // found["width"]
    if column == "dur":
        plain["columns"][column] = {"width": found["width"], "data": b"\1" * found["width"]}
    else:
        numbers = np.full(count, 10**6, "<i8").tobytes()
        places = np.frombuffer(numbers, np.uint8).reshape(-1, 8).T.tobytes()
        plain["columns"][column] = {"width": 8, "data": places}
    with pytest.raises(HistoryError, match="cannot be read"):
        unpack(zstandard.compress(msgspec.msgpack.encode(plain)), Question().words)


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MOST", 1000)
    monkeypatch.setattr(packing, "MOST_TIMES", 1)
    with pytest.raises(HistoryError, match="far more memory"):
        unpack(zstandard.compress(bytes(2000)), Question().words)


@pytest.mark.parametrize("change", ["cut", "flip", "later", "nothing"])
def test_damage_is_told(sides: tuple[list[Reading], list[Reading]], change: str) -> None:
    data = bytearray(pack(sides[0][0]))
    if change == "cut":
        data = data[: len(data) // 2]
    elif change == "flip":
        data[40:60] = bytes(20)
    elif change == "nothing":
        data = bytearray()
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packing, "VERSION", packing.VERSION + 1)
            data = bytearray(pack(sides[0][0]))
    with pytest.raises(HistoryError) as caught:
        unpack(bytes(data), Question().words)
    assert caught.value.hint


def test_what_is_no_tree_is_no_outline() -> None:
    numbers = np.array([1, 0])
    with pytest.raises(ValueError, match="no trees"):
        rebuild(
            slice_=numbers,
            parent=numbers,
            around=numbers,
            op=numbers,
            dur=numbers,
            on_lane=np.ones(2, np.bool_),
            name=(),
            step=np.zeros(0, np.int64),
        )


# The store ------------------------------------------------------------------------------------


def test_a_run_is_recorded_once(sides: tuple[list[Reading], list[Reading]], tmp_path: Path) -> None:
    history = History(tmp_path / "h.duckdb")
    first = history.record(sides[0], UNDER, {"commit": "aaaa1111", "branch": "main"})
    assert (first.new, first.known) == (3, 0)
    told = {"branch": "other", "commit": "of a job", "os": "Linux"}  # what it has stays
    again = history.record(sides[0], UNDER, {"note": "again", "branch": "main"}, told)
    assert (again.run, again.new, again.known) == (first.run, 0, 3)
    (run,) = history.runs()
    assert run.labels == {"commit": "aaaa1111", "branch": "main", "note": "again"} == again.labels
    with pytest.raises(HistoryError, match=f"in run {run.run} with branch=main") as caught:
        history.record(sides[0], UNDER, {"branch": "other", "more": "yes"})
    assert f"'traceq forget {run.run}'" in str(caught.value.hint)
    assert history.runs() == [run]
    assert (run.captures, run.unders) == (3, (("GatedDeltaNet",),))
    loaded = history.load([run], Question(under=("GatedDeltaNet",)))
    assert [item.totals for item in loaded] == [item.totals for item in sides[0]]
    assert history.load([run], Question()) == []
    with pytest.raises(UsageError, match="no capture to record"):
        history.record([], UNDER, {})
    with duckdb.connect(str(history.path)) as db:  # two captures change places
        db.execute("UPDATE captures SET path = path || '.other'")
    with pytest.raises(HistoryError, match="is another capture"):
        history.load([run], Question(under=("GatedDeltaNet",)))


def test_captures_that_are_known_in_part_are_refused(
    sides: tuple[list[Reading], list[Reading]], tmp_path: Path
) -> None:
    """By what is in them: another file of the same capture is known as well."""
    history = History(tmp_path / "h.duckdb")
    first = history.record(sides[0][:2], UNDER, {})
    packed = dataclasses.replace(sides[0][0], path="packed.json.zst", sha256="f" * 64)
    again = history.record([packed], UNDER, {})
    assert (again.run, again.known) == (first.run, 1)
    with pytest.raises(HistoryError, match=f"1 of these 2 .*: packed.json.zst in run {first.run}"):
        history.record([packed, sides[0][2]], UNDER, {})
    second = history.record(sides[0][2:], UNDER, {})
    with pytest.raises(HistoryError, match=f"3 of these 3 .* in run {second.run}"):
        history.record(sides[0], UNDER, {})
    with pytest.raises(UsageError, match=r"packed.json.zst are the same capture"):
        history.record([sides[0][0], packed], UNDER, {})
    assert [run.captures for run in history.runs()] == [2, 1]


def test_captures_of_one_run_are_of_the_same_work(
    sides: tuple[list[Reading], list[Reading]], tmp_path: Path
) -> None:
    history = History(tmp_path / "h.duckdb")
    one, other = sides[0][:2]
    for changes, message in (
        ({"rank": 1}, "These captures are of ranks 0, 1: ranks of one run are no samples"),
        ({"sizes": {"batch size": "20"}}, "differ in batch size: 10 .*, 20"),
        ({"models": {"nn.Module: Other": 3}}, "instances of Qwen3_5GatedDeltaNet: 3"),
    ):
        first = dataclasses.replace(one, facts=dataclasses.replace(one.facts, rank=0))
        second = dataclasses.replace(other, facts=dataclasses.replace(other.facts, **changes))
        with pytest.raises(UsageError, match=f"not of one run: .*{message}") as caught:
            history.record([first, second], UNDER, {})
        assert "--force" in str(caught.value.hint)
    assert not history.path.exists()
    told = history.record([first, second], UNDER, {}, force=True)
    assert any("instances of Other" in text for text in told.warnings)
    unlike = dataclasses.replace(sides[1][1].facts, conditions={"GPU": "L40"}, has_record=False)
    apart = [sides[1][0], dataclasses.replace(sides[1][1], facts=unlike)]
    told = history.record(apart, UNDER, {})
    assert told.warnings[0].startswith("The captures differ in GPU: ")
    assert f"No record of the conditions of {apart[1].path}: " in told.warnings[1]
    mixed = history.record([sides[0][2], sides[1][2]], UNDER, {})
    assert mixed.warnings[-1].startswith("Are they of the same code? Only some have ")


def test_samples_by_step_add_up(sides: tuple[list[Reading], list[Reading]], tmp_path: Path) -> None:
    history = History(tmp_path / "h.duckdb")
    history.record(sides[0], UNDER, {})
    with duckdb.connect(str(history.path), read_only=True) as db:
        for table in ("ops", "kernels", "scopes"):
            bad = db.execute(
                f"SELECT count(*) FROM {table} WHERE list_sum(total_by_step) != total "
                f"OR list_sum(calls_by_step) != calls"
            ).fetchone()
            assert bad == (0,), table
        total = db.execute("SELECT sum(total), sum(gpu) FROM scopes").fetchone()
        assert total == db.execute("SELECT sum(cpu), sum(gpu) FROM captures").fetchone()
        empty = db.execute(
            "SELECT table_name FROM duckdb_tables() WHERE comment IS NULL"
        ).fetchall()
        assert empty == []  # each table is documented in the file itself


def test_forgotten_runs_leave_nothing(
    sides: tuple[list[Reading], list[Reading]], tmp_path: Path
) -> None:
    history = History(tmp_path / "h.duckdb")
    history.record(sides[0], UNDER, {"commit": "aaaa1111"})
    history.record(sides[1], UNDER, {"commit": "bbbb2222"})
    assert history.forget(runs_meant("aaaa1111", history.runs())) == 3
    with duckdb.connect(str(history.path), read_only=True) as db:
        for table in ("ops", "kernels", "scopes"):
            left = db.execute(f"SELECT count(DISTINCT capture) FROM {table}").fetchone()
            assert left == (3,)
    assert [run.labels["commit"] for run in history.runs()] == ["bbbb2222"]


def test_what_is_no_history_is_told(tmp_path: Path) -> None:
    other = tmp_path / "other.duckdb"
    with duckdb.connect(str(other)) as db:
        db.execute("CREATE TABLE mine (a INTEGER)")
    text = tmp_path / "text.duckdb"
    text.write_text("no database", encoding="utf-8")
    cut = tmp_path / "cut.duckdb"
    History(cut).record(readings("einops", 1), UNDER, {})
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    unversioned = tmp_path / "unversioned.duckdb"
    with duckdb.connect(str(unversioned)) as db:
        db.execute("CREATE TABLE schema_versions (version INTEGER)")
    later = tmp_path / "later.duckdb"
    with duckdb.connect(str(later)) as db:
        db.execute("CREATE TABLE schema_versions AS SELECT 99 AS version")
    for path, message in (
        (other, "something else"),
        (text, "no DuckDB database"),
        (tmp_path, "is no file"),
        (Path(":memory:"), "is no file"),
        (Path("md:mine"), "is no file"),
        (unversioned, "no version"),
        (cut, "cannot be used"),
        (later, "later version"),
        (tmp_path / "nothing", "no such file"),
    ):
        with pytest.raises(TraceqError, match=message) as caught:
            History(path).runs()
        assert caught.value.hint


def test_migrations_are_numbered_without_gaps() -> None:
    assert len(history_migrations()) >= 1
    assert all("CREATE" in text or "ALTER" in text for text in history_migrations())


def test_another_program_is_waited_for(
    sides: tuple[list[Reading], list[Reading]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(store, "NOTICE", 0.1)
    history = History(tmp_path / "h.duckdb", patience=0.3, notify=told.append)
    history.record(sides[0][:1], UNDER, {})
    started = FORK.Event()
    holder = FORK.Process(target=_hold, args=(history.path, started))
    holder.start()
    try:
        assert started.wait(20)
        held = rf"\(process {holder.pid}\)"
        with pytest.raises(HistoryError, match=rf"h.duckdb: .* {held} has had it open"):
            history.runs()
        (text,) = told
        assert re.fullmatch(rf"waiting for .*h.duckdb, held by .* {held}", text)
    finally:
        holder.kill()
        holder.join()
    assert len(history.runs()) == 1


def _hold(path: Path, started: object) -> None:
    with duckdb.connect(str(path)):
        started.set()  # type: ignore[attr-defined]
        time.sleep(60)


def _record_all(path: Path, captures: list[Reading], first: int, count: int) -> None:
    for number in range(first, first + count):
        run = [varied(item, 10 * number + place) for place, item in enumerate(captures)]
        History(path).record(run, UNDER, {"commit": f"{number:08d}"})


def test_two_writers_lose_nothing(
    sides: tuple[list[Reading], list[Reading]], tmp_path: Path
) -> None:
    path = tmp_path / "h.duckdb"
    writers = [
        FORK.Process(target=_record_all, args=(path, sides[0][:2], first, 6)) for first in (0, 100)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    runs = History(path).runs()
    assert len({run.run for run in runs}) == 12
    assert all(run.captures == 2 for run in runs)


def test_a_killed_writer_leaves_whole_runs(
    sides: tuple[list[Reading], list[Reading]], tmp_path: Path
) -> None:
    """At random moments: what is there is whole, what was told is there, once."""
    path, captures = tmp_path / "h.duckdb", sides[0][:1]
    start = time.monotonic()
    writer = FORK.Process(target=_record_all, args=(tmp_path / "other.duckdb", captures, 0, 1))
    writer.start()
    writer.join()
    whole = time.monotonic() - start  # of a run that nobody kills, on this machine
    random_ = random.Random(7)
    told = 0
    for number in range(KILLS):
        receiver, sender = FORK.Pipe(duplex=False)
        writer = FORK.Process(target=_record_and_tell, args=(path, captures, number, sender))
        writer.start()
        time.sleep(random_.uniform(0.0, 1.5 * whole))
        if writer.pid is not None:
            os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        sender.close()
        try:
            committed = receiver.poll() and receiver.recv()
        except EOFError:
            committed = False
        if committed:
            told += 1
        elif path.exists() and _is_there(path, number):
            told += 1  # it was written, and killed before it could say so
        if path.exists() and told:
            runs = History(path).runs()
            assert len(runs) == told
            assert {run.captures for run in runs} == {1}
    history = History(path)
    _record_all(path, captures, 1000, 1)
    for run in history.runs():
        assert len(history.load([run], Question(under=("GatedDeltaNet",)))) == 1
    with duckdb.connect(str(path), read_only=True) as db:
        strays = db.execute(
            "SELECT count(*) FROM ops WHERE capture NOT IN (SELECT capture FROM captures)"
        ).fetchone()
        assert strays == (0,)
    assert 0 < told < KILLS


def _is_there(path: Path, number: int) -> bool:
    try:
        runs = History(path).runs()
    except HistoryError:  # killed while the file was made
        return False
    return any(run.labels.get("commit") == f"{number:08d}" for run in runs)


def _record_and_tell(path: Path, captures: list[Reading], number: int, sender: object) -> None:
    _record_all(path, captures, number, 1)
    sender.send(True)  # type: ignore[attr-defined]


def test_a_file_of_version_1_is_brought_up_to_date(
    sides: tuple[list[Reading], list[Reading]], tmp_path: Path
) -> None:
    """Its one time was either; the captures tell which."""
    history = History(tmp_path / "h.duckdb")
    capture, untold = sides[0][0], sides[1][0]
    untold = dataclasses.replace(untold, facts=dataclasses.replace(untold.facts, time=None))
    with duckdb.connect(str(history.path)) as db:
        db.execute(history_migrations()[0])
        db.execute("INSERT INTO schema_versions VALUES (1)")
        for number, item in enumerate((capture, untold)):
            db.execute("INSERT INTO runs VALUES (?, '2026-11-01', '0.1.0')", [f"run{number}"])
            row = [f"key{number}", f"run{number}", 0, item.path, item.sha256, [*item.under]]
            row += ["{}", item.steps, 15, 1, 1, 1, pack(item)]
            db.execute(f"INSERT INTO captures VALUES ({', '.join('?' * 13)})", row)
    with pytest.raises(HistoryError, match="schema 1, not 2"):
        history.runs()
    history.record(sides[0][1:2], UNDER, {})
    old = {run.run: run for run in history.runs() if run.run.startswith("run")}
    assert capture.facts.time is not None
    assert old["run0"].recorded is None
    assert old["run0"].captured == datetime.fromtimestamp(capture.facts.time, UTC).replace(
        tzinfo=None
    )
    assert (old["run1"].captured, old["run1"].recorded) == (None, datetime(2026, 11, 1))
    with duckdb.connect(str(history.path), read_only=True) as db:
        told = db.execute("SELECT content, workload FROM captures WHERE run = 'run0'").fetchall()
    assert told == [(capture.facts.fingerprint, workload_of(capture.facts))]
    assert workload_of(capture.facts).startswith('{"batch size": "10", "classes of the scopes"')


def test_runs_are_ordered_by_one_clock(
    sides: tuple[list[Reading], list[Reading]], tmp_path: Path
) -> None:
    history = History(tmp_path / "h.duckdb")
    for number in (2, 1):
        history.record([varied(sides[0][0], number)], UNDER, {"n": str(number)})
    shown = follow(history, history.runs(), UNDER, None)
    assert ([point.labels["n"] for point in shown.points], shown.order) == (["1", "2"], "captured")
    assert "in the order of capture" in history_report(shown).headline
    untold = varied(sides[0][0], 0)
    untold = dataclasses.replace(untold, facts=dataclasses.replace(untold.facts, time=None))
    history.record([untold], UNDER, {"n": "0"})
    shown = follow(history, history.runs(), UNDER, None)
    assert [point.labels["n"] for point in shown.points] == ["2", "1", "0"]
    assert [point.captured is None for point in shown.points] == [False, False, True]
    report = history_report(shown)
    assert "in the order of recording" in report.headline
    assert report.warnings == ("Not all of these runs tell when they were captured.",)


def test_a_trend_of_different_work_is_told(
    sides: tuple[list[Reading], list[Reading]], tmp_path: Path
) -> None:
    history = History(tmp_path / "h.duckdb")
    for number in range(2):
        item = varied(sides[0][0], number)
        sizes = {"batch size": f"{10 + number}", "layers": "4"}
        facts = dataclasses.replace(item.facts, sizes=sizes)
        labels = {"branch": f"b{number}", "gpu": "H100"}
        history.record([dataclasses.replace(item, facts=facts)], UNDER, labels)
    shown = follow(history, history.runs(), UNDER, None)
    assert shown.workloads == {"batch size": ("10", "11")}
    report = history_report(shown)
    assert "of different work (batch size: 10, 11)" in report.warnings[0]
    assert "several branches (b0, b1)" in report.warnings[1]
    titles = [column.title for column in report.tables[0].columns]
    assert ("branch" in titles, "GPU" in titles) == (True, False)
    told = run("history", "--under", "GatedDeltaNet", "--format", "csv", db=history.path)
    assert told.stderr.splitlines() == [f"traceq: {text}" for text in report.warnings]
    chosen = follow(history, runs_named("b0", history.runs()), UNDER, None)
    assert history_report(chosen).warnings == ()


# Which runs -----------------------------------------------------------------------------------


def runs_of(*labels: dict[str, str]) -> list[Run]:
    start = datetime(2026, 11, 1)
    return [
        Run(f"{number:012x}", start + timedelta(hours=number), None, item, 1, ((),), ())
        for number, item in enumerate(labels)
    ]


def test_a_word_means_the_runs_of_one_commit() -> None:
    main = {"branch": "main"}
    runs = runs_of(
        main | {"commit": "aaaa1111"},
        main | {"commit": "bbbb2222"},
        main | {"commit": "bbbb2222"},
        {"pr": "123", "commit": "cccc3333"},
        {"name": "plain"},
        {"branch": "user@host"},
    )
    assert runs_meant("user@host", runs) == runs_meant("user@host@latest", runs) == runs[5:]
    assert runs_meant("main@latest", runs) == runs[1:3]
    assert runs_meant("main@aaaa", runs) == runs_meant("main@latest~1", runs) == runs[:1]
    assert runs_meant("aaaa", runs) == runs[:1]
    assert runs_meant("bbbb2222", runs) == runs[1:3]
    assert runs_meant("123", runs) == runs_meant("pr=123", runs) == runs[3:4]
    assert runs_meant("plain", runs) == runs_meant("000000000004", runs) == runs[4:5]
    assert runs_named("main", runs) == runs[:3]
    for ref, message in (
        ("main", "runs of 2 commits: aaaa1111, bbbb2222"),
        ("mian@latest", "no recorded run"),
        ("main@dddd", "begins with 'dddd'"),
        ("main@latest~2", "runs of 2 commits: there is no latest~2"),
        ("main@latest~", "begins with 'latest~'"),
        ("aaa", "no recorded run"),
        ("pr=124", "no recorded run"),
    ):
        with pytest.raises(HistoryError, match=message) as caught:
            runs_meant(ref, runs)
        assert caught.value.hint


def test_labels_come_from_the_captures_then_the_job() -> None:
    with traceq.open(SAMPLES / "einops-0.json.gz") as trace:
        info = trace.info
    assert known_labels([info], {}) == {"gpu": "NVIDIA H100 80GB HBM3", "torch": "2.11.0"}
    job = {"GITHUB_SHA": "1234", "GITHUB_HEAD_REF": "", "GITHUB_REF_NAME": "main"}
    assert known_labels([info], job)["commit"] == "1234"
    assert known_labels([info], job)["branch"] == "main"
    git = {"commit": "feed", "branch": "x", "dirty": True}
    told = dataclasses.replace(info, capture={"git": git})
    assert known_labels([told], job)["commit"] == "feed+changes"
    other = dataclasses.replace(info, capture={"git": git | {"commit": "beef"}})
    assert "commit" not in known_labels([told, other], job)
    for text in ("a", "=b", "a=", " = ", "a=\x1b[0m", "a=\udcff"):
        with pytest.raises(UsageError, match="no label"):
            parse_labels([text])


# Trends ---------------------------------------------------------------------------------------


def test_a_change_of_five_percent_is_found_where_it_is() -> None:
    for seed in range(8):
        random_ = np.random.default_rng(seed)
        series = 1e6 * np.exp(random_.normal(0, NOISE, 100))
        assert find_changes(series.tolist()) == []
        series[60:] *= 1.05
        (change,) = find_changes(series.tolist())
        assert abs(change.at - 60) <= 5
        assert change.change.low < 0.05 < change.change.high
        assert change.p <= 0.01


def test_several_changes_and_outliers() -> None:
    random_ = np.random.default_rng(3)
    series = 1e6 * np.exp(random_.normal(0, 0.01, 90))
    series[30:60] *= 1.2
    series[[5, 40, 80]] *= 5
    assert [change.at for change in find_changes(series.tolist())] == [30, 60]


def test_a_change_from_nothing_is_told_by_no_share() -> None:
    for most in (1, 3, 1e9):
        (change,) = find_changes([0.0] * 8 + [float(most)] * 8)
        assert change.change.estimate == math.inf
    assert find_changes([1.0] * 50) == []
    assert find_changes([1.0, 2.0, 3.0]) == []


def test_changes_are_marked_by_chance_as_often_as_is_said() -> None:
    random_ = np.random.default_rng(11)
    marked = sum(bool(find_changes(random_.lognormal(0, 0.1, 40).tolist())) for _ in range(300))
    assert marked <= 9  # of 300 at 1 %: more by chance in one of a thousand


def test_sparklines() -> None:
    assert sparkline([5.0, 5.0]) == "▄▄"
    assert len(sparkline([float(n) for n in range(100)])) == 60


@pytest.fixture(scope="module")
def hundred(
    sides: tuple[list[Reading], list[Reading]], tmp_path_factory: pytest.TempPathFactory
) -> History:
    """A hundred runs; from the 61st on one op takes 5 % more. Others have the noise of captures."""
    history = History(tmp_path_factory.mktemp("history") / "h.duckdb")
    capture = sides[1][0]
    for number in range(100):
        run = varied(capture, number)
        ops = run.ops.copy()
        if number >= 60:
            is_slower = ops["op"] == "aten::flatten"
            ops["total"] = (ops["total"] * np.where(is_slower, 1.05, 1)).astype("int64")
        run = dataclasses.replace(run, ops=ops)
        history.record([run], UNDER, {"commit": f"{number:08d}", "branch": "main"})
    return history


def test_the_history_finds_a_planted_change_and_no_other(hundred: History) -> None:
    runs = hundred.runs()
    assert len(runs) == 100
    found = follow(hundred, runs, UNDER, "aten::flatten")
    (change,) = found.changes
    assert abs(change.at - 60) <= 5
    assert 0.03 < change.change.estimate < 0.07
    assert found.points[60].labels["commit"] == "00000060"
    report = history_report(found)
    titles = [column.title for column in report.tables[0].columns]
    assert titles == ["", "run", "captured (UTC)", "commit", "captures", "CPU time µs", "change"]
    assert [text[0] for text in report.remarks] == ["≠"]
    axes = found.plot().axes[0]
    share = f"+{change.change.estimate:.1%}"
    assert axes.texts[0].get_text() == f"{share} from {change.at:08d} on"
    assert [label.get_text() for label in axes.get_xticklabels()][:2] == ["00000000", "00000005"]
    assert "the last 25 of 100" in found._repr_html_()
    quiet = follow(hundred, runs, UNDER, "aten::reshape")
    assert quiet.changes == ()
    assert hundred.path.stat().st_size < 100 * 120_000


def test_names_that_fit_nothing_or_several(hundred: History) -> None:
    runs = hundred.runs()[:3]
    with pytest.raises(PatternError, match="matches 2 ops and kernels"):
        follow(hundred, runs, UNDER, "flatten")
    with pytest.raises(PatternError, match="no recorded op"):
        follow(hundred, runs, UNDER, "aten::flaten")
    with pytest.raises(HistoryError, match="not recorded with no --under"):
        follow(hundred, runs, Question(), None)
    with pytest.raises(PatternError, match="no recorded op"):
        follow(hundred, runs, UNDER, "'; DROP TABLE ops; --")
    whole = follow(hundred, runs, UNDER, None, "gpu")
    assert {point.value for point in whole.points} == {3_454_313.0}


def test_an_op_that_vanishes_is_0_from_there_on(
    sides: tuple[list[Reading], list[Reading]], tmp_path: Path
) -> None:
    history = History(tmp_path / "h.duckdb")
    for number in range(12):
        item = varied(sides[number >= 6][0], number)
        history.record([item], UNDER, {"commit": f"{number:08d}"})
    history.record([dataclasses.replace(sides[0][1], under=())], Question(), {})
    runs = history.runs()
    gone = follow(history, runs, UNDER, "einops/einops.py: rearrange")
    assert [point.value > 0 for point in gone.points] == [True] * 6 + [False] * 6
    report = history_report(gone)
    assert "−100.0% from commit 00000006 on" in report.headline
    assert "Last seen in commit 00000005, not from commit 00000006 on." in report.warnings
    assert "1 run not recorded under these scopes: left out." in report.warnings
    come = follow(history, runs, UNDER, "<built-in method flatten of Tensor object>", "calls")
    assert (come.points[5].value, come.points[6].value, come.last_seen) == (0, 15, None)
    assert come.to_dict()["changes"][0]["change"] is None
    assert "more than 0 from commit 00000006 on" in history_report(come).headline
    average = follow(history, runs, UNDER, "einops/einops.py: rearrange", "average")
    assert (len(average.points), average.absent) == (6, 7)


# The commands ---------------------------------------------------------------------------------


def run(*words: str, db: Path) -> Result:
    return CliRunner(env={"TRACEQ_DB": str(db), "COLUMNS": "100"}).invoke(group, [*words])


def test_the_commands(tmp_path: Path) -> None:
    db = tmp_path / "h.duckdb"
    under = ("--under", "GatedDeltaNet")
    for kind, commit in (("einops", "aaaa1111"), ("flatten", "bbbb2222")):
        words = (str(SAMPLES / f"{kind}-*.json.gz"), *under, "--label", f"commit={commit}")
        done = run("record", *words, "--label", "branch=main", db=db)
        assert done.exit_code == 0, done.exception
        assert "3 captures recorded" in done.stderr
    listed = run("runs", db=db)
    assert "2 runs with 6 captures" in listed.stdout
    assert "in the order of capture" in " ".join(listed.stdout.split())
    assert "under: GatedDeltaNet\nGPU: NVIDIA H100" in listed.stdout  # said once, of both
    assert "other labels" not in listed.stdout
    assert "bbbb2222" in listed.stdout
    rows = json.loads(run("runs", "main", "--format", "json", db=db).stdout)["rows"]
    assert [row["labels"]["commit"] for row in rows] == ["aaaa1111", "bbbb2222"]
    sides = ("--before", str(SAMPLES / "einops-*.json.gz"))
    sides += ("--after", str(SAMPLES / "flatten-*.json.gz"))
    by_traces = run("diff", *sides, *under, db=db)
    by_runs = run("diff", "--db", str(db), "main@aaaa1111", "main@latest", *under, db=db)
    assert by_runs.exit_code == 0
    assert by_runs.stdout == by_traces.stdout
    shown = run("history", "aten::flatten", *under, "--of", "main", db=db)
    assert "too few to tell a change" in " ".join(shown.stdout.split())
    assert shown.stdout.endswith("A run's figure is the median of its captures.\n")
    table = run("history", "aten::flatten", *under, "--format", "csv", db=db).stdout.splitlines()
    assert table[0].endswith("commit,branch,captures,calls,value,low,high,unit")
    assert table[2].endswith("bbbb2222,main,3,135,215239.0,198187.0,308516.0,ns")
    data = json.loads(run("history", *under, "--format", "json", db=db).stdout)
    assert [point["captures"] for point in data["points"]] == [3, 3]
    by_name = run("diff", "main@aaaa1111", "main@latest", *under, db=db).exception
    assert f"name its file: --db {db}" in str(by_name)
    limited = run("history", *under, "--skip-first", db=db).exception
    assert str(limited) == (
        "these runs were not recorded with --under GatedDeltaNet --skip-first\n"
        "They were with: --under GatedDeltaNet."
    )
    alone = run("report", "--db", str(db), "main@latest", "-o", "page.html", db=db).exception
    assert "no capture is named for after" in str(alone)
    wrong = run("diff", "--db", str(db), "main", "main@latest", db=db)
    assert isinstance(wrong.exception, TraceqError)
    mapped = ("main@aaaa", "main@latest", *under, "--map", "rearrange=>flatten")
    assert "needs the trace itself" in str(run("diff", "--db", str(db), *mapped, db=db).exception)
    forgotten = run("forget", "aaaa1111", db=db)
    assert "1 run with 3 captures taken out" in forgotten.stderr
    assert "1 run with 3" in run("runs", db=db).stdout


def test_a_history_that_was_copied_is_read(hundred: History, tmp_path: Path) -> None:
    copy = tmp_path / "copy.duckdb"
    shutil.copy(hundred.path, copy)
    copy.chmod(0o444)
    assert len(History(copy).runs()) == 100


def test_in_python(tmp_path: Path) -> None:
    db = tmp_path / "h.duckdb"
    for number in range(3):
        with traceq.open(SAMPLES / f"flatten-{number}.json.gz") as trace:
            told = traceq.record(trace, db, under="GatedDeltaNet", labels={"n": str(number)})
        assert told.new == 1
    found = traceq.trend("aten::flatten", db, under="GatedDeltaNet")
    assert [point.labels["n"] for point in found.points] == ["0", "1", "2"]
    assert [point.value for point in found.points] == [215_239, 198_187, 308_516]
    calls = traceq.trend("aten::flatten", db, under="GatedDeltaNet", measure="calls", of="n=1")
    assert [point.value for point in calls.points] == [45]
    assert found.df["value"].tolist() == [215_239, 198_187, 308_516]
    assert "<td>198.187</td>" in found._repr_html_()
    assert len(found.plot().axes[0].lines) == 1
    picture = run("history", "aten::flatten", "--under", "GatedDeltaNet", "--format", "svg", db=db)
    assert picture.stdout.startswith("<?xml")
    title = (
        "aten::flatten under GatedDeltaNet: total by run, in the order in which they were captured"
    )
    assert f"<title>{title}</title>" in picture.stdout
    assert re.search(rf"<text[^>]*>{found.points[0].run}</text>", picture.stdout)
