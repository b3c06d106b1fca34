"""GPU time by what launched it: which node of a call tree each kernel, copy or set belongs to.

Every activity has at most one home, so sums over homes add up to the trace's GPU time exactly.
Where an activity was launched from is told by queries/launches.sql, what backward ops belong to by
queries/backward.sql; this module joins them with a tree. Pure arrays in, arrays out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from traceq.calltree import NONE, CallTree, nearest, sum_by
from traceq.categories import RUNTIME
from traceq.model import Bools, ForwardOps, Ints, Launches, SliceTable
from traceq.timeline import busy_by_group

if TYPE_CHECKING:
    from collections.abc import Sequence

BACKWARD_NODE = "autograd::engine::evaluate_function: "
"""Begins the name of the op that runs one node of autograd's graph."""

_WAIT = re.compile(
    r"Synchronize|(?:cuda|hip|cu)Memcpy(?!\w*Async)"
    r"|^(?:ur|pi)(?:QueueFinish|EventWait|EventsWait|EnqueueEventsWait$)"
)
"""Calls that return when the GPU is done: cudaStreamSynchronize, cudaMemcpy, urQueueFinish, ..."""


@dataclass(frozen=True, slots=True)
class Activities:
    """Kernels, copies and sets of a trace, one entry each, in rising order of start.

    ``id`` is the slice id, ``launch`` that of the CPU call that launched it (-1: the trace does
    not tell), ``op`` the innermost slice around that which is no runtime call, ``forward`` the
    forward op whose backward pass launched it (-1: launched otherwise), ``backward`` that backward
    op; ``device`` and ``stream`` are -1 where unknown. Times in ns.
    """

    id: Ints
    ts: Ints
    dur: Ints
    launch: Ints
    op: Ints
    forward: Ints
    backward: Ints
    device: Ints
    stream: Ints

    def __len__(self) -> int:
        return len(self.id)

    def where(self, chosen: Bools) -> Activities:
        """The chosen activities."""
        return Activities(*(getattr(self, name)[chosen] for name in self.__slots__))


def join_activities(slices: SliceTable, launches: Launches, forward_ops: ForwardOps) -> Activities:
    """Join activities, and the calls that launched them, with the ops around and behind these."""
    forward_of = np.full(len(slices) + 1, NONE, np.int64)
    forward_of[forward_ops.id] = forward_ops.forward
    launch = launches.launch
    backward = np.full(len(launch), NONE, np.int64)
    if len(forward_ops.id):
        backward = at(nearest(slices.parent, forward_of[:-1] >= 0), launch)
    op = at(nearest(slices.parent, ~slices.of_category(*RUNTIME)), launch)
    # A launch at the top of its thread, around which there is no op, stands for itself.
    op = np.where((op < 0) & (launch >= 0), launch, op)
    return Activities(
        id=launches.id,
        ts=slices.ts[launches.id],
        dur=slices.dur[launches.id],
        launch=launch,
        op=op,
        forward=forward_of[backward],
        backward=backward,
        device=launches.device,
        stream=launches.stream,
    )


def at(found: Ints, ids: Ints) -> Ints:
    """What was found for each of the ids; -1 where the id is -1."""
    return np.where(ids >= 0, found[ids], NONE) if len(found) else np.full(len(ids), NONE, np.int64)


# Homes ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Homes:
    """The node of a tree that each activity belongs to (-1: none), and how it got there.

    ``node`` is that of the op, ``launch`` that of the launching call where it has a node of its own
    (below ``node``, or the same); ``is_backward`` marks activities that belong to a node by the
    forward op behind their launch, and not by the launch itself.
    """

    node: Ints
    launch: Ints
    is_backward: Bools

    def moved(self, tree: CallTree, activities: Activities, chosen: Bools) -> Homes:
        """The same, with the chosen activities at home with their forward op."""
        node = np.where(chosen, _node_of(tree, activities.forward, _all(tree)), self.node)
        return Homes(
            node, np.where(chosen, node, self.launch), self.is_backward | (chosen & (node >= 0))
        )

    def without(self, left_out: Bools) -> Homes:
        """The same, with some activities made homeless."""
        node, launch = (np.where(left_out, NONE, item) for item in (self.node, self.launch))
        return Homes(node, launch, self.is_backward & ~left_out)


def follow_forward(slices: SliceTable, activities: Activities, scope: Bools, firm: Bools) -> Bools:
    """Marks the activities that belong to the scope of their forward op, not of their launch.

    That is so for what a backward op launches below no scope; and below labels alone (an engine
    may set these around anything) where the forward op is in a ``firm`` scope, a module. A module
    between the backward op and the launch is a forward pass that is run again: it keeps its work.
    """
    forward = at(nearest(slices.parent, scope), activities.forward)
    around = nearest(slices.parent, firm)
    is_free = at(nearest(slices.parent, scope), activities.op) < 0
    of_module = at(around, activities.forward) >= 0
    of_module &= at(around, activities.op) == at(around, activities.backward)
    found: Bools = (activities.backward >= 0) & (forward >= 0) & (is_free | of_module)
    return found


def find_homes(
    tree: CallTree, activities: Activities, included: Bools, *, follow_backward: bool
) -> Homes:
    """The homes of activities among the included nodes.

    An activity belongs to the node of the op that launched it; where that is none of the included
    ones and ``follow_backward`` is set, to the node of the forward op behind it.
    """
    launch = _node_of(tree, activities.launch, included)
    node = _node_of(tree, activities.op, included)
    node = np.where(node >= 0, node, launch)  # the call itself may be the scope
    is_backward = np.zeros(len(activities), np.bool_)
    if follow_backward:
        forward = _node_of(tree, activities.forward, included)
        is_backward = (node < 0) & (forward >= 0)
        node, launch = np.where(is_backward, forward, (node, launch))
    return Homes(node, launch, is_backward)


