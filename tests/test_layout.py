"""Lanes nest, parents are the innermost containers, flows bind as stated: on random intervals."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests import oracle
from tests import tracemaker as tm
from traceq.engine import Engine
from traceq.fxt import encode, slice_ids
from traceq.kineto import read_trace
from traceq.layout import Layout, arrange
from traceq.model import TraceData

Spans = list[tuple[int, int]]

# Starts and lengths from a small range, so that they share ends, are equal or have no length.
SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 14)), min_size=1, max_size=40)

PARENTS = """
SELECT id, ts, dur, name, parent_id, EXTRACT_ARG(arg_set_id, 'traceq.parent') FROM slice ORDER BY id
"""


def load(tmp_path: Path, events: list[tm.Event]) -> tuple[TraceData, Layout]:
    path = tmp_path / "trace.json"
    path.write_bytes(tm.compact(events))
    data = read_trace(path)
    return data, arrange(data)


def spans_as_events(spans: Spans, **fields: Any) -> list[tm.Event]:
    return [
        tm.complete(str(number), tm.microseconds(ts), tm.microseconds(dur), **fields)
        for number, (ts, dur) in enumerate(spans)
    ]


def nested_parents(order: list[int], spans: Spans) -> dict[int, int | None]:
    """What a stack that never looks back makes of slices that nest; fails where they do not."""
    found: dict[int, int | None] = {}
    stack: list[int] = []
    for item in order:
        ts, dur = spans[item]
        while stack and sum(spans[stack[-1]]) <= ts and spans[stack[-1]] != (ts, dur):
            stack.pop()
        while stack and spans[stack[-1]] == (ts, 0) and dur:
            stack.pop()
        if stack:
            assert sum(spans[stack[-1]]) >= ts + dur, "overlap without nesting on one lane"
        found[item] = stack[-1] if stack else None
        stack.append(item)
    return found


def check(data: TraceData, layout: Layout, spans: Spans) -> None:
    """Each lane nests, and parents on the lane or overrides are those of the oracle."""
    order = layout.order.tolist()
    assert sorted(order) == list(range(len(spans)))
    keys = [(spans[item][0], -spans[item][1], item) for item in order]
    assert keys == sorted(keys)
    lanes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for item in order:
        lanes[int(data.slices.track[item]), int(layout.lane[item])].append(item)
    parents: dict[int, int | None] = {}
    for members in lanes.values():
        parents |= nested_parents(members, spans)
    for item, container in layout.parent_override.items():
        assert parents[item] is None, "an override on a slice that has a parent"
        parents[item] = container
    tracks = defaultdict(list)
    for item, track in enumerate(data.slices.track.tolist()):
        tracks[track].append(item)
    for members in tracks.values():
        expected = oracle.parents([oracle.Interval(*spans[item]) for item in members])
        for item, parent in zip(members, expected, strict=True):
            assert parents[item] == (None if parent is None else members[parent]), item


@given(spans=SPANS)
@settings(max_examples=300)
def test_oracle_finds_parents_by_definition(spans: Spans) -> None:
    intervals = [oracle.Interval(*span) for span in spans]
    assert oracle.parents(intervals) == oracle.parents_by_definition(intervals)


@given(spans=SPANS)
@settings(max_examples=600)
@example(spans=[(0, 10), (5, 10)])
@example(spans=[(0, 10), (5, 10), (6, 2), (12, 2)])
@example(spans=[(0, 4), (2, 9), (3, 3), (5, 0), (5, 0)])
@example(spans=[(0, 10), (1, 4), (2, 9), (3, 9), (4, 3)])
def test_lanes_nest_and_parents_are_kept(tmp_path: Path, spans: Spans) -> None:
    check(*load(tmp_path, spans_as_events(spans)), spans)


@given(spans=SPANS, tids=st.lists(st.integers(0, 2), min_size=40, max_size=40))
def test_tracks_do_not_touch_each_other(tmp_path: Path, spans: Spans, tids: list[int]) -> None:
    events = spans_as_events(spans)
    for event, tid in zip(events, tids, strict=False):
        event["tid"] = tid
    check(*load(tmp_path, events), spans)


@given(
    spans=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 90)), min_size=60, max_size=150)
)
@settings(max_examples=40)
def test_long_tracks(tmp_path: Path, spans: Spans) -> None:
    check(*load(tmp_path, spans_as_events(spans)), spans)


def test_nothing_moves_without_an_overlap(tmp_path: Path) -> None:
    spans = [(0, 100), (0, 50), (50, 50), (10, 20), (10, 20), (30, 0), (100, 5)]
    data, layout = load(tmp_path, spans_as_events(spans))
    assert not layout.lane.any()
    assert layout.parent_override == {}
    check(data, layout, spans)


def test_the_ledger_counts_what_was_moved(tmp_path: Path) -> None:
    data, layout = load(tmp_path, spans_as_events([(0, 10), (5, 10), (6, 2), (40, 1)]))
    moved = int(np.count_nonzero(layout.lane))
    assert moved > 0
    assert data.ledger.total.on_overflow_lane == moved


@pytest.mark.parametrize("kind", ["M", "C", "b"])
def test_a_trace_without_slices(tmp_path: Path, engine: Engine, kind: str) -> None:
    event = {
        "M": tm.event("M", name="process_name", args={"name": "python"}),
        "C": tm.event("C", name="memory", ts=1, args={"bytes": 5}),
        "b": tm.event("b", name="request", ts=1, id=1, cat="c"),
    }[kind]
    data, layout = load(tmp_path, [event])
    assert len(layout.order) == 0
    engine.load(encode(data, layout))
    assert engine.health() == []


# Through the engine ----------------------------------------------------------------------------


def engine_parents(engine: Engine, data: TraceData, layout: Layout) -> dict[int, int | None]:
    """Parent of each slice, by index, as the engine and the overrides have it."""
    engine.load(encode(data, layout))
    assert engine.health() == []
    rows = engine.query(PARENTS).rows()
    index = {int(number): item for item, number in enumerate(slice_ids(data, layout))}
    assert sorted(index) == [row[0] for row in rows if row[0] in index]
    found: dict[int, int | None] = {}
    for number, ts, dur, name, parent, override in rows:
        if number not in index:
            continue  # asynchronous
        item = index[number]
        assert (ts, dur) == (data.slices.ts[item], data.slices.dur[item])
        assert name == data.strings[data.slices.name[item]]
        assert parent is None or override is None
        holder = parent if override is None else override
        found[item] = None if holder is None else index[holder]
    return found


@given(sets=st.lists(SPANS, min_size=12, max_size=12))
@settings(max_examples=8)
def test_engine_keeps_every_parent(tmp_path: Path, engine: Engine, sets: list[Spans]) -> None:
    events = [
        event for tid, spans in enumerate(sets) for event in spans_as_events(spans, tid=tid + 10)
    ]
    data, layout = load(tmp_path, events)
    found = engine_parents(engine, data, layout)
    first = 0
    for spans in sets:
        expected = oracle.parents([oracle.Interval(*span) for span in spans])
        for item, parent in enumerate(expected):
            assert found[first + item] == (None if parent is None else first + parent)
        first += len(spans)


def deep(levels: int) -> Spans:
    return [(level, 4 * levels - 2 * level) for level in range(levels)]


@pytest.mark.parametrize("levels", [511, 512, 513, 514, 1300])
def test_deep_nesting(tmp_path: Path, engine: Engine, levels: int) -> None:
    spans = [*deep(levels), (levels, 3), (levels + 1, 1)]
    data, layout = load(tmp_path, spans_as_events(spans, args={"correlation": 7}))
    found = engine_parents(engine, data, layout)
    assert found == {item: (item - 1 if item else None) for item in range(len(spans))}
    [(kept,)] = engine.query(
        "SELECT COUNT(*) FROM slice WHERE EXTRACT_ARG(arg_set_id, 'args.correlation') = 7"
    ).rows()
    assert kept == len(spans)


@pytest.mark.parametrize("levels", [510, 511, 512, 513])
@pytest.mark.parametrize("leaf", ["X", "i"])
def test_deep_nesting_of_slices_without_length(
    tmp_path: Path, engine: Engine, levels: int, leaf: str
) -> None:
    events = spans_as_events(deep(levels))
    if leaf == "X":
        events.append(tm.complete("leaf", levels / 1000, 0, args={"correlation": 7}))
    else:
        events.append(tm.event("i", name="leaf", ts=levels / 1000, args={"correlation": 7}))
    data, layout = load(tmp_path, events)
    found = engine_parents(engine, data, layout)
    assert found == {item: (item - 1 if item else None) for item in range(len(events))}
    [(kept,)] = engine.query(
        "SELECT COUNT(*) FROM slice WHERE EXTRACT_ARG(arg_set_id, 'args.correlation') = 7"
    ).rows()
    assert kept == 1


@pytest.mark.parametrize("count", [500, 700])
def test_many_slices_without_length_at_one_time(tmp_path: Path, engine: Engine, count: int) -> None:
    events = [tm.complete(str(n), 5, 0, args={"correlation": n}) for n in range(count)]
    data, layout = load(tmp_path, events)
    engine.load(encode(data, layout))
    [(kept,)] = engine.query(
        "SELECT COUNT(DISTINCT EXTRACT_ARG(arg_set_id, 'args.correlation')) FROM slice"
    ).rows()
    assert kept == count


def test_deep_and_overlapping(tmp_path: Path, engine: Engine) -> None:
    levels = 600
    spans = [*deep(levels), *((levels + 2 * n, 3) for n in range(50))]
    data, layout = load(tmp_path, spans_as_events(spans))
    expected = oracle.parents([oracle.Interval(*span) for span in spans])
    assert engine_parents(engine, data, layout) == dict(enumerate(expected))


# Flows -----------------------------------------------------------------------------------------


def arrow(number: int, out: float, into: float, *, bp: str | None = "e", **more: Any) -> Any:
    start = tm.event("s", name="ac2g", cat="ac2g", id=number, ts=out)
    end = tm.event("f", name="ac2g", cat="ac2g", id=number, ts=into, pid=0, tid=7)
    if bp:
        end["bp"] = bp
    return [start, end | more]


def bound(tmp_path: Path, engine: Engine, events: list[tm.Event]) -> list[tuple[str, str]]:
    """Names of the slices that the engine's arrows join; the layout must say the same."""
    data, layout = load(tmp_path, events)
    engine.load(encode(data, layout))
    assert engine.health() == []
    rows = engine.query(
        "SELECT a.name, b.name FROM flow JOIN slice a ON a.id = slice_out "
        "JOIN slice b ON b.id = slice_in ORDER BY flow.id"
    ).rows()
    text = [data.strings[name] for name in data.slices.name.tolist()]
    stated = [
        (text[a], text[b])
        for a, b in zip(layout.flow_source.tolist(), layout.flow_sink.tolist(), strict=True)
    ]
    assert Counter(rows) == Counter(stated)
    ends = sum(tally.loaded for phase, _, tally in data.ledger.rows() if phase in ("t", "f"))
    assert len(rows) == ends
    for _, _, tally in data.ledger.rows():
        assert tally.read == tally.loaded + tally.not_carried + tally.unreadable
    return rows


