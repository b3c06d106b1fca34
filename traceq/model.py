"""The data that passes between the layers: a trace as columns, and the ledger of its events.

Times are integer nanoseconds, sizes are bytes. Nothing here reads, writes or computes; the reader
(``kineto``) fills the first, ``layout`` and ``fxt`` consume them; the last are what tables are made
of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
ArgKind = Literal["int", "float", "bool", "string"]

UNKNOWN = "?"
"""Phase and category of an event that could not be read well enough to tell."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column or parameter: SQL type, unit (empty: none) and meaning."""

    name: str
    type: str
    unit: str
    doc: str

    def __deepcopy__(self, memo: object) -> Field:
        return self  # pandas copies a table's attrs at every step


class Track(NamedTuple):
    """A row of the trace as its writer named it: a thread of a process, or a stream of a GPU.

    Kineto writes strings for some of them (``"Spans"``, ``"Traces"``), so both may be text.
    """

    pid: int | str
    tid: int | str


@dataclass(frozen=True, slots=True)
class ArgColumn:
    """One argument over the slices that carry it.

    ``row`` holds slice indices in rising order, ``value`` an equally long array: int64 for
    ``int`` and ``bool``, float64 for ``float``, indices into :attr:`TraceData.strings` for
    ``string``.
    """

    key: str
    kind: ArgKind
    row: Ints
    value: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Slices:
    """Everything with a start and a duration; instants have duration 0 and ``instant`` set.

    All arrays have one entry a slice, in file order: ``ts`` and ``dur`` in ns, ``name`` and
    ``category`` as indices into :attr:`TraceData.strings` (category -1: none), ``track`` as
    indices into :attr:`TraceData.tracks`. ``phase`` is the letter (its code) of the event that
    each was made of, for the ledger: of a begin and its end, ``B``.
    """

    ts: Ints
    dur: Ints
    name: Ints
    category: Ints
    track: Ints
    instant: Bools
    phase: NDArray[np.uint8]
    args: tuple[ArgColumn, ...] = ()

    def __len__(self) -> int:
        return len(self.ts)


@dataclass(frozen=True, slots=True)
class Flows:
    """Ends of arrows between slices, in file order.

    ``key`` numbers the arrow (category, name and id together); ``role`` is 0 for a start, 1 for a
    step, 2 for an end; ``binds_next`` marks ends that belong to the next slice instead of the
    enclosing one; ``category`` indexes strings, for the ledger.
    """

    ts: Ints
    track: Ints
    key: Ints
    role: Ints
    binds_next: Bools
    category: Ints

    def __len__(self) -> int:
        return len(self.ts)


@dataclass(frozen=True, slots=True)
class SliceTable:
    """The slices of a loaded trace as the engine holds them: row number = slice id.

    ``ts`` and ``dur`` in ns; ``name`` and ``category`` index ``names`` and ``categories``, sorted;
    ``parent`` is the id of the innermost slice around each one, -1 for none; ``adopted`` lists the
    ids whose parent is on another lane, since the two overlap others without nesting.
    """

    ts: Ints
    dur: Ints
    name: Ints
    category: Ints
    parent: Ints
    adopted: Ints
    names: list[str]
    categories: list[str]

    def __len__(self) -> int:
        return len(self.ts)

    def of_category(self, *wanted: str) -> Bools:
        """Marks the slices of some categories."""
        return np.isin(np.array(self.categories, object), wanted)[self.category]


class CounterSample(NamedTuple):
    """One value of one counter at one time (ns)."""

    ts: int
    track: int
    name: str
    key: str
    value: int | float


class AsyncEvent(NamedTuple):
    """One end of an asynchronous span: ``role`` 0 begin, 1 instant, 2 end; ``ts`` in ns."""

    ts: int
    track: int
    name: str
    category: str
    id: str
    role: int


@dataclass(slots=True)
class Tally:
    """What became of the events of one phase and category; counts of events."""

    read: int = 0
    loaded: int = 0
    not_carried: int = 0
    unreadable: int = 0
    on_overflow_lane: int = 0
    clamped: int = 0


NO_TIME, OUT_OF_RANGE = UNPLACED = "no usable ts or dur", "time out of range"
"""Why events are not carried that have no place in time."""


