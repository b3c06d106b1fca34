"""Finds the events in the bytes of a trace: head, ``traceEvents`` in chunks, tail.

The text is cut at likely event boundaries and each cut is proved by decoding it, so memory is
bounded by the chunk. A chunk that does not decode is taken apart event by event; what cannot be
read even then is counted, not skipped silently. What the events mean is left to ``columns``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec

from traceq.errors import TraceReadError
from traceq.kineto.events import (
    Chunk,
    Event,
    LenientEvent,
    chunk_from_decimals,
    decode_chunk,
    lenient_event,
    lenient_json,
)
from traceq.kineto.source import Source
from traceq.model import UNKNOWN, Ledger

CHUNK_SIZE = 8 << 20
"""Bytes of JSON decoded at a time."""

HEAD_LIMIT = 256 << 20
"""Most bytes searched for ``traceEvents`` before the input is called not a trace."""

CAREFUL_SIZE = 64 << 10
"""Bytes around a broken event that are taken apart event by event."""

EVENT_LIMIT = 16 << 20
"""An event larger than this is given up as unreadable."""

_EVENTS_KEY = re.compile(rb'"traceEvents"\s*:\s*\[')
_BOUNDARY = re.compile(rb"\}\s*,\s*(?=\{)")
_CLOSING = re.compile(rb"\}\s*\]")
_EVENT_END = re.compile(rb"\}\s*(?:,\s*(?=\{)|(\]))")
_EVENT_START = re.compile(rb'\{\s*"(?:ph|name|cat|pid|tid|ts|dur|id|bp|s|args)"\s*:')
_CLOSING_TRIES = 16
_NOT_A_TRACE = "Expected the JSON that torch.profiler's export_chrome_trace writes."


class Scanner:
    """Yields the chunks of one trace; afterwards ``metadata`` holds its other top-level keys."""

    def __init__(self, source: Source, ledger: Ledger) -> None:
        self.metadata: dict[str, Any] = {}
        self._source = source
        self._ledger = ledger
        self._blocks = iter(source)
        self._buffer = bytearray()
        self._at_end = False
        self._bare_array = False
        self._closed = False

    def __iter__(self) -> Iterator[Chunk]:
        self._read_head()
        ended = False
        while not ended:
            self._fill(CHUNK_SIZE)
            chunk, ended = self._next_chunk()
            if chunk is not None and chunk.events:
                yield chunk
        self._read_tail()
        if self._source.damage:
            self._ledger.notes.append(f"{self._source.damage}; everything before that was read")

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
        match = self._find_events_key()
        head = bytes(self._buffer[: match.end()])
        del self._buffer[: match.end()]
        self._keep_metadata(head + b"]}", "before")

    def _skip_byte_order_mark(self) -> None:
        if self._buffer.startswith(b"\xef\xbb\xbf"):
            del self._buffer[:3]

    def _first_character(self) -> bytes:
        while not (text := bytes(self._buffer[:4096]).lstrip()):
            if self._at_end:
                return b""
            del self._buffer[:4096]
            self._fill(1)
        return text[:1]

    def _not_json(self, start: bytes) -> str:
        if not start:
            damage = f": {self._source.damage}" if self._source.damage else ""
            return f"the trace is empty{damage}"
        return "not a JSON trace: it begins with " + repr(bytes(self._buffer[:16]))[1:]

    def _find_events_key(self) -> re.Match[bytes]:
        searched = 0
        while True:
            match = _EVENTS_KEY.search(self._buffer, searched)
            if match:
                return match
            if self._at_end or len(self._buffer) > HEAD_LIMIT:
                raise TraceReadError("the JSON has no traceEvents array", hint=_NOT_A_TRACE)
            searched = max(0, len(self._buffer) - 64)
            self._fill(len(self._buffer) + CHUNK_SIZE)

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
            fields.pop("traceEvents", None)
            self.metadata.update(fields)

    # Events -------------------------------------------------------------------------------

    def _fill(self, size: int) -> None:
        """Grow the buffer to ``size`` bytes, or to the end of the input."""
        while len(self._buffer) < size and not self._at_end:
            block = next(self._blocks, None)
            if block is None:
                self._at_end = True
            else:
                self._buffer += block

    def _next_chunk(self) -> tuple[Chunk | None, bool]:
        """The next events of the buffer, and whether they were the last."""
        chunk = self._take_up_to(len(self._buffer))
        if chunk is not None:
            return chunk, False
        chunk = self._take_closing()
        if chunk is not None:
            return chunk, True
        size = len(self._buffer) // 2
        while size > CAREFUL_SIZE:  # close in on the broken event, the good ones at full speed
            chunk = self._take_up_to(size)
            if chunk is not None:
                return chunk, False
            size //= 2
        return self._take_carefully()

    def _take_up_to(self, size: int) -> Chunk | None:
        """Decode up to the last likely boundary in ``size`` bytes; None where that fails."""
        cut = self._last_boundary(size)
        return None if cut is None else self._take(*cut)

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
            chunk = decode_chunk(b"".join((b"[", memoryview(self._buffer)[:end], b"]")))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        del self._buffer[:following]
        return chunk

    def _take_closing(self) -> Chunk | None:
        """Decode up to the bracket that closes the array, if it stands in the buffer."""
        if self._buffer[:4096].lstrip()[:1] == b"]":
            self._closed = True
            return self._take(0, self._buffer.index(b"]") + 1)
        position = 0
        for _ in range(_CLOSING_TRIES):
            match = _CLOSING.search(self._buffer, position)
            if match is None:
                return None
            chunk = self._take(match.start() + 1, match.end())
            if chunk is not None:
                self._closed = True
                return chunk
            position = match.end()
        return None

    # Broken events ------------------------------------------------------------------------

    def _take_carefully(self) -> tuple[Chunk | None, bool]:
        """Read the next ``CAREFUL_SIZE`` bytes event by event, counting what cannot be read."""
        events: list[Event] = []
        times: list[tuple[Decimal | None, Decimal | None]] = []
        position, ended = 0, False
        while position < CAREFUL_SIZE and not ended:
            found, following, ended = self._read_one(position)
            if following == position:
                break
            if found is not None:
                events.append(found.event)
                times.append((found.ts, found.dur))
            position = following
        del self._buffer[:position]
        if position == 0 and not ended:  # one event larger than the buffer
            self._fill(len(self._buffer) + CHUNK_SIZE)
        return chunk_from_decimals(events, times), ended

    def _read_one(self, start: int) -> tuple[LenientEvent | None, int, bool]:
        """The event at ``start`` (None: unreadable), where to go on, and whether the array ended.

        Going on at ``start`` itself means that the event does not end in the buffer.
        """
        first_end: re.Match[bytes] | None = None
        match = _EVENT_END.search(self._buffer, start)
        while match is not None and match.end() - start < EVENT_LIMIT:
            found = lenient_event(bytes(self._buffer[start : match.start() + 1]))
            if found is not None:
                self._closed = match.group(1) is not None
                return found, match.end(), self._closed
            first_end = first_end or match
            if _EVENT_START.match(self._buffer, match.end()):
                break  # what follows is an event of its own: this one is broken
            match = _EVENT_END.search(self._buffer, match.end())
        if match is None and not self._at_end and len(self._buffer) - start < EVENT_LIMIT:
            return None, start, False
        if match is None and self._at_end:
            return self._read_last(start)
        self._ledger.unreadable(UNKNOWN, None, "not valid JSON")
        return None, (first_end.end() if first_end else len(self._buffer)), False

    def _read_last(self, start: int) -> tuple[LenientEvent | None, int, bool]:
        """The rest of a file that ends before its array is closed."""
        rest = bytes(self._buffer[start:])
        whole = rest[: rest.rfind(b"}") + 1]
        found = lenient_event(whole) if whole else None
        if found is None and rest.strip(b", \t\r\n"):
            self._ledger.unreadable(UNKNOWN, None, "cut off at the end of the file")
        self._ledger.notes.append("the file is cut off: its event array is not closed")
        return found, len(self._buffer), True
