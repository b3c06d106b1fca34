"""One capture, as it was read, in few bytes: every call and kernel of its scopes, to the ns.

Numbers go in columns: differences where these are small, the fewest bytes each, bytes of one place
side by side (as Blosc's shuffle has it), then zstd. What follows from other columns is worked out
again. Where the bytes are kept is left to ``store``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import zstandard

from traceq.comparability import CaptureFacts
from traceq.errors import HistoryError
from traceq.kernels import KERNEL_FIELDS
from traceq.model import Field, Ints, Tally
from traceq.ops import OP_FIELDS
from traceq.outline import Outline, Vocabulary, rebuild
from traceq.reading import Reading, ScopeTotals, ScopeWork, Words

VERSION = 1
"""Of the packed form; a file that holds a later one is refused."""

LEVEL = 12
"""Of zstd: of the large trace 749 kB in 0.08 s; level 3 makes 770 kB, 19 731 kB in seven times
the time."""

MOST, MOST_TIMES = 64 << 20, 1000
"""Bytes that are unpacked at most, and besides so many times those that are packed; the large trace
takes 5 MB, 7 times as much as it takes packed."""

_WIDTHS = (np.int8, np.int16, np.int32, np.int64)
_FEW_CHANGES = frozenset({"slice", "parent", "around", "scope", "step", "node", "order"})
"""Columns in which neighbours are near each other."""


class _Column(msgspec.Struct, frozen=True):
    width: int
    data: bytes


class _Table(msgspec.Struct, frozen=True):
    types: dict[str, str]
    values: dict[str, list[int | float | str | None]]


class _Packed(msgspec.Struct, frozen=True):
    version: int
    path: str
    under: tuple[str, ...]
    spans: int | None
    step_source: str
    facts: CaptureFacts
    names: tuple[str, ...]
    doubts: tuple[str, ...]
    ops: _Table
    kernels: _Table
    variants: dict[str, list[str]]
    totals: ScopeTotals
    outside: dict[str, int]
    sha256: str | None
    events: Tally | None
    words: dict[str, list[str]]
    scopes: tuple[str, ...]
    columns: dict[str, _Column]


def pack(capture: Reading) -> bytes:
    """A capture as bytes."""
    outline, work, words = capture.outline, capture.work, capture.words
    op, ops = _numbered(outline.op, words.ops)
    short, shorts = _numbered(work.short, words.kernels)
    full, fulls = _numbered(work.full, words.full_names)
    columns = {
        "slice": outline.slice,
        "parent": outline.parent,
        "around": outline.around,
        "op": op,
        "dur": outline.dur,
        "on_lane": outline.on_lane,
        "step": outline.step,
        "shapes": capture.shapes,
        "node": work.node,
        "order": work.order,
        "time": work.dur,
        "short": short,
        "full": full,
    }
    packed = _Packed(
        version=VERSION,
        ops=_pack_table(capture.ops),
        kernels=_pack_table(capture.kernels),
        variants={name: sorted(names) for name, names in capture.variants.items()},
        words={"ops": ops, "short": shorts, "full": fulls},
        scopes=outline.name,
        columns={name: _pack_column(name, values) for name, values in columns.items()},
        **{name: getattr(capture, name) for name in _AS_THEY_ARE},
    )
    packer = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
    return packer.compress(msgspec.msgpack.encode(packed))


_AS_THEY_ARE = (
    *("path", "under", "spans", "step_source", "facts", "names", "doubts", "totals", "outside"),
    *("sha256", "events"),
)


def unpack(data: bytes, words: Words) -> Reading:
    """The capture again, by the vocabularies of a comparison; ``trace`` is None.

    Raises HistoryError for bytes that are damaged, or of a later version.
    """
    with _damage_told():
        return _unpack(data, words)


@contextmanager
def _damage_told() -> Iterator[None]:
    try:
        yield
    except (zstandard.ZstdError, msgspec.MsgspecError, *_DAMAGE) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HistoryError(
            f"a recorded capture cannot be read: {text}", hint="Record its trace again."
        ) from error


_DAMAGE = (
    *(ValueError, IndexError, KeyError, TypeError, AttributeError),
    *(MemoryError, RecursionError, OverflowError),
)
"""What numbers that do not fit each other come to."""


def _plain(data: bytes) -> bytes:
    """What was packed, as msgpack has it. Raises HistoryError for a later form."""
    if zstandard.frame_content_size(data) > MOST + MOST_TIMES * len(data):
        raise ValueError("it would take far more memory than a capture does")
    plain = zstandard.decompress(data)
    if msgspec.msgpack.decode(plain, type=_Versioned).version > VERSION:
        raise HistoryError(
            "a capture was recorded by a later version of traceq",
            hint="Use that version, or later.",
        )
    return plain


def _unpack(data: bytes, words: Words) -> Reading:
    packed = msgspec.msgpack.decode(_plain(data), type=_Packed)
    columns = {name: _unpack_column(name, item) for name, item in packed.columns.items()}
    outline = _outline(packed, columns, words)
    lengths = {"op": "ops", "short": "short", "full": "full"}
    _check(outline, columns, {name: len(packed.words[key]) for name, key in lengths.items()})
    return Reading(
        ops=_unpack_table(packed.ops, OP_FIELDS),
        kernels=_unpack_table(packed.kernels, KERNEL_FIELDS),
        variants={name: frozenset(names) for name, names in packed.variants.items()},
        outline=outline,
        work=_work(packed, columns, words),
        shapes=columns["shapes"],
        words=words,
        **{name: getattr(packed, name) for name in _AS_THEY_ARE},
    )


class _WithFacts(msgspec.Struct):
    """What is known of the capture alone."""

    facts: CaptureFacts


def packed_facts(data: bytes) -> CaptureFacts:
    """The facts of a packed capture, without unpacking it. Raises HistoryError as ``unpack``."""
    with _damage_told():
        return msgspec.msgpack.decode(_plain(data), type=_WithFacts).facts


class _Versioned(msgspec.Struct):
    """The version alone, which a later form has as well."""

    version: int


def _check(outline: Outline, columns: Mapping[str, Ints], words: Mapping[str, int]) -> None:
    """Raises ValueError where columns are not of one length, or name what is not there."""
    calls, work = len(outline), len(columns["node"])
    lengths = {"shapes": calls, "around": calls, "on_lane": calls, "dur": calls, "slice": calls}
    lengths |= dict.fromkeys(("order", "time", "short", "full"), work)
    if any(len(columns[name]) != length for name, length in lengths.items()):
        raise ValueError("columns of other lengths")
    ranges = {"node": (0, calls), "parent": (-1, calls), "around": (-1, calls)}
    ranges |= {"step": (-1, max(len(outline.scopes), 1)), "dur": (0, 1 << 62)}
    ranges |= {"time": (0, 1 << 62), **{name: (0, count) for name, count in words.items()}}
    for name, (low, high) in ranges.items():
        values = columns[name]
        if len(values) and not (low <= values.min() and values.max() < high):
            raise ValueError(f"{name} out of range")


def _outline(packed: _Packed, columns: Mapping[str, Ints], words: Words) -> Outline:
    return rebuild(
        slice_=columns["slice"],
        parent=columns["parent"],
        around=columns["around"],
        op=_renumbered(columns["op"], packed.words["ops"], words.ops),
        dur=columns["dur"],
        on_lane=columns["on_lane"].astype(np.bool_),
        name=packed.scopes,
        step=columns["step"],
    )


def _work(packed: _Packed, columns: Mapping[str, Ints], words: Words) -> ScopeWork:
    return ScopeWork(
        node=columns["node"],
        order=columns["order"],
        dur=columns["time"],
        short=_renumbered(columns["short"], packed.words["short"], words.kernels),
        full=_renumbered(columns["full"], packed.words["full"], words.full_names),
    )


def _numbered(values: Ints, words: Vocabulary) -> tuple[Ints, list[str]]:
    """Numbers of a capture's own words alone, and these words."""
    used, number = np.unique(values, return_inverse=True)
    known = words.ops
    return number.reshape(-1).astype(np.int64), [known[item] for item in used.tolist()]


