"""What the GPU did over a span of time, and why it was idle: tables in, tables out.

All arithmetic is on integer nanoseconds, so that the states of a device add up to the span exactly.
Which activities and waits there are, and the launch that belongs to each activity, the caller finds
in the trace; how the tables look is left to ``report`` and ``render``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from traceq.categories import GPU_WORK
from traceq.model import Bools, Ints

STATES = (
    "compute",
    "overlap",
    "communication",
    "copy",
    "idle: work pending",
    "idle: sync",
    "idle: CPU",
    "idle: unknown cause",
    "idle: before the first activity",
    "idle: after the last activity",
)
"""What a device can be doing, in the order of the tables; it does exactly one at any time.

``compute``: some kernel runs, none of them communicates; ``communication``: only such kernels run;
``overlap``: both at once; ``copy``: no kernel runs, a copy or set does. Idle, ``launch latency``:
something has been launched and has not started; ``sync``: nothing has, and a CPU thread waits for
the GPU; ``CPU``: nothing has, and none waits. ``unknown cause`` takes the place of these three
where no launch is known.
"""

(
    _COMPUTE,
    _OVERLAP,
    _COMMUNICATION,
    _COPY,
    _LATENCY,
    _SYNC,
    _CPU,
    _UNKNOWN,
    _BEFORE,
    _AFTER,
) = range(len(STATES))
_BUSY = (_COMPUTE, _OVERLAP, _COMMUNICATION, _COPY)

COMMUNICATION_KERNELS = (
    r"nccl\w*Kernel",  # ncclDevKernel_*, ncclKernel_*, ncclSymkDevKernel_*; AMD's RCCL as well
    r"rccl",
    r"msccl",  # and mscclpp
    r"nvshmem",
    r"deep_ep",
    r"cross_device_reduce",  # custom all-reduce of sglang and vLLM
    r"(?<![A-Za-z])allreduce_",  # TensorRT-LLM, flashinfer, quick all-reduce of vLLM
    r"(?i:(?:one|two)_?shot_?all_?reduce)",  # TensorRT-LLM, flashinfer, symmetric memory of PyTorch
    r"multimem_",  # symmetric memory of PyTorch, through NVLink switches
)
"""Parts of kernel names, as regular expressions, that tell a kernel which moves data between GPUs.
Kernels that fuse this with other work, such as a normalisation, count as communication."""

_COMMUNICATION_PATTERN = re.compile("|".join(COMMUNICATION_KERNELS))


_STATE_TYPES = {"device": "int64", "state": "str", "time": "int64", "share": "float64"}
_STREAM_TYPES = dict.fromkeys(
    (
        "device",
        "stream",
        "activities",
        "total",
        "busy",
        "compute",
        "communication",
        "copy",
        "hidden",
    ),
    "int64",
)
_GAP_TYPES = {"device": "int64", "ts": "int64", "dur": "int64", "cause": "str", "next_name": "str"}


@dataclass(frozen=True, slots=True)
class Timeline:
    """What each device did from ``start`` to ``end``; all times in ns, all tables by device.

    ``states``: one row a device and state that can be told of it (device, state, time, share of
    the span), in the order of :data:`STATES`; the times of a device add up to the span.

    ``streams``: one row a stream with an activity in the span (device, stream, activities, total,
    busy, compute, communication, copy, hidden). ``total`` is the sum of the durations within the
    span, of which compute, communication and copy are the parts by class; ``busy`` is their union;
    ``hidden`` is how much of the union of the stream's communication lies under compute kernels of
    other streams of the device.

    ``gaps``: the longest idle times between two activities, longest first (device, ts, dur, cause,
    next_name). ``cause`` is the state with most of the time, ``next_name`` the activity that ends
    the gap. ``gap_count`` and ``gap_total`` speak of all of them, over all devices.
    """

    start: int
    end: int
    states: pd.DataFrame
    streams: pd.DataFrame
    gaps: pd.DataFrame
    gap_count: int
    gap_total: int

    @property
    def busy_share(self) -> pd.Series[float]:
        """The part of the span in which a device is not idle (0 to 1), indexed by device."""
        busy = self.states["state"].isin([STATES[number] for number in _BUSY])
        times = self.states["time"].where(busy, 0).groupby(self.states["device"]).sum()
        return (times / max(self.end - self.start, 1)).rename("busy_share")


def timeline(
    activities: pd.DataFrame,
    waits: pd.DataFrame,
    start: int,
    end: int,
    *,
    gap_limit: int = 20,
) -> Timeline:
    """Tell what each device in ``activities`` did from ``start`` up to ``end`` (ns), and why not.

    ``activities`` has a row for each kernel, copy and set: ``ts``, ``dur`` (ns), ``name``,
    ``category`` (kernel, gpu_memcpy, gpu_memset), ``device``, ``stream`` (-1 or missing: not known)
    and ``launch_ts`` (start of the CPU call that launched it; missing: not known). Those that start
    after the span belong here as well: launched within it, they are pending. ``waits`` has ``ts``
    and ``dur`` of the CPU calls that wait for the GPU, of any thread; they count for every device.

    Activities without length are counted, and do not end a gap. An activity whose launch is not
    known is never pending. Raises ValueError where the span ends before it starts or a category is
    none of the three.
    """
    if end < start:
        raise ValueError(f"the span ends at {end}, before its start at {start}")
    work = _read(activities)
    waiting = _clip(*_read_waits(waits), start, end)
    sweeps = [
        _sweep(device, work.take(work.device == device), waiting, start, end)
        for device in np.unique(work.device).tolist()
    ]
    return Timeline(
        start,
        end,
        states=_table([_states(sweep) for sweep in sweeps], _STATE_TYPES),
        streams=_table([_streams(sweep) for sweep in sweeps], _STREAM_TYPES),
        gaps=_longest_gaps(sweeps, gap_limit),
        gap_count=sum(len(sweep.gaps()[0]) for sweep in sweeps),
        gap_total=sum(int(np.diff(sweep.edges)[sweep.has_cause()].sum()) for sweep in sweeps),
    )


def is_communication(name: str) -> bool:
    """Whether a kernel of this name moves data between GPUs: see COMMUNICATION_KERNELS."""
    return _COMMUNICATION_PATTERN.search(name) is not None


def _table(parts: list[pd.DataFrame], types: dict[str, Any]) -> pd.DataFrame:
    """The parts one below the other; with these columns also where there are none."""
    empty = pd.DataFrame({column: pd.Series(dtype=dtype) for column, dtype in types.items()})
    return pd.concat([empty, *parts], ignore_index=True).astype(types)


# Unions -----------------------------------------------------------------------------------


def busy_union(ts: Ints, end: Ints) -> int:
    """The time covered by intervals from ``ts`` to ``end``, in their unit; overlaps count once.

    Both arrays have one entry an interval, in any order; no interval ends before it starts.
    """
    return int(_covered(np.sort(ts), np.sort(end)).sum())


def busy_by_group(group: Ints, ts: Ints, end: Ints, groups: int) -> Ints:
    """:func:`busy_union` of each group: an array with one entry for each of ``groups``.

    ``group`` gives each interval its group's number, from 0; a group without intervals has 0.
    Raises ValueError where a number is negative or not below ``groups``.
    """
    if len(group) and not 0 <= int(group.min()) <= int(group.max()) < groups:
        raise ValueError(f"groups are numbered {group.min()} to {group.max()}, of {groups}")
    if not len(group):
        return np.zeros(groups, np.int64)
    base = int(ts.min())  # times since the epoch leave no room for what follows
    span = int(end.max()) - base + 1
    if groups > 1 and groups * span >= 2**62:
        return _busy_by_halves(group, ts, end, groups)
    # Each group is moved to a stretch of its own: then all are one sort, with nothing in between.
    shift = group.astype(np.int64) * span - base
    covered = np.concatenate(([0], np.cumsum(_covered(np.sort(ts + shift), np.sort(end + shift)))))
    behind = np.cumsum(np.bincount(group, minlength=groups))
    return np.diff(covered[behind], prepend=0)


def _busy_by_halves(group: Ints, ts: Ints, end: Ints, groups: int) -> Ints:
    """:func:`busy_by_group` where the numbers are too large to do all groups at once."""
    half = groups // 2
    low = group < half
    return np.concatenate(
        (
            busy_by_group(group[low], ts[low], end[low], half),
            busy_by_group(group[~low] - half, ts[~low], end[~low], groups - half),
        )
    )


def _covered(ts: Ints, end: Ints) -> Ints:
    """Numbers that add up to the time covered, up to any gap; both are sorted, each for itself.

    Where as many intervals have ended as have started, nothing is open: the gaps lie between the
    n-th end and the start after the n-th, wherever that start is the later one. Which end belongs
    to which start does not matter.
    """
    return end - np.maximum(ts, np.concatenate((ts[:1], end[:-1])))


# Reading ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Activities:
    """The activities as arrays of one entry each: ns, and indices into ``names``.

    ``kind`` is _COMPUTE, _COMMUNICATION or _COPY. ``launch`` is ``ts`` where ``launched`` is not
    set: such an activity is never pending.
    """

    ts: Ints
    end: Ints
    launch: Ints
    launched: Bools
    kind: Ints
    device: Ints
    stream: Ints
    name: Ints
    names: NDArray[np.object_]

    def take(self, chosen: Bools) -> _Activities:
        """The chosen ones, in the same order."""
        return _Activities(
            self.ts[chosen],
            self.end[chosen],
            self.launch[chosen],
            self.launched[chosen],
            self.kind[chosen],
            self.device[chosen],
            self.stream[chosen],
            self.name[chosen],
            self.names,
        )

    def within(self, start: int, end: int) -> _Activities:
        """Those that run within a span, cut off at its ends; nothing runs in an empty span."""
        at_start = (self.ts == start) & (self.end == start)
        running = (self.ts < end) & ((self.end > start) | at_start)
        inside = self.take(running & (start < end))
        return replace(inside, ts=np.maximum(inside.ts, start), end=np.minimum(inside.end, end))


def _read(activities: pd.DataFrame) -> _Activities:
    ts = _integers(activities["ts"])
    launch = activities["launch_ts"]
    launched = launch.notna().to_numpy(np.bool_)
    name, names = _number(activities["name"])
    return _Activities(
        ts=ts,
        end=ts + _integers(activities["dur"]),
        launch=np.where(launched, _integers(launch), ts),
        launched=launched,
        kind=_kinds(activities["category"], name, names),
        device=_integers(activities["device"]),
        stream=_integers(activities["stream"]),
        name=name,
        names=names,
    )


def _read_waits(waits: pd.DataFrame) -> tuple[Ints, Ints]:
    ts = _integers(waits["ts"])
    return ts, ts + _integers(waits["dur"])


def _integers(column: pd.Series[Any]) -> Ints:
    """A column of integers, exactly; -1 where one is missing."""
    return np.asarray(column.astype("Int64").to_numpy(np.int64, na_value=-1), np.int64)


def _number(column: pd.Series[Any]) -> tuple[Ints, NDArray[np.object_]]:
    """The distinct texts of a column, and for each row the index of its own among them."""
    number, distinct = pd.factorize(column)
    # A missing text has the number -1, which is the last one: an empty one.
    return number.astype(np.int64), np.append(np.asarray(distinct, dtype=np.object_), "")


def _kinds(category: pd.Series[Any], name: Ints, names: NDArray[np.object_]) -> Ints:
    """The class of each activity; every distinct name is looked at once."""
    number, categories = _number(category)
    used = set(categories[np.unique(number)])
    if used - set(GPU_WORK):
        listed = ", ".join(sorted(map(repr, used - set(GPU_WORK))))
        raise ValueError(f"not a category of GPU activities: {listed}")
    kernel = (categories == "kernel")[number]
    communicates = np.array([is_communication(text) for text in names], np.bool_)[name]
    return np.where(kernel, np.where(communicates, _COMMUNICATION, _COMPUTE), _COPY)


def _clip(ts: Ints, end: Ints, start: int, stop: int) -> tuple[Ints, Ints]:
    """What of the intervals lies between ``start`` and ``stop``; nothing without length."""
    ts, end = np.maximum(ts, start), np.minimum(end, stop)
    left = ts < end
    return ts[left], end[left]


# The sweep --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sweep:
    """A device over the span, cut wherever something changes.

    ``edges`` are all distinct times of a change, rising, the ends of the span among them. ``state``
    (indices into STATES) and ``compute`` (kernels running) tell of each stretch from an edge to the
    next. ``work`` is what runs within the span; ``causes`` tells whether idle time has a cause.
    """

    device: int
    work: _Activities
    causes: bool
    edges: Ints
    state: Ints
    compute: Ints

    def has_cause(self) -> Bools:
        """Marks the stretches that are idle between two activities."""
        return (self.state >= _LATENCY) & (self.state <= _UNKNOWN)

    def gaps(self) -> tuple[Ints, Ints]:
        """The edges where such stretches in a row begin, and where they end, as indices."""
        idle = np.concatenate(([False], self.has_cause(), [False]))
        changes = np.flatnonzero(idle[1:] != idle[:-1])
        return changes[::2], changes[1::2]


def _sweep(
    device: int, work: _Activities, waits: tuple[Ints, Ints], start: int, end: int
) -> _Sweep:
    """Find the state of one device, whose activities these are, at every time of the span."""
    inside = work.within(start, end)
    causes = bool(work.launched.any())
    pending = _clip(work.launch, work.ts, start, end)
    edges = _distinct(np.concatenate(([start, end], inside.ts, inside.end, *pending, *waits)))
    compute, communication, copy = (
        _open(edges, inside.ts[inside.kind == kind], inside.end[inside.kind == kind])
        for kind in (_COMPUTE, _COMMUNICATION, _COPY)
    )
    state = np.full(len(edges) - 1, _UNKNOWN)
    if causes:
        is_pending, is_waiting = _open(edges, *pending) > 0, _open(edges, *waits) > 0
        state = np.select([is_pending, is_waiting], [_LATENCY, _SYNC], _CPU)
    # Where nothing runs within the span, all of it is before the first activity: hence the order.
    state[edges[:-1] >= inside.end.max(initial=start)] = _AFTER
    state[edges[:-1] < inside.ts.min(initial=end)] = _BEFORE
    state = np.select(
        [(compute > 0) & (communication > 0), compute > 0, communication > 0, copy > 0],
        [_OVERLAP, _COMPUTE, _COMMUNICATION, _COPY],
        state,
    )
    return _Sweep(device, inside, causes, edges, state, compute)


def _distinct(values: Ints) -> Ints:
    """The distinct values, rising: np.unique, whose hashing takes ten times as long on these."""
    values = np.sort(values)
    return values[np.concatenate(([True], values[1:] != values[:-1]))]


def _open(edges: Ints, ts: Ints, end: Ints) -> Ints:
    """How many intervals are open from each edge to the next; they start and end at edges."""
    started = np.bincount(np.searchsorted(edges, ts), minlength=len(edges))
    ended = np.bincount(np.searchsorted(edges, end), minlength=len(edges))
    return np.cumsum(started - ended)[:-1]


# Tables -----------------------------------------------------------------------------------


def _states(sweep: _Sweep) -> pd.DataFrame:
    """Rows of :attr:`Timeline.states` for one device."""
    causes = (_LATENCY, _SYNC, _CPU) if sweep.causes else (_UNKNOWN,)
    told = (*_BUSY, *causes, _BEFORE, _AFTER)
    time = _sum_by(sweep.state, np.diff(sweep.edges), len(STATES))[list(told)]
    return pd.DataFrame(
        {
            "device": sweep.device,
            "state": [STATES[number] for number in told],
            "time": time,
            "share": time / max(int(sweep.edges[-1] - sweep.edges[0]), 1),
        }
    )


def _streams(sweep: _Sweep) -> pd.DataFrame:
    """Rows of :attr:`Timeline.streams` for one device."""
    work = sweep.work
    streams, number = np.unique(work.stream, return_inverse=True)
    lengths = work.end - work.ts
    by_class = {
        STATES[kind]: _sum_by(number, np.where(work.kind == kind, lengths, 0), len(streams))
        for kind in (_COMPUTE, _COMMUNICATION, _COPY)
    }
    return pd.DataFrame(
        {
            "device": sweep.device,
            "stream": streams,
            "activities": np.bincount(number, minlength=len(streams)),
            "total": _sum_by(number, lengths, len(streams)),
            "busy": busy_by_group(number, work.ts, work.end, len(streams)),
            **by_class,
            "hidden": [_hidden(sweep, stream) for stream in streams.tolist()],
        }
    )


def _hidden(sweep: _Sweep, stream: int) -> int:
    """How long a stream communicates while other streams of the device compute."""
    work, own = sweep.work, sweep.work.stream == stream
    communication = own & (work.kind == _COMMUNICATION)
    if not communication.any():
        return 0
    compute = own & (work.kind == _COMPUTE)
    elsewhere = sweep.compute - _open(sweep.edges, work.ts[compute], work.end[compute])
    communicates = _open(sweep.edges, work.ts[communication], work.end[communication]) > 0
    return int(np.diff(sweep.edges)[communicates & (elsewhere > 0)].sum())


def _longest_gaps(sweeps: list[_Sweep], limit: int) -> pd.DataFrame:
    gaps = _table([_gaps(sweep, limit) for sweep in sweeps], _GAP_TYPES)
    longest = gaps.sort_values(["dur", "ts", "device"], ascending=[False, True, True])
    return longest.head(limit).reset_index(drop=True)


def _gaps(sweep: _Sweep, limit: int) -> pd.DataFrame:
    """Rows of :attr:`Timeline.gaps` for one device: its longest ones."""
    first, behind = sweep.gaps()
    longest = np.argsort(sweep.edges[first] - sweep.edges[behind], kind="stable")[:limit]
    first, behind = first[longest], behind[longest]
    ts, end = sweep.edges[first], sweep.edges[behind]
    by_start = np.argsort(sweep.work.ts, kind="stable")
    following = by_start[np.searchsorted(sweep.work.ts[by_start], end)]
    cause = _main_cause(sweep, first, behind)
    return pd.DataFrame(
        {
            "device": np.full(len(ts), sweep.device),
            "ts": ts,
            "dur": end - ts,
            "cause": [STATES[number] for number in cause.tolist()],
            "next_name": sweep.work.names[sweep.work.name[following]],
        }
    )


def _main_cause(sweep: _Sweep, first: Ints, behind: Ints) -> Ints:
    """The state that takes most of each run of stretches; of equal ones the first in STATES."""
    lengths = np.diff(sweep.edges)
    times = []
    for state in range(_LATENCY, _UNKNOWN + 1):
        passed = np.concatenate(([0], np.cumsum(np.where(sweep.state == state, lengths, 0))))
        times.append(passed[behind] - passed[first])
    longest: Ints = np.argmax(times, axis=0)
    return longest + _LATENCY


def _sum_by(number: Ints, values: Ints, count: int) -> Ints:
    """The sum of the values of each number below ``count``; exact, unlike weights of bincount."""
    sums = np.zeros(count, np.int64)
    np.add.at(sums, number, values)
    return sums
