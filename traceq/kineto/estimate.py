"""Guesses how many slices a trace file has, from its size and how well its beginning is packed."""

from __future__ import annotations

import stat
from pathlib import Path

from traceq.kineto.source import open_source

JSON_BYTES = 380
"""JSON of a slice with what belongs to it, as measured on a trace with Python frames."""

_SAMPLE = 4 << 20
"""Bytes of JSON that are unpacked for it."""


def estimate_slices(path: str | Path) -> int | None:
    """About how many slices a file has; None for what is no file that can be read twice."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    if str(path) == "-" or not stat.S_ISREG(status.st_mode):
        return None
    source, unpacked = open_source(path), 0
    try:
        for block in source:
            unpacked += len(block)
            if unpacked >= _SAMPLE:
                break
    finally:
        source.close()
    return status.st_size * unpacked // max(source.bytes_read, 1) // JSON_BYTES
