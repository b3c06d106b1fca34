"""The reader: every way in, every broken state, exact times, and a ledger that adds up."""

from __future__ import annotations

import io
import json
import os
import random
import sys
import zlib
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracle
from tests import tracemaker as tm
from traceq.errors import TraceReadError
from traceq.kineto import read_trace, scan, source
from traceq.layout import arrange
from traceq.model import TraceData

EVENTS = [
    tm.complete("aten::mul", 10.5, 4.25, args={"External id": 3, "Input Dims": [[2, 3], []]}),
    tm.complete("größe 漢字 🙂", 11, 0.001, cat="user_annotation"),
    tm.event("i", name="mark", s="t", ts=12.001),
    tm.complete("kernel", 20.001, 3, pid=0, tid=7, cat="kernel", args={"correlation": 9}),
    tm.event("s", name="ac2g", cat="ac2g", id=9, ts=10.5),
    tm.event("f", name="ac2g", cat="ac2g", id=9, ts=20.001, bp="e", pid=0, tid=7),
    tm.event("M", name="process_name", args={"name": "python"}),
]
META = {"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": "H200"}, {"id": 1}]}


def read(tmp_path: Path, raw: bytes, name: str = "trace.json", **options: Any) -> TraceData:
    path = tmp_path / name
    path.write_bytes(raw)
    return read_trace(path, **options)


def plain(data: TraceData) -> dict[str, Any]:
    """A trace with all numbers of strings and tracks looked up."""
    slices, text = data.slices, data.strings
    args: dict[int, dict[str, Any]] = {}
    for column in slices.args:
        for row, value in zip(column.row.tolist(), column.value.tolist(), strict=True):
            args.setdefault(row, {})[column.key] = _plain_value(column.kind, value, text)
    return {
        "slices": [
            (
                *(data.tracks[slices.track[i]], text[slices.name[i]]),
                text[slices.category[i]] if slices.category[i] >= 0 else None,
                *(int(slices.ts[i]), int(slices.dur[i]), bool(slices.instant[i])),
                args.get(i, {}),
            )
            for i in range(len(slices))
        ],
        "flows": [
            (int(ts), data.tracks[track], int(role), bool(binds_next), int(key))
            for ts, track, role, binds_next, key in zip(
                *(data.flows.ts, data.flows.track, data.flows.role, data.flows.binds_next),
                data.flows.key,
                strict=True,
            )
        ],
        "counters": [(c.ts, data.tracks[c.track], *c[2:]) for c in data.counters],
        "asyncs": [(a.ts, data.tracks[a.track], *a[2:]) for a in data.asyncs],
        "names": (data.process_names, data.thread_names, data.labels),
        "metadata": data.metadata,
        "ledger": data.ledger.as_dict(),
    }


def _plain_value(kind: str, value: Any, strings: list[str]) -> Any:
    """An argument's value; JSON texts without optional space, so that styles can be compared."""
    if kind == "bool":
        return bool(value)
    if kind != "string":
        return value
    text = strings[value]
    if text[:1] not in ("[", "{"):
        return text
    try:
        return json.dumps(json.loads(text), separators=(",", ":"))
    except ValueError:
        return text


def times(data: TraceData) -> dict[str, tuple[int, int]]:
    """Start and duration in ns of each slice, by name."""
    names = (data.strings[name] for name in data.slices.name.tolist())
    pairs = zip(data.slices.ts.tolist(), data.slices.dur.tolist(), strict=True)
    return dict(zip(names, pairs, strict=True))


def names(data: TraceData) -> list[str]:
    return [data.strings[name] for name in data.slices.name.tolist()]


def args_of(data: TraceData, name: str) -> dict[str, Any]:
    [found] = [item[-1] for item in plain(data)["slices"] if item[1] == name]
    return found


def conserved(data: TraceData) -> None:
    for phase, category, tally in data.ledger.rows():
        where = (phase, category, tally)
        assert tally.read == tally.loaded + tally.not_carried + tally.unreadable, where
        assert min(tally.loaded, tally.not_carried, tally.unreadable) >= 0, where


# Ways in -------------------------------------------------------------------------------------

PACKED = {
    "trace.json": lambda text: text,
    "trace.json.gz": tm.gz,
    "members.json.gz": lambda text: tm.gz(text, members=5),
    "padded.json.gz": lambda text: tm.gz(text) + b"\0" * 512,
    "trace.json.zst": tm.zst,
    "frames.json.zst": lambda text: tm.zst(text[:100]) + tm.zst(text[100:]),
    "trace.zip": tm.zipped,
    "misnamed.txt": tm.gz,
}


