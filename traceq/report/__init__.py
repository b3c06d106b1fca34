"""What a report says, in order: headline, facts, tables, remarks. How it looks is ``render``'s.

One file a report; each ``*_report`` function turns a result into a :class:`Report`. Values in
tables stay in base units and carry a :class:`Unit`, so that every renderer prints the same figures.
"""

from traceq.report.diff import diff_report
from traceq.report.info import info_report
from traceq.report.kernels import (
    KERNEL_SORT_KEYS,
    activities_report,
    kernels_report,
    sorted_kernels,
)
from traceq.report.model import REPLACED_BY, Column, Details, Report, Table, Unit
from traceq.report.ops import SORT_KEYS, ops_report, sorted_ops
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
