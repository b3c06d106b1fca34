"""A trace, opened: the way from a file to tables.

``open_trace`` reads, lays out, re-encodes and loads; :class:`Trace` answers queries. Comparing two
traces is left to ``diff``, showing them to ``report`` and ``render``.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from traceq import fxt, library
from traceq.engine import Engine, open_engine, open_remote
from traceq.errors import EngineError, PatternError, UsageError
from traceq.info import TraceInfo, describe
from traceq.kineto import ArgSelection, read_trace
from traceq.layout import Layout, arrange, nesting_ops, number_densely
from traceq.model import Ledger, TraceData
from traceq.names import fold_name, matching_names

if TYPE_CHECKING:
    import pandas as pd

RUNNING_PREFIX = "tp://"
"""``tp://localhost:9001`` or ``tp://name``: the trace that a running trace_processor holds."""

GPU_SIDE = " (on the GPU)"
"""Ends the op of the GPU's copy of a label (gpu_user_annotation)."""

Patterns = str | Sequence[str] | None
Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done so far, in all; 0 where that is unknown)."""


_LARGE_TRACE = 6_000_000
"""Slices from which on the 32-bit engine (4 GB, about 430 bytes a slice) may not do."""

_log = logging.getLogger("traceq")


def open_trace(
    path: str | Path,
    *,
    engine: str | None = None,
    args: ArgSelection = "default",
    timeout: float | None = None,
    progress: Progress | None = None,
    notify: Callable[[str], None] = _log.warning,
) -> Trace:
    """Open a trace file, ``-`` for standard input, or ``tp://…`` for a running engine's trace.

    ``engine``: ``wasm`` (default), ``wasm64``, ``shell`` or ``shell:PATH``; ``args``: the
    arguments of events to carry; ``timeout``: seconds that one query may take; ``progress`` is
    called with (stage, done, in all), ``notify`` with a sentence where something takes long once.
    Raises TraceReadError for what is no trace, EngineError where the engine cannot be had.

    >>> with open_trace("sample_traces/flatten.json.gz") as trace:
    ...     trace.ledger.total.read
    46899
    """
    name = os.fsencode(path).decode("utf-8", "replace")
    if name.startswith(RUNNING_PREFIX):
        return _attach(name, timeout)
    engine = _engine_name(engine)
    data = read_trace(path, args=args, progress=_stage(progress, "reading"))
    return _load(data, name, engine, timeout, progress, notify)


def _engine_name(name: str | None) -> str | None:
    """An engine to load a trace into; never one that runs already, whose trace would be lost."""
    name = name or os.environ.get("TRACEQ_ENGINE") or None
    if name is None or name in ("wasm", "wasm64", "shell") or name.startswith("shell:"):
        return name
    raise UsageError(
        f"there is no engine {name!r}",
        hint="Engines are wasm, wasm64, shell and shell:PATH; a running trace_processor's trace is "
        f"opened as {RUNNING_PREFIX}{name}, in place of a file.",
    )


def _load(
    data: TraceData,
    path: str,
    engine_name: str | None,
    timeout: float | None,
    progress: Progress | None,
    notify: Callable[[str], None],
) -> Trace:
    layout = arrange(data)
    info, ledger = describe(data, path), data.ledger
    chunks = fxt.encode(data, layout)
    modules = {
        **library.modules(),
        "traceq.op_names": library.op_names_module(_op_names(data, layout)),
    }
    slices = len(data.slices) + sum(event.role < 2 for event in data.asyncs)
    del data, layout
    _give_memory_back()
    large = "wasm64" if slices > _LARGE_TRACE else None
    engine = open_engine(engine_name or large, on_compile=notify)
    try:
        _fill(engine, chunks, _stage(progress, "loading"))
        _prove(engine, slices)
        engine.register_package(library.PACKAGE, modules)
    except BaseException:
        engine.close()
        raise
    return Trace(engine, path, timeout, info, ledger)


def _give_memory_back() -> None:
    """Return what the reader has freed to the system: the engine needs as much at once.

    glibc keeps freed small blocks; on the large trace that is 195 MB of the peak.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _attach(address: str, timeout: float | None) -> Trace:
    """Use the trace that a running trace_processor holds; its file is never read."""
    engine = open_remote(address.removeprefix(RUNNING_PREFIX))
    names = engine.query("SELECT DISTINCT name FROM slice WHERE name IS NOT NULL").rows()
    ops = {str(name): (fold_name(str(name)), True) for (name,) in names}
    engine.register_package(
        library.PACKAGE, {**library.modules(), "traceq.op_names": library.op_names_module(ops)}
    )
    return Trace(engine, address, timeout, None, None)