@pytest.mark.parametrize("name", PACKED)
def test_every_packing_reads_the_same(tmp_path: Path, name: str) -> None:
    text = tm.spaced(EVENTS, before=META)
    expected = plain(read(tmp_path, text))
    assert plain(read(tmp_path, PACKED[name](text), name)) == expected
    assert expected["ledger"]["notes"] == []
    assert expected["ledger"]["total"]["read"] == len(EVENTS)


@pytest.mark.parametrize("name", PACKED)
def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text = tm.spaced(EVENTS, before=META)
    path = tmp_path / name
    path.write_bytes(PACKED[name](text))
    with path.open("rb") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        data = read_trace("-")
        assert not stdin.closed
    assert plain(data) == plain(read(tmp_path, text))


@pytest.mark.parametrize("name", PACKED)
def test_a_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    text = tm.spaced(EVENTS, before=META)
    out, into = os.pipe()
    os.write(into, PACKED[name](text))  # small enough for the pipe's buffer
    os.close(into)
    with open(out, "rb") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert plain(read_trace("-")) == plain(read(tmp_path, text))


def test_standard_input_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    text = tm.compact(EVENTS)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert len(read_trace("-").slices) == 4


@pytest.mark.parametrize("size", [8 << 20, (8 << 20) - 1, (8 << 20) + 1, (16 << 20) + 3])
def test_highly_packed_gzip_is_inflated_whole(tmp_path: Path, size: int) -> None:
    text = tm.compact(EVENTS)
    for extra in (0, 100, 258):
        padded = text + b" " * (size + extra - len(text))
        data = read(tmp_path, tm.gz(padded))
        assert data.ledger.notes == []
        assert data.ledger.total.read == len(EVENTS)


STYLES = {
    "before": tm.spaced(EVENTS, before=META),
    "after": tm.spaced(EVENTS, after=META),
    "both": tm.spaced(
        EVENTS, before={"schemaVersion": 1}, after={"deviceProperties": META["deviceProperties"]}
    ),
    "one line": tm.compact(EVENTS, **META),
    "byte order mark": b"\xef\xbb\xbf" + tm.compact(EVENTS, **META),
    "leading space": b" \n" * 5000 + tm.compact(EVENTS, **META),
    "crlf": tm.spaced(EVENTS, before=META).replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_reads_the_same(tmp_path: Path, style: str) -> None:
    data = plain(read(tmp_path, STYLES[style]))
    assert data["metadata"] == META
    assert data["ledger"]["notes"] == []
    assert data == plain(read(tmp_path, tm.compact(EVENTS, **META)))


@pytest.mark.parametrize("ending", ["]", "]\n", "\n,]", ""])
def test_bare_array(tmp_path: Path, ending: str) -> None:
    text = "[" + ",\n".join(json.dumps(item) for item in EVENTS) + ending
    data = read(tmp_path, text.encode())
    whole = plain(read(tmp_path, tm.compact(EVENTS)))
    assert plain(data)["slices"] == whole["slices"]
    assert data.ledger.total.read == len(EVENTS)
    assert data.ledger.total.unreadable == 0
    assert data.metadata == {}


def test_the_key_inside_other_metadata(tmp_path: Path) -> None:
    before = {"config": {"note": '"traceEvents": [', "traceEvents": [1, 2]}, "n": 1}
    data = read(tmp_path, tm.spaced(EVENTS, before=before))
    assert data.ledger.total.read == len(EVENTS)
    assert data.ledger.notes == []


def test_columns_say_what_the_events_say(tmp_path: Path) -> None:
    data = plain(read(tmp_path, tm.spaced(EVENTS)))
    assert data["slices"] == [
        (
            *((1, 2), "aten::mul", "cpu_op", 10_500, 4_250, False),
            {"args.External id": 3, "args.Input Dims": "[[2,3],[]]"},
        ),
        ((1, 2), "größe 漢字 🙂", "user_annotation", 11_000, 1, False, {}),
        ((1, 2), "mark", None, 12_001, 0, True, {}),
        ((0, 7), "kernel", "kernel", 20_001, 3_000, False, {"args.correlation": 9}),
    ]
    assert [flow[:4] for flow in data["flows"]] == [
        (10_500, (1, 2), 0, False),
        (20_001, (0, 7), 2, False),
    ]
    assert data["names"][0] == {1: "python"}


# Ids, pairs, values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pid", [0, -1, -(2**31), 2**31, 2**32 + 7, 2**53 + 1, 2**63 - 1, 2**64, 10**30, "Spans", "7"]
)
def test_ids_are_kept_apart(tmp_path: Path, pid: Any) -> None:
    events = [
        tm.complete("a", 1, 1, pid=pid, tid=7),
        tm.complete("b", 1, 1, pid=7, tid=pid),
        tm.complete("c", 1, 1, pid=7, tid=7),
    ]
    data = plain(read(tmp_path, tm.compact(events)))
    assert [item[0] for item in data["slices"]] == [(pid, 7), (7, pid), (7, 7)]


