"""What a report says, in order: headline, facts, tables, remarks. How it looks is ``render``'s.

One file a report; each ``*_report`` function turns a result into a :class:`Report`. Values in
tables stay in base units and carry a :class:`Unit`, so that every renderer prints the same figures.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from traceq.ops import SORT_KEYS, sorted_ops
    from traceq.report.diff import diff_report
    from traceq.report.info import info_report
    from traceq.report.kernels import (
        KERNEL_SORT_KEYS,
        activities_report,
        kernels_report,
        sorted_kernels,
    )
    from traceq.report.model import REPLACED_BY, Column, Details, Report, Table, Unit
    from traceq.report.ops import ops_report
    from traceq.report.part import Part, cut
    from traceq.report.pull_request import pull_request_report
    from traceq.report.scopes import scopes_report, sorted_scopes
    from traceq.report.steps import cold_warning, steps_report
    from traceq.report.timeline import timeline_report
    from traceq.report.tree import tree_branches, tree_nodes, tree_report

__all__ = [
    "KERNEL_SORT_KEYS",
    "REPLACED_BY",
    "SORT_KEYS",
    "Column",
    "Details",
    "Part",
    "Report",
    "Table",
    "Unit",
    "activities_report",
    "cold_warning",
    "cut",
    "diff_report",
    "info_report",
    "kernels_report",
    "ops_report",
    "pull_request_report",
    "scopes_report",
    "sorted_kernels",
    "sorted_ops",
    "sorted_scopes",
    "steps_report",
    "timeline_report",
    "tree_branches",
    "tree_nodes",
    "tree_report",
]

# A command imports the reports that it makes, and not what the others need: that is half of it.
_HOMES = {
    "Column": "traceq.report.model",
    "Details": "traceq.report.model",
    "KERNEL_SORT_KEYS": "traceq.report.kernels",
    "Part": "traceq.report.part",
    "REPLACED_BY": "traceq.report.model",
    "Report": "traceq.report.model",
    "SORT_KEYS": "traceq.ops",
    "Table": "traceq.report.model",
    "Unit": "traceq.report.model",
    "activities_report": "traceq.report.kernels",
    "cold_warning": "traceq.report.steps",
    "cut": "traceq.report.part",
    "diff_report": "traceq.report.diff",
    "info_report": "traceq.report.info",
    "kernels_report": "traceq.report.kernels",
    "ops_report": "traceq.report.ops",
    "pull_request_report": "traceq.report.pull_request",
    "scopes_report": "traceq.report.scopes",
    "sorted_kernels": "traceq.report.kernels",
    "sorted_ops": "traceq.ops",
    "sorted_scopes": "traceq.report.scopes",
    "steps_report": "traceq.report.steps",
    "timeline_report": "traceq.report.timeline",
    "tree_branches": "traceq.report.tree",
    "tree_nodes": "traceq.report.tree",
    "tree_report": "traceq.report.tree",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
