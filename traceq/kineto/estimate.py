"""Guesses how many slices a trace file has, from its size and how well its beginning is packed."""

from __future__ import annotations

import stat
from pathlib import Path

from traceq.kineto.source import open_source

JSON_BYTES = 380
"""JSON of a slice with what belongs to it, as measured on a trace with Python frames."""

_SAMPLE = 64 << 20
"""Most bytes of JSON that are unpacked for it."""


def estimate_slices(path: str | Path) -> int | None:
    """About how many slices a file has; None for what is no file that can be read twice."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    if str(path) == "-" or not stat.S_ISREG(status.st_mode):
        return None
    packed, unpacked = _measure(path)
    return status.st_size * unpacked // max(packed, 1) // JSON_BYTES


def _measure(path: str | Path) -> tuple[int, int]:
    """How many bytes the beginning of a file has, and how many these are unpacked."""
    source, packed, unpacked = open_source(path), 0, 0
    try:
        for block in source:
            # All that was read before the next read has been unpacked by then.
            if packed and source.bytes_read > packed:
                return packed, unpacked
            packed, unpacked = source.bytes_read, unpacked + len(block)
            if unpacked >= _SAMPLE:
                break
    finally:
        source.close()
    return packed, unpacked