def test_begin_and_end_become_slices(tmp_path: Path) -> None:
    events = [
        tm.event("B", name="outer", cat="c", ts=1),
        tm.event("B", name="inner", cat="c", ts=2, tid=3),
        tm.event("B", name="inner", cat="c", ts=3),
        tm.event("E", name="inner", cat="c", ts=4.5),
        tm.event("E", cat="c", ts=6),
        tm.event("E", name="inner", cat="c", ts=9, tid=3),
        tm.event("E", name="stray", cat="c", ts=9, tid=4),
        tm.event("B", name="open", cat="c", ts=7),
        tm.complete("x", 20, 1),
    ]
    data = read(tmp_path, tm.compact(events))
    found = Counter((item[0].tid, item[1], item[3], item[4]) for item in plain(data)["slices"])
    assert found[2, "outer", 1_000, 5_000] == 1
    assert found[2, "inner", 3_000, 1_500] == 1
    assert found[3, "inner", 2_000, 7_000] == 1
    assert sum(count for (_, name, *_), count in found.items() if name == "open") == 1
    conserved(data)
    assert data.ledger.tallies["E", "c"].not_carried == 1
    assert data.ledger.tallies["B", "c"].clamped == 1
    assert data.ledger.tallies["B", "c"].loaded == 4


ODD_ARGS = {
    "nan": ('{"correlation": 5, "x": NaN, "y": Infinity, "z": -Infinity}', 5),
    "huge int": ('{"correlation": 5, "x": 123456789012345678901234567890}', 5),
    "huge float": ('{"correlation": 5, "x": 1e999}', 5),
    "control": ('{"correlation": 5, "x": "a\tb\x01c"}', 5),
    "comment": ('{"correlation": 5, /* was "6" */ "x": 1 // done\n}', 5),
    "nested": ('{"x": [{"name": "a"}, {"name": "b"}], "correlation": 5}', 5),
    "looks like an end": ('{"x": "}, {", "y": "}]", "correlation": 5}', 5),
    "surrogate": ('{"x": "\\ud83d\\ude42 \\ud800", "correlation": 5}', 5),
    "null": ('{"correlation": null, "x": null}', None),
    "empty": ("{}", None),
    "list": ("[1, 2]", None),
    "string": ('"text"', None),
    "null args": ("null", None),
}


@pytest.mark.parametrize("selection", ["default", "all"])
@pytest.mark.parametrize("kind", ODD_ARGS)
def test_odd_arguments_cost_nothing_else(tmp_path: Path, kind: str, selection: Any) -> None:
    text, correlation = ODD_ARGS[kind]
    good = json.dumps(tm.complete("good", 1, 1, args={"correlation": 1}))
    odd = '{"ph": "X", "name": "odd", "pid": 1, "tid": 2, "ts": 2.5, "dur": 0.5, "args": %s}'
    later = json.dumps(tm.complete("later", 9, 1, args={"correlation": 2}))
    data = read(tmp_path, tm.with_events_text([good, odd % text, later]), args=selection)
    assert names(data) == ["good", "odd", "later"]
    assert times(data)["odd"] == (2_500, 500)
    assert data.ledger.total.unreadable == 0
    assert args_of(data, "odd").get("args.correlation") == correlation
    assert args_of(data, "good")["args.correlation"] == 1
    assert args_of(data, "later")["args.correlation"] == 2


def test_bad_utf8_is_replaced(tmp_path: Path) -> None:
    raw = tm.with_events_text([json.dumps(tm.complete("NAME", 1, 2)), '{"ph": "X"}'])
    data = read(tmp_path, raw.replace(b"NAME", b"a\xff\xfeb"))
    assert names(data) == ["a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b"]


def test_control_characters_in_names_are_kept(tmp_path: Path) -> None:
    raw = tm.with_events_text([json.dumps(tm.complete("NAME", 1, 2))])
    data = read(tmp_path, raw.replace(b"NAME", b"a\tb\nc\x01"))
    assert names(data) == ["a\tb\nc\x01"]


