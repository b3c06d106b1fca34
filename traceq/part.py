"""A part of a trace: scopes and limits of time, chosen step by step, asked for tables at the end.

Nothing is computed before a table is asked for. The tables themselves are :class:`Trace`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Literal

import numpy as np

from traceq.calltree import depths
from traceq.errors import UsageError
from traceq.limits import Limits
from traceq.model import Ints
from traceq.outline import NO_CPU, Outline, Vocabulary
from traceq.plotting import Span, draw_distribution, draw_ops, draw_timeline
from traceq.scopes import By
from traceq.selection import Nested, Windows
from traceq.table import ResultTable

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    from matplotlib.figure import Figure

    from traceq.timeline import Timeline
    from traceq.trace import Trace


TABLES = ("slices", "ops", "calls", "kernels", "scopes", "steps", "metadata")
"""What can be written elsewhere: see ``traceq.export``."""


@dataclass(frozen=True)
class Part:
    """What is below some scopes, within some steps or a window.

    ``levels`` are the patterns of the scopes: each of those that come after the first must be below
    what the ones before it match.

    >>> import traceq
    >>> trace = traceq.open("sample_traces/einops-0.json.gz")
    >>> decode = trace.under("GatedDeltaNet").steps(9, None)
    >>> decode
    <Part of sample_traces/einops-0.json.gz under GatedDeltaNet, steps 9:>
    >>> decode.ops(match="aten::flatten")["calls"].tolist()
    [24]
    """

    trace: Trace
    levels: tuple[tuple[str, ...], ...] = ()
    step_range: str | None = None
    is_without_first: bool = False
    span: str | None = None

    def __repr__(self) -> str:
        words = [f"under {' > '.join(map(', '.join, self.levels))}"] if self.levels else []
        words += [f"steps {self.step_range}"] if self.step_range else []
        words += ["without the first step"] if self.is_without_first else []
        words += [f"window {self.span}"] if self.span else []
        return f"<Part of {self.trace.path} {', '.join(words)}".rstrip() + ">"

    # Choosing -----------------------------------------------------------------------------

    def under(self, *patterns: str) -> Part:
        """Only what is below slices that match any of these patterns.

        Again, it narrows: ``.under("GatedDeltaNet").under("Linear")`` is what is below a Linear
        that is itself below a GatedDeltaNet. Tables raise PatternError where there is none.
        """
        return replace(self, levels=(*self.levels, patterns)) if patterns else self

    @property
    def patterns(self) -> Sequence[str]:
        """The patterns of the scopes, as the tables of :class:`Trace` take them."""
        return Nested.of(self.levels) if self.levels else ()

    def steps(self, first: int | str, stop: int | EllipsisType | None = ...) -> Part:
        """Only some steps, by their number in :meth:`Trace.steps`, as ``--steps`` has it.

        ``steps(9)`` is step 9 alone, ``steps(9, 12)`` 9 to 11, ``steps(9, None)`` all from 9 on;
        negative numbers count from the end. Or as text: ``"9"``, ``"9:12"``, ``"9:"``, ``":9"``.
        Raises UsageError for text with a ``stop``; tables raise it where there are no such steps.
        """
        if isinstance(first, str) and stop is not ...:
            raise UsageError(
                f"steps({first!r}, {stop}): text names all of the steps", hint="Write '9:12'."
            )
        until = "" if stop is ... else ":" if stop is None else f":{stop}"
        return replace(self, step_range=f"{first}{until}")

    def skip_first(self) -> Part:
        """Without the first step, which is cold."""
        return replace(self, is_without_first=True)

    def window(self, span: str) -> Part:
        """Only this time, from the trace's start: ``"1.2s:3.4s"``, ``"500ms:"``."""
        return replace(self, span=span)

    @property
    def windows(self) -> Windows | None:
        """The spans of time; None for all time. Raises UsageError where there are none."""
        return self.trace.windows(
            steps=self.step_range, skip_first=self.is_without_first, window=self.span
        )

    @property
    def limits(self) -> Limits:
        """All that was chosen."""
        return Limits(self.patterns or None, self.step_range, self.is_without_first, self.span)

    # Tables -------------------------------------------------------------------------------

    def sql(
        self,
        query: str,
        params: Mapping[str, str | int | float | None] | None = None,
        *,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Run PerfettoSQL over this part alone: :meth:`Trace.sql`, over fewer slices.

        The engine is given what was chosen, and what is below, around and launched by it, not the
        rest of the trace: that fits where the whole does not. The file is read again at the first
        query. Raises UsageError for what is no file, TraceReadError where it has changed.
        """
        return self.trace.part_sql(self.limits, query, params, timeout=timeout)

    def ops(self, match: str | None = None) -> ResultTable:
        """Calls, CPU and GPU time per op: :meth:`Trace.ops`."""
        return self.trace.ops(self.patterns, match, windows=self.windows)

    def kernels(self, *, full_names: bool = False) -> ResultTable:
        """What the GPU ran: :meth:`Trace.kernels`."""
        return self.trace.kernels(self.patterns, full_names=full_names, windows=self.windows)

    def activities(self) -> ResultTable:
        """Every GPU activity: :meth:`Trace.activities`."""
        return self.trace.activities(self.patterns, windows=self.windows)

    def scopes(self, by: By = "class") -> ResultTable:
        """Modules and labels: :meth:`Trace.scopes`."""
        return self.trace.scopes(self.patterns, by, windows=self.windows)

    def scope_calls(self) -> ResultTable:
        """Each call of the scopes: :meth:`Trace.scope_calls`. Raises UsageError without any."""
        if not self.patterns:
            raise UsageError("no scope was chosen", hint="Choose one first: trace.under(PATTERN).")
        return self.trace.scope_calls(self.patterns, windows=self.windows)

    def tree(self, *, functions: bool = False) -> ResultTable:
        """The merged call tree: :meth:`Trace.tree`."""
        return self.trace.tree(self.patterns, functions=functions, windows=self.windows)

    def calls(self, match: str) -> ResultTable:
        """Every call of the ops that match: :meth:`Trace.calls`."""
        return self.trace.calls(match, self.patterns, windows=self.windows)

    def timeline(self) -> Timeline:
        """What the GPUs did in this time, for whatever scope: :meth:`Trace.timeline`."""
        return self.trace.timeline(windows=self.windows)

    def to_duckdb(
        self,
        target: str | Path | duckdb.DuckDBPyConnection,
        tables: Sequence[str] = TABLES,
        *,
        overwrite: bool = False,
    ) -> dict[str, int]:
        """Write tables into a DuckDB file or an open connection; the number of rows of each.

        Tables: ``slices`` (the scopes, what is below them, what they ran on the GPU), ``ops``,
        ``calls``, ``kernels``, ``scopes``, ``steps`` (all of the trace), ``metadata``; each column
        has its meaning as a comment. Those that traceq wrote there before are replaced; what else
        has such a name only with ``overwrite``. Raises UsageError.
        """
        from traceq.export import to_duckdb

        return to_duckdb(self, target, tables, overwrite=overwrite)

    def to_parquet(self, folder: str | Path, tables: Sequence[str] = TABLES) -> list[Path]:
        """Write the same tables as FOLDER/NAME.parquet; the files. Raises UsageError."""
        from traceq.export import to_parquet

        return to_parquet(self, folder, tables)

    @property
    def plot(self) -> PartPlots:
        """Figures of this part."""
        return PartPlots(self)


@dataclass(frozen=True)
class PartPlots:
    """Figures of a part of a trace, as matplotlib's own objects (the extra ``plot``)."""

    part: Part

    def ops(self, most: int = 15, by: Literal["cpu", "gpu"] = "cpu") -> Figure:
        """The ops with most own time on the CPU, the largest on top; ``by="gpu"``: on the GPU.

        Raises UsageError for another ``by``.
        """
        if by not in _OWN:
            raise UsageError(f"ops have no own time {by!r}", hint='Write by="cpu" or by="gpu".')
        table = self.part.ops()
        called = table[(table["calls"] > 0) & ~table["category"].isin(NO_CPU)]
        shown = called.nlargest(most, _OWN[by])
        cpu, gpu = (shown[name].to_numpy(np.int64) for name in _OWN.values())
        title = f"Ops with most own {by.upper()} time: {_title(self.part)}"
        return draw_ops(shown["op"].tolist(), cpu, gpu, title)

    def distribution(self, op: str) -> Figure:
        """How long each call of the ops that match took.

        Where several ops match, a call below another of them is left out. Raises PatternError where
        nothing matches.
        """
        calls = self.part.calls(op)
        if calls["op"].nunique() > 1:
            calls = calls[calls["is_outermost"]]
        dur = calls["dur"].to_numpy(np.int64)
        return draw_distribution([("", dur)], f"{op}: {_title(self.part)}")

    def timeline(self, scope: int = 0) -> Figure:
        """One call of a scope: the calls below it by depth, and its work on each GPU stream.

        ``scope`` counts the calls of the chosen scopes, in the order of time; negative: from the
        end. Raises UsageError where there is none.
        """
        if not isinstance(scope, Integral):
            raise UsageError(
                f"{scope!r} is no number of a call",
                hint="Choose scopes by name with under(PATTERN), their calls from 0: timeline(0).",
            )
        found = self.part.scope_calls()
        if not -len(found) <= scope < len(found):
            raise UsageError(
                f"there is no scope {scope}: there are {len(found)}", hint="They count from 0."
            )
        row = found.iloc[scope]
        spans = [*_calls(self.part, int(row["id"])), *_work(self.part, int(row["id"]))]
        return draw_timeline(spans, f"{row['name']}, call {scope} of {_title(self.part)}")


_OWN = {"cpu": "self", "gpu": "gpu_self"}
"""The columns of own time, by what has it."""


def _title(part: Part) -> str:
    words = repr(part).removeprefix(f"<Part of {part.trace.path}").removesuffix(">")
    return Path(part.trace.path).name + words


def _calls(part: Part, scope: int) -> list[Span]:
    """The calls at and below a scope, on rows by depth."""
    words = Vocabulary()
    outline = part.trace.outline(words, part.patterns, windows=part.windows)
    top = int(outline.scopes[np.flatnonzero(outline.slice[outline.scopes] == scope)[0]])
    nodes = np.arange(top, top + int(outline.size[top]))
    depth = _depth(outline, nodes)
    ids = outline.slice[nodes]
    rows = zip(
        outline.op[nodes].tolist(),
        part.trace.slices.ts[ids].tolist(),
        outline.dur[nodes].tolist(),
        depth.tolist(),
        strict=True,
    )
    names = words.ops
    return [Span(names[op], ts, dur, f"depth {row}") for op, ts, dur, row in rows]


def _depth(outline: Outline, nodes: Ints) -> Ints:
    return depths(np.maximum(outline.parent[nodes] - nodes[0], -1))


def _work(part: Part, scope: int) -> list[Span]:
    """The GPU activities that a scope launched, on rows by stream."""
    table = part.activities()
    own = table[table["scope_id"] == scope].sort_values(["device", "stream", "ts"])
    rows = zip(own["kernel"], own["ts"], own["dur"], own["device"], own["stream"], strict=True)
    return [
        Span(name, int(ts), int(dur), f"stream {device}.{stream}")
        for name, ts, dur, device, stream in rows
    ]
