"""Reads trace files into the cache on the other cores, while this process works on those before.

A helper is a child process that is given one file after the other; what it has read is found in
the cache. One that fails, or is not there, costs only that the file is read here. How a file is
opened is left to ``loading``.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from traceq.cache import user_cache
from traceq.errors import TraceqError
from traceq.info import describe
from traceq.joins import join
from traceq.kept import KeptTrace
from traceq.kineto import ArgSelection, read_trace
from traceq.layout import arrange
from traceq.progress import file_bytes
from traceq.stored import StoredTrace

_MOST = 8
_MEMORY = 20
"""Bytes of memory for a byte of a packed file while it is read, a little more than measured."""

WORTHWHILE = 3_000_000
"""Bytes of all files together from which on starting helpers pays."""


class ReadAhead:
    """The files that are still to be read, shared out between helpers and this process."""

    def __init__(self, paths: Sequence[str], args: ArgSelection) -> None:
        self._args = args
        self._left = list(dict.fromkeys(paths))
        self._ready: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._helpers: list[subprocess.Popen[bytes]] = []

    def start(self, helpers: int) -> None:
        """Let so many helpers take one file after the other."""
        for _ in range(helpers):
            with suppress(OSError):  # no memory, no processes: then all is read here
                self._helpers.append(_start_helper())
        for helper in self._helpers:
            threading.Thread(target=self._feed, args=(helper,), daemon=True).start()

    def wait_for(self, path: str) -> None:
        """Return when no helper works on the file (any more): it can be opened then."""
        with self._lock:
            if path in self._left:
                self._left.remove(path)
            ready = self._ready.get(path)
        if ready is not None:
            ready.wait()

    def stop(self) -> None:
        """End the helpers, whatever they do."""
        with self._lock:
            self._left.clear()
        for helper in self._helpers:
            helper.kill()
            helper.wait()
            for pipe in (helper.stdin, helper.stdout):
                with suppress(OSError):  # what was not written yet has no reader
                    if pipe is not None:
                        pipe.close()

    def _feed(self, helper: subprocess.Popen[bytes]) -> None:
        assert helper.stdin is not None
        assert helper.stdout is not None
        while (task := self._take()) is not None:
            path, ready = task
            try:
                line = json.dumps([os.path.abspath(path), self._args])
                helper.stdin.write(line.encode() + b"\n")
                helper.stdin.flush()
                if not helper.stdout.readline():
                    return
            except (OSError, ValueError):
                return
            finally:
                ready.set()

    def _take(self) -> tuple[str, threading.Event] | None:
        with self._lock:
            if not self._left:
                return None
            path = self._left.pop(0)
            ready = self._ready[path] = threading.Event()
            return path, ready


def _start_helper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # -P: what lies beside the traces is not to be imported.
        [sys.executable, "-P", "-c", "from traceq.ahead import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is this process's to answer
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


@contextlib.contextmanager
def reading_ahead(
    paths: Sequence[str], args: ArgSelection, *, helpers: int | None = None
) -> Iterator[ReadAhead]:
    """Files that will be opened in this order, read ahead where that pays.

    ``helpers``: how many processes; by default as many as there are other cores and files.
    """
    ahead = ReadAhead(paths, args)
    if helpers is None:
        pays = user_cache().limit > 0 and sum(map(file_bytes, paths)) >= WORTHWHILE
        helpers = min(_cores(), len(set(paths)), _room(paths)) - 1 if pays else 0
    if paths:
        ahead.wait_for(paths[0])  # that one is read here
    try:
        ahead.start(helpers)
        yield ahead
    finally:
        ahead.stop()


def _room(paths: Sequence[str]) -> int:
    """How many processes may read at once: each needs up to so much memory for a packed file."""
    need = max(map(file_bytes, paths), default=0) * _MEMORY + 1
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not told on this platform
        return 2
    return max(1, min(_MOST, free // need))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# In the helper ------------------------------------------------------------------------------


def serve() -> None:
    """Read the files that are named on standard input, a line each; a line out when one is done."""
    for line in sys.stdin.buffer:
        path, args = json.loads(line)
        with suppress(TraceqError, MemoryError):  # the caller reads it again, and says why
            keep_file(path, args)
        sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()


def keep_file(path: str | Path, args: ArgSelection) -> None:
    """Read a file into the cache, unless it is there. Raises TraceReadError."""
    kept = KeptTrace.of(path, args)
    if kept is None or kept.is_there():
        return
    data = read_trace(path, args=args)
    joined = join(data, arrange(data))
    if joined is not None:
        kept.write(StoredTrace(describe(data, os.fspath(path)), data.ledger, joined))
