"""The merged call tree: modules and labels, the ops below them, the kernels that these launched.

Tables in, a table out: one row a node, parents before children. Folding small nodes for a reader
and writing stacks for flame graphs is done here as well; how a tree looks is left to ``report``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from traceq.calltree import NONE, nearest, plant, sum_by
from traceq.gpu import (
    BACKWARD_NODE,
    Activities,
    Homes,
    account,
    at,
    find_homes,
    follow_forward,
    sum_by_group,
)
from traceq.kernel_names import short_kernel
from traceq.model import Bools, Field, Ints, SliceTable
from traceq.scopes import NO_MODULE, ScopeSlices, find_scope_slices
from traceq.selection import OUTSIDE, ScopedTree, Selection, grow, remainder
from traceq.units import printable

Metric = Literal["cpu", "gpu"]
METRICS: tuple[Metric, ...] = get_args(Metric)

TREE_FIELDS = (
    Field("node", "LONG", "", "Number of the node; children have greater ones."),
    Field("parent", "LONG", "", "Node that it is below; -1 for none."),
    Field("depth", "LONG", "", "Number of nodes above it."),
    Field("name", "STRING", "", "Module class, label, op or kernel."),
    Field("kind", "STRING", "", "module, label, op, function, backward, kernel or account."),
    Field("calls", "LONG", "", "Slices merged here; of a kernel, activities."),
    Field("total", "LONG", "ns", "CPU time, children included."),
    Field("self", "LONG", "ns", "CPU time less that of the nodes directly below on the same lane."),
    Field("gpu_total", "LONG", "ns", "GPU time of the kernels below: children add up to it."),
    Field("gpu_busy", "LONG", "ns", "Time during which any of those ran."),
    Field("launches", "LONG", "", "Calls that launched them."),
    Field("activities", "LONG", "", "Kernels, copies and sets below."),
)
"""Columns of :func:`tree_table`. Nodes in parentheses hold the GPU time that the tree has not:
with them the ``gpu_total`` of the nodes without a parent adds up to the trace's GPU time."""


def tree_table(
    slices: SliceTable,
    fold: Sequence[str],
    activities: Activities,
    selection: Selection,
    *,
    functions: bool = False,
) -> pd.DataFrame:
    """The nodes of the selected part's call tree; columns: :data:`TREE_FIELDS`.

    ``functions`` adds Python functions; without them, their time is their callers'.
    """
    scopes = find_scope_slices(slices, selection)
    ops = slices.of_category("cpu_op", *(("python_function",) if functions else ()))
    forest = plant(slices, scopes.chosen | ops)
    label = slices.name[forest.ids]
    number = {op: index for index, op in enumerate(dict.fromkeys(fold))}
    label = np.array([number[op] for op in fold], np.int64)[label] if len(label) else label
    scoped = grow(slices, forest, label, selection)
    chosen = selection.activities(slices, activities)
    homes = _homes(slices, scoped, chosen, scopes)
    nodes = _call_nodes(slices, scoped, list(number), scopes.kind, selection)
    leaf = _add_kernels(nodes, slices, fold, chosen, homes)
    table = _sum_gpu(nodes, scoped, chosen, leaf)
    outside = OUTSIDE if selection.under is not None else NO_MODULE
    return _number(_with_remainder(table, account(chosen, remainder(chosen, homes, outside))))


# Homes: where in the tree an activity goes ------------------------------------------------


def _homes(
    slices: SliceTable, scoped: ScopedTree, activities: Activities, scopes: ScopeSlices
) -> Homes:
    """The op that launched each activity; for the backward pass the module of the forward op.

    Backward ops mostly run on a thread of their own, below no module: their kernels go below the
    module whose forward pass they belong to.
    """
    forward_owner = at(nearest(slices.parent, scopes.chosen), activities.forward)
    is_backward = follow_forward(slices, activities, scopes.chosen, scopes.firm(slices))
    # Under a scope of the backward pass itself, the launch stays where it is.
    is_backward &= ~_has_home(scoped, activities) | _has_home(
        scoped, replace(activities, op=forward_owner)
    )
    anchored = replace(
        activities,
        op=np.where(is_backward, forward_owner, activities.op),
        launch=np.where(is_backward, forward_owner, activities.launch),
    )
    homes = find_homes(scoped.tree, anchored, scoped.included, follow_backward=False)
    return Homes(homes.node, homes.node, is_backward & (homes.node >= 0))


def _has_home(scoped: ScopedTree, activities: Activities) -> Bools:
    homes = find_homes(scoped.tree, activities, scoped.included, follow_backward=False)
    return homes.node >= 0


# Nodes ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Nodes:
    """Columns of the tree while it grows."""

    parent: Ints
    name: list[str]
    kind: list[str]
    calls: Ints
    total: Ints
    self_time: Ints

    def __len__(self) -> int:
        return len(self.parent)

    def append(self, parent: Ints, name: Sequence[str], kind: str, calls: Ints) -> Ints:
        """Add nodes without CPU time; their numbers."""
        first, nothing = len(self), np.zeros(len(parent), np.int64)
        self.parent = np.concatenate((self.parent, parent))
        self.name += name
        self.kind += [kind] * len(parent)
        self.calls = np.concatenate((self.calls, calls))
        self.total = np.concatenate((self.total, nothing))
        self.self_time = np.concatenate((self.self_time, nothing))
        return np.arange(first, len(self))


