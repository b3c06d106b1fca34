"""Perfetto's trace_processor as query engine: in this process, native, or already running.

``open_engine`` and its kin return an :class:`Engine`. Importing this package is cheap; wasmtime and
perfetto are imported when an engine is opened. What to load and what to ask is left to the callers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traceq.engine.deferred import DeferredEngine
from traceq.engine.session import Engine

if TYPE_CHECKING:
    from traceq.engine.table import QueryTable
    from traceq.engine.wasm import WasmBackend

__all__ = [
    "DeferredEngine",
    "Engine",
    "QueryTable",
    "open_engine",
    "open_remote",
    "open_shell",
    "open_wasm",
    "wasm_version",
]


def open_engine(
    spec: str | None = None, *, on_compile: Callable[[str], None] | None = None
) -> Engine:
    """Opens the engine that ``spec`` names; ``TRACEQ_ENGINE``, else ``wasm``, where it is None.

    ``wasm`` and ``wasm64`` run in this process, ``shell`` and ``shell:PATH`` are the native
    trace_processor_shell, anything else is the address of a running instance.
    """
    spec = spec or os.environ.get("TRACEQ_ENGINE") or "wasm"
    if spec in ("wasm", "wasm64"):
        return open_wasm(memory64=spec == "wasm64", on_compile=on_compile)
    kind, _, path = spec.partition(":")
    if kind == "shell" and not path.isdigit():
        return open_shell(path or None)
    return open_remote(spec)


def open_wasm(
    *,
    memory64: bool = False,
    on_compile: Callable[[str], None] | None = None,
    image: memoryview | None = None,
) -> Engine:
    """The default engine, sandboxed in this process; ``memory64`` for traces over about 3.5 GB.

    ``on_compile`` is told, in one sentence, when the engine must be compiled first (about 8 s, once
    for each version). With an ``image`` (:meth:`Engine.image`) it goes on as that engine was.
    Raises EngineError if the module is missing or does not start, or the image is another engine's.
    """

    def start() -> WasmBackend:
        # Imported in the engine's thread, like all that takes long: Ctrl-C stays prompt.
        from traceq.engine.wasm import WasmBackend

        return WasmBackend(memory64=memory64, on_compile=on_compile, image=image)

    return Engine(start, name="wasm64" if memory64 else "wasm").start()


def wasm_version() -> str:
    """Changes with the default engine's code and with what runs it: the key of its images."""
    from traceq.engine.module_cache import module_key
    from traceq.engine.wasm import find_module

    return module_key(find_module(memory64=False))


def open_shell(path: str | Path | None = None) -> Engine:
    """The native trace_processor_shell at ``path``, else ``TRACEQ_TRACE_PROCESSOR``, else the one
    that the perfetto package has downloaded before.

    Never downloads. Raises EngineError if there is none or it does not start.
    """
    from traceq.engine.shell import ShellBackend, find_shell

    binary = find_shell(path)
    return Engine(lambda: ShellBackend(binary), name=f"shell:{binary}").start()


def open_remote(address: str) -> Engine:
    """A running instance: ``host:port``, ``http://host:port``, a session's name, or a socket path.

    Interrupting a call closes the connection; the instance goes on with it, and keeps its trace and
    tables. Raises EngineError if nothing answers there.
    """
    from traceq.engine.remote import RemoteBackend

    return Engine(lambda: RemoteBackend(address), name=address, reload=False).start()


def __getattr__(name: str) -> Any:
    # The table needs numpy; whoever only opens an engine, or prints a help text, does not.
    if name == "QueryTable":
        from traceq.engine.table import QueryTable

        return QueryTable
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
