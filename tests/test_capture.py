"""Captures of real torch programs: what is in the window, what is kept of them, what is left."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import gzip
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard

import traceq
from tests.conftest import ROOT
from traceq.capturing import facts, files
from traceq.capturing.device import choose_device
from traceq.capturing.modules import classes_around, input_shapes, live_modules, roots
from traceq.capturing.plan import Plan
from traceq.capturing.record import without_secrets
from traceq.capturing.session import step_cost
from traceq.capturing.settings import Settings
from traceq.errors import CaptureError, CaptureWarning, PatternError, UsageError

X = torch.ones(2, 3, 8)


class TinyGatedDeltaNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).flatten(-2)


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixer = TinyGatedDeltaNet()
        self.norm = torch.nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mixer(self.norm(x))


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([Layer(), Layer()])
        self.unused = torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            y = layer(x)
        return y


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(autouse=True)
def _no_notes() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CaptureWarning)
        yield


def run_steps(capture: Any, model: Any, count: int, x: torch.Tensor = X) -> Any:
    with torch.no_grad(), capture as cap:
        for _ in range(count):
            model(x)
            cap.step()
    return cap


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize(
    ("stack", "frames", "modules"), [("python", True, 1), ("modules", False, 1), ("none", False, 0)]
)
def test_each_level(tmp_path: Path, model: Model, stack: Any, frames: bool, modules: int) -> None:
    out = tmp_path / "out.json.gz"
    cap = run_steps(
        traceq.capture(out, under="GatedDeltaNet", stack=stack, warmup=2, steps=3), model, 6
    )
    assert (cap.path, leftovers(tmp_path)) == (out, [])
    with traceq.open(out) as trace:
        assert list(trace.steps()["name"]) == [f"ProfilerStep#{n}" for n in (2, 3, 4)]
        assert any("test_capture.py" in name for name in trace.names) is frames
        linears = trace.ops(match="aten::linear")["calls"].sum()
        assert linears == 6  # two layers, three steps: warm-up is not in it
        if modules:
            assert len(trace.scope_calls("GatedDeltaNet")) == 6
            assert trace.ops(under="GatedDeltaNet", match="aten::linear")["calls"].sum() == 6


def test_module_labels_are_nested_and_numbered_by_first_call(tmp_path: Path, model: Model) -> None:
    out = tmp_path / "out.json"
    cap = traceq.capture(out, under="GatedDeltaNet", stack="modules", warmup=3, steps=2)
    run_steps(cap, model, 5)
    events = json.loads(out.read_text())["traceEvents"]
    labels = [e for e in events if str(e.get("name")).startswith("nn.Module: ")]
    ordered = sorted(labels, key=lambda e: float(e["ts"]))
    assert [e["name"].removeprefix("nn.Module: ") for e in ordered] == [
        "Model_0", "Layer_0", "TinyGatedDeltaNet_0", "Layer_1", "TinyGatedDeltaNet_1",
    ] * 2  # fmt: skip
    model_call, layer, mixer = (float(e["ts"]) + float(e["dur"]) for e in ordered[:3])
    assert mixer <= layer <= model_call


def test_without_under_all_modules_are_labelled(tmp_path: Path, model: Model) -> None:
    out = tmp_path / "out.json.gz"
    run_steps(traceq.capture(out, stack="modules", warmup=0, steps=1), model, 1)
    with traceq.open(out) as trace:
        assert set(trace.modules()["module"]) >= {"Model", "Layer", "LayerNorm", "Linear"}


def test_hooks_are_gone_after_the_window(tmp_path: Path, model: Model) -> None:
    run_steps(traceq.capture(tmp_path / "o.json", stack="modules", warmup=3, steps=1), model, 4)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_a_module_that_raises_leaves_no_label_open(tmp_path: Path) -> None:
    class Picky(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                raise ValueError("no")
            return x

    picky, out = Picky(), tmp_path / "o.json.gz"
    with traceq.capture(out, under="Picky", stack="modules", warmup=0) as cap:
        for value in (1, 0, 1, 0):
            with contextlib.suppress(ValueError):
                picky(torch.full((2,), value))
            torch.zeros(3).neg()
            cap.step()
    with traceq.open(out) as trace:
        assert len(trace.scope_calls("Picky")) == 4
        assert "aten::neg" not in set(trace.ops(under="Picky")["op"])


def test_no_module_matches(tmp_path: Path, model: Model) -> None:
    cap = traceq.capture(tmp_path / "o.json", under="Gatted", stack="modules", warmup=3, steps=1)
    with pytest.warns(CaptureWarning, match="no call of a module that matches Gatted"):
        run_steps(cap, model, 4)
    assert "that matches Gatted" in cap.record["notes"][0]


def test_the_record(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", "--api-key", "sk-secret", "--steps", "3"])
    out = tmp_path / "out.json.gz"
    run_steps(traceq.capture(out, steps=2, workload={"batch": 2}), model, 7)
    first = gzip.decompress(out.read_bytes())[:12]
    assert first.startswith(b'{"traceq": {')
    with traceq.open(out) as trace:
        record = trace.info.capture
        assert "traceq" not in trace.info.metadata
    assert (record["version"], record["kind"]) == (1, "session")
    assert record["argv"] == ["bench.py", "--api-key", "***", "--steps", "3"]
    assert record["versions"]["torch"] == torch.__version__
    assert record["workload"] == {"batch": 2}
    assert record["settings"]["device"] == "cpu"
    assert [len(record["steps"][key]) for key in ("free", "profiler", "window")] == [4, 1, 2]
    assert record["shapes"] == [{"module": "Model", "inputs": ["float32[2, 3, 8]"], "calls": 2}]
    assert record["cost"]["steps_without"] == 3
    text = out.with_suffix("").name
    assert json.loads(gzip.decompress(out.read_bytes()))["traceName"] == f"{text}.gz"


def test_commit_and_whether_it_is_what_ran(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    assert facts.git_state(tmp_path) is None
    git("init", "-q", "-b", "main")
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-qm", "x")
    (tmp_path / "untracked").write_text("")
    state = facts.git_state(tmp_path)
    assert state is not None
    assert (len(state["commit"]), state["branch"], state["dirty"]) == (40, "main", False)
    (tmp_path / "a.py").write_text("2")
    changed = facts.git_state(tmp_path)
    assert changed is not None
    assert changed["dirty"] is True


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".json.zst", ".pt.trace.json.gz"])
def test_formats(tmp_path: Path, model: Model, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    run_steps(traceq.capture(out, warmup=0, steps=1), model, 1)
    raw = out.read_bytes()
    unpack: dict[str, Callable[[bytes], bytes]] = {
        ".json": bytes,
        ".gz": gzip.decompress,
        ".zst": lambda b: zstandard.ZstdDecompressor().decompressobj().decompress(b),
    }
    assert json.loads(unpack[out.suffix](raw))["traceEvents"]


def test_no_step_at_all(tmp_path: Path, model: Model) -> None:
    with (
        pytest.raises(CaptureError, match="0 steps were made"),
        traceq.capture(tmp_path / "o.json"),
    ):
        model(X)
    assert list(tmp_path.iterdir()) == []
    with traceq.capture(tmp_path / "o.json", warmup=0):
        model(X)
    with traceq.open(tmp_path / "o.json") as trace:
        assert len(trace.scope_calls("Model")) == 1


def run_and_raise(cap: Any, model: Model) -> None:
    with cap:
        model(X)
        cap.step()
        raise KeyError


def test_a_block_that_raises_writes_nothing(tmp_path: Path, model: Model) -> None:
    with pytest.raises(KeyError):
        run_and_raise(traceq.capture(tmp_path / "o.json", warmup=0), model)
    assert list(tmp_path.iterdir()) == []
    assert not torch._C._autograd._profiler_enabled()


def test_a_block_that_raises_after_the_window_keeps_it(tmp_path: Path, model: Model) -> None:
    cap = traceq.capture(tmp_path / "o.json", warmup=0, steps=1)
    with pytest.raises(KeyError):
        run_and_raise(cap, model)
    assert cap.path == tmp_path / "o.json"


def test_fewer_steps_than_asked_for(tmp_path: Path, model: Model) -> None:
    with pytest.warns(CaptureWarning, match="2 whole steps, not the 5"):
        cap = run_steps(traceq.capture(tmp_path / "o.json", warmup=1, steps=5), model, 3)
    assert cap.path is not None


def test_decorator(tmp_path: Path, model: Model) -> None:
    out = tmp_path / "out.json.gz"

    @traceq.capture(out, warmup=2, steps=2)
    def step(depth: int = 0) -> int:
        """Doc."""
        model(X)
        return step(depth - 1) if depth else 7

    assert [step(1) for _ in range(6)] == [7] * 6
    assert step.__doc__ == "Doc."
    with traceq.open(out) as trace:
        assert len(trace.steps()) == 2
        assert len(trace.scope_calls("Model")) == 4  # a call within a call is part of its step
        label = trace.sql("SELECT id FROM slice WHERE name = 'ProfilerStep#2'")["id"][0]
        below = trace.sql(f"SELECT name FROM descendant_slice({label})")["name"]
        assert any("test_capture.py" in name for name in below)


def test_decorated_coroutine(tmp_path: Path, model: Model) -> None:
    @traceq.capture(tmp_path / "out.json.gz", warmup=1, steps=2)
    async def step() -> None:
        await asyncio.sleep(0)
        model(X)

    async def main() -> None:
        for _ in range(4):
            await step()

    asyncio.run(main())
    with traceq.open(tmp_path / "out.json.gz") as trace:
        assert len(trace.steps()) == 2


def test_decorated_function_that_raises(tmp_path: Path) -> None:
    @traceq.capture(tmp_path / "out.json.gz", warmup=0, steps=2)
    def step() -> None:
        raise OSError("disk")

    with pytest.warns(CaptureWarning, match="raised OSError"), pytest.raises(OSError, match="disk"):
        step()
    with pytest.raises(OSError, match="disk"):
        step()
    assert list(tmp_path.iterdir()) == []


def test_two_profilers(tmp_path: Path, model: Model) -> None:
    with torch.profiler.profile(), pytest.raises(CaptureError, match="another torch profiler"):
        traceq.capture(tmp_path / "o.json").start()
    with traceq.capture(tmp_path / "o.json", warmup=0) as cap:
        model(X)
        with (
            pytest.warns(CaptureWarning, match="a profiler of its own"),
            torch.profiler.profile() as other,
        ):
            model(X)
        cap.step()
    assert other.events()
    assert list(tmp_path.iterdir()) == []
    run_steps(traceq.capture(tmp_path / "again.json", steps=1), model, 6)
    with torch.profiler.profile() as after:
        model(X)
    assert after.events()


def test_a_profiler_in_another_thread(tmp_path: Path) -> None:
    """In a process of its own: before the guard it ended in a crash."""
    code = """
