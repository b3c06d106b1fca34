"""An engine that starts when it is first asked: most tables of a trace need none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from traceq.errors import EngineError
from traceq.progress import Progress

if TYPE_CHECKING:
    from traceq.engine.session import Engine
    from traceq.engine.table import QueryTable


class DeferredEngine:
    """Starts an engine, with its trace, at the first query; safe to share between threads.

    A start that fails or is interrupted is tried again by the next query.
    """

    def __init__(self, start: Callable[[Progress | None], Engine]) -> None:
        self._start = start
        self._engine: Engine | None = None
        self._closed = False
        self._lock = threading.Lock()

    def start(self, progress: Progress | None = None) -> Engine:
        """The engine, started now unless it was before. Raises EngineError."""
        with self._lock:
            if self._closed:
                raise EngineError("the trace has been closed", hint="Open it again.")
            if self._engine is None:
                self._engine = self._start(progress)
                self._start = _start_nothing
            if self._closed:  # by another thread, meanwhile
                self._engine.close()
            return self._engine

    def query(self, sql: str, *, timeout: float | None = None) -> QueryTable:
        """See :meth:`Engine.query`; a start is not counted into ``timeout``."""
        return self.start().query(sql, timeout=timeout)

    def close(self) -> None:
        """Let the engine go, if there is one."""
        self._closed = True
        self._start = _start_nothing
        if self._engine is not None:
            self._engine.close()


def _start_nothing(_: Progress | None) -> Engine:
    """In place of a start that is over: lets go of what the engine was to be given."""
    raise EngineError("the trace has been closed", hint="Open it again.")
