"""The native trace_processor_shell, started as a process of our own and spoken to over HTTP.

Finds the executable and never downloads one; Perfetto's client starts and ends the process. The
protocol is left to ``rpc``, the connection to ``remote``.
"""

from __future__ import annotations

import os
import platform
import sys
import traceback
from pathlib import Path
from typing import Any
from urllib.request import getproxies, proxy_bypass

from perfetto.common.exceptions import PerfettoException
from perfetto.prebuilts.manifests.trace_processor_shell import TRACE_PROCESSOR_SHELL_MANIFEST
from perfetto.trace_processor.api import TraceProcessorConfig
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory
from perfetto.trace_processor.shell import TraceProcessorHttpSubprocess

from traceq.engine.remote import HttpTransport
from traceq.engine.rpc import RpcBackend
from traceq.errors import EngineError

_HINT = "Give a path (--engine shell:PATH or TRACEQ_TRACE_PROCESSOR), or use --engine wasm."
_START_SECONDS = 30


class ShellBackend(RpcBackend):
    """A fresh process of the executable ``binary``; raises EngineError if it does not start."""

    def __init__(self, binary: Path) -> None:
        super().__init__(ShellTransport(binary))


class ShellTransport(HttpTransport):
    """The connection to a process that lives and dies with it."""

    def __init__(self, binary: Path) -> None:
        self._process = _start(binary)
        try:
            super().__init__(f"{self._process.conn.host}:{self._process.conn.port}")
        except OSError as error:
            self._process.close()
            raise EngineError(f"{binary} does not answer: {error}", hint=_HINT) from error

    def interrupt(self) -> None:
        """Kills the process, which ends a running call."""
        super().interrupt()
        self._process.close()

    def close(self) -> None:
        """Kills the process and closes the connection."""
        super().close()
        self._process.close()


def find_shell(path: str | Path | None = None) -> Path:
    """The executable at ``path``, in ``TRACEQ_TRACE_PROCESSOR``, or in perfetto's own cache.

    Raises EngineError if there is none.
    """
    given = path or os.environ.get("TRACEQ_TRACE_PROCESSOR")
    found = Path(given) if given else _cached_shell()
    if found is None:
        raise EngineError("no trace_processor_shell was found on this machine", hint=_HINT)
    if not found.is_file():
        raise EngineError(f"there is no trace_processor_shell at {found}", hint=_HINT)
    if not os.access(found, os.X_OK):
        raise EngineError(f"{found} is not executable", hint=f"Run: chmod +x {found}")
    return found.resolve()


def _cached_shell() -> Path | None:
    """Where perfetto's client keeps the executable that it downloads (``perfetto_prebuilts``)."""
    system, machine = sys.platform.lower(), platform.machine().lower()
    for entry in TRACE_PROCESSOR_SHELL_MANIFEST:
        if entry.get("platform") == system and machine in entry.get("machine", []):
            name = Path(entry["file_name"])
            file = f"{name.stem}-{entry['sha256'][:16]}{name.suffix}"
            path = Path.home() / ".local" / "share" / "perfetto" / "prebuilts" / file
            return path if path.exists() else None
    return None


def _start(binary: Path) -> Any:
    if "http" in getproxies() and not proxy_bypass("localhost"):
        # Perfetto's client would ask the proxy for the process it started, for half a minute.
        raise EngineError(
            "http_proxy is set for localhost too, which keeps the native engine from being reached",
            hint="Run: export no_proxy=localhost",
        )
    config = TraceProcessorConfig(bin_path=str(binary), load_timeout=_START_SECONDS)
    delegate = PlatformDelegate()
    try:
        return TraceProcessorHttpSubprocess(config, delegate, ProtoFactory(delegate))
    except (PerfettoException, OSError) as error:
        # Where the process cannot be made at all, the client leaves two files open in its frame.
        traceback.clear_frames(error.__traceback__)
        lines = [line for line in str(error).splitlines() if line.removeprefix("stderr: ").strip()]
        raise EngineError(
            f"{binary} did not start: {' '.join(lines[:3])[:300]}", hint=_HINT
        ) from error
