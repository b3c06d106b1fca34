"""Calls, CPU time and GPU time per op, under scopes or in the whole trace.

An op is all slices of one folded name. Tables in, a table out; how it looks is left to ``report``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from traceq.calltree import NONE, Forest, ratio, sum_by
from traceq.gpu import Activities, GpuSums, account, find_homes, sum_by_group
from traceq.layout import number_densely
from traceq.model import Bools, Field, Ints, SliceTable
from traceq.selection import (
    BACKWARD,
    GPU_LABEL,
    THE_SCOPES,
    ScopedTree,
    Selection,
    grow,
    remainder,
)

GPU_SIDE = " (on the GPU)"
"""Ends the op of the GPU's copy of a label: that copy is no call of the label."""

GPU_FIELDS = (
    Field("gpu_total", "LONG", "ns", "Sum of the GPU activities launched by it or below it."),
    Field("gpu_self", "LONG", "ns", "Sum of those that no op below it launched: these add up."),
    Field("gpu_busy", "LONG", "ns", "Time during which any of those of gpu_total ran, on any GPU."),
    Field("launches", "LONG", "", "Calls that launched them."),
    Field("activities", "LONG", "", "Kernels, copies and sets of gpu_total."),
    Field("activities_self", "LONG", "", "Those of gpu_self: these add up."),
    Field("kernels_per_call", "DOUBLE", "", "activities / calls; NaN without calls."),
)

OP_FIELDS = (
    Field("op", "STRING", "", "Slice names with addresses, line and instance numbers folded."),
    Field("category", "STRING", "", "What the profiler calls it: cpu_op, python_function, ..."),
    Field("calls", "LONG", "", "Number of slices."),
    Field("total", "LONG", "ns", "Sum of their durations, children included."),
    Field("self", "LONG", "ns", "Sum less that of the direct children on the same lane."),
    Field("average", "DOUBLE", "ns", "Mean duration of a call; NaN without calls."),
    Field("min", "LONG", "ns", "Shortest call; NULL without calls."),
    Field("max", "LONG", "ns", "Longest call; NULL without calls."),
    Field("outermost", "LONG", "ns", "Sum over calls with no call of the same op around them."),
    *GPU_FIELDS,
)
"""Columns of :func:`ops_table`. Rows whose name is in parentheses have no calls: they hold the GPU
time that no op of the table has, so that ``gpu_self`` adds up to the trace's GPU time."""


SORT_KEYS = (
    *("total", "self", "calls", "average", "min", "max", "outermost"),
    *("gpu_total", "gpu_self", "gpu_busy", "launches", "op"),
)


def sorted_ops(ops: pd.DataFrame, key: str = "total") -> pd.DataFrame:
    """Ops by one of SORT_KEYS, largest first; by name where they are equal."""
    return ops.sort_values([key, "op"], ascending=[key == "op", True], kind="stable")


@dataclass(frozen=True, slots=True)
class OpTree:
    """The call tree of all slices of a part of a trace, with the ops that its labels stand for."""

    scoped: ScopedTree
    ops: list[str]
    counted: Bools | None

    @classmethod
    def of_selection(
        cls, slices: SliceTable, forest: Forest, fold: Sequence[str], selection: Selection
    ) -> OpTree:
        """``forest`` holds all slices, ``fold`` gives the op of each name of the trace."""
        label, ops = _label_slices(slices, fold)
        return cls(grow(slices, forest, label, selection), ops, selection.counted(slices))

    def rows(self, group: Ints) -> Ints:
        """Positions in the forest of the slices to count: of a group, and within the windows."""
        tree = self.scoped.tree
        chosen = group[tree.node] >= 0 if len(tree) else np.zeros(0, np.bool_)
        if self.counted is not None:
            chosen &= self.counted[tree.forest.ids]
        return np.flatnonzero(chosen)


def ops_table(
    slices: SliceTable,
    forest: Forest,
    fold: Sequence[str],
    activities: Activities,
    selection: Selection,
) -> pd.DataFrame:
    """One row an op of the selected part; columns: :data:`OP_FIELDS`.

    ``forest`` holds all slices, ``fold`` gives the op of each name of the trace.
    """
    found = OpTree.of_selection(slices, forest, fold, selection)
    scoped, ops = found.scoped, found.ops
    group = np.where(scoped.below, scoped.tree.label, NONE)
    chosen = selection.activities(slices, activities)
    limited = selection.under is not None
    homes = find_homes(scoped.tree, chosen, scoped.included, follow_backward=limited)
    direct = homes.without(homes.is_backward)
    sums = sum_by_group(scoped.tree, chosen, direct, group, len(ops))
    table = add_gpu_columns(_cpu_columns(slices, found, group), sums)
    table = table[(table["calls"] > 0) | (table["activities"] > 0)]
    on_scope = (direct.node >= 0) & ~_marked_at(scoped.below, direct.node)
    rows = [(THE_SCOPES, on_scope), (BACKWARD, homes.is_backward), *remainder(chosen, homes)]
    return with_account(table, "op", account(chosen, rows))


