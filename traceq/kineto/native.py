"""Runs ``scanner.wat`` over chunks of events: the plain ones as columns, the rest as text.

The scanner is WebAssembly so that it runs at native speed everywhere without a compiler at
install time, and cannot touch anything but its own memory whatever the trace holds. Decoding what
it hands back as text is left to ``events``, what the columns mean to ``columns``.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from traceq.model import Ints

if TYPE_CHECKING:
    import wasmtime

WORTHWHILE = 2 << 20
"""Bytes of text below which compiling the scanner (25 ms) takes longer than doing without it."""

EVENT_KEYS = ("ph", "cat", "name", "pid", "tid", "ts", "dur", "args", "id", "bp")
INTEGER_ARGS = (
    "correlation",
    "External id",
    "stream",
    "device",
    "Sequence number",
    "Fwd thread id",
    "bytes",
    "graph id",
    "graph node id",
    "In msg nelems",
    "Out msg nelems",
    "Group size",
)
TEXT_ARGS = ("Input Dims", "Input type")
RARE_ARGS = ("Collective name", "dtype", "Process Group Name", "Process Group Ranks")
"""Where one of these is there, the scanner hands back the arguments of the event as text."""

_SLICES, _FLOWS, _OTHERS, _RAW_ARGS, _ARGS = range(5)  # numbers of lists, as in the scanner
_FIRST_COLUMN = {_SLICES: 0, _FLOWS: 4, _OTHERS: 9, _RAW_ARGS: 12, _ARGS: 15}
_LISTS = _ARGS + len(INTEGER_ARGS) + len(TEXT_ARGS)
_KEY_TEXT = 24
_SLACK = 64  # zeros behind the text: the scanner reads 16 bytes at a time

Item = TypeVar("Item")


class PlainSlices(NamedTuple):
    """Complete events: position among all events of the chunk, number of the kind, times in ns."""

    position: Ints
    kind: Ints
    ts: Ints
    dur: Ints


class PlainFlows(NamedTuple):
    """Starts and ends of flows; ``encloses`` is 1 where ``bp`` says so, else 0."""

    position: Ints
    kind: Ints
    ts: Ints
    id: Ints
    encloses: Ints


class Spans(NamedTuple):
    """Pieces of the chunk's text, and the event or the slice that each belongs to."""

    of: Ints
    start: Ints
    end: Ints


class PlainArg(NamedTuple):
    """One argument over the slices that carry it; values are integers, or numbers of texts."""

    slice: Ints
    value: Ints


@dataclass(frozen=True, slots=True)
class PlainEvents:
    """What the scanner found in one chunk; the arrays and texts last until it scans the next.

    ``kinds`` and ``values`` hold what the kinds and the text arguments are numbers of. They grow
    from chunk to chunk, or are new lists where the numbers start again from 0.
    """

    count: int
    slices: PlainSlices
    flows: PlainFlows
    others: Spans
    raw_args: Spans
    integer_args: dict[str, PlainArg]
    text_args: dict[str, PlainArg]
    kinds: Sequence[Any]
    values: Sequence[Any]
    memory: NDArray[np.uint8]

    def texts(self, spans: Spans) -> list[bytes]:
        """The texts of some pieces."""
        text: Any = self.memory.data
        bounds = zip(spans.start.tolist(), spans.end.tolist(), strict=True)
        return [bytes(text[start:end]) for start, end in bounds]


class EventScanner:
    """One running scanner; ``decode_kind`` makes of the text of a kind what ``kinds`` holds.

    ``decode_kind`` gives None where it cannot; a chunk with such an event is not plain.
    """

    def __init__(self, decode_kind: Callable[[bytes], Any], *, raw_args: bool) -> None:
        self._machine = _Machine()
        self._raw_args = raw_args
        self._seed = secrets.randbits(63)
        self._kinds = _TextSet(self._machine, "KINDS", decode_kind)
        self._values = _TextSet(self._machine, "VALUES", bytes)

    def scan(self, text: bytearray, end: int) -> PlainEvents | None:
        """Scan the events in ``text[:end]``, separated by commas; None where they are not plain."""
        if end > self._machine.most_text:
            return None
        self._kinds.make_room()
        self._values.make_room()
        self._machine.put_text(text, end)
        count = self._machine.scan(end, self._seed, self._raw_args)
        self._kinds.update()
        self._values.update()
        return self._result(count) if count else None

    def _result(self, count: int) -> PlainEvents | None:
        slices = PlainSlices(*self._columns(_SLICES, 4))
        flows = PlainFlows(*self._columns(_FLOWS, 5))
        if self._kinds.has_failed(slices.kind) or self._kinds.has_failed(flows.kind):
            return None
        args = [PlainArg(*self._columns(number, 2)) for number in range(_ARGS, _LISTS)]
        return PlainEvents(
            count=count,
            slices=slices,
            flows=flows,
            others=Spans(*self._columns(_OTHERS, 3)),
            raw_args=Spans(*self._columns(_RAW_ARGS, 3)),
            integer_args=dict(zip(INTEGER_ARGS, args, strict=False)),
            text_args=dict(zip(TEXT_ARGS, args[len(INTEGER_ARGS) :], strict=True)),
            kinds=self._kinds.items,
            values=self._values.items,
            memory=self._machine.text,
        )

    def _columns(self, number: int, width: int) -> list[Ints]:
        """The columns of a list, by its number in the scanner."""
        first = _FIRST_COLUMN[min(number, _ARGS)] + 2 * max(0, number - _ARGS)
        length = int(self._machine.counts[number])
        return list(self._machine.columns[first : first + width, :length])


