"""Waits for the traces that a server writes to a folder that can be seen from here.

Servers write a trace straight to its final name, late and slowly. One is whole when it unpacks to
its end and ends as JSON does; a folder is complete when as many are whole as ranks were announced,
or when nothing new has come for a while. Others may write there too: links, names that do not print
and files packed as no server packs them are passed over, with a word.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import re
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from traceq.capturing.server.words import few
from traceq.errors import CaptureError
from traceq.units import printable

_CHUNK = 4 << 20
_OVERLAP = 64
_REST = 3  # times as long as a file took to read, before it is read again
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHER_PACKING = re.compile(r"\.(zst|xz|bz2|zip)\Z")
_KERNEL = re.compile(rb'"cat"\s*:\s*"kernel"')
_FRAME = re.compile(rb'"cat"\s*:\s*"python_function"')

Stamp = tuple[int, int, int]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds.

    ``timeout`` for all of a stage; ``appear`` for a first file once the server has said that it is
    done; ``settle`` without anything new where the number of files is not known; ``missing`` the
    same where fewer came than there are ranks.
    """

    timeout: float = 600.0
    appear: float = 60.0
    settle: float = 5.0
    missing: float = 60.0
    poll: float = 0.25


@dataclass(frozen=True, slots=True)
class Contents:
    """What kinds of events a whole trace holds."""

    kernels: bool
    frames: bool


class Arrival:
    """The traces that are new in ``folder`` since this was made."""

    def __init__(
        self, folder: Path, is_trace: Callable[[str], bool], mark: str, patience: Patience
    ) -> None:
        """Names with ``mark`` in them are ours; where there is none, all that are new are."""
        self._folder = folder
        self._is_trace = is_trace
        self._mark = mark
        self._patience = patience
        self._seen: dict[Path, Stamp] = {}
        self._whole: dict[Path, Contents] = {}
        self._again: dict[Path, float] = {}
        self._until = math.inf
        self._changed = time.monotonic()
        self._before = self._files()
        self._odd_before = self._odd()

    def wait(self, expected: int | None, first: float, say: Say) -> dict[Path, Contents]:
        """The whole traces, by path; none if nothing appears within ``first`` seconds.

        Raises CaptureError where one is still not whole when time is up.
        """
        if not self._appear(first, say):
            return {}
        self._until = time.monotonic() + self._patience.timeout
        while not self._is_complete(expected):
            say(f"{len(self._whole)} of {expected or len(self._seen)} traces are whole")
            if time.monotonic() >= self._until:
                self._check_whole()
                break
            time.sleep(self._patience.poll)
            self._look()
        return dict(sorted(self._whole.items()))

    def passed_over(self) -> list[str]:
        """What is new here and called a trace, but was not taken, and why."""
        return sorted(self._odd() - self._odd_before)

    def _appear(self, first: float, say: Say) -> bool:
        """Wait until there is any file."""
        began = time.monotonic()
        self._look()
        while not self._seen:
            if time.monotonic() - began >= first:
                return False
            say("waiting for the server's traces")
            time.sleep(self._patience.poll)
            self._look()
        return True

    def _look(self) -> None:
        """Take stock; a file that did not grow since the last time is read to its end."""
        files = self._files()
        new = {path: stamp for path, stamp in files.items() if self._before.get(path) != stamp}
        new = {path: stamp for path, stamp in new.items() if self._mark in path.name} or new
        if new != self._seen:
            self._changed = time.monotonic()
        for path, stamp in new.items():
            if self._seen.get(path) != stamp:
                self._whole.pop(path, None)
            elif path not in self._whole:
                self._read(path)
        for path in self._whole.keys() - new.keys():
            del self._whole[path]
        self._seen = new

    def _read(self, path: Path) -> None:
        """Read it to its end, though not all the time: one that stays cut may be long."""
        began = time.monotonic()
        if began < self._again.get(path, 0):
            return
        settled = began - self._changed >= self._patience.settle
        if (found := read_whole(path, settled, self._until)) is not None:
            self._whole[path] = found
        now = time.monotonic()
        self._again[path] = now + _REST * (now - began)

    def _is_complete(self, expected: int | None) -> bool:
        if not self._whole or len(self._whole) < len(self._seen):
            return False
        if expected is not None and len(self._whole) >= expected:
            return True
        quiet = self._patience.settle if expected is None else self._patience.missing
        return time.monotonic() - self._changed >= quiet

    def _check_whole(self) -> None:
        """Time is up: what came has to be whole, be it fewer than expected or still more coming."""
        parts = [path.name for path in self._seen if path not in self._whole]
        if not parts and self._whole:
            return
        raise CaptureError(
            f"{few(parts) or 'a trace'} in {self._folder} was still not whole after "
            f"{self._patience.timeout:g} s",
            hint="See the server's log (a full disk, a killed rank); --timeout gives more time.",
        )

    def _files(self) -> dict[Path, Stamp]:
        found = {}
        for entry in self._entries():
            with contextlib.suppress(OSError):  # gone again
                if self._is_trace(entry.name) and self._why_not(entry) is None:
                    state = entry.stat(follow_symlinks=False)
                    stamp = (state.st_ino, state.st_size, state.st_mtime_ns)
                    found[Path(entry.path)] = stamp
        return found

    def _odd(self) -> set[str]:
        """Names, with what is odd about them."""
        reasons = ((entry.name, self._why_not(entry)) for entry in self._entries())
        return {f"{printable(name)} {reason}" for name, reason in reasons if reason is not None}

    def _why_not(self, entry: os.DirEntry[str]) -> str | None:
        """Why something that is called a trace is not taken for one."""
        name = _OTHER_PACKING.sub("", entry.name)
        if not self._is_trace(name):
            return None
        if not entry.is_file(follow_symlinks=False):
            return "is no plain file"  # a link may lead to what is nobody's to copy
        if not name.isprintable():
            return "has characters in its name that do not print"
        return None if name == entry.name else "is packed as no server packs a trace"

    def _entries(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self._folder) as entries:
                return list(entries)
        except OSError:
            return []  # not made yet, or not to be seen from here