def test_comments_between_keys(tmp_path: Path) -> None:
    events = [
        '{"ph": "X", /* {"ph": "X"} */ "name": "a // b", "pid": 1, "tid": 2, "ts": 1, "dur": 1}',
        '{"ph": "X", "name": "c /* d */", "pid": 1, // the pid, {\n "tid": 2, "ts": 3, "dur": 1}',
    ]
    data = read(tmp_path, tm.with_events_text(events))
    assert names(data) == ["a // b", "c /* d */"]
    assert data.ledger.total.unreadable == 0


def test_quoted_numbers(tmp_path: Path) -> None:
    event = {"ph": "X", "name": "q", "pid": "1", "tid": 2, "ts": "1712195496004644.2", "dur": "2.5"}
    assert times(read(tmp_path, tm.compact([event])))["q"] == (1_712_195_496_004_644_200, 2_500)


@pytest.mark.parametrize("missing", ["ts", "dur", "ph", "name", "pid", "tid", "cat"])
@pytest.mark.parametrize("null", [False, True])
def test_missing_fields(tmp_path: Path, missing: str, null: bool) -> None:
    event = tm.complete("bare", 5, 1)
    event[missing] = None
    if not null:
        del event[missing]
    data = read(tmp_path, tm.compact([tm.complete("good", 1, 1), event]))
    conserved(data)
    assert data.ledger.total.read == 2
    carried = missing not in ("ts", "dur", "ph")
    assert len(data.slices) == 1 + carried
    assert data.ledger.total.not_carried + data.ledger.total.unreadable == (not carried)
    if missing == "name":
        assert names(data) == ["good", "[No name]"]
    if missing == "cat":
        assert plain(data)["slices"][1][2] is None


@pytest.mark.parametrize(
    ("event", "clamped"),
    [
        (tm.complete("x", -1, 1), False),
        (tm.complete("x", 1, -1), True),
        (tm.complete("x", 10**16, 1), False),
        (tm.complete("x", 9_223_372_036_854_775, 1), False),
        (tm.complete("x", 1, 10**17), False),
        (tm.event("i", name="x", ts=-1), False),
        (tm.event("i", name="x"), False),
        (tm.event("s", name="x", id=1, ts=-1), False),
        (tm.event("B", name="x", ts=10**17), False),
        (tm.event("C", name="x", ts=-1, args={"a": 1}), False),
        (tm.event("C", name="x", ts=1, args={"a": "text"}), False),
        (tm.event("b", name="x", ts=1), False),
        (tm.event("s", name="x", ts=1), False),
        (tm.event("Q", name="x", ts=1), False),
        (tm.event("", name="x", ts=1), False),
    ],
)
def test_what_has_no_place_is_counted(tmp_path: Path, event: tm.Event, clamped: bool) -> None:
    data = read(tmp_path, tm.compact([tm.complete("good", 1, 1), event]))
    arrange(data)
    conserved(data)
    total = data.ledger.total
    assert (total.read, total.not_carried, total.clamped) == (2, not clamped, clamped)
    assert len(data.slices) == 1 + clamped


@pytest.mark.parametrize("value", ["1e400", "18446744073709551616", "1" + "0" * 400, "NaN", "true"])
def test_counter_with_an_odd_value(tmp_path: Path, value: str) -> None:
    counter = '{"ph": "C", "name": "c", "pid": 1, "tid": 2, "ts": 1, "args": {"a": %s, "b": 3}}'
    good = json.dumps(tm.complete("good", 1, 1))
    data = read(tmp_path, tm.with_events_text([good, counter % value]))
    conserved(data)
    assert ("b", 3) in [(sample.key, sample.value) for sample in data.counters]


# Exact times -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        ("1712195496004644.2", 1_712_195_496_004_644_200),
        ("1712195496004644.237", 1_712_195_496_004_644_237),
        ("4477539678075.509", 4_477_539_678_075_509),
        ("8796093022207.999", 8_796_093_022_207_999),
        ("8796093022208.001", 8_796_093_022_208_001),
        ("8796093022208", 8_796_093_022_208_000),
        ("9223372036854774.807", 9_223_372_036_854_774_807),
        ("1.5e3", 1_500_000),
        ("0.001", 1),
        ("0", 0),
    ],
)
def test_times_are_exact(tmp_path: Path, ts: str, expected: int) -> None:
    event = '{"ph": "X", "name": "x", "pid": 1, "tid": 2, "ts": %s, "dur": 0.001}'
    assert times(read(tmp_path, tm.with_events_text([event % ts])))["x"] == (expected, 1)


def decimal_text(nanoseconds: int) -> str:
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03}"


EDGE = 2**43 * 1000