def _call_nodes(
    slices: SliceTable,
    scoped: ScopedTree,
    names: Sequence[str],
    kinds: dict[int, str],
    selection: Selection,
) -> _Nodes:
    tree, forest = scoped.tree, scoped.tree.forest
    counted = selection.counted(slices)
    rows = None if counted is None else counted[forest.ids]
    kind = np.full(len(tree), "", object)
    of_name = {**dict.fromkeys(range(len(slices.names)), "op"), **kinds}
    first = np.unique(tree.node, return_index=True)[1]  # a slice of each node
    kind[:] = [of_name[item] for item in slices.name[forest.ids[first]].tolist()]
    is_function = slices.of_category("python_function")[forest.ids[first]]
    kind[is_function & (kind == "op")] = "function"
    return _Nodes(
        parent=tree.parent.copy(),
        name=[names[item] for item in tree.label.tolist()],
        kind=kind.tolist(),
        calls=tree.sums(np.ones(len(forest), np.int64), rows),
        total=tree.sums(forest.dur, rows),
        self_time=tree.sums(forest.self_time, rows),
    )


def _add_kernels(
    nodes: _Nodes, slices: SliceTable, fold: Sequence[str], activities: Activities, homes: Homes
) -> Ints:
    """Add a node a kernel below each op, and one a backward op between; each activity's node."""
    leaf = homes.node.copy()
    at_home, back = np.flatnonzero(homes.node >= 0), np.flatnonzero(homes.is_backward)
    _descend(
        nodes,
        leaf,
        back,
        [
            fold[name].removeprefix(BACKWARD_NODE) + BACKWARD_MARK
            for name in slices.name[activities.backward[back]].tolist()
        ],
        "backward",
        activities.backward[back],
    )
    short = [short_kernel(slices.names[name]) for name in slices.name[activities.id[at_home]]]
    _descend(nodes, leaf, at_home, short, "kernel", at_home)
    return leaf


BACKWARD_MARK = " (backward)"


