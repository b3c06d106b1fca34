"""Every nanosecond of a device has one state: by eye on tiny spans, by counting on random ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from traceq.timeline import (
    STATES,
    Timeline,
    busy_by_group,
    busy_union,
    is_communication,
    timeline,
)

NCCL = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
COPY = "Memcpy HtoD (Pinned -> Device)"
CATEGORY = {"gemm": "kernel", NCCL: "kernel", COPY: "gpu_memcpy", "Memset (Device)": "gpu_memset"}

BUSY = STATES[:4]
CAUSES = STATES[4:7]
UNKNOWN, BEFORE, AFTER = STATES[7:]


class Activity(NamedTuple):
    """One row of the activities, with its end in place of its duration."""

    ts: int
    end: int
    name: str = "gemm"
    launch: int | None = None
    stream: int = 7
    device: int = 0


Waits = list[tuple[int, int]]


def activity_frame(activities: list[Activity]) -> pd.DataFrame:
    columns = ("ts", "dur", "name", "category", "device", "stream", "launch_ts")
    rows = [
        (a.ts, a.end - a.ts, a.name, CATEGORY[a.name], a.device, a.stream, a.launch)
        for a in activities
    ]
    types = {"ts": "int64", "dur": "int64", "device": "int64", "stream": "int64"}
    return pd.DataFrame(rows, columns=list(columns)).astype(types | {"launch_ts": "Int64"})


def wait_frame(waits: Waits) -> pd.DataFrame:
    rows = [(ts, end - ts) for ts, end in waits]
    return pd.DataFrame(rows, columns=["ts", "dur"]).astype("int64")


def told(
    activities: list[Activity], waits: Waits | None = None, start: int = 0, end: int = 100
) -> Timeline:
    return timeline(activity_frame(activities), wait_frame(waits or []), start, end)


def times(result: Timeline, device: int = 0) -> dict[str, int]:
    """The states of a device that take any time."""
    rows = result.states[(result.states["device"] == device) & (result.states["time"] > 0)]
    return dict(zip(rows["state"], rows["time"].tolist(), strict=True))


def rows(table: pd.DataFrame) -> list[tuple[object, ...]]:
    return list(table.itertuples(index=False, name=None))


# Busy states ----------------------------------------------------------------------------------


def test_kernels_that_overlap_count_once() -> None:
    result = told([Activity(0, 60), Activity(40, 100)])
    assert times(result) == {"compute": 100}


def test_communication_alone_and_under_compute() -> None:
    result = told([Activity(0, 60), Activity(40, 100, NCCL, stream=8)])
    assert times(result) == {"compute": 40, "overlap": 20, "communication": 40}


def test_a_copy_shows_only_where_no_kernel_runs() -> None:
    result = told(
        [
            Activity(0, 50, COPY),
            Activity(20, 30),
            Activity(30, 40, NCCL),
            Activity(50, 100, "Memset (Device)"),
        ]
    )
    assert times(result) == {"compute": 10, "communication": 10, "copy": 80}


def test_everything_is_clipped_to_the_span() -> None:
    result = told([Activity(0, 30), Activity(70, 200)], start=10, end=90)
    assert times(result) == {"compute": 40, UNKNOWN: 40}
    assert result.streams["total"].tolist() == [40]


# Idle states ----------------------------------------------------------------------------------


def test_idle_while_something_launched_has_not_started() -> None:
    result = told([Activity(0, 20, launch=-5), Activity(80, 100, launch=50)])
    assert times(result) == {"compute": 40, "idle: CPU": 30, "idle: work pending": 30}


def test_idle_while_the_cpu_waits_with_nothing_pending() -> None:
    waits = [(10, 40), (30, 35), (60, 90)]
    result = told([Activity(0, 20, launch=-5), Activity(80, 100, launch=50)], waits)
    idle = {"idle: sync": 20, "idle: CPU": 10, "idle: work pending": 30}
    assert times(result) == {"compute": 40} | idle


def test_what_starts_after_the_span_can_be_pending_in_it() -> None:
    late = Activity(500, 510, launch=30, stream=8)
    result = told([Activity(0, 20, launch=-5), Activity(80, 100, launch=79), late])
    assert times(result) == {"compute": 40, "idle: CPU": 10, "idle: work pending": 50}
    assert result.streams["stream"].tolist() == [7]


def test_the_ends_of_the_span_are_not_blamed_on_a_cause() -> None:
    result = told([Activity(30, 60, launch=10)], [(0, 100)])
    assert times(result) == {"compute": 30, BEFORE: 30, AFTER: 40}
    assert result.gap_count == 0


def test_no_cause_is_guessed_without_launches() -> None:
    result = told([Activity(0, 20), Activity(80, 100)], [(20, 80)])
    assert times(result) == {"compute": 40, UNKNOWN: 60}


def test_some_known_launches_are_enough_for_a_cause() -> None:
    result = told([Activity(0, 20), Activity(80, 100, launch=70)])
    assert times(result) == {"compute": 40, "idle: CPU": 50, "idle: work pending": 10}


def test_devices_are_told_apart() -> None:
    result = told(
        [
            Activity(0, 20, launch=0),
            Activity(30, 100, launch=25, device=1),
            Activity(80, 100, launch=70),
        ]
    )
    assert times(result) == {"compute": 40, "idle: CPU": 50, "idle: work pending": 10}
    assert times(result, device=1) == {"compute": 70, BEFORE: 30}
    assert result.busy_share.to_dict() == {0: 0.4, 1: 0.7}


def test_a_device_without_activity_in_the_span() -> None:
    result = told([Activity(0, 20, launch=0), Activity(200, 210, launch=190)], start=50, end=90)
    assert times(result) == {BEFORE: 40}
    assert result.busy_share.to_dict() == {0: 0.0}
    assert result.streams.empty


@pytest.mark.parametrize(("launch", "causes"), [(0, CAUSES), (None, (UNKNOWN,))])
def test_rows_of_states_are_the_same_whatever_happens(
    launch: int | None, causes: tuple[str, ...]
) -> None:
    result = told([Activity(0, 25, launch=launch)])
    assert result.states["state"].tolist() == [*BUSY, *causes, BEFORE, AFTER]
    share = dict(zip(result.states["state"], result.states["share"], strict=True))
    assert (share["compute"], share["copy"], share[AFTER]) == (0.25, 0.0, 0.75)


# Streams --------------------------------------------------------------------------------------


def test_streams_sum_by_class_and_unite() -> None:
    result = told(
        [
            Activity(0, 20),
            Activity(10, 40),
            Activity(50, 60, COPY),
            Activity(30, 70, NCCL, stream=8),
            Activity(40, 75, NCCL, stream=8),
        ]
    )
    assert result.streams.columns[:5].tolist() == [
        "device",
        "stream",
        "activities",
        "total",
        "busy",
    ]
    assert result.streams.columns[5:].tolist() == ["compute", "communication", "copy", "hidden"]
    assert rows(result.streams) == [
        (0, 7, 3, 60, 50, 50, 0, 10, 0),
        (0, 8, 2, 75, 45, 0, 75, 0, 10),
    ]


def test_compute_of_the_same_stream_hides_no_communication() -> None:
    result = told([Activity(0, 20), Activity(10, 30, NCCL), Activity(15, 25, stream=8)])
    assert result.streams["hidden"].tolist() == [10, 0]


def test_streams_may_be_missing() -> None:
    frame = activity_frame([Activity(0, 20), Activity(30, 40)])
    frame["stream"] = pd.array([None, 7], dtype="Int64")
    result = timeline(frame, wait_frame([]), 0, 100)
    assert result.streams["stream"].tolist() == [-1, 7]


# Gaps -----------------------------------------------------------------------------------------


def test_gaps_name_their_main_cause_and_what_ends_them() -> None:
    result = told(
        [
            Activity(10, 20, launch=0),
            Activity(50, 60, COPY, launch=45),
            Activity(70, 80, launch=62),
            Activity(75, 95, NCCL, launch=62),
        ],
        [(25, 50)],
    )
    assert result.gaps.columns.tolist() == ["device", "ts", "dur", "cause", "next_name"]
    assert rows(result.gaps) == [
        (0, 20, 30, "idle: sync", COPY),
        (0, 60, 10, "idle: work pending", "gemm"),
    ]
    assert (result.gap_count, result.gap_total) == (2, 40)


def test_the_longest_gaps_are_kept_and_all_are_counted() -> None:
    activities = activity_frame([Activity(ts, ts + 1) for ts in (0, 2, 5, 9, 14)])
    result = timeline(activities, wait_frame([]), 0, 20, gap_limit=2)
    assert result.gaps["ts"].tolist() == [10, 6]
    assert (result.gap_count, result.gap_total) == (4, 1 + 2 + 3 + 4)


def test_gaps_of_one_length_are_in_order_of_time_then_device() -> None:
    activities = [Activity(ts, ts + 5, device=device) for device in (1, 0) for ts in (0, 10, 20)]
    result = told(activities)
    assert rows(result.gaps[["ts", "dur", "device"]]) == [
        (5, 5, 0),
        (5, 5, 1),
        (15, 5, 0),
        (15, 5, 1),
    ]


def test_of_activities_that_start_at_once_the_first_row_ends_the_gap() -> None:
    first = [Activity(0, 5), Activity(20, 30, COPY)]
    result = told([*first, *(Activity(20, 30, stream=stream) for stream in range(40))])
    assert result.gaps["next_name"].tolist() == [COPY]


def test_an_activity_without_length_is_counted_and_ends_no_gap() -> None:
    result = told([Activity(0, 0), Activity(10, 10), Activity(30, 40)])
    assert result.streams["activities"].tolist() == [3]
    assert times(result) == {"compute": 10, UNKNOWN: 30, AFTER: 60}
    assert rows(result.gaps) == [(0, 0, 30, UNKNOWN, "gemm")]


# Communication --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        NCCL,
        "ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclWorkElem)",
        "ncclSymkDevKernel_AllReduce_RSxLDMC_AGxSTMC(ncclSymkDevWorkArgs4K)",
        "ncclAllReduceRingLLKernel_sum_f32(ncclColl)",
        "rcclGenericKernel<1, false>(ncclDevKernelArgsStorage<4096ul>)",
        "mscclpp::collective::allreduceAllPairs<__half>(__half*)",
        "nvshmemi_transfer_rma_nbi(void*)",
        "void deep_ep::intranode::dispatch<8, 768, 8192>(int4*, float*)",
        "void sglang::cross_device_reduce_1stage<__nv_bfloat16, 8>(sglang::RankData*)",
        "void vllm::cross_device_reduce_2stage<__half, 2>(vllm::RankData*)",
        "void flashinfer::trtllm_allreduce_fusion::allreduce_fusion_kernel_oneshot_lamport<0>()",
        "void tensorrt_llm::kernels::twoShotAllReduceKernel<__half, 8, true>(AllReduceParams)",
        "void (anonymous namespace)::one_shot_all_reduce_kernel<c10::BFloat16, 16, 8>()",
        "void (anonymous namespace)::multimem_all_gather_kernel<16>(char*)",
    ],
)
def test_communication_kernels(name: str) -> None:
    assert is_communication(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float>>()",
        "small_reduce_kernel",
        "void smallreduce_kernel<float>(float*)",
        "nvjet_tst_128x64_64x13_2x1_v_bz_TNN",
        "void splitKreduce_kernel<32, 16, int, float>()",
        "fused_all_gather_shapes",
    ],
)
def test_other_kernels(name: str) -> None:
    assert not is_communication(name)


def test_a_copy_named_like_a_communication_kernel_is_a_copy() -> None:
    frame = activity_frame([Activity(0, 20, NCCL)])
    frame["category"] = "gpu_memcpy"
    assert times(timeline(frame, wait_frame([]), 0, 20)) == {"copy": 20}


# Against a count of every nanosecond ----------------------------------------------------------


def reference_states(
    activities: list[Activity], waits: Waits, start: int, end: int
) -> dict[int, str]:
    """The state of the one device that these activities are of, at each ns of the span."""
    inside = [a for a in activities if runs_within(a, start, end)]
    first = min((max(a.ts, start) for a in inside), default=end)
    last = max((min(a.end, end) for a in inside), default=end)
    known = any(a.launch is not None for a in activities)
    states = {}
    for now in range(start, end):
        running = [a.name for a in inside if a.ts <= now < a.end]
        pending = any(a.launch is not None and a.launch <= now < a.ts for a in activities)
        if "gemm" in running:
            states[now] = "overlap" if NCCL in running else "compute"
        elif running:
            states[now] = "communication" if NCCL in running else "copy"
        elif now < first:
            states[now] = BEFORE
        elif now >= last:
            states[now] = AFTER
        elif not known:
            states[now] = UNKNOWN
        elif pending:
            states[now] = "idle: work pending"
        else:
            waiting = any(ts <= now < stop for ts, stop in waits)
            states[now] = "idle: sync" if waiting else "idle: CPU"
    return states


def runs_within(a: Activity, start: int, end: int) -> bool:
    if a.ts == a.end:
        return start <= a.ts < end
    return bool(covered([a], start, end))


def covered(activities: Iterable[Activity], start: int, end: int) -> set[int]:
    return {now for a in activities for now in range(max(a.ts, start), min(a.end, end))}


def reference_gaps(
    activities: list[Activity], states: dict[int, str], start: int, end: int
) -> list[tuple[int, int, str, str]]:
    """Start, length, cause and what follows, of each run of idle nanoseconds, in order of time."""
    idle = [now for now, state in states.items() if state in (*CAUSES, UNKNOWN)]
    gaps = []
    for ts in idle:
        if ts - 1 in idle:
            continue
        stop = next(now for now in range(ts, end + 1) if now not in idle)
        count = Counter(states[now] for now in range(ts, stop))
        cause = max(STATES, key=lambda state: count[state])
        inside = (a for a in activities if runs_within(a, start, end))
        gaps.append((ts, stop - ts, cause, next(a.name for a in inside if a.ts == stop)))
    return gaps


def reference_stream(
    stream: int, activities: list[Activity], start: int, end: int
) -> tuple[int, ...]:
    """Activities, total, busy, compute, communication, copy and hidden of a stream."""
    own = [a for a in activities if a.stream == stream and runs_within(a, start, end)]
    length = Counter[str]()
    for a in own:
        length[a.name] += len(covered([a], start, end))
    communication = covered((a for a in own if a.name == NCCL), start, end)
    others = (a for a in activities if a.stream != stream and a.name == "gemm")
    return (
        len(own),
        length.total(),
        len(covered(own, start, end)),
        length["gemm"],
        length[NCCL],
        length[COPY],
        len(communication & covered(others, start, end)),
    )


@st.composite
def an_activity(draw: st.DrawFn) -> Activity:
    ts = draw(st.integers(0, 40))
    launch = draw(st.none() | st.integers(ts - 12, ts + 2))
    return Activity(
        ts,
        ts + draw(st.integers(0, 9)),
        draw(st.sampled_from(["gemm", NCCL, COPY])),
        launch,
        draw(st.sampled_from([7, -1])),
        draw(st.integers(0, 1)),
    )


ACTIVITIES = st.lists(an_activity(), max_size=12)
WAITS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 15)), max_size=4).map(
    lambda waits: [(ts, ts + dur) for ts, dur in waits]
)


@given(
    activities=ACTIVITIES,
    waits=WAITS,
    start=st.integers(0, 20),
    length=st.integers(0, 40),
    base=st.sampled_from([0, 1_768_000_000_000_000_000]),
    gap_limit=st.sampled_from([0, 2, 20]),
    forget=st.booleans(),
)
@example([], [], 0, 0, 0, 20, False)
@example([Activity(0, 30)], [], 10, 0, 0, 20, False)
def test_every_nanosecond_is_as_counted(
    activities: list[Activity],
    waits: Waits,
    start: int,
    length: int,
    base: int,
    gap_limit: int,
    forget: bool,
) -> None:
    if forget:
        activities = [a._replace(launch=None) if a.device else a for a in activities]
    end = start + length
    frame, waiting = activity_frame(activities), wait_frame(waits)
    frame[["ts", "launch_ts"]] += base
    waiting["ts"] += base
    result = timeline(frame, waiting, base + start, base + end, gap_limit=gap_limit)
    gaps, streams = [], []
    devices = sorted({a.device for a in activities})
    assert result.states["device"].unique().tolist() == devices
    for device in devices:
        own = [a for a in activities if a.device == device]
        states = reference_states(own, waits, start, end)
        assert times(result, device) == Counter(states.values())
        gaps += [(device, *gap) for gap in reference_gaps(own, states, start, end)]
        for stream in sorted({a.stream for a in own if runs_within(a, start, end)}):
            streams.append((device, stream, *reference_stream(stream, own, start, end)))
    assert rows(result.streams) == streams
    gaps.sort(key=lambda gap: (-gap[2], gap[1], gap[0]))
    result.gaps["ts"] -= base
    assert rows(result.gaps) == gaps[:gap_limit]
    assert (result.gap_count, result.gap_total) == (len(gaps), sum(gap[2] for gap in gaps))


@given(activities=ACTIVITIES, waits=WAITS, length=st.integers(1, 50))
def test_parts_add_up(activities: list[Activity], waits: Waits, length: int) -> None:
    result = told(activities, waits, 5, 5 + length)
    by_device = result.states.groupby("device")
    assert (by_device["time"].sum() == length).all()
    assert np.allclose(by_device["share"].sum(), 1)
    idle = result.states[result.states["state"].isin((*CAUSES, UNKNOWN))]
    assert idle["time"].sum() == result.gap_total
    busy = result.states[result.states["state"].isin(BUSY)].groupby("device")["share"].sum()
    assert np.allclose(result.busy_share, busy)
    classes = result.streams[["compute", "communication", "copy"]].sum(axis=1)
    assert classes.tolist() == result.streams["total"].tolist()


# Nothing, and what is wrong -------------------------------------------------------------------


def test_nothing_at_all() -> None:
    result = told([], [(10, 20)])
    assert result.states.columns.tolist() == ["device", "state", "time", "share"]
    assert (len(result.states), len(result.streams), len(result.gaps)) == (0, 0, 0)
    assert (result.gap_count, result.gap_total) == (0, 0)
    assert result.busy_share.to_dict() == {}


def test_frames_without_types_may_be_empty() -> None:
    activities = pd.DataFrame(
        columns=["ts", "dur", "name", "category", "device", "stream", "launch_ts"]
    )
    assert timeline(activities, pd.DataFrame(columns=["ts", "dur"]), 0, 9).states.empty


def test_types_do_not_depend_on_the_rows() -> None:
    some, none = told([Activity(0, 10), Activity(20, 30)]), told([])
    for table in ("states", "streams", "gaps"):
        assert getattr(some, table).dtypes.equals(getattr(none, table).dtypes)


def test_an_empty_span_has_no_time() -> None:
    result = told([Activity(0, 30, launch=0)], start=10, end=10)
    assert result.states["time"].tolist() == [0] * 9
    assert result.states["share"].tolist() == [0.0] * 9


def test_a_span_that_ends_before_it_starts() -> None:
    with pytest.raises(ValueError, match="ends at 3, before its start at 4"):
        told([], start=4, end=3)


@pytest.mark.parametrize("category", ["gpu_user_annotation", None])
def test_other_categories_are_refused(category: str | None) -> None:
    frame = activity_frame([Activity(0, 30)])
    frame["category"] = category
    with pytest.raises(ValueError, match="not a category of GPU activities"):
        timeline(frame, wait_frame([]), 0, 10)


# Unions ---------------------------------------------------------------------------------------

GROUPED = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30), st.integers(0, 9)), max_size=20)


@given(intervals=GROUPED, base=st.sampled_from([0, -7, 2**61, 2**62]))
def test_unions_are_sets_of_integers(intervals: list[tuple[int, int, int]], base: int) -> None:
    group, ts, dur = np.array(intervals, np.int64).reshape(-1, 3).T
    within = [{n for g, t, d in intervals if g == own for n in range(t, t + d)} for own in range(6)]
    found = busy_by_group(group, ts + base, ts + base + dur, 6)
    assert found.tolist() == [len(numbers) for numbers in within]
    everything = {n for _, t, d in intervals for n in range(t, t + d)}
    assert busy_union(ts + base, ts + base + dur) == len(everything)


@given(intervals=GROUPED)
def test_unions_over_a_span_too_large_to_shift(intervals: list[tuple[int, int, int]]) -> None:
    far = [*intervals, (0, 2**61, 5), (3, 2**61 + 2, 5), (3, 2**61 + 4, 5)]
    group, ts, dur = np.array(far, np.int64).T
    expected = [
        busy_union(ts[group == own], ts[group == own] + dur[group == own]) for own in range(6)
    ]
    assert busy_by_group(group, ts, ts + dur, 6).tolist() == expected


def test_unions_of_nothing() -> None:
    nothing = np.zeros(0, np.int64)
    assert busy_union(nothing, nothing) == 0
    assert busy_by_group(nothing, nothing, nothing, 3).tolist() == [0, 0, 0]
    assert busy_by_group(nothing, nothing, nothing, 0).tolist() == []


def test_small_types_of_group_numbers() -> None:
    ts = np.array([2**40, 2**40 + 5, 0])
    found = busy_by_group(np.array([200, 200, 3], np.uint8), ts, ts + 10, 201)
    assert (found[200], found[3], found.sum()) == (15, 10, 25)


@pytest.mark.parametrize("number", [-1, 2])
def test_groups_out_of_range(number: int) -> None:
    one = np.ones(1, np.int64)
    with pytest.raises(ValueError, match="groups are numbered"):
        busy_by_group(one * number, one, one, 2)