def sum_ops(
    slices: SliceTable,
    forest: Forest,
    fold: Sequence[str],
    activities: Activities,
    selection: Selection,
    ops: Collection[str],
) -> dict[str, Any]:
    """Some ops as one: the calls that have no other of these ops around them, and all below them.

    Keys are columns of :data:`OP_FIELDS`, times in ns; None where there is no call.
    """
    found = OpTree.of_selection(slices, forest, fold, selection)
    tree = found.scoped.tree
    wanted = np.array([op in ops for op in found.ops], np.bool_)
    group = np.where(found.scoped.below & wanted[tree.label], 0, NONE) if len(tree) else tree.label
    rows = found.rows(group)
    dur = tree.forest.dur[rows[~tree.repeats(group)[tree.node[rows]]]]
    chosen = selection.activities(slices, activities)
    homes = find_homes(tree, chosen, found.scoped.included, follow_backward=False)
    sums = sum_by_group(tree, chosen, homes, group, 1)
    total = int(dur.sum())
    return {
        "calls": len(dur),
        "total": total,
        "self": int(tree.forest.self_time[rows].sum()),
        "average": total / len(dur) if len(dur) else None,
        "min": int(dur.min()) if len(dur) else None,
        "max": int(dur.max()) if len(dur) else None,
        "outermost": total,
        "gpu_total": int(sums.total[0]),
        "gpu_self": int(sums.self_total[0]),
        "gpu_busy": int(sums.busy[0]),
        "launches": int(sums.launches[0]),
        "activities": int(sums.activities[0]),
    }


def _marked_at(marked: Bools, index: Ints) -> Bools:
    return marked[index] if len(marked) else np.zeros(len(index), np.bool_)


def _label_slices(slices: SliceTable, fold: Sequence[str]) -> tuple[Ints, list[str]]:
    """The number of each slice's op, and the ops."""
    code = slices.name * 2 + slices.of_category(GPU_LABEL)
    used, position = number_densely(code)
    ops = [fold[item // 2] + (GPU_SIDE if item % 2 else "") for item in used.tolist()]
    number = {op: index for index, op in enumerate(dict.fromkeys(ops))}
    numbers = np.array([number[op] for op in ops], np.int64)
    return numbers[position] if len(numbers) else numbers, list(number)


def _cpu_columns(slices: SliceTable, found: OpTree, group: Ints) -> pd.DataFrame:
    tree, forest, size = found.scoped.tree, found.scoped.tree.forest, len(found.ops)
    rows = found.rows(group)
    of_row, dur = group[tree.node[rows]], forest.dur[rows]
    least, most = np.full(size, np.iinfo(np.int64).max), np.full(size, -1, np.int64)
    np.minimum.at(least, of_row, dur)
    np.maximum.at(most, of_row, dur)
    outermost = ~tree.repeats(group)[tree.node[rows]]
    calls = np.bincount(of_row, minlength=size)
    return pd.DataFrame(
        {
            "op": pd.Series(found.ops, dtype=object),
            "category": _first_category(slices, forest.ids[rows], of_row, size),
            "calls": calls,
            "total": sum_by(of_row, dur, size),
            "self": sum_by(of_row, forest.self_time[rows], size),
            "average": ratio(sum_by(of_row, dur, size), calls),
            "min": pd.arrays.IntegerArray(least, calls == 0),
            "max": pd.arrays.IntegerArray(most, calls == 0),
            "outermost": sum_by(of_row[outermost], dur[outermost], size),
        }
    )


def _first_category(slices: SliceTable, ids: Ints, group: Ints, size: int) -> pd.Series[str]:
    """The alphabetically first category of each group's slices."""
    in_order = sorted(set(slices.categories))
    rank_of = np.array([in_order.index(item) for item in slices.categories], np.int64)
    rank = np.full(size, len(in_order), np.int64)
    if len(ids):
        np.minimum.at(rank, group, rank_of[slices.category[ids]])
    return pd.Series([*in_order, ""], dtype=object).iloc[rank].reset_index(drop=True)


def add_gpu_columns(table: pd.DataFrame, sums: GpuSums) -> pd.DataFrame:
    """A table with a ``calls`` column, and GPU sums beside it; one entry a row."""
    calls = table["calls"].to_numpy(np.int64)
    return table.assign(
        gpu_total=sums.total,
        gpu_self=sums.self_total,
        gpu_busy=sums.busy,
        launches=sums.launches,
        activities=sums.activities,
        activities_self=sums.self_activities,
        kernels_per_call=ratio(sums.activities, calls),
    )


def with_account(
    table: pd.DataFrame, name: str, extra: Sequence[dict[str, object]]
) -> pd.DataFrame:
    """The table with rows, without calls, for GPU time that none of its own rows has."""
    if extra:
        added = pd.DataFrame(extra).rename(columns={"name": name})
        added = added.reindex(columns=table.columns)
        for column, dtype in table.dtypes.items():
            if dtype == np.int64:
                added[column] = added[column].fillna(0)
            elif not pd.api.types.is_numeric_dtype(dtype) and column != name:
                added[column] = ""
        table = pd.concat([table, added.astype(table.dtypes.to_dict())])
    return table.reset_index(drop=True)
