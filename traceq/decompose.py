"""Takes a change of an op's time apart: more or fewer calls, other shapes, another cost a call.

The parts add up to the change exactly. Whether the change is more than noise is left to
``evidence``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from traceq.reading import Reading


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a change (ns): ``calls`` + ``shapes`` + ``cost`` = the change."""

    calls: int
    shapes: int
    cost: int


def decompose(
    change: int, before: dict[int, tuple[float, float]], after: dict[int, tuple[float, float]]
) -> Parts:
    """Take a change (ns) apart; the sides have (calls, total ns) by the number of a shape.

    Of the index-number kind (Laspeyres): *calls* is the change of their number at the average cost
    before; *shapes* what the new mix of shapes would cost more at each shape's cost before (a shape
    that is new counts at the average); *cost* is the rest, what calls of the same shapes cost more.

    >>> decompose(150, {1: (10, 100)}, {1: (10, 150), 2: (5, 100)})
    Parts(calls=50, shapes=0, cost=100)
    """
    calls_before, time_before = _sums(before)
    calls_after, _ = _sums(after)
    if not calls_before or not calls_after:
        return Parts(change, 0, 0)
    average = time_before / calls_before
    calls = round((calls_after - calls_before) * average)
    cost_of = {shape: time / number for shape, (number, time) in before.items()}
    mixed = sum(number * cost_of.get(shape, average) for shape, (number, _) in after.items())
    shapes = round(mixed - calls_after * average)
    return Parts(calls, shapes, change - calls - shapes)


def _sums(by_shape: dict[int, tuple[float, float]]) -> tuple[float, float]:
    numbers = list(by_shape.values())
    return sum(calls for calls, _ in numbers), sum(time for _, time in numbers)


ByShape = dict[str, dict[int, tuple[float, float]]]


def by_shape(captures: Sequence[Reading]) -> ByShape:
    """Calls and time (ns) of each op below the scopes by shape: means over a side's captures."""
    tables = [_rows(item) for item in captures]
    whole = pd.concat(tables).groupby(["op", "shape"], sort=False)["dur"].agg(["size", "sum"])
    words = captures[0].words.ops.ops
    found: ByShape = {}
    count = len(captures)
    for (op, shape), calls, total in zip(
        whole.index, whole["size"].tolist(), whole["sum"].tolist(), strict=True
    ):
        found.setdefault(words[op], {})[shape] = (calls / count, total / count)
    return found


def _rows(capture: Reading) -> pd.DataFrame:
    outline = capture.outline
    below = outline.parent >= 0 if capture.under else outline.parent >= -1
    return pd.DataFrame(
        {"op": outline.op[below], "shape": capture.shapes[below], "dur": outline.dur[below]}
    )


def _scaled(
    by_shape: dict[int, tuple[float, float]], calls: float, total: float
) -> dict[int, tuple[float, float]]:
    """Calls and times by shape that add up to other sums, in the same proportions."""
    known_calls, known_total = _sums(by_shape)
    if not known_calls or not calls:
        return {}
    more, longer = calls / known_calls, total / known_total if known_total else 0.0
    return {shape: (number * more, time * longer) for shape, (number, time) in by_shape.items()}


def parts_of(changes: pd.DataFrame, before: ByShape, after: ByShape) -> pd.DataFrame:
    """The parts of each row's ``delta``: columns ``calls_part``, ``shapes_part``, ``cost_part``.

    The mix of shapes is the mean over a side's captures; it is scaled to the calls and times that
    the rows show, which may be medians, so that all figures of a row belong together.
    """
    rows = []
    for row in changes.fillna(0).to_dict("records"):
        sides = [
            _scaled(found.get(row["op"], {}), row[f"calls_{side}"], row[f"total_{side}"])
            for side, found in (("before", before), ("after", after))
        ]
        rows.append(decompose(int(row["delta"]), *sides))
    return pd.DataFrame(
        {
            "calls_part": [row.calls for row in rows],
            "shapes_part": [row.shapes for row in rows],
            "cost_part": [row.cost for row in rows],
        },
        index=changes.index,
        dtype="int64",
    )
