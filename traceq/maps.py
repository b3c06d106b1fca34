"""Pairs that the user names (``--map OLD=>NEW``): one row for an op and what replaced it.

Both sides are summed over the same ops, so what is left of the old one counts as well. What
replaced what without being named is found in ``align``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from traceq.combine import middle_of
from traceq.errors import PatternError, UsageError
from traceq.names import fold_name, matching_names
from traceq.reading import Reading

JOINED = " + "
"""Stands between ops that were replaced together."""


def parse_map(text: str) -> tuple[str, str]:
    """Read ``OLD=>NEW``. Raises UsageError where it is not of that form.

    >>> parse_map("rearrange=>flatten")
    ('rearrange', 'flatten')
    """
    old, arrow, new = text.partition("=>")
    if not arrow or not old.strip() or not new.strip():
        raise UsageError(
            f"{text!r} is not a mapping",
            hint="Write it as 'OLD=>NEW', in quotes: 'rearrange=>flatten'.",
        )
    return old.strip(), new.strip()


def map_row(
    table: pd.DataFrame,
    before: Sequence[Reading],
    after: Sequence[Reading],
    old: str,
    new: str,
) -> tuple[pd.DataFrame, dict[str, Any], frozenset[str]]:
    """The table without the rows of two patterns' ops, the one row in their place, and these ops.

    Ops on one side only are meant first: ``flatten`` is the new call, not the flattening that both
    sides do elsewhere. Only where there is none are all ops that match taken. Raises PatternError.
    """
    gone = _chosen_ops(table, before[0], old, "removed")
    come = _chosen_ops(table, after[0], new, "added")
    ops = {*gone, *come}
    sums = {"before": sum_side(before, ops), "after": sum_side(after, ops)}
    taken = table["op"].isin(ops) & (table["status"] != "replaced")
    return table[~taken], _pair_row(table[taken], gone, come, sums), frozenset(ops)


def sum_side(captures: Sequence[Reading], ops: Collection[str]) -> dict[str, Any]:
    """Some ops of a side as one: medians over its captures."""
    return middle_of([_sum(item, ops) for item in captures])


def _sum(capture: Reading, ops: Collection[str]) -> dict[str, Any]:
    if capture.again is None:
        raise UsageError(
            f"{capture.path}: --map needs the trace itself, and this one is a record of it",
            hint="Leave --map away: what replaced what is found without it.",
        )
    with capture.again() as part:
        return part.trace.sum_ops(ops, part.patterns, windows=part.windows)


def _chosen_ops(table: pd.DataFrame, capture: Reading, pattern: str, status: str) -> list[str]:
    try:
        matched = {fold_name(name) for name in matching_names([pattern], capture.names)}
    except PatternError as error:
        raise PatternError(f"{capture.path}: {error.message}", hint=error.hint) from error
    here = table[table["op"].isin(matched) & (table["status"] != "replaced")]
    one_sided = here[here["status"] == status]
    side = "calls_before" if status == "removed" else "calls_after"
    chosen = one_sided if len(one_sided) else here[here[side].notna()]
    if chosen.empty:
        raise PatternError(
            f"{capture.path}: what matches {pattern!r} is not under the scope",
            hint="Another --map may have taken it; 'traceq ops --match' shows where it is called.",
        )
    return sorted(str(op) for op in chosen["op"])


def _pair_row(
    rows: pd.DataFrame, gone: list[str], come: list[str], sides: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The row of a replacement, in place of the rows of its ops."""
    row: dict[str, Any] = {"status": "replaced", "op": JOINED.join(gone)}
    row["replaced_by"] = JOINED.join(come)
    for side, sums in sides.items():
        row |= {f"{key}_{side}": value for key, value in sums.items()}
    row["category"] = rows.loc[rows["op"].isin(come), "category"].iloc[0]
    row["delta"] = row["total_after"] - row["total_before"]
    row["self_delta"] = row["self_after"] - row["self_before"]
    row["gpu_delta"] = row["gpu_total_after"] - row["gpu_total_before"]
    row["ratio"] = row["total_before"] / row["total_after"] if row["total_after"] else None
    return row
