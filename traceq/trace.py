"""A trace, opened: what it answers, as tables.

Opening one is left to ``loading``, comparing two to ``compare``, showing them to ``report`` and
``render``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from traceq import library
from traceq.asking import AskedTrace
from traceq.calls import CALL_FIELDS, SCOPE_CALL_FIELDS, calls_table, scope_calls_table
from traceq.calltree import Forest, plant
from traceq.engine import DeferredEngine
from traceq.errors import PatternError, UsageError
from traceq.gpu import Activities, gpu_spans, join_activities, waits
from traceq.info import TraceInfo
from traceq.kernels import (
    ACTIVITY_FIELDS,
    KERNEL_FIELDS,
    GpuAccount,
    activities_table,
    gpu_account,
    kernels_table,
)
from traceq.limits import Limits
from traceq.model import UNPLACED, Field, Joined, Ledger, SliceTable
from traceq.names import fold_name
from traceq.ops import GPU_SIDE, OP_FIELDS, ops_table, sorted_ops, sum_ops
from traceq.outline import Outline, Vocabulary, lay_out
from traceq.part import TABLES, Part, PartPlots
from traceq.progress import Progress
from traceq.scopes import SCOPE_FIELDS, By, modules_table, scopes_table
from traceq.selection import Patterns, Selection, Windows, resolve, select, span_of
from traceq.steps import (
    STEP_FIELDS,
    Steps,
    choose_windows,
    embedding_lookups,
    find_steps,
    steps_table,
)
from traceq.table import ResultTable
from traceq.timeline import Timeline
from traceq.timeline import timeline as tell_timeline
from traceq.tree import TREE_FIELDS, tree_table

if TYPE_CHECKING:
    import duckdb


def _unread(address: str) -> UsageError:
    return UsageError(
        f"{address} was loaded by another program: traceq has not read its file",
        hint="Name the trace file instead, to have every event counted.",
    )


class Trace:
    """An open trace. Use it in a ``with`` block, or call :meth:`close`.

    Tables come back as pandas data frames; times are integer nanoseconds. The meaning and unit of
    each column stand in ``df.attrs["fields"]`` and in queries/README.md. Safe to share between
    threads; one query runs at a time, and what is made at first use may be made twice.
    """

    def __init__(
        self,
        engine: DeferredEngine,
        path: str,
        timeout: float | None,
        info: TraceInfo | None,
        ledger: Ledger | None,
        joined: Joined | None,
        open_part: Callable[[Limits], Trace] | None = None,
    ) -> None:
        self._engine = engine
        self._open_part = open_part
        self._parts: dict[str, Trace] = {}
        self._joined = joined or AskedTrace(self.sql)
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
        """Let the engine and its memory go, where there is one, and those of parts."""
        self._engine.close()
        for part in self._parts.values():
            part.close()

    @property
    def is_asked(self) -> bool:
        """Whether the tables are made of what the engine answers, not of the file's own columns."""
        return isinstance(self._joined, AskedTrace)

    def start_engine(self, progress: Progress | None = None) -> None:
        """Start the engine and load the trace into it now; else the first :meth:`sql` does."""
        self._engine.start(progress)

    @property
    def info(self) -> TraceInfo:
        """What was captured. Raises UsageError for a running engine's trace."""
        if self._info is None:
            raise _unread(self.path)
        return self._info

    @property
    def facts(self) -> TraceInfo | None:
        """What was captured; None for a running engine's trace."""
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
        return tuple(self.slices.names)

    def sql(
        self,
        query: str,
        params: Mapping[str, str | int | float | None] | None = None,
        *,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Run PerfettoSQL; the result of its last statement, as a data frame.

        Each ``$name`` of ``params`` stands for its value, quoted; one in a string or a comment
        stays as it is. ``timeout`` in seconds takes the place of the trace's own. Raises UsageError
        for a ``$name`` without a value or a value without one, QueryError with the engine's text
        and position, QueryTimeoutError.
        """
        return self._engine.query(
            library.bind(query, params or {}), timeout=self._timeout if timeout is None else timeout
        ).to_pandas()

    def part_sql(
        self,
        limits: Limits,
        query: str,
        params: Mapping[str, str | int | float | None] | None = None,
        *,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Run PerfettoSQL over a part of the trace alone: see :meth:`Part.sql`."""
        if not limits:
            return self.sql(query, params, timeout=timeout)
        part = self._parts.get(limits.words)
        if part is None:
            part = self._parts.setdefault(limits.words, self._read_part(limits))
        return part.sql(query, params, timeout=timeout)

    def _read_part(self, limits: Limits) -> Trace:
        if self._open_part is None:
            raise UsageError(
                f"{self.path} cannot be read again, for a part of it",
                hint="Use Trace.sql(), or open a file.",
            )
        return self._open_part(limits)

    @property
    def slices(self) -> SliceTable:
        """All slices as arrays, by slice id."""
        return self._joined.slices

    @cached_property
    def gpu(self) -> Activities:
        """All GPU activities, with what launched them; made at first use."""
        return join_activities(self.slices, self._joined.launches, self._joined.forward_ops)

    @cached_property
    def _fold(self) -> list[str]:
        """The op of each name in ``slices.names``."""
        return [fold_name(name) for name in self.slices.names]

    @cached_property
    def _forest(self) -> Forest:
        return plant(self.slices, np.ones(len(self.slices), np.bool_))

    @cached_property
    def _steps(self) -> Steps:
        return find_steps(self.slices)

    def scope_calls(self, under: Patterns, *, windows: Windows | None = None) -> ResultTable:
        """The outermost slices that match; columns: ``traceq.calls.SCOPE_CALL_FIELDS``."""
        table = scope_calls_table(self.slices, self.selection(under, windows))
        return _documented(table, SCOPE_CALL_FIELDS)

    def windows(
        self, *, steps: str | None = None, skip_first: bool = False, window: str | None = None
    ) -> Windows | None:
        """The spans of time that a table is to be limited to; None for all time.

        ``steps`` is ``"2:5"`` (numbers of :meth:`steps`, the last left out), ``skip_first`` leaves
        the first step out, ``window`` is ``"1.2s:3.4s"``, counted from the trace's start. Raises
        UsageError where there is no such step or time.
        """
        return choose_windows(self._steps, self.slices, steps, skip_first, window)

    def ops(
        self, under: Patterns = None, match: Patterns = None, *, windows: Windows | None = None
    ) -> ResultTable:
        """Calls, CPU time and GPU time per op under a scope, or of the whole trace.

        Columns: ``traceq.ops.OP_FIELDS``; the largest ``total`` first, then by name. ``match``
        keeps the ops of which a name matches; ``windows`` comes from :meth:`windows`. Raises
        PatternError where a pattern matches nothing.
        """
        selection = self.selection(under, windows)
        table = ops_table(self.slices, self._forest, self._fold, self.gpu, selection)
        table = _documented(sorted_ops(table).reset_index(drop=True), OP_FIELDS)
        if match is None:
            return table
        chosen = {fold_name(name) for name in self.resolve(match)}
        chosen |= {op + GPU_SIDE for op in chosen}
        found = table[table["op"].isin(chosen) & (table["calls"] > 0)]
        if found.empty:
            raise not_under_scope(match)
        return _documented(found.reset_index(drop=True), OP_FIELDS)

    def kernels(
        self, under: Patterns = None, *, full_names: bool = False, windows: Windows | None = None
    ) -> ResultTable:
        """What the GPU ran, one row a kernel, copy or set.

        Columns: ``traceq.kernels.KERNEL_FIELDS``; ``full_names`` keeps template arguments apart.
        """
        table = kernels_table(
            self.slices, self._fold, self.gpu, self.selection(under, windows), full_names=full_names
        )
        return _documented(table, KERNEL_FIELDS)

    def activities(self, under: Patterns = None, *, windows: Windows | None = None) -> ResultTable:
        """Every GPU activity, with scope, op, delay and stream.

        Columns: ``traceq.kernels.ACTIVITY_FIELDS``.
        """
        selection = self.selection(under, windows)
        table = activities_table(self.slices, self._fold, self.gpu, selection)
        return _documented(table, ACTIVITY_FIELDS)

    def scopes(
        self, under: Patterns = None, by: By = "class", *, windows: Windows | None = None
    ) -> ResultTable:
        """Modules and labels, one row a class, instance or layer: CPU and GPU time.

        Columns: ``traceq.scopes.SCOPE_FIELDS``.
        """
        table = scopes_table(self.slices, self.gpu, self.selection(under, windows), by)
        return _documented(table, SCOPE_FIELDS)

    def tree(
        self, under: Patterns = None, *, functions: bool = False, windows: Windows | None = None
    ) -> ResultTable:
        """The merged call tree: modules, ops, kernels. Columns: ``traceq.tree.TREE_FIELDS``.

        ``functions`` adds Python functions.
        """
        selection = self.selection(under, windows)
        table = tree_table(self.slices, self._fold, self.gpu, selection, functions=functions)
        return _documented(table, TREE_FIELDS)

    def steps(self) -> ResultTable:
        """The steps of the capture. Columns: ``traceq.steps.STEP_FIELDS``.

        ``df.attrs["source"]`` says how they were found.
        """
        lookups = embedding_lookups(self.slices, self._joined.shapes)
        table = steps_table(self.slices, self.gpu, self._steps, lookups)
        table.attrs["source"] = self._steps.source
        return _documented(table, STEP_FIELDS)

    @property
    def step_source(self) -> str:
        """How the steps were found, in words; empty where there are none."""
        return self._steps.source

    def timeline(self, *, windows: Windows | None = None) -> Timeline:
        """What the GPUs did over the trace, or from the first to the last of the windows."""
        start, end = span_of(self.slices)
        if windows is not None:
            start, end = max(start, windows.span[0]), min(end, windows.span[1])
        return tell_timeline(gpu_spans(self.slices, self.gpu), waits(self.slices), start, end)

    def under(self, *patterns: str) -> Part:
        """The part below slices that match any of these patterns: chain on, then ask for a table.

        ``trace.under("GatedDeltaNet").under("Linear").steps(2, None).ops(match="aten::*")``
        """
        return Part(self).under(*patterns)

    @property
    def whole(self) -> Part:
        """All of the trace, as a part to chain on: ``trace.whole.skip_first().kernels()``."""
        return Part(self)

    def to_duckdb(
        self,
        target: str | Path | duckdb.DuckDBPyConnection,
        tables: Sequence[str] = TABLES,
        *,
        overwrite: bool = False,
    ) -> dict[str, int]:
        """Write the tables of the whole trace into a DuckDB file: :meth:`Part.to_duckdb`."""
        return self.whole.to_duckdb(target, tables, overwrite=overwrite)

    def to_parquet(self, folder: str | Path, tables: Sequence[str] = TABLES) -> list[Path]:
        """Write them as Parquet files: :meth:`Part.to_parquet`."""
        return self.whole.to_parquet(folder, tables)

    @property
    def plot(self) -> PartPlots:
        """Figures of the whole trace; of a part: ``trace.under(...).plot``."""
        return PartPlots(Part(self))

    def selection(self, under: Patterns, windows: Windows | None) -> Selection:
        """The part of the trace that a table is about. Raises PatternError."""
        return select(self.slices, under, windows)

    def calls(
        self, match: Patterns, under: Patterns = None, *, windows: Windows | None = None
    ) -> ResultTable:
        """Every call of the ops that match, with its scope and step.

        Columns: ``traceq.calls.CALL_FIELDS``. Raises PatternError where a pattern matches nothing.
        """
        selection = self.selection(under, windows)
        table = calls_table(self.slices, self._fold, self._steps, selection, self.resolve(match))
        return _documented(table, CALL_FIELDS)

    def sum_ops(
        self, ops: Collection[str], under: Patterns = None, *, windows: Windows | None = None
    ) -> dict[str, Any]:
        """Some ops, by their exact names, as one: see ``traceq.ops.sum_ops``."""
        selection = self.selection(under, windows)
        return sum_ops(self.slices, self._forest, self._fold, self.gpu, selection, ops)

    def gpu_account(self, under: Patterns = None, *, windows: Windows | None = None) -> GpuAccount:
        """Where the GPU work belongs: to the scopes, outside of them, or to no known launch."""
        return gpu_account(self.slices, self.gpu, self.selection(under, windows))

    def outline(
        self, words: Vocabulary, under: Patterns = None, *, windows: Windows | None = None
    ) -> Outline:
        """What is below each scope, in its order; ``words`` are shared by what is compared."""
        return lay_out(self.slices, self._fold, self.selection(under, windows), self._steps, words)

    def shapes(self) -> ResultTable:
        """The input shapes of ops, where they were recorded: slice id and shapes as JSON."""
        shapes = self._joined.shapes
        texts = np.array([*shapes.texts, ""], object)
        table = pd.DataFrame({"id": shapes.id, "dims": texts[shapes.text]})
        return _documented(table, library.query_named("traceq_shapes").columns)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all names and times: captures that share it are copies of one."""
        slices = self.slices
        if not len(slices):
            return ""
        digest = hashlib.blake2b(slices.ts.tobytes(), digest_size=16)
        digest.update(slices.dur.tobytes() + slices.name.tobytes())
        digest.update("\0".join(slices.names).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def doubts(self) -> list[str]:
        """Sentences on what of the file is missing here; empty where all is well."""
        if self._ledger is None:
            return ["loaded by another program: its events are not accounted for"]
        total = self._ledger.total
        found = list(self._ledger.notes)
        if self.slices.dur.sum(dtype=np.float64) >= 2**62:
            found.append("its durations add up to more than a hundred years: sums are wrong")
        if unplaced := sum(self._ledger.reasons[reason] for reason in UNPLACED):
            found.append(f"{unplaced} of {total.read} events have no time that can be used")
        if total.unreadable:
            found.append(f"{total.unreadable} of {total.read} events could not be read")
        return found

    def modules(self) -> ResultTable:
        """One row per nn.Module class: instances, calls, total (ns); most time first."""
        table = modules_table(self.slices, self._fold)
        return _documented(table, library.query_named("traceq_modules").columns)

    def resolve(self, patterns: Patterns) -> list[str]:
        """The slice names that patterns match. Raises PatternError naming the nearest."""
        return resolve(self.slices, patterns)


def not_under_scope(match: Patterns) -> PatternError:
    """The error for a pattern that matches slices of the trace, but none where it was asked for."""
    shown = match if isinstance(match, str) else ", ".join(match or ())
    return PatternError(
        f"what matches {shown!r} is not under the scope",
        hint="GPU work is not below a CPU scope; without --under, 'traceq ops --match' finds all.",
    )


def _documented(table: pd.DataFrame, fields: Sequence[Field]) -> ResultTable:
    """Let a table carry the meaning and unit of its columns."""
    return ResultTable.of(table, fields)
