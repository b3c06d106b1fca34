"""Real traces, against the oracle and against what trace_processor's own JSON import makes of them.

Each file is read once by each side: the oracle (plain json, exact decimals), this project, and
trace_processor's JSON importer. Rows of either engine are matched with the oracle's events, so
that parents, arguments and flows can be compared event by event.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import oracle
from tests.conftest import CORPUS, NO_CORPUS
from tests.joined import asked, check_same
from traceq.engine import Engine, open_engine
from traceq.fxt import encode
from traceq.joins import join
from traceq.kineto import read_trace
from traceq.layout import arrange
from traceq.model import TraceData

pytestmark = pytest.mark.corpus

LARGE = "gdn-h200-large/einops.json.gz"
SMALL = sorted(
    str(path.relative_to(CORPUS))
    for path in CORPUS.rglob("*.json.gz")
    if str(path.relative_to(CORPUS)) != LARGE
)
PRIVATE_IDS = 3_000_000_000
"""From here on process and thread numbers are ours; the trace's own text is the name then."""

JOIN_ARGS = ("correlation", "External id", "stream", "device")

SLICES = """
SELECT s.id, s.ts, s.dur, s.name, s.category, s.parent_id,
       EXTRACT_ARG(s.arg_set_id, 'traceq.parent'),
       t.type, p.pid, p.name, th.tid, th.name,
       EXTRACT_ARG(s.arg_set_id, 'args.correlation'),
       EXTRACT_ARG(s.arg_set_id, 'args.External id'),
       EXTRACT_ARG(s.arg_set_id, 'args.stream'),
       EXTRACT_ARG(s.arg_set_id, 'args.device')
FROM slice s JOIN track t ON s.track_id = t.id
LEFT JOIN thread_track tt ON s.track_id = tt.id
LEFT JOIN thread th USING (utid) LEFT JOIN process p USING (upid)
ORDER BY s.id
"""


class Row(NamedTuple):
    """A slice as an engine returns it."""

    id: int
    ts: int
    dur: int
    name: str
    category: str | None
    parent_id: int | None
    override: int | None
    track_type: str
    pid: int | None
    process: str | None
    tid: int | None
    thread: str | None
    join_args: tuple[int | None, ...]


def read_rows(engine: Engine) -> list[Row]:
    return [
        Row(*row[:12], tuple(value if isinstance(value, int) else None for value in row[12:]))
        for row in engine.query(SLICES).rows()
    ]


def only_ints(args: dict[str, Any]) -> tuple[int | None, ...]:
    values = (args.get(key) for key in JOIN_ARGS)
    return tuple(value if type(value) is int else None for value in values)


def json_importer_ns(microseconds: Any) -> int:
    """What the JSON importer makes of a time: ``round(x * 1000)``, in float64 for fractions."""
    value = float(microseconds)
    if value.is_integer():
        return int(value) * 1000
    product = value * 1000
    return int(product) if product >= 2**52 else math.floor(product + 0.5)  # no halves up there


def json_importer_error(microseconds: Any) -> int:
    """How many ns that may be off: half a step of the float, and the rounding of the product."""
    if isinstance(microseconds, int):
        return 0
    value = abs(float(microseconds))
    return math.ceil(math.ulp(value) / 2 * 1000 + math.ulp(value * 1000) / 2)


