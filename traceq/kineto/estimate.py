"""Guesses how many slices a trace file has, from its size and how well its beginning is packed."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

from traceq.errors import TraceReadError
from traceq.kineto.source import open_source

JSON_BYTES = 380
"""JSON of a slice with what belongs to it, as measured on a trace with Python frames."""

_SAMPLE = 64 << 20
"""Most bytes of JSON that are unpacked for it."""


def estimate_slices(path: str | Path) -> int | None:
    """About how many slices a file has; None for what is no file that can be read twice.

    None also where it cannot be read: what is wrong is told by reading it.
    """
    try:
        status = Path(path).stat()
        if str(path) == "-" or not stat.S_ISREG(status.st_mode):
            return None
        size = _unpacked_in_zip(path) if zipfile.is_zipfile(path) else None
        if size is None:
            packed, unpacked = _measure(path)
            size = status.st_size * unpacked // packed if packed else 0
    except (OSError, ValueError, TraceReadError):
        return None
    return size // JSON_BYTES


def _unpacked_in_zip(path: str | Path) -> int | None:
    """What a zip says of its files' sizes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(item.file_size for item in archive.infolist())
    except zipfile.BadZipFile:
        return None


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