@dataclass(slots=True)
class Ledger:
    """The account of every event in the file, by phase and category.

    For each row ``read = loaded + not_carried + unreadable``. Events on an overflow lane and
    clamped ones are among the loaded. ``reasons`` counts why events were not carried, clamped or
    unreadable; ``notes`` are whole sentences on the file itself (cut off, damaged, …).
    """

    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def tally(self, phase: str, category: str | None) -> Tally:
        """The row of a phase and category, made at its first use."""
        return self.tallies.setdefault((phase, category or ""), Tally())

    def add(self, phase: str, category: str | None, *, read: int = 0, loaded: int = 0) -> None:
        """Count events that were read, and events that will be loaded."""
        row = self.tally(phase, category)
        row.read += read
        row.loaded += loaded

    def not_carried(self, phase: str, category: str | None, reason: str, count: int = 1) -> None:
        """Count events that were read whole but have no place in the engine."""
        self.tally(phase, category).not_carried += count
        self.reasons[reason] += count

    def unreadable(self, phase: str, category: str | None, reason: str, count: int = 1) -> None:
        """Count events whose text cannot be made sense of; they count as read as well."""
        row = self.tally(phase, category)
        row.read += count
        row.unreadable += count
        self.reasons[reason] += count

    def clamped(self, phase: str, category: str | None, reason: str, count: int = 1) -> None:
        """Count loaded events of which a value had to be changed."""
        self.tally(phase, category).clamped += count
        self.reasons[reason] += count

    @property
    def total(self) -> Tally:
        """The sum over all phases and categories."""
        return sum_tallies(self.tallies.values())

    def rows(self) -> Iterator[tuple[str, str, Tally]]:
        """``(phase, category, tally)``, most events first."""
        for (phase, category), row in sorted(
            self.tallies.items(), key=lambda item: (-item[1].read, item[0])
        ):
            yield phase, category, row

    def as_dict(self) -> dict[str, Any]:
        """The ledger as plain data, for JSON."""
        return {
            "events": [
                {"phase": phase, "category": category, **tally_dict(row)}
                for phase, category, row in self.rows()
            ],
            "total": tally_dict(self.total),
            "reasons": dict(self.reasons.most_common()),
            "notes": list(self.notes),
        }


def tally_dict(tally: Tally) -> dict[str, int]:
    """A tally as plain data."""
    return {
        "read": tally.read,
        "loaded": tally.loaded,
        "not_carried": tally.not_carried,
        "unreadable": tally.unreadable,
        "on_overflow_lane": tally.on_overflow_lane,
        "clamped": tally.clamped,
    }


def sum_tallies(tallies: Any) -> Tally:
    """Field-wise sum of tallies."""
    total = Tally()
    for row in tallies:
        for name in Tally.__slots__:
            setattr(total, name, getattr(total, name) + getattr(row, name))
    return total


NOT_IN_PART = "not in the part"
"""The ledger's reason for what a part of a trace leaves out."""


def leave_out(ledger: Ledger, phase: str, category: str, count: int) -> None:
    """Count loaded events as not carried; of a slice made of a begin and an end, both."""
    _uncount(ledger, phase, category, count)
    if phase != "B":
        return
    rows = [key for key, row in ledger.tallies.items() if key[0] == "E" and row.loaded]
    for key in sorted(rows, key=lambda key: (key[1] != category, key[1] != "", key)):
        here = min(count, ledger.tallies[key].loaded)
        _uncount(ledger, *key, here)
        count -= here


def _uncount(ledger: Ledger, phase: str, category: str, count: int) -> None:
    if not count:
        return
    row = ledger.tally(phase, category)
    row.loaded -= count
    row.clamped = min(row.clamped, row.loaded)  # whether these were is not known
    ledger.not_carried(phase, category, NOT_IN_PART, count)


@dataclass(frozen=True, slots=True)
class TraceData:
    """A whole trace in columns, as the reader leaves it.

    ``process_names`` is keyed by pid, ``thread_names`` by track; ``metadata`` holds the trace's
    top-level keys other than ``traceEvents``; ``labels`` are Kineto's process labels by pid
    (``"GPU 0"``).
    """

    strings: list[str]
    tracks: list[Track]
    slices: Slices
    flows: Flows
    counters: list[CounterSample]
    asyncs: list[AsyncEvent]
    process_names: dict[int | str, str]
    thread_names: dict[Track, str]
    labels: dict[int | str, str]
    metadata: dict[str, Any]
    ledger: Ledger


# What every table is computed from ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Launches:
    """GPU activities (kernels, copies, sets), one entry each, by rising slice id.

    ``launch`` is the id of the call or op that launched each one; -1 where the trace does not
    tell, as for ``device`` and ``stream``.
    """

    id: Ints
    device: Ints
    stream: Ints
    launch: Ints


@dataclass(frozen=True, slots=True)
class ForwardOps:
    """Ops of backward passes by rising slice id, each with the op of the forward pass behind it."""

    id: Ints
    forward: Ints


@dataclass(frozen=True, slots=True)
class Shapes:
    """Ops with their inputs' shapes, by rising slice id; ``text`` indexes ``texts`` (JSON)."""

    id: Ints
    text: Ints
    texts: list[str]


class Joined(Protocol):
    """A trace's slices and what joins them: all that its tables are computed from.

    Read from the file (``joins``) or asked of an engine (``asking``); both are the same.
    """

    @property
    def slices(self) -> SliceTable:
        """All slices, by id."""

    @property
    def launches(self) -> Launches:
        """All GPU activities, with what launched them."""

    @property
    def forward_ops(self) -> ForwardOps:
        """What backward ops belong to."""

    @property
    def shapes(self) -> Shapes:
        """The shapes of the inputs of ops, where these were recorded."""


@dataclass(frozen=True, slots=True)
class JoinedTrace:
    """:class:`Joined`, at hand."""

    slices: SliceTable
    launches: Launches
    forward_ops: ForwardOps
    shapes: Shapes
