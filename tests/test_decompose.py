"""The parts of a change: they add up, and each is what its name says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import traceq
from tests.tracemaker import Event, compact, complete
from traceq.decompose import Parts, decompose

whole = st.integers(1, 50)
times = st.integers(0, 10**12)
by_shape = st.dictionaries(st.integers(-1, 5), st.tuples(whole, times), max_size=4)


@given(st.integers(-(10**15), 10**15), by_shape, by_shape)
def test_parts_add_up(change: int, before: Any, after: Any) -> None:
    parts = decompose(change, before, after)
    assert parts.calls + parts.shapes + parts.cost == change
    assert all(type(part) is int for part in (parts.calls, parts.shapes, parts.cost))


means = st.dictionaries(
    st.integers(0, 3), st.tuples(st.floats(0.25, 9), st.floats(0, 1e9)), max_size=3
)


@given(st.integers(-(10**9), 10**9), means, means)
def test_parts_of_means_over_captures_add_up(change: int, before: Any, after: Any) -> None:
    parts = decompose(change, before, after)
    assert parts.calls + parts.shapes + parts.cost == change


@given(by_shape)
def test_no_change_has_no_parts(shapes: Any) -> None:
    assert decompose(0, shapes, dict(reversed(shapes.items()))) == Parts(0, 0, 0)


@given(st.dictionaries(st.integers(-1, 5), st.tuples(whole, times), min_size=1), st.integers(2, 5))
def test_more_of_the_same_calls_is_all_calls(before: dict[int, tuple[int, int]], more: int) -> None:
    after = {shape: (calls * more, time * more) for shape, (calls, time) in before.items()}
    change = (more - 1) * sum(time for _, time in before.values())
    parts = decompose(change, before, after)
    assert parts.calls == pytest.approx(change, rel=1e-12, abs=1)
    assert parts.shapes == pytest.approx(0, abs=1e-12 * change + 1)


@given(st.dictionaries(st.integers(-1, 5), st.tuples(whole, times, times), min_size=1, max_size=4))
def test_the_same_calls_at_another_cost_is_all_cost(
    rows: dict[int, tuple[int, int, int]],
) -> None:
    before = {shape: (calls, time) for shape, (calls, time, _) in rows.items()}
    after = {shape: (calls, time) for shape, (calls, _, time) in rows.items()}
    change = sum(time - time_before for _, time_before, time in rows.values())
    assert decompose(change, before, after).calls == 0
    assert decompose(change, before, after).shapes == pytest.approx(0, abs=0.01 + 1e-3)
    assert decompose(change, before, after).cost == change


@pytest.mark.parametrize(
    ("change", "before", "after", "parts"),
    [
        (100, {1: (10, 100)}, {1: (20, 200)}, Parts(100, 0, 0)),
        (-50, {1: (10, 100)}, {1: (5, 50)}, Parts(-50, 0, 0)),
        (50, {1: (10, 100)}, {1: (10, 150)}, Parts(0, 0, 50)),
        (-50, {1: (10, 100)}, {1: (10, 50)}, Parts(0, 0, -50)),
        # As many calls, of which more are of the dear shape, and then fewer.
        (180, {1: (9, 90), 2: (1, 100)}, {1: (7, 70), 2: (3, 300)}, Parts(0, 180, 0)),
        (-180, {1: (7, 70), 2: (3, 300)}, {1: (9, 90), 2: (1, 100)}, Parts(0, -180, 0)),
        # A new shape costs as the average did: what it costs more is cost.
        (90, {1: (10, 100)}, {1: (9, 90), 2: (1, 100)}, Parts(0, 0, 90)),
        # Twice the calls, half the cost of each: no change, and yet parts.
        (0, {1: (10, 100)}, {1: (20, 100)}, Parts(100, 0, -100)),
        # On one side alone: calls.
        (100, {}, {1: (10, 100)}, Parts(100, 0, 0)),
        (-100, {1: (10, 100)}, {}, Parts(-100, 0, 0)),
        (0, {}, {}, Parts(0, 0, 0)),
    ],
)
def test_simple_changes(change: int, before: Any, after: Any, parts: Parts) -> None:
    assert decompose(change, before, after) == parts


# Through files --------------------------------------------------------------------------------

SMALL, LARGE = [[4, 4]], [[64, 64]]
Call = tuple[str, Any, int]
"""An op, its input shapes (None: not recorded) and its duration in µs."""


def write(path: Path, calls: Sequence[Call]) -> Path:
    """A scope with some calls in a row."""
    events: list[Event] = []
    now = 0
    for name, shapes, dur in calls:
        args = {} if shapes is None else {"Input Dims": shapes}
        events.append(complete(name, now, dur, args=args))
        now += dur
    path.write_bytes(compact([complete("S", 0, now + 10), *events]))
    return path


def rows_of(folder: Path, before: Sequence[Call], after: Sequence[Call]) -> dict[str, Any]:
    paths = write(folder / "before.json", before), write(folder / "after.json", after)
    with traceq.open(paths[0]) as one, traceq.open(paths[1]) as other:
        rows = traceq.diff(one, other, under="S").to_dict()["rows"]
    return {row["op"]: row for row in rows}


def parts_of(row: dict[str, Any]) -> tuple[int, int, int]:
    assert row["calls_part"] + row["shapes_part"] + row["cost_part"] == row["delta"]
    return row["calls_part"], row["shapes_part"], row["cost_part"]


def test_parts_of_ops_with_shapes(tmp_path: Path) -> None:
    before: list[Call] = [("mix", SMALL, 10)] * 3 + [("mix", LARGE, 90)]
    after: list[Call] = [("mix", SMALL, 10)] * 2 + [("mix", LARGE, 90)] * 2
    before += [("more", SMALL, 20)] * 2 + [("dear", SMALL, 30)] * 2 + [("bare", None, 5)] * 2
    after += [("more", SMALL, 20)] * 3 + [("dear", SMALL, 40)] * 2 + [("bare", None, 7)] * 3
    rows = rows_of(tmp_path, before, after)
    assert (rows["mix"]["status"], rows["mix"]["delta"]) == ("same", 80_000)
    assert parts_of(rows["mix"]) == (0, 80_000, 0)
    assert parts_of(rows["more"]) == (20_000, 0, 0)
    assert parts_of(rows["dear"]) == (0, 0, 20_000)
    assert parts_of(rows["bare"]) == (5_000, 0, 6_000)


def test_parts_of_ops_of_one_side(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [("old", SMALL, 10), ("f", None, 5)], [("new", LARGE, 30)] * 2)
    assert parts_of(rows["old"]) == (-10_000, 0, 0)
    assert parts_of(rows["new"]) == (60_000, 0, 0)
    assert parts_of(rows["f"]) == (-5_000, 0, 0)
