"""What the GPU ran: one row a kernel, copy or set, or one row an activity.

Tables in, a table out. Which op launched what is settled in ``gpu``, names are shortened by
``kernel_names``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from traceq.calls import named_or_none, nullable
from traceq.calltree import NONE, outermost, plant, sum_by
from traceq.gpu import Activities, Homes, busy_time, find_homes, launch_count
from traceq.kernel_names import short_kernel
from traceq.model import Bools, Field, Ints, SliceTable
from traceq.selection import OUTSIDE, UNKNOWN, Selection, grow
from traceq.timeline import busy_by_group

KERNEL_FIELDS = (
    Field("kernel", "STRING", "", "Name in short: template arguments and parameters folded."),
    Field("category", "STRING", "", "kernel, gpu_memcpy or gpu_memset."),
    Field("variants", "LONG", "", "Number of full names that are this one in short."),
    Field("calls", "LONG", "", "Number of activities."),
    Field("total", "LONG", "ns", "Sum of their durations on the GPU: these add up."),
    Field("average", "DOUBLE", "ns", "Mean duration."),
    Field("min", "LONG", "ns", "Shortest."),
    Field("max", "LONG", "ns", "Longest."),
    Field("busy", "LONG", "ns", "Time during which any of them ran, on any GPU."),
    Field("share", "DOUBLE", "", "Part of all GPU time in the chosen time (0 to 1): these add up."),
    Field("launches", "LONG", "", "Calls that launched them."),
    Field("backward", "LONG", "", "Those that are the scopes' by their backward pass."),
    Field("delay", "DOUBLE", "ns", "Median time from launch to start; NaN where unknown."),
    Field("ops", "STRING", "", "The ops that launched most of them, with counts."),
)
"""Columns of :func:`kernels_table`. Rows in parentheses hold the GPU time outside of the scopes."""

ACTIVITY_FIELDS = (
    Field("id", "LONG", "", "Slice id of the activity."),
    Field("ts", "LONG", "ns", "Start on the GPU."),
    Field("dur", "LONG", "ns", "Duration on the GPU."),
    Field("name", "STRING", "", "Name as it stands in the trace."),
    Field("kernel", "STRING", "", "Name in short."),
    Field("category", "STRING", "", "kernel, gpu_memcpy or gpu_memset."),
    Field("device", "LONG", "", "Number of the GPU; NULL where unknown."),
    Field("stream", "LONG", "", "Number of the stream; NULL where unknown."),
    Field("launch_id", "LONG", "", "Slice id of the launching call; NULL where unknown."),
    Field("delay", "LONG", "ns", "From the start of that call to the start of the activity."),
    Field("op", "STRING", "", "Op that launched it; NULL where unknown."),
    Field("scope_id", "LONG", "", "Slice id of the scope it belongs to; NULL for none."),
    Field("scope", "STRING", "", "Name of that scope; NULL for none."),
    Field("is_backward", "BOOL", "", "Whether it belongs to the scope by its backward pass."),
)
"""Columns of :func:`activities_table`."""

OPS_SHOWN = 3


def scope_homes(
    slices: SliceTable, activities: Activities, selection: Selection
) -> tuple[Ints, Homes]:
    """The scope's slice id (-1: none) of each activity, and the homes among scopes."""
    forest = plant(slices, outermost(slices.parent, selection.marks(slices)))
    scoped = grow(slices, forest, np.zeros(len(forest), np.int64), selection)
    homes = find_homes(scoped.tree, activities, scoped.included, follow_backward=True)
    anchor = np.where(homes.is_backward, activities.forward, activities.op)
    anchor = np.where((homes.node >= 0) & (anchor < 0), activities.launch, anchor)
    # The launching call itself may be the scope; the op is then above it.
    position = np.where(anchor >= 0, forest.home[anchor], NONE)
    by_launch = np.where(activities.launch >= 0, forest.home[activities.launch], NONE)
    position = np.where(position >= 0, position, by_launch)
    scope = np.where(homes.node >= 0, forest.ids[position] if len(forest) else NONE, NONE)
    return scope, homes


