"""Opens traces: from a file, or an engine that runs already, to a :class:`Trace`.

Reads, lays out, joins and re-encodes; loads an engine where one is needed, and proves that
everything has arrived there. What a trace answers is in ``trace``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from pathlib import Path

from traceq import fxt, library
from traceq.content import file_identity
from traceq.engine import DeferredEngine, Engine, open_engine, open_remote, open_wasm
from traceq.errors import EngineError, QueryError, UsageError
from traceq.fitting import ENGINE_BYTES, ENGINE_LIMIT, Extent, needs
from traceq.info import describe
from traceq.intake import TraceFile, enough_memory, has_changed, read_file, stage
from traceq.joins import join
from traceq.kept import KeptTrace
from traceq.kineto import ArgSelection, read_trace
from traceq.layout import Layout, arrange, number_densely
from traceq.limits import Limits
from traceq.memory import free_memory, give_back, keep_freed
from traceq.model import Ledger, TraceData
from traceq.names import fold_name
from traceq.overview import Overview
from traceq.progress import LONG, Progress, file_bytes, in_notebook
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
    needed: Limits | None = None,
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
    kept. ``needed`` is a part that is read where all of the trace does not fit the memory
    (``TRACEQ_MEMORY``, else what is free). Raises TraceReadError for what is no trace or too large
    for the memory, EngineError where the engine cannot be had or cannot hold the trace,
    PatternError and UsageError where there is no such part.

    >>> with open_trace("sample_traces/flatten-0.json.gz") as trace:
    ...     trace.ledger.total.read
    26070
    """
    name = os.fsencode(path).decode("utf-8", "replace")
    if name.startswith(RUNNING_PREFIX):
        return _attach(name, timeout, part)
    if file_bytes(name) > LONG:
        keep_freed()
    engine = _engine_name(engine)
    parts = _opener(path, engine, args, timeout, notify)
    kept = KeptTrace.of(path, args) if cache and engine is None and not part else None
    if kept and (stored := kept.read(name)):
        return _reopen(kept, stored, name, timeout, notify, parts)
    file = TraceFile.at(path)
    if needed and not part and not file.fits:
        part, kept = needed, None
        notify(f"{name} is larger than the memory: only the part that is asked for is read")
    with (
        in_notebook(name) if progress is None else nullcontext(progress) as told,
        enough_memory(name),
    ):
        data, layout = read_file(file, args, part, told)
        return _load(data, layout, name, engine, timeout, told, notify, kept, parts)


def _opener(
    path: str | Path,
    engine: str | None,
    args: ArgSelection,
    timeout: float | None,
    notify: Callable[[str], None],
) -> Callable[[Limits], Trace] | None:
    """Opens parts of a file in the same way; None for what cannot be read twice."""
    if str(path) == "-" or not Path(os.fsdecode(path)).is_file():
        return None
    path = Path(os.path.abspath(path))
    identity = file_identity(path)

    def open_part(part: Limits) -> Trace:
        found = open_trace(
            path, engine=engine, args=args, timeout=timeout, notify=notify, cache=False, part=part
        )
        if file_identity(path) != identity:
            found.close()
            raise has_changed(path)
        return found

    return open_part


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
    data, layout = read_file(TraceFile.at(path), args, part, progress)
    return fxt.encode(data, layout), data.ledger


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
    parts: Callable[[Limits], Trace] | None,
) -> Trace:
    info, ledger = describe(data, path), data.ledger
    content = _Content(data, layout, engine_name)
    joined = None if engine_name else join(data, layout)
    give_back()
    if kept and joined:
        kept.write(StoredTrace(info, ledger, joined))
    engine = DeferredEngine(lambda told: _start(content, path, notify, told, kept))
    if joined is None:
        engine.start(progress)
    return Trace(engine, path, timeout, info, ledger, joined, parts)


def _reopen(
    kept: KeptTrace,
    stored: StoredTrace,
    path: str,
    timeout: float | None,
    notify: Callable[[str], None],
    parts: Callable[[Limits], Trace] | None,
) -> Trace:
    """A trace as it was kept; its file is read again where an engine is needed."""

    def start(progress: Progress | None) -> Engine:
        image = kept.read_image()
        if image is not None:
            with suppress(EngineError):
                return open_wasm(on_compile=notify, image=image)
        kept.check_current()
        data = read_trace(kept.path, args=kept.args, progress=stage(progress, "reading"))
        kept.check_current()
        return _start(_Content(data, arrange(data), None), path, notify, progress, kept)

    engine = DeferredEngine(start)
    return Trace(engine, path, timeout, stored.info, stored.ledger, stored.joined, parts)


class _Content:
    """What an engine is to be given; encoded when one is asked for, as few traces need any."""

    def __init__(self, data: TraceData, layout: Layout, engine: str | None) -> None:
        self.engine = engine
        self.slices = len(data.slices) + sum(event.role < 2 for event in data.asyncs)
        self._source: tuple[TraceData, Layout] | None = (data, layout)
        self._encoded: tuple[list[bytes], dict[str, str]] = ([], {})

    def encoded(self) -> tuple[list[bytes], dict[str, str]]:
        """The trace's bytes, and the op of each name; the trace itself is let go of.

        Raises EngineError for a trace that no engine of this machine can hold.
        """
        if self._source:
            data, layout = self._source
            _check_room(data, self.slices, self.engine)
            self._encoded = fxt.encode(data, layout), _op_names(data)
            self._source = None
            del data, layout
            give_back()
        return self._encoded


def _check_room(data: TraceData, slices: int, engine: str | None) -> None:
    free = free_memory()
    room = slices * ENGINE_BYTES if free is None else free
    if engine == "wasm":
        room = min(room, ENGINE_LIMIT)
    if slices * ENGINE_BYTES > room:
        raise EngineError(
            f"too large for the query engine: {needs(slices, ENGINE_BYTES, room)}",
            hint=Extent.of(Overview.of(data)).advice(room // ENGINE_BYTES),
        )


def _start(
    content: _Content,
    path: str,
    notify: Callable[[str], None],
    progress: Progress | None,
    kept: KeptTrace | None,
) -> Engine:
    """An engine that holds the trace; its memory is kept for the next time."""
    chunks, ops = content.encoded()
    large = "wasm64" if content.slices > _LARGE_TRACE else None
    engine = open_engine(content.engine or large, on_compile=notify)
    try:
        with in_notebook(path) if progress is None else nullcontext(progress) as told:
            _fill(engine, chunks, stage(told, "loading"))
        _prove(engine, content.slices)
        _register(engine, ops)
        if kept and engine.name == "wasm":
            kept.write_image(engine)
    except BaseException:
        engine.close()
        raise
    return engine


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
