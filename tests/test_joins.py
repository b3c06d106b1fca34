"""What is found in the file's own columns is what the engine answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from tests import tracemaker as tm
from tests.joined import asked, check_same
from traceq import fxt
from traceq.asking import AskedTrace
from traceq.engine import DeferredEngine, Engine
from traceq.errors import EngineError
from traceq.joins import join
from traceq.kineto import read_trace
from traceq.layout import arrange
from traceq.loading import open_trace
from traceq.model import JoinedTrace

SAMPLE = Path(__file__).parent.parent / "sample_traces" / "flatten-0.json.gz"


def both(
    tmp_path: Path, engine: Engine, events: list[tm.Event]
) -> tuple[JoinedTrace | None, AskedTrace]:
    path = tmp_path / "trace.json"
    path.write_bytes(tm.compact(events))
    data = read_trace(path)
    layout = arrange(data)
    engine.load(fxt.encode(data, layout))
    return join(data, layout), asked(engine)


@given(events=tm.gpu_traces())
@settings(max_examples=60)
def test_random_traces(tmp_path: Path, engine: Engine, events: list[tm.Event]) -> None:
    found, other = both(tmp_path, engine, events)
    if found is not None:
        check_same(found, other)


def op(name: str, ts: int, tid: int = 1, **args: Any) -> tm.Event:
    pid = args.pop("pid", 1)
    spelled = {key.replace("_", " "): value for key, value in args.items()}
    return tm.complete(name, ts, 10, pid=pid, tid=tid, cat="cpu_op", args=spelled)


def test_a_forward_op_some_numbers_before(tmp_path: Path, engine: Engine) -> None:
    events = [
        op("saw the next number", 0, Sequence_number=7),
        op("made it", 20, Sequence_number=7),
        op("last", 40, Sequence_number=20),
        op("exact", 100, 2, Sequence_number=7, Fwd_thread_id=1),
        op("four on", 120, 2, Sequence_number=11, Fwd_thread_id=1),
        op("five on", 140, 2, Sequence_number=12, Fwd_thread_id=1),
        op("beyond the last", 160, 2, Sequence_number=21, Fwd_thread_id=1),
    ]
    found, other = both(tmp_path, engine, events)
    assert found is not None
    assert found.forward_ops.id.tolist() == [3, 4]
    assert found.forward_ops.forward.tolist() == [1, 1]
    check_same(found, other)


def test_numbers_that_two_threads_share_join_nothing(tmp_path: Path, engine: Engine) -> None:
    events = [
        op("one", 0, Sequence_number=7),
        op("other", 0, 3, Sequence_number=7),
        op("of another process", 5, pid=2, Sequence_number=7),
        op("backward", 100, 2, Sequence_number=7, Fwd_thread_id=1),
        op("its backward", 100, 2, pid=2, Sequence_number=7, Fwd_thread_id=1),
    ]
    found, other = both(tmp_path, engine, events)
    assert found is not None
    names = np.array(found.slices.names)[found.slices.name]
    assert names[found.forward_ops.forward].tolist() == ["of another process"]
    check_same(found, other)


@pytest.mark.parametrize("value", ["0x1", 1.5, True])
def test_a_number_written_as_something_else_is_left_to_the_engine(
    tmp_path: Path, engine: Engine, value: object
) -> None:
    found, _ = both(tmp_path, engine, [op("aten::add", 0, correlation=value)])
    assert found is None


def test_a_stream_that_is_no_number_is_unknown(tmp_path: Path, engine: Engine) -> None:
    args = {"stream": "0x0", "device": 2, "correlation": 5}
    events = [tm.complete("gemm", 0, 10, pid=0, tid=7, cat="kernel", args=args)]
    found, other = both(tmp_path, engine, events)
    assert found is not None
    assert (found.launches.stream.tolist(), found.launches.device.tolist()) == ([-1], [2])
    check_same(found, other)


def test_an_engine_starts_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str | None] = []

    def refuse(name: str | None, **_: object) -> Engine:
        started.append(name)
        raise EngineError("none today")

    monkeypatch.setattr("traceq.loading.open_engine", refuse)
    with open_trace(SAMPLE, cache=False) as trace:
        assert not trace.is_asked
        assert trace.ops("GatedDeltaNet")["calls"].sum() > 0
        assert not started
        with pytest.raises(EngineError):
            trace.sql("SELECT 1")
        assert started == [None]


def test_an_engine_that_is_named_answers_all() -> None:
    with open_trace(SAMPLE) as trace, open_trace(SAMPLE, engine="wasm") as asked_of:
        assert asked_of.is_asked
        assert trace.ops("GatedDeltaNet").equals(asked_of.ops("GatedDeltaNet"))
        assert trace.modules().equals(asked_of.modules())
        assert trace.fingerprint == asked_of.fingerprint


def test_a_trace_that_is_closed_while_its_engine_starts() -> None:
    closed: list[bool] = []

    class Slow:
        def close(self) -> None:
            closed.append(True)

        def query(self, _: str, **__: object) -> None:
            raise EngineError("closed")

    def start(_: object) -> Slow:
        engine.close()
        return Slow()

    engine = DeferredEngine(start)  # type: ignore[arg-type]
    with pytest.raises(EngineError):
        engine.query("SELECT 1")
    assert closed