@dataclass
class Loaded:
    """One file as each side sees it."""

    name: str
    events: list[dict[str, Any]]
    text: bytes
    data: TraceData
    rows: list[Row]
    flows: list[tuple[int, int]]
    health: list[tuple[str, int]]
    json_engine: Engine

    @cached_property
    def complete(self) -> list[oracle.Complete]:
        return oracle.complete_events(self.events)

    @cached_property
    def instants(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("ph") in ("i", "I", "R")]

    @cached_property
    def parents(self) -> list[oracle.Complete | None]:
        return oracle.parents_of_events(self.complete)

    @cached_property
    def process_names(self) -> dict[Any, str]:
        return {
            event["pid"]: event["args"]["name"]
            for event in self.events
            if event.get("ph") == "M" and event["name"] == "process_name"
        }

    @cached_property
    def thread_names(self) -> dict[tuple[Any, Any], str]:
        return {
            (event["pid"], event["tid"]): event["args"]["name"]
            for event in self.events
            if event.get("ph") == "M" and event["name"] == "thread_name"
        }

    def is_on_own_track(self, event: oracle.Complete, row: Row) -> bool:
        """Whether our row stands on a lane of the event's process and thread."""
        pid = row.pid if row.pid is not None and row.pid < PRIVATE_IDS else None
        if pid is None:
            own_pid = row.process == self.process_names.get(event.pid, str(event.pid))
        else:
            own_pid = pid == event.pid
        if row.tid is not None and row.tid < PRIVATE_IDS:
            return own_pid and row.tid == event.tid
        name = self.thread_names.get((event.pid, event.tid), "").strip() or str(event.tid)
        return own_pid and re.sub(r" \(\d+\)$", "", row.thread or "").strip() == name

    @cached_property
    def matched(self) -> tuple[dict[int, int], list[Row], list[oracle.Complete]]:
        """Slice id → event position; our rows and the oracle's events that match nothing."""
        waiting: dict[Any, list[int]] = defaultdict(list)
        for position, event in enumerate(self.complete):
            key = (event.name, event.cat, event.ts, event.dur, only_ints(event.args))
            waiting[key].append(position)
        found, spare = {}, []
        for row in self.rows:
            key = (row.name, row.category or "", row.ts, row.dur, row.join_args)
            candidates = waiting.get(key, [])
            # Identical events keep their order in the file, so the first that fits is the one.
            fits = (item for item in candidates if self.is_on_own_track(self.complete[item], row))
            position = next(fits, None)
            if position is None:
                spare.append(row)
            else:
                candidates.remove(position)
                found[row.id] = position
        missing = [self.complete[item] for items in waiting.values() for item in items]
        return found, spare, missing

    @cached_property
    def json_import(self) -> JsonImport:
        self.json_engine.load([self.text])
        return JsonImport(self, self.json_engine)


class JsonImport:
    """What trace_processor's own JSON importer keeps of a file, matched with the events.

    Ids are as that importer changes them: below zero or above 32 bits → 0, thread 0 of process p →
    thread p, text → a number of its own with the text as name (facts, section 2).
    """

    def __init__(self, loaded: Loaded, engine: Engine) -> None:
        self.rows = read_rows(engine)
        self.flows = engine.query("SELECT slice_out, slice_in FROM flow").rows()
        self.stats = dict(engine.health())
        self._loaded = loaded
        self._text_pids = {
            loaded.process_names.get(event.pid, event.pid)
            for event in loaded.complete
            if isinstance(event.pid, str)
        }
        waiting: dict[Any, list[int]] = defaultdict(list)
        self.tracks: dict[Any, set[tuple[Any, Any]]] = defaultdict(set)
        for position, event in enumerate(loaded.complete):
            times = loaded.events[event.index]
            track = self.track_of(event.pid, event.tid)
            self.tracks[track].add((event.pid, event.tid))
            key = (
                *(track, event.name, event.cat, only_ints(event.args)),
                *(json_importer_ns(times["ts"]), json_importer_ns(times["dur"])),
            )
            waiting[key].append(position)
        self.position: dict[int, int] = {}
        self.spare: list[Row] = []
        for row in self.rows:
            key = (
                *(self._row_track(row), row.name, row.category or "", row.join_args),
                *(row.ts, row.dur),
            )
            if waiting.get(key):
                self.position[row.id] = waiting[key].pop(0)
            else:
                self.spare.append(row)
        self.dropped = {item for items in waiting.values() for item in items}

    def _row_track(self, row: Row) -> Any:
        if row.process in self._text_pids:
            return (row.process, row.thread)
        return (row.pid, row.tid)

    def track_of(self, pid: int | str, tid: int | str) -> Any:
        """Process and thread as the importer numbers them."""
        if isinstance(pid, str):
            return (
                self._loaded.process_names.get(pid, pid),
                self._loaded.thread_names.get((pid, tid), str(tid)),
            )
        new_pid = pid if 0 <= pid < 2**32 else 0
        new_tid = tid if isinstance(tid, int) and 0 <= tid < 2**32 else 0
        return (new_pid, new_tid or new_pid)

    def is_merged(self, event: oracle.Complete) -> bool:
        """Whether the importer has thrown the event's thread together with another one."""
        return len(self.tracks[self.track_of(event.pid, event.tid)]) > 1


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[Engine, Engine]]:
    with open_engine(None) as ours, open_engine(None) as theirs:
        yield ours, theirs


