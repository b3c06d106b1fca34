"""What does not fit the memory or the engine says so, and which part would."""

from __future__ import annotations

import gzip
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import traceq
from tests import tracemaker as tm
from tests.test_cutting import tables
from traceq import TraceqError, fitting, intake, loading, memory
from traceq.cache import Cache
from traceq.cli import group
from traceq.errors import EngineError, TraceReadError, UsageError
from traceq.fitting import Extent
from traceq.kineto import estimate_slices, read_trace, survey_trace
from traceq.limits import Limits
from traceq.loading import convert_trace, open_trace
from traceq.memory import free_memory
from traceq.overview import Overview

SAMPLE = Path(__file__).parent.parent / "sample_traces" / "einops-0.json.gz"
COUNT = "SELECT COUNT(*) AS n FROM slice"


def tiny(path: Path) -> Path:
    """Two steps of a module that launches a kernel each, and one op outside."""
    events: list[tm.Event] = []
    for number, ts in enumerate((0, 100)):
        args = {"correlation": number + 1}
        events += [
            tm.complete(f"ProfilerStep#{number}", ts, 50, cat="user_annotation"),
            tm.complete("nn.Module: A_0", ts + 5, 30, cat="python_function"),
            tm.complete("aten::mm", ts + 10, 20),
            tm.complete("cudaLaunchKernel", ts + 12, 2, cat="cuda_runtime", args=args),
            tm.complete("gemm", ts + 200, 7, cat="kernel", pid=0, tid=7, args=args),
        ]
    events.append(tm.complete("aten::add", 160, 5))
    path.write_bytes(tm.compact(events))
    return path


def names(path: Path, limits: Limits) -> list[str]:
    with open_trace(path, part=limits) as part:
        return part.sql("SELECT name FROM slice ORDER BY ts, dur DESC")["name"].tolist()


STEP = ["ProfilerStep#1", "nn.Module: A_0", "aten::mm", "cudaLaunchKernel"]


@pytest.mark.parametrize("limits", [Limits(steps="1"), Limits(window="100us:150us")])
def test_a_step_of_a_tiny_trace(tmp_path: Path, limits: Limits) -> None:
    # Of the first step its mark, and the first call of the module: the steps and rows stay.
    expected = ["ProfilerStep#0", "nn.Module: A_0", *STEP, "gemm"]
    assert names(tiny(tmp_path / "trace.json"), limits) == expected


def test_below_an_op_of_a_tiny_trace(tmp_path: Path) -> None:
    found = names(tiny(tmp_path / "trace.json"), Limits(under=("aten::mm",)))
    assert "aten::add" not in found
    assert found.count("gemm") == found.count("cudaLaunchKernel") == 2


def test_bad_limits_are_told(tmp_path: Path) -> None:
    path = tiny(tmp_path / "trace.json")
    for limits, message in (
        (Limits(window="5:6"), "begins after the trace"),
        (Limits(window="2s"), "is no window of time"),
        (Limits(window="3us:1us"), "is empty"),
        (Limits(steps="7:9"), "no step is left"),
        (Limits(steps="a"), "names no steps"),
        (Limits(under=("nothing like it",)), "no slice in the trace matches"),
        (Limits(steps="0", window="100us:"), "no time in common"),
    ):
        for least in (0, 10**9):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(intake, "_READ_TWICE", least)
                with pytest.raises(TraceqError, match=message):
                    convert_trace(path, part=limits)