import sys, threading, torch, traceq
begun, end = threading.Event(), threading.Event()
def other():
    with torch.profiler.profile():
        begun.set(); end.wait()
thread = threading.Thread(target=other); thread.start(); begun.wait()
try:
    traceq.capture(sys.argv[1], warmup=0).start()
except traceq.TraceqError as error:
    print(error.message)
end.set(); thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "o.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (
        0, "another torch profiler is running in this process\n",
    )  # fmt: skip


def test_two_captures(tmp_path: Path, model: Model) -> None:
    with traceq.capture(tmp_path / "a.json", warmup=2, steps=1) as one:
        with pytest.raises(CaptureError, match="another capture is going on"):
            traceq.capture(tmp_path / "b.json").start()
        for _ in range(3):
            model(X)
            one.step()
        two = run_steps(traceq.capture(tmp_path / "b.json", warmup=0, steps=1), model, 1)
    assert (one.path, two.path) == (tmp_path / "a.json", tmp_path / "b.json")
    assert one.notes == two.notes == []


def test_modules_in_several_threads(tmp_path: Path) -> None:
    class Slow(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.002)
            return x

    slow, out = Slow(), tmp_path / "o.json"
    with traceq.capture(out, under="Slow", stack="modules", warmup=0):
        worker = threading.Thread(target=lambda: [slow(X) for _ in range(20)])
        worker.start()
        for _ in range(20):
            slow(X)
        worker.join()
    labels = [
        e
        for e in json.loads(out.read_text())["traceEvents"]
        if e.get("name") == "nn.Module: Slow_0"
    ]
    assert len(labels) == 20  # this thread's: others are not recorded
    ordered = sorted((float(e["ts"]), float(e["ts"]) + float(e["dur"])) for e in labels)
    for (begin, end), (following, _) in itertools.pairwise(ordered):
        assert begin < end <= following