def kernels_table(
    slices: SliceTable,
    fold: Sequence[str],
    activities: Activities,
    selection: Selection,
    *,
    full_names: bool = False,
) -> pd.DataFrame:
    """One row a kernel, copy or set of the selected part; columns: :data:`KERNEL_FIELDS`."""
    chosen = selection.activities(slices, activities)
    backward, left = np.zeros(len(chosen), np.bool_), []
    inside = ~backward
    if selection.under is not None:
        scope, homes = scope_homes(slices, chosen, selection)
        inside, backward = scope >= 0, homes.is_backward
        unknown = ~inside & (chosen.op < 0)
        left = [(OUTSIDE, ~inside & ~unknown), (UNKNOWN, unknown)]
    number, kernels = _number_kernels(slices, chosen, full_names)
    parts = [(inside, number, kernels)]
    parts += [(part, np.zeros(len(chosen), np.int64), [name]) for name, part in left if part.any()]
    whole = int(chosen.dur.sum())
    tables = [
        _group(slices, fold, chosen, backward, part, group, names, whole)
        for part, group, names in parts
    ]
    for table in tables[1:]:
        table["category"] = ""
    return pd.concat(tables, ignore_index=True)


def _number_kernels(
    slices: SliceTable, activities: Activities, full_names: bool
) -> tuple[Ints, list[str]]:
    used, position = np.unique(slices.name[activities.id], return_inverse=True)
    names = [slices.names[item] for item in used.tolist()]
    shown = names if full_names else [short_kernel(name) for name in names]
    number = {name: index for index, name in enumerate(dict.fromkeys(shown))}
    numbers = np.array([number[name] for name in shown], np.int64)
    return numbers[position] if len(numbers) else numbers, list(number)


def _group(
    slices: SliceTable,
    fold: Sequence[str],
    activities: Activities,
    backward: Bools,
    part: Bools,
    group: Ints,
    names: Sequence[str],
    whole: int,
) -> pd.DataFrame:
    """Sum the part's activities by group; groups without one are left out."""
    chosen, group, size = activities.where(part), group[part], len(names)
    total, calls = sum_by(group, chosen.dur, size), np.bincount(group, minlength=size)
    delays = np.where(chosen.launch >= 0, chosen.ts - slices.ts[chosen.launch], np.nan)
    by_group = pd.DataFrame(
        {
            "group": group,
            "dur": chosen.dur,
            "name": slices.name[chosen.id],
            "category": slices.category[chosen.id],
            "launch": pd.Series(chosen.launch).where(chosen.launch >= 0),
            "delay": delays,
            "backward": backward[part],
        }
    ).groupby("group", sort=True)
    present = np.flatnonzero(calls)
    return pd.DataFrame(
        {
            "kernel": pd.Series([names[item] for item in present.tolist()], dtype=object),
            "category": pd.Series(
                [slices.categories[item] for item in by_group["category"].min()], dtype=object
            ),
            "variants": by_group["name"].nunique().to_numpy(),
            "calls": calls[present],
            "total": total[present],
            "average": total[present] / calls[present],
            "min": by_group["dur"].min().to_numpy(),
            "max": by_group["dur"].max().to_numpy(),
            "busy": busy_by_group(group, chosen.ts, chosen.ts + chosen.dur, size)[present],
            "share": total[present] / max(whole, 1),
            "launches": by_group["launch"].nunique().to_numpy(),
            "backward": by_group["backward"].sum().to_numpy(np.int64),
            "delay": by_group["delay"].median().to_numpy(np.float64),
            "ops": pd.Series(_main_ops(slices, fold, chosen.op, group, present), dtype=object),
        }
    )


