"""The engine as the rest of traceq sees it: load, query, interrupt, go on.

An :class:`Engine` owns one backend at a time. It makes every call in a worker thread, ends calls
that run too long or that the user interrupts, and replaces a backend that has broken: the trace is
loaded and packages are registered again, tables that the user created are gone. How backends work
and where they come from is left to ``wasm``, ``shell`` and ``remote``.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from traceq.engine.worker import Call, CallTimeoutError, Worker
from traceq.errors import EngineError, QueryTimeoutError

if TYPE_CHECKING:
    from traceq.engine.rpc import RpcBackend
    from traceq.engine.table import QueryTable

T = TypeVar("T")

# How long an interrupted call may take to stop before its thread is left to itself.
_STOP_SECONDS = 2.0

# SUM because newer engines give a statistic one row for each machine and trace.
_HEALTH_SQL = """
SELECT name, SUM(value) AS value FROM stats
WHERE severity != 'info' AND value != 0 GROUP BY name ORDER BY name
"""


class _Seat:
    """Holds the backend in use and the worker that calls it, apart from the engine itself.

    ``ready`` is true only between calls, when the backend has all it should have. So whatever goes
    wrong during a call, at any place, leaves a backend that is not used again.
    """

    def __init__(self) -> None:
        self.backend: RpcBackend | None = None
        self.worker = Worker()
        self.ready = False
        self.closed = False
        self._lock = threading.Lock()

    def take(self, backend: RpcBackend, worker: Worker) -> bool:
        """Seats the backend that ``worker`` has started, unless that was given up meanwhile."""
        with self._lock:
            if self.closed or self.worker is not worker:
                return False
            self.backend = backend
            return True

    def vacate(self) -> Call[None] | None:
        """Interrupts and gives up the backend, which is closed after the call that runs.

        Returns the closing to wait for, if there is one.
        """
        with self._lock:
            backend, worker = self.backend, self.worker
            self.backend, self.worker, self.ready = None, Worker(), False
        closing = None
        if backend is not None:
            backend.interrupt()
            closing = Call[None](backend.close)
            worker.submit(closing)
        worker.close()
        return closing


class Engine:
    """A trace processor that can be interrupted; every public method is thread-safe.

    ``start`` makes a fresh backend each time it is called. With ``reload`` a backend that was lost
    is given the trace again; without it (a running instance keeps its own trace) it is not.
    """

    def __init__(self, start: Callable[[], RpcBackend], *, name: str, reload: bool = True) -> None:
        self.name = name
        self._start = start
        self._reload = reload
        self._packages: dict[str, dict[str, str]] = {}
        self._chunks: list[bytes] = []
        self._loaded = False
        self._version = ""
        self._lock = threading.RLock()
        self._seat = _Seat()
        # Not a bound method: the engine must not keep itself alive.
        weakref.finalize(self, self._seat.vacate)

    def load(
        self, chunks: Iterable[bytes], *, progress: Callable[[int], None] | None = None
    ) -> None:
        """Loads a trace of any type that Perfetto knows, given as its bytes in order.

        Replaces a trace loaded before, also that of a running instance. ``progress`` is told the
        bytes taken so far, after each chunk. The chunks are kept for a rebuild. Raises EngineError
        with the engine's text if it refuses the trace; the engine is empty then, and usable.
        """
        with self._lock:
            if self._loaded:
                # Appending to a finished trace would drop it, and the packages, without a word.
                self._loaded, self._chunks = False, []
                self._seat.vacate()
            backend = self._ready()
            self._seat.ready = False
            try:
                kept = self._append(backend, chunks, progress)
                self._wait_for(backend.notify_eof).result()
                self._wait_for(partial(self._register_all, backend)).result()
            except BaseException:
                self._seat.vacate()
                raise
            self._loaded, self._chunks = True, kept
            self._seat.ready = True

    def register_package(self, name: str, modules: Mapping[str, str]) -> None:
        """Makes SQL modules includable: full module name (``name.<module>``) to its SQL.

        Remembered for rebuilds. Raises EngineError if the engine refuses the package.
        """
        copied = dict(modules)
        with self._lock:
            self._call(lambda backend: backend.register_sql_package(name, copied))
            self._packages[name] = copied

    def query(self, sql: str, *, timeout: float | None = None) -> QueryTable:
        """Runs ``sql`` and returns the rows of its last statement.

        Raises QueryError if the engine refuses it, and QueryTimeoutError after ``timeout`` seconds
        (time spent on rebuilding is not counted). After a timeout or a KeyboardInterrupt the next
        call finds a rebuilt engine, without the tables that queries created before.
        """
        from traceq.engine.table import QueryTable

        with self._lock:
            try:
                result = self._call(lambda backend: backend.query(sql), timeout)
            except CallTimeoutError:
                raise QueryTimeoutError(
                    f"the query was ended after {timeout:g} s",
                    hint="Raise --timeout or narrow the query; "
                    "a join of args with slice on arg_set_id never returns.",
                ) from None
        # Decoded in the caller's thread, where an interruption costs nothing but the result.
        return QueryTable.decode(result)

    def image(self) -> list[bytes]:
        """The default engine's memory with all that was loaded and made, in parts; to start from.

        Raises EngineError for an engine that has none in this process.
        """
        with self._lock:
            return self._call(_image_of)

    def health(self) -> list[tuple[str, int]]:
        """The engine's own complaints about the trace: name and count of each that is not zero."""
        return [(str(name), int(value)) for name, value in self.query(_HEALTH_SQL).rows()]

    @property
    def version(self) -> str:
        """The engine's version in words, such as ``Perfetto v52.0-6b9586def (…)``."""
        with self._lock:
            if not self._version:
                status = self._call(lambda backend: backend.status())
                self._version = str(status.human_readable_version)
            return self._version

    def start(self) -> Self:
        """Starts the engine now instead of with the first call; raises EngineError if it fails."""
        with self._lock:
            self._ready()
        return self

    def close(self) -> None:
        """Frees the engine; ends a call that another thread is waiting for."""
        self._seat.closed = True
        closing = self._seat.vacate()
        if closing is not None:
            with suppress(CallTimeoutError):
                closing.wait(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _append(
        self,
        backend: RpcBackend,
        chunks: Iterable[bytes],
        progress: Callable[[int], None] | None,
    ) -> list[bytes]:
        """Appends ``chunks`` to the trace; returns those to keep for a rebuild."""
        kept, taken = [], 0
        for chunk in chunks:
            self._wait_for(partial(backend.parse, chunk)).result()
            taken += len(chunk)
            if self._reload:
                kept.append(chunk)
            if progress is not None:
                progress(taken)
        return kept

    def _call(self, work: Callable[[RpcBackend], T], timeout: float | None = None) -> T:
        """Runs ``work`` on the backend, which is started or rebuilt first where it is not ready."""
        backend = self._ready()
        self._seat.ready = False
        call = self._wait_for(partial(work, backend), timeout)
        self._seat.ready = not backend.dead
        return call.result()

    def _ready(self) -> RpcBackend:
        seat = self._seat
        if seat.closed:
            raise EngineError("the query engine has been closed", hint="Open a new one.")
        if not seat.ready:
            seat.vacate()
            self._wait_for(partial(_start_in, seat, seat.worker, self._start)).result()
            self._wait_for(partial(self._restore, _seated(seat))).result()
            seat.ready = True
        return _seated(seat)

    def _restore(self, backend: RpcBackend) -> None:
        """Gives a new backend what the lost one had been given."""
        if self._loaded and self._reload:
            for chunk in self._chunks:
                backend.parse(chunk)
            backend.notify_eof()
        self._register_all(backend)

    def _register_all(self, backend: RpcBackend) -> None:
        for name, modules in self._packages.items():
            backend.register_sql_package(name, modules)

    def _wait_for(self, work: Callable[[], T], timeout: float | None = None) -> Call[T]:
        """Runs ``work`` in the worker's thread and returns when it has ended, well or badly.

        Whatever ends the wait early ends the work too, and costs the backend.
        """
        call = Call(work)
        try:
            self._seat.worker.submit(call)
            call.wait(timeout)
        except BaseException:
            call.cancel()
            self._seat.vacate()
            # Past this time it is left to itself, in its daemon thread.
            with suppress(CallTimeoutError):
                call.wait(_STOP_SECONDS)
            raise
        return call


def _start_in(seat: _Seat, worker: Worker, start: Callable[[], RpcBackend]) -> None:
    """Starts a backend, in the thread of ``worker``, and seats it."""
    backend = start()
    if not seat.take(backend, worker):
        # Starting cannot be interrupted: nobody is waiting any more.
        backend.close()


def _image_of(backend: RpcBackend) -> list[bytes]:
    transport = backend.transport
    if not hasattr(transport, "image"):
        raise EngineError("this engine's memory cannot be kept", hint="Use the default engine.")
    found: list[bytes] = transport.image()
    return found


def _seated(seat: _Seat) -> RpcBackend:
    if seat.backend is None:
        raise EngineError("the query engine has been closed", hint="Open a new one.")
    return seat.backend