@pytest.fixture(scope="module", params=SMALL or [None])
def loaded(request: pytest.FixtureRequest, engines: tuple[Engine, Engine]) -> Loaded:
    if request.param is None:
        pytest.skip(NO_CORPUS)
    path = CORPUS / request.param
    ours, theirs = engines
    data = read_trace(path)
    layout = arrange(data)
    ours.load(encode(data, layout))
    found = join(data, layout)
    assert found is not None
    check_same(found, asked(ours))
    text = oracle.plain_text(path)
    return Loaded(
        name=request.param,
        events=oracle.parse(text),
        text=text,
        data=data,
        rows=read_rows(ours),
        flows=ours.query("SELECT slice_out, slice_in FROM flow").rows(),
        health=ours.health(),
        json_engine=theirs,
    )


# Whole and exact -----------------------------------------------------------------------------


def test_every_complete_event_is_a_slice(loaded: Loaded) -> None:
    expected = Counter((e.name, e.cat, e.ts, e.dur) for e in loaded.complete)
    expected.update(
        (e.get("name") or oracle.NO_NAME, e.get("cat") or "", oracle.nanoseconds(e["ts"]), 0)
        for e in loaded.instants
    )
    got = Counter((r.name, r.category or "", r.ts, r.dur) for r in loaded.rows)
    assert got == expected


def test_slices_stand_on_their_own_track_with_their_arguments(loaded: Loaded) -> None:
    _, spare, missing = loaded.matched
    assert missing == []
    assert len(spare) == len(loaded.instants)
    assert all(row.dur == 0 for row in spare)


def test_parents_are_the_innermost_containers(loaded: Loaded) -> None:
    # Nothing is excluded. Intervals are half open (see oracle.contains): a slice without length
    # at the very end of another is beside it, not in it. Closed intervals would decide that
    # otherwise for slices of duration 0 only, which the last lines make sure of.
    found, _, _ = loaded.matched
    wrong = []
    for row in loaded.rows:
        if row.id not in found:
            continue
        event, expected = loaded.complete[found[row.id]], loaded.parents[found[row.id]]
        parent_id = row.parent_id if row.override is None else row.override
        parent = None if parent_id is None else loaded.complete[found[parent_id]]
        if parent is not expected:
            wrong.append((event, parent, expected))
    assert wrong[:3] == []
    at_the_end = [
        event
        for event, parent in zip(loaded.complete, loaded.parents, strict=True)
        if parent is not None and parent.end == event.ts and parent.dur > 0
    ]
    assert at_the_end == []


def test_overrides_are_only_on_slices_without_a_parent(loaded: Loaded) -> None:
    both = [row for row in loaded.rows if row.override is not None and row.parent_id is not None]
    assert both == []


def test_the_engine_has_no_complaint(loaded: Loaded) -> None:
    assert loaded.health == []


def test_the_ledger_adds_up(loaded: Loaded) -> None:
    ledger = loaded.data.ledger
    for phase, category, tally in ledger.rows():
        assert tally.read == tally.loaded + tally.not_carried + tally.unreadable, (phase, category)
        assert min(tally.loaded, tally.not_carried, tally.unreadable) >= 0, (phase, category)
        assert tally.on_overflow_lane + tally.clamped <= 2 * tally.loaded, (phase, category)
    read = Counter()
    for phase, category, tally in ledger.rows():
        read[phase, category] += tally.read
    in_file = Counter((e.get("ph") or "?", e.get("cat") or "") for e in loaded.events)
    assert +read == in_file
    assert ledger.total.unreadable == 0


def test_the_ledger_says_what_the_engine_holds(loaded: Loaded) -> None:
    by_phase: Counter[str] = Counter()
    for phase, _, tally in loaded.data.ledger.rows():
        by_phase[phase] += tally.loaded
    assert len(loaded.rows) == by_phase["X"] + by_phase["i"] + by_phase["I"] + by_phase["R"]
    assert len(loaded.flows) == by_phase["t"] + by_phase["f"]