GPU: dict[str, Any] = {"pid": 0, "tid": 7, "cat": "kernel"}


def test_flows_bind_to_the_enclosing_slice(tmp_path: Path, engine: Engine) -> None:
    events = [
        tm.complete("op", 0, 100),
        tm.complete("launch", 10, 10),
        tm.complete("after", 30, 10),
        tm.complete("kernel", 50, 10, **GPU),
        tm.complete("kernel2", 70, 10, **GPU),
        *arrow(1, 10, 50),  # at the starts
        *arrow(2, 15, 75),  # inside
        *arrow(3, 25, 70),  # between children: the op itself
    ]
    expected = [("launch", "kernel"), ("launch", "kernel2"), ("op", "kernel2")]
    assert Counter(bound(tmp_path, engine, events)) == Counter(expected)


def test_flow_ends_without_bp_bind_to_the_next_slice(tmp_path: Path, engine: Engine) -> None:
    events = [
        tm.complete("launch", 10, 10),
        tm.complete("before", 40, 20, **GPU),
        tm.complete("next", 70, 10, **GPU),
        *arrow(1, 12, 45, bp=None),
    ]
    assert bound(tmp_path, engine, events) == [("launch", "next")]


def test_one_start_with_several_ends_and_steps(tmp_path: Path, engine: Engine) -> None:
    start, end = arrow(1, 12, 50)
    events = [
        tm.complete("launch", 10, 10),
        tm.complete("k1", 50, 10, **GPU),
        tm.complete("k2", 70, 10, **GPU),
        tm.complete("k3", 90, 10, **GPU),
        start,
        end,
        end | {"ts": 70},
        end | {"ts": 90},
    ]
    found = Counter(bound(tmp_path, engine, events))
    assert found == Counter([("launch", "k1"), ("launch", "k2"), ("launch", "k3")])
    events[5]["ph"] = events[6]["ph"] = "t"
    found = Counter(bound(tmp_path, engine, events))
    assert found == Counter([("launch", "k1"), ("k1", "k2"), ("k2", "k3")])