@given(
    starts=st.lists(
        st.one_of(
            st.integers(EDGE - 5_000_000, EDGE + 5_000_000),
            st.integers(0, 2**42 * 1000),
            st.integers(0, 2**62),
        ),
        min_size=1,
        max_size=30,
    ),
    dur=st.one_of(st.integers(0, 10**6), st.integers(0, 2**60)),
)
@settings(max_examples=150)
def test_any_time_is_exact(tmp_path: Path, starts: list[int], dur: int) -> None:
    event = '{"ph": "X", "name": "%d", "pid": 1, "tid": 2, "ts": %s, "dur": %s}'
    texts = [
        event % (number, decimal_text(ts), decimal_text(dur)) for number, ts in enumerate(starts)
    ]
    found = times(read(tmp_path, tm.with_events_text(texts)))
    assert found == {str(number): (ts, dur) for number, ts in enumerate(starts)}


# Broken events ---------------------------------------------------------------------------------

BROKEN = {
    "two numbers": '{"ph": "X", "name": "bad", "pid": 1, "tid": 2, "ts": 12 34, "dur": 1}',
    "no comma": '{"ph": "X", "name": "bad" "pid": 1, "tid": 2, "ts": 12, "dur": 1}',
    "no value": '{"ph": "X", "name": "bad", "pid": 1, "tid": 2, "ts": , "dur": 1}',
    "open quote": '{"ph": "X", "name": "bad, "pid": 1, "tid": 2, "ts": 12, "dur": 1}',
    "extra quote": '{"ph": "X", "name": "b"ad", "pid": 1, "tid": 2, "ts": 12, "dur": 1}',
    "missing brace": '{"ph": "X", "name": "bad", "pid": 1, "ts": 12, "args": {"a": 1}',
    "extra brace": '{"ph": "X", "name": "bad", "pid": 1, "ts": 12, "dur": 1}}',
    "torn": '{"ph": "X", "name": "bad", "pi',
    "bad escape": '{"ph": "X", "name": "b\\ad \\q", "pid": 1, "tid": 2, "ts": 12, "dur": 1}',
    "broken args": '{"ph": "X", "name": "bad", "ts": 1, "dur": 1, "args": {"a": [1, {"b":}]}}',
    "bare word": '{"ph": "X", "name": bad, "pid": 1, "tid": 2, "ts": 12, "dur": 1}',
}


@pytest.mark.parametrize("around", [1, 3, 2000])
@pytest.mark.parametrize("kind", BROKEN)
def test_one_broken_event_costs_one_event(tmp_path: Path, kind: str, around: int) -> None:
    good = [
        json.dumps(tm.complete(f"good{n}", n, 1, args={"External id": n}))
        for n in range(2 * around)
    ]
    data = read(tmp_path, tm.with_events_text([*good[:around], BROKEN[kind], *good[around:]]))
    conserved(data)
    assert names(data) == [f"good{n}" for n in range(2 * around)]
    assert (data.ledger.total.read, data.ledger.total.unreadable) == (2 * around + 1, 1)
    assert data.ledger.notes == []


@pytest.mark.parametrize("where", [0, -1])
@pytest.mark.parametrize("kind", [kind for kind in BROKEN if kind != "torn"])
def test_a_broken_event_at_either_end(tmp_path: Path, kind: str, where: int) -> None:
    good = [json.dumps(tm.complete(f"good{n}", n, 1)) for n in range(5)]
    texts = [BROKEN[kind], *good] if where == 0 else [*good, BROKEN[kind]]
    data = read(tmp_path, tm.with_events_text(texts))
    conserved(data)
    assert names(data) == [f"good{n}" for n in range(5)]
    assert data.ledger.total.unreadable == 1


@pytest.mark.parametrize("count", [1, 5, 40])
@pytest.mark.parametrize("key", ["name", "ph", "a"])
def test_objects_in_arguments_are_not_events(tmp_path: Path, count: int, key: str) -> None:
    nested = [{key: "a"}, {key: "b"}]
    events = [tm.complete(f"n{n}", n, 1, args={"list": nested}) for n in range(count)]
    data = read(tmp_path, tm.compact(events))
    assert names(data) == [f"n{n}" for n in range(count)]
    assert (data.ledger.total.read, data.ledger.total.unreadable) == (count, 0)
    broken = tm.with_events_text([BROKEN["no comma"], *map(json.dumps, events)])
    data = read(tmp_path, broken)
    assert names(data) == [f"n{n}" for n in range(count)]
    assert (data.ledger.total.read, data.ledger.total.unreadable) == (count + 1, 1)


