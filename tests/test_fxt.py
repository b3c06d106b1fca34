"""The bytes: read back by a small parser of the public format, and by the real engine."""

from __future__ import annotations

import json
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import oracle
from tests import tracemaker as tm
from traceq.engine import Engine
from traceq.fxt import encode, slice_ids
from traceq.kineto import read_trace
from traceq.layout import Layout, arrange
from traceq.model import TraceData

# A parser of the Fuchsia trace format, from its public description -----------------------------

MAGIC = 0x0016547846040010
INSTANT, COUNTER, COMPLETE = 0, 1, 4
ASYNC_BEGIN, ASYNC_INSTANT, ASYNC_END, FLOW_BEGIN, FLOW_END = 5, 6, 7, 8, 10


@dataclass
class FxtEvent:
    type: int
    ts: int
    pid: int
    tid: int
    category: str
    name: str
    args: list[tuple[str, Any]]
    tail: int


@dataclass
class Fxt:
    """All that a trace holds."""

    ticks: int = 0
    events: list[FxtEvent] = field(default_factory=list)
    processes: dict[int, str] = field(default_factory=dict)
    threads: dict[tuple[int, int], str] = field(default_factory=dict)
    strings_defined: int = 0


class Parser:
    def __init__(self, raw: bytes) -> None:
        assert len(raw) % 8 == 0
        self.words = struct.unpack(f"<{len(raw) // 8}Q", raw)
        self.raw = raw
        self.at = 0
        self.strings: dict[int, str] = {0: ""}
        self.threads: dict[int, tuple[int, int]] = {}
        self.out = Fxt()

    def word(self) -> int:
        self.at += 1
        return self.words[self.at - 1]

    def parse(self) -> Fxt:
        assert self.word() == MAGIC
        kinds = {1: self.initialization, 2: self.string, 3: self.thread, 4: self.event}
        kinds[7] = self.kernel_object
        while self.at < len(self.words):
            start, header = self.at, self.word()
            size = header >> 4 & 0xFFF
            assert size > 0
            kinds[header & 0xF](header)
            assert self.at == start + size, "a record does not fill its size"
        return self.out

    def text(self, length: int) -> str:
        assert length <= 32_752
        start, padded = self.at * 8, -(-length // 8)
        self.at += padded
        raw = self.raw[start : start + 8 * padded]
        assert raw[length:] == bytes(8 * padded - length)
        return raw[:length].decode()  # strictly

    def initialization(self, header: int) -> None:
        self.out.ticks = self.word()

    def string(self, header: int) -> None:
        index = header >> 16 & 0x7FFF
        assert index > 0
        self.out.strings_defined += 1
        self.strings[index] = self.text(header >> 32 & 0x7FFF)

    def thread(self, header: int) -> None:
        index = header >> 16 & 0xFF
        assert index > 0
        self.threads[index] = (self.word(), self.word())

    def ref(self, ref: int) -> str:
        return self.text(ref & 0x7FFF) if ref & 0x8000 else self.strings[ref]

    def args(self, count: int) -> list[tuple[str, Any]]:
        return [self.arg() for _ in range(count)]

    def arg(self) -> tuple[str, Any]:
        start, header = self.at, self.word()
        kind, key = header & 0xF, self.ref(header >> 16 & 0xFFFF)
        upper = header >> 32
        value: Any
        if kind == 1:
            value = struct.unpack("<i", struct.pack("<I", upper))[0]
        elif kind == 2:
            value = upper
        elif kind == 3:
            value = struct.unpack("<q", struct.pack("<Q", self.word()))[0]
        elif kind in (4, 8):
            value = self.word()
        elif kind == 5:
            value = struct.unpack("<d", struct.pack("<Q", self.word()))[0]
        elif kind == 6:
            value = self.ref(upper & 0xFFFF)
        else:
            assert kind == 9
            value = bool(upper & 1)
        assert self.at == start + (header >> 4 & 0xFFF)
        return key, value

    def event(self, header: int) -> None:
        ts = self.word()
        thread = header >> 24 & 0xFF
        pid, tid = self.threads[thread] if thread else (self.word(), self.word())
        category, name = self.ref(header >> 32 & 0xFFFF), self.ref(header >> 48)
        args = self.args(header >> 20 & 0xF)
        kind = header >> 16 & 0xF
        tail = 0 if kind == INSTANT else self.word()
        self.out.events.append(FxtEvent(kind, ts, pid, tid, category, name, args, tail))

    def kernel_object(self, header: int) -> None:
        koid, name = self.word(), self.ref(header >> 24 & 0xFFFF)
        args = dict(self.args(header >> 40 & 0xF))
        if header >> 16 & 0xFF == 1:
            self.out.processes[koid] = name
        else:
            assert header >> 16 & 0xFF == 2
            self.out.threads[args["process"], koid] = name


# Helpers ----------------------------------------------------------------------------------------

Encoded = tuple[TraceData, Layout, list[bytes]]


def encoded(tmp_path: Path, events: list[tm.Event], **options: Any) -> Encoded:
    path = tmp_path / "trace.json"
    path.write_bytes(tm.compact(events))
    data = read_trace(path, **options)
    layout = arrange(data)
    return data, layout, encode(data, layout)


def parsed(tmp_path: Path, events: list[tm.Event], **options: Any) -> Fxt:
    return Parser(b"".join(encoded(tmp_path, events, **options)[2])).parse()


def load(engine: Engine, tmp_path: Path, events: list[tm.Event], **options: Any) -> TraceData:
    data, _, chunks = encoded(tmp_path, events, **options)
    engine.load(chunks)
    assert engine.health() == []
    return data


def engine_args(engine: Engine) -> dict[int, dict[str, Any]]:
    """Arguments of each slice, by slice id."""
    rows = engine.query(
        "SELECT s.id, a.key, a.value_type, a.int_value, a.real_value, a.string_value "
        "FROM slice s CROSS JOIN args a ON a.arg_set_id = s.arg_set_id"
    ).rows()
    found: dict[int, dict[str, Any]] = {}
    for number, key, kind, whole, real, text in rows:
        value = {"int": whole, "real": real, "string": text, "bool": bool(whole)}[kind]
        found.setdefault(number, {})[key] = value
    return found


def engine_names(engine: Engine) -> list[str]:
    return [row[0] for row in engine.query("SELECT name FROM slice ORDER BY id").rows()]


# Round trips through the parser -----------------------------------------------------------------


def test_one_slice_word_by_word(tmp_path: Path) -> None:
    trace = parsed(tmp_path, [tm.complete("größe", 10.5, 4.25, args={"correlation": 7})])
    assert trace.ticks == 1_000_000_000
    [event] = trace.events
    assert (event.type, event.ts, event.tail) == (COMPLETE, 10_500, 14_750)
    assert (event.pid, event.tid, event.category, event.name) == (1, 2, "cpu_op", "größe")
    assert event.args == [("args.correlation", 7)]


def normal(value: Any) -> Any:
    """An argument's value as the format can hold it."""
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    return value.replace("\0", "\N{SYMBOL FOR NULL}") if isinstance(value, str) else value


def fits(number: Any) -> bool:
    return isinstance(number, int) and 0 <= number < 3_000_000_000


@given(events=tm.traces(phases="X", max_size=40))
@settings(max_examples=120)
def test_slices_come_back_as_written(tmp_path: Path, events: list[tm.Event]) -> None:
    trace = parsed(tmp_path, events, args="all")
    read = oracle.complete_events(oracle.parse(tm.compact(events)))
    expected = Counter(
        (
            *(e.name.replace("\0", "\N{SYMBOL FOR NULL}"), e.cat, e.ts, e.ts + e.dur),
            e.pid if fits(e.pid) else str(e.pid),
            frozenset(
                (f"args.{key}", type(normal(value)), normal(value))
                for key, value in source.get("args", {}).items()
                if value is not None
            ),
        )
        for e, source in zip(read, events, strict=True)
    )
    found = Counter(
        (
            *(e.name, e.category, e.ts, e.tail),
            trace.processes.get(e.pid, e.pid),
            frozenset((k, type(v), v) for k, v in e.args if k != "traceq.parent"),
        )
        for e in trace.events
    )
    assert found == expected


@given(events=tm.traces(max_size=30))
@settings(max_examples=80)
def test_any_trace_makes_well_formed_bytes(tmp_path: Path, events: list[tm.Event]) -> None:
    kept = [*events, tm.complete("anchor", 1, 1)]
    data, layout, chunks = encoded(tmp_path, kept, args="all")
    trace = Parser(b"".join(chunks)).parse()
    kinds = Counter(event.type for event in trace.events)
    assert kinds[COMPLETE] == len(data.slices)
    assert kinds[FLOW_BEGIN] == kinds[FLOW_END] == len(layout.flow_source)
    assert kinds[COUNTER] == len(data.counters)
    assert kinds[ASYNC_BEGIN] + kinds[ASYNC_INSTANT] + kinds[ASYNC_END] == len(data.asyncs)
    starts = [event.ts for event in trace.events if event.type == COMPLETE]
    assert starts == sorted(starts)


# Sizes ------------------------------------------------------------------------------------------


def test_more_strings_than_the_table_holds(tmp_path: Path, engine: Engine) -> None:
    count = 100_000
    events = [
        tm.complete(
            f"name {n}",
            n,
            0.5,
            cat=f"category {n % 41_000}",
            args={"dtype": f"type {n % 47_000}", "correlation": n},
        )
        for n in range(count)
    ]
    _, _, chunks = encoded(tmp_path, events)
    assert len(Parser(b"".join(chunks)).parse().events) == count
    engine.load(chunks)
    assert engine.health() == []
    rows = engine.query(
        "SELECT name, category, ts, EXTRACT_ARG(arg_set_id, 'args.dtype'), "
        "EXTRACT_ARG(arg_set_id, 'args.correlation') FROM slice ORDER BY id"
    ).rows()
    assert rows == [
        (f"name {n}", f"category {n % 41_000}", n * 1000, f"type {n % 47_000}", n)
        for n in range(count)
    ]


def test_more_threads_than_the_table_holds(tmp_path: Path, engine: Engine) -> None:
    count = 1500
    events = [
        tm.complete(f"s{n}", n % 7, 5, pid=n % 3, tid=10 + n, args={"correlation": n})
        for n in range(count)
    ]
    events += [
        tm.event("M", name="thread_name", pid=n % 3, tid=10 + n, args={"name": f"thread {n}"})
        for n in range(count)
    ]
    load(engine, tmp_path, events)
    rows = engine.query(
        "SELECT s.name, p.pid, th.tid, th.name, EXTRACT_ARG(s.arg_set_id, 'args.correlation') "
        "FROM slice s JOIN thread_track t ON t.id = s.track_id "
        "JOIN thread th USING (utid) JOIN process p USING (upid)"
    ).rows()
    assert Counter(rows) == Counter(
        (f"s{n}", n % 3, 10 + n, f"thread {n}", n) for n in range(count)
    )


@pytest.mark.parametrize("length", [32_751, 32_752, 32_753, 40_000, 200_000])
@pytest.mark.parametrize("letter", ["a", "ß", "漢", "🙂"])
def test_long_names_are_cut_at_a_character(tmp_path: Path, length: int, letter: str) -> None:
    name = "x" + letter * (length // len(letter.encode()))
    [event] = parsed(tmp_path, [tm.complete(name, 1, 1, args={"dtype": name})]).events
    assert name.startswith(event.name)
    assert event.args == [("args.dtype", event.name)]
    size = len(event.name.encode())
    whole = len(name.encode()) <= 32_752
    assert event.name == name if whole else 32_752 - 4 < size <= 32_752


def test_long_and_odd_names_through_the_engine(tmp_path: Path, engine: Engine) -> None:
    long = "漢" * 20_000
    texts = ["tab\t", "quote\"'", "back\\slash", "\x01\x1f\x7f", "a\0b", long, " ", "%s {} 🙂"]
    load(engine, tmp_path, [tm.complete(text, n, 0.5) for n, text in enumerate(texts)])
    found = engine_names(engine)
    expected = [*texts]
    expected[4] = "a\N{SYMBOL FOR NULL}b"
    expected[5] = long[: 32_752 // 3]
    assert found == expected


# Arguments --------------------------------------------------------------------------------------


def test_arguments_of_every_type(tmp_path: Path, engine: Engine) -> None:
    args = {
        "zero": 0,
        "small": 7,
        "negative": -1,
        "u32": 2**32 - 1,
        "above": 2**32,
        "i64": 2**63 - 1,
        "min": -(2**63),
        "huge": 2**70,
        "float": -0.125,
        "yes": True,
        "no": False,
        "text": "größe 🙂",
        "list": [1, [2, "x"]],
        "object": {"a": {"b": 1}},
    }
    assert len(args) == 14  # as many as are carried under their own names
    load(engine, tmp_path, [tm.complete("x", 1, 1, args=args)], args="all")
    [found] = engine_args(engine).values()
    assert found == {f"args.{key}": normal(value) for key, value in args.items()}
    assert {key: type(value) for key, value in found.items()} == {
        f"args.{key}": type(normal(value)) for key, value in args.items()
    }


def test_one_argument_with_changing_types(tmp_path: Path, engine: Engine) -> None:
    values = [1, "one", 1.5, True, -1, 2**63, [1], "1"]
    events = [tm.complete(str(n), n, 0.5, args={"dtype": v}) for n, v in enumerate(values)]
    for selection in ("default", "all"):
        load(engine, tmp_path, events, args=selection)
        found = [args["args.dtype"] for _, args in sorted(engine_args(engine).items())]
        assert found == [normal(value) for value in values]


def test_more_than_fifteen_arguments(tmp_path: Path, engine: Engine) -> None:
    args: dict[str, Any] = {f"key{n}": n for n in range(40)} | {"correlation": 5}
    events = [tm.complete("many", 1, 1, args=args), tm.complete("few", 5, 1, args={"a": 1})]
    data = load(engine, tmp_path, events, args="all")
    many, few = (found for _, found in sorted(engine_args(engine).items()))
    assert few == {"args.a": 1}
    rest = json.loads(many.pop("args.more"))
    assert {key.removeprefix("args."): value for key, value in many.items()} | rest == args
    assert data.ledger.notes == []


def test_a_moved_slice_keeps_all_its_arguments(tmp_path: Path, engine: Engine) -> None:
    args = {f"key{n}": n for n in range(15)}
    events = [
        tm.complete("outer", 0, 100),
        tm.complete("left", 10, 20, args=args),
        tm.complete("right", 20, 20, args=args),
    ]
    load(engine, tmp_path, events, args="all")
    moved = [found for found in engine_args(engine).values() if "traceq.parent" in found]
    assert [found["traceq.parent"] for found in moved] == [0]
    for found in engine_args(engine).values():
        rest = json.loads(found.pop("args.more", "{}"))
        found.pop("traceq.parent", None)
        assert {key.removeprefix("args."): value for key, value in found.items()} | rest == args


# Counters, asynchronous spans, processes --------------------------------------------------------


def test_counters(tmp_path: Path, engine: Engine) -> None:
    events = [
        tm.complete("x", 1, 1),
        tm.event("C", name="memory", ts=1, args={"bytes": 5, "ratio": 0.5}),
        tm.event("C", name="memory", ts=2.001, args={"bytes": -(2**62), "ratio": 1e-9}),
        tm.event("C", name="memory", ts=3, pid=8, args={"bytes": 2**53 + 1}),
    ]
    load(engine, tmp_path, events)
    rows = engine.query(
        "SELECT p.pid, t.name, c.ts, c.value FROM counter c "
        "JOIN process_counter_track t ON t.id = c.track_id JOIN process p USING (upid) "
        "ORDER BY p.pid, t.name, c.ts"
    ).rows()
    assert [(pid, ts, value) for pid, _, ts, value in rows] == [
        (1, 1000, 5.0),
        (1, 2001, float(-(2**62))),
        (1, 1000, 0.5),
        (1, 2001, 1e-9),
        (8, 3000, float(2**53 + 1)),
    ]
    assert all("memory" in name for _, name, _, _ in rows)
    assert "bytes" in rows[0][1]
    assert "ratio" in rows[2][1]


@pytest.mark.parametrize("value", [2**63, 2**64, -(2**70)])
def test_a_counter_beyond_64_bits(tmp_path: Path, engine: Engine, value: int) -> None:
    events = [tm.complete("x", 1, 1), tm.event("C", name="c", ts=1, args={"a": value, "b": 2})]
    load(engine, tmp_path, events)
    rows = engine.query("SELECT value FROM counter ORDER BY value").rows()
    assert (2.0,) in rows


def test_asynchronous_spans(tmp_path: Path, engine: Engine) -> None:
    def end(ph: str, ts: float, number: int | str, name: str = "request") -> tm.Event:
        return tm.event(ph, name=name, cat="serve", id=number, ts=ts)

    events = [
        tm.complete("x", 1, 1),
        end("b", 1, 1),
        end("b", 2, 2),
        end("n", 3, 1),
        end("e", 5, 1),
        end("e", 9.001, 2),
        end("b", 20, "0xff", "other"),
        end("e", 21, "0xff", "other"),
        tm.complete("y", 30, 1),
    ]
    load(engine, tmp_path, events)
    rows = engine.query("SELECT name, ts, dur FROM slice WHERE category = 'serve'").rows()
    assert Counter(rows) == Counter(
        [
            ("request", 1_000, 4_000),
            ("request", 2_000, 7_001),
            ("request", 3_000, 0),
            ("other", 20_000, 1_000),
        ]
    )


def test_slice_ids_are_foretold_beside_asynchronous_spans(tmp_path: Path, engine: Engine) -> None:
    events = [tm.complete(f"s{n}", n, 0.5) for n in range(20)]
    events += [tm.event("b", name="a", cat="c", id=n, ts=n) for n in range(0, 20, 3)]
    events += [tm.event("e", name="a", cat="c", id=n, ts=n + 2) for n in range(0, 20, 3)]
    data, layout, chunks = encoded(tmp_path, events)
    engine.load(chunks)
    ids = slice_ids(data, layout).tolist()
    names = dict(engine.query("SELECT id, name FROM slice").rows())
    assert [names[number] for number in ids] == [f"s{n}" for n in range(20)]


def test_text_and_large_ids_keep_their_text(tmp_path: Path, engine: Engine) -> None:
    pids = ["Spans", "7", 7, -1, 2**32 + 7, 2**31, 0]
    tids = ["PyTorch Profiler", -3, 2**40, 5, 0, "5"]
    events = [tm.complete(f"{p!r}/{t!r}", 1, 1, pid=p, tid=t) for p in pids for t in tids]
    load(engine, tmp_path, events)
    rows = engine.query(
        "SELECT s.name, p.pid, p.name, th.tid, th.name FROM slice s "
        "JOIN thread_track t ON t.id = s.track_id JOIN thread th USING (utid) "
        "JOIN process p USING (upid)"
    ).rows()
    assert len(rows) == len(events)
    assert len({(pid, tid) for _, pid, _, tid, _ in rows}) == len(events)
    by_name = {row[0]: row[1:] for row in rows}
    for pid in pids:
        for tid in tids:
            got_pid, process, got_tid, thread = by_name[f"{pid!r}/{tid!r}"]
            assert got_pid == pid if fits(pid) else process == str(pid)
            assert got_tid == tid if fits(tid) else thread == str(tid)


def test_names_of_processes_and_threads(tmp_path: Path, engine: Engine) -> None:
    events = [
        tm.complete("x", 1, 1, pid=0, tid=7),
        tm.complete("y", 1, 1, pid=-1, tid=-2),
        tm.event("M", name="process_name", pid=0, tid=0, args={"name": "GPU größe"}),
        tm.event("M", name="thread_name", pid=0, tid=7, args={"name": "stream 7"}),
        tm.event("M", name="process_name", pid=-1, tid=0, args={"name": "odd"}),
        tm.event("M", name="thread_name", pid=-1, tid=-2, args={"name": "odd thread"}),
    ]
    load(engine, tmp_path, events)
    rows = engine.query(
        "SELECT s.name, p.name, th.name FROM slice s JOIN thread_track t ON t.id = s.track_id "
        "JOIN thread th USING (utid) JOIN process p USING (upid)"
    ).rows()
    assert Counter(rows) == Counter([("x", "GPU größe", "stream 7"), ("y", "odd", "odd thread")])


def test_lanes_are_named_after_their_track(tmp_path: Path, engine: Engine) -> None:
    events = [
        tm.complete("k1", 0, 10, pid=0, tid=7),
        tm.complete("k2", 9, 10, pid=0, tid=7),
        tm.event("M", name="thread_name", pid=0, tid=7, args={"name": "stream 7 "}),
    ]
    load(engine, tmp_path, events)
    rows = engine.query(
        "SELECT th.name, p.pid FROM slice s JOIN thread_track t ON t.id = s.track_id "
        "JOIN thread th USING (utid) JOIN process p USING (upid) ORDER BY th.name"
    ).rows()
    assert [(name.strip(), pid) for name, pid in rows] == [("stream 7", 0), ("stream 7 (2)", 0)]


def check_parents(engine: Engine, data: TraceData, layout: Layout) -> None:
    """Ids are as foretold, and parents as the oracle finds them; instants hold nothing."""
    rows = engine.query(
        "SELECT id, ts, parent_id, EXTRACT_ARG(arg_set_id, 'traceq.parent') FROM slice"
    ).rows()
    by_id = {row[0]: row[1:] for row in rows}
    ids = slice_ids(data, layout).tolist()
    index = {number: item for item, number in enumerate(ids)}
    tracks: dict[int, list[int]] = {}
    for item in range(len(data.slices)):
        assert by_id[ids[item]][0] == data.slices.ts[item]
        if not data.slices.instant[item]:
            tracks.setdefault(int(data.slices.track[item]), []).append(item)
    spans = list(zip(data.slices.ts.tolist(), data.slices.dur.tolist(), strict=True))
    for members in tracks.values():
        expected = oracle.parents([oracle.Interval(*spans[item]) for item in members])
        for item, parent in zip(members, expected, strict=True):
            _, parent_id, override = by_id[ids[item]]
            holder = parent_id if override is None else override
            found = None if holder is None else index[holder]
            assert found == (None if parent is None else members[parent])


# Whole ------------------------------------------------------------------------------------------


@given(batch=st.lists(tm.traces(max_size=40), min_size=6, max_size=6))
@settings(max_examples=10)
def test_random_traces_through_the_engine(
    tmp_path: Path, engine: Engine, batch: list[list[tm.Event]]
) -> None:
    events = [event for part in batch for event in part] + [tm.complete("anchor", 1, 1)]
    data, layout, chunks = encoded(tmp_path, events, args="all")
    engine.load(chunks)
    assert [entry for entry in engine.health() if entry[0] != "misplaced_end_event"] == []
    rows = engine.query(
        "SELECT s.name, s.category, s.ts, s.dur FROM slice s JOIN thread_track t "
        "ON t.id = s.track_id"
    ).rows()
    text = data.strings
    expected = Counter(
        (
            text[data.slices.name[n]].replace("\0", "\N{SYMBOL FOR NULL}"),
            text[data.slices.category[n]] if data.slices.category[n] >= 0 else "",
            int(data.slices.ts[n]),
            int(data.slices.dur[n]),
        )
        for n in range(len(data.slices))
    )
    assert Counter((name, category or "", ts, dur) for name, category, ts, dur in rows) == expected
    check_parents(engine, data, layout)
    ends = sum(tally.loaded for phase, _, tally in data.ledger.rows() if phase in ("t", "f"))
    [(flows,)] = engine.query("SELECT COUNT(*) FROM flow").rows()
    steps_that_only_give = ends - flows
    assert 0 <= steps_that_only_give <= sum(event["ph"] == "t" for event in events)