def _renumbered(values: Ints, own: Sequence[str], words: Vocabulary) -> Ints:
    number = words.number(own)
    return number[values] if len(values) else values


def _pack_column(name: str, values: Any) -> _Column:
    whole = np.asarray(values, np.int64)
    if name in _FEW_CHANGES:
        whole = np.diff(whole, prepend=0)
    low, high = (int(whole.min()), int(whole.max())) if len(whole) else (0, 0)
    kind = next(w for w in _WIDTHS if np.iinfo(w).min <= low and high <= np.iinfo(w).max)
    narrow = whole.astype(np.dtype(kind).newbyteorder("<"))
    places = np.frombuffer(narrow.tobytes(), np.uint8).reshape(-1, narrow.itemsize)
    return _Column(narrow.itemsize, places.T.tobytes())


def _unpack_column(name: str, column: _Column) -> Ints:
    places = np.frombuffer(column.data, np.uint8).reshape(column.width, -1)
    narrow = np.frombuffer(places.T.tobytes(), np.dtype(f"<i{column.width}"))
    whole = narrow.astype(np.int64)
    return np.cumsum(whole, dtype=np.int64) if name in _FEW_CHANGES else whole


def _pack_table(table: pd.DataFrame) -> _Table:
    columns = [str(name) for name in table.columns]
    types = {name: str(table[name].dtype) for name in columns}
    missing = {name: table[name].isna() for name in columns}
    values = {
        name: table[name].astype(object).where(~missing[name], None).tolist() for name in columns
    }
    return _Table(types, values)


def _unpack_table(table: _Table, fields: Sequence[Field]) -> pd.DataFrame:
    """Raises ValueError for other columns than those of ``fields``, or other types."""
    if list(table.values) != [field.name for field in fields] or table.types.keys() != {
        *table.values
    }:
        raise ValueError("other columns")
    if not {*table.types.values()} <= _TYPES:
        raise ValueError("columns of other types")
    return pd.DataFrame(table.values).astype(table.types)


_TYPES = frozenset({"object", "str", "int64", "Int64", "float64", "bool"})
