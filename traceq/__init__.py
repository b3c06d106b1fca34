"""Compare two torch-profiler traces under a module, count every event, and say what changed.

    >>> import traceq
    >>> with traceq.open("sample_traces/einops-0.json.gz") as trace:
    ...     len(trace.scope_calls("GatedDeltaNet"))
    15

Importing this is cheap: the rest is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traceq.capturing import capture
    from traceq.compare import Diff, diff
    from traceq.errors import TraceqError
    from traceq.history.recording import record, trend
    from traceq.history.store import History
    from traceq.loading import open_trace as open
    from traceq.op_sums import sum_ops
    from traceq.part import Part
    from traceq.table import ResultTable
    from traceq.trace import Trace

__all__ = [
    "Diff",
    "History",
    "Part",
    "ResultTable",
    "Trace",
    "TraceqError",
    "capture",
    "diff",
    "open",
    "record",
    "sum_ops",
    "trend",
]

_HOMES = {
    "Diff": ("traceq.compare", "Diff"),
    "History": ("traceq.history.store", "History"),
    "Part": ("traceq.part", "Part"),
    "ResultTable": ("traceq.table", "ResultTable"),
    "Trace": ("traceq.trace", "Trace"),
    "TraceqError": ("traceq.errors", "TraceqError"),
    "capture": ("traceq.capturing", "capture"),
    "diff": ("traceq.compare", "diff"),
    "open": ("traceq.loading", "open_trace"),
    "record": ("traceq.history.recording", "record"),
    "sum_ops": ("traceq.op_sums", "sum_ops"),
    "trend": ("traceq.history.recording", "trend"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'traceq' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext traceq`` in a notebook gives the cell magic ``%%traceq``."""
    importlib.import_module("traceq.notebook").load_ipython_extension(shell)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