def test_hostile_events_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    events = [
        tm.complete("negative", 10, -5),
        {"ph": "X", "name": "no time", "pid": 1, "tid": 2, "dur": 3},
        tm.complete("before", 0, 1),
        tm.complete("late", 900, 1),
        tm.complete("endless", 1, 2**42),
        tm.event("B", name="begun", ts=3),
        tm.event("E", name="begun", ts=500),
        tm.event("C", name="memory", ts=700, args={"bytes": 3}),
    ]
    path.write_bytes(tm.compact(events))
    for least in (0, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(intake, "_READ_TWICE", least)
            _, ledger = convert_trace(path, part=Limits(window="5us:20us"))
        total = ledger.total
        assert total.read == 8
        assert total.read == total.loaded + total.not_carried + total.unreadable
        assert ledger.reasons["no usable ts or dur"] == 1


# Too large ------------------------------------------------------------------------------------


def test_a_trace_that_does_not_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEQ_MEMORY", "4MB")
    with pytest.raises(
        TraceReadError, match=r"is too large: 23,291 slices take about 6\.1 MB"
    ) as e:
        open_trace(SAMPLE, cache=False)
    assert "142.587 ms" in e.value.message
    assert e.value.hint is not None
    window, steps = (
        re.search(rf"--{name} (\S+?),? ", e.value.hint) for name in ("window", "steps")
    )
    assert window is not None
    assert steps is not None
    for limits in (Limits(window=window[1]), Limits(steps=steps[1])):
        with open_trace(SAMPLE, cache=False, part=limits) as part:
            assert 0 < len(part.slices) * fitting.READ_BYTES <= 4e6


def test_a_trace_that_cannot_even_be_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEQ_MEMORY", "1kB")
    with pytest.raises(TraceReadError, match="is too large") as raised:
        open_trace(SAMPLE, cache=False)
    assert "--window, --steps or --under" in str(raised.value.hint)


def test_a_part_that_does_not_fit_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEQ_MEMORY", "2MB")
    with pytest.raises(TraceReadError, match="too large a part"):
        open_trace(SAMPLE, cache=False, part=Limits(under=("*",)))


def test_a_trace_that_does_not_fit_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEQ_MEMORY", "8MB")
    with open_trace(SAMPLE, cache=False) as trace:
        assert len(trace.ops()) > 0  # tables need no engine
        with pytest.raises(EngineError, match=r"for the query engine: 23,291 .* 10\.0 MB"):
            trace.sql(COUNT)
    monkeypatch.setenv("TRACEQ_MEMORY", "1GB")
    monkeypatch.setattr(loading, "ENGINE_LIMIT", 1_000_000)
    with pytest.raises(EngineError, match="--under NAME"):
        open_trace(SAMPLE, engine="wasm")


def test_the_end_of_the_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(intake, "read_trace", fail)
    with pytest.raises(TraceReadError, match="the memory does not suffice"):
        open_trace(SAMPLE, cache=False)


def test_tables_of_a_trace_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(steps="9")
    told: list[str] = []
    with open_trace(SAMPLE, cache=False) as whole:
        wanted = tables(whole, limits)
    monkeypatch.setenv("TRACEQ_MEMORY", "4MB")
    with open_trace(SAMPLE, cache=False, needed=limits, notify=told.append) as part:
        assert len(part.slices) < 10_000
        assert all(table.equals(wanted[name]) for name, table in tables(part, limits).items())
    assert len(told) == 1
    done = run("ops", str(SAMPLE), "--no-cache", "--steps", "9", "--format", "json")
    assert (done.exit_code, "larger than the memory" in done.stderr) == (0, True)


def test_a_memory_that_is_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEQ_MEMORY", "plenty")
    with pytest.raises(UsageError, match="is no size"):
        free_memory()


def test_advice_is_round_and_fits() -> None:
    extent = Extent.of(Overview.of(read_trace(SAMPLE)))
    assert re.match(r"Use --window \d+ms:\d+ms, --steps 9:\d+ or --under", extent.advice(9_000))
    assert extent.advice(0) == f"Use --under NAME{fitting.WHERE}"


def test_the_overview_is_that_of_the_columns() -> None:
    looked, read = survey_trace(SAMPLE), Overview.of(read_trace(SAMPLE))
    for one, other in ((looked, read), (read, looked)):
        assert (one.ts == other.ts).all()
        assert (one.dur == other.dur).all()
        assert len(one.flows) == len(other.flows)
    texts = [np.array(item.strings)[item.name][item.kind] for item in (looked, read)]
    assert (texts[0] == texts[1]).all()


# Commands and Python --------------------------------------------------------------------------


def run(*words: str) -> Result:
    return CliRunner().invoke(group, words)


def test_sql_and_convert_of_a_part(tmp_path: Path) -> None:
    whole, part = (
        int(run("sql", str(SAMPLE), COUNT, "--format", "csv", *words).stdout.splitlines()[1])
        for words in ((), ("--steps", "9", "--under", "GatedDeltaNet"))
    )
    assert 0 < part < whole / 2
    done = run("convert", str(SAMPLE), "-o", str(tmp_path / "part.fxt"), "--window", "0:1ms")
    assert done.exit_code == 0, done.output
    assert "not carried" in done.stderr


def test_a_part_asks_an_engine_of_its_own(cache: Cache) -> None:
    with traceq.open(SAMPLE) as trace:
        part = trace.under("GatedDeltaNet").steps(9)
        few = int(part.sql(COUNT)["n"].iloc[0])
        assert int(part.sql(COUNT + " WHERE name = $n", {"n": "aten::mm"})["n"].iloc[0]) >= 0
        many = int(trace.sql(COUNT)["n"].iloc[0])
        assert trace.whole.sql(COUNT)["n"].iloc[0] == many == len(trace.slices)
        assert few < many
    # What is kept of the file is the whole, whoever asked first.
    with traceq.open(SAMPLE) as again:
        assert int(again.sql(COUNT)["n"].iloc[0]) == many
        assert int(again.under("GatedDeltaNet").steps(9).sql(COUNT)["n"].iloc[0]) == few


def test_a_part_of_a_file_that_has_changed(tmp_path: Path) -> None:
    path = tiny(tmp_path / "trace.json")
    with traceq.open(path) as trace:
        path.write_bytes(tm.compact([tm.complete("aten::mm", 0, 1)]))
        with pytest.raises(TraceReadError, match="has changed"):
            trace.under("aten::mm").sql(COUNT)


def test_a_file_that_changes_between_two_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny(tmp_path / "trace.json")
    monkeypatch.setattr(intake, "_READ_TWICE", 0)

    def look(*words: Any, **rest: Any) -> Overview:
        found = survey_trace(*words, **rest)
        path.write_bytes(tm.compact([tm.complete("aten::mm", 0, 1)]))
        return found

    monkeypatch.setattr(intake, "survey_trace", look)
    with pytest.raises(TraceReadError, match="has changed"):
        convert_trace(path, part=Limits(window=":50us"))


def test_a_file_that_is_replaced_by_one_with_as_many_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = (tiny(tmp_path / f"{name}.json") for name in "ab")
    monkeypatch.setattr(intake, "_READ_TWICE", 0)

    def look(*words: Any, **rest: Any) -> Overview:
        found = survey_trace(*words, **rest)
        other.replace(path)
        return found

    monkeypatch.setattr(intake, "survey_trace", look)
    with pytest.raises(TraceReadError, match="has changed"):
        convert_trace(path, part=Limits(window=":50us"))


# The guess ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_guessed_by_what_it_holds(tmp_path: Path, compression: int) -> None:
    text = gzip.decompress(SAMPLE.read_bytes())
    with zipfile.ZipFile(tmp_path / "trace.zip", "w", compression) as archive:
        archive.writestr("trace.json", text)
    (tmp_path / "trace.json").write_bytes(text)
    assert estimate_slices(tmp_path / "trace.zip") == estimate_slices(tmp_path / "trace.json")
    with traceq.open(tmp_path / "trace.zip") as trace:
        assert len(trace.slices) == 23_291


@pytest.mark.parametrize("name", ["none.json", ".", "bad.zip"])
def test_what_cannot_be_read_is_told_by_reading_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.zip").write_bytes(b"PK\3\4 no zip")
    assert not estimate_slices(tmp_path / name)
    with pytest.raises(TraceReadError, match=re.escape(str(tmp_path))):
        open_trace(tmp_path / name)


def test_a_guess_that_is_too_high(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(tm.compact([tm.complete("aten::mm", 0, 1, args={"text": "x" * 100_000})]))
    monkeypatch.setenv("TRACEQ_MEMORY", "20kB")
    with open_trace(path, cache=False) as trace:
        assert len(trace.slices) == 1
    monkeypatch.setenv("TRACEQ_MEMORY", "2kB")  # not even to be looked through
    for part in (None, Limits(window=":1s")):
        with pytest.raises(TraceReadError, match=r"263 slices take about .* 2\.0 kB"):
            open_trace(path, part=part, cache=False)


def test_a_file_of_counters_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.json"
    counters = [tm.event("C", name="memory", ts=ts, args={"bytes": ts}) for ts in range(1000)]
    path.write_bytes(tm.compact(counters))
    monkeypatch.setenv("TRACEQ_MEMORY", "30kB")
    with open_trace(path) as trace:
        assert (len(trace.slices), trace.ledger.total.read) == (0, 1000)
    assert Extent.of(survey_trace(path)).advice(0) == f"Use --under NAME{fitting.WHERE}"


def test_what_a_group_may_still_have(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("8000\n")
    (tmp_path / "memory.current").write_text("7000\n")
    assert memory._free_in(tmp_path) is None  # no account of what it holds
    (tmp_path / "memory.stat").write_text("anon 1000\ninactive_file 5000\n")
    assert memory._free_in(tmp_path) == 6000  # files that were read can go
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._free_in(tmp_path) is None


def test_a_running_engine_holds_all_of_a_trace() -> None:
    with pytest.raises(UsageError, match="--window :1s cannot limit it"):
        open_trace("tp://localhost:1", part=Limits(window=":1s"))
