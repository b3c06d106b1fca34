"""A second reader of traces, to check the first: plain gzip and json, no code of traceq.

Slow and simple on purpose. Times are exact: JSON numbers become Decimal, microseconds become whole
nanoseconds. Parents are found by interval containment alone; what launched which GPU work, by
dictionaries of the numbers and arrows that the file itself holds.
"""

from __future__ import annotations

import gzip
import json
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, cached_property
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


@cache
def fold(name: str) -> str:
    """The op of a name: without addresses, line numbers, instance numbers and hashes."""
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", name)
    text = re.sub(r"^([^()]+|<[^>]*>)\(\d+\): ", r"\1: ", text)
    text = re.sub(r"^(nn\.Module: .+)_\d+$", r"\1", text)
    text = re.sub(r"(CompiledFxGraph) [0-9a-z]{20,}", r"\1", text)
    return re.sub(r"^ProfilerStep#\d+$", "ProfilerStep", text)


# GPU work ------------------------------------------------------------------------------------

GPU = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
GPU_LABEL = "gpu_user_annotation"
CALLS = frozenset(
    f"{vendor}_{level}"
    for vendor in ("cuda", "hip", "xpu", "privateuse1")
    for level in ("runtime", "driver")
)


def only(text: bytes, categories: Iterable[str]) -> list[dict[str, Any]]:
    """The events of some categories: as :func:`parse`, but holding no others, for large traces."""
    wanted = frozenset(categories)

    def keep(item: dict[str, Any]) -> dict[str, Any] | None:
        return item if "ph" not in item or item.get("cat") in wanted else None

    document = json.loads(
        text.decode("utf-8", "replace"), strict=False, parse_float=Decimal, object_hook=keep
    )
    return [event for event in document["traceEvents"] if event is not None]


def union(spans: Iterable[tuple[int, int]]) -> int:
    """How long at least one of the spans, start and end each, lasts."""
    covered, until = 0, None
    for start, end in sorted(spans):
        if until is None or start > until:
            covered, until = covered + end - start, end
        elif end > until:
            covered, until = covered + end - until, end
    return covered


def number(args: dict[str, Any], key: str) -> int | None:
    """An argument that is a whole number."""
    value = args.get(key)
    return value if type(value) is int else None


@dataclass(frozen=True)
class Belonging:
    """An activity that is a scope's: positions of both, and whether by its backward pass."""

    activity: int
    scope: int
    is_backward: bool