def test_things_between_events_that_are_no_events(tmp_path: Path) -> None:
    good = [json.dumps(tm.complete(f"good{n}", n, 1)) for n in range(4)]
    data = read(tmp_path, tm.with_events_text([good[0], "null", good[1], "17", '"x"', *good[2:]]))
    assert names(data) == [f"good{n}" for n in range(4)]


def test_a_comma_after_the_last_event(tmp_path: Path) -> None:
    good = [json.dumps(tm.complete(f"good{n}", n, 1)) for n in range(4)]
    data = read(tmp_path, ('{"traceEvents": [' + ",\n".join(good) + ',\n], "x": 1}').encode())
    assert names(data) == [f"good{n}" for n in range(4)]
    assert data.ledger.total.unreadable == 0
    assert data.metadata == {"x": 1}


@pytest.mark.parametrize("selection", ["default", "all"])
def test_argument_texts_do_not_depend_on_the_selection(tmp_path: Path, selection: Any) -> None:
    args = {"Input Dims": [[2, 3], []]}
    data = read(tmp_path, tm.spaced([tm.complete("x", 1, 1, args=args)]), args=selection)
    [column] = data.slices.args
    assert data.strings[column.value[0]] == "[[2, 3], []]"


# Cut off ---------------------------------------------------------------------------------------


def event_ends(text: bytes) -> list[int]:
    """The offset just behind each event, by the json module's own scanner (ASCII text only)."""
    decoder = json.JSONDecoder(strict=False)
    string = text.decode("latin-1")
    position = string.index("[", string.index('"traceEvents"')) + 1
    ends = []
    while True:
        while string[position] in " \r\n\t,":
            position += 1
        if string[position] == "]":
            return ends
        _, position = decoder.raw_decode(string, position)
        ends.append(position)


def check_cut(tmp_path: Path, text: bytes, packed: bytes, ends: list[int], cut: int) -> None:
    """``text`` is what a cut file holds once it is unpacked, ``cut`` its length."""
    whole = sum(end <= cut for end in ends)
    try:
        data = read(tmp_path, packed)
    except TraceReadError:
        assert whole == 0
        return
    conserved(data)
    assert data.ledger.total.read - data.ledger.total.unreadable == whole, cut
    assert data.ledger.total.unreadable <= 1
    assert data.ledger.notes, cut


@pytest.mark.parametrize("style", ["spaced", "compact", "bare"])
def test_a_file_cut_off_at_every_byte(tmp_path: Path, style: str) -> None:
    events = [
        *EVENTS[:1],
        tm.complete("brackets }, { }] [", 30, 1, args={"list": [{"name": "a"}, {"b": {}}]}),
        *EVENTS[2:],
    ]
    after = {"traceName": "x.json", "deviceProperties": [{"id": 0}, {"id": 1}]}
    text = {
        "spaced": tm.spaced(events, before=META, after=after),
        "compact": tm.compact(events, schemaVersion=1),
        "bare": json.dumps(events).encode(),
    }[style].rstrip()
    if style == "bare":
        ends = [end - 15 for end in event_ends(b'{"traceEvents":' + text)]
    else:
        ends = event_ends(text)
    assert len(ends) == len(events)
    for cut in range(len(text)):
        check_cut(tmp_path, text, text[:cut], ends, cut)
    assert read(tmp_path, text).ledger.notes == []


REAL = "third-party/tracelens-torch-compile-triton.json.gz"


@pytest.mark.corpus
def test_a_real_file_cut_off_anywhere(tmp_path: Path, corpus: Path) -> None:
    text = oracle.plain_text(corpus / REAL).rstrip()
    ends = event_ends(text)
    choose = random.Random(20386)
    for cut in [*(choose.randrange(len(text)) for _ in range(200)), ends[3], ends[-1]]:
        check_cut(tmp_path, text, text[:cut], ends, cut)


@pytest.mark.corpus
@pytest.mark.parametrize("name", [REAL, "third-party/hta-no-distributed-info.json.gz"])
def test_a_packed_real_file_cut_off_anywhere(tmp_path: Path, corpus: Path, name: str) -> None:
    raw = (corpus / name).read_bytes()
    ends = event_ends(oracle.plain_text(corpus / name))
    choose = random.Random(20386)
    for cut in [choose.randrange(len(raw)) for _ in range(100)]:
        text = zlib.decompressobj(wbits=31).decompress(raw[:cut])
        whole = sum(end <= len(text) for end in ends)
        try:
            data = read(tmp_path, raw[:cut], "cut.json.gz")
        except TraceReadError:
            assert whole == 0
            continue
        conserved(data)
        assert data.ledger.total.read - data.ledger.total.unreadable >= whole, cut
        assert any("cut off" in note for note in data.ledger.notes), cut


