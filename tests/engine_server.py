"""A small sglang and a small vLLM for tests: their documented endpoints around a real profiler.

Each server runs forwards of a tiny Qwen3.5 (three of four layers are GatedDeltaNet, random weights)
on one scheduler thread, as the engines do, and torch.profiler on that thread. Traces are written
late and slowly, straight to their final names. What is made up: a GPU's kernel is put into traces
where a GPU was asked for, as tests have none. ``faults`` breaks an endpoint in a chosen way.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import queue
import re
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen3_5TextConfig, Qwen3_5TextModel

VOCABULARY = 20_000


@functools.cache
def model() -> Any:
    """The model of every server, made once."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = Qwen3_5TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
    )
    return Qwen3_5TextModel(config).eval()


@dataclass
class Batch:
    """Requests that were admitted together; a forward each turn until all tokens are there."""

    tokens: Any
    left: int
    cache: Any = None
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def is_prefill(self) -> bool:
        return self.cache is None

    def forward(self) -> None:
        with torch.inference_mode():
            out = model()(self.tokens, past_key_values=self.cache, use_cache=True)
        self.cache = out.past_key_values
        self.tokens = self.tokens[:, -1:]
        self.left -= 1
        if not self.left:
            self.done.set()


def with_kernel(text: bytes) -> bytes:
    """The trace with a GPU's kernel in it, at the time of its first event."""
    found = re.search(rb'"ts": ([0-9.]+)', text)
    assert found is not None
    kernel = b'{"ph": "X", "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "ts": %s, "dur": 1}'
    return text.replace(b'"traceEvents": [', b'"traceEvents": [' + kernel % found[1] + b",", 1)


class Engine:
    """The scheduler thread, with what both engines share; subclasses have the endpoints."""

    def __init__(self) -> None:
        self.forwards = 0
        self.late = 0.05
        self.slow = 0.06
        self.kernels = True
        self.frames = False  # what a request asks for is recorded only where a test looks at it
        self.frames = False
        self.never_whole = False
        self.ranks = 1
        self.key: str | None = None
        self.given_key: str | None = None
        self.log: list[tuple[str, str, Any]] = []
        self.faults: dict[str, Fault] = {}
        self.profiler: Any = None
        self.is_recording = False
        self._turns: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._batch: Batch | None = None
        self._thread = threading.Thread(target=self._schedule, daemon=True)
        self._thread.start()

    def calls(self, path: str) -> list[Any]:
        """Bodies of the requests to ``path``, in order."""
        return [body for _, asked, body in self.log if asked == path]

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and body of the reply."""
        raise NotImplementedError

    def before_forward(self, batch: Batch) -> None:
        """Called on the scheduler's thread, as a forward begins."""

    def on_scheduler(self, work: Callable[[], Any]) -> Any:
        """Run between two forwards; what it returns."""
        result: queue.Queue[Any] = queue.Queue()
        self._turns.put(lambda: result.put(work()))
        return result.get()

    def generate(self, rows: list[list[int]], tokens: int) -> None:
        """A batch, to its end."""
        batch = Batch(torch.tensor(rows), tokens)
        self._turns.put(lambda: setattr(self, "_batch", batch))
        batch.done.wait()

    def close(self) -> None:
        if self.is_recording:
            self.on_scheduler(self.stop_torch)
        self._turns.put(None)
        self._thread.join()

    def _schedule(self) -> None:
        while True:
            with contextlib.suppress(queue.Empty):
                turn = self._turns.get(block=self._batch is None)
                if turn is None:
                    return
                turn()
                continue
            batch = self._batch
            assert batch is not None
            self.forwards += 1
            self.before_forward(batch)
            batch.forward()
            if batch.done.is_set():
                self._batch = None

    def start_torch(self, stack: bool, shapes: bool) -> None:
        activities = [ProfilerActivity.CPU]
        frames = stack and self.frames
        for attempts_left in range(3 if frames else 1, 0, -1):
            # torch looks at every thread's frames here, and asserts that none of them ends
            # meanwhile: handlers that have replied get the time to come to their end.
            time.sleep(0.1 if frames else 0)
            self.profiler = profile(activities=activities, with_stack=frames, record_shapes=shapes)
            try:
                self.profiler.start()
                break
            except RuntimeError:
                if attempts_left == 1:
                    raise
        self.is_recording = True

    def stop_torch(self) -> bytes:
        """The trace as plain JSON."""
        self.profiler.stop()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self.profiler.export_chrome_trace(str(path))
            text = path.read_bytes()
        self.profiler, self.is_recording = None, False
        return with_kernel(text) if self.kernels else text

    def write(self, path: Path, text: bytes) -> None:
        """Write late and slowly to the final name, on a thread of its own."""
        threading.Thread(target=self._write, args=(path, text), daemon=True).start()

    def _write(self, path: Path, text: bytes) -> None:
        data = gzip.compress(text, 1) if path.suffix == ".gz" else text
        time.sleep(self.late)
        path.parent.mkdir(parents=True, exist_ok=True)
        pieces = 3
        size = len(data) // pieces + 1
        with path.open("wb") as file:
            for number in range(pieces - self.never_whole):
                file.write(data[number * size : (number + 1) * size])
                file.flush()
                time.sleep(self.slow / pieces)


