"""What the columns of a comparison's tables mean.

The tables of ops and kernels have the figures of ``Trace.ops`` and ``Trace.kernels`` for either
side, and what is added to them here.
"""

from __future__ import annotations

from collections.abc import Iterable

from traceq.kernels import KERNEL_FIELDS
from traceq.model import Field
from traceq.ops import OP_FIELDS

FINDING_FIELDS = (
    Field("sample_before", "DOUBLE", "ns", "Median time of a sample before."),
    Field("sample_before_low", "DOUBLE", "ns", "Lower end of the interval of this median."),
    Field("sample_before_high", "DOUBLE", "ns", "Upper end."),
    Field("sample_after", "DOUBLE", "ns", "Median time of a sample after."),
    Field("sample_after_low", "DOUBLE", "ns", "Lower end of the interval of this median."),
    Field("sample_after_high", "DOUBLE", "ns", "Upper end."),
    Field("change", "DOUBLE", "", "Relative change (0.1: 10 % more), by Hodges and Lehmann."),
    Field("change_low", "DOUBLE", "", "Lower end of its interval."),
    Field("change_high", "DOUBLE", "", "Upper end."),
    Field("confidence", "DOUBLE", "", "Confidence that this interval really has, from 0 to 1."),
    Field(
        "drift_free_change",
        "DOUBLE",
        "",
        "Relative change without what the rows of a capture have in common; NULL where captures "
        "are not the samples.",
    ),
    Field("drift_free_low", "DOUBLE", "", "Lower end of its interval."),
    Field("drift_free_high", "DOUBLE", "", "Upper end."),
    Field("noise", "DOUBLE", "", "Spread of captures of one side, relative; NULL: not known."),
    Field("p", "DOUBLE", "", "p adjusted for all rows; NULL: no test."),
    Field(
        "verdict",
        "STRING",
        "",
        "faster, slower, same or can't tell; NULL for what has time on one side alone.",
    ),
    Field(
        "told_by",
        "STRING",
        "",
        "What tells of a change: times, or drift_free (the change without the drift alone).",
    ),
    Field("captures_needed", "LONG", "", "About how many captures a side would tell."),
)
"""What the evidence adds to a row."""

PART_FIELDS = (
    Field("calls_part", "LONG", "ns", "Part of delta: more or fewer calls."),
    Field("shapes_part", "LONG", "ns", "Part of delta: another mix of shapes."),
    Field("cost_part", "LONG", "ns", "Part of delta: another cost of a call."),
)

_OWN = (
    Field("status", "STRING", "", "replaced, changed, added, removed, uneven or same."),
    Field("replaced_by", "STRING", "", "What --map put in the place of the op."),
    Field("calls_low", "LONG", "", "Fewest calls in a capture."),
    Field("calls_high", "LONG", "", "Most calls in a capture."),
    Field("delta", "LONG", "ns", "total_after less total_before, an absent side as 0."),
    Field("ratio", "DOUBLE", "", "total_before / total_after; NULL for one side alone."),
    Field("self_delta", "LONG", "ns", "self_after less self_before, an absent side as 0."),
    Field("gpu_delta", "LONG", "ns", "gpu_total_after less before, an absent side as 0."),
    *PART_FIELDS,
    *FINDING_FIELDS,
)
_SIDES = {"_before": "before", "_after": "after"}


def fields_of(columns: Iterable[str]) -> tuple[Field, ...]:
    """The meaning of each column of a table of ops or of kernels, in the same order."""
    names = [*columns]
    of_side = KERNEL_FIELDS if "kernel" in names else OP_FIELDS
    known = {field.name: field for field in (*of_side, *_OWN)}
    return tuple(_field(name, known) for name in names)


def _field(name: str, known: dict[str, Field]) -> Field:
    if name in known:
        return known[name]
    for suffix, side in _SIDES.items():
        if name.endswith(suffix):
            field = known[name.removesuffix(suffix)]
            return Field(name, field.type, field.unit, f"{field.doc[:-1]}; {side}.")
    raise KeyError(name)
