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
            identity = _identity(os.fstat(file.fileno()))
            if identity in _known:
                return _known[identity]
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if identity == _identity(os.fstat(file.fileno())):
                _remember(identity, found)
    except OSError:
        return None
    return found


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """What changes with the content. Nobody can set a time of change back (``st_ctime``)."""
    return (
        *(status.st_dev, status.st_ino, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )


def _remember(identity: tuple[int, ...], sha256: str) -> None:
    """Keep a hash, unless the file is so new that a change might not show (as git's index has it).

    The times of another host may be ahead of ours: such a file is hashed each time.
    """
    if time.time_ns() - identity[-1] < _SETTLED:
        return
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[identity] = sha256