def _descend(
    nodes: _Nodes, leaf: Ints, rows: Ints, names: Sequence[str], kind: str, call: Ints
) -> None:
    """Move some activities from their node to a new one below it, one for each name."""
    if not len(rows):
        return
    code, distinct = pd.factorize(np.array(names, object))
    used, position = np.unique(leaf[rows] * len(distinct) + code, return_inverse=True)
    calls = np.asarray(pd.Series(call).groupby(position).nunique(), np.int64)
    added = nodes.append(
        np.asarray(used // len(distinct), np.int64),
        [distinct[item] for item in (used % len(distinct)).tolist()],
        kind,
        calls,
    )
    leaf[rows] = added[position]


def _sum_gpu(nodes: _Nodes, scoped: ScopedTree, activities: Activities, leaf: Ints) -> pd.DataFrame:
    """The included nodes as a table, with GPU sums."""
    included = np.ones(len(nodes), np.bool_)
    included[: len(scoped.included)] = scoped.included
    tree = replace(scoped.tree, parent=np.where(_above(included, nodes.parent), nodes.parent, NONE))
    number = np.where(included, np.arange(len(nodes)), NONE)
    homes = Homes(leaf, leaf, np.zeros(len(leaf), np.bool_))
    sums = sum_by_group(tree, activities, homes, number, len(nodes))
    kept = _with_ancestors(tree.parent, included & ((nodes.calls > 0) | (sums.activities > 0)))
    table = pd.DataFrame(
        {
            "node": number,
            "parent": tree.parent,
            "name": pd.Series(nodes.name, dtype=object),
            "kind": pd.Series(nodes.kind, dtype=object),
            "calls": nodes.calls,
            "total": nodes.total,
            "self": nodes.self_time,
            "gpu_total": sums.total,
            "gpu_busy": sums.busy,
            "launches": sums.launches,
            "activities": sums.activities,
        }
    )
    return table[kept]


def _with_ancestors(parent: Ints, kept: Bools) -> Bools:
    """Keeps what is above a kept node: a call may have begun before the windows."""
    kept = kept.copy()
    above = parent[kept]
    while len(above := above[above >= 0]):
        above = np.unique(above[~kept[above]])
        kept[above] = True
        above = parent[above]
    return kept


def _above(included: Bools, parent: Ints) -> Bools:
    """Whether the parent of each node is included as well."""
    return (parent >= 0) & included[parent] if len(parent) else included


def _with_remainder(table: pd.DataFrame, extra: Sequence[dict[str, object]]) -> pd.DataFrame:
    if not extra:
        return table
    added = pd.DataFrame(extra).reindex(columns=table.columns)
    added["node"] = np.arange(len(added)) + int(table["node"].max() if len(table) else -1) + 1
    added["self"] = 0
    added = added.assign(parent=NONE, kind="account", calls=0, total=0)
    return pd.concat([table, added.astype(table.dtypes.to_dict())])


def _number(table: pd.DataFrame) -> pd.DataFrame:
    """Number the nodes anew, without gaps, and add their depth."""
    number = {node: index for index, node in enumerate(table["node"].tolist())}
    parent = [number.get(node, NONE) for node in table["parent"].tolist()]
    depth: list[int] = []
    for above in parent:
        depth.append(0 if above < 0 else depth[above] + 1)
    table = table.assign(node=range(len(table)), parent=parent, depth=depth)
    return table[[item.name for item in TREE_FIELDS]].reset_index(drop=True)


# For readers ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Branch:
    """A node as a reader sees it: ``values`` by column name; ``folded`` counts what it stands for.

    A folded branch (``folded`` > 0) stands for that many small nodes of one parent, with their sum.
    """

    values: dict[str, Any]
    depth: int
    folded: int


def weight_column(by: Metric) -> str:
    """The column by which nodes are ordered and folded."""
    return "gpu_total" if by == "gpu" else "total"


def branches(
    table: pd.DataFrame, *, by: Metric = "cpu", depth: int | None = None, smallest: float = 0.01
) -> list[Branch]:
    """The tree in reading order, heaviest first, each node's children below it.

    Nodes of less than ``smallest`` of the whole (without the nodes in parentheses) are folded into
    one line a parent, with their sum; a single one keeps its name. Those deeper than ``depth``
    levels are left out: the time of all below is in each line.
    """
    children: dict[int, list[dict[str, Any]]] = {}
    for values in zip(*(table[name].tolist() for name in table), strict=True):
        record = dict(zip(table.columns, values, strict=True))
        children.setdefault(record["parent"], []).append(record)
    column = weight_column(by)
    roots = (record for record in children.get(NONE, []) if record["kind"] != "account")
    least = smallest * sum(record[column] for record in roots)
    found: list[Branch] = []
    # A stack of its own: a trace may be nested deeper than Python recurses.
    stack: list[Branch | tuple[int, int]] = [(NONE, 0)]
    while stack:
        item = stack.pop()
        if isinstance(item, Branch):
            found.append(item)
            if item.folded or (depth is not None and item.depth + 1 >= depth):
                continue
            item = (item.values["node"], item.depth + 1)
        stack.extend(reversed(_level(children.get(item[0], []), item[1], column, least)))
    return found


def _level(nodes: list[dict[str, Any]], depth: int, column: str, least: float) -> list[Branch]:
    """The children of one node: heaviest first, the small ones as one."""
    in_order = sorted(nodes, key=lambda node: (-node[column], node["node"]))
    large = [node for node in in_order if node[column] >= least or node["kind"] == "account"]
    small = [node for node in in_order if node[column] < least and node["kind"] != "account"]
    lines = [Branch(node, depth, 0) for node in large]
    if len(small) == 1:  # its own name says more, and its line is no longer
        return [*lines, Branch(small[0], depth, 1)]
    return [*lines, Branch(_sum_of(small), depth, len(small))] if small else lines


def _sum_of(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    summed = ("calls", "total", "self", "gpu_total", "launches", "activities")
    return {
        **{column: sum(node[column] for node in nodes) for column in summed},
        "node": NONE,
        "name": f"({len(nodes)} smaller)",
        "kind": "folded",
        "gpu_busy": None,
    }


def stacks(table: pd.DataFrame, by: Metric = "cpu") -> list[str]:
    """Folded stacks: ``outer;inner value`` lines, as flamegraph.pl and speedscope read them.

    The value is the node's own time in ns: CPU time less that of its children, or GPU time of a
    kernel. Lines add up to the tree's time, save where slices of a thread overlap without nesting:
    then both count. GPU time outside of the scopes is left out.
    """
    parent = table["parent"].to_numpy(np.int64)
    own = table["self"].to_numpy(np.int64)
    if by == "gpu":
        gpu = table["gpu_total"].to_numpy(np.int64)
        below = parent >= 0
        own = gpu - sum_by(parent[below], gpu[below], len(table))
    children: dict[int, list[int]] = {}
    inside = ((table["kind"] != "account") | (table["name"] != OUTSIDE)).tolist()
    for node, above in enumerate(parent.tolist()):
        if inside[node]:
            children.setdefault(above, []).append(node)
    names, values = [_frame(name) for name in table["name"]], own.tolist()
    lines: list[str] = []
    path: list[str] = []
    pending = [(node, 0) for node in reversed(children.get(NONE, []))]
    while pending:
        node, depth = pending.pop()
        del path[depth:]
        path.append(names[node])
        if values[node] > 0:
            lines.append(f"{';'.join(path)} {values[node]}")
        pending.extend((child, depth + 1) for child in reversed(children.get(node, [])))
    return lines


def _frame(name: str) -> str:
    """A name as a frame: no semicolon and no line end, which would end it."""
    return printable(" ".join(name.replace(";", ",").split())) or "(no name)"
