"""Places slices on lanes and binds flows to slices, so that the engine drops nothing.

trace_processor keeps one stack a thread: a slice that starts inside another and ends after it is
dropped. Such slices go to a further lane of their track here. The order of the slices, by time
and longest first, is also settled here. Bytes are left to ``fxt``, reading to ``kineto``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

import numpy as np

from traceq.model import Bools, Flows, Ints, Ledger, Slices, TraceData

DEPTH_LIMIT = 512
"""Deepest nesting the engine keeps; deeper slices lose their parent and arguments without a word
(Perfetto v52, src/trace_processor/importers/common/slice_tracker.cc)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything goes.

    ``order`` lists slice indices by time, parents before children; ``lane`` gives each slice's
    lane on its track (0: the track itself); ``parent`` is the innermost slice of its track that
    contains it (-1: none); ``parent_override`` pairs slices that could not stay below that
    container on the same lane with it; ``flow_source`` and ``flow_sink`` are the slices that each
    arrow joins, ``flow_begin`` and ``flow_end`` its two ends among :attr:`TraceData.flows`.
    """

    order: Ints
    lane: Ints
    parent: Ints
    parent_override: dict[int, int]
    flow_source: Ints
    flow_sink: Ints
    flow_begin: Ints
    flow_end: Ints


def arrange(data: TraceData) -> Layout:
    """Lay a trace out, and tell its ledger about overflow lanes and unbound flows."""
    slices = data.slices
    order = time_order(slices)
    nesting = _Nesting(np.zeros(len(slices), np.int64), np.full(len(slices), -1, np.int64), {})
    by_track = _split_by_track(slices, order)
    for members in by_track.values():
        _assign_lanes(slices, members, nesting)
    _count_overflow(data, nesting.lane)
    arrows = _bind_flows(data, by_track, order)
    return Layout(order, nesting.lane, nesting.parent, nesting.overrides, *arrows)


def time_order(slices: Slices) -> Ints:
    """Slice indices by start; at equal starts longest first, instants last, then as in the file."""
    order = np.argsort(slices.ts, kind="stable")
    equal = np.diff(slices.ts[order]) == 0
    tied = np.flatnonzero(np.append(equal, False) | np.insert(equal, 0, False))[: len(order)]
    ties = order[tied]  # few: sorting only these by three keys is much faster
    order[tied] = ties[np.lexsort((-slices.dur[ties], slices.instant[ties], slices.ts[ties]))]
    return order


def _split_by_track(slices: Slices, order: Ints) -> dict[int, Ints]:
    if not len(order):
        return {}
    tracks, number = number_densely(slices.track[order])
    if len(tracks) < 2**16:
        number = number.astype(np.uint16)  # sorted by radix, in a tenth of the time
    members = order[np.argsort(number, kind="stable")]
    ends = np.cumsum(np.bincount(number))
    return dict(zip(tracks.tolist(), np.split(members, ends[:-1]), strict=True))


def number_densely(values: Ints) -> tuple[Ints, Ints]:
    """The distinct values, rising, and for each element the position of its value among them.

    As ``np.unique(values, return_inverse=True)``, but in linear time where the values are small
    whole numbers, as all indices here are.
    """
    if not len(values) or values.max() > 4 * len(values) + 1024 or values.min() < 0:
        used, numbers = np.unique(values, return_inverse=True)
        return used, numbers
    used = np.flatnonzero(np.bincount(values))
    number_of = np.zeros(int(used[-1]) + 1, np.int64)
    number_of[used] = np.arange(len(used))
    return used, number_of[values]


# Lanes ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Nesting:
    """Lanes, parents and overrides of all slices, filled track by track."""

    lane: Ints
    parent: Ints
    overrides: dict[int, int]


def _assign_lanes(slices: Slices, members: Ints, nesting: _Nesting) -> None:
    """Find the stretches of one track that do not nest, and spread these over lanes."""
    ts, end = slices.ts[members], slices.ts[members] + slices.dur[members]
    track = _Track.of(ts, end)
    holder = _holders(track)
    nesting.parent[members] = np.where(holder >= 0, members[holder], -1)
    misfits = _misfits(track)
    if not misfits.any():
        return
    # A stretch begins where everything before has ended; others need not be looked at.
    ended_by = np.concatenate(([np.iinfo(np.int64).min], np.maximum.accumulate(end)[:-1]))
    begins = ts >= ended_by
    begins[1:] &= ~((end[:-1] == ts[:-1]) & (ts[:-1] == ts[1:]))  # a chain without length
    stretch = np.cumsum(begins)
    numbers = np.unique(stretch[misfits])
    bounds = (np.searchsorted(stretch, numbers + more).tolist() for more in (0, 1))
    for first, last in zip(*bounds, strict=True):
        part = slice(first, last)
        _spread(members[part].tolist(), ts[part].tolist(), end[part].tolist(), nesting)


@dataclass(frozen=True, slots=True)
class _Track:
    """One track's slices, sorted by start and longest first.

    ``long`` and ``short`` are the positions of those with and without length, ``ends`` the sorted
    ends of the long ones, ``depth`` how many of these are open at the start of each, with itself.
    """

    ts: Ints
    end: Ints
    long: Ints
    short: Ints
    ends: Ints
    depth: Ints

    @classmethod
    def of(cls, ts: Ints, end: Ints) -> _Track:
        long, short = np.flatnonzero(end > ts), np.flatnonzero(end == ts)
        ends = np.sort(end[long])
        depth = np.arange(len(long)) + 1 - np.searchsorted(ends, ts[long], side="right")
        return cls(ts, end, long, short, ends, depth)


def _holders(track: _Track) -> Ints:
    """The position of the innermost container of each slice of a track that nests; -1 for none.

    Sorted by start and longest first. A slice is held by the last one before it that is one level
    less deep; one without length by the one of its very time before it, or by what is open then.
    """
    ts, long, short, depth = track.ts, track.long, track.short, track.depth
    found = np.full(len(ts), -1, np.int64)
    small = int(depth.max(initial=0)) < 1 << 16
    by_depth = np.argsort(depth.astype(np.uint16) if small else depth, kind="stable")
    size, owner = len(ts), long[by_depth]
    places = depth[by_depth] * size + owner  # rising
    found[owner] = _last_below(places, owner, places - size)
    open_then = np.searchsorted(long, short) - np.searchsorted(track.ends, ts[short], side="right")
    found[short] = _last_below(places, owner, open_then * size + short)
    chained = short[1:][(np.diff(short) == 1) & (np.diff(ts[short]) == 0)]
    found[chained] = chained - 1
    return found


def _last_below(places: Ints, owner: Ints, limit: Ints) -> Ints:
    """The owner of the last place below each limit; -1 where there is none."""
    at = np.searchsorted(places, limit) - 1
    return np.where(at >= 0, owner[at], -1) if len(owner) else np.full(len(limit), -1, np.int64)


def _misfits(track: _Track) -> Bools:
    """Marks slices by which a track is seen not to nest.

    Nesting intervals close in the reverse order of their opening. That holds exactly if each one
    finds the same number of intervals open at its end as at its start.
    """
    long = track.long  # slices without length fit anywhere, but may go too deep
    misfit = np.zeros(len(track.ts), np.bool_)
    chained = _position_in_run(track.ts[track.short])
    ts, end = track.ts[long], track.end[long]
    position = np.arange(len(ts))
    closing = position[::-1][np.argsort(end[::-1], kind="stable")]  # of equal ends the last first
    depth_at_end = np.searchsorted(ts, track.ends, side="left") - position
    misfit[long[closing]] = track.depth[closing] != depth_at_end
    deepest = int(track.depth.max(initial=0))
    if deepest + int(chained.max(initial=0)) >= DEPTH_LIMIT:
        misfit[:] = True  # rare enough to look at every slice
    return misfit


def _position_in_run(values: Ints) -> Ints:
    """How many equal values stand directly before each one, counting itself."""
    position = np.arange(len(values))
    starts = np.ones(len(values), np.bool_)
    starts[1:] = np.diff(values) != 0
    return position + 1 - np.maximum.accumulate(np.where(starts, position, 0))


def _spread(members: list[int], ts: list[int], end: list[int], nesting: _Nesting) -> None:
    """Lay one stretch of a track out on lanes; members are sorted by start, longest first."""
    lanes = _Lanes(ts, end)
    for position in range(len(members)):
        lanes.place(position)
    nesting.lane[members] = lanes.lane_of
    nesting.parent[members] = [members[item] if item >= 0 else -1 for item in lanes.container_of]
    nesting.overrides.update(
        (members[position], members[container]) for position, container in lanes.overrides.items()
    )


class _Lanes:
    """The lanes of a stretch while slices are placed on them, by position in the stretch.

    Of two slices that overlap without nesting, the shorter one leaves the lane with all that is
    below it, so that most slices keep their place: a step's label begins inside the frame that
    starts it, and it is the frame that has to go.
    """

    def __init__(self, ts: list[int], end: list[int]) -> None:
        self.lane_of: list[int] = []
        self.container_of: list[int] = []
        self.overrides: dict[int, int] = {}
        self._ts, self._end = ts, end
        self._stacks: list[list[int]] = [[]]  # open slices of each lane, outermost first
        self._placed: list[list[int]] = [[]]  # all slices of each lane, in order of start
        self._free_at: list[int] = [ts[0]]  # when everything on the lane has ended

    def place(self, position: int) -> None:
        """Put the next slice below its innermost container, or else on another lane."""
        start, stop = self._ts[position], self._end[position]
        for stack in self._stacks:
            while stack and self._ended(stack[-1], start):
                stack.pop()
        container = max(self._innermost(stack, stop) for stack in self._stacks)
        self.container_of.append(container)
        lane = self.lane_of[container] if container >= 0 else 0
        self.lane_of.append(lane)
        stack = self._stacks[lane]
        depth = stack.index(container) + 1 if container >= 0 else 0
        if depth >= DEPTH_LIMIT:
            self._put_elsewhere(position, container)
        elif depth == len(stack):
            self._push(lane, position)
        elif stop - start > self._end[stack[depth]] - self._ts[stack[depth]]:
            self._move_away(lane, depth, container)
            self._push(lane, position)
        else:
            self._put_elsewhere(position, container)

    def _ended(self, position: int, now: int) -> bool:
        """Whether a slice is over; one without length still holds others of its very time."""
        return self._end[position] <= now and self._ts[position] != now

    def _innermost(self, stack: list[int], stop: int) -> int:
        """The innermost open slice that lasts until ``stop``, or -1."""
        return next((item for item in reversed(stack) if self._end[item] >= stop), -1)

    def _push(self, lane: int, position: int) -> None:
        self.lane_of[position] = lane
        self._stacks[lane].append(position)
        self._placed[lane].append(position)
        self._free_at[lane] = max(self._free_at[lane], self._end[position])

    def _put_elsewhere(self, position: int, container: int) -> None:
        if container >= 0:
            self.overrides[position] = container
        self._push(self._free_lane(self._ts[position], self.lane_of[position]), position)

    def _move_away(self, lane: int, depth: int, container: int) -> None:
        """Move an open slice and everything below it to a lane that is free from its start."""
        root = self._stacks[lane][depth]
        target = self._free_lane(self._ts[root], lane)
        first = bisect_left(self._placed[lane], root)
        moved = self._placed[lane][first:]
        del self._placed[lane][first:]
        self._stacks[target].extend(self._stacks[lane][depth:])
        del self._stacks[lane][depth:]
        self._placed[target].extend(moved)
        self._free_at[target] = max(self._end[item] for item in moved)
        for item in moved:
            self.lane_of[item] = target
        if container >= 0:
            self.overrides[root] = container

    def _free_lane(self, start: int, not_this: int) -> int:
        for lane, free_at in enumerate(self._free_at):
            if lane != not_this and free_at <= start:
                return lane
        self._stacks.append([])
        self._placed.append([])
        self._free_at.append(start)
        return len(self._free_at) - 1


def _count_overflow(data: TraceData, lane: Ints) -> None:
    moved = np.flatnonzero(lane)
    slices = data.slices
    keys = zip(slices.instant[moved].tolist(), slices.category[moved].tolist(), strict=True)
    for (instant, category), count in Counter(keys).items():
        row = data.ledger.tally("i" if instant else "X", _category(data, category))
        row.on_overflow_lane += count


def _category(data: TraceData, index: int) -> str:
    return data.strings[index] if index >= 0 else ""


# Flows ------------------------------------------------------------------------------------


def _bind_flows(
    data: TraceData, by_track: dict[int, Ints], order: Ints
) -> tuple[Ints, Ints, Ints, Ints]:
    """The slices that arrows leave and enter, and their ends; loose ends go to the ledger."""
    flows = data.flows
    bound = _enclosing_slices(data.slices, flows, by_track)
    source, sink = _pair_ends(flows)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    inside = (bound[source] >= 0) & (bound[sink] >= 0)
    forward = inside.copy()
    forward[inside] = rank[bound[source[inside]]] <= rank[bound[sink[inside]]]
    begin, end = source[forward], sink[forward]
    _count_loose_ends(data, bound, begin, end)
    return bound[begin], bound[end], begin, end


def _enclosing_slices(slices: Slices, flows: Flows, by_track: dict[int, Ints]) -> Ints:
    """For each end of a flow the slice that it belongs to, or -1."""
    bound = np.full(len(flows), -1, np.int64)
    for track in np.unique(flows.track).tolist():
        members = by_track.get(track)
        if members is None:
            continue
        here = np.flatnonzero(flows.track == track)
        ts, end = slices.ts[members], slices.ts[members] + slices.dur[members]
        last = np.searchsorted(ts, flows.ts[here], side="right") - 1
        following = np.searchsorted(ts, flows.ts[here], side="left")
        fits = (last >= 0) & (end[np.maximum(last, 0)] >= flows.ts[here])
        latest_end = np.maximum.accumulate(end)
        within = (last >= 0) & (latest_end[np.maximum(last, 0)] >= flows.ts[here])
        last[~within] = -1
        for number in np.flatnonzero(~fits & within).tolist():
            last[number] = _search_back(end, int(last[number]), int(flows.ts[here[number]]))
        following[following == len(members)] = -1
        chosen = np.where(flows.binds_next[here], following, last)
        bound[here] = np.where(chosen >= 0, members[chosen], -1)
    return bound


def _search_back(end: Ints, position: int, ts: int) -> int:
    """The last slice up to ``position`` that is open at ``ts``; -1 for none."""
    reach, behind = 64, position + 1
    while behind > 0:
        first = max(0, behind - reach)
        open_then = np.flatnonzero(end[first:behind] >= ts)
        if len(open_then):
            return first + int(open_then[-1])
        behind, reach = first, reach * 4
    return -1


def _pair_ends(flows: Flows) -> tuple[Ints, Ints]:
    """Pairs of flow events: each step or end with the latest start or step of its arrow."""
    by_arrow = np.lexsort((flows.role, flows.ts, flows.key))
    key, role = flows.key[by_arrow], flows.role[by_arrow]
    position = np.arange(len(by_arrow))
    gives = np.where(role < 2, position, -1)
    latest = np.concatenate(([-1], np.maximum.accumulate(gives)[:-1])) if len(gives) else gives
    paired = (role > 0) & (latest >= 0)
    paired[paired] &= key[latest[paired]] == key[paired]
    return by_arrow[latest[paired]], by_arrow[position[paired]]


def _count_loose_ends(data: TraceData, bound: Ints, source: Ints, sink: Ints) -> None:
    flows, used = data.flows, np.zeros(len(data.flows), np.bool_)
    used[source] = used[sink] = True
    loose = np.flatnonzero(~used)
    reasons = np.where(
        bound[loose] < 0, "flow inside no slice", "flow without its other end, or back in time"
    )
    keys = zip(
        flows.role[loose].tolist(), flows.category[loose].tolist(), reasons.tolist(), strict=True
    )
    for (role, category, reason), count in Counter(keys).items():
        _uncarry(data.ledger, "stf"[role], _category(data, category), reason, count)


def _uncarry(ledger: Ledger, phase: str, category: str, reason: str, count: int) -> None:
    ledger.tally(phase, category).loaded -= count
    ledger.not_carried(phase, category, reason, count)
