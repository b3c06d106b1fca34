"""The ops of many traces as one table: what each trace has, added up.

One task a trace, of which a table comes back; see ``many``. What ranks of one run tell besides is
left to ``ranks``, what is more than noise to ``compare``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from traceq.calltree import ratio
from traceq.errors import UsageError
from traceq.gathering import LeftOut, Opening, gather_each, split
from traceq.kernels import GpuAccount, GpuWork
from traceq.limits import Limits
from traceq.many import Workers
from traceq.model import Field
from traceq.ops import OP_FIELDS
from traceq.progress import Progress
from traceq.selection import Patterns
from traceq.table import ResultTable
from traceq.trace import Trace

OF_TRACES = (
    Field("traces", "LONG", "", "Number of traces that have it."),
    Field("total_median", "LONG", "ns", "Median of total over these traces,"),
    Field("total_least", "LONG", "ns", "the least,"),
    Field("total_most", "LONG", "ns", "and the most."),
    Field("most_path", "STRING", "", "The first trace that has the most; empty without calls."),
)
OP_SUM_FIELDS = (*OP_FIELDS, *OF_TRACES)
"""Columns of the sums: those of one trace, added up over all, and how the totals differ."""


@dataclass(frozen=True, slots=True)
class TraceOps:
    """The ops of one trace (OP_FIELDS), its scopes (None: the whole trace) and GPU work.

    ``doubts`` are sentences on what of the file is missing, ``step_source`` tells how steps were
    found.
    """

    path: str
    ops: pd.DataFrame
    scopes: int | None
    scopes_total: int | None
    gpu: GpuAccount
    doubts: tuple[str, ...]
    step_source: str


@dataclass(frozen=True, slots=True)
class OpSums:
    """Traces added up: ``table`` (OP_SUM_FIELDS), ``each`` in the order of the paths."""

    table: ResultTable
    each: tuple[TraceOps, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def scopes(self) -> int | None:
        """The number of scopes; None for whole traces."""
        counts = [item.scopes for item in self.each if item.scopes is not None]
        return sum(counts) if counts else None

    @property
    def scopes_total(self) -> int | None:
        """Their durations (ns)."""
        totals = [item.scopes_total for item in self.each if item.scopes_total is not None]
        return sum(totals) if totals else None

    @property
    def gpu(self) -> GpuAccount:
        """Where the GPU work belongs; ``busy`` is added up, as each trace has GPUs of its own."""
        return functools.reduce(_add_accounts, (item.gpu for item in self.each))


def sum_ops(
    paths: str | Path | Sequence[str | Path],
    under: Patterns = None,
    match: Patterns = None,
    *,
    steps: str | None = None,
    skip_first: bool = False,
    window: str | None = None,
    jobs: int | None = None,
    on: str | None = None,
) -> ResultTable:
    """Calls, CPU and GPU time per op of many traces, added up: OP_SUM_FIELDS.

    Each trace is read in one of ``jobs`` processes (by default as many as pay), or on a Ray cluster
    (``on="ray"`` or ``"ray://HOST:PORT"``). ``attrs["left_out"]`` has path and reason of each file
    that could not be read; raises the first one's error where there is no other. The limits are
    those of :meth:`Trace.windows`.

    >>> import traceq
    >>> paths = [f"sample_traces/einops-{number}.json.gz" for number in range(3)]
    >>> table = traceq.sum_ops(paths, "GatedDeltaNet", match="*einops.py*rearrange*")
    >>> table[["calls", "traces"]].values.tolist()
    [[45, 3]]
    """
    limits = {"steps": steps, "skip_first": skip_first, "window": window}
    asked = ask_ops(under, match, limits)
    names = [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not names:
        raise UsageError("there is no trace to sum up", hint="Give at least one path.")
    sums = read_ops(names, asked, Opening(), Workers(jobs, on))
    sums.table.attrs["left_out"] = [(item.path, item.error.message) for item in sums.left_out]
    return sums.table


def _patterns(given: Patterns) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def read_ops(
    paths: Sequence[str],
    asked: OpsAsked,
    opening: Opening,
    workers: Workers,
    progress: Progress | None = None,
) -> OpSums:
    """Read the ops of each trace and add them up. Raises the first error where none can be read."""
    _check_names(paths)
    needed = Limits(under=asked.under or None, **asked.limits)
    done = gather_each(paths, asked, opening, workers, progress, needed=needed)
    found, left = split([*done])
    return OpSums(add(found), tuple(found), tuple(left))


def _check_names(paths: Sequence[str]) -> None:
    """Raises UsageError for a file that is named twice: its calls would count double."""
    names: dict[str, str] = {}
    for path in paths:
        file = path if path == "-" else os.path.realpath(path)
        if file in names:
            same = "is named twice" if path == names[file] else f"is the same file as {names[file]}"
            raise UsageError(f"{path} {same}: its calls would be added twice", hint="Name it once.")
        names[file] = path


def ask_ops(under: Patterns, match: Patterns, limits: dict[str, Any]) -> OpsAsked:
    """The question of :func:`read_ops`."""
    return OpsAsked(_patterns(under), _patterns(match) or None, limits)


@dataclass(frozen=True, slots=True)
class OpsAsked:
    """What is asked of each trace: its ops under some scopes, in some time."""

    under: tuple[str, ...]
    match: tuple[str, ...] | None
    limits: dict[str, Any]

    def __call__(self, trace: Trace) -> TraceOps:
        windows = trace.windows(**self.limits)
        calls = trace.scope_calls(self.under, windows=windows) if self.under else None
        return TraceOps(
            path=trace.path,
            ops=pd.DataFrame(trace.ops(self.under, self.match, windows=windows)),
            scopes=None if calls is None else len(calls),
            scopes_total=None if calls is None else int(calls["dur"].sum()),
            gpu=trace.gpu_account(self.under, windows=windows),
            doubts=tuple(trace.doubts()),
            step_source=trace.step_source,
        )


# Adding up --------------------------------------------------------------------------------

_SUMS = (
    *("calls", "total", "self", "outermost", "gpu_total", "gpu_self", "gpu_busy", "launches"),
    *("activities", "activities_self"),
)


def add(traces: Sequence[TraceOps]) -> ResultTable:
    """The tables of traces as one: OP_SUM_FIELDS, ops in the order in which they are first met."""
    each = pd.concat([item.ops for item in traces], ignore_index=True)
    source = np.repeat(np.arange(len(traces)), [len(item.ops) for item in traces])
    groups = each.assign(trace=source).groupby("op", sort=False)
    table = groups[list(_SUMS)].sum()
    table["category"] = groups["category"].first()
    table["min"], table["max"] = groups["min"].min(), groups["max"].max()
    table["average"] = ratio(table["total"].to_numpy(), table["calls"].to_numpy())
    table["kernels_per_call"] = ratio(table["activities"].to_numpy(), table["calls"].to_numpy())
    table["traces"] = groups["trace"].nunique()
    totals = groups["total"]
    table["total_median"] = totals.median().round().astype(np.int64)
    table["total_least"], table["total_most"] = totals.min(), totals.max()
    most = source[totals.idxmax().to_numpy(np.int64)]
    paths = np.array([item.path for item in traces], object)[most]
    table["most_path"] = np.where(table["calls"] > 0, paths, "")
    names = [field.name for field in OP_SUM_FIELDS]
    return ResultTable.of(table.reset_index()[names], OP_SUM_FIELDS)


def _add_accounts(one: GpuAccount, other: GpuAccount) -> GpuAccount:
    """Two accounts as one."""
    works = {
        field.name: _add_work(getattr(one, field.name), getattr(other, field.name))
        for field in fields(GpuAccount)
        if isinstance(getattr(one, field.name), GpuWork)
    }
    return replace(one, **works, busy=one.busy + other.busy, launches=one.launches + other.launches)


def _add_work(one: GpuWork, other: GpuWork) -> GpuWork:
    return GpuWork(one.activities + other.activities, one.total + other.total)
