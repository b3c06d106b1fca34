"""Modules and labels as rows: calls, CPU time and GPU time per class, instance or layer.

What counts as a scope here: nn.Module frames and labels of record_function; without module frames,
Python functions named ``forward``. Tables in, a table out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from traceq.calltree import NONE, CallTree, Forest, nearest, outermost, plant, ratio, sum_by
from traceq.errors import UsageError
from traceq.gpu import Activities, Homes, account, find_homes, follow_forward, sum_by_group
from traceq.model import Bools, Field, Ints, SliceTable
from traceq.names import fold_name
from traceq.ops import GPU_FIELDS, add_gpu_columns, with_account
from traceq.selection import OUTSIDE, Selection, grow, remainder

By = Literal["class", "instance", "layer"]
GROUPINGS: tuple[By, ...] = get_args(By)

MODULE = "nn.Module: "
_STEP = re.compile(r"ProfilerStep#\d+\Z")
FORWARD = re.compile(r".*\.py\(\d+\): forward\Z")

SCOPE_FIELDS = (
    Field("scope", "STRING", "", "Class, instance or layer; label; or Python function."),
    Field("kind", "STRING", "", "module, label, function or match (of the pattern alone)."),
    Field("calls", "LONG", "", "Number of calls."),
    Field("instances", "LONG", "", "Number of different names among them."),
    Field("total", "LONG", "ns", "CPU time of the calls with none of the same row around them."),
    Field("self", "LONG", "ns", "CPU time of all calls less that of the scopes directly below."),
    Field("average", "DOUBLE", "ns", "Mean duration of a call; NaN without calls."),
    Field("share", "DOUBLE", "", "Part of the CPU time of the scopes directly around; NaN: none."),
    *GPU_FIELDS,
    Field("backward", "LONG", "ns", "Of gpu_self, what the backward pass launched."),
    Field(
        "gpu_share",
        "DOUBLE",
        "",
        "Part that gpu_total is of all GPU time in the chosen time.",
    ),
)
"""Columns of :func:`scopes_table`. Rows in parentheses hold the GPU time that no scope has, so that
``gpu_self`` adds up to the trace's GPU time."""


def modules_table(slices: SliceTable, fold: Sequence[str]) -> pd.DataFrame:
    """The nn.Module classes, most time first; columns as in queries/modules.sql.

    ``fold`` is the op of each of ``slices.names``.
    """
    is_module = np.array([name.startswith(MODULE) for name in slices.names], np.bool_)
    chosen = is_module[slices.name] if len(slices) else np.zeros(0, np.bool_)
    calls = pd.DataFrame({"name": slices.name[chosen], "dur": slices.dur[chosen]})
    calls["module"] = np.array([op.removeprefix(MODULE) for op in fold], object)[calls["name"]]
    table = calls.groupby("module").agg(
        instances=("name", "nunique"), calls=("name", "size"), total=("dur", "sum")
    )
    return table.reset_index().sort_values(
        ["total", "module"], ascending=[False, True], ignore_index=True
    )


@dataclass(frozen=True, slots=True)
class ScopeSlices:
    """The slices that can be scopes: ``chosen`` marks them, ``kind`` names what each name is."""

    chosen: Bools
    kind: dict[int, str]

    def firm(self, slices: SliceTable) -> Bools:
        """Marks those that are no labels: labels may be set around anything."""
        label = np.array([self.kind.get(i) == "label" for i in range(len(slices.names))], np.bool_)
        return self.chosen & ~label[slices.name] if len(slices) else self.chosen


def find_scope_slices(slices: SliceTable, selection: Selection) -> ScopeSlices:
    """Modules and labels, or functions where there are no modules; and what the pattern matches."""
    kind = _kinds(slices)
    named = np.zeros(len(slices.names), np.bool_)
    named[list(kind)] = True
    of_slice = named[slices.name] if len(slices) else np.zeros(0, np.bool_)
    of_slice &= slices.of_category("python_function", "user_annotation", "cpu_op", "")
    chosen = of_slice | selection.marks(slices)
    return ScopeSlices(chosen, kind)