# Against trace_processor's JSON importer -----------------------------------------------------


def test_json_import_keeps_nothing_that_is_not_here(loaded: Loaded) -> None:
    # Its rows are looked up by its own arithmetic for times and ids, and by category ('' where it
    # gives NULL) and the joining arguments; what remains are the instants, which it puts on a
    # track of their own where their scope says so.
    theirs = loaded.json_import
    instants = Counter((e["name"], json_importer_ns(e["ts"])) for e in loaded.instants)
    assert Counter((row.name, row.ts) for row in theirs.spare) == instants
    # What it lost, it lost for one reason: slices that overlap without nesting, many of them only
    # because times were rounded or threads were merged.
    assert len(theirs.dropped) == theirs.stats.get("slice_drop_overlapping_complete_event", 0)
    assert set(theirs.stats) <= {"slice_drop_overlapping_complete_event"}


def test_json_import_rounds_times_within_its_bound(loaded: Loaded) -> None:
    # ±1 ns from about 4.4e12 µs, ±125 ns at µs since 1970 (facts, section 2: ts and dur). Since
    # rows of both engines are equal to the events they were matched with, so are they to another.
    largest = 0
    for event in loaded.complete:
        times = loaded.events[event.index]
        for key, exact in (("ts", event.ts), ("dur", event.dur)):
            error = abs(json_importer_ns(times[key]) - exact)
            assert error <= json_importer_error(times[key])
            largest = max(largest, error)
    assert largest <= (1 if max(event.ts for event in loaded.complete) < 2**43 * 1000 else 250)


def test_json_import_has_the_same_parents(loaded: Loaded) -> None:
    theirs = loaded.json_import
    kept_apart = [
        (event, expected, row)
        for row in theirs.rows
        if (position := theirs.position.get(row.id)) is not None
        for event, expected in [(loaded.complete[position], loaded.parents[position])]
        # Threads thrown together (ids below zero → 0, thread 0 → thread p) share one stack.
        if not theirs.is_merged(event)
    ]
    dropped = {id(loaded.complete[position]) for position in theirs.dropped}
    wrong = []
    for event, expected, row in kept_apart:
        position = theirs.position.get(row.parent_id)
        parent = None if position is None else loaded.complete[position]
        if parent is expected or id(expected) in dropped:
            continue  # children of a dropped slice hang on its parent
        wrong.append((event, parent, expected))
    assert wrong[:3] == []


def test_json_import_has_the_same_flows(loaded: Loaded) -> None:
    found, _, _ = loaded.matched
    theirs = loaded.json_import
    ours = Counter((found.get(out, -1), found.get(into, -1)) for out, into in loaded.flows)
    others = Counter(
        (theirs.position.get(out, -1), theirs.position.get(into, -1)) for out, into in theirs.flows
    )
    assert sum(ours.values()) == sum(others.values())
    # An arrow may differ only where an end of it was dropped (it then binds to whatever slice is
    # open there) or stands on a track that the importer has merged with another.
    for arrow in ours - others:
        ends = [loaded.complete[position] for position in arrow if position >= 0]
        excused = any(position in theirs.dropped for position in arrow)
        assert excused or any(theirs.is_merged(event) for event in ends), ends


# Figures -------------------------------------------------------------------------------------

UNDER_GDN = """
SELECT s.name, COUNT(*), SUM(s.dur) / 1000.0 FROM slice s
WHERE s.name GLOB '{}'
  AND EXISTS (SELECT 1 FROM ancestor_slice(s.id) a WHERE a.name LIKE '%GatedDeltaNet%')
GROUP BY s.name
"""
SCOPES = """
SELECT COUNT(*) FROM slice s WHERE s.name LIKE '%GatedDeltaNet%' AND NOT EXISTS
  (SELECT 1 FROM ancestor_slice(s.id) a WHERE a.name LIKE '%GatedDeltaNet%')
"""
KERNELS = "SELECT COUNT(*), SUM(dur) / 1000.0 FROM slice WHERE category = 'kernel'"