def _node_of(tree: CallTree, ids: Ints, included: Bools) -> Ints:
    """The node of each slice, -1 where it has none or that is not included."""
    position = at(tree.forest.home, ids)
    node = np.where(position >= 0, tree.node[position], NONE) if len(tree.forest) else position
    return np.where((node >= 0) & included[node], node, NONE) if len(tree) else node


def _all(tree: CallTree) -> Bools:
    return np.ones(len(tree), np.bool_)


# Sums -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GpuSums:
    """GPU work of groups of nodes, one entry a group; times in ns.

    ``total``, ``activities``, ``launches`` and ``busy`` (union of intervals) are of everything
    below the group's nodes, each activity counted once a group; ``self_total`` and
    ``self_activities`` of the activities at home in one of its nodes: these add up.
    """

    launches: Ints
    activities: Ints
    self_activities: Ints
    total: Ints
    self_total: Ints
    busy: Ints

    @classmethod
    def of_nothing(cls, groups: int) -> GpuSums:
        """Zeros for so many groups."""
        return cls(*(np.zeros(groups, np.int64) for _ in cls.__slots__))


def sum_by_group(
    tree: CallTree, activities: Activities, homes: Homes, group: Ints, groups: int
) -> GpuSums:
    """Sum GPU work over groups of nodes; ``group`` has one entry a node, negative for none."""
    at_home = np.flatnonzero(homes.node >= 0)
    if not len(at_home):
        return GpuSums.of_nothing(groups)
    nodes, position = np.unique(homes.launch[at_home], return_inverse=True)
    own = group[homes.node[at_home]]
    named = own >= 0
    pair_node, pair_group = tree.paths(nodes, group)
    row, row_group = _expand(position, len(nodes), pair_node, pair_group)
    chosen = at_home[row]
    start = activities.ts[chosen]
    return GpuSums(
        launches=_launches(row_group, activities.launch[chosen], groups),
        activities=np.bincount(row_group, minlength=groups),
        self_activities=np.bincount(own[named], minlength=groups),
        total=sum_by(row_group, activities.dur[chosen], groups),
        self_total=sum_by(own[named], activities.dur[at_home][named], groups),
        busy=busy_by_group(row_group, start, start + activities.dur[chosen], groups),
    )


def _launches(group: Ints, launch: Ints, groups: int) -> Ints:
    """How many different calls launched the activities of each group."""
    known = launch >= 0
    size = int(launch.max(initial=0)) + 1
    pairs = pd.unique(group[known] * size + launch[known])
    return np.bincount(pairs // size, minlength=groups)


def _expand(position: Ints, size: int, pair_node: Ints, pair_group: Ints) -> tuple[Ints, Ints]:
    """Each row once for each group of its node: (row, group)."""
    by_node = np.argsort(pair_node, kind="stable")
    count = np.bincount(pair_node, minlength=size)
    start = np.cumsum(count) - count
    repeat = count[position]
    row = np.repeat(np.arange(len(position)), repeat)
    ends = np.cumsum(repeat)
    within = np.arange(len(row)) - np.repeat(ends - repeat, repeat)
    return row, pair_group[by_node][start[position[row]] + within]


def busy_time(activities: Activities) -> int:
    """Length (ns) of the union of the activities' intervals."""
    zeros = np.zeros(len(activities), np.int64)
    return int(busy_by_group(zeros, activities.ts, activities.ts + activities.dur, 1)[0])


def launch_count(launch: Ints) -> int:
    """How many different calls launched activities."""
    return len(np.unique(launch[launch >= 0]))


def account(activities: Activities, rows: Sequence[tuple[str, Bools]]) -> list[dict[str, object]]:
    """One record for each named part of the activities that is not empty."""
    found = []
    for name, chosen in rows:
        part = activities.where(chosen)
        if len(part):
            found.append(
                {
                    "name": name,
                    "launches": launch_count(part.launch),
                    "activities": len(part),
                    "activities_self": len(part),
                    "gpu_total": int(part.dur.sum()),
                    "gpu_self": int(part.dur.sum()),
                    "gpu_busy": busy_time(part),
                }
            )
    return found


# For the timeline -------------------------------------------------------------------------


def gpu_spans(slices: SliceTable, activities: Activities) -> pd.DataFrame:
    """The activities as :func:`traceq.timeline.timeline` takes them."""
    launch = activities.launch
    launch_ts = np.where(launch >= 0, slices.ts[launch], 0) if len(slices) else launch
    return pd.DataFrame(
        {
            "ts": activities.ts,
            "dur": activities.dur,
            "name": np.array(slices.names, object)[slices.name[activities.id]],
            "category": np.array(slices.categories, object)[slices.category[activities.id]],
            "device": activities.device,
            "stream": activities.stream,
            "launch_ts": pd.arrays.IntegerArray(launch_ts, launch < 0),
        }
    )


def waits(slices: SliceTable) -> pd.DataFrame:
    """The runtime calls that wait for the GPU: synchronisation, and copies that block."""
    waiting = np.array([bool(_WAIT.search(name)) for name in slices.names], np.bool_)
    chosen = slices.of_category(*RUNTIME)
    chosen &= waiting[slices.name] if len(slices) else chosen
    return pd.DataFrame({"ts": slices.ts[chosen], "dur": slices.dur[chosen]})
