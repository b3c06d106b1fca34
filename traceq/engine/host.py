"""What the sandboxed engine may ask of this process: clocks, memory, and a place for its messages.

The functions that the trace_processor WebAssembly module imports, after Emscripten's interface
(system/lib and src/lib of emscripten, errno values of wasi). Files, network, processes and the
environment are refused. Instantiating the module and calling it is left to ``wasm``.
"""

from __future__ import annotations

import calendar
import ctypes
import struct
import time
from collections.abc import Callable
from typing import Any

import wasmtime

PAGE_BYTES = 1 << 16
# Growing in steps saves calls; the memory is reserved address space until it is touched.
GROWTH_BYTES = 16 << 20
MESSAGE_BYTES = 1 << 16

_EBADF = 8
_EINVAL = 28
_ENOSYS = 52


class GuestAbortedError(Exception):
    """The engine gave up (assertion or abort); the message is its own."""


class Host:
    """The host functions of one instance; ``memory`` must be set before the first call.

    ``messages`` collects what the engine prints (its last 64 KiB), ``exhausted`` turns true when
    it was refused more memory. Holds no store, so that a dropped instance is freed at once.
    """

    memory: wasmtime.Memory

    def __init__(self, *, memory64: bool, max_pages: int) -> None:
        self.messages = bytearray()
        self.exhausted = False
        self._max_pages = max_pages
        self._size = struct.Struct("<Q" if memory64 else "<I")
        # wasmtime passes integers as signed; addresses above the middle arrive negative.
        self._mask = (1 << (8 * self._size.size)) - 1
        self._functions: dict[str, Callable[..., Any]] = {
            "emscripten_get_now": lambda _: time.monotonic() * 1e3,
            "emscripten_date_now": lambda _: time.time() * 1e3,
            "clock_time_get": self._clock_time_get,
            "emscripten_get_heap_max": self._heap_max,
            "emscripten_resize_heap": self._resize_heap,
            "fd_write": self._fd_write,
            "emscripten_err": self._print_error,
            "environ_sizes_get": self._environ_sizes_get,
            "environ_get": lambda *_: 0,
            "__assert_fail": self._assert_fail,
            "_abort_js": self._abort,
            "_tzset_js": self._tzset,
            "_gmtime_js": self._gmtime,
            "_localtime_js": self._gmtime,
            "_timegm_js": self._timegm,
        }

    def function(self, name: str, kind: wasmtime.FuncType) -> Callable[..., Any]:
        """The host function for the import ``name``; a refusal where there is none."""
        known = self._functions.get(name)
        if known is not None:
            return known
        if not kind.results:
            return lambda *_: None
        # WASI calls return the error number, Emscripten's system calls its negative.
        refusal = _EBADF if name.startswith("fd_") else -_ENOSYS
        return lambda *_: refusal

    def read(self, store: wasmtime.Store | wasmtime.Caller, start: int, size: int) -> bytes:
        """Copies ``size`` bytes out of the engine's memory; IndexError outside of it."""
        return ctypes.string_at(self._address(store, start & self._mask, size), size)

    def write(self, store: wasmtime.Store | wasmtime.Caller, start: int, data: bytes) -> None:
        """Copies ``data`` into the engine's memory; IndexError outside of it."""
        ctypes.memmove(self._address(store, start & self._mask, len(data)), data, len(data))

    def _address(self, store: wasmtime.Store | wasmtime.Caller, start: int, size: int) -> int:
        # The engine reads strangers' files: its pointers are not to be trusted.
        if start + size > self.memory.data_len(store):
            raise IndexError("the query engine named an address outside of its memory")
        return ctypes.addressof(self.memory.data_ptr(store).contents) + start

    def _write_size(self, caller: wasmtime.Caller, start: int, value: int) -> None:
        self.write(caller, start, self._size.pack(value))

    def _clock_time_get(self, caller: wasmtime.Caller, clock: int, _: int, into: int) -> int:
        now = time.time_ns() if clock == 0 else time.monotonic_ns()
        self.write(caller, into, struct.pack("<Q", now))
        return 0

    def _heap_max(self, _: wasmtime.Caller) -> int:
        return self._signed(self._max_pages * PAGE_BYTES)

    def _signed(self, value: int) -> int:
        return value - self._mask - 1 if value > self._mask >> 1 else value

    def _resize_heap(self, caller: wasmtime.Caller, wanted: int) -> int:
        missing = (wanted & self._mask) - self.memory.data_len(caller)
        room = self._max_pages - self.memory.size(caller)
        pages = -(-missing // PAGE_BYTES)
        if pages > room:
            self.exhausted = True
            return 0
        try:
            self.memory.grow(caller, min(room, max(pages, GROWTH_BYTES // PAGE_BYTES)))
        except wasmtime.WasmtimeError:
            self.exhausted = True
            return 0
        return 1

    def _fd_write(self, caller: wasmtime.Caller, fd: int, vectors: int, n: int, done: int) -> int:
        if fd not in (1, 2):
            return _EBADF
        width, total = self._size.size, 0
        for index in range(n & self._mask):
            at = (vectors & self._mask) + 2 * width * index
            start, size = (
                int.from_bytes(self.read(caller, at + part, width), "little") for part in (0, width)
            )
            self._print(self.read(caller, start, size))
            total += size
        self._write_size(caller, done, total)
        return 0

    def _print(self, text: bytes) -> None:
        self.messages += text
        del self.messages[:-MESSAGE_BYTES]

    def _print_error(self, caller: wasmtime.Caller, text: int) -> None:
        self._print(self._string(caller, text) + b"\n")

    def _string(self, caller: wasmtime.Caller, start: int) -> bytes:
        """A C string, at most 4 KiB of it."""
        start &= self._mask
        room = self.memory.data_len(caller) - start
        return self.read(caller, start, max(0, min(room, 4096))).split(b"\0", 1)[0]

    def _environ_sizes_get(self, caller: wasmtime.Caller, count: int, size: int) -> int:
        self._write_size(caller, count, 0)
        self._write_size(caller, size, 0)
        return 0

    def _assert_fail(
        self, caller: wasmtime.Caller, what: int, file: int, line: int, _: int
    ) -> None:
        text, where = (self._string(caller, part).decode(errors="replace") for part in (what, file))
        raise GuestAbortedError(f"assertion failed: {text} ({where}:{line})")

    def _abort(self, _: wasmtime.Caller) -> None:
        raise GuestAbortedError("aborted")

    def _tzset(self, caller: wasmtime.Caller, offset: int, dst: int, name: int, other: int) -> None:
        self._write_size(caller, offset, 0)
        self.write(caller, dst, struct.pack("<i", 0))
        for start in (name, other):
            self.write(caller, start, b"UTC\0")

    def _gmtime(self, caller: wasmtime.Caller, seconds: int, into: int) -> None:
        """Fills a ``struct tm``; the sandbox lives in UTC, so local time is the same."""
        try:
            at = time.gmtime(seconds)
        except (OverflowError, OSError, ValueError):
            at = time.gmtime(0)
        fields = (at.tm_sec, at.tm_min, at.tm_hour, at.tm_mday, at.tm_mon - 1, at.tm_year - 1900)
        rest = ((at.tm_wday + 1) % 7, at.tm_yday - 1, 0)
        self.write(caller, into, struct.pack("<9i", *fields, *rest))
        # long tm_gmtoff, aligned to its own size.
        self._write_size(caller, into + (40 if self._size.size == 8 else 36), 0)

    def _timegm(self, caller: wasmtime.Caller, source: int) -> int:
        second, minute, hour, day, month, year = struct.unpack("<6i", self.read(caller, source, 24))
        if not 0 <= month < 12 or not -1899 <= year < 8100:
            return -_EINVAL
        return calendar.timegm((year + 1900, month + 1, day, hour, minute, second))