@pytest.mark.parametrize("name", ["trace.json.gz", "trace.json.zst"])
def test_a_damaged_stream_keeps_what_came_before(tmp_path: Path, name: str) -> None:
    choose = random.Random(1)
    events = [tm.complete(f"e{n} {choose.random()}", n, 1) for n in range(60_000)]
    text = tm.compact(events)
    raw = bytearray(PACKED[name](text))
    middle = len(raw) // 2
    raw[middle : middle + 64] = bytes(64)
    data = read(tmp_path, bytes(raw), name)
    conserved(data)
    assert data.ledger.notes or data.ledger.total.unreadable  # zstd without a checksum sees nothing
    read_whole = data.ledger.total.read - data.ledger.total.unreadable
    assert 20_000 < read_whole < 60_000


# Chunks ----------------------------------------------------------------------------------------


def test_an_event_larger_than_a_chunk(tmp_path: Path) -> None:
    huge = "x" * (scan.CHUNK_SIZE + 1000)
    events = [
        tm.complete("before", 1, 1),
        tm.complete(huge, 2, 1),
        tm.complete("between", 4, 1, args={"note": huge}),
        tm.complete("after", 6, 1, args={"correlation": 3}),
    ]
    data = read(tmp_path, tm.compact(events))
    assert names(data) == ["before", huge[:32_752], "between", "after"]  # as much as is carried
    assert data.ledger.total.unreadable == 0
    assert args_of(data, "after") == {"args.correlation": 3}


