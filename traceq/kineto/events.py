"""One trace event as msgspec decodes it, and the lenient decoding of broken ones.

Field meanings are those of the Chrome Trace Event format. Finding the events in the file is left
to ``scan``; what they mean together (pairs, flows) to ``columns``.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import numpy as np

from traceq.kineto.native import PlainEvents
from traceq.model import Bools, Ints

Scalar = int | float | str | None
ABSENT = msgspec.Raw(b"")
NO_TIME = float("nan")

EXACT_BELOW_US = 2.0**43
"""Up to here a float64 of microseconds with three places still names one nanosecond."""

RANGE_US = 2.0**63 / 1000 - 1
"""Times beyond this many microseconds do not fit 64-bit nanoseconds."""


class Event(msgspec.Struct, gc=False):
    """One event; ``ts`` and ``dur`` in microseconds, NaN where absent; ``args`` still JSON."""

    ph: str = ""
    name: str = ""
    cat: str | None = None
    pid: Scalar = None
    tid: Scalar = None
    ts: float = NO_TIME
    dur: float = NO_TIME
    id: Scalar = None
    bp: str | None = None
    args: msgspec.Raw = ABSENT


class ExactTimes(msgspec.Struct, gc=False):
    """The times of an event from their digits, for where a float64 is too coarse."""

    ts: Decimal | None = None
    dur: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some events of a trace in file order, with their times in ns where these are usable.

    ``plain`` holds those that were read without making an object for each; they are not among
    ``events``. Positions count all events of the chunk.
    """

    events: list[Event]
    ts: Ints
    dur: Ints
    has_ts: Bools
    has_dur: Bools
    position: Ints
    plain: PlainEvents | None = None


_decode_event = msgspec.json.Decoder(Event).decode
_decode_events = msgspec.json.Decoder(list[Event]).decode
_decode_exact_times = msgspec.json.Decoder(list[ExactTimes]).decode


def decode_kind(text: bytes) -> Event | None:
    """An event of nothing but its names and ids, without the braces; None where out of form."""
    try:
        return _decode_event(b"".join((b"{", text, b"}")))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def decode_chunk(text: bytes) -> Chunk:
    """Decode events separated by commas. Raises msgspec.DecodeError where one is out of form."""
    return _decode_array(b"".join((b"[", text, b"]")))


def decode_others(plain: PlainEvents) -> Chunk:
    """Decode what the scanner left as text, and join it with the plain events."""
    texts = plain.texts(plain.others)
    chunk = _decode_array(b"".join((b"[", b",".join(texts), b"]")))
    return replace(chunk, plain=plain, position=plain.others.of)


def _decode_array(text: bytes) -> Chunk:
    events = _decode_events(text)
    ts = np.fromiter((event.ts for event in events), np.float64, len(events))
    dur = np.fromiter((event.dur for event in events), np.float64, len(events))
    if max(_largest(ts), _largest(dur)) >= EXACT_BELOW_US:
        exact = _decode_exact_times(text)
        return chunk_from_decimals(events, [(item.ts, item.dur) for item in exact])
    return Chunk(
        events,
        _to_ns(ts),
        _to_ns(dur),
        np.isfinite(ts),
        np.isfinite(dur),
        np.arange(len(events)),
    )


def chunk_from_decimals(
    events: list[Event], times: list[tuple[Decimal | None, Decimal | None]]
) -> Chunk:
    """Join events with times of any precision; out-of-range times count as absent."""
    ts = [_decimal_to_ns(start) for start, _ in times]
    dur = [_decimal_to_ns(length) for _, length in times]
    return Chunk(
        events,
        np.array([value or 0 for value in ts], np.int64),
        np.array([value or 0 for value in dur], np.int64),
        np.array([value is not None for value in ts], np.bool_),
        np.array([value is not None for value in dur], np.bool_),
        np.arange(len(events)),
    )