def _stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(name, done, total)


def _fill(engine: Engine, chunks: list[bytes], progress: Callable[[int, int], None] | None) -> None:
    total, done = sum(map(len, chunks)), 0

    def report(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    engine.load(chunks, progress=report)


def _prove(engine: Engine, slices: int) -> None:
    """The importer skips what it cannot take without a word: count what has arrived."""
    loaded = engine.query("SELECT COUNT(*) FROM slice").rows()[0][0]
    complaints = engine.health()
    if loaded != slices or complaints:
        detail = "".join(f", {name}: {value}" for name, value in complaints)
        raise EngineError(
            f"the engine holds {loaded} of {slices} slices{detail}",
            hint="This is a defect of traceq: please report it, with the trace if you can.",
        )


def _op_names(data: TraceData, layout: Layout) -> dict[str, tuple[str, bool]]:
    """Each slice name's op, and whether calls of that op nest anywhere in the trace."""
    used, name_of_slice = number_densely(data.slices.name)
    names = [data.strings[index] for index in used.tolist()]
    ops = [fold_name(name) for name in names]
    number = {op: index for index, op in enumerate(dict.fromkeys(ops))}
    op_of_name = np.array([number[op] for op in ops], np.int64)
    nesting = set(nesting_ops(data.slices, layout, op_of_name[name_of_slice]).tolist())
    asynchronous = {event.name: (fold_name(event.name), True) for event in data.asyncs}
    return asynchronous | {
        name: (op, number[op] in nesting) for name, op in zip(names, ops, strict=True)
    }


def _unread(address: str) -> UsageError:
    return UsageError(
        f"{address} was loaded by another program: traceq has not read its file",
        hint="Name the trace file instead, to have every event counted.",
    )


class Trace:
    """An open trace. Use it in a ``with`` block, or call :meth:`close`.

    Tables come back as pandas data frames; times are integer nanoseconds. The meaning and unit of
    each column stand in ``df.attrs["fields"]`` and in queries/README.md. Safe to share between
    threads; one query runs at a time.
    """

    def __init__(
        self,
        engine: Engine,
        path: str,
        timeout: float | None,
        info: TraceInfo | None,
        ledger: Ledger | None,
    ) -> None:
        self._engine = engine
        self._timeout = timeout
        self._info = info
        self._ledger = ledger
        self.path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Trace {self.path}>"

    def close(self) -> None:
        """Let the engine and its memory go."""
        self._engine.close()

    @property
    def info(self) -> TraceInfo:
        """What was captured. Raises UsageError for a running engine's trace."""
        if self._info is None:
            raise _unread(self.path)
        return self._info

    @property
    def ledger(self) -> Ledger:
        """The account of every event of the file. Raises UsageError for a running engine's."""
        if self._ledger is None:
            raise _unread(self.path)
        return self._ledger

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All distinct slice names, sorted."""
        table = self._engine.query("SELECT DISTINCT name FROM slice ORDER BY name")
        return tuple(str(name) for (name,) in table.rows())

    def sql(self, query: str, *, timeout: float | None = None) -> pd.DataFrame:
        """Run PerfettoSQL; the result of its last statement, as a data frame.

        ``timeout`` in seconds takes the place of the trace's own. Raises QueryError with the
        engine's text and position, QueryTimeoutError.
        """
        return self._engine.query(
            query, timeout=self._timeout if timeout is None else timeout
        ).to_pandas()

    def scopes(self, under: Patterns) -> pd.DataFrame:
        """The outermost slices that match; one row each, see ``traceq_scopes``."""
        return self._call("traceq_scopes", self._selection(under))

    def ops(self, under: Patterns = None, match: Patterns = None) -> pd.DataFrame:
        """Calls and durations per op under a scope, or of the whole trace; see ``traceq_ops``.

        ``match`` keeps the ops of which a name matches. Raises PatternError where a pattern
        matches nothing.
        """
        table = self._call("traceq_ops", self._selection(under))
        if match is None:
            return table
        chosen = {fold_name(name) for name in self.resolve(match)}
        chosen |= {op + GPU_SIDE for op in chosen}
        found = table[table["op"].isin(chosen)]
        if found.empty:
            raise not_under_scope(match)
        return _with_fields(found, table)

    def calls(self, match: Patterns, under: Patterns = None) -> pd.DataFrame:
        """Every call of the ops that match, with its scope and step; see ``traceq_calls``."""
        return self._call("traceq_calls", self._selection(match), self._selection(under))

    def calls_of_ops(self, ops: Sequence[str], under: Patterns = None) -> pd.DataFrame:
        """As :meth:`calls`, for ops by their exact folded names."""
        chosen = set(ops)
        names = [name for name in self.names if fold_name(name) in chosen]
        return self._call("traceq_calls", _literal(names), self._selection(under))

    def doubts(self) -> list[str]:
        """Sentences on what of the file is missing here; empty where all is well."""
        if self._ledger is None:
            return ["loaded by another program: its events are not accounted for"]
        total = self._ledger.total
        found = list(self._ledger.notes)
        if total.unreadable:
            found.append(f"{total.unreadable} of {total.read} events could not be read")
        return found

    def modules(self) -> pd.DataFrame:
        """One row per nn.Module class: instances, calls, total (ns); most time first."""
        return self._call("traceq_modules")

    def kernels(self, under: Patterns = None) -> pd.DataFrame:
        """Kernels, copies and sets launched under a scope, or all; see ``traceq_kernels``."""
        return self._call("traceq_kernels", self._selection(under))

    def resolve(self, patterns: Patterns) -> list[str]:
        """The slice names that patterns match. Raises PatternError naming the nearest."""
        chosen = [patterns] if isinstance(patterns, str) else list(patterns or ())
        return matching_names(chosen, self.names)

    def _selection(self, patterns: Patterns) -> str:
        """Patterns as the SQL literal that the package's functions take."""
        if patterns is None or (not isinstance(patterns, str) and not patterns):
            return "NULL"
        return _literal(self.resolve(patterns))

    def _call(self, function: str, *arguments: str) -> pd.DataFrame:
        query = library.query_named(function)
        call = f"({', '.join(arguments)})" if arguments else ""
        table = self.sql(f"INCLUDE PERFETTO MODULE {query.module}; SELECT * FROM {function}{call}")
        table.attrs["fields"] = query.columns
        return table


def not_under_scope(match: Patterns) -> PatternError:
    """The error for a pattern that matches slices of the trace, but none where it was asked for."""
    shown = match if isinstance(match, str) else ", ".join(match or ())
    return PatternError(
        f"what matches {shown!r} is not under the scope",
        hint="GPU work is not below a CPU scope; without --under, 'traceq ops --match' finds all.",
    )


def _with_fields(part: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    part = part.reset_index(drop=True)
    part.attrs.update(whole.attrs)
    return part


def _literal(names: Sequence[str]) -> str:
    """Names as the JSON array, in an SQL literal, that the package's functions take."""
    # In ASCII, since the engine takes a no-break space in SQL for a common one.
    return library.quote(json.dumps(names))
