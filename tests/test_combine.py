"""One table of several captures': medians that were measured, rows that some do not have."""

from __future__ import annotations

from statistics import median_low
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traceq.combine import combine, middle, middle_of

COLUMNS = ("calls", "total", "min", "max", "self")


def table(*rows: tuple[str, int, int, int, int, int]) -> pd.DataFrame:
    """A table of ops: name, then :data:`COLUMNS`."""
    names = [row[0] for row in rows]
    found = pd.DataFrame({"op": names, "category": [f"of {name}" for name in names]}, dtype=object)
    for place, column in enumerate(COLUMNS, 1):
        found[column] = np.array([row[place] for row in rows], np.int64)
    return found.assign(average=found["total"] / found["calls"])


def rows_of(found: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {row["op"]: row for row in found.to_dict("records")}


def test_one_table_is_its_own() -> None:
    one = table(("b", 3, 31, 4, 20, 9), ("a", 1, 7, 7, 7, 7))
    found = combine([one], "op")
    pd.testing.assert_frame_equal(found[one.columns.tolist()], one, check_dtype=False)
    assert found["calls_low"].tolist() == found["calls_high"].tolist() == [3, 1]
    numbers = [*COLUMNS, "calls_low", "calls_high"]
    assert {str(found[column].dtype) for column in numbers} == {"int64"}


def test_figures_are_medians_that_were_measured() -> None:
    tables = [table(("a", *row)) for row in [(4, 10, 3, 5, 1), (6, 30, 1, 9, 8), (5, 20, 2, 7, 2)]]
    assert rows_of(combine(tables, "op"))["a"] == {
        "op": "a",
        "category": "of a",
        "calls_low": 4,
        "calls_high": 6,
        "calls": 5,
        "total": 20,
        "min": 1,  # over all
        "max": 9,
        "self": 2,
        "average": 4.0,  # of these: 20 over 5
    }
    assert rows_of(combine(tables[:2], "op"))["a"]["total"] == 10  # the lower of two
    assert rows_of(combine([*tables, tables[1]], "op"))["a"]["total"] == 20


def test_a_row_that_a_capture_does_not_have_counts_as_nothing() -> None:
    with_row = table(("a", 4, 40, 1, 9, 9), ("b", 1, 5, 5, 5, 5))
    without = table(("b", 1, 7, 7, 7, 7))
    found = rows_of(combine([without, with_row, with_row], "op"))
    assert (found["a"]["calls_low"], found["a"]["calls_high"]) == (0, 4)
    assert (found["a"]["calls"], found["a"]["total"]) == (4, 40)
    assert (found["a"]["min"], found["a"]["max"]) == (1, 9)  # of those that have it
    assert found["a"]["category"] == "of a"
    seldom = rows_of(combine([without, with_row, without], "op"))["a"]  # lost to nobody
    assert (seldom["calls"], seldom["calls_high"], seldom["total"]) == (0, 4, 0)


def test_rows_stand_in_the_order_in_which_they_were_first_seen() -> None:
    rows = {name: (name, 1, 2, 2, 2, 2) for name in "abcd"}
    tables = [table(*(rows[name] for name in names)) for names in ("ca", "dcab", "bdca")]
    assert combine(tables, "op")["op"].tolist() == ["c", "a", "d", "b"]


def test_texts_are_those_of_the_first_capture_that_has_them() -> None:
    one, two = table(("a", 1, 2, 2, 2, 2)), table(("a", 1, 2, 2, 2, 2), ("b", 1, 2, 2, 2, 2))
    two["category"] = "another"
    found = combine([one, two, two], "op")
    assert found["category"].tolist() == ["of a", "another"]


numbers = st.integers(1, 9)
random_rows = st.dictionaries(
    st.sampled_from("abc"), st.tuples(numbers, numbers, numbers, numbers, numbers)
)


@given(st.lists(random_rows, min_size=1, max_size=5))
def test_any_tables(captures: list[dict[str, tuple[int, int, int, int, int]]]) -> None:
    tables = [table(*((name, *row) for name, row in rows.items())) for rows in captures]
    found = rows_of(combine(tables, "op"))
    nothing = (0,) * len(COLUMNS)
    for name in "abc":
        by_column = list(zip(*(rows.get(name, nothing) for rows in captures), strict=True))
        figures = dict(zip(COLUMNS, map(median_low, by_column), strict=True))
        assert (name in found) == any(name in rows for rows in captures)
        if name not in found:
            continue
        row = found[name]
        there = [rows[name] for rows in captures if name in rows]
        figures |= {"min": min(row[2] for row in there), "max": max(row[3] for row in there)}
        assert {column: row[column] for column in COLUMNS} == figures
        if figures["calls"]:
            assert row["average"] == figures["total"] / figures["calls"]
        assert (row["calls_low"], row["calls_high"]) == (min(by_column[0]), max(by_column[0]))


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=9))
def test_the_middle_is_the_lower_median(values: list[int]) -> None:
    both = np.array([[value, -value] for value in values])
    assert middle(both).tolist() == [median_low(values), median_low([-value for value in values])]


def test_the_middle_of_plain_figures_passes_over_what_is_absent() -> None:
    rows = [
        {"a": 3, "b": None, "c": None},
        {"a": 1, "b": 7, "c": None},
        {"a": 2, "b": 5, "c": None},
    ]
    assert middle_of(rows) == {"a": 2, "b": 5, "c": None}


@pytest.mark.parametrize("captures", [1, 2])
def test_no_rows(captures: int) -> None:
    found = combine([table()] * captures, "op")
    assert len(found) == 0
    assert {*COLUMNS, "op", "category", "average", "calls_low", "calls_high"} == {*found.columns}
