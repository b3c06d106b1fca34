"""Reads the arguments of slices into columns: a chosen few, or every one.

Scalars keep their type; lists and objects (shapes, grids) become one JSON text, because an event
of the engine's input format holds at most 15 arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Literal

import msgspec
import numpy as np

from traceq.kineto.events import ABSENT, Event, Scalar, lenient_json, plain_json
from traceq.model import ArgColumn, ArgKind

ArgSelection = Literal["default", "all"]

KEY_PREFIX = "args."
"""What trace_processor's JSON importer puts before each argument's name."""

OVERFLOW_KEY = "more"
"""Holds, as one JSON object, the arguments of an event beyond the first fourteen."""

MAX_ARGS = 15

WITHOUT_DEFAULT_ARGS = frozenset({"python_function"})
"""Categories that never carry a default argument; skipping them saves decoding half a trace."""

DEFAULT_KEYS: dict[str, str] = {
    "correlation": "correlation",
    "external_id": "External id",
    "stream": "stream",
    "device": "device",
    "sequence_number": "Sequence number",
    "fwd_thread_id": "Fwd thread id",
    "bytes": "bytes",
    "input_dims": "Input Dims",
    "input_type": "Input type",
    "collective_name": "Collective name",
    "in_msg_nelems": "In msg nelems",
    "out_msg_nelems": "Out msg nelems",
    "group_size": "Group size",
    "dtype": "dtype",
    "process_group_name": "Process Group Name",
    "process_group_ranks": "Process Group Ranks",
    "graph_id": "graph id",
    "graph_node_id": "graph node id",
}
"""The arguments carried by default, by field of :class:`DefaultArgs`: what joins launches to
kernels and forward to backward, shapes, sizes, collectives and CUDA graphs. The rest would double
the bytes for values that few queries ask for; ``--args all`` carries it."""


class DefaultArgs(msgspec.Struct, gc=False, rename=DEFAULT_KEYS):
    """The default arguments of one event; all others are skipped while decoding."""

    correlation: Scalar = None
    external_id: Scalar = None
    stream: Scalar = None
    device: Scalar = None
    sequence_number: Scalar = None
    fwd_thread_id: Scalar = None
    bytes: Scalar = None
    input_dims: msgspec.Raw = ABSENT
    input_type: msgspec.Raw = ABSENT
    collective_name: Scalar = None
    in_msg_nelems: Scalar = None
    out_msg_nelems: Scalar = None
    group_size: Scalar = None
    dtype: Scalar = None
    process_group_name: Scalar = None
    process_group_ranks: Scalar = None
    graph_id: Scalar = None
    graph_node_id: Scalar = None


_decode_default = msgspec.json.Decoder(list[DefaultArgs]).decode
_decode_all = msgspec.json.Decoder(list[dict[str, Any]]).decode
_JSON_FIELDS = frozenset({"input_dims", "input_type"})
_DTYPES: dict[ArgKind, Any] = {
    "int": np.int64,
    "bool": np.int64,
    "string": np.int64,
    "float": np.float64,
}
_INT64 = range(-(2**63), 2**63)


class _TextNumbers(dict[bytes, int]):
    """String indices of JSON texts; the same few shapes recur a hundred thousand times."""

    def __init__(self, intern: Callable[[str], int]) -> None:
        super().__init__()
        self._intern = intern

    def __missing__(self, text: bytes) -> int:
        self[text] = number = self._intern(text.decode("utf-8", "replace"))
        return number


class ArgReader:
    """Collects the arguments of slices; ``intern`` turns text into a string index."""

    def __init__(self, selection: ArgSelection, intern: Callable[[str], int]) -> None:
        self._all = selection == "all"
        self._intern = intern
        self._number_of_text = _TextNumbers(intern).__getitem__
        self._columns: dict[tuple[str, ArgKind], tuple[list[int], list[Any]]] = {}

    def add(self, events: Sequence[Event], first_row: int) -> None:
        """Take the arguments of events, which are the slices from ``first_row`` on."""
        rows, texts = [], []
        for row, event in enumerate(events, first_row):
            if event.args is not ABSENT and (self._all or event.cat not in WITHOUT_DEFAULT_ARGS):
                rows.append(row)
                texts.append(event.args)
        joined = b"".join((b"[", b",".join(texts), b"]"))
        try:
            if self._all:
                self._add_all(rows, _decode_all(joined))
            else:
                self._add_default(rows, _decode_default(joined))
        except msgspec.DecodeError:
            self._add_broken(rows, texts)

    def finish(self) -> tuple[ArgColumn, ...]:
        """The columns, in order of first appearance."""
        return tuple(
            ArgColumn(key, kind, np.array(rows, np.int64), np.array(values, _DTYPES[kind]))
            for (key, kind), (rows, values) in self._columns.items()
        )

    def _add_default(self, rows: list[int], args: list[DefaultArgs]) -> None:
        for name, key in DEFAULT_KEYS.items():
            values = list(map(attrgetter(name), args))
            absent = ABSENT if name in _JSON_FIELDS else None
            missing = values.count(absent)
            if missing == len(values):
                continue
            present = rows
            if missing:
                present = [
                    row for row, value in zip(rows, values, strict=True) if value is not absent
                ]
                values = [value for value in values if value is not absent]
            self._add_column(KEY_PREFIX + key, present, values)

    def _add_column(self, key: str, rows: list[int], values: list[Any]) -> None:
        """Take values of one argument, at full speed where all are of one common type."""
        types = set(map(type, values))
        if types == {int} and min(values) in _INT64 and max(values) in _INT64:
            self._extend(key, "int", rows, values)
            return
        if types == {msgspec.Raw}:
            self._extend(key, "string", rows, map(self._number_of_text, map(bytes, values)))
            return
        for row, value in zip(rows, values, strict=True):
            self._add_value(row, key, value)

    def _add_value(self, row: int, key: str, value: Any) -> None:
        kind, stored = self._typed(value)
        self._extend(key, kind, (row,), (stored,))

    def _extend(self, key: str, kind: ArgKind, rows: Iterable[int], values: Iterable[Any]) -> None:
        column = self._columns.setdefault((key, kind), ([], []))
        column[0].extend(rows)
        column[1].extend(values)

    def _typed(self, value: Any) -> tuple[ArgKind, Any]:
        if isinstance(value, bool):
            return "bool", int(value)
        if isinstance(value, int) and value in _INT64:
            return "int", value
        if isinstance(value, float):
            return "float", value
        if isinstance(value, (list, dict)):
            return "string", self._intern(msgspec.json.encode(value).decode())
        return "string", self._intern(str(value))

    def _add_all(self, rows: list[int], args: list[dict[str, Any]]) -> None:
        for row, fields in zip(rows, args, strict=True):
            for key, value in fold_overflow(fields).items():
                if value is not None:
                    self._add_value(row, KEY_PREFIX + key, value)

    def _add_broken(self, rows: list[int], texts: list[msgspec.Raw]) -> None:
        """One event's arguments are out of form: take each by itself, as far as it goes."""
        for row, text in zip(rows, texts, strict=True):
            try:
                fields = lenient_json(bytes(text))
            except ValueError:
                continue
            if isinstance(fields, dict):
                self._add_all([row], [self._selected(fields)])

    def _selected(self, fields: dict[str, Any]) -> dict[str, Any]:
        chosen = {
            key: value for key, value in fields.items() if self._all or key in DEFAULT_KEYS.values()
        }
        plain: dict[str, Any] = msgspec.json.decode(plain_json(chosen))
        return plain


def fold_overflow(fields: dict[str, Any]) -> dict[str, Any]:
    """Put the arguments beyond the engine's limit into one JSON object, the default ones last."""
    if len(fields) <= MAX_ARGS:
        return fields
    keys = sorted(fields, key=lambda key: key not in DEFAULT_KEYS.values())
    kept = {key: fields[key] for key in keys[: MAX_ARGS - 1]}
    return kept | {OVERFLOW_KEY: {key: fields[key] for key in keys[MAX_ARGS - 1 :]}}