def _kinds(slices: SliceTable) -> dict[int, str]:
    """What each name of the trace is, where a slice of that name is a scope."""
    labels = set(np.unique(slices.name[slices.of_category("user_annotation")]).tolist())
    found = {}
    for index, name in enumerate(slices.names):
        if name.startswith(MODULE):
            found[index] = "module"
        elif index in labels and not _STEP.match(name):
            found[index] = "label"
    if "module" not in found.values():
        for index, name in enumerate(slices.names):
            if FORWARD.match(name):
                found[index] = "function"
    return found


def scopes_table(
    slices: SliceTable, activities: Activities, selection: Selection, by: By = "class"
) -> pd.DataFrame:
    """One row a class, instance or layer of scopes; columns: :data:`SCOPE_FIELDS`.

    Raises UsageError for what is none of the three.
    """
    if by not in GROUPINGS:
        raise UsageError(f"scopes have no {by!r}", hint=f"by is one of {', '.join(GROUPINGS)}.")
    found = find_scope_slices(slices, selection)
    forest, names = _group_scopes(slices, found, selection, by)
    scoped = grow(slices, forest.forest, forest.label, selection)
    tree = scoped.tree
    group = np.where(scoped.included, tree.label, NONE)
    chosen = selection.activities(slices, activities)
    homes = find_homes(tree, chosen, scoped.included, follow_backward=True)
    if selection.under is None:
        homes = homes.moved(
            tree, chosen, follow_forward(slices, chosen, found.chosen, found.firm(slices))
        )
    sums = sum_by_group(tree, chosen, homes, group, len(names))
    table = _cpu_columns(slices, tree, group, names, found.kind, selection.counted(slices))
    table = add_gpu_columns(table, sums).assign(
        backward=_backward_time(chosen, homes, group, len(names))
    )
    table = table[(table["calls"] > 0) | (table["activities"] > 0)]
    outside = OUTSIDE if selection.under is not None else NO_MODULE
    table = with_account(table, "scope", account(chosen, remainder(chosen, homes, outside)))
    return table.assign(
        gpu_share=table["gpu_total"] / max(int(chosen.dur.sum()), 1),
    )


def _backward_time(activities: Activities, homes: Homes, group: Ints, size: int) -> Ints:
    total = np.zeros(size, np.int64)
    rows = homes.is_backward
    np.add.at(total, group[homes.node[rows]], activities.dur[rows])
    return total


def _cpu_columns(
    slices: SliceTable,
    tree: CallTree,
    group: Ints,
    names: Sequence[str],
    kind: dict[int, str],
    counted: Bools | None,
) -> pd.DataFrame:
    forest, size = tree.forest, len(names)
    rows = group[tree.node] >= 0 if len(tree) else np.zeros(0, np.bool_)
    if counted is not None:
        rows &= counted[forest.ids]
    topmost = rows & ~tree.repeats(group)[tree.node]
    of_row, of_outer = group[tree.node[rows]], group[tree.node[topmost]]
    name = slices.name[forest.ids[rows]]
    calls = np.bincount(of_row, minlength=size)
    all_time = sum_by(of_row, forest.dur[rows], size)
    kinds = np.full(size, "match", object)
    kinds[of_row] = [kind.get(item, "match") for item in name.tolist()]
    return pd.DataFrame(
        {
            "scope": pd.Series(list(names), dtype=object),
            "kind": kinds,
            "calls": calls,
            "instances": pd.Series(name)
            .groupby(of_row)
            .nunique()
            .reindex(range(size), fill_value=0),
            "total": sum_by(of_outer, forest.dur[topmost], size),
            "self": sum_by(of_row, forest.self_time[rows], size),
            "average": ratio(all_time, calls),
            "share": _share_of_parents(forest, np.flatnonzero(topmost), of_outer, size),
        }
    )