@given(
    events=tm.traces(),
    chunk=st.sampled_from([1, 40, 150, 1000]),
    block=st.sampled_from([1, 7, 64, 500]),
    careful=st.sampled_from([200, 64 << 10]),
    style=st.sampled_from(["compact", "spaced", "bare"]),
    # Not a torn event: which neighbours it takes along depends on how much text is looked at.
    broken=st.sampled_from([None, "no comma"]),
)
@settings(max_examples=150)
def test_many_chunks_read_the_same(
    *,
    tmp_path: Path,
    events: list[tm.Event],
    chunk: int,
    block: int,
    careful: int,
    style: str,
    broken: str | None,
) -> None:
    text = {
        "compact": tm.compact(events, **META),
        "spaced": tm.spaced(events, after=META),
        "bare": json.dumps(events).encode(),
    }[style]
    if broken:
        texts = [json.dumps(item) for item in events]
        text = tm.with_events_text([*texts, BROKEN[broken], *texts])
    whole = plain(read(tmp_path, text, args="all"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "CHUNK_SIZE", chunk)
        patch.setattr(scan, "CAREFUL_SIZE", careful)
        patch.setattr(source.Source.read, "__defaults__", (block,))
        pieces = plain(read(tmp_path, text, args="all"))
    assert pieces == whole


@given(events=tm.traces(max_size=40))
@settings(max_examples=150)
def test_random_traces_are_read_as_the_oracle_reads_them(
    tmp_path: Path, events: list[tm.Event]
) -> None:
    # The anchor: traces without any slice have a test of their own, in test_layout.
    text = tm.spaced([*events, tm.complete("anchor", 1, 1)], before=META)
    data = read(tmp_path, text)
    conserved(data)
    read_count = Counter()
    for phase, category, tally in data.ledger.rows():
        read_count[phase, category] += tally.read
    parsed = oracle.parse(text)
    assert +read_count == Counter((e["ph"], e.get("cat") or "") for e in parsed)
    assert data.ledger.total.unreadable == 0
    expected = Counter(
        (e.pid, e.tid, e.name, e.cat, e.ts, e.dur) for e in oracle.complete_events(parsed)
    )
    found = Counter(
        (*item[0], item[1], item[2] or "", item[3], item[4]) for item in plain(data)["slices"]
    )
    assert expected <= found
    others = sum(tally.loaded for phase, _, tally in data.ledger.rows() if phase in "iB")
    assert found.total() == expected.total() + others
    arrange(data)
    conserved(data)


@given(events=tm.traces(phases="X"))
def test_default_arguments_are_those_of_the_event(tmp_path: Path, events: list[tm.Event]) -> None:
    text = tm.compact(events)
    for item, event in zip(plain(read(tmp_path, text))["slices"], events, strict=True):
        if event.get("cat") == "python_function":
            continue  # carries none by default (traceq.kineto.args.WITHOUT_DEFAULT_ARGS)
        for key in ("correlation", "External id", "stream"):
            value = event.get("args", {}).get(key)
            if value is None or isinstance(value, (list, dict, float)):
                continue
            small = not isinstance(value, int) or -(2**63) <= value < 2**63
            got = item[-1][f"args.{key}"]
            value = value.replace("\0", "\u2400") if isinstance(value, str) else value
            assert got == (value if small else str(value))
            assert type(got) is (type(value) if small else str)


@given(events=tm.traces(phases="X"))
def test_all_arguments_are_those_of_the_event(tmp_path: Path, events: list[tm.Event]) -> None:
    data = plain(read(tmp_path, tm.compact(events), args="all"))
    for item, event in zip(data["slices"], events, strict=True):
        expected = {
            f"args.{key}" for key, value in event.get("args", {}).items() if value is not None
        }
        assert set(item[-1]) == expected
        for key, value in event.get("args", {}).items():
            if isinstance(value, (list, dict)):
                assert json.loads(item[-1][f"args.{key}"]) == value


@pytest.mark.parametrize("count", [14, 15, 16, 40])
def test_more_arguments_than_a_record_holds(tmp_path: Path, count: int) -> None:
    args: dict[str, Any] = {f"key{n}": n for n in range(count)} | {"correlation": 77}
    data = read(tmp_path, tm.compact([tm.complete("x", 1, 1, args=args)]), args="all")
    found = args_of(data, "x")
    assert len(found) <= 15
    assert found["args.correlation"] == 77
    rest = json.loads(found.pop("args.more", "{}"))
    assert {key.removeprefix("args."): value for key, value in found.items()} | rest == args


def test_an_argument_that_is_itself_called_more(tmp_path: Path) -> None:
    args: dict[str, Any] = {"more": "mine"} | {f"key{n}": n for n in range(20)}
    data = read(tmp_path, tm.compact([tm.complete("x", 1, 1, args=args)]), args="all")
    assert "mine" in json.dumps(args_of(data, "x"))


# Errors ----------------------------------------------------------------------------------------

NO_TRACE = {
    "empty": b"",
    "only space": b" \n\t ",
    "two characters": b"{}",
    "one bracket": b"[",
    "empty array": b"[]",
    "not json": b"hello, this is no trace\n",
    "binary": bytes(range(200, 256)) * 20,
    "no traceEvents": b'{"schemaVersion": 1, "events": []}',
    "zero events": b'{"schemaVersion": 1, "traceEvents": []}',
    "zero events, spaced": b'{\n "traceEvents": [\n ]\n}\n',
    "traceEvents is null": b'{"traceEvents": null}',
    "cut before the array": b'{"schemaVersion": 1, "traceEv',
    "two files": tm.zipped(b"[]", b"[]"),
    "empty zip": tm.zipped(),
    "cut zip": tm.zipped(tm.compact(EVENTS))[:60],
    "gzip of nothing": tm.gz(b" "),
    "cut gzip": tm.gz(tm.compact(EVENTS))[:12],
    "magic only": b"\x1f\x8b",
    "zstd magic only": b"\x28\xb5\x2f\xfd",
}


def check_error(error: TraceReadError, path: Path) -> None:
    assert "\n" not in error.message
    assert str(path) in error.message
    assert error.hint


@pytest.mark.parametrize("kind", NO_TRACE)
def test_what_is_no_trace(tmp_path: Path, kind: str) -> None:
    with pytest.raises(TraceReadError) as caught:
        read(tmp_path, NO_TRACE[kind])
    check_error(caught.value, tmp_path / "trace.json")


def test_no_file_and_a_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(TraceReadError) as caught:
            read_trace(path)
        check_error(caught.value, path)


def test_the_oracle_is_exact() -> None:
    assert oracle.nanoseconds(Decimal("1712195496004644.2")) == 1_712_195_496_004_644_200
    assert oracle.nanoseconds(3) == 3000


@pytest.mark.parametrize("selection", ["default", "all"])
def test_fractions_stay_fractions(tmp_path: Path, selection: Any) -> None:
    values: list[Any] = [1.5, 0.0, 3]
    events = [tm.complete("a", n, 1, args={"bytes": value}) for n, value in enumerate(values)]
    path = tmp_path / "trace.json"
    path.write_bytes(tm.compact(events))
    found = {
        (column.kind, int(row)): value
        for column in read_trace(path, args=selection).slices.args
        for row, value in zip(column.row, column.value.tolist(), strict=True)
    }
    assert found == {("float", 0): 1.5, ("float", 1): 0.0, ("int", 2): 3}
