"""The hash of a file's content, worked out once for as long as the file stays what it is."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

_SETTLED = 2_000_000_000
"""Nanoseconds after which a change shows in the time of change, however coarse its clock is."""

_MOST_KNOWN = 10_000
_known: dict[tuple[int, ...], str] = {}


def file_sha256(path: str | Path, *, smallest: int = 0) -> str | None:
    """The SHA-256 of a regular file's content; None for what is none, or smaller."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size < smallest:
            return None  # a pipe would block, and could not be read again
        with open(path, "rb") as file:
            identity, now = _identity(os.fstat(file.fileno())), time.time_ns()
            if identity in _known:
                return _known[identity]
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if identity == _identity(os.fstat(file.fileno())):
                _remember(identity, found, now)
    except OSError:
        return None
    return found


def file_identity(path: str | Path) -> tuple[int, ...] | None:
    """Stays the same as long as a file is not written to or replaced; None for what is no file."""
    try:
        return _identity(os.stat(path))
    except (OSError, ValueError):
        return None


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """What changes with the content. Nobody can set a time of change back (``st_ctime``)."""
    return (
        *(status.st_dev, status.st_ino, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )


def _remember(identity: tuple[int, ...], sha256: str, read_at: int) -> None:
    """Keep a hash, unless the file was so new that a change might not show (as git's index has it).

    The times of another host may be ahead of ours: such a file is hashed each time.
    """
    if read_at - identity[-1] < _SETTLED:
        return
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[identity] = sha256