def _share_of_parents(forest: Forest, rows: Ints, group: Ints, size: int) -> NDArray[np.float64]:
    """The calls' time as a part of that of the scopes directly around them, by group."""
    parent = forest.parent[rows]
    has_parent = parent >= 0
    rows, group, parent = rows[has_parent], group[has_parent], parent[has_parent]
    pairs = np.unique(group * max(len(forest), 1) + parent)
    around = sum_by(pairs // max(len(forest), 1), forest.dur[pairs % max(len(forest), 1)], size)
    return ratio(sum_by(group, forest.dur[rows], size), around)


NO_MODULE = "(in no module)"
NO_LAYER = "(in no layer)"


# Grouping ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A forest of scopes and the row that each of its slices belongs to."""

    forest: Forest
    label: Ints


def _group_scopes(
    slices: SliceTable, found: ScopeSlices, selection: Selection, by: By
) -> tuple[_Labelled, list[str]]:
    if by == "layer":
        return _group_layers(slices, found, selection)
    forest = plant(slices, found.chosen)
    fold = fold_scope if by == "class" else str
    return _labelled(forest, [fold(name) for name in slices.names], slices.name[forest.ids])


def fold_scope(name: str) -> str:
    """The class of a module; a function keeps its line, which tells classes of a file apart.

    >>> fold_scope("nn.Module: Qwen3_5GatedDeltaNet_3"), fold_scope("qwen3_5.py(550): forward")
    ('nn.Module: Qwen3_5GatedDeltaNet', 'qwen3_5.py(550): forward')
    """
    return name if FORWARD.match(name) else fold_name(name)


def _labelled(forest: Forest, texts: Sequence[str], index: Ints) -> tuple[_Labelled, list[str]]:
    """Rows in the order of their first call; ``index`` gives each slice's text."""
    used, first, position = np.unique(index, return_index=True, return_inverse=True)
    in_order = np.argsort(first, kind="stable")
    number: dict[str, int] = {}
    label_of = np.zeros(len(used), np.int64)
    for item in in_order.tolist():
        label_of[item] = number.setdefault(texts[used[item]], len(number))
    return _Labelled(forest, label_of[position]), list(number)


def _group_layers(
    slices: SliceTable, found: ScopeSlices, selection: Selection
) -> tuple[_Labelled, list[str]]:
    """Rows are layers: of the scopes of a pattern those around them, else those below."""
    layers = find_layers(slices, found)
    if selection.under is None:
        forest = plant(slices, layers)
        return _labelled(forest, slices.names, slices.name[forest.ids])
    scopes = outermost(slices.parent, selection.marks(slices))
    forest = plant(slices, scopes)
    around = nearest(slices.parent, layers)[forest.ids]
    if (around >= 0).any():
        texts = [*slices.names, NO_LAYER]
        return _labelled(forest, texts, np.where(around >= 0, slices.name[around], len(texts) - 1))
    forest = plant(slices, layers | selection.marks(slices))
    return _labelled(forest, slices.names, slices.name[forest.ids])


def find_layers(slices: SliceTable, found: ScopeSlices) -> Bools:
    """Marks the layers of a model.

    A layer is a module, with modules below it, of a class of which the module around it calls
    several instances; of layers within layers, the outermost.
    """
    is_module = np.array(
        [found.kind.get(i) == "module" for i in range(len(slices.names))], np.bool_
    )
    chosen = is_module[slices.name] & found.chosen if len(slices) else found.chosen
    forest = plant(slices, chosen)
    classes = {name: index for index, name in enumerate({fold_name(n) for n in slices.names})}
    class_of = np.array([classes[fold_name(name)] for name in slices.names], np.int64)
    name = slices.name[forest.ids]
    siblings = pd.DataFrame({"parent": forest.parent, "class": class_of[name], "name": name})
    several = siblings.groupby(["parent", "class"])["name"].transform("nunique").to_numpy() > 1
    has_modules = np.zeros(len(forest), np.bool_)
    has_modules[forest.parent[forest.parent >= 0]] = True
    layer = np.zeros(len(slices), np.bool_)
    layer[forest.ids[several & has_modules & (forest.parent >= 0)]] = True
    return outermost(slices.parent, layer)