@dataclass
class Gpu:
    """Slices in order of time, longest first, and what the GPU's work among them belongs to.

    All numbers are positions in ``slices``. A launch is the runtime or driver call with the
    activity's correlation number; else where an arrow to it comes from; else the op with its
    External id. Numbers that several processes use tell nothing, nor do arrows of these.
    """

    documents: Sequence[dict[str, Any]]
    slices: list[Complete] = field(init=False)
    parent: list[int | None] = field(init=False)

    def __post_init__(self) -> None:
        events = [
            item | {"ph": "X", "dur": item.get("dur", 0)}
            if item.get("ph") in ("X", "i", "I", "R")
            else {}
            for item in self.documents
        ]
        self.slices = sorted(
            complete_events(events),
            key=lambda item: (
                *(item.ts, -item.dur),
                *(self.documents[item.index]["ph"] != "X", item.index),
            ),
        )
        position = {item.index: here for here, item in enumerate(self.slices)}
        self.parent = [
            None if item is None else position[item.index]
            for item in parents_of_events(self.slices)
        ]

    def chain(self, here: int | None) -> Iterator[int]:
        """A slice and everything around it, innermost first."""
        while here is not None:
            yield here
            here = self.parent[here]

    @cached_property
    def activities(self) -> list[int]:
        return [here for here, item in enumerate(self.slices) if item.cat in GPU]

    # Arrows ----------------------------------------------------------------------------------

    @cached_property
    def arrows(self) -> list[tuple[int, int]]:
        """Pairs of slices: each end of an arrow with the latest start of it before."""
        ends = [item for item in self.documents if item.get("ph") in ("s", "t", "f")]
        rank = {"s": 0, "t": 1, "f": 2}
        ends.sort(key=lambda item: (nanoseconds(item["ts"]), rank[item["ph"]]))
        open_arrows: dict[Any, dict[str, Any]] = {}
        found = []
        for item in ends:
            key = (item.get("cat"), item.get("name"), item["id"])
            if item["ph"] != "s" and key in open_arrows:
                source, sink = self._bound(open_arrows[key]), self._bound(item)
                if source is not None and sink is not None and source <= sink:
                    found.append((source, sink))
            if item["ph"] != "f":
                open_arrows[key] = item
        return found

    @cached_property
    def _tracks(self) -> dict[tuple[Any, Any], tuple[list[int], list[int], list[int]]]:
        """Of each thread: its slices, their starts, and when all up to each one have ended."""
        members: dict[tuple[Any, Any], list[int]] = defaultdict(list)
        for here, item in enumerate(self.slices):
            members[item.pid, item.tid].append(here)
        found = {}
        for track, slices in members.items():
            ended, until = [], 0
            for here in slices:
                until = max(until, self.slices[here].end)
                ended.append(until)
            found[track] = (slices, [self.slices[here].ts for here in slices], ended)
        return found

    def _bound(self, end: dict[str, Any]) -> int | None:
        """The slice that an arrow's end is at: open at that time, or the next one to start."""
        track = self._tracks.get((end.get("pid", 0), end.get("tid", 0)))
        if track is None:
            return None
        slices, starts, ended = track
        ts = nanoseconds(end["ts"])
        if end["ph"] == "f" and end.get("bp") != "e":
            following = bisect_left(starts, ts)
            return slices[following] if following < len(slices) else None
        here = bisect_right(starts, ts) - 1
        while here >= 0 and ended[here] >= ts:
            if self.slices[slices[here]].end >= ts:
                return slices[here]
            here -= 1
        return None

    # Launches --------------------------------------------------------------------------------

    @cached_property
    def launch(self) -> dict[int, int]:
        """The call that launched each activity; without those of which the file does not tell."""
        numbered = self._by_number(
            lambda item: item.cat in CALLS, lambda item: number(item.args, "correlation")
        )
        pointed: dict[int, list[int]] = defaultdict(list)
        for source, sink in self.arrows:
            if self.slices[source].cat not in GPU:
                pointed[sink].append(source)
        asked: dict[Any, list[int]] = defaultdict(list)
        for here, item in enumerate(self.slices):
            if item.cat == "cpu_op" and item.args.get("External id") is not None:
                asked[str(item.args["External id"])].append(here)
        found = {}
        for activity in self.activities:
            args = self.slices[activity].args
            calls = numbered.get(number(args, "correlation"))
            ops = asked.get(str(args.get("External id")), [])
            if calls:
                found[activity] = calls[0]
            elif pointed[activity] and number(args, "correlation") not in self.shared_numbers:
                found[activity] = min(pointed[activity])
            elif len(ops) == 1 and args["External id"] not in (0, "0"):
                found[activity] = ops[0]
        return found

    @cached_property
    def shared_numbers(self) -> set[int]:
        """Correlation numbers that calls of several processes have, and their arrows as well."""
        pids: dict[int, set[Any]] = defaultdict(set)
        for item in self.slices:
            value = number(item.args, "correlation")
            if item.cat in CALLS and value is not None:
                pids[value].add(item.pid)
        return {value for value, processes in pids.items() if len(processes) > 1}

    def _by_number(
        self, chosen: Callable[[Complete], bool], key: Callable[[Complete], int | None]
    ) -> dict[int | None, list[int]]:
        """Slices by a number that is not zero and that no second process uses."""
        found: dict[int | None, list[int]] = defaultdict(list)
        for here, item in enumerate(self.slices):
            if chosen(item) and key(item):
                found[key(item)].append(here)
        return {
            value: members
            for value, members in found.items()
            if len({self.slices[here].pid for here in members}) == 1
        }

    def op(self, activity: int) -> int | None:
        """The innermost slice around the launch that is no runtime call; else the launch."""
        launch = self.launch.get(activity)
        around = (here for here in self.chain(launch) if self.slices[here].cat not in CALLS)
        return next(around, launch)

    # Backward passes -------------------------------------------------------------------------

    @cached_property
    def forward_by_arrow(self) -> dict[int, int]:
        """The forward op of each backward op that an arrow between the two tells."""
        found: dict[int, int] = {}
        for source, sink in self.arrows:
            if self.slices[source].cat == self.slices[sink].cat == "cpu_op":
                found[sink] = min(source, found.get(sink, source))
        return found

    @cached_property
    def _numbered_ops(self) -> tuple[dict[Any, list[int]], dict[int, Any]]:
        """Forward ops by process and sequence number, and those of each backward op."""
        forward: dict[Any, list[int]] = defaultdict(list)
        backward: dict[int, Any] = {}
        for here, item in enumerate(self.slices):
            value = number(item.args, "Sequence number")
            if item.cat != "cpu_op" or value is None or value < 0:
                continue
            if item.args.get("Fwd thread id"):
                backward[here] = (item.pid, value)
            else:
                forward[item.pid, value].append(here)
        return forward, backward

    def _threads(self, members: Iterable[int]) -> set[tuple[Any, Any]]:
        return {(self.slices[here].pid, self.slices[here].tid) for here in members}

    @cached_property
    def forward_by_number(self) -> dict[int, int]:
        """The forward op of each backward op by the sequence number: the last op that has it.

        Threads number for themselves, so that a number which two of them use tells nothing.
        """
        forward, backward = self._numbered_ops
        return {
            here: forward[value][-1]
            for here, value in backward.items()
            if value in forward
            and len(self._threads(forward[value])) == 1
            and forward[value][-1] < here
        }

    @cached_property
    def forward_by_number_before(self) -> dict[int, int]:
        """As above, where no forward op has the number: by the next lower one that is in use.

        An op that makes several nodes of the graph shows the number of the first alone. Only where
        a single thread of the process numbers its ops, has numbered later ones, and not far off.
        """
        forward, backward = self._numbered_ops
        found = {}
        for here, (process, value) in backward.items():
            in_use = sorted(other for pid, other in forward if pid == process)
            ops = (op for (pid, _), members in forward.items() if pid == process for op in members)
            lower = bisect_left(in_use, value)
            if (process, value) in forward or lower in (0, len(in_use)):
                continue
            before = in_use[lower - 1]
            op = forward[process, before][-1]
            if len(self._threads(ops)) == 1 and value - before <= 4 and op < here:
                found[here] = op
        return found

    @cached_property
    def forward_of(self) -> dict[int, int]:
        return self.forward_by_number_before | self.forward_by_number | self.forward_by_arrow

    def backward_op(self, activity: int) -> int | None:
        """The innermost backward op around the launch of an activity."""
        around = self.chain(self.launch.get(activity))
        return next((here for here in around if here in self.forward_of), None)

    def forward_op(self, activity: int) -> int | None:
        """The op of the forward pass whose backward pass launched an activity."""
        backward = self.backward_op(activity)
        return None if backward is None else self.forward_of[backward]

    # Scopes ----------------------------------------------------------------------------------

    def is_match(self, here: int, is_scope: Callable[[str], bool]) -> bool:
        item = self.slices[here]
        return item.cat not in (GPU_LABEL, *GPU) and is_scope(item.name)

    def scope(self, here: int | None, is_scope: Callable[[str], bool]) -> int | None:
        """The outermost scope that a slice is or is in."""
        found = None
        for around in self.chain(here):
            if self.is_match(around, is_scope):
                found = around
        return found

    def under(self, is_scope: Callable[[str], bool]) -> list[Belonging]:
        """The activities of the scopes, by their launch, else by the forward op behind it."""
        found = []
        for activity in self.activities:
            direct = self.scope(self.launch.get(activity), is_scope)
            if direct is not None:
                found.append(Belonging(activity, direct, False))
                continue
            behind = self.scope(self.forward_op(activity), is_scope)
            if behind is not None:
                found.append(Belonging(activity, behind, True))
        return found

    # Sums ------------------------------------------------------------------------------------

    def time(self, activities: Iterable[int]) -> int:
        return sum(self.slices[here].dur for here in activities)

    def busy(self, activities: Iterable[int]) -> int:
        return union((self.slices[here].ts, self.slices[here].end) for here in activities)


