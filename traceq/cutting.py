"""Cuts a part out of a trace: what is below some scopes, in some steps or a window of time.

What the part holds, so that its tables are those of the whole trace under the same limits:

- every slice that the limits select: it starts within the windows, and is a scope or below one;
- all that is below these, and what any of them launched on the GPU;
- in the windows all work of the GPU, also of other code: the account of a table tells it;
- for work on the GPU each call or op that may have launched it, for a backward op each op that may
  be the forward op behind it: all between which the joins choose, so that they choose the same;
- all that is around any of these;
- of the whole trace its steps and outermost scopes, the first call of each scope and of each name
  that a pattern matches, what tells that a module is a layer, and the first and the last slice: by
  these steps, rows and times are found;
- the arrows between what is in it; all counters, asynchronous events, names and metadata.

Times stay those of the whole trace. The ledger counts what was left out, by phase and category. To
count what the limits select, and no more, is left to the tables; to tell without laying out the
trace what need not be read, to ``narrowing``.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from traceq.calltree import nearest, outermost, plant
from traceq.categories import GPU_WORK, RUNTIME
from traceq.joins import ABSENT, NUMBERS_BACK, Sides
from traceq.layout import Layout, arrange
from traceq.limits import Limits
from traceq.model import (
    ArgColumn,
    Bools,
    Flows,
    Ints,
    Ledger,
    Slices,
    SliceTable,
    TraceData,
    leave_out,
)
from traceq.names import fold_name
from traceq.narrowing import Narrowed, narrow
from traceq.overview import JOIN_KEYS, Overview
from traceq.scopes import ScopeSlices, find_layers, find_scope_slices
from traceq.selection import Selection
from traceq.steps import find_steps


def cut(data: TraceData, limits: Limits) -> tuple[TraceData, Layout]:
    """The part of a trace that the limits select, laid out: see the head of this module.

    Raises PatternError and UsageError where there is no such part.
    """
    return cut_narrowed(take(data, narrow(Overview.of(data), limits)), limits)


def cut_narrowed(data: TraceData, limits: Limits) -> tuple[TraceData, Layout]:
    """The same, of a trace of which ``narrowing`` has left no more than may be needed."""
    layout = arrange(data)
    sides = Sides.of(data, layout)
    kept = _Cutting(sides, limits.select(sides.slices)).kept()
    chosen = np.zeros(len(data.slices), np.bool_)
    chosen[layout.order[kept]] = True
    return extract(data, layout, chosen)


# What to keep -------------------------------------------------------------------------------


class _Cutting:
    """Marks the slices of a part, by slice id; ``add`` marks some with all that is around them."""

    def __init__(self, sides: Sides, selection: Selection) -> None:
        self._sides = sides
        self._slices = sides.slices
        self._selection = selection
        self._kept = np.zeros(len(sides.slices), np.bool_)

    def kept(self) -> Bools:
        """Marks all that is in the part."""
        if not len(self._slices):
            return self._kept
        below = self._below()
        self.add(np.flatnonzero(below))
        self._add_gpu_work(below)
        self._add_oddly_written()
        self._add_forward_ops()
        found = find_scope_slices(self._slices, self._selection)
        self._add_marks(found)
        self._add_layers(found)
        return self._kept

    def add(self, ids: Ints) -> None:
        """Keep these slices and all that is around them."""
        while len(ids):
            self._kept[ids] = True
            ids = self._slices.parent[ids]
            ids = ids[ids >= 0]
            ids = np.unique(ids[~self._kept[ids]])

    def _below(self) -> Bools:
        """Marks the slices that the limits select, and those below them."""
        slices, selection = self._slices, self._selection
        chosen = selection.counted(slices)
        if chosen is None:
            chosen = np.ones(len(slices), np.bool_)
        if selection.under is not None:
            chosen &= nearest(slices.parent, selection.marks(slices)) >= 0
        return nearest(slices.parent, chosen) >= 0

    # The GPU

    def _add_gpu_work(self, below: Bools) -> None:
        """Keep activities of the windows, and launched below, with all that may launch them."""
        timely = self._selection.counted(self._slices)
        timely = np.ones(len(below), np.bool_) if timely is None else timely
        activity, call = launch_candidates(self._sides)
        launching = timely | below
        work = self._slices.of_category(*GPU_WORK)
        wanted = work & (timely | self._kept)
        wanted[activity[launching[call]]] = True
        self.add(np.flatnonzero(wanted))
        self.add(np.unique(call[wanted[activity]]))

    def _add_forward_ops(self) -> None:
        """Keep the ops that may be behind the backward ops that are kept."""
        self.add(forward_candidates(self._sides, self._kept))

    def _add_oddly_written(self) -> None:
        """Keep what is joined by a number that is written as something else: the engine does."""
        for (key, kind), column in self._sides.columns.items():
            if key in JOIN_KEYS and kind != "int":
                self.add(self._sides.rank[column.row])

    # The whole trace

    def _add_marks(self, found: ScopeSlices) -> None:
        """Keep steps, outermost scopes, first calls of scopes, and both ends of the trace."""
        slices = self._slices
        self.add(find_steps(slices).slices)
        self.add(
            np.flatnonzero(outermost(slices.parent, find_scope_slices(slices, Selection()).chosen))
        )
        self.add(_firsts(slices.name, found.chosen))
        self.add(_firsts(slices.name, slices.of_category("user_annotation")))
        self.add(_ends(slices))
        asked: Selection | None = self._selection
        while asked is not None:  # a pattern may match what is no scope: it matches nevertheless
            if asked.under is not None:
                self.add(_firsts(slices.name, asked.under[slices.name]))
            asked = asked.around

    def _add_layers(self, found: ScopeSlices) -> None:
        """Keep what tells of the modules in the part whether they are layers."""
        slices, scopes = self._slices, self._selection.marks(self._slices)
        layers = find_layers(slices, found)
        self.add(_firsts(slices.name, layers))
        around = nearest(slices.parent, layers)
        top = np.flatnonzero(outermost(slices.parent, scopes))
        label = np.where(around[top] >= 0, slices.name[around[top]], -1)
        self.add(top[np.unique(label, return_index=True)[1]])
        self.add(_layer_witnesses(slices, found, self._kept))


def _firsts(name: Ints, chosen: Bools) -> Ints:
    """The first of the chosen slices of each name."""
    ids = np.flatnonzero(chosen)
    return ids[np.unique(name[ids], return_index=True)[1]]


def _ends(slices: SliceTable) -> Ints:
    """The slices by which the trace begins and ends, with the profiler's own marks and without."""
    found = []
    for chosen in (np.ones(len(slices), np.bool_), ~slices.of_category("", "Trace")):
        ids = np.flatnonzero(chosen)
        if len(ids):
            end = slices.ts[ids] + slices.dur[ids]
            found += [ids[np.argmin(slices.ts[ids])], ids[np.argmax(end)]]
    return np.unique(np.array(found, np.int64))


