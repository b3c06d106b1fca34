"""Makes one table of the tables of a side's captures: the median of each figure.

Tables in, a table out. With one capture the table is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

_TEXTS = ("category", "ops")
_LEAST, _MOST = "min", "max"


def combine(tables: Sequence[pd.DataFrame], key: str) -> pd.DataFrame:
    """One row for each ``key`` that any of the captures has, in the first order seen.

    Figures are medians over the captures (the lower of two, so that each is one that was measured),
    with 0 where a capture has no such row; ``min`` and ``max`` are those over all. ``average`` is
    the median total over the median calls. ``calls_low`` and ``calls_high`` are added: the least
    and the largest number of calls in a capture.
    """
    indexed = [table.set_index(key) for table in tables]
    first: pd.Index[Any] = reduce(lambda one, other: one.append(other), (t.index for t in indexed))
    names = first.unique()
    calls = _stacked(indexed, "calls", names)
    found = {key: names, "calls_low": calls.min(axis=0), "calls_high": calls.max(axis=0)}
    for column in indexed[0].columns:
        found[column] = _column(indexed, column, names)
    table = pd.DataFrame(found)
    table = table[table["calls_high"] > 0].reset_index(drop=True)
    return table.assign(average=table["total"] / table["calls"])


def _column(tables: Sequence[pd.DataFrame], column: str, names: pd.Index[Any]) -> Any:
    if column in _TEXTS:
        texts: dict[Any, Any] = {}
        for table in tables:
            texts = {**table[column].to_dict(), **texts}
        return pd.Series([texts[name] for name in names], dtype=object)
    if column in (_LEAST, _MOST):
        whole = pd.concat([table[column] for table in tables]).groupby(level=0, sort=False)
        return (whole.min() if column == _LEAST else whole.max()).reindex(names).to_numpy()
    return middle(_stacked(tables, column, names))


def _stacked(tables: Sequence[pd.DataFrame], column: str, names: pd.Index[Any]) -> Any:
    """One row a capture, one column a name; 0 where a capture has none."""
    return np.stack([table[column].reindex(names, fill_value=0).to_numpy() for table in tables])


def middle(values: Any) -> Any:
    """The median over the first axis; of an even number the lower of the two in the middle."""
    return np.sort(values, axis=0)[(len(values) - 1) // 2]


def middle_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same for rows of plain figures; None where a capture has none."""
    found: dict[str, Any] = {}
    for name in rows[0]:
        values = sorted(row[name] for row in rows if row[name] is not None)
        found[name] = values[(len(values) - 1) // 2] if values else None
    return found