def _main_ops(
    slices: SliceTable, fold: Sequence[str], op: Ints, group: Ints, present: Ints
) -> list[str]:
    """For each group present the ops with most of its activities, as text."""
    known = op >= 0
    if not known.any():
        return [""] * len(present)
    counts = (
        pd.DataFrame({"group": group[known], "name": slices.name[op[known]]})
        .value_counts(["group", "name"])
        .reset_index()
    )
    counts["op"] = [fold[name] for name in counts["name"]]
    summed = counts.groupby(["group", "op"], sort=False)["count"].sum().reset_index()
    summed = summed.sort_values(["count", "op"], ascending=[False, True])
    found: dict[int, list[str]] = {}
    columns = (summed[name].tolist() for name in ("group", "op", "count"))
    for item, name, count in zip(*columns, strict=True):
        found.setdefault(item, []).append(f"{name} ×{count}")
    return [_listed(found.get(item, [])) for item in present.tolist()]


def _listed(texts: list[str]) -> str:
    more = [f"{len(texts) - OPS_SHOWN} more"] if len(texts) > OPS_SHOWN else []
    return ", ".join([*texts[:OPS_SHOWN], *more])


def activities_table(
    slices: SliceTable, fold: Sequence[str], activities: Activities, selection: Selection
) -> pd.DataFrame:
    """One row an activity of the selected part; columns: :data:`ACTIVITY_FIELDS`."""
    chosen = selection.activities(slices, activities)
    scope = np.full(len(chosen), NONE, np.int64)
    backward = np.zeros(len(chosen), np.bool_)
    if selection.under is not None:
        scope, homes = scope_homes(slices, chosen, selection)
        backward = homes.is_backward[scope >= 0]
        chosen, scope = chosen.where(scope >= 0), scope[scope >= 0]
    names = np.array(slices.names, object)
    number, kernels = _number_kernels(slices, chosen, full_names=False)
    return pd.DataFrame(
        {
            "id": chosen.id,
            "ts": chosen.ts,
            "dur": chosen.dur,
            "name": names[slices.name[chosen.id]],
            "kernel": np.array(kernels, object)[number],
            "category": np.array(slices.categories, object)[slices.category[chosen.id]],
            "device": nullable(chosen.device, chosen.device < 0),
            "stream": nullable(chosen.stream, chosen.stream < 0),
            "launch_id": nullable(chosen.launch, chosen.launch < 0),
            "delay": nullable(chosen.ts - slices.ts[chosen.launch], chosen.launch < 0),
            "op": named_or_none(np.array(fold, object), slices.name, chosen.op),
            "scope_id": nullable(scope, scope < 0),
            "scope": named_or_none(names, slices.name, scope),
            "is_backward": backward,
        }
    )


# Account ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GpuWork:
    """A number of GPU activities, and the sum of their durations (ns)."""

    activities: int = 0
    total: int = 0

    @classmethod
    def of(cls, activities: Activities) -> GpuWork:
        """The work of some activities."""
        return cls(len(activities), int(activities.dur.sum()))


@dataclass(frozen=True, slots=True)
class GpuAccount:
    """Where the GPU work belongs: ``all`` = ``under`` + ``outside`` + ``unknown``.

    ``under`` is that of the scopes, of which they have ``backward`` by their backward pass;
    ``outside`` other code launched, ``unknown`` a call that is not in the trace. Without scopes all
    that was launched is ``under``. ``busy`` (ns) is the union of the intervals of ``under``,
    ``launches`` the number of calls that launched it.
    """

    all: GpuWork
    under: GpuWork
    backward: GpuWork
    outside: GpuWork
    unknown: GpuWork
    busy: int
    launches: int


def gpu_account(slices: SliceTable, activities: Activities, selection: Selection) -> GpuAccount:
    """The account of the selected part of a trace."""
    chosen = selection.activities(slices, activities)
    inside, backward = chosen.op >= 0, np.zeros(len(chosen), np.bool_)
    if selection.under is not None:
        scope, homes = scope_homes(slices, chosen, selection)
        inside, backward = scope >= 0, homes.is_backward
    unknown = ~inside & (chosen.op < 0)
    under = chosen.where(inside)
    return GpuAccount(
        all=GpuWork.of(chosen),
        under=GpuWork.of(under),
        backward=GpuWork.of(chosen.where(backward)),
        outside=GpuWork.of(chosen.where(~inside & ~unknown)),
        unknown=GpuWork.of(chosen.where(unknown)),
        busy=busy_time(under),
        launches=launch_count(under.launch),
    )