def _layer_witnesses(slices: SliceTable, found: ScopeSlices, kept: Bools) -> Ints:
    """Of modules in the part a first module below, and two that differ of each class below."""
    is_module = np.array(
        [found.kind.get(i) == "module" for i in range(len(slices.names))], np.bool_
    )
    forest = plant(slices, is_module[slices.name] & found.chosen)
    inside = np.flatnonzero(forest.parent >= 0)
    inside = inside[kept[forest.ids[forest.parent[inside]]]]
    name = slices.name[forest.ids[inside]]
    classes = np.array([fold_name(text) for text in slices.names], object)
    calls = pd.DataFrame({"parent": forest.parent[inside], "class": classes[name], "name": name})
    others = calls.drop_duplicates().groupby(["parent", "class"]).head(2)
    return forest.ids[inside[others.index.to_numpy(np.int64)]]


# What joins may choose from -----------------------------------------------------------------


def launch_candidates(sides: Sides) -> tuple[Ints, Ints]:
    """Pairs of an activity and a slice that may have launched it, by whatever joins them."""
    work = sides.slices.of_category(*GPU_WORK)
    activity = np.flatnonzero(work)
    pairs = [
        _sharing(sides.number("args.correlation"), activity, sides.slices.of_category(*RUNTIME)),
        _sharing(sides.number("args.External id"), activity, sides.slices.of_category("cpu_op"), 2),
    ]
    arrow = work[sides.sink] & ~work[sides.source]
    pairs.append((sides.sink[arrow], sides.source[arrow]))
    found, call = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return found, call


def _sharing(
    numbers: Ints, activity: Ints, others: Bools, most: int | None = None
) -> tuple[Ints, Ints]:
    """Pairs of activities and other slices with the same number; of these the first ``most``."""
    other = np.flatnonzero(others & (numbers != ABSENT) & (numbers != 0))
    other = other[np.argsort(numbers[other], kind="stable")]
    keys = numbers[other]
    low, high = (np.searchsorted(keys, numbers[activity], side=side) for side in ("left", "right"))
    count = high - low if most is None else np.minimum(high - low, most)
    within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(activity, count), other[np.repeat(low, count) + within]


def forward_candidates(sides: Sides, chosen: Bools) -> Ints:
    """The ops between which the forward ops behind the chosen backward ops are found."""
    is_op = sides.slices.of_category("cpu_op")
    arrow = is_op[sides.source] & is_op[sides.sink] & chosen[sides.sink]
    threads, numbers = sides.number("args.Fwd thread id"), sides.number("args.Sequence number")
    sequenced = is_op & (numbers >= 0)
    is_backward = (threads != 0) & (threads != ABSENT)
    found = [sides.source[arrow]]
    for process in np.unique(sides.process[chosen & sequenced & is_backward]).tolist():
        here = sequenced & (sides.process == process)
        wanted = numbers[here & is_backward & chosen]
        found.append(_numbered(numbers, sides.thread, np.flatnonzero(here & ~is_backward), wanted))
    return np.unique(np.concatenate(found))


