"""Opens a trace as a stream of plain JSON bytes: .json, .gz, .zst, .zip with one file, stdin.

The format is told by the first bytes, not by the name. A damaged or cut-off stream yields all
bytes before the damage and then reports it; what the bytes mean is left to ``scan``.
"""

from __future__ import annotations

import io
import lzma
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

import zstandard
from isal import isal_zlib

from traceq.errors import TraceReadError
from traceq.kineto.registers import clear_upper_halves

READ_SIZE = 1 << 20
"""Bytes read from the file at a time; small enough to answer Ctrl-C, large enough to be fast."""

PIECE_SIZE = 1 << 10
"""Packed bytes inflated at a time: little is lost before damage, and calls are cheap."""

INFLATE_LIMIT = 8 << 20
"""Most bytes inflated at a time, so that a highly packed file cannot fill the memory."""

Progress = Callable[[int, int], None]
"""Called with (bytes read so far, bytes in all; 0 where that is unknown)."""


class Source:
    """A trace's bytes, decompressed. ``damage`` is None, or says how the stream ended early."""

    def __init__(self, file: io.BufferedReader, size: int, progress: Progress | None) -> None:
        self.damage: str | None = None
        self.bytes_read = 0
        self._file = file
        self._size = size
        self._progress = progress

    def __iter__(self) -> Iterator[bytes]:
        blocks, told = self._plain(), 0
        for block in blocks:
            if self._progress is not None and self.bytes_read > told:
                told = self.bytes_read
                self._progress(told, self._size)
            yield block

    def _plain(self) -> Iterator[bytes]:
        head = self._file.peek(4)[:4]
        if head.startswith(b"\x1f\x8b"):
            return self._gzip()
        if head == b"\x28\xb5\x2f\xfd":
            return self._zstd()
        if head == b"PK\x03\x04":
            return self._zip()
        return iter(self.read, b"")

    def close(self) -> None:
        self._file.close()

    def read(self, size: int = READ_SIZE) -> bytes:
        """The next packed bytes; at most ``size``, none at the end."""
        chunk = self._file.read(size)
        self.bytes_read += len(chunk)
        return chunk

    def _gzip(self) -> Iterator[bytes]:
        inflater = isal_zlib.decompressobj(wbits=31)
        packed = self._pieces()
        piece = next(packed, b"")
        try:
            while piece:
                inflated = inflater.decompress(piece, INFLATE_LIMIT)
                clear_upper_halves()
                yield inflated
                piece = inflater.unconsumed_tail
                if inflater.eof:
                    piece = _behind_padding(inflater.unused_data, packed)
                    if piece:  # a further gzip member: the streams are one after another
                        inflater = isal_zlib.decompressobj(wbits=31)
                elif not piece:
                    piece = next(packed, b"")
        except isal_zlib.error as error:  # type: ignore[misc]  # isal's stub has an instance there
            self.damage = f"the gzip stream is damaged ({error})"
            return
        if not inflater.eof:
            self.damage = "the gzip stream is cut off"

    def _pieces(self) -> Iterator[bytes]:
        """The packed bytes, few at a time: what a failing call would have given is lost."""
        for block in iter(self.read, b""):
            for start in range(0, len(block), PIECE_SIZE):
                yield block[start : start + PIECE_SIZE]

    def _zstd(self) -> Iterator[bytes]:
        reader = zstandard.ZstdDecompressor().stream_reader(
            cast(IO[bytes], self), read_across_frames=True
        )
        try:
            yield from iter(lambda: reader.read(INFLATE_LIMIT), b"")
        except zstandard.ZstdError as error:
            self.damage = f"the zstd stream is damaged ({error})"

    def _zip(self) -> Iterator[bytes]:
        archive = self._open_zip()
        members = [item for item in archive.infolist() if not item.is_dir()]
        if len(members) != 1:
            names = ", ".join(item.filename for item in members[:5]) or "none"
            raise TraceReadError(
                f"the zip archive holds {len(members)} files, not one trace: {names}",
                hint="Unpack it and name one of the files.",
            )
        try:
            with archive.open(members[0]) as member:
                yield from iter(lambda: member.read(READ_SIZE), b"")
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            self.damage = f"the zip archive is damaged ({error})"
        except NotImplementedError as error:
            self.damage = f"the zip archive is damaged ({error})"
        except RuntimeError as error:  # zipfile's way of saying that it is encrypted
            raise TraceReadError(
                f"the zip archive cannot be opened: {error}", hint="Unpack it and name the trace."
            ) from error

    def _open_zip(self) -> zipfile.ZipFile:
        """A zip's directory stands at its end: a pipe is kept in a temporary file first."""
        file: IO[bytes] = self._file
        if not file.seekable():
            file = tempfile.SpooledTemporaryFile(max_size=64 << 20)  # noqa: SIM115
            for chunk in iter(self.read, b""):
                file.write(chunk)
        try:
            return zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise TraceReadError(
                f"the zip archive is cut off or damaged ({error})",
                hint="Copy the file again, or unpack what can be unpacked and name that.",
            ) from error


def _behind_padding(piece: bytes, packed: Iterator[bytes]) -> bytes:
    """The first bytes that are not the zeros with which some tools fill up an archive."""
    rest = piece.lstrip(b"\0")
    while not rest and (piece := next(packed, b"")):
        rest = piece.lstrip(b"\0")
    return rest


def open_source(path: str | Path, progress: Progress | None = None) -> Source:
    """Open a file, or standard input for ``-``. Raises TraceReadError with the next step."""
    if str(path) == "-":
        return Source(_own_stdin(), 0, progress)
    path = Path(path)
    try:
        if path.is_dir():
            raise TraceReadError(f"{path} is a directory", hint=_directory_hint(path))
        size = path.stat().st_size
        return Source(path.open("rb"), size, progress)
    except FileNotFoundError as error:
        raise TraceReadError(f"{path}: no such file", hint="Check the path.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise TraceReadError(f"{path}: cannot be read: {reason}") from error


def _own_stdin() -> io.BufferedReader:
    """A handle of its own, so that closing it leaves ``sys.stdin`` alone."""
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except (io.UnsupportedOperation, ValueError, AttributeError):
        # A stand-in without a file descriptor, as test runners and notebooks set.
        return io.BufferedReader(io.BytesIO(sys.stdin.buffer.read()))


def _directory_hint(path: Path) -> str:
    traces = sorted(
        item.name
        for pattern in ("*.json", "*.json.gz", "*.json.zst")
        for item in path.glob(pattern)
    )
    if not traces:
        return "Name a trace file; there is none in it."
    more = f" and {len(traces) - 3} more" if len(traces) > 3 else ""
    return f"Name one file in it: {', '.join(traces[:3])}{more}."