def read_whole(path: Path, settled: bool = False, until: float = math.inf) -> Contents | None:
    """What a trace holds; None where it is not whole, or not read to its end at the time ``until``.

    ``settled`` says that it has not grown for a while: a plain file that no JSON decoder takes is
    then whole if it ends like one, as profilers write NaN and the like.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_ZSTD))
        if head == _ZSTD:
            raise CaptureError(
                f"{path} is packed with zstd, which no server is known to do",
                hint="Unpack it, and open it with traceq as it is.",
            )
        return _read_packed(path, until) if head.startswith(_GZIP) else _read_plain(path, settled)
    except PermissionError:
        raise CaptureError(
            f"{path} cannot be read here",
            hint="The server runs as another user: have it write to a folder, with a umask, that "
            "lets you read (--server-dir).",
        ) from None
    except (OSError, EOFError, ValueError):
        return None


def _read_packed(path: Path, until: float) -> Contents | None:
    from isal import igzip, igzip_lib

    kernels = frames = False
    held = b""
    damaged = (zlib.error, cast(type[Exception], igzip_lib.IsalError))
    with path.open("rb") as packed, cast(Any, igzip).GzipFile(fileobj=packed) as file:
        while True:
            try:
                chunk = file.read(_CHUNK)
            except damaged:
                return None
            if not chunk:
                break
            if time.monotonic() >= until:  # a small file may unpack to no end
                return None
            held = held[-_OVERLAP:] + chunk
            kernels = kernels or _KERNEL.search(held) is not None
            frames = frames or _FRAME.search(held) is not None
    return Contents(kernels, frames) if held.rstrip().endswith(b"}") else None


def _read_plain(path: Path, settled: bool) -> Contents | None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        if not _is_json(text) and not (settled and text[-_OVERLAP:].rstrip().endswith(b"}")):
            return None
        return Contents(_KERNEL.search(text) is not None, _FRAME.search(text) is not None)


def _is_json(text: mmap.mmap) -> bool:
    """Whether it is whole JSON: an event ends with a brace too, only a decoder tells the last."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        if "truncated" in str(error):
            raise EOFError from None
        return False
    except RecursionError:
        return False
    return True
