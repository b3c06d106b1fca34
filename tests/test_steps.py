"""Steps of a capture: where they begin and end, what stage they are, and how they are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from traceq.errors import UsageError
from traceq.gpu import Activities
from traceq.model import Ints, SliceTable
from traceq.selection import Windows
from traceq.steps import (
    COLD_FACTOR,
    COLD_PEERS,
    OUTSIDE_STEPS,
    Steps,
    choose_steps,
    choose_windows,
    find_steps,
    intersect,
    parse_window,
    stage_of_label,
    steps_table,
)


class Call(NamedTuple):
    """A slice; ``parent`` is its position, -1 for none."""

    name: str
    ts: int
    dur: int
    parent: int = -1
    category: str = "user_annotation"


def ints(values: Sequence[int]) -> Ints:
    return np.array(values, np.int64)


def table_of(calls: Sequence[Call]) -> SliceTable:
    names = list(dict.fromkeys(call.name for call in calls))
    categories = list(dict.fromkeys(call.category for call in calls))
    return SliceTable(
        ts=ints([call.ts for call in calls]),
        dur=ints([call.dur for call in calls]),
        name=ints([names.index(call.name) for call in calls]),
        category=ints([categories.index(call.category) for call in calls]),
        parent=ints([call.parent for call in calls]),
        adopted=ints([]),
        names=names,
        categories=categories,
    )


def spans(steps: Steps) -> list[tuple[int, int, int]]:
    """Number, start and end of each step."""
    columns = (steps.number, steps.start, steps.end)
    return list(zip(*(column.tolist() for column in columns), strict=True))


# Finding -----------------------------------------------------------------------------------------


def test_steps_are_those_that_the_profiler_marked() -> None:
    found = find_steps(
        table_of(
            [
                Call("ProfilerStep#9", 0, 100),
                Call("nn.Module: Net_0", 10, 50, 0, "python_function"),
                Call("ProfilerStep#9", 20, 100, -1, "gpu_user_annotation"),
                Call("ProfilerStep#10", 100, 80),
                Call("ProfilerStep#10", 110, 10, 3),
                Call("my ProfilerStep#3", 300, 10),
                Call("ProfilerStep#4x", 400, 10),
            ]
        )
    )
    assert spans(found) == [(9, 0, 100), (10, 100, 180)]
    assert found.slice.tolist() == [0, 3]
    assert found.source == "marked by the profiler"


def test_a_step_ends_where_the_next_begins() -> None:
    """Labels of two threads, or ones that are held open: no time is in two steps."""
    found = find_steps(table_of([Call("ProfilerStep#1", 0, 100), Call("ProfilerStep#2", 60, 10)]))
    assert spans(found) == [(1, 0, 60), (2, 60, 70)]


def test_without_marks_the_scope_that_repeats_at_the_top_is_the_step() -> None:
    calls = [Call("warm up", 0, 900)]
    for start in (1000, 2000, 3000):
        calls.append(Call("nn.Module: Net_0", start, 300, -1, "python_function"))
        calls.append(Call("nn.Module: Layer_0", start, 100, len(calls) - 1, "python_function"))
        calls.append(
            Call("nn.Module: Layer_0", start + 100, 100, len(calls) - 2, "python_function")
        )
        calls.append(Call("nn.Module: Sampler_0", start + 400, 50, -1, "python_function"))
    found = find_steps(table_of(calls))
    assert spans(found) == [(0, 1000, 1300), (1, 2000, 2300), (2, 3000, 3300)]
    assert found.source == "found from the 3 calls of nn.Module: Net_0"


def test_labels_that_differ_in_numbers_are_steps_of_one_kind() -> None:
    names = ["step[EXTEND bs=1 toks=64]", "step[DECODE bs=1]", "step[DECODE bs=2]"]
    calls = [Call(name, 100 * number, 50) for number, name in enumerate(names)]
    assert spans(find_steps(table_of(calls))) == [(0, 100, 150), (1, 200, 250)]


def test_a_single_step_of_an_engine_is_a_step() -> None:
    assert spans(find_steps(table_of([Call("step[DECODE bs=32]", 5, 10)]))) == [(0, 5, 15)]
    name = "execute_context_1(8)_generation_0(0)"
    assert spans(find_steps(table_of([Call(name, 5, 10)]))) == [(0, 5, 15)]


@pytest.mark.parametrize(
    "calls",
    [
        [],
        [Call("once", 0, 10)],
        [Call("a", 0, 10), Call("b", 20, 10)],
        [Call("aten::mul", 0, 10, -1, "cpu_op"), Call("aten::mul", 20, 10, -1, "cpu_op")],
        [Call("outer", 0, 100), Call("inner", 10, 10, 0), Call("inner", 30, 10, 0)],
    ],
    ids=["nothing", "once", "different", "ops", "inner"],
)
def test_without_a_scope_that_repeats_there_are_no_steps(calls: list[Call]) -> None:
    found = find_steps(table_of(calls))
    assert len(found) == 0
    assert found.source == ""


# Stages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "stage"),
    [
        ("step[DECODE bs=32]", "decode"),
        ("step[EXTEND bs=1 toks=64]", "prefill"),
        ("step[PREFILL bs=2]", "prefill"),
        ("step[MIXED bs=4]", "mixed"),
        ("step[VERIFY bs=4]", ""),
        ("execute_context_1(888_788544)_generation_0(0)", "prefill"),
        ("execute_context_0(0)_generation_32(32)", "decode"),
        ("execute_context_2(96)_generation_7(7)", "mixed"),
        ("execute_32_context_0(sq0sk0sqsq0sqsk0)_generation_32(sq32sk32785sqsq32)", "decode"),
        ("capture_32_DECODE", ""),
        ("decode_attention", ""),
        ("gpu_model_runner: forward", ""),
        ("ProfilerStep#3", ""),
        ("nccl:all_reduce", ""),
        ("", ""),
    ],
)
def test_stage_of_a_label(label: str, stage: str) -> None:
    assert stage_of_label(label) == stage


# The table ---------------------------------------------------------------------------------------


def work(rows: Sequence[tuple[int, int, int]]) -> Activities:
    """Activities by start, duration and the id of the launching slice (-1: unknown)."""
    ts, dur, launch = (ints([row[place] for row in rows]) for place in range(3))
    nothing = np.full(len(rows), -1)
    return Activities(
        np.arange(100, 100 + len(rows)), ts, dur, launch, launch, nothing, nothing, nothing, nothing
    )


def embeddings(rows: Sequence[tuple[int, str | None]]) -> pd.DataFrame:
    return pd.DataFrame(
        {"ts": ints([row[0] for row in rows]), "dims": [row[1] for row in rows]}, dtype=object
    ).astype({"ts": "int64"})


NO_EMBEDDINGS = embeddings([])


def table_for(
    calls: Sequence[Call],
    activities: Sequence[tuple[int, int, int]] = (),
    lookups: pd.DataFrame = NO_EMBEDDINGS,
) -> pd.DataFrame:
    slices = table_of(calls)
    return steps_table(slices, work(activities), find_steps(slices), lookups)


def test_gpu_work_counts_for_the_step_that_launched_it() -> None:
    calls = [
        Call("ProfilerStep#1", 0, 100),
        Call("launch", 90, 5, 0, "cuda_runtime"),
        Call("ProfilerStep#2", 100, 100),
        Call("launch", 100, 5, 2, "cuda_runtime"),
        Call("launch", 200, 5, -1, "cuda_runtime"),
    ]
    # Two of one launch that overlap; late work; work of the second step; no launch; outside.
    activities = [(95, 20, 1), (105, 20, 1), (500, 7, 1), (110, 40, 3), (150, 5, -1), (250, 9, 4)]
    table = table_for(calls, activities)
    assert table["name"].tolist() == ["ProfilerStep#1", "ProfilerStep#2", OUTSIDE_STEPS]
    assert table["step"].tolist() == [1, 2, pd.NA]
    assert table["activities"].tolist() == [3, 2, 1]
    assert table["launches"].tolist() == [1, 1, 1]
    assert table["gpu_total"].tolist() == [47, 45, 9]
    assert table["gpu_busy"].tolist() == [37, 45, 9]


def test_without_work_outside_there_is_no_row_for_it() -> None:
    assert table_for([Call("ProfilerStep#1", 0, 100)])["name"].tolist() == ["ProfilerStep#1"]
    alone = table_for([Call("once", 0, 100)], [(5, 5, -1)])
    assert alone["name"].tolist() == [OUTSIDE_STEPS]
    assert alone["gpu_total"].tolist() == [5]


def marked(durations: Sequence[int]) -> list[Call]:
    return [Call(f"ProfilerStep#{n}", 10_000 * n, dur) for n, dur in enumerate(durations)]


@pytest.mark.parametrize(
    ("durations", "is_cold"),
    [
        ([151, 100, 100, 100], True),
        ([150, 100, 100, 100], False),
        ([151, 90, 100, 900], True),
        ([900, 100, 100], False),
        ([900], False),
        ([100, 900, 100, 100], False),
    ],
    ids=["above", "at", "median", "two peers", "alone", "second"],
)
def test_the_first_step_is_cold_where_it_stands_out(durations: list[int], is_cold: bool) -> None:
    assert (COLD_FACTOR, COLD_PEERS) == (1.5, 3)
    table = table_for(marked(durations))
    assert table["is_cold"].tolist() == [is_cold, *[False] * (len(durations) - 1)]


def test_a_prefill_is_not_cold_for_being_longer_than_a_decode() -> None:
    lookups = [(0, "[[9, 9], [2, 64]]"), *((10_000 * n, "[[9, 9], [2, 1]]") for n in (1, 2, 3, 4))]
    table = table_for(marked([900, 100, 100, 100, 100]), lookups=embeddings(lookups))
    assert table["stage"].tolist() == ["prefill", *["decode"] * 4]
    assert not table["is_cold"].any()


@pytest.mark.parametrize(
    ("dims", "stage"),
    [
        ("[[512, 128], [2, 1], []]", "decode"),
        ("[[512, 128], [2, 64], []]", "prefill"),
        ("[[512, 128], [1, 1]]", "decode"),
        ("[[512, 128], [64]]", ""),
        ("[[512, 128], []]", ""),
        ("[[512, 128]]", ""),
        ("[[512, 128], 7]", ""),
        ("{}", ""),
        ("null", ""),
        ("not json", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_the_stage_by_the_shape_of_the_tokens(dims: str | None, stage: str) -> None:
    table = table_for(marked([100]), lookups=embeddings([(5, dims), (6, "[[1], [2, 9]]")]))
    # The first lookup of a step tells, also where it tells nothing.
    assert table["stage"].tolist() == [stage]


def test_labels_tell_the_stage_before_shapes_do() -> None:
    calls = [*marked([100, 100, 100]), Call("step[DECODE bs=1]", 10, 5, 0)]
    calls += [Call("step[DECODE bs=1]", 10_010, 5, 1), Call("step[EXTEND bs=1]", 10_020, 5, 1)]
    lookups = embeddings([(0, "[[9], [2, 64]]"), (20_000, "[[9], [2, 64]]")])
    assert table_for(calls, lookups=lookups)["stage"].tolist() == ["decode", "mixed", "prefill"]


# Choosing ----------------------------------------------------------------------------------------


def numbered(*numbers: int) -> Steps:
    starts = ints([100 * place for place in range(len(numbers))])
    return Steps(
        ints(numbers), np.arange(len(numbers)), starts, starts + 50, "for a test", ints([])
    )


@pytest.mark.parametrize(
    ("wanted", "skip_first", "expected"),
    [
        (None, False, [5, 6, 7, 8]),
        (None, True, [6, 7, 8]),
        ("6:8", False, [6, 7]),
        ("6:", False, [6, 7, 8]),
        (":7", False, [5, 6]),
        (":", False, [5, 6, 7, 8]),
        ("7", False, [7]),
        ("-1", False, [8]),
        ("-2:", False, [7, 8]),
        (":-1", False, [5, 6, 7]),
        ("-3:-1", False, [6, 7]),
        (" 6 : 8 ", False, [6, 7]),
        ("0:100", False, [5, 6, 7, 8]),
        ("5:7", True, [6]),
    ],
)
def test_steps_by_number(wanted: str | None, skip_first: bool, expected: list[int]) -> None:
    steps = numbered(5, 6, 7, 8)
    found = choose_steps(steps, wanted, skip_first=skip_first)
    assert found.number.tolist() == expected
    rows = [steps.number.tolist().index(number) for number in expected]
    assert found.start.tolist() == steps.start[rows].tolist()
    assert found.end.tolist() == steps.end[rows].tolist()
    assert found.slice.tolist() == rows


@pytest.mark.parametrize("wanted", ["", "x", "1:2:3", "1-2", "1.5", "--1", "1,2", "6 7"])
def test_what_names_no_steps(wanted: str) -> None:
    with pytest.raises(UsageError, match="names no steps"):
        choose_steps(numbered(5, 6), wanted, skip_first=False)


@pytest.mark.parametrize("wanted", ["9", "7:", "6:6", "6:5", ":5", "-9"])
def test_steps_that_are_not_there(wanted: str) -> None:
    with pytest.raises(UsageError, match="no step is left of the 2") as caught:
        choose_steps(numbered(5, 6), wanted, skip_first=False)
    assert "5 to 6" in str(caught.value.hint)


def test_nothing_is_left_without_the_only_step() -> None:
    with pytest.raises(UsageError, match="no step is left of the 1"):
        choose_steps(numbered(5), None, skip_first=True)
    with pytest.raises(UsageError, match="has no steps"):
        choose_steps(numbered(), None, skip_first=False)


# Windows -----------------------------------------------------------------------------------------

UNITS = {"": 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "µs": 10**3, "μs": 10**3, "ns": 1}


@example(whole=0, digits="000003993", unit="s", start=0, space="")  # 3992 by way of a float
@given(
    whole=st.integers(0, 10**9),
    digits=st.text("0123456789", max_size=12),
    unit=st.sampled_from(sorted(UNITS)),
    start=st.integers(0, 2 * 10**18),
    space=st.sampled_from(["", " "]),
)
def test_times_are_read_exactly(whole: int, digits: str, unit: str, start: int, space: str) -> None:
    """Down to the nanosecond, at any distance from zero; what is less is cut off."""
    text = f"{whole}{'.' if digits else ''}{digits}{space}{unit}"
    value = int(Fraction(f"{whole}.{digits or 0}") * UNITS[unit])
    found = parse_window(f"{text}:", start, start + value + 1)
    assert (int(found.start[0]), int(found.end[0])) == (start + value, start + value + 2)
    if value:
        found = parse_window(f":{text}", start, 0)
        assert (int(found.start[0]), int(found.end[0])) == (start, start + value)


def test_an_open_window_holds_what_starts_at_the_very_end() -> None:
    assert parse_window(":", 10, 20).contain(ints([9, 10, 20, 21])).tolist() == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "text", ["", "1s", "a:b", "1:2:3", "-1s:2s", "1 min:", "1e3:", ".5s:", "1s:2h", "1..2:", "+1:"]
)
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(UsageError, match="no window of time"):
        parse_window(text, 0, 10**10)


@pytest.mark.parametrize("text", ["2s:1s", "1s:1s", "1000ms:1s", ":0"])
def test_windows_without_time(text: str) -> None:
    with pytest.raises(UsageError, match="is empty"):
        parse_window(text, 0, 10**10)


@st.composite
def some_windows(draw: Any) -> Windows:
    edges = sorted(draw(st.sets(st.integers(0, 30), max_size=8)))
    edges = edges[: len(edges) // 2 * 2]
    return Windows(ints(edges[::2]), ints(edges[1::2]))


@given(some_windows(), some_windows())
def test_an_intersection_holds_the_times_of_both(one: Windows, other: Windows) -> None:
    both = intersect(one, other)
    assert both is not None
    times = np.arange(-1, 32)
    assert both.contain(times).tolist() == (one.contain(times) & other.contain(times)).tolist()
    assert bool((both.start < both.end).all())
    assert bool((both.end[:-1] <= both.start[1:]).all())


def test_all_time_is_in_every_window() -> None:
    span = Windows(ints([1]), ints([2]))
    assert intersect(None, None) is None
    assert intersect(span, None) is span
    assert intersect(None, span) is span


def test_steps_and_a_window_together() -> None:
    slices = table_of([Call(f"ProfilerStep#{n}", 100 * n, 80) for n in range(1, 5)])
    steps = find_steps(slices)
    assert choose_windows(steps, slices, None, False, None) is None
    found = choose_windows(steps, slices, "2:4", False, None)
    assert found is not None
    assert (found.start.tolist(), found.end.tolist()) == ([200, 300], [280, 380])
    found = choose_windows(steps, slices, None, True, "150ns:250ns")  # 250 to 350 of the clock
    assert found is not None
    assert (found.start.tolist(), found.end.tolist()) == ([250, 300], [280, 350])
    found = choose_windows(steps, slices, None, False, ":50ns")
    assert found is not None
    assert found.span == (100, 150)
    with pytest.raises(UsageError, match="no time in common"):
        choose_windows(steps, slices, "4", False, ":50ns")


def test_a_window_after_the_trace_is_an_error() -> None:
    slices = table_of([Call("a", 0, 100)])
    steps = find_steps(slices)
    for text in ("1s:2s", "1s:"):
        with pytest.raises(UsageError, match="begins after the trace") as caught:
            choose_windows(steps, slices, None, False, text)
        assert "100" in str(caught.value.hint)


def test_steps_of_several_ranks_are_one_where_they_have_one_number() -> None:
    calls = [
        Call(f"ProfilerStep#{step}", 1000 * step + late, 900)
        for step in (1, 2, 3)
        for late in (0, 7)
    ]
    found = find_steps(table_of(sorted(calls, key=lambda call: call.ts)))
    assert found.number.tolist() == [1, 2, 3]
    assert found.start.tolist() == [1000, 2000, 3000]
    assert found.end.tolist() == [1907, 2907, 3907]


def test_calls_at_the_same_time_are_one_step() -> None:
    calls = [Call("nn.Module: M_0", ts, 50, -1, "python_function") for ts in (0, 10, 100, 110)]
    found = find_steps(table_of(calls))
    assert found.number.tolist() == [0, 1]
    assert list(zip(found.start.tolist(), found.end.tolist(), strict=True)) == [(0, 60), (100, 160)]
    assert found.source == "found from the 4 calls of nn.Module: M_0"
