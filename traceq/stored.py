"""A trace's joined slices, facts and ledger as bytes, and back: what the cache holds of a file.

Numbers become small where they allow that (differences of what rises, the shortest type that
fits) and are compressed array by array. Where the bytes are kept is left to ``cache``, whose
checksums they rely on.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import zstandard
from numpy.typing import NDArray

from traceq.info import CategoryCount, TraceInfo
from traceq.model import (
    ForwardOps,
    Ints,
    JoinedTrace,
    Launches,
    Ledger,
    Shapes,
    SliceTable,
    Tally,
)

_LENGTH = struct.Struct("<Q")
_LEVEL = 1
_TABLES: dict[str, Any] = {
    "slices": SliceTable,
    "launches": Launches,
    "forward_ops": ForwardOps,
    "shapes": Shapes,
}


@dataclass(frozen=True, slots=True)
class StoredTrace:
    """What is kept of a trace file: all that its tables are made of."""

    info: TraceInfo
    ledger: Ledger
    joined: JoinedTrace

    def pack(self) -> list[bytes]:
        """The bytes of it, in parts."""
        writer = _Writer()
        tables = {name: writer.table(getattr(self.joined, name)) for name in _TABLES}
        head = {
            "info": dataclasses.asdict(self.info),
            "ledger": _ledger_dict(self.ledger),
            "tables": tables,
        }
        first = _compress(json.dumps(head).encode())
        return [_LENGTH.pack(len(first)), first, *writer.frames]

    @classmethod
    def unpack(cls, content: memoryview, path: str) -> Self:
        """From the bytes of :meth:`pack`, made one; ``path`` is where the file is now."""
        (length,) = _LENGTH.unpack_from(content)
        start = _LENGTH.size + length
        head = json.loads(_decompress(content[_LENGTH.size : start]))
        reader = _Reader(content[start:])
        tables = {
            name: kind(**reader.table(head["tables"][name])) for name, kind in _TABLES.items()
        }
        return cls(_info(head["info"], path), _ledger(head["ledger"]), JoinedTrace(**tables))


# Columns ------------------------------------------------------------------------------------


class _Writer:
    """Collects the compressed arrays of tables."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def table(self, table: Any) -> dict[str, Any]:
        """Texts as they are; arrays by how they are read back."""
        return {name: self._column(getattr(table, name)) for name in table.__slots__}

    def _column(self, values: Ints | list[str]) -> Any:
        if isinstance(values, list):
            return {"texts": values}
        base, rises, small = _narrow(values)
        self.frames.append(_compress(small.tobytes()))
        return {
            "type": str(small.dtype),
            "base": base,
            "rises": rises,
            "size": len(self.frames[-1]),
        }


class _Reader:
    """Reads the arrays back, in their order."""

    def __init__(self, content: memoryview) -> None:
        self._content = content

    def table(self, columns: dict[str, Any]) -> dict[str, Any]:
        """The arguments of the table's class."""
        return {name: self._column(how) for name, how in columns.items()}

    def _column(self, how: dict[str, Any]) -> Ints | list[str]:
        if "texts" in how:
            texts: list[str] = how["texts"]
            return texts
        frame, self._content = self._content[: how["size"]], self._content[how["size"] :]
        values = np.frombuffer(_decompress(frame), how["type"]).astype(np.int64)
        if how["rises"]:
            np.cumsum(values, out=values)
        values += how["base"]
        return values


def _narrow(values: Ints) -> tuple[int, bool, NDArray[Any]]:
    """Numbers as their distance from a base, or from the one before where they rise."""
    if not len(values):
        return 0, False, values
    low, high = int(values.min()), int(values.max())
    if high - low >= 2**63:
        return 0, False, values
    rises = bool((values[1:] >= values[:-1]).all())
    small = np.diff(values, prepend=low) if rises else values - low
    return low, rises, small.astype(np.min_scalar_type(int(small.max())))


def _compress(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=_LEVEL).compress(content)


def _decompress(frame: memoryview) -> bytes:
    return zstandard.ZstdDecompressor().decompress(frame)


# Facts --------------------------------------------------------------------------------------


def _info(facts: dict[str, Any], path: str) -> TraceInfo:
    facts |= {name: tuple(facts[name]) for name in ("gpus", "flags", "processes")}
    facts["categories"] = tuple(CategoryCount(**item) for item in facts["categories"])
    return TraceInfo(**(facts | {"path": path}))


def _ledger_dict(ledger: Ledger) -> dict[str, Any]:
    tallies = [[*key, dataclasses.astuple(tally)] for key, tally in ledger.tallies.items()]
    return {"tallies": tallies, "reasons": dict(ledger.reasons), "notes": ledger.notes}


def _ledger(facts: dict[str, Any]) -> Ledger:
    tallies = {(phase, category): Tally(*tally) for phase, category, tally in facts["tallies"]}
    return Ledger(tallies, Counter(facts["reasons"]), facts["notes"])