class SmallSglang(Engine):
    """sglang 0.5: counts forwards, writes where it is told, refuses with 500."""

    def __init__(self) -> None:
        super().__init__()
        self.request: dict[str, Any] = {}
        self.start_at: int | None = None
        self.stop_at: int | None = None
        self.prefills = self.decodes = 0
        self.cached_tokens = 0
        self.info: dict[str, Any] = {
            "version": "0.5.23",
            "model_path": "/models/tiny",
            "tp_size": 1,
            "pp_size": 1,
            "dp_size": 1,
            "attention_backend": "triton",
            "api_key": "sk-of-the-server",
            "admin_api_key": "sk-of-the-admin",
            "launch_command": "launch --api-key sk-of-the-server",
            "internal_states": [{}],
        }

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        answers: dict[str, Callable[[Any], tuple[int, Any]]] = {
            "/v1/models": lambda _: (200, {"data": [{"id": "tiny", "owned_by": "sglang"}]}),
            "/server_info": lambda _: (200, self.info),
            "/flush_cache": lambda _: (200, "Cache flushed."),
            "/generate": self._generate,
            "/start_profile": lambda body: _text(self.on_scheduler(lambda: self._start(body))),
            "/stop_profile": lambda _: _text(self.on_scheduler(self._stop)),
        }
        return answers[path](body or {}) if path in answers else (404, {"detail": "Not Found"})

    def _generate(self, body: dict[str, Any]) -> tuple[int, Any]:
        tokens = body["sampling_params"]["max_new_tokens"]
        self.generate(body["input_ids"], tokens)
        meta = {"completion_tokens": tokens, "cached_tokens": self.cached_tokens}
        return 200, [{"text": "", "meta_info": meta} for _ in body["input_ids"]]

    def _start(self, body: dict[str, Any]) -> bool:
        later = bool(body.get("start_step") or body.get("profile_by_stage"))
        if later and self.is_recording:
            return False
        if self.is_recording:  # a plain start destroys what runs, and says nothing
            self.stop_torch()
        self.request = body
        first = max(int(body.get("start_step") or 0), self.forwards + 1)
        if body.get("start_step"):
            self.start_at = first
        steps = body.get("num_steps")
        self.stop_at = first + int(steps) if steps else None
        self.prefills = self.decodes = 0
        if not later:
            self._begin()
        return True

    def _begin(self) -> None:
        body = self.request
        self.start_torch(body.get("with_stack", True), body.get("record_shapes", True))

    def _stop(self, stage: str = "") -> bool:
        if not self.is_recording:
            return False
        text = self.stop_torch()
        self.start_at = None
        folder = Path(self.request.get("output_dir") or "/tmp")
        prefix = self.request.get("profile_prefix")
        name = (f"{prefix}-" if prefix else "") + self.request.get("profile_id", str(time.time()))
        for rank in range(self.ranks):
            self.write(folder / f"{name}-TP-{rank}{stage}.trace.json.gz", text)
        return True

    def before_forward(self, batch: Batch) -> None:
        if self.request.get("profile_by_stage"):
            self._by_stage(batch)
            return
        if self.stop_at is not None and self.stop_at <= self.forwards:
            self._stop()
        if self.start_at == self.forwards:
            self._begin()

    def _by_stage(self, batch: Batch) -> None:
        most = int(self.request["num_steps"])  # None ends the server, as it does with sglang
        if batch.is_prefill:
            if self.prefills == 0:
                self._begin()
            self.prefills += 1
            if self.prefills > most:
                self._stop("-EXTEND")
            return
        if self.decodes == 0:
            self._stop("-EXTEND")
            self._begin()
        self.decodes += 1
        if self.decodes > most:
            self._stop("-DECODE")


