"""Reads a Kineto (torch.profiler) trace: JSON text in, columns and a ledger out.

``source`` opens and inflates, ``scan`` cuts the text into chunks of events, ``native`` reads what
is plain in a chunk and ``events`` the rest, ``columns`` and ``args`` put all in columns. Nothing
here knows the query engine.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from traceq.errors import TraceReadError
from traceq.kineto.args import ArgSelection
from traceq.kineto.columns import ColumnBuilder, Keep
from traceq.kineto.estimate import estimate_slices
from traceq.kineto.scan import Scanner
from traceq.kineto.source import Progress, Source, open_source
from traceq.kineto.survey import OverviewBuilder
from traceq.model import Ledger, TraceData
from traceq.overview import Overview

__all__ = ["ArgSelection", "Keep", "Progress", "estimate_slices", "read_trace", "survey_trace"]

Result = TypeVar("Result")


def read_trace(
    path: str | Path,
    *,
    args: ArgSelection = "default",
    progress: Progress | None = None,
    keep: Keep | None = None,
) -> TraceData:
    """Read a trace file (``-``: standard input) whole, or what of it is to be kept.

    ``progress`` is called with (bytes read, bytes in all). Raises TraceReadError for input that is
    not a trace or holds no event; what of a damaged trace could not be read is in the ledger.
    """
    return _reading(path, progress, lambda source: _read(source, args, keep))


def survey_trace(path: str | Path, *, progress: Progress | None = None) -> Overview:
    """Read of a trace file only what tells which part of it belongs together.

    Raises TraceReadError as :func:`read_trace` does.
    """
    return _reading(path, progress, _survey)


def _reading(
    path: str | Path, progress: Progress | None, read: Callable[[Source], Result]
) -> Result:
    source = open_source(path, progress)
    try:
        with _no_collection():
            return read(source)
    except TraceReadError as error:
        raise TraceReadError(f"{_label(path)}: {error.message}", hint=error.hint) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise TraceReadError(f"{_label(path)}: cannot be read: {reason}") from error
    finally:
        source.close()


def _survey(source: Source) -> Overview:
    builder = OverviewBuilder()
    for chunk in Scanner(source, Ledger()):
        builder.add(chunk)
    return builder.overview()


def _read(source: Source, args: ArgSelection, keep: Keep | None) -> TraceData:
    ledger = Ledger()
    scanner = Scanner(source, ledger, raw_args=args == "all")
    builder = ColumnBuilder(ledger, args, keep)
    for chunk in scanner:
        builder.add(chunk)
    data = builder.finish(scanner.metadata)
    if ledger.total.read == 0:
        hint = "Was the profiler active? torch.profiler writes events only after stop()."
        raise TraceReadError("the trace has no events", hint=hint)
    return data


def _label(path: str | Path) -> str:
    return "standard input" if str(path) == "-" else str(path)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the cycle collector: a million short-lived events would set it off for nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
