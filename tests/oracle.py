"""A second reader of traces, to check the first: plain gzip and json, no code of traceq.

Slow and simple on purpose. Times are exact: JSON numbers become Decimal, microseconds become whole
nanoseconds. Parents are found by interval containment alone.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

NO_NAME = "[No name]"


class Complete(NamedTuple):
    """One X event; ``index`` is its position in the file, ``ts`` and ``dur`` are nanoseconds."""

    index: int
    pid: int | str
    tid: int | str
    name: str
    cat: str
    ts: int
    dur: int
    args: dict[str, Any]

    @property
    def end(self) -> int:
        return self.ts + self.dur


def nanoseconds(microseconds: Any) -> int:
    """A JSON number of microseconds, exactly; fractions of a nanosecond are an error."""
    value = Decimal(microseconds) * 1000
    assert value == value.to_integral_value(), f"{microseconds} is not a whole number of ns"
    return int(value)


def plain_text(path: Path) -> bytes:
    """The file's JSON, unpacked."""
    raw = path.read_bytes()
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


def parse(text: bytes) -> list[dict[str, Any]]:
    """All events of a trace, of any phase."""
    document = json.loads(text.decode("utf-8", "replace"), strict=False, parse_float=Decimal)
    events = document["traceEvents"] if isinstance(document, dict) else document
    return [event for event in events if isinstance(event, dict)]


def complete_events(events: Iterable[dict[str, Any]]) -> list[Complete]:
    """The X events, in file order."""
    return [
        Complete(
            index=index,
            pid=event.get("pid", 0),
            tid=event.get("tid", 0),
            name=event.get("name") or NO_NAME,
            cat=event.get("cat") or "",
            ts=nanoseconds(event["ts"]),
            dur=nanoseconds(event["dur"]),
            args=event.get("args") or {},
        )
        for index, event in enumerate(events)
        if event.get("ph") == "X"
    ]


class Interval(NamedTuple):
    """A start and a length on some track."""

    ts: int
    dur: int

    @property
    def end(self) -> int:
        return self.ts + self.dur


def contains(outer: Any, inner: Any) -> bool:
    """Whether ``outer`` holds all of ``inner``.

    Intervals are half open, so what starts as ``outer`` ends is not inside it. The one exception
    is two intervals without length at one time: they are equal, and equal intervals hold each
    other.
    """
    if (outer.ts, outer.dur) == (inner.ts, inner.dur):
        return True
    return bool(outer.ts <= inner.ts < outer.end and inner.end <= outer.end)


def parents(intervals: Sequence[Any]) -> list[int | None]:
    """The position of the innermost container of each interval of ONE track.

    Innermost is the one that starts last; at equal starts the shorter one; of equal intervals the
    one earlier in the sequence holds the other.
    """
    order = sorted(
        range(len(intervals)), key=lambda item: (intervals[item].ts, -intervals[item].dur, item)
    )
    found: list[int | None] = [None] * len(intervals)
    earlier: list[int] = []  # those that may still hold what follows, outermost first
    for item in order:
        here = intervals[item]
        earlier = [
            other
            for other in earlier
            if intervals[other].end > here.ts or intervals[other].ts == here.ts
        ]
        for other in reversed(earlier):
            if contains(intervals[other], here):
                found[item] = other
                break
        earlier.append(item)
    return found


def parents_by_definition(intervals: Sequence[Any]) -> list[int | None]:
    """The same, pair by pair: what :func:`parents` is itself checked against."""
    found: list[int | None] = []
    for item, here in enumerate(intervals):
        holders = [
            other
            for other, outer in enumerate(intervals)
            if other != item
            and contains(outer, here)
            and ((outer.ts, outer.dur) != (here.ts, here.dur) or other < item)
        ]
        holders.sort(key=lambda other: (intervals[other].ts, -intervals[other].dur, other))
        found.append(holders[-1] if holders else None)
    return found


def parents_of_events(events: Sequence[Complete]) -> list[Complete | None]:
    """The innermost container of each event among those of its own process and thread."""
    by_track: dict[tuple[Any, Any], list[int]] = defaultdict(list)
    for position, event in enumerate(events):
        by_track[event.pid, event.tid].append(position)
    found: list[Complete | None] = [None] * len(events)
    for members in by_track.values():
        for position, parent in zip(
            members, parents([events[member] for member in members]), strict=True
        ):
            found[position] = None if parent is None else events[members[parent]]
    return found