def test_loose_ends_are_counted(tmp_path: Path, engine: Engine) -> None:
    events = [
        tm.complete("launch", 10, 10),
        tm.complete("kernel", 50, 10, **GPU),
        arrow(1, 12, 50)[0],  # no end
        arrow(2, 12, 50)[1],  # no start
        *arrow(3, 40, 50),  # start in no slice
        *arrow(4, 12, 45),  # end in no slice
        *arrow(5, 12, 55),
    ]
    assert bound(tmp_path, engine, events) == [("launch", "kernel")]


def test_a_flow_inside_a_slice_with_very_many_children(tmp_path: Path, engine: Engine) -> None:
    events = [
        tm.complete("step", 0, 100_000),
        *(tm.complete("child", 10 * n, 5) for n in range(6000)),
        tm.complete("kernel", 90_000, 10, **GPU),
        *arrow(1, 80_000, 90_000),
    ]
    assert bound(tmp_path, engine, events) == [("step", "kernel")]


def test_flow_ids_are_told_apart_by_category_and_name(tmp_path: Path, engine: Engine) -> None:
    other = [event | {"cat": "fwdbwd", "name": "fwdbwd"} for event in arrow(1, 30, 70)]
    events = [
        tm.complete("a", 10, 10),
        tm.complete("b", 30, 10),
        tm.complete("k1", 50, 10, **GPU),
        tm.complete("k2", 70, 10, **GPU),
        *arrow(1, 12, 50),
        *other,
    ]
    assert Counter(bound(tmp_path, engine, events)) == Counter([("a", "k1"), ("b", "k2")])