class _TextSet(Generic[Item]):
    """The host's side of a set of texts in the scanner: ``items`` are the decoded ones."""

    def __init__(
        self, machine: _Machine, name: str, decode: Callable[[bytes], Item | None]
    ) -> None:
        self.items: list[Item | None] = []
        self._machine = machine
        self._address = machine.address(name)
        self._used = machine.view(name, np.int32, 2)  # texts, bytes
        self._entries = machine.view(name, np.int32, 4 << 15, offset=262160).reshape(-1, 4)
        self._decode = decode
        self._failed: list[int] = []

    def make_room(self) -> None:
        """Start again when half full, so that a chunk seldom finds the set full."""
        if self._used[0] > 1 << 14 or self._used[1] > 1 << 21:
            self._machine.forget(self._address)
            self.items, self._failed = [], []

    def update(self) -> None:
        """Decode the texts that are new."""
        first, count = len(self.items), int(self._used[0])
        for number, (address, length) in enumerate(self._entries[first:count, 2:].tolist(), first):
            text = self._machine.memory[address : address + length].tobytes()
            self.items.append(self._decode(text))
            if self.items[-1] is None:
                self._failed.append(number)

    def has_failed(self, numbers: Ints) -> bool:
        """Whether any of these could not be decoded."""
        return bool(self._failed) and bool(np.isin(numbers, self._failed).any())


class _Machine:
    """The scanner's instance, and its memory as arrays."""

    def __init__(self) -> None:
        import wasmtime

        engine, module = _compiled()
        self._store = wasmtime.Store(engine)
        self._exports = wasmtime.Instance(self._store, module, []).exports(self._store)
        memory: Any = self._exports["memory"]
        size = memory.data_len(self._store)
        base = ctypes.addressof(memory.data_ptr(self._store).contents)
        self.memory = np.frombuffer((ctypes.c_ubyte * size).from_address(base), np.uint8)
        self.most_text = self.address("MOST_TEXT") - _SLACK
        self.text = self.memory[self.address("TEXT") :]
        self.counts = self.view("COUNTS", np.int32, _LISTS)
        height = self.address("MOST_EVENTS")
        columns = _FIRST_COLUMN[_ARGS] + 2 * (_LISTS - _ARGS)
        self.columns = self.view("COLUMNS", np.int64, columns * height).reshape(columns, height)
        self._write_table("EVENT_KEYS", EVENT_KEYS)
        self._write_table("ARG_KEYS", (*INTEGER_ARGS, *TEXT_ARGS, *RARE_ARGS))

    def address(self, name: str) -> int:
        """The value of a constant of the scanner."""
        constant: Any = self._exports[name]
        return int(constant.value(self._store))

    def view(self, name: str, dtype: Any, length: int, *, offset: int = 0) -> NDArray[Any]:
        """Part of the memory as numbers."""
        start = self.address(name) + offset
        return self.memory[start : start + length * np.dtype(dtype).itemsize].view(dtype)

    def put_text(self, text: bytearray, end: int) -> None:
        """Copy ``text[:end]`` in, zeros behind it."""
        self.text[:end] = np.frombuffer(text, np.uint8, end)
        self.text[end : end + _SLACK] = 0

    def scan(self, length: int, seed: int, raw_args: bool) -> int:
        """How many events there are; 0 where the text is out of form."""
        function: Any = self._exports["scan"]
        return int(function(self._store, length, seed, int(raw_args)))

    def forget(self, address: int) -> None:
        """Empty the set of texts at an address."""
        function: Any = self._exports["forget"]
        function(self._store, address)

    def _write_table(self, name: str, keys: Sequence[str]) -> None:
        """Keys by length, as the scanner's ``lookup`` expects them."""
        numbers = sorted(range(len(keys)), key=lambda number: len(keys[number]))
        directory = self.view(name, np.uint16, 2 * (_KEY_TEXT + 1)).reshape(-1, 2)
        entries = self.view(name, np.uint8, 32 * len(keys), offset=128).reshape(-1, 32)
        for place, number in enumerate(numbers):
            text = keys[number].encode()
            if directory[len(text), 1] == 0:
                directory[len(text), 0] = place
            directory[len(text), 1] += 1
            entries[place, : len(text)] = np.frombuffer(text, np.uint8)
            entries[place, _KEY_TEXT] = number


@functools.cache
def _compiled() -> tuple[wasmtime.Engine, wasmtime.Module]:
    """Compiled once in a process."""
    import wasmtime

    # wasmtime complains when torn down after its own module at the end of the process
    atexit.register(_compiled.cache_clear)
    engine = wasmtime.Engine()
    text = files(__package__).joinpath("scanner.wat").read_text("utf-8")
    return engine, wasmtime.Module(engine, text)
