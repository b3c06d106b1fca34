"""Which entries of the cache belong to a trace file, and when they can be used.

An entry is named after the file's content, never its name or time, and after the code that made
it. How it looks is left to ``stored``, where it lies to ``cache``.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from traceq import library
from traceq.cache import Cache, user_cache
from traceq.content import file_sha256
from traceq.engine import Engine, wasm_version
from traceq.errors import EngineError, TraceReadError
from traceq.kineto import ArgSelection
from traceq.stored import StoredTrace

SMALLEST = 100_000
"""Bytes from which on a file is kept: a smaller one is read in a tenth of a second."""

_MADE_BY = (
    "kineto/*",
    "model.py",
    "info.py",
    "names.py",
    "layout.py",
    "joins.py",
    "categories.py",
    "fxt.py",
    "stored.py",
)
_LOADED_BY = ("engine/*.py", "loading.py", "library.py")


@dataclass(frozen=True, slots=True)
class KeptTrace:
    """The place of a file's entries in the cache; ``sha256`` is that of its content."""

    cache: Cache
    path: str
    sha256: str
    args: ArgSelection

    @classmethod
    def of(cls, path: str | Path, args: ArgSelection) -> Self | None:
        """None for a file that is not kept: a small one, a pipe, or where the cache is off."""
        store = user_cache()
        sha256 = file_sha256(path, smallest=SMALLEST) if store.limit else None
        return cls(store, os.path.abspath(path), sha256, args) if sha256 else None

    def read(self, name: str) -> StoredTrace | None:
        """What was kept of the file, which is called ``name``; None for nothing."""
        content = self.cache.read(self.key)
        return None if content is None else StoredTrace.unpack(content, name)

    def write(self, trace: StoredTrace) -> None:
        """Keep what was read, if the file is still what it was."""
        if self._is_current():
            self.cache.write(self.key, trace.pack())

    def read_image(self) -> memoryview | None:
        """The memory of the engine that holds the trace; None for nothing."""
        return self.cache.read(self._image_key)

    def write_image(self, engine: Engine) -> None:
        """Keep the memory of an engine that holds the trace and nothing else, if that can be."""
        with suppress(EngineError, MemoryError):
            if self._is_current():
                self.cache.write(self._image_key, engine.image())

    @property
    def _image_key(self) -> str:
        """As :attr:`key`, and what the engine has learnt besides the trace."""
        digest = hashlib.sha256("\0".join((self.key, wasm_version(), _code(*_LOADED_BY))).encode())
        for module, text in sorted(library.modules().items()):
            digest.update(f"\0{module}\0{text}".encode())
        return f"{self.key}-{digest.hexdigest()[:40]}"

    def check_current(self) -> None:
        """Raises TraceReadError where the file is no longer the one."""
        found = file_sha256(self.path)
        if found != self.sha256:
            what = "has changed" if found else "can no longer be read as a file"
            raise TraceReadError(
                f"{self.path} {what} since it was opened",
                hint="Open it again, or work on a copy.",
            )

    def _is_current(self) -> bool:
        return file_sha256(self.path) == self.sha256

    @property
    def key(self) -> str:
        """Names the entry: content, choice of arguments, and the code that reads."""
        digest = hashlib.sha256("\0".join((self.sha256, self.args, _code(*_MADE_BY))).encode())
        return digest.hexdigest()[:40]


@cache
def _code(*patterns: str) -> str:
    """Changes with any of the code that decides what an entry holds."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(item for pattern in patterns for item in folder.glob(pattern)):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()
