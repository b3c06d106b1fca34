"""``traceq capture server`` over real HTTP, with servers around a real profiler (engine_server)."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import traceq
from traceq.capturing.server import Load, Patience, ServerCapture, capture_server, recording
from traceq.capturing.server.arrival import Arrival, Contents, read_whole
from traceq.capturing.server.sglang import Sglang
from traceq.errors import CaptureError, TraceqError, UsageError

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests import engine_server as servers

TRACEQ = Path(sys.executable).parent / "traceq"
FAST = Patience(timeout=20, appear=3, settle=0.3, missing=0.4, poll=0.02)
LOAD = Load(prompts=2, input=8, output=4)
DRIVE = "prompts=2,input=8,output=4"
KEY = "sk-secret-of-mine"
GDN_LAYERS = 3


@pytest.fixture
def sglang() -> Iterator[servers.SmallSglang]:
    engine = servers.SmallSglang()
    with servers.serving(engine) as engine.url:
        yield engine


@pytest.fixture
def vllm(tmp_path: Path) -> Iterator[servers.SmallVllm]:
    engine = servers.SmallVllm(tmp_path / "launched-with")
    with servers.serving(engine) as engine.url:
        yield engine


def take(engine: servers.Engine, out: Path, /, **given: Any) -> ServerCapture:
    values: dict[str, Any] = {"load": LOAD, "patience": FAST} | given
    if isinstance(engine, servers.SmallVllm):
        values = {"server_dir": str(out.parent / "launched-with")} | values
    return capture_server(engine.url, out, **values)


def fails(engine: servers.Engine, out: Path, /, **given: Any) -> CaptureError:
    with pytest.raises(CaptureError) as caught:
        take(engine, out, **given)
    return caught.value


def layer_calls(path: Path) -> int:
    with traceq.open(path) as trace:
        return len(trace.scope_calls("GatedDeltaNet"))


def record_in(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))["traceq"]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def paths(engine: servers.Engine) -> list[str]:
    return [path for _, path, _ in engine.log]


def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come about")


# sglang: what is asked, and what comes of it


def test_records_the_whole_load(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    sglang.frames = True
    out = tmp_path / "traces"
    capture = take(sglang, out)
    (path,) = capture.files
    assert layer_calls(path) == GDN_LAYERS * LOAD.output
    assert capture.engine == "sglang"
    assert capture.warnings == ()
    assert capture.left_at is None
    assert left_in(out) == ["server_info.json", path.name]  # the server's own folder is gone


def test_stops_after_the_steps(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    sglang.frames = True
    capture = take(sglang, tmp_path, steps=2)
    assert layer_calls(capture.files[0]) == GDN_LAYERS * 2
    assert capture.warnings == ()
    assert record_in(capture.files[0])["settings"]["steps"] == 2


def test_what_is_asked_of_sglang(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    take(sglang, tmp_path, steps=2, stack="none", shapes=False, prefix="mine")
    (start,) = sglang.calls("/start_profile")
    assert start["start_step"] == 1  # so that a running profile is refused, not destroyed
    assert start["num_steps"] == 2
    assert (start["with_stack"], start["record_shapes"]) == (False, False)
    assert Path(start["output_dir"]).is_absolute()
    assert start["profile_prefix"] == "mine"
    assert start["activities"] == ["CPU", "GPU"]
    assert "/health" not in paths(sglang)  # it would run a forward
    asked = [path for path in paths(sglang) if path != "/v1/models" and "info" not in path]
    assert asked == ["/generate", "/flush_cache", "/start_profile", "/generate", "/stop_profile"]


def test_the_measured_prompts_are_the_same_whatever_the_warm_up(
    sglang: servers.SmallSglang, tmp_path: Path
) -> None:
    take(sglang, tmp_path, load=LOAD)
    take(sglang, tmp_path, load=replace(LOAD, warmup=0))
    warm, first, second = (body["input_ids"] for body in sglang.calls("/generate"))
    assert first == second != warm
    assert [len(row) for row in warm] == [len(row) for row in first] == [8, 8]
    sampling = sglang.calls("/generate")[0]["sampling_params"]
    assert sampling == {"max_new_tokens": 4, "temperature": 0, "ignore_eos": True}


def test_stages_and_ranks_have_files_of_their_own(
    sglang: servers.SmallSglang, tmp_path: Path
) -> None:
    sglang.frames = True
    sglang.ranks = sglang.info["tp_size"] = 2
    capture = take(sglang, tmp_path, steps=1, by_stage=True)
    kinds = [re.sub(r"\Atraceq-[0-9a-f]+-|\.trace.*", "", path.name) for path in capture.files]
    assert kinds == ["TP-0-DECODE", "TP-0-EXTEND", "TP-1-DECODE", "TP-1-EXTEND"]
    assert capture.warnings == ()


def test_says_which_ranks_are_missing(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    sglang.frames = True
    sglang.info["tp_size"] = 2
    capture = take(sglang, tmp_path)
    assert len(capture.files) == 1
    assert capture.warnings == ("1 of 2 traces came",)
    assert record_in(capture.files[0])["notes"] == ["1 of 2 traces came"]


def test_waits_for_live_traffic(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    sglang.frames = True
    ended = threading.Event()

    def traffic() -> None:
        while not ended.is_set():
            sglang.generate([[5, 6, 7]], 4)

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        capture = take(sglang, tmp_path / "steps", load=None, steps=3)
        by_time = take(sglang, tmp_path / "seconds", load=None, seconds=0.2)
    finally:
        ended.set()
        thread.join()
    assert layer_calls(capture.files[0]) == GDN_LAYERS * 3
    assert capture.record["load"] is None
    assert layer_calls(by_time.files[0]) >= GDN_LAYERS
    # The first ended by itself, so nobody else's profile was stopped.
    assert len(sglang.calls("/stop_profile")) == 1


@pytest.mark.parametrize("window", [{"steps": 3}, {"seconds": 0.1}])
def test_no_traffic_leaves_nothing_armed(
    sglang: servers.SmallSglang, tmp_path: Path, window: dict[str, Any]
) -> None:
    """A profile that waits for its first forward cannot be stopped: it is put off for ever."""
    patience = replace(FAST, timeout=0.3, appear=0.1)
    with pytest.raises(CaptureError):
        take(sglang, tmp_path, load=None, patience=patience, **window)
    sglang.generate([[1, 2, 3]], 6)
    assert not sglang.is_recording
    assert left_in(tmp_path) == []


def test_a_window_cut_by_the_timeout_is_no_capture(
    sglang: servers.SmallSglang, tmp_path: Path
) -> None:
    threading.Timer(0.2, sglang.generate, ([[1, 2]], 2)).start()
    patience = replace(FAST, timeout=1)
    error = fails(sglang, tmp_path, load=None, steps=50, patience=patience)
    assert error.message == "the server ran fewer than 50 steps in 1 s"
    assert not sglang.is_recording


def test_the_record_and_the_info_are_an_allow_list(
    sglang: servers.SmallSglang, tmp_path: Path
) -> None:
    sglang.key = KEY
    sglang.info["model_path"] = f"/models/{KEY}"  # whatever a server says
    capture = take(sglang, tmp_path, api_key=KEY)
    record = record_in(capture.files[0])
    assert record == capture.record
    assert record["load"] == {"prompts": 2, "input": 8, "output": 4, "seed": 0, "warmup": 1}
    assert (record["version"], record["kind"], record["engine"]) == (1, "server", "sglang")
    assert record["url"] == sglang.url
    assert record["server"]["attention_backend"] == "triton"
    written = gzip.decompress(capture.files[0].read_bytes()).decode()
    written += (tmp_path / "server_info.json").read_text()
    for secret in (KEY, "sk-of-the-server", "sk-of-the-admin"):
        assert secret not in written


def test_a_password_in_the_url_is_shown_nowhere(
    sglang: servers.SmallSglang, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sglang.url.replace("http://", "http://me:pass%2dof-mine@")
    monkeypatch.setattr(sys, "argv", ["/bin/traceq", "capture", "server", url, f"--api-key={KEY}"])
    capture = capture_server(f"{url}/v1", tmp_path, load=LOAD, patience=FAST)
    assert capture.record["url"] == sglang.url
    shown = sglang.url.replace("http://", "http://***@")
    assert capture.record["argv"] == ["traceq", "capture", "server", shown, "--api-key=***"]
    said = [b"pass-of-mine", b"Basic bWU6cGFzcy1vZi1taW5l", b"me:pass%2Dof-mine", b"a" * 999]
    for text in (*said, b" " * 4000 + b"pass-of-mine" * 9):
        sglang.faults["/v1/models"] = servers.status(400, b"I was told " + text)
        with pytest.raises(CaptureError, match=r"I was told (Basic )?(\*\*|aaa)") as caught:
            capture_server(url, tmp_path, load=LOAD)
        assert not re.search(r"pass|bWU6|mine", str(caught.value))
    assert sglang.given_key == "Basic bWU6cGFzcy1vZi1taW5l"


def test_the_record_says_how_it_was_taken(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    sglang.frames = True
    capture = take(sglang, tmp_path, steps=2, prefix="mine", activities=["CPU"])
    record = record_in(capture.files[0])
    assert record["notes"] == []
    assert record["versions"]["python"] == platform.python_version()
    assert set(record["versions"]) == {"python", "traceq"}
    assert record["settings"] == {
        "steps": 2, "seconds": None, "stack": "python", "shapes": True, "by_stage": False,
        "prefix": "mine", "activities": ["CPU"],
    }  # fmt: skip


def test_a_hostile_info_makes_no_harm(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    """Numbers that JSON cannot carry, or Python not print; half characters; logins in URLs."""
    sglang.frames = True
    sglang.info |= {"dtype": float("nan"), "revision": "\ud800", "random_seed": 1 << 99}
    sglang.info |= {"tp_size": 10**4000, "pp_size": 10**4000}
    sglang.info["model_path"] = "s3://id:hidden@bucket/\x1b[2J"
    sglang.cached_tokens = -(10**4000)
    record = record_in(take(sglang, tmp_path).files[0])
    server = record["server"]
    assert (server["dtype"], server["revision"]) == ("nan", "?")
    assert server["random_seed"] == str(1 << 99)
    assert server["model_path"] == "s3://***@bucket/\x1b[2J"
    assert record["notes"] == []


def test_warns_of_what_makes_captures_differ(
    sglang: servers.SmallSglang, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sglang.frames = True
    monkeypatch.setattr("traceq.capturing.server.sglang._FLUSH_PAUSES", (0.0,))
    sglang.kernels = False
    sglang.cached_tokens = 3
    sglang.faults["/flush_cache"] = servers.status(400)
    said: list[str] = []
    capture = take(sglang, tmp_path, notify=said.append)
    assert capture.warnings == tuple(said)
    assert record_in(capture.files[0])["notes"] == said
    text = "\n".join(said)
    assert "could not be flushed (HTTP 400)" in text
    assert "6 tokens of the prompts came from the prefix cache" in text
    assert "no GPU kernels in traceq-" in text
    assert take(sglang, tmp_path, activities=["CPU"]).warnings == tuple(said[:2])


def test_the_flush_is_tried_again(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    sglang.frames = True

    def busy(handler: Any) -> None:
        del sglang.faults["/flush_cache"]
        servers.status(400)(handler)

    sglang.faults["/flush_cache"] = busy
    assert take(sglang, tmp_path).warnings == ()
    assert len(sglang.calls("/flush_cache")) == 2


def test_warns_where_the_server_left_the_stack_out(
    sglang: servers.SmallSglang, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = sglang.start_torch
    monkeypatch.setattr(sglang, "start_torch", lambda stack, shapes: start(False, shapes))
    (warning,) = take(sglang, tmp_path).warnings
    assert warning.startswith("no Python frames in traceq-")


def test_names_what_is_on_another_disk(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    elsewhere = tmp_path / "disk-of-the-server"
    sglang.late = 1e6  # it never shows up here
    patience = replace(FAST, appear=0.2)
    capture = take(sglang, tmp_path / "out", server_dir=str(elsewhere), steps=2, patience=patience)
    assert capture.files == ()
    assert re.fullmatch(rf"{elsewhere}/traceq-\w+-TP-\*\.trace\.json\.gz", capture.left_at or "")
    assert left_in(tmp_path / "out") == ["server_info.json"]


def test_a_folder_of_the_server_keeps_its_files(
    sglang: servers.SmallSglang, tmp_path: Path
) -> None:
    (tmp_path / "old.trace.json.gz").write_bytes(b"somebody else's")
    capture = take(sglang, tmp_path / "out", server_dir=str(tmp_path))
    assert len(capture.files) == 1
    assert (tmp_path / capture.files[0].name).exists()
    same = take(sglang, tmp_path, server_dir=str(tmp_path))  # rewritten in place
    assert record_in(same.files[0])["kind"] == "server"


# sglang: failures


def test_a_running_profile_is_left_alone(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    sglang.on_scheduler(lambda: sglang.start_torch(False, False))
    error = fails(sglang, tmp_path)
    assert "one is already running" in error.message
    assert "/stop_profile" in str(error.hint)
    assert sglang.is_recording
    assert sglang.calls("/stop_profile") == []
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (servers.status(500, b"out of\n memory"), "replied with HTTP 500: out of memory"),
        (servers.status(200, b"<html>"), "replied with something that is not JSON: <html>"),
        (servers.status(200, b'{"error": 1}'), "replied with no list of results"),
        (servers.drop, "broke the connection off"),
        (servers.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"), "did not reply within"),
        (servers.drip(b"HTTP/1.1 200 OK\r\nX: "), "did not reply within"),
    ],
    ids=["500", "html", "other", "drop", "slow-body", "slow-head"],
)
def test_a_load_that_fails_in_the_window_stops_the_profile(
    sglang: servers.SmallSglang, tmp_path: Path, fault: servers.Fault, message: str
) -> None:
    sglang.faults["/generate"] = fault
    patience = replace(FAST, timeout=0.5)
    error = fails(sglang, tmp_path, load=replace(LOAD, warmup=0), patience=patience)
    assert message in error.message
    assert len(sglang.calls("/stop_profile")) == 1
    sglang.generate([[1, 2, 3]], 3)  # nor is one waiting for the next forward
    assert not sglang.is_recording
    assert left_in(tmp_path) == []


def test_a_load_that_fails_in_the_warm_up_starts_nothing(
    sglang: servers.SmallSglang, tmp_path: Path
) -> None:
    sglang.faults["/generate"] = servers.status(500)
    fails(sglang, tmp_path)
    assert not {"/start_profile", "/stop_profile"} & set(paths(sglang))


def test_a_server_that_goes_away_in_the_window(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    sglang.faults |= {"/generate": servers.drop, "/stop_profile": servers.drop}
    error = fails(sglang, tmp_path, load=replace(LOAD, warmup=0))
    assert "broke the connection off" in error.message
    assert "could not be stopped" in str(error.hint)
    assert left_in(tmp_path) == []


def test_a_start_whose_reply_is_lost_is_stopped(
    sglang: servers.SmallSglang, tmp_path: Path
) -> None:
    sglang.faults["/start_profile"] = servers.after(servers.drop, sglang, "/start_profile")
    fails(sglang, tmp_path)
    assert len(sglang.calls("/stop_profile")) == 1


@pytest.mark.parametrize("code", [400, 404, 302])
def test_a_start_that_is_refused_is_not_stopped(
    sglang: servers.SmallSglang, tmp_path: Path, code: int
) -> None:
    sglang.faults["/start_profile"] = servers.status(code, b"no", Location="http://other/")
    error = fails(sglang, tmp_path)
    assert f"/start_profile replied with HTTP {code}" in error.message
    assert sglang.calls("/stop_profile") == []


def test_a_trace_that_never_gets_whole(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    sglang.never_whole = True
    error = fails(sglang, tmp_path, patience=replace(FAST, timeout=1))
    assert "was still not whole after 1 s" in error.message
    assert left_in(tmp_path) == []


def test_a_trace_that_does_not_appear(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    sglang.late = 1e6
    patience = replace(FAST, appear=0.2)
    error = fails(sglang, tmp_path, patience=patience)
    assert "did not appear" in error.message
    assert "--server-dir" in str(error.hint)
    error = fails(sglang, tmp_path, patience=patience, server_dir=str(tmp_path))
    assert error.message == f"no new trace appeared in {tmp_path}"


def test_a_stop_that_does_not_come_back(
    sglang: servers.SmallSglang, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recording.LONGEST_STOP >= 600  # the export of a long window takes minutes
    monkeypatch.setattr(recording, "LONGEST_STOP", 0.3)
    sglang.faults["/stop_profile"] = servers.drip(b"HTTP/1.1 200 OK\r\n")
    error = fails(sglang, tmp_path, patience=replace(FAST, timeout=0.3), load=LOAD)
    assert "/stop_profile did not reply within 0.3 s" in error.message
    assert len(sglang.calls("/stop_profile")) == 1


# vLLM


def test_records_the_load_of_vllm(vllm: servers.SmallVllm, tmp_path: Path) -> None:
    vllm.frames = True
    first = take(vllm, tmp_path / "out")
    (path,) = take(vllm, tmp_path / "out").files  # those of the first are not new
    assert layer_calls(path) == GDN_LAYERS * LOAD.output
    assert "rank0" in path.name
    assert path not in first.files
    record = record_in(path)
    assert record["engine"] == "vllm"
    assert record["server"] == {"version": "0.13.0", "model": "tiny", "max_model_len": 4096}
    assert record["settings"] == {
        "steps": None, "seconds": None, "stack": None, "shapes": None, "by_stage": False,
        "prefix": None, "activities": None,
    }  # fmt: skip
    assert all(method == "POST" for method, path, _ in vllm.log if "profile" in path)


def test_plain_json_is_waited_for_too(vllm: servers.SmallVllm, tmp_path: Path) -> None:
    vllm.suffix, vllm.slow = "", 0.5
    (path,) = take(vllm, tmp_path / "out").files
    assert path.name.endswith(".pt.trace.json")
    assert json.loads(path.read_text())["traceq"]["kind"] == "server"


@pytest.mark.parametrize("has_reset", [True, False])
def test_a_salt_stands_in_for_the_reset(
    vllm: servers.SmallVllm, tmp_path: Path, has_reset: bool
) -> None:
    vllm.has_reset = has_reset
    take(vllm, tmp_path / "out")
    warm, measured = vllm.calls("/v1/completions")
    assert warm["prompt"] != measured["prompt"]
    assert ("cache_salt" in measured) is not has_reset
    assert measured["ignore_eos"] is True


def test_vllm_without_a_profiler(vllm: servers.SmallVllm, tmp_path: Path) -> None:
    vllm.folder = None
    error = fails(vllm, tmp_path / "out")
    assert "launched without a profiler" in error.message
    assert "--profiler-config '{" in str(error.hint)
    assert "VLLM_TORCH_PROFILER_DIR" in str(error.hint)
    assert vllm.calls("/stop_profile") == []


def test_vllm_fails_with_200(
    vllm: servers.SmallVllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "launched-with").mkdir()
    monkeypatch.setattr(vllm, "_stop", lambda: None)
    error = fails(vllm, tmp_path / "out", patience=replace(FAST, appear=0.2))
    assert error.message == f"no new trace appeared in {tmp_path / 'launched-with'}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 2}, "vLLM cannot count steps"),
        ({"stack": "none"}, "what vLLM records cannot be chosen from outside"),
        ({"shapes": True}, "what vLLM records cannot be chosen from outside"),
        ({"prefix": "x"}, "vLLM has no --by-stage and no --prefix"),
        ({"server_dir": None}, "vLLM writes to the folder that it was launched with"),
    ],
)
def test_what_vllm_cannot_do(
    vllm: servers.SmallVllm, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        take(vllm, tmp_path / "out", **given)
    assert vllm.calls("/start_profile") == []


# Whom it talks to


class Silent(servers.Engine):
    """No engine that is known here."""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        return 404, ""


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (servers.status(200, b"<!doctype html>"), "not JSON: <!doctype html>"),
        (servers.status(200, b"[" * 100_000), "not JSON: \\[+"),
        (servers.status(200, b"[]"), "neither sglang nor vLLM, as far as it tells"),
        (servers.status(200, b'{"data": [{"owned_by": "me"}]}'), "owned by me"),
        (
            servers.status(
                200, json.dumps({"data": [{"owned_by": f"\ud800{n}"} for n in range(9)]}).encode()
            ),
            "owned by \\?0, \\?1, \\?2 and 6 more",
        ),
        (servers.status(404), "neither sglang nor vLLM"),
        (servers.status(307, Location="http://login/"), "a redirect to http://login/"),
        (servers.status(503, b"loading"), "HTTP 503: loading"),
        (lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n"), "does not speak HTTP"),
    ],
    ids=["html", "deep", "list", "owner", "owners", "404", "redirect", "503", "ssh"],
)
def test_not_an_engine(tmp_path: Path, fault: servers.Fault, message: str) -> None:
    engine = Silent()
    engine.faults["/v1/models"] = fault
    with servers.serving(engine) as url, pytest.raises(CaptureError, match=message):
        capture_server(url, tmp_path / "out", load=LOAD)
    assert not (tmp_path / "out").exists()


ENDLESS = b"HTTP/1.1 200 OK\r\n"
CHUNKED = ENDLESS + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (servers.flood(ENDLESS + b"\r\n", b"x" * 99_999), "replied with more than 1 MiB"),
        (servers.flood(CHUNKED, b"100\r\n" + b"x" * 256 + b"\r\n"), "replied with more than 1 MiB"),
        (servers.flood(CHUNKED, b"0" * 99_999), "broke the connection off"),
        (servers.flood(ENDLESS + b"X: ", b"x" * 99_999), "broke the connection off"),
        (servers.flood(ENDLESS, b"X: x\r\n"), "broke the connection off"),
        (
            servers.status(200, gzip.compress(b"0" * (9 << 20)), **{"Content-Encoding": "gzip"}),
            "something that is not JSON",
        ),
    ],
    ids=["body", "chunks", "size-of-chunk", "header", "headers", "bomb"],
)
def test_a_reply_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: servers.Fault, message: str
) -> None:
    monkeypatch.setattr("traceq.capturing.server.http._MOST", 1 << 20)
    engine = Silent()
    engine.faults["/v1/models"] = fault
    with servers.serving(engine) as url, pytest.raises(CaptureError, match=message):
        capture_server(url, tmp_path / "out", load=LOAD)


def test_an_old_sglang_is_recognised_by_its_info(
    sglang: servers.SmallSglang, tmp_path: Path
) -> None:
    sglang.faults["/v1/models"] = sglang.faults["/server_info"] = servers.status(404)
    info = json.dumps(sglang.info).encode()
    sglang.faults["/get_server_info"] = servers.status(200, info)
    assert take(sglang, tmp_path).record["server"]["version"] == "0.5.23"


def test_an_engine_can_be_forced(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    sglang.faults["/v1/models"] = servers.status(500)
    assert take(sglang, tmp_path, engine="sglang").engine == "sglang"


def test_nothing_listens(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CaptureError, match=f"nothing can be reached at {url}"):
            capture_server(url, tmp_path, load=LOAD)


def test_a_wrong_key_is_not_repeated(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    sglang.key = "another"
    error = fails(sglang, tmp_path, api_key=KEY)
    assert "HTTP 401" in error.message
    assert "TRACEQ_SERVER_API_KEY" in str(error.hint)
    assert KEY not in str(error)
    with pytest.raises(UsageError) as caught:
        take(sglang, tmp_path, api_key=f"{KEY}\n")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"load": None}, "nothing says how long"),
        ({"steps": 3}, "3 steps do not fit into a load with output=4"),
        ({"seconds": 1.0}, "--seconds goes with neither"),
        ({"load": None, "seconds": float("nan")}, "seconds is nan"),
        ({"steps": 0}, "steps is 0"),
        ({"by_stage": True}, "--by-stage counts steps"),
        ({"stack": "modules"}, "labels of modules cannot be asked for"),
        ({"server_dir": "traces"}, "not an absolute path"),
        ({"prefix": "../x"}, "the prefix is"),
        ({"activities": ["TPU"]}, "the activities are TPU"),
        ({"engine": "other"}, "no engine is called 'other'"),
        ({"patience": 0.0}, "timeout is 0"),
        ({"patience": float("inf")}, "timeout is inf"),
    ],
)
def test_arguments_that_do_not_go_together(
    sglang: servers.SmallSglang, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        take(sglang, tmp_path / "out", **given)
    assert not set(paths(sglang)) - {"/v1/models"}


@pytest.mark.parametrize(
    "url", ["localhost:30000", "ftp://x", "http://", "http://x/?a", "http://["]
)
def test_urls_that_are_none(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="the server's URL"):
        capture_server(url, tmp_path, load=LOAD)


def test_an_output_that_is_a_file(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    error = fails(sglang, tmp_path / "out")
    assert "nothing can be written" in error.message
    assert sglang.calls("/start_profile") == []


# Loads and whole files


def test_reads_loads() -> None:
    assert Load.parse("prompts=3, output=7") == Load(prompts=3, input=256, output=7)
    for text in ("prompts", "prompts=", "prompts=-1", "speed=1", "input=1,input=2", "output=0"):
        with pytest.raises(UsageError):
            Load.parse(text)
    with pytest.raises(UsageError, match="tokens"):
        Load.parse("prompts=99999,input=99999")


def test_only_whole_files_are_whole(tmp_path: Path) -> None:
    events = [{"ph": "X", "cat": "kernel", "name": f"k{number}"} for number in range(300)]
    text = json.dumps({"traceEvents": events}, indent=1).encode()
    packed, plain = tmp_path / "a.json.gz", tmp_path / "a.json"
    for path, data in ((packed, gzip.compress(text)), (plain, text)):
        for cut in [*range(0, len(data), max(1, len(data) // 97)), len(data) - 1]:
            path.write_bytes(data[:cut])
            assert read_whole(path) is None
        path.write_bytes(data)
        assert read_whole(path) == Contents(kernels=True, frames=False)
    damaged = bytearray(gzip.compress(text))
    damaged[len(damaged) // 2] ^= 0xFF
    packed.write_bytes(damaged)
    assert read_whole(packed) is None


def test_json_that_no_decoder_takes_is_whole_once_it_has_settled(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"traceEvents": [{"cat":"python_function","dur": NaN}]}\n')
    assert read_whole(path) is None
    assert read_whole(path, settled=True) == Contents(kernels=False, frames=True)
    path.write_bytes(b'{"traceEvents": [{"name": "an event ends with a brace"}')
    assert read_whole(path, settled=True) is None


def test_a_bomb_is_read_until_time_is_up(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b"{" + b" " * (32 << 20) + b"}"))
    assert read_whole(path, until=time.monotonic()) is None
    assert read_whole(path) == Contents(kernels=False, frames=False)


def test_json_too_deep_for_a_decoder(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a":' * 99_999 + b"1" + b"}" * 99_999)
    assert read_whole(path) is None
    assert read_whole(path, settled=True) is not None


def test_zstd_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.trace.json.gz"
    path.write_bytes(b"\x28\xb5\x2f\xfd and so on")
    with pytest.raises(CaptureError, match="packed with zstd"):
        read_whole(path)


def test_says_what_it_passes_over(
    vllm: servers.SmallVllm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "launched-with"
    folder.mkdir()
    (folder / "before.trace.json.zst").write_bytes(b"")
    private = tmp_path / "private.json"
    private.write_text('{"is": "private"}')
    stop = vllm._stop

    def stop_and_more() -> None:
        (folder / "new.trace.json.zst").write_bytes(b"")
        (folder / "a\x1b[2J\n.trace.json").write_text("{}")
        (folder / "link.trace.json").symlink_to(private)
        stop()

    monkeypatch.setattr(vllm, "_stop", stop_and_more)
    capture = take(vllm, tmp_path / "out")
    assert len(capture.files) == 1
    assert list(capture.record["notes"]) == [
        "passed over: a\\x1b[2J\\n.trace.json has characters in its name that do not print",
        "passed over: link.trace.json is no plain file",
        "passed over: new.trace.json.zst is packed as no server packs a trace",
    ]


def test_files_that_keep_coming_end_with_the_time(tmp_path: Path) -> None:
    arrival = Arrival(tmp_path, lambda _: True, "", replace(FAST, timeout=0.5))
    names = iter(range(99_999))

    def say(_: str) -> None:
        (tmp_path / f"{next(names)}.json").write_text("{}")

    say("")
    began = time.monotonic()
    with contextlib.suppress(CaptureError):  # the last one may not have been read
        arrival.wait(None, 1.0, say)
    assert time.monotonic() - began < 5


def test_files_of_another_capture_are_not_ours(tmp_path: Path) -> None:
    arrival = Arrival(tmp_path, lambda _: True, "mine", FAST)
    for name in ("theirs-1.json", "mine-1.json"):
        (tmp_path / name).write_text("{}")
    assert list(arrival.wait(1, 1.0, lambda _: None)) == [tmp_path / "mine-1.json"]


def test_an_interrupted_stop_is_sent_again(
    sglang: servers.SmallSglang, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first request may not have gone out yet."""
    stop = Sglang.stop
    stops: list[float] = []

    def interrupted(self: Sglang, timeout: float) -> bool:
        stops.append(timeout)
        if len(stops) == 1:
            raise KeyboardInterrupt
        return stop(self, timeout)

    monkeypatch.setattr(Sglang, "stop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        take(sglang, tmp_path)
    assert len(stops) == 2
    assert not sglang.is_recording
    assert left_in(tmp_path) == []


# The command


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [str(TRACEQ), "capture", "server", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=os.environ | env
    )


def test_a_key_in_place_of_its_variable_is_not_repeated() -> None:
    result = run("http://127.0.0.1:9", "--steps", "3", "--api-key-env", KEY)
    assert result.returncode == 2
    assert "not the name of an environment variable" in result.stderr
    assert KEY not in result.stderr


def test_prints_the_traces_alone(sglang: servers.SmallSglang, tmp_path: Path) -> None:
    sglang.frames = True
    sglang.key = KEY
    result = run(
        sglang.url, "--steps", "2", "--drive", DRIVE, "-o", str(tmp_path), TRACEQ_SERVER_API_KEY=KEY
    )
    assert (result.returncode, result.stderr) == (0, "")
    (line,) = result.stdout.splitlines()
    assert layer_calls(Path(line)) == GDN_LAYERS * 2


def test_says_what_was_not_fetched(vllm: servers.SmallVllm, tmp_path: Path) -> None:
    folder = str(tmp_path / "nowhere")
    result = run(
        vllm.url, "--drive", DRIVE, "-o", str(tmp_path / "out"), "--server-dir", folder
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, "")
    assert "traceq: not fetched: " in result.stderr
    assert f"{folder}/*rank*.pt.trace.json.gz" in result.stderr


def test_one_line_and_the_next_step(tmp_path: Path) -> None:
    result = run("http://127.0.0.1:9", "--steps", "3", "-o", str(tmp_path))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "traceq: nothing can be reached at http://127.0.0.1:9",
        "See that the server has started, and that host and port are its own.",
    ]
    result = run("http://127.0.0.1:9", "--steps", "3", "--api-key-env", "NOT_SET")
    assert result.stderr.startswith("traceq: the environment variable 'NOT_SET' is not set\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_stops_the_profile(
    sglang: servers.SmallSglang, tmp_path: Path, number: signal.Signals
) -> None:
    load = "prompts=1,input=4,output=100000"
    command = [str(TRACEQ), "capture", "server", sglang.url, "--drive", load, "--warmup", "0"]
    with subprocess.Popen(
        [*command, "-o", str(tmp_path), "--stack", "none"], stderr=subprocess.PIPE, text=True
    ) as process:
        eventually(lambda: sglang.is_recording)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert [line for line in said.splitlines() if line] == [
        "traceq: stopping the server's profile (interrupt again not to wait)",
        "traceq: interrupted",
    ]
    assert len(sglang.calls("/stop_profile")) == 1
    assert not sglang.is_recording


def test_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['traceq', 'capture', 'server', "
        "'http://127.0.0.1:9', '--steps', '1']; import traceq.cli; traceq.cli.main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 2
    assert "nothing can be reached" in result.stderr
    assert issubclass(CaptureError, TraceqError)
