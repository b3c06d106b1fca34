"""Opens traces: from a file, or an engine that runs already, to a :class:`Trace`.

Reads, lays out, joins and re-encodes; loads an engine where one is needed, and proves that
everything has arrived there. What a trace answers is in ``trace``.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from traceq import fxt, library
from traceq.cutting import cut
from traceq.engine import DeferredEngine, Engine, open_engine, open_remote, open_wasm
from traceq.errors import EngineError, QueryError, UsageError
from traceq.info import describe
from traceq.joins import join
from traceq.kept import KeptTrace
from traceq.kineto import ArgSelection, read_trace
from traceq.layout import Layout, arrange, number_densely
from traceq.limits import Limits
from traceq.model import Ledger, TraceData
from traceq.names import fold_name
from traceq.progress import Progress, in_notebook
from traceq.stored import StoredTrace
from traceq.trace import Trace

RUNNING_PREFIX = "tp://"
"""``tp://localhost:9001`` or ``tp://name``: the trace that a running trace_processor holds."""

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
    cache: bool = True,
    part: Limits | None = None,
) -> Trace:
    """Open a trace file, ``-`` for standard input, or ``tp://…`` for a running engine's trace.

    ``engine``: ``wasm`` (default), ``wasm64``, ``shell`` or ``shell:PATH``. It starts with the
    first :meth:`Trace.sql`; one that is named here or in ``TRACEQ_ENGINE`` starts at once, and all
    tables are made of what it answers: the same, later. ``args``: the
    arguments of events to carry; ``timeout``: seconds that one query may take; ``progress`` is
    called with (stage, done, in all; without it a notebook shows a bar for large files), ``notify``
    with a sentence where something takes long once. With ``cache`` what is read of a file is kept
    (``traceq cache``), and found there the next time. Of a ``part`` only what belongs to it is
    held: its tables are to be asked for with the same limits (see ``traceq.cutting``); it is not
    kept. Raises TraceReadError for what is no trace, EngineError where the engine cannot be had,
    PatternError and UsageError where there is no such part.

    >>> with open_trace("sample_traces/flatten-0.json.gz") as trace:
    ...     trace.ledger.total.read
    26070
    """
    name = os.fsencode(path).decode("utf-8", "replace")
    if name.startswith(RUNNING_PREFIX):
        return _attach(name, timeout, part)
    engine = _engine_name(engine)
    kept = KeptTrace.of(path, args) if cache and engine is None and not part else None
    stored = kept.read(name) if kept else None
    if kept and stored:
        return _reopen(kept, stored, name, timeout, notify)
    with in_notebook(name) if progress is None else nullcontext(progress) as told:
        data, layout = _read(path, args, part, told)
        return _load(data, layout, name, engine, timeout, told, notify, kept)


def convert_trace(
    path: str | Path,
    *,
    args: ArgSelection = "default",
    progress: Progress | None = None,
    part: Limits | None = None,
) -> tuple[Iterable[bytes], Ledger]:
    """A trace in the Fuchsia format, as the engine is given it, and the ledger of its events.

    Raises TraceReadError where the input is no trace that can be read, PatternError and UsageError
    where there is no such ``part``.
    """
    data, layout = _read(path, args, part, progress)
    return fxt.encode(data, layout), data.ledger


def _read(
    path: str | Path, args: ArgSelection, part: Limits | None, progress: Progress | None
) -> tuple[TraceData, Layout]:
    """A trace, or a part of it, laid out."""
    data = read_trace(path, args=args, progress=_stage(progress, "reading"))
    return cut(data, part) if part else (data, arrange(data))


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
    layout: Layout,
    path: str,
    engine_name: str | None,
    timeout: float | None,
    progress: Progress | None,
    notify: Callable[[str], None],
    kept: KeptTrace | None,
) -> Trace:
    info, ledger = describe(data, path), data.ledger
    content = _Content.of(data, layout)
    joined = None if engine_name else join(data, layout)
    del data, layout
    _give_memory_back()
    if kept and joined:
        kept.write(StoredTrace(info, ledger, joined))
    engine = DeferredEngine(lambda told: _start(content, path, engine_name, notify, told, kept))
    if joined is None:
        engine.start(progress)
    return Trace(engine, path, timeout, info, ledger, joined)


def _reopen(
    kept: KeptTrace,
    stored: StoredTrace,
    path: str,
    timeout: float | None,
    notify: Callable[[str], None],
) -> Trace:
    """A trace as it was kept; its file is read again where an engine is needed."""

    def start(progress: Progress | None) -> Engine:
        image = kept.read_image()
        if image is not None:
            with suppress(EngineError):
                return open_wasm(on_compile=notify, image=image)
        kept.check_current()
        data = read_trace(kept.path, args=kept.args, progress=_stage(progress, "reading"))
        kept.check_current()
        return _start(_Content.of(data, arrange(data)), path, None, notify, progress, kept)

    return Trace(DeferredEngine(start), path, timeout, stored.info, stored.ledger, stored.joined)


@dataclass(frozen=True, slots=True)
class _Content:
    """What an engine is given: a trace of so many slices, and the op of each name."""

    chunks: list[bytes]
    ops: dict[str, str]
    slices: int

    @classmethod
    def of(cls, data: TraceData, layout: Layout) -> _Content:
        slices = len(data.slices) + sum(event.role < 2 for event in data.asyncs)
        return cls(fxt.encode(data, layout), _op_names(data), slices)


def _start(
    content: _Content,
    path: str,
    name: str | None,
    notify: Callable[[str], None],
    progress: Progress | None,
    kept: KeptTrace | None,
) -> Engine:
    """An engine that holds the trace; its memory is kept for the next time."""
    large = "wasm64" if content.slices > _LARGE_TRACE else None
    engine = open_engine(name or large, on_compile=notify)
    try:
        with in_notebook(path) if progress is None else nullcontext(progress) as told:
            _fill(engine, content.chunks, _stage(told, "loading"))
        _prove(engine, content.slices)
        _register(engine, content.ops)
        if kept and engine.name == "wasm":
            kept.write_image(engine)
    except BaseException:
        engine.close()
        raise
    return engine


def _give_memory_back() -> None:
    """Return what the reader has freed to the system: the engine needs as much at once.

    glibc keeps freed small blocks; on the large trace that is 195 MB of the peak.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _attach(address: str, timeout: float | None, part: Limits | None) -> Trace:
    """Use the trace that a running trace_processor holds; its file is never read."""
    if part:
        raise UsageError(
            f"{address} holds a whole trace: {part.words} cannot limit it",
            hint="Limit the query itself, or name the trace file instead.",
        )
    engine = open_remote(address.removeprefix(RUNNING_PREFIX))
    names = engine.query("SELECT DISTINCT name FROM slice WHERE name IS NOT NULL").rows()
    _register(engine, {str(name): fold_name(str(name)) for (name,) in names})
    return Trace(DeferredEngine(lambda _: engine), address, timeout, None, None, None)


def _register(engine: Engine, ops: dict[str, str]) -> None:
    """Add the package's tables and functions, in the form that suits the engine."""
    modules = {**library.modules(), "traceq.op_names": library.op_names_module(ops)}
    try:
        engine.query("SELECT stack_id FROM slice LIMIT 0")
    except QueryError:
        modules |= library.portable_modules()
    engine.register_package(library.PACKAGE, modules)


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


def _op_names(data: TraceData) -> dict[str, str]:
    """Each slice name's op."""
    names = {data.strings[index] for index in number_densely(data.slices.name)[0].tolist()}
    return {name: fold_name(name) for name in sorted(names | {item.name for item in data.asyncs})}