@pytest.mark.parametrize("stack", ["python", "modules"])
def test_modules_that_are_scripted_compiled_or_new(tmp_path: Path, stack: Any) -> None:
    scripted = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    out = tmp_path / "o.json.gz"
    with traceq.capture(out, under="GatedDeltaNet", stack=stack, warmup=0):
        scripted(torch.zeros(1, 2))
        new = TinyGatedDeltaNet()  # made within the window
        new(X)
        copy.deepcopy(new)(X)
    assert not new._forward_pre_hooks
    with traceq.open(out) as trace:
        assert len(trace.scope_calls("nn.Module: TinyGatedDeltaNet")) == 2


def test_compiled_modules(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    compiled = torch.compile(net, backend="eager")
    cap = traceq.capture(tmp_path / "o.json.gz", stack="modules", warmup=2, steps=2)
    with pytest.warns(CaptureWarning, match="within compiled modules"):
        run_steps(cap, compiled, 4, torch.zeros(1, 2))
    with traceq.open(tmp_path / "o.json.gz") as trace:
        assert list(trace.modules()["calls"]) == [2]


def test_a_label_that_the_window_ends_in_is_closed(tmp_path: Path) -> None:
    cap = traceq.capture(tmp_path / "o.json", stack="modules", warmup=1, steps=2)

    class Outer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            cap.step()
            return x

    outer = Outer()
    with cap:
        for _ in range(4):
            outer(X)
    events = json.loads((tmp_path / "o.json").read_text())["traceEvents"]
    labels = [e for e in events if e.get("name") == "nn.Module: Outer_0"]
    assert labels
    assert all(str(e.get("args", {}).get("finished", "true")).lower() != "false" for e in labels)


@pytest.mark.parametrize(("warmup", "waits"), [(0, [0]), (1, [0, 1]), (4, [3, 4])])
def test_the_device_is_waited_for_before_the_window_alone(warmup: int, waits: list[int]) -> None:
    plan = Plan.of(Settings(warmup=warmup, steps=5))
    assert [step for step in range(warmup + 9) if plan.must_wait(step)] == waits


def test_step_times_are_those_of_the_calls(tmp_path: Path) -> None:
    @traceq.capture(tmp_path / "o.json", warmup=0, steps=3)
    def step() -> None:
        torch.zeros(1)

    for _ in range(3):
        step()
        time.sleep(0.2)
    with traceq.open(tmp_path / "o.json") as trace:
        told = trace.info.capture["steps"]["window"]
    assert max(told[1:]) < 100_000_000  # not the 200 ms between them


def test_generators_are_no_steps(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a generator"):

        @traceq.capture(tmp_path / "o.json")
        def step() -> Iterator[int]:
            yield 1


def test_an_interrupt_in_a_decorated_step_writes_nothing(tmp_path: Path) -> None:
    @traceq.capture(tmp_path / "o.json", warmup=0, steps=2)
    def step() -> None:
        raise KeyboardInterrupt

    with pytest.warns(CaptureWarning, match="raised Key"), pytest.raises(KeyboardInterrupt):
        step()
    assert list(tmp_path.iterdir()) == []


def test_an_exit_during_warm_up_keeps_its_code(tmp_path: Path) -> None:
    def leave() -> None:
        with traceq.capture(tmp_path / "o.json"):
            sys.exit(7)

    with pytest.warns(CaptureWarning, match="nothing was recorded"), pytest.raises(SystemExit) as e:
        leave()
    assert e.value.code == 7


def test_a_child_process_writes_nothing(tmp_path: Path, model: Model) -> None:
    code = """
import os, sys, torch, traceq
@traceq.capture(sys.argv[1], warmup=0, steps=3)
def step():
    torch.zeros(1)
step()
pid = os.fork()
if pid == 0:
    step(); step(); step(); os._exit(0)
os.waitpid(pid, 0)
print(os.path.exists(sys.argv[1]))
step(); step()
print(os.path.exists(sys.argv[1]))
"""
    out = str(tmp_path / "o.json")
    done = subprocess.run(
        [sys.executable, "-c", code, out], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "False\nTrue\n"), done.stderr


def test_a_single_process_group_has_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert facts.rank() is None
    monkeypatch.setenv("WORLD_SIZE", "9" * 30)
    assert facts.rank() is None


def test_rank_in_the_name(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    cap = run_steps(traceq.capture(tmp_path / "out.json.gz", warmup=0, steps=1), model, 1)
    assert cap.path == tmp_path / "out-rank3.json.gz"
    assert (cap.record["rank"], cap.record["world_size"]) == (3, 8)


def test_the_file_from_the_environment(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no file"):
        traceq.capture()
    monkeypatch.setenv("TRACEQ_OUT", str(tmp_path / "out.json"))
    assert run_steps(traceq.capture(warmup=0), model, 1).path == tmp_path / "out.json"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"stack": "pythn"}, UsageError),
        ({"device": "tpu"}, UsageError),
        ({"warmup": -1}, UsageError),
        ({"steps": 0}, UsageError),
        ({"steps": True}, UsageError),
        ({"under": "re:("}, PatternError),
        ({"workload": {"x": object()}}, UsageError),
        ({"workload": {"x": float("nan")}}, UsageError),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        traceq.capture(tmp_path / "o.json", **arguments)


@pytest.mark.parametrize(
    "name",
    [
        "o.txt",
        "nowhere/o.json",
        "folder.json",
        'a"b.json',
        "a\\b.json",
        "a\nb.json",
        "x" * 240 + ".json",
        "\udcff.json",
    ],
)
def test_wrong_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(CaptureError):
        traceq.capture(tmp_path / name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there() -> None:
    assert choose_device("auto") == "cpu"
    with pytest.raises(CaptureError, match="torch sees no cuda"):
        choose_device("cuda")


def test_the_disk_refuses(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(CaptureError, match="No space left"):
        run_steps(traceq.capture(tmp_path / "o.json", warmup=0, steps=1), model, 1)
    assert list(tmp_path.iterdir()) == []


def test_write_trace_takes_gzip_and_refuses_other_things(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out.json"
    raw.write_bytes(gzip.compress(b'{"traceEvents": [], "traceName": "/secret/a"path\\x"}\n'))
    files.write_trace(raw, out, {"version": 1})
    assert json.loads(out.read_text()) == {
        "traceq": {"version": 1}, "traceEvents": [], "traceName": "out.json",
    }  # fmt: skip
    raw.write_bytes(b"{}")
    files.write_trace(raw, out, {"version": 2})
    assert json.loads(out.read_text()) == {"traceq": {"version": 2}}
    for bad in (b"[]", b"", gzip.compress(b"{" * 100)[:-9]):
        raw.write_bytes(bad)
        with pytest.raises(CaptureError):
            files.write_trace(raw, out, {})
    assert json.loads(out.read_text()) == {"traceq": {"version": 2}}
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("size", [0, 1, files._TAIL - 60, files._TAIL, files._CHUNK, 9_000_000])
def test_write_trace_copies_every_byte(tmp_path: Path, size: int) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out.json"
    value = {"filler": "x" * size, "traceName": "/tmp/abc.json"}
    raw.write_text(json.dumps(value))
    files.write_trace(raw, out, {})
    assert json.loads(out.read_text()) == {"traceq": {}, **value, "traceName": "out.json"}


def test_leftovers_of_dead_captures_are_removed(tmp_path: Path) -> None:
    final = tmp_path / "out.json.gz"
    own, kept = files.partial_name(final, "raw"), tmp_path / ".other.json.gz.host-1.raw"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = own.with_name(own.name.replace(f"-{os.getpid()}.", f"-{ended.pid}."))
    for path in (own, dead, kept):
        path.touch()
    files.remove_leftovers(final)
    assert [path.exists() for path in (own, dead, kept)] == [True, False, True]


def test_parents_and_roots() -> None:
    model = Model()
    modules = [module for module in live_modules() if module in {*model.modules()}]
    assert roots(modules) == [model]
    around = {kind.__name__ for kind in classes_around(modules, ["LayerNorm"])}
    assert around == {"LayerNorm", "Layer", "ModuleList", "Model"}
    assert classes_around(modules, ["Nothing"]) == set()
    assert torch.nn.Linear in classes_around(modules, [])


def test_modules_that_were_frozen_are_found() -> None:
    model = Model()
    gc.collect()
    gc.freeze()
    try:
        assert any(module is model for module in live_modules())
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_input_shapes() -> None:
    a, b = torch.zeros(2, dtype=torch.bfloat16), torch.zeros(1, 1, dtype=torch.long)
    assert input_shapes([[a, 3], {"k": b}, None], {"x": (b,)}) == (
        "bfloat16[2]", "int64[1, 1]", "x=int64[1, 1]",
    )  # fmt: skip


def test_step_cost() -> None:
    assert step_cost({"free": [99, 2, 4, 9], "profiler": [5], "window": [6, 8, 10]}) == {
        "without": 4, "with": 8, "steps_without": 3,
    }  # fmt: skip
    assert step_cost({"free": [9, 9, 9], "profiler": [], "window": [6]}) is None


@pytest.mark.parametrize(
    ("argv", "kept"),
    [
        (["--max-tokens", "5", "--tokenizer", "t"], ["--max-tokens", "5", "--tokenizer", "t"]),
        (["--hf-token", "x", "a"], ["--hf-token", "***", "a"]),
        (["HF_TOKEN=x", "--password=y=z"], ["HF_TOKEN=***", "--password=***"]),
        (["--key-dim", "64", "token"], ["--key-dim", "64", "token"]),
        (["--token-limit", "5", "--keys", "3"], ["--token-limit", "5", "--keys", "3"]),
        (["--use-auth", "--api-key", "k"], ["--use-auth", "--api-key", "***"]),
        (["--wandb_key", "k", "--pwd", "p"], ["--wandb_key", "***", "--pwd", "***"]),
        (
            ["http://u:pw@h/x", "--url=http://h/?token=k"],
            ["http://***@h/x", "--url=http://h/?token=***"],
        ),
        (["-H", "Authorization: Bearer k"], ["-H", "Authorization: ***"]),
        (["--json", '{"api_key": "k"}'], ["--json", '{"api_key": "***']),
        (["https://host/path", "a:b"], ["https://host/path", "a:b"]),
    ],
)
def test_secrets_on_the_command_line(argv: list[str], kept: list[str]) -> None:
    assert without_secrets(argv) == kept


def test_settings_are_json() -> None:
    assert json.loads(json.dumps(Settings(("a",)).to_dict()))["under"] == ["a"]


# --- killed at any moment -----------------------------------------------------------------------

_ENDLESS = """
import sys, torch, traceq
net = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(40)])
number = 0
while True:
    with traceq.capture(sys.argv[1], warmup=1, steps=3) as cap:
        for _ in range(4):
            net(torch.zeros(2, 4))
            cap.step()
    number += 1
    print(number, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_at_some_moment(tmp_path: Path, number: signal.Signals) -> None:
    """The final name never holds less than a whole trace, and the next capture tidies up."""
    out = tmp_path / "out.json.gz"
    for wait in (0.031,):
        process = subprocess.Popen(
            [sys.executable, "-c", _ENDLESS, str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        time.sleep(wait)
        process.send_signal(number)
        process.wait(timeout=60)
        process.stdout.close()
        assert process.returncode != 0
        assert json.loads(gzip.decompress(out.read_bytes()))["traceEvents"]
    run_steps(traceq.capture(out, warmup=0, steps=1), Model(), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["out.json.gz"]


_KILLED_IN = """
import os, signal, sys, torch, traceq
from traceq.capturing import files, session
def die(*_, **__):
    os.kill(os.getpid(), int(sys.argv[3]))
holder, _, name = sys.argv[2].rpartition(".")
setattr(eval(holder), name, die)
with traceq.capture(sys.argv[1], warmup=0):
    torch.zeros(3)
"""


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("session._export", signal.SIGKILL),
        ("files.os.fsync", signal.SIGKILL),
        ("files.Path.replace", signal.SIGKILL),
        ("files._copy", signal.SIGTERM),
        ("files.os.fsync", signal.SIGINT),
    ],
)
def test_killed_while_the_file_is_written(
    tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    out = tmp_path / "out.json.gz"
    out.write_bytes(b"an older trace")
    command = [sys.executable, "-c", _KILLED_IN, str(out), moment, str(int(number))]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert done.returncode != 0
    assert out.read_bytes() == b"an older trace"
    left = leftovers(tmp_path)
    assert left == [] if number == signal.SIGINT else len(left) <= 2
    files.remove_leftovers(out)
    assert leftovers(tmp_path) == []


def test_nothing_but_captures_imports_torch() -> None:
    code = (
        "import pkgutil, importlib, sys, traceq\n"
        "for m in pkgutil.walk_packages(traceq.__path__, 'traceq.'):\n"
        "    if not m.name.startswith('traceq.capturing.') or m.name.startswith(\n"
        "        ('traceq.capturing.server', 'traceq.capturing.ab', 'traceq.capturing.gdn.set',\n"
        "         'traceq.capturing.gdn.variants', 'traceq.capturing.files')):\n"
        "        importlib.import_module(m.name)\n"
        "        assert 'torch' not in sys.modules, m.name\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
