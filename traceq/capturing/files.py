"""Puts a finished trace under its final name: whole, compressed, with the capture's record in it.

A trace grows in hidden files beside the final one, which is named by a rename at the very end.
What a killed capture left of these is removed by the next capture to the same name. What the
record says is left to ``session`` and ``server``.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import socket
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import zstandard
from isal import igzip, igzip_lib

from traceq.capturing.record import RECORD_KEY
from traceq.errors import CaptureError

GZIP_LEVEL = 6
"""A third of the time of torch's own level 9, for files a tenth larger."""

_CHUNK = 4 << 20
_SUFFIXES = re.compile(r"(\.pt)?(\.trace)?\.json(\.gz|\.zst)?\Z")
_TRACE_NAME = re.compile(rb'"traceName": "[^\n]*"(?=\s*}\s*\Z)')  # the last key; not escaped
_TAIL = 4 << 10
_KINDS = ("raw", "raw.tmp", "partial")
"""What is left of a killed capture: kineto's own temporary file is one of it."""

_NAME_LIMIT = 180
"""Bytes of a file's name, with room for what the hidden files add."""


def check_name(final: Path) -> None:
    """Raise CaptureError where no trace can be written under this name."""
    if not _SUFFIXES.search(final.name):
        raise CaptureError(
            f"{str(final)!r} does not end in .json, .json.gz or .json.zst",
            hint="Name it like out.json.gz.",
        )
    if len(os.fsencode(final.name)) > _NAME_LIMIT:
        raise CaptureError("the file's name is too long", hint=f"Use up to {_NAME_LIMIT} bytes.")
    if not _is_plain(str(final)):
        raise CaptureError(
            "the path holds characters that torch's exporter cannot write to",
            hint="Use no quotes, backslashes, control or undecodable characters.",
        )
    if final.is_dir():
        raise CaptureError(f"{str(final)!r} is a folder", hint="Name a file.")
    if not final.parent.is_dir():
        raise CaptureError(
            f"the folder {str(final.parent)!r} does not exist", hint="Make it, or name another."
        )
    if not os.access(final.parent, os.W_OK):
        raise CaptureError(
            f"nothing can be written in {str(final.parent)!r}", hint="Name another folder."
        )


def _is_plain(path: str) -> bool:
    return path.isprintable() and not set(path) & set('"\\')


def with_rank(final: Path, rank: int | None) -> Path:
    """The name with a rank before its suffixes.

    >>> with_rank(Path("out.json.gz"), 3).name
    'out-rank3.json.gz'
    """
    if rank is None:
        return final
    suffixes = _SUFFIXES.search(final.name)
    cut = suffixes.start() if suffixes else len(final.name)
    return final.with_name(f"{final.name[:cut]}-rank{rank}{final.name[cut:]}")


def partial_name(final: Path, kind: str) -> Path:
    """A hidden name beside ``final`` that tells whose it is; ``kind`` is raw or partial."""
    return final.with_name(f".{final.name}.{socket.gethostname()}-{os.getpid()}.{kind}")


def remove_leftovers(final: Path) -> None:
    """Remove the hidden files of captures to this name whose process has ended on this host."""
    owner = re.compile(
        rf"\.{re.escape(final.name)}\.{re.escape(socket.gethostname())}-(\d+)\.(?:raw|raw\.tmp|partial)"
    )
    for path in final.parent.glob(".*"):
        if (found := owner.fullmatch(path.name)) and not _is_alive(int(found[1])):
            path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def hidden_files(final: Path) -> Iterator[Path]:
    """The path for the raw trace; both hidden files are gone after the block, however it ends."""
    try:
        yield partial_name(final, "raw")
    finally:
        for kind in _KINDS:
            partial_name(final, kind).unlink(missing_ok=True)


def write_trace(raw: Path, final: Path, record: Mapping[str, Any]) -> Path:
    """Write the trace ``raw`` (JSON, plain or gzip) to ``final`` with ``record`` in it.

    The record becomes the first top-level key, ``traceq``; a file name that the profiler put at the
    end is replaced by the final one. Compressed by the suffix of ``final``; synced to disk, then
    renamed. Raises CaptureError where ``raw`` is no JSON object or the disk refuses.
    """
    partial = partial_name(final, "partial")
    try:
        partial.unlink(missing_ok=True)
        # Exclusively: in a folder that others write to, the name may be a link to anywhere.
        with _opened(raw) as source, partial.open("xb") as file:
            with _compressor(file, final.suffix) as sink:
                _copy(source, sink, final.name, record)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(final)
    except (OSError, EOFError, zlib.error, igzip_lib.IsalError) as error:  # type: ignore[misc]  # its stub has an instance there
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        raise CaptureError(
            f"the trace could not be written to {str(final)!r}: {reason}",
            hint="See that the disk has room for the trace, packed and unpacked.",
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return final


def _copy(source: BinaryIO, sink: IO[bytes], name: str, record: Mapping[str, Any]) -> None:
    head = source.read(_CHUNK).lstrip()
    if not head.startswith(b"{"):
        raise CaptureError("the profiler wrote no JSON object", hint="Capture again.")
    rest = head[1:].lstrip()
    comma = b"" if rest.startswith(b"}") else b","
    text = json.dumps({RECORD_KEY: _finite(record)}, allow_nan=False)
    sink.write(b"{" + text[1:-1].encode() + comma + b"\n")
    held = rest  # so that the tail, where the name stands, is never split between two chunks
    while chunk := source.read(_CHUNK):
        sink.write(held[:-_TAIL])
        held = held[-_TAIL:] + chunk
    trace_name = b'"traceName": ' + json.dumps(name).encode()
    sink.write(held[:-_TAIL] + _TRACE_NAME.sub(lambda _: trace_name, held[-_TAIL:]))


def _finite(value: Any) -> Any:
    """JSON has no infinities; what a server tells may hold them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


@contextlib.contextmanager
def _opened(raw: Path) -> Iterator[BinaryIO]:
    with raw.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            file.seek(0)
            with igzip.GzipFile(fileobj=file) as packed:  # type: ignore[no-untyped-call]
                yield cast(BinaryIO, packed)
        else:
            file.seek(0)
            yield file


@contextlib.contextmanager
def _compressor(file: BinaryIO, suffix: str) -> Iterator[IO[bytes]]:
    if suffix == ".gz":
        import gzip

        # No time stamp and no name: equal traces are equal files.
        with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed:
            yield cast(IO[bytes], packed)
    elif suffix == ".zst":
        with zstandard.ZstdCompressor(9).stream_writer(file, closefd=False) as writer:
            yield cast(IO[bytes], writer)
    else:
        yield file


def has_kernels(raw: Path) -> bool:
    """Whether a plain JSON trace holds an event of a GPU's kernel."""
    return holds(raw, b'"cat": "kernel"')


def holds(path: Path, text: bytes) -> bool:
    """Whether a file holds some bytes."""
    with path.open("rb") as file:
        held = b""
        while chunk := file.read(_CHUNK):
            if text in held + chunk:
                return True
            held = chunk[-len(text) :]
    return False