FIGURES = {
    "gdn-h200/einops-0.json.gz": [
        ("*einops.py(561): rearrange", 30, 827.462),
        ("aten::flatten", 60, 207.521),
    ],
    "gdn-h200/flatten-0.json.gz": [
        ("<built-in method flatten of Tensor object at 0x*>", 30, 210.500),
        ("aten::flatten", 90, 304.711),
    ],
}


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_figures_of_the_small_traces(corpus: Path, engine: Engine, name: str) -> None:
    data = read_trace(corpus / name)
    engine.load(encode(data, arrange(data)))
    for pattern, calls, total in FIGURES[name]:
        rows = engine.query(UNDER_GDN.format(pattern)).rows()
        assert sum(row[1] for row in rows) == calls
        assert sum(row[2] for row in rows) == pytest.approx(total, abs=1e-6)
    assert engine.query(SCOPES).rows() == [(30,)]
    assert engine.query(KERNELS).rows()[0][0] == 2729
    complete = sum(tally.read for phase, _, tally in data.ledger.rows() if phase == "X")
    if name.endswith("einops-0.json.gz"):
        assert complete == 41_664


REARRANGE_QUERY = """
SELECT s.name, COUNT(*) AS call_count,
       AVG(s.dur)/1000.0 AS avg_dur_us, SUM(s.dur)/1000.0 AS total_dur_us
FROM slice s
WHERE s.name LIKE '%rearrange%'
  AND EXISTS (SELECT 1 FROM ancestor_slice(s.id) a WHERE a.name LIKE '%GatedDeltaNet%')
GROUP BY s.name;
"""
FLATTEN_QUERY = """
SELECT s.name, COUNT(*) AS call_count,
       AVG(s.dur)/1000.0 AS avg_dur_us, SUM(s.dur)/1000.0 AS total_dur_us,
       MIN(s.dur)/1000.0 AS min_dur_us, MAX(s.dur)/1000.0 AS max_dur_us
FROM slice s
WHERE s.name LIKE '%flatten%'
  AND EXISTS (SELECT 1 FROM ancestor_slice(s.id) a WHERE a.name LIKE '%GatedDeltaNet%')
GROUP BY s.name;
"""


@dataclass
class Large:
    """The large trace, loaded once."""

    data: TraceData
    engine: Engine


@pytest.fixture(scope="session")
def large(corpus: Path) -> Iterator[Large]:
    if not (corpus / LARGE).is_file():
        pytest.skip(f"the corpus has no {LARGE}")
    data = read_trace(corpus / LARGE)
    with open_engine(None) as opened:
        opened.load(encode(data, arrange(data)))
        yield Large(data, opened)


def test_large_trace_is_whole(large: Large) -> None:
    assert large.engine.health() == []
    complete = [tally for phase, _, tally in large.data.ledger.rows() if phase == "X"]
    assert sum(tally.read for tally in complete) == 805_402
    assert sum(tally.loaded for tally in complete) == 805_402
    for _, _, tally in large.data.ledger.rows():
        assert tally.read == tally.loaded + tally.not_carried + tally.unreadable
    slices = sum(t.loaded for phase, _, t in large.data.ledger.rows() if phase in ("X", "i"))
    assert large.engine.query("SELECT COUNT(*) FROM slice").rows() == [(slices,)]
    ends = sum(t.loaded for phase, _, t in large.data.ledger.rows() if phase in ("t", "f"))
    assert large.engine.query("SELECT COUNT(*) FROM flow").rows() == [(ends,)]


def test_large_trace_keeps_all_kernels(large: Large) -> None:
    [(count, total)] = large.engine.query(KERNELS).rows()
    assert count == 65_334
    assert total == pytest.approx(339_100.703, abs=1e-6)


def test_large_trace_answers_the_queries_as_they_stand(large: Large) -> None:
    [(name, calls, average, total)] = large.engine.query(REARRANGE_QUERY).rows()
    assert name.endswith("einops/einops.py(561): rearrange")
    assert calls == 720
    assert average == pytest.approx(27.335922, abs=1e-6)
    assert total == pytest.approx(19_681.864, abs=1e-6)
    rows = {row[0]: row[1:] for row in large.engine.query(FLATTEN_QUERY).rows()}
    calls, average, total, shortest, longest = rows["aten::flatten"]
    assert calls == 1440
    assert total == pytest.approx(5_432.310, abs=1e-6)
    assert shortest <= average <= longest
    assert average == pytest.approx(total / calls)