def test_flows_follow_slices_to_other_lanes(tmp_path: Path, engine: Engine) -> None:
    events = [
        tm.complete("launch1", 0, 5),
        tm.complete("launch2", 10, 5),
        tm.complete("long", 50, 20, **GPU),
        tm.complete("late", 65, 20, **GPU),
        *arrow(1, 0, 50),
        *arrow(2, 10, 65),
    ]
    expected = [("launch1", "long"), ("launch2", "late")]
    assert Counter(bound(tmp_path, engine, events)) == Counter(expected)


@given(spans=SPANS, arrows=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=8))
@settings(max_examples=25)
def test_flows_at_starts_bind_to_the_slice_that_starts(
    tmp_path: Path, engine: Engine, spans: Spans, arrows: list[tuple[int, int]]
) -> None:
    # Distinct starts on two tracks, so that there is one right answer; spans may still overlap.
    spans = [(100 * n + ts % 7, 50 + 13 * dur) for n, (ts, dur) in enumerate(spans)]
    events = [event | {"tid": 2 + n % 2} for n, event in enumerate(spans_as_events(spans))]
    expected: Counter[tuple[str, str]] = Counter()
    for number, (a, b) in enumerate(arrows):
        out, into = sorted((a % len(spans), b % len(spans)))
        if out == into:
            continue
        start, end = arrow(number, spans[out][0] / 1000, spans[into][0] / 1000)
        events += [start | {"tid": 2 + out % 2}, end | {"pid": 1, "tid": 2 + into % 2}]
        expected[str(out), str(into)] += 1
    assert Counter(bound(tmp_path, engine, events)) == expected
