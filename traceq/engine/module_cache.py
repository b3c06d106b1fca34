"""Compiles the engine's WebAssembly module once and keeps the machine code for the next time.

A compiled module is native code: an entry is believed only if it lies in a folder and a file that
no other user can write and if its checksum is right. Anything else is compiled again, and a folder
that cannot be written only costs that time. Running the module is left to ``wasm``.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import wasmtime

from traceq.cache import cache_folder as user_folder
from traceq.cache import is_private, private_file

# Part of the key: an entry compiled under other options would be refused by wasmtime.
_OPTIONS = "epoch_interruption memory64 stack"
# Enough for two modules under a few versions of wasmtime, of 25 MB each.
_KEPT_ENTRIES = 6
# SQLite's code generator recurses: an expression may be 1,000 deep, wasmtime's half MiB lasts for
# about 700. Threads that call the engine need more stack than this (see ``worker``).
_STACK_BYTES = 3 << 19


def new_engine() -> wasmtime.Engine:
    """A wasmtime engine whose epoch, when raised, ends the calls of its stores."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.wasm_memory64 = True
    config.max_wasm_stack = _STACK_BYTES
    return wasmtime.Engine(config)


def load_module(
    engine: wasmtime.Engine,
    wasm: Path,
    *,
    on_compile: Callable[[str], None] | None = None,
    compile_module: Callable[[wasmtime.Engine, bytes], wasmtime.Module] = wasmtime.Module,
) -> wasmtime.Module:
    """The compiled form of the file ``wasm`` for ``engine``, from the cache if it is there.

    ``on_compile`` is told, in one sentence, before the seconds that compiling takes.
    """
    code = wasm.read_bytes()
    key = _key(wasm.name, code)
    for entry in _entries(key):
        module = _read_entry(engine, entry)
        if module is not None:
            return module
    if on_compile is not None:
        on_compile("compiling the query engine, once (about 8 s)")
    module = compile_module(engine, code)
    _write_entry(key, bytes(module.serialize()))
    return module


def cache_folder() -> Path:
    """Where compiled modules are kept: ``TRACEQ_CACHE_DIR`` or the user's cache folder."""
    return user_folder() / "engine"


def module_key(wasm: Path) -> str:
    """Names the compiled form of the file ``wasm`` on this machine."""
    return _key(wasm.name, wasm.read_bytes())


def _key(name: str, code: bytes) -> str:
    """Names the entry for WebAssembly ``code``: all that the machine code depends on."""
    key = hashlib.sha256(code)
    for part in (version("wasmtime"), platform.system(), platform.machine(), _OPTIONS):
        key.update(b"\0" + part.encode())
    return f"{Path(name).stem}-{key.hexdigest()[:32]}"


def _entries(key: str) -> list[Path]:
    """The files kept for ``key``; each is named ``<key>-<sha256 of its content>.cwasm``."""
    try:
        return sorted(cache_folder().glob(f"{key}-*.cwasm"))
    except OSError:
        return []


def _read_entry(engine: wasmtime.Engine, entry: Path) -> wasmtime.Module | None:
    # wasmtime trusts what it is given here: bytes that changed on disk must not reach it.
    try:
        with entry.open("rb") as file:
            private = is_private(os.fstat(file.fileno())) and is_private(entry.parent.stat())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not private or not entry.stem.endswith(f"-{digest}"):
            return None
        # Maps the file (1 ms); from a copy in memory it would take 40.
        return wasmtime.Module.deserialize_file(engine, str(entry))
    except (OSError, wasmtime.WasmtimeError):
        return None


def _write_entry(key: str, payload: bytes) -> None:
    entry = cache_folder() / f"{key}-{hashlib.sha256(payload).hexdigest()}.cwasm"
    with suppress(OSError):  # no cache then: the next start compiles again
        with private_file(entry) as file:
            file.write(payload)
        _remove_old(key, entry)


def _remove_old(key: str, entry: Path) -> None:
    """Removes what was not believed beside the new ``entry``, and the oldest of the others."""
    others = [path for path in entry.parent.glob("*.cwasm") if path != entry]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for index, path in enumerate(others):
        if path.name.startswith(f"{key}-") or index >= _KEPT_ENTRIES - 1:
            path.unlink(missing_ok=True)
