"""Finds the events in the bytes of a trace: head, ``traceEvents`` in chunks, tail.

The text is cut at likely event boundaries and each cut is proved by decoding it, so memory is
bounded by the chunk. A chunk that does not decode is taken apart event by event; what cannot be
read even then is counted, not skipped silently. What the events mean is left to ``columns``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from traceq.errors import TraceReadError
from traceq.kineto import native
from traceq.kineto.careful import last_boundary, read_events
from traceq.kineto.events import (
    Chunk,
    chunk_from_decimals,
    decode_chunk,
    decode_kind,
    decode_others,
    lenient_json,
    plain_json,
)
from traceq.kineto.source import Source
from traceq.model import UNKNOWN, Ledger

CHUNK_SIZE = 8 << 20
"""Bytes of JSON decoded at a time."""

HEAD_LIMIT = 256 << 20
"""Most bytes searched for ``traceEvents`` before the input is called not a trace."""

CAREFUL_SIZE = 64 << 10
"""Bytes around a broken event that are taken apart event by event."""

BOUNDARY_TRIES = 4
"""Likely boundaries tried before a text is halved."""

WINDOW = 256 << 10
"""Bytes looked at while doing so, at first; more where an event does not end in them."""

EVENT_LIMIT = 256 << 20
"""An event larger than this is given up as unreadable."""

_EVENTS_KEY = re.compile(rb'"traceEvents"\s*:\s*\[')
_BOUNDARY = re.compile(rb"\}\s*,\s*(?=\{)")
_SEPARATORS = re.compile(rb"[\s,]*")
_SPACE = re.compile(rb"\s*")
_KEY_TRIES = 16
_NOT_A_TRACE = "Expected the JSON that torch.profiler's export_chrome_trace writes."


class Scanner:
    """Yields the chunks of one trace; afterwards ``metadata`` holds its other top-level keys."""

    def __init__(self, source: Source, ledger: Ledger, *, raw_args: bool = False) -> None:
        self.metadata: dict[str, Any] = {}
        self._source = source
        self._ledger = ledger
        self._blocks = iter(source)
        self._buffer = bytearray()
        self._at_end = False
        self._bare_array = False
        self._closed = False
        self._native: native.EventScanner | None = None
        self._raw_args = raw_args

    def __iter__(self) -> Iterator[Chunk]:
        self._read_head()
        ended = False
        while not ended:
            self._fill(CHUNK_SIZE)
            chunk, ended = self._next_chunk()
            if chunk is not None and (chunk.events or chunk.plain):
                yield chunk
        self._read_tail()
        if self._source.damage:
            self._ledger.notes.append(
                f"{self._source.damage}; what could be unpacked before was read"
            )

    # Head and tail ------------------------------------------------------------------------

    def _read_head(self) -> None:
        """Leave the buffer at the first event, the keys before it in ``metadata``."""
        self._fill(1)
        self._skip_byte_order_mark()
        start = self._first_character()
        if start == b"[":
            self._bare_array = True
            del self._buffer[: self._buffer.index(b"[") + 1]
            return
        if start != b"{":
            raise TraceReadError(self._not_json(start), hint=_NOT_A_TRACE)
        end = self._find_events()
        head = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._keep_metadata(head + b"]}", "before")

    def _skip_byte_order_mark(self) -> None:
        if self._buffer.startswith(b"\xef\xbb\xbf"):
            del self._buffer[:3]

    def _first_character(self) -> bytes:
        """The first character that is no space; spaces before it are dropped."""
        while True:
            match = _SPACE.match(self._buffer)
            end = match.end() if match else 0
            del match
            del self._buffer[:end]
            if self._buffer or self._at_end:
                return bytes(self._buffer[:1])
            self._fill(1)

    def _not_json(self, start: bytes) -> str:
        if not start:
            damage = f": {self._source.damage}" if self._source.damage else ""
            return f"the trace is empty{damage}"
        return "not a JSON trace: it begins with " + repr(bytes(self._buffer[:16]))[1:]

    def _find_events(self) -> int:
        """Where the events begin: behind a ``"traceEvents": [`` that is a key of the trace itself.

        Where the text before it is broken, the first one is taken.
        """
        searched, tries, first = 0, 0, None
        while True:
            for match in _EVENTS_KEY.finditer(bytes(self._buffer), searched):
                if first is None:
                    first = match.end()
                tries += 1
                if tries <= _KEY_TRIES and _is_top_level(bytes(self._buffer[: match.end()])):
                    return match.end()
            if self._at_end or len(self._buffer) > HEAD_LIMIT:
                break
            if first is not None and len(self._buffer) > first + CHUNK_SIZE:
                break
            searched = max(0, len(self._buffer) - 64)
            self._fill(len(self._buffer) + CHUNK_SIZE)
        if first is None:
            raise TraceReadError("the JSON has no traceEvents array", hint=_NOT_A_TRACE)
        return first

    def _read_tail(self) -> None:
        """The keys after the events; the buffer stands behind the closing bracket."""
        if not self._closed:
            return
        while not self._at_end and len(self._buffer) < HEAD_LIMIT:
            self._fill(len(self._buffer) + CHUNK_SIZE)
        text = bytes(self._buffer).strip()
        if self._bare_array or text in (b"", b"}"):
            if not text and not self._bare_array:
                self._ledger.notes.append("the file is cut off after the events")
            return
        self._keep_metadata(b"{" + text.lstrip(b", \t\r\n"), "after")

    def _keep_metadata(self, text: bytes, where: str) -> None:
        try:
            fields = lenient_json(text)
        except ValueError:
            self._ledger.notes.append(f"the metadata {where} the events cannot be read")
            return
        if isinstance(fields, dict):
            if fields.pop("traceEvents", None):
                self._ledger.notes.append("a second traceEvents array was not read")
            self.metadata.update(json.loads(plain_json(fields)))

    # Events -------------------------------------------------------------------------------

    def _fill(self, size: int) -> None:
        """Grow the buffer to ``size`` bytes, or to the end of the input."""
        blocks, length = [], len(self._buffer)
        while length < size and not self._at_end:
            block = next(self._blocks, None)
            if block is None:
                self._at_end = True
            else:
                blocks.append(block)
                length += len(block)
        self._buffer += b"".join(blocks)  # at once: growing it block by block takes twice as long

    def _next_chunk(self) -> tuple[Chunk | None, bool]:
        """The next events of the buffer, and whether they were the last."""
        self._drop_separators()
        if self._last_boundary(len(self._buffer)) is None and self._grow():
            return None, False
        size = len(self._buffer)
        while size > CAREFUL_SIZE:  # close in on a broken event, the good ones at full speed
            chunk = self._take_up_to(size)
            if chunk is not None:
                return chunk, False
            size //= 2
        chunk = self._take_exactly()
        if chunk is not None:
            return chunk, self._closed
        return self._take_carefully(WINDOW)

    def _drop_separators(self) -> None:
        match = _SEPARATORS.match(self._buffer)
        end = match.end() if match else 0
        del match
        del self._buffer[:end]

    def _grow(self) -> bool:
        """Read on where the buffer holds less than one whole event; False where that is all."""
        if self._at_end or len(self._buffer) >= EVENT_LIMIT:
            return False
        if last_boundary(bytes(self._buffer[:WINDOW])) is not None:
            return False  # the closing of the array, say
        self._fill(2 * len(self._buffer) + CHUNK_SIZE)
        return True

    def _take_exactly(self) -> Chunk | None:
        """Decode up to the end of the array, or the last boundary, found by matching brackets."""
        found = last_boundary(bytes(self._buffer[:WINDOW]))
        if found is None:
            return None
        chunk = self._take(found.end, found.following)
        self._closed = found.closed and chunk is not None
        return chunk

    def _take_up_to(self, size: int) -> Chunk | None:
        """Decode up to a likely boundary in ``size`` bytes; None where that fails.

        The last one may lie inside an event's arguments, so those before it are tried too.
        """
        for _ in range(BOUNDARY_TRIES):
            cut = self._last_boundary(size)
            if cut is None:
                return None
            chunk = self._take(*cut)
            if chunk is not None:
                return chunk
            size = cut[0] - 1
        return None

    def _last_boundary(self, size: int) -> tuple[int, int] | None:
        """(end of the last event, start of the one after it) by the look of the text."""
        while (brace := self._buffer.rfind(b"}", 0, size)) >= 0:
            match = _BOUNDARY.match(self._buffer, brace)
            if match:
                return brace + 1, match.end()
            size = brace
        return None

    def _take(self, end: int, following: int) -> Chunk | None:
        """Decode the events before ``end`` and move on; the buffer is left alone on failure."""
        try:
            chunk = self._scan(end) or decode_chunk(bytes(memoryview(self._buffer)[:end]))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        del self._buffer[:following]
        return chunk

    def _scan(self, end: int) -> Chunk | None:
        """The quick way to the same result; None where the text is too little or out of form."""
        if self._native is None:
            if end < native.WORTHWHILE:
                return None
            self._native = native.EventScanner(decode_kind, raw_args=self._raw_args)
        plain = self._native.scan(self._buffer, end)
        return None if plain is None else decode_others(plain)

    # Broken events ------------------------------------------------------------------------

    def _take_carefully(self, window: int) -> tuple[Chunk | None, bool]:
        """Read the next ``CAREFUL_SIZE`` bytes event by event, counting what cannot be read."""
        text = bytes(self._buffer[:window])
        whole = len(text) == len(self._buffer)
        if not whole and window < EVENT_LIMIT and self._first_unfinished(text):
            return self._take_carefully(window * 4)
        if whole and not self._at_end and len(text) < EVENT_LIMIT and self._first_unfinished(text):
            self._fill(len(self._buffer) + CHUNK_SIZE)
            return None, False
        at_end = (whole and self._at_end) or len(text) >= EVENT_LIMIT
        return self._step_through(text, at_end=at_end)

    def _first_unfinished(self, text: bytes) -> bool:
        step = next(read_events(text, at_end=False))
        return step.unfinished and step.following < len(text)

    def _step_through(self, text: bytes, *, at_end: bool) -> tuple[Chunk, bool]:
        events, position, ended = [], 0, False
        for step in read_events(text, at_end=at_end):
            if step.unreadable:
                self._ledger.unreadable(UNKNOWN, None, step.unreadable)
            if step.event is not None:
                events.append(step.event)
            position, self._closed = step.following, step.closed
            ended = step.closed or (step.unfinished and at_end and self._at_end)
            if position >= CAREFUL_SIZE:
                break
        del self._buffer[:position]
        if ended and not self._closed:
            self._ledger.notes.append("the file is cut off: its event array is not closed")
        times = [(found.ts, found.dur) for found in events]
        return chunk_from_decimals([found.event for found in events], times), ended


def _is_top_level(head: bytes) -> bool:
    """Whether a text up to an opening bracket is whole once bracket and object are closed."""
    try:
        fields = lenient_json(head + b"]}")
    except ValueError:
        return False
    return isinstance(fields, dict) and "traceEvents" in fields
