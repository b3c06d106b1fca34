"""Keeps what took long to make, for the next time: entries of bytes by key, in the user's folder.

An entry is believed only if no other user can have written it and if every byte is as it was
written; anything else is made again. A folder that cannot be used costs only that time. What is
kept, and under which key, is left to the callers.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import platformdirs

from traceq.errors import UsageError
from traceq.units import parse_bytes

DEFAULT_LIMIT = 4_000_000_000
"""Bytes that the entries may have together; then those used longest ago go."""

_MAGIC = b"traceq\x00\x01"
_HEAD_BYTES = len(_MAGIC) + 32
_SUFFIX = ".kept"
_LEFTOVER_SECONDS = 3600.0


class Entry(NamedTuple):
    """A file of the cache: its size in bytes, and when it was last used (seconds of the epoch)."""

    path: Path
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of entries that have at most ``limit`` bytes together; safe with many writers."""

    folder: Path
    limit: int

    def read(self, key: str) -> memoryview | None:
        """What was kept; None where there is nothing, or nothing to be believed."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                private = is_private(os.fstat(file.fileno())) and is_private(path.parent.stat())
                content = memoryview(file.read()) if private else memoryview(b"")
        except OSError:
            return None
        body = content[_HEAD_BYTES:]
        if content[:_HEAD_BYTES] != _MAGIC + _digest(key, (body,)):
            return None
        with suppress(OSError):
            os.utime(path)
        return body

    def write(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        """Keep the parts, one after the other, as one entry; readers see all of it or nothing."""
        if _HEAD_BYTES + sum(memoryview(part).nbytes for part in parts) > self.limit:
            return
        with suppress(OSError):  # no space, or not ours to write: the next time makes it again
            with private_file(self._path(key)) as file:
                file.write(_MAGIC + _digest(key, parts))
                file.writelines(parts)
            self._make_room()

    def entries(self) -> list[Entry]:
        """All entries, those used last first."""
        found = [*_files(self.folder, f"*{_SUFFIX}")]
        return sorted(found, key=lambda entry: (-entry.used, entry.path.name))

    def clear(self) -> list[Entry]:
        """Remove all entries, and what killed writers left; the entries that went."""
        removed = [entry for entry in self.entries() if _remove(entry.path)]
        for leftover in _files(self.folder, ".*"):
            _remove(leftover.path)
        return removed

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _make_room(self) -> None:
        room = self.limit
        for entry in self.entries():
            room -= entry.size
            if room < 0:
                _remove(entry.path)
        for leftover in _files(self.folder, ".*"):  # of a writer that was killed
            if leftover.used < time.time() - _LEFTOVER_SECONDS:
                _remove(leftover.path)


def cache_folder() -> Path:
    """``TRACEQ_CACHE_DIR``, or the user's cache folder."""
    base = os.environ.get("TRACEQ_CACHE_DIR")
    return Path(base) if base else platformdirs.user_cache_path("traceq")


def user_cache() -> Cache:
    """The user's cache of traces; its limit is ``TRACEQ_CACHE_SIZE`` (bytes, or ``500 MB``).

    Raises UsageError where that is no size.
    """
    text = os.environ.get("TRACEQ_CACHE_SIZE")
    limit = DEFAULT_LIMIT if not text else parse_bytes(text)
    if limit is None:
        raise UsageError(
            f"TRACEQ_CACHE_SIZE is {text!r}, which is no size", hint="Write 500MB, 4GB or 0."
        )
    return Cache(cache_folder() / "traces", limit)


@contextmanager
def private_file(path: Path) -> Iterator[BinaryIO]:
    """A file in the user's own folder; readers see all of it in its place, or what was there.

    Raises OSError where it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _digest(key: str, parts: Sequence[bytes | memoryview]) -> bytes:
    digest = hashlib.sha256(key.encode() + b"\0")
    for part in parts:
        digest.update(part)
    return digest.digest()


def _remove(path: Path) -> bool:
    with suppress(OSError):  # gone already, or not ours to remove
        path.unlink()
        return True
    return False


def _files(folder: Path, pattern: str) -> Iterator[Entry]:
    for path in folder.glob(pattern):
        with suppress(OSError):  # another process removes entries too
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                yield Entry(path, status.st_size, status.st_mtime)


def is_private(status: os.stat_result) -> bool:
    """Whether no other user can have written a file or folder."""
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