# What views of a trace must say --------------------------------------------------------------

Predicate = Callable[[str], bool] | None
OUTSIDE = "(outside)"
"""Stands for the rows of a table that hold what its other rows have not."""


@dataclass
class Row:
    """GPU work of one row of a table: what is below it, and what no row below it has."""

    below: set[int] = field(default_factory=set)
    own: set[int] = field(default_factory=set)
    backward: set[int] = field(default_factory=set)


@dataclass
class Views:
    """The rows that tables over the scopes of a pattern must have; over everything, without one."""

    gpu: Gpu
    is_scope: Predicate

    def path(self, here: int | None) -> list[int]:
        """A slice and what is around it, up to the outermost scope; nothing outside of scopes."""
        found = list(self.gpu.chain(here))
        if self.is_scope is None:
            return found
        while found and not self.gpu.is_match(found[-1], self.is_scope):
            found.pop()
        return found

    @cached_property
    def belonging(self) -> dict[int, Belonging]:
        assert self.is_scope is not None
        return {item.activity: item for item in self.gpu.under(self.is_scope)}

    def ops(self) -> dict[str, Row]:
        """Rows by op; what the scopes launched themselves, or by their backward pass, is apart."""
        rows: dict[str, Row] = defaultdict(Row)
        for activity in self.gpu.activities:
            path = self.path(self.gpu.launch.get(activity))
            if not path:
                backward = self.is_scope is not None and activity in self.belonging
                rows["(backward of the scopes)" if backward else OUTSIDE].own.add(activity)
                continue
            below = path if self.is_scope is None else path[:-1]
            for around in below:
                rows[fold(self.gpu.slices[around].name)].below.add(activity)
            op = self.gpu.op(activity)
            home = op if op in path else path[0]
            own = fold(self.gpu.slices[home].name)
            rows[own if home in below else "(the scopes themselves)"].own.add(activity)
        return rows

    @cached_property
    def kind_of_name(self) -> dict[str, str]:
        """The names of modules and labels; of functions called forward, without modules."""
        labels = {item.name for item in self.gpu.slices if item.cat == "user_annotation"}
        names = {item.name for item in self.gpu.slices}
        found = {
            name: "module" if name.startswith("nn.Module: ") else "label"
            for name in names
            if name.startswith("nn.Module: ")
            or (name in labels and not re.fullmatch(r"ProfilerStep#\d+", name))
        }
        if "module" not in found.values():
            found |= {
                name: "function" for name in names if re.fullmatch(r".*\.py\(\d+\): forward", name)
            }
        return found

    def is_module(self, here: int) -> bool:
        """Whether a slice is a module, a label or a match of the pattern."""
        item = self.gpu.slices[here]
        on_cpu = item.cat in ("python_function", "user_annotation", "cpu_op", "")
        named = item.name in self.kind_of_name and on_cpu
        return named or (self.is_scope is not None and self.gpu.is_match(here, self.is_scope))

    def modules(self, text: Callable[[str], str]) -> dict[str, Row]:
        """Rows by the text for a module's name, its backward pass included."""
        rows: dict[str, Row] = defaultdict(Row)
        for activity in self.gpu.activities:
            starts = (self.gpu.op(activity), self.gpu.launch.get(activity))
            behind = self.gpu.forward_op(activity)
            by_op, by_launch, by_forward = (
                [around for around in self.path(start) if self.is_module(around)]
                for start in (*starts, behind)
            )
            path = by_launch or by_forward
            if not path:
                rows[OUTSIDE].own.add(activity)
                continue
            for around in path:
                rows[text(self.gpu.slices[around].name)].below.add(activity)
            # The op launches, also where the call itself matches the pattern as well.
            own = rows[text(self.gpu.slices[(by_op or path)[0]].name)]
            own.own.add(activity)
            if not by_launch:
                own.backward.add(activity)
        return rows

    def tree(self, functions: bool) -> dict[tuple[str, ...], set[int]]:
        """The activities below each path of names, its modules and ops from the outermost down.

        What the backward pass launched outside of all modules is below those of the forward op.
        """
        ops = {"cpu_op", "python_function"} if functions else {"cpu_op"}
        found: dict[tuple[str, ...], set[int]] = defaultdict(set)
        for activity in self.gpu.activities:
            op, forward = self.gpu.op(activity), self.gpu.forward_op(activity)
            late = self._owned(op) is None and self._owned(forward) is not None
            start = self._owned(forward) if late else op
            around = [
                fold(self.gpu.slices[here].name)
                for here in self.path(start) or self.path(self.gpu.launch.get(activity))
                if self.is_module(here) or self.gpu.slices[here].cat in ops
            ]
            for depth in range(len(around)):
                found[tuple(reversed(around[depth:]))].add(activity)
        return found

    def _owned(self, here: int | None) -> int | None:
        """The innermost module around a slice, in or outside of the scopes."""
        return next((item for item in self.gpu.chain(here) if self.is_module(item)), None)