def _largest(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(np.nanmax(np.abs(values), initial=0.0))


def _to_ns(us: np.ndarray[Any, np.dtype[np.float64]]) -> Ints:
    """Microseconds to nanoseconds without the rounding of ``us * 1000``.

    Below 2**43 µs the float64 nearest to a decimal with three places is less than 0.5 ns from it,
    so the fraction alone, taken apart first, rounds to the digits that were written.
    """
    us = np.nan_to_num(us)
    whole = np.floor(us)
    fraction: Ints = np.rint((us - whole) * 1000).astype(np.int64)
    ns: Ints = whole.astype(np.int64) * 1000 + fraction
    return ns


def _decimal_to_ns(us: Decimal | None) -> int | None:
    if us is None or not us.is_finite() or not -RANGE_US < us < RANGE_US:
        return None
    ns = int((us * 1000).to_integral_value())
    return ns if -(2**63) <= ns < 2**63 else None


_COMMENT = re.compile(rb'("(?:[^"\\]|\\.)*")|/\*.*?\*/|//[^\n]*', re.DOTALL)


def lenient_json(text: bytes) -> Any:
    """Parse JSON as broken writers leave it. Raises ValueError where nothing helps.

    Accepted beyond the standard: bytes that are not UTF-8 (replaced), control characters in
    strings, NaN and Infinity, integers of any size, ``/* */`` and ``//`` comments. Fractions come
    back as Decimal.
    """
    try:
        return _loads(text)
    except ValueError:
        without_comments = _COMMENT.sub(lambda match: match.group(1) or b" ", text)
        return _loads(without_comments)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _loads(text: bytes) -> Any:
    return json.loads(text.decode("utf-8", "replace"), strict=False, parse_float=_parse_float)


def _parse_float(text: str) -> Decimal:
    return Decimal(text)


@dataclass(frozen=True, slots=True)
class LenientEvent:
    """A broken event as far as it could be understood."""

    event: Event
    ts: Decimal | None
    dur: Decimal | None


def lenient_event(text: bytes) -> LenientEvent | None:
    """Decode one event that the strict decoder refused; None where it is not an event at all."""
    try:
        fields = lenient_json(text)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    args = fields.get("args")
    event = Event(
        ph=_text(fields.get("ph")) or "",
        name=_text(fields.get("name")) or "",
        cat=_text(fields.get("cat")),
        pid=_scalar(fields.get("pid")),
        tid=_scalar(fields.get("tid")),
        id=_scalar(fields.get("id")),
        bp=_text(fields.get("bp")),
        args=msgspec.Raw(plain_json(args)) if isinstance(args, dict) else ABSENT,
    )
    return LenientEvent(event, _decimal(fields.get("ts")), _decimal(fields.get("dur")))


def plain_json(value: Any) -> bytes:
    """Standard JSON of what :func:`lenient_json` returned; NaN and Infinity become text."""
    try:
        return json.dumps(_standard(value), ensure_ascii=True).encode()
    except RecursionError:
        return b'{"unreadable": "nested too deeply"}'


def _standard(value: Any) -> Any:
    if isinstance(value, dict):
        return {_standard(str(key)): _standard(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_standard(item) for item in value]
    if isinstance(value, str):  # without the halves of characters that only escapes can write
        return value.encode("utf-8", "replace").decode()
    return _standard_number(value) if isinstance(value, (int, float, Decimal)) else value


def _standard_number(value: int | float | Decimal) -> int | float | str:
    """The number itself where JSON and its readers have it, or else its text."""
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    return float(value) if math.isfinite(float(value)) else str(value)


def _text(value: Any) -> str | None:
    return None if value is None else value if isinstance(value, str) else str(value)


def _scalar(value: Any) -> Scalar:
    if isinstance(value, (bool, dict, list)):
        return str(value)
    return float(value) if isinstance(value, Decimal) else value


def _decimal(value: Any) -> Decimal | None:
    if value is None or isinstance(value, (bool, dict, list)):
        return None
    try:
        return Decimal(value)
    except (InvalidOperation, ValueError):
        return None