def _numbered(numbers: Ints, thread: Ints, forward: Ints, wanted: Ints) -> Ints:
    """The ops of one process with these numbers, those just before, and those that bound both."""
    if not len(forward):
        return forward
    keys = np.unique(numbers[forward])
    before = keys[np.maximum(np.searchsorted(keys, wanted) - 1, 0)]
    near = before[before >= wanted - NUMBERS_BACK]
    chosen = np.isin(numbers[forward], np.concatenate((wanted, near, keys[-1:])))
    other = np.flatnonzero(thread[forward] != thread[forward[0]])[:1]
    return np.concatenate((forward[chosen], forward[:1], forward[other]))


# Taking it out ------------------------------------------------------------------------------


def take(data: TraceData, narrowed: Narrowed) -> TraceData:
    """What is marked, of a trace that is not laid out."""
    chosen, ends = narrowed.slices, narrowed.flows
    return replace(
        data,
        slices=_chosen_slices(data.slices, chosen, np.cumsum(chosen) - 1),
        flows=_chosen_flows(data.flows, ends),
        ledger=_count_left_out(data, ~chosen, ~ends),
    )


def extract(data: TraceData, layout: Layout, chosen: Bools) -> tuple[TraceData, Layout]:
    """Some slices of a trace, by row, with the arrows between them; all else stays.

    With a slice all that is around it must be chosen.
    """
    row = np.cumsum(chosen) - 1
    arrows = chosen[layout.flow_source] & chosen[layout.flow_sink]
    ends = np.zeros(len(data.flows), np.bool_)
    ends[layout.flow_begin[arrows]] = ends[layout.flow_end[arrows]] = True
    used = np.zeros(len(data.flows), np.bool_)
    used[layout.flow_begin] = used[layout.flow_end] = True  # the others are told of already
    ledger = _count_left_out(data, ~chosen, used & ~ends)
    _recount_lanes(data, layout, ~chosen, ledger)
    part = replace(
        data,
        slices=_chosen_slices(data.slices, chosen, row),
        flows=_chosen_flows(data.flows, ends),
        ledger=ledger,
    )
    return part, _chosen_layout(layout, chosen, row, arrows, np.cumsum(ends) - 1)


def _chosen_slices(slices: Slices, chosen: Bools, row: Ints) -> Slices:
    columns = {name: getattr(slices, name)[chosen] for name in Slices.__slots__ if name != "args"}
    return Slices(**columns, args=tuple(_chosen_args(slices.args, chosen, row)))


def _chosen_args(columns: Sequence[ArgColumn], chosen: Bools, row: Ints) -> list[ArgColumn]:
    found = []
    for column in columns:
        here = chosen[column.row]
        if here.any():
            found.append(
                ArgColumn(column.key, column.kind, row[column.row[here]], column.value[here])
            )
    return found


def _chosen_flows(flows: Flows, ends: Bools) -> Flows:
    return Flows(*(getattr(flows, name)[ends] for name in Flows.__slots__))


def _chosen_layout(layout: Layout, chosen: Bools, row: Ints, arrows: Bools, end: Ints) -> Layout:
    """The same places; all that is around a chosen slice is chosen as well."""
    parent = layout.parent[chosen]
    overrides = {
        int(row[item]): int(row[container])
        for item, container in layout.parent_override.items()
        if chosen[item]
    }
    return Layout(
        order=row[layout.order[chosen[layout.order]]],
        lane=layout.lane[chosen],
        parent=np.where(parent >= 0, row[parent], -1) if len(row) else parent,
        parent_override=overrides,
        flow_source=row[layout.flow_source[arrows]],
        flow_sink=row[layout.flow_sink[arrows]],
        flow_begin=end[layout.flow_begin[arrows]],
        flow_end=end[layout.flow_end[arrows]],
    )


# The ledger ---------------------------------------------------------------------------------


def _count_left_out(data: TraceData, left: Bools, ends: Bools) -> Ledger:
    """The ledger without some slices and ends of arrows."""
    ledger = copy.deepcopy(data.ledger)
    slices, flows = data.slices, data.flows
    letters = np.frombuffer(b"stf", np.uint8)[flows.role[ends]]
    counts = _by_phase(data, slices.phase[left], slices.category[left])
    counts += _by_phase(data, letters, flows.category[ends])
    for (phase, category), count in counts.items():
        leave_out(ledger, phase, category, count)
    return ledger


def _by_phase(data: TraceData, phase: Any, category: Ints) -> Counter[tuple[str, str]]:
    codes, counts = np.unique(phase.astype(np.int64) + 256 * (category + 1), return_counts=True)
    texts = ["", *data.strings]
    found: Counter[tuple[str, str]] = Counter()
    for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
        found[chr(code % 256), texts[code // 256]] += count  # none and an empty one are the same
    return found


def _recount_lanes(data: TraceData, layout: Layout, left: Bools, ledger: Ledger) -> None:
    moved = np.flatnonzero(left & (layout.lane > 0))
    letters = np.where(data.slices.instant[moved], ord("i"), ord("X"))  # as the layout counts
    for (phase, category), count in _by_phase(data, letters, data.slices.category[moved]).items():
        ledger.tally(phase, category).on_overflow_lane -= count