def _text(ok: bool) -> tuple[int, str]:
    return (200, "Done.") if ok else (500, "Internal Server Error")


class SmallVllm(Engine):
    """vLLM: folder and stack from its launch, 404 without a profiler, 200 for all else."""

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self.folder = folder
        self.suffix = ".gz"
        self.has_reset = False

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        model_ = {"id": "tiny", "owned_by": "vllm", "max_model_len": 4096}
        answers: dict[str, Callable[[Any], tuple[int, Any]]] = {
            "/v1/models": lambda _: (200, {"data": [model_]}),
            "/version": lambda _: (200, {"version": "0.13.0"}),
            "/v1/completions": self._complete,
        }
        if self.has_reset:
            answers["/reset_prefix_cache"] = lambda _: (200, "")
        if self.folder is not None and method == "POST":
            answers["/start_profile"] = lambda _: (200, self.on_scheduler(self._start) or "")
            answers["/stop_profile"] = lambda _: (200, self.on_scheduler(self._stop) or "")
        return answers[path](body) if path in answers else (404, {"detail": "Not Found"})

    def _complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.generate(body["prompt"], body["max_tokens"])
        return 200, {"choices": [{"text": ""} for _ in body["prompt"]]}

    def _start(self) -> None:
        if not self.is_recording:
            self.start_torch(True, False)

    def _stop(self) -> None:
        if not self.is_recording:
            return
        text, now = self.stop_torch(), time.time_ns()
        assert self.folder is not None
        front = self.folder / f"host_1.async_llm.{now}.pt.trace.json.gz"
        self.write(front, b'{"traceEvents": []}')
        self.write(self.folder / "profiler_out_0.txt", b"a table")
        worker = f"dp0_pp0_tp0_dcp0_ep0_rank0.{now}.pt.trace.json{self.suffix}"
        self.write(self.folder / worker, text)


Fault = Callable[["_Handler"], None]


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Reply with this instead."""

    def fault(handler: _Handler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return fault


def drop(handler: _Handler) -> None:
    """Close the connection without a reply."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def drip(head: bytes) -> Fault:
    """Send ``head``, then a byte now and then, for ever."""

    def fault(handler: _Handler) -> None:
        handler.wfile.write(head)
        with contextlib.suppress(OSError):
            for _ in range(600):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.1)

    return fault


def flood(head: bytes, piece: bytes) -> Fault:
    """Send ``head``, then ``piece`` as fast as it is taken, for ever."""

    def fault(handler: _Handler) -> None:
        with contextlib.suppress(OSError):
            handler.wfile.write(head)
            while True:
                handler.wfile.write(piece)

    return fault


def after(fault: Fault, engine: Engine, path: str) -> Fault:
    """Do what was asked for first; then the reply goes wrong."""

    def both(handler: _Handler) -> None:
        engine.answer("POST", path, handler.body)
        fault(handler)

    return both


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: Engine
    body: Any

    def do_GET(self) -> None:
        self._reply("GET")

    def do_POST(self) -> None:
        self._reply("POST")

    def _reply(self, method: str) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(size)
        self.body = json.loads(text) if text else None
        path = self.path
        self.engine.log.append((method, path, self.body))
        self.close_connection = True
        if path in self.engine.faults:
            self.engine.faults[path](self)
            return
        code, value = self._checked(method, path)
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        with contextlib.suppress(OSError):  # who asked may have gone
            status(code, data)(self)

    def _checked(self, method: str, path: str) -> tuple[int, Any]:
        given = self.engine.given_key = self.headers.get("Authorization")
        if self.engine.key is not None and given != f"Bearer {self.engine.key}":
            return 401, {"error": f"Unauthorized: {given}"}
        return self.engine.answer(method, path, self.body)

    def log_message(self, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        pass  # a client that went away


@contextlib.contextmanager
def serving(engine: Engine) -> Iterator[str]:
    """Serve an engine on a free port of this machine; its URL."""
    handler = type(f"Handler{uuid.uuid4().hex}", (_Handler,), {"engine": engine})
    with _Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            engine.close()
