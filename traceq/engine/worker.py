"""One thread that makes the engine's calls, so that the thread that waits can be interrupted.

Calls into an engine block for as long as they run and cannot see Ctrl-C; a waiting Python thread
can. What to do about an interruption is left to the session.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

# Waiting in slices lets signals through on every platform (a lock on Windows would not).
_SLICE_SECONDS = 0.05

# Room for the engine's own stack (see ``module_cache``) on platforms with small thread stacks.
_STACK_BYTES = 16 << 20


class CallTimeoutError(Exception):
    """The call did not end in the time it was given."""


class Call(Generic[T]):
    """A piece of work for the worker, and its outcome."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work: Callable[[], T] | None = work
        self._done = threading.Event()
        self._result: T
        self._error: BaseException | None = None

    def run(self) -> None:
        """Does the work, in the worker's thread, and keeps what came of it."""
        work, self._work = self._work, None
        try:
            if work is not None:
                self._result = work()
        except BaseException as error:  # noqa: BLE001  # raised again where the result is asked for
            self._error = error
        finally:
            # Unreferenced before anybody sees the result, so that dropping it frees its memory.
            work = None
            self._done.set()

    def cancel(self) -> None:
        """Keeps the work from starting; a call that runs already goes on."""
        self._work = None

    def wait(self, seconds: float | None = None) -> None:
        """Returns when the work is done; CallTimeoutError after ``seconds`` without that."""
        end = None if seconds is None else time.monotonic() + seconds
        while not self._done.wait(_slice(end)):
            if end is not None and time.monotonic() >= end:
                raise CallTimeoutError

    def result(self) -> T:
        """What the work returned, or raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result


class Worker:
    """A daemon thread that runs calls one after the other, started with the first one."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Call[object] | None] = SimpleQueue()
        self._started = False

    def submit(self, call: Call[T]) -> None:
        """Queues ``call``; it runs after those before it."""
        if not self._started:
            self._started = True
            _start_thread(self._calls)
        self._calls.put(call)  # type: ignore[arg-type]  # only runs it

    def close(self) -> None:
        """Ends the thread after the calls that are queued."""
        self._calls.put(None)


def _slice(end: float | None) -> float:
    return _SLICE_SECONDS if end is None else min(_SLICE_SECONDS, max(0, end - time.monotonic()))


def _start_thread(calls: SimpleQueue[Call[object] | None]) -> None:
    before = threading.stack_size(_STACK_BYTES)
    try:
        threading.Thread(target=_run, args=(calls,), name="traceq-engine", daemon=True).start()
    finally:
        threading.stack_size(before)


def _run(calls: SimpleQueue[Call[object] | None]) -> None:
    while (call := calls.get()) is not None:
        call.run()
        # Not kept while waiting for the next one: its result may be large.
        del call
