"""Takes text apart that the strict decoder refuses, event by event, in one pass.

Brackets and strings are matched, so that what looks like an event inside another's arguments is
not taken for one. After an event that is torn, reading goes on at the next one that is whole.
Counting and decoding at full speed are left to ``scan``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from traceq.kineto.events import LenientEvent, lenient_event

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?P<quote>"?)|/\*.*?\*/|//[^\n]*|[{}\[\],]', re.DOTALL)
_SEPARATORS = re.compile(rb"[\s,]*")
_SPACE = re.compile(rb"\s*")
_LIKELY_START = re.compile(rb'\{\s*"(?:ph|name|cat|pid|tid|ts|dur|id|bp|s|args)"\s*:')
_NEXT_OBJECT = re.compile(rb",\s*(?=\{)")

SEARCH_SIZE = 64 << 10
"""Bytes within which an event must end that is to be picked up behind a torn one."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where whole events end in a text, where to go on, and whether the array closes between."""

    end: int
    following: int
    closed: bool


def last_boundary(text: bytes | bytearray) -> Boundary | None:
    """The last place between two events, or the closing of their array, by matching brackets."""
    end, found, depth = 0, None, 0
    for token, start, behind in _tokens(text, 0, len(text)):
        if token in _OPENING:
            depth += 1
        elif token == _COMMA:
            if depth == 0 and end:
                found = Boundary(end, behind, closed=False)
        elif depth:
            depth -= 1
            end = behind if depth == 0 else end
        else:
            return Boundary(end, behind, closed=True) if text[start] == _CLOSING_ARRAY else found
    return found


_OPENING, _CLOSING_ARRAY, _COMMA = b"{[", ord("]"), ord(",")
_PARTNER = {ord("}"): ord("{"), ord("]"): ord("[")}


def _tokens(text: bytes | bytearray, start: int, limit: int) -> Iterator[tuple[int, int, int]]:
    """Brackets and commas outside of strings and comments: (token, start, behind).

    A string that does not end ends the tokens: what is in it cannot be told from what is behind.
    """
    for match in _TOKEN.finditer(text, start, limit):
        token = text[match.start()]
        if token == ord('"'):
            if not match["quote"]:
                return
        elif token != ord("/"):
            yield token, match.start(), match.end()


@dataclass(frozen=True, slots=True)
class Step:
    """One event (None where the text is none), where to go on, and why nothing more comes."""

    event: LenientEvent | None
    following: int
    unreadable: str = ""
    closed: bool = False
    unfinished: bool = False


def read_events(text: bytes, *, at_end: bool) -> Iterator[Step]:
    """Step through events separated by commas.

    The last step is ``closed`` behind the bracket that closes the array, or ``unfinished`` at the
    start of what does not end in the text; ``at_end`` says that no more text will come.
    """
    position = 0
    while True:
        position = _skip_separators(text, position)
        if position == len(text):
            yield Step(None, position, unfinished=True)
            return
        if text[position] == ord("]"):
            yield Step(None, position + 1, closed=True)
            return
        step = _read_one(text, position, at_end=at_end)
        yield step
        if step.unfinished:
            return
        position = step.following


def _skip_separators(text: bytes, position: int) -> int:
    match = _SEPARATORS.match(text, position)
    return match.end() if match else position


def _read_one(text: bytes, start: int, *, at_end: bool) -> Step:
    if text[start] != ord("{"):
        return Step(None, _end_of_junk(text, start), "not an event")
    extent = _extent(text, start, len(text))
    if extent is not None and extent.whole and _is_separated(text, extent.end):
        event = lenient_event(text[start : extent.end])
        if event is not None:
            return Step(event, extent.end)
    end = len(text) if extent is None else _end_of_junk(text, extent.end)
    resume = _next_whole_event(text, start + 1, end)
    if resume is not None:
        return Step(None, resume, "not valid JSON")
    if extent is not None:
        return Step(None, end, "not valid JSON")
    if at_end:
        return Step(None, len(text), "cut off at the end of the file", unfinished=True)
    return Step(None, start, unfinished=True)


@dataclass(frozen=True, slots=True)
class _Extent:
    """Where an object ends; not ``whole`` where its brackets do not match."""

    end: int
    whole: bool


def _extent(text: bytes, start: int, limit: int) -> _Extent | None:
    """Where the object at ``start`` ends; None where it does not end in the text."""
    open_brackets: list[int] = []
    for token, begin, behind in _tokens(text, start, limit):
        if token in _OPENING:
            open_brackets.append(token)
        elif token != _COMMA:
            if open_brackets.pop() != _PARTNER[token]:
                # A bracket that closes the array behind an event without its brace is not its own.
                return _Extent(begin if token == _CLOSING_ARRAY else behind, whole=False)
            if not open_brackets:
                return _Extent(behind, whole=True)
    return None


def _is_separated(text: bytes, position: int) -> bool:
    """Whether an event that ends here is followed by a separator, another event, or nothing."""
    position = _SPACE.match(text, position).end()  # type: ignore[union-attr]  # always matches
    return position == len(text) or text[position] in b",]{"


def _end_of_junk(text: bytes, start: int) -> int:
    """Behind what is no event: at the next comma, closing bracket, or object."""
    depth = 0
    for token, begin, _ in _tokens(text, start, len(text)):
        if depth == 0 and token in b",]":
            return begin if begin > start else start
        depth += 1 if token in _OPENING else -1 if token in _PARTNER and depth else 0
    return len(text)


def _next_whole_event(text: bytes, start: int, limit: int) -> int | None:
    """The start of the first object that is an event by itself: valid, and with a phase."""
    for match in _NEXT_OBJECT.finditer(text, start, limit):
        candidate = match.end()
        if not _LIKELY_START.match(text, candidate):
            continue
        extent = _extent(text, candidate, candidate + SEARCH_SIZE)
        if extent is None or not extent.whole:
            continue
        found = lenient_event(text[candidate : extent.end])
        if found is not None and found.event.ph:
            return candidate
    return None
