"""The report of ``traceq tree``, and its nodes as nested data. Folding is ``traceq.tree``'s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from traceq import units
from traceq.report.model import Column, Report, Table, Unit
from traceq.report.part import CPU_REMARK, Part, gpu_remark
from traceq.report.words import plural
from traceq.tree import Branch, Metric, branches, weight_column

_DEPTH_DRAWN = 16
"""Levels below which the depth is told as a number: lines would leave no room for names."""

_NAME = Column("name", "", Unit.NAME, ample=56, lead="lead")
_CPU_COLUMNS = (
    Column("total", "CPU total µs", Unit.MICROS),
    Column("self", "CPU self µs", Unit.MICROS, 2),
)
_GPU_COLUMNS = (
    Column("gpu_total", "GPU total µs", Unit.MICROS),
    Column("gpu_busy", "GPU busy µs", Unit.MICROS, 4),
    Column("launches", "launches", Unit.COUNT, 3),
)


def weighed(table: pd.DataFrame, by: Metric) -> int:
    """The weight (ns) of the tree: that of its roots, without the rows in parentheses."""
    roots = table[(table["parent"] < 0) & (table["kind"] != "account")]
    return int(roots[weight_column(by)].sum())


def tree_branches(
    table: pd.DataFrame, *, by: Metric, depth: int | None, smallest: float
) -> list[Branch]:
    """The tree in reading order; rows in parentheses last. ``smallest``: a part of the tree."""
    found = branches(table, by=by, depth=depth, smallest=smallest)
    account = [branch for branch in found if branch.values["kind"] == "account"]
    return [branch for branch in found if branch.values["kind"] != "account"] + account


def tree_report(
    table: pd.DataFrame,
    part: Part,
    *,
    by: Metric,
    depth: int | None = None,
    smallest: float = 0.01,
) -> Report:
    """The tree, heaviest first; nodes of less than ``smallest`` are one line a parent."""
    found = tree_branches(table, by=by, depth=depth, smallest=smallest)
    leads = draw([branch.depth for branch in found])
    whole = weighed(table, by)
    rows = tuple(
        _row(branch, lead, weight_column(by), whole)
        for branch, lead in zip(found, leads, strict=True)
    )
    nodes = int((table["kind"] != "account").sum())
    return Report(
        headline=f"{plural(nodes, 'node')} of the call tree {part.place}",
        facts=part.facts,
        tables=(Table("", _columns(part, by), rows),) if rows else (),
        warnings=part.warnings,
        remarks=(" ".join(_remarks(by, whole, smallest, part)), gpu_remark(part)),
    )


def _columns(part: Part, by: Metric) -> tuple[Column, ...]:
    share = Column("share", f"of {by.upper()}", Unit.SHARE)
    calls = Column("calls", "calls", Unit.COUNT)
    gpu = _GPU_COLUMNS if part.has_gpu else ()
    kind = Column("kind", "kind", Unit.TEXT, 5)
    return (_NAME, calls, *_CPU_COLUMNS, *gpu, share, kind)


def _remarks(by: Metric, whole: int, smallest: float, part: Part) -> list[str]:
    found = [CPU_REMARK] if part.has_gpu else []
    what = f"{by.upper()} total of the tree ({units.micros(whole)} µs)"
    found.append("CPU self leaves the nodes directly below out.")
    found.append(f"Ordered by {by.upper()} total; of {by.upper()}: part of the {what}.")
    if smallest > 0:
        found.append(f"Nodes of less than {smallest * 100:g}% of it are folded (--smallest).")
    return found


def _row(branch: Branch, lead: str, weight: str, whole: int) -> dict[str, Any]:
    values = branch.values
    account = values["kind"] == "account"
    share = None if account or not whole else values[weight] / whole
    row = {key: values[key] or None for key in ("calls", "total", "self", "gpu_total", "launches")}
    row |= {"name": values["name"], "kind": values["kind"], "gpu_busy": values["gpu_busy"] or None}
    row |= {"lead": lead, "share": share or None}
    if account or branch.folded:
        row["status"] = "account"
    return row


def draw(depths: Sequence[int]) -> list[str]:
    """The lines before each name of a tree, given the depths of its nodes in reading order.

    >>> draw([0, 1, 2, 1])
    ['', '├ ', '│ └ ', '└ ']
    """
    leads: list[str] = []
    goes_on: list[bool] = []  # by depth: whether a sibling follows further down
    for depth in reversed(depths):
        del goes_on[depth + 1 :]
        goes_on += [False] * (depth + 1 - len(goes_on))
        leads.append(_lead(depth, goes_on))
        goes_on[depth] = True
    return leads[::-1]


def _lead(depth: int, goes_on: Sequence[bool]) -> str:
    if depth > _DEPTH_DRAWN:
        return f"[{depth}] "
    if not depth:
        return ""
    lines = "".join("│ " if more else "  " for more in goes_on[1:depth])
    return lines + ("├ " if goes_on[depth] else "└ ")


# As data ----------------------------------------------------------------------------------


def tree_nodes(found: Sequence[Branch]) -> list[tuple[int, dict[str, Any]]]:
    """Depth and values of each node, in reading order: what a writer nests."""
    return [(branch.depth, _node(branch)) for branch in found]


_NODE_KEYS = (
    *("name", "kind", "calls", "total", "self"),
    *("gpu_total", "gpu_busy", "launches", "activities"),
)


def _node(branch: Branch) -> dict[str, Any]:
    return {key: branch.values[key] for key in _NODE_KEYS} | {"folded": branch.folded}
