"""Reads the arguments of slices into columns: a chosen few, or every one.

Scalars keep their type; lists and objects (shapes, grids) become one JSON text, because an event
of the engine's input format holds at most 15 arguments.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from operator import attrgetter
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from traceq.kineto.events import ABSENT, lenient_json, plain_json
from traceq.kineto.native import PlainEvents, Spans
from traceq.kineto.renumber import Renumbering
from traceq.model import ArgColumn, ArgKind, Ints

ArgSelection = Literal["default", "all"]

KEY_PREFIX = "args."
"""What trace_processor's JSON importer puts before each argument's name."""

OVERFLOW_KEY = "more"
"""Holds, as one JSON object, the arguments of an event beyond the first thirteen."""

MAX_ARGS = 14
"""Most arguments of one event: the engine's format holds 15, and ``fxt`` may add one."""

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


ABSENT_NUMBER = -(2**63)
"""Stands for an argument that is not there."""


class DefaultArgs(msgspec.Struct, gc=False, rename=DEFAULT_KEYS):
    """The default arguments of one event; all others are skipped while decoding.

    Numbers are the common case and have a number for absent, so that numpy takes them in one go.
    """

    correlation: int | float | str | None = ABSENT_NUMBER
    external_id: int | float | str | None = ABSENT_NUMBER
    stream: int | float | str | None = ABSENT_NUMBER
    device: int | float | str | None = ABSENT_NUMBER
    sequence_number: int | float | str | None = ABSENT_NUMBER
    fwd_thread_id: int | float | str | None = ABSENT_NUMBER
    bytes: int | float | str | None = ABSENT_NUMBER
    graph_id: int | float | str | None = ABSENT_NUMBER
    graph_node_id: int | float | str | None = ABSENT_NUMBER
    in_msg_nelems: int | float | str | None = ABSENT_NUMBER
    out_msg_nelems: int | float | str | None = ABSENT_NUMBER
    group_size: int | float | str | None = ABSENT_NUMBER
    collective_name: str | int | float | None = None
    dtype: str | int | float | None = None
    process_group_name: str | int | float | None = None
    process_group_ranks: str | int | float | None = None
    input_dims: msgspec.Raw = ABSENT
    input_type: msgspec.Raw = ABSENT


_JSON_FIELDS = frozenset({"input_dims", "input_type"})
_TEXT_FIELDS = frozenset({"collective_name", "dtype", "process_group_name", "process_group_ranks"})
_DTYPES: dict[ArgKind, Any] = {
    "int": np.int64,
    "bool": np.int64,
    "string": np.int64,
    "float": np.float64,
}
_INT64 = range(-(2**63), 2**63)
_decode_default = msgspec.json.Decoder(list[DefaultArgs]).decode
_decode_all = msgspec.json.Decoder(list[dict[str, Any]]).decode


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

    def __init__(
        self,
        selection: ArgSelection,
        intern: Callable[[str], int],
        only: Collection[str] | None = None,
    ) -> None:
        self._all = selection == "all"
        self._keys = {
            name: key for name, key in DEFAULT_KEYS.items() if only is None or key in only
        }
        self._intern = intern
        self._number_of_text = _TextNumbers(intern).__getitem__
        self._renumber = Renumbering(self._number_of_text)
        self._columns: dict[tuple[str, ArgKind], list[tuple[Ints, NDArray[Any]]]] = {}

    def carries(self, category: str | None) -> bool:
        """Whether slices of a category may have arguments to carry."""
        return self._all or category not in WITHOUT_DEFAULT_ARGS

    def add(self, texts: Sequence[bytes], rows: Ints) -> None:
        """Take the arguments, as JSON objects, of the slices with these indices, which rise."""
        if not texts:
            return
        try:
            if self._all:
                self._add_all(rows.tolist(), _decode_all(_array(texts)))
            else:
                self._add_default(rows, _decode_default(_array(texts)))
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._add_broken(rows.tolist(), texts)

    def add_plain(self, plain: PlainEvents, rows: Ints) -> None:
        """Take the arguments of plain slices, which have these indices in all; -1: is left out."""
        for key, arg in plain.integer_args.items():
            if key in self._keys.values():
                chosen = rows[arg.slice] >= 0
                values = arg.value[chosen]
                self._extend(KEY_PREFIX + key, "int", rows[arg.slice[chosen]], values)
        for key, arg in plain.text_args.items():
            if key in self._keys.values():
                chosen = rows[arg.slice] >= 0
                numbers = self._renumber(plain.values, arg.value[chosen])
                self._extend(KEY_PREFIX + key, "string", rows[arg.slice[chosen]], numbers)
        chosen = rows[plain.raw_args.of] >= 0
        raw = Spans(*(column[chosen] for column in plain.raw_args))
        self.add(plain.texts(raw), rows[raw.of])

    def finish(self) -> tuple[ArgColumn, ...]:
        """The columns, in order of first appearance."""
        return tuple(
            ArgColumn(key, kind, *_joined_in_order(parts))
            for (key, kind), parts in self._columns.items()
        )

    def _add_default(self, rows: Ints, args: list[DefaultArgs]) -> None:
        for name, key in self._keys.items():
            values = map(attrgetter(name), args)
            if name in _JSON_FIELDS:
                self._add_json(KEY_PREFIX + key, rows, list(values))
            elif name in _TEXT_FIELDS:
                self._add_mixed(KEY_PREFIX + key, rows, list(values))
            else:
                self._add_numbers(KEY_PREFIX + key, rows, args, name)

    def _add_numbers(self, key: str, rows: Ints, args: list[DefaultArgs], name: str) -> None:
        found = [*map(attrgetter(name), args)]
        values = np.array(found)
        if values.dtype != np.int64:  # some are text, fractions, or too large
            self._add_mixed(key, rows, found)
            return
        present = values != ABSENT_NUMBER
        self._extend(key, "int", rows[present], values[present])

    def _add_json(self, key: str, rows: Ints, values: list[msgspec.Raw]) -> None:
        if values.count(ABSENT) == len(values):
            return
        present = [index for index, value in enumerate(values) if value is not ABSENT]
        texts = (bytes(values[index]) for index in present)
        numbers = np.fromiter(map(self._number_of_text, texts), np.int64, len(present))
        self._extend(key, "string", rows[present], numbers)

    def _add_mixed(self, key: str, rows: Ints, values: list[Any]) -> None:
        if values.count(None) == len(values):
            return
        for row, value in zip(rows.tolist(), values, strict=True):
            if value is not None and value != ABSENT_NUMBER:
                self._add_value(row, key, value)

    def _add_value(self, row: int, key: str, value: Any) -> None:
        kind, stored = self._typed(value)
        self._extend(key, kind, np.array([row]), np.array([stored], _DTYPES[kind]))

    def _extend(self, key: str, kind: ArgKind, rows: Ints, values: NDArray[Any]) -> None:
        if len(rows):
            self._columns.setdefault((key, kind), []).append((rows, values))

    def _typed(self, value: Any) -> tuple[ArgKind, Any]:
        if isinstance(value, bool):
            return "bool", int(value)
        if isinstance(value, int) and value in _INT64:
            return "int", value
        if isinstance(value, float):
            return "float", value
        if isinstance(value, (list, dict)):
            return "string", self._intern(json.dumps(value, ensure_ascii=False))
        return "string", self._intern(str(value))

    def _add_all(self, rows: list[int], args: list[dict[str, Any]]) -> None:
        for row, fields in zip(rows, args, strict=True):
            for key, value in fold_overflow(fields).items():
                if value is not None:
                    self._add_value(row, KEY_PREFIX + key, value)

    def _add_broken(self, rows: list[int], texts: Sequence[bytes]) -> None:
        """One event's arguments are out of form: take each by itself, as far as it goes."""
        for row, text in zip(rows, texts, strict=True):
            if len(texts) > 1:  # so that what is in form is read as it would be without the other
                self.add([text], np.array([row]))
                continue
            try:
                fields = lenient_json(text)
            except ValueError:
                continue
            if isinstance(fields, dict):
                self._add_all([row], [self._selected(fields)])

    def _selected(self, fields: dict[str, Any]) -> dict[str, Any]:
        chosen = {
            key: value for key, value in fields.items() if self._all or key in self._keys.values()
        }
        plain: dict[str, Any] = msgspec.json.decode(plain_json(chosen))
        return plain


def _joined_in_order(parts: Sequence[tuple[Ints, NDArray[Any]]]) -> tuple[Ints, NDArray[Any]]:
    """Rows and values in order of rows; in a chunk the plain slices come before the others."""
    row = np.concatenate([part[0] for part in parts])
    value = np.concatenate([part[1] for part in parts])
    if (row[1:] > row[:-1]).all():
        return row, value
    order = np.argsort(row, kind="stable")
    return row[order], value[order]


def _array(texts: Sequence[bytes]) -> bytes:
    return b"".join((b"[", b",".join(texts), b"]"))


def fold_overflow(fields: dict[str, Any]) -> dict[str, Any]:
    """Put the arguments beyond the engine's limit into one JSON object, the default ones last."""
    if len(fields) <= MAX_ARGS:
        return fields
    keys = sorted(fields, key=lambda key: (key == OVERFLOW_KEY, key not in DEFAULT_KEYS.values()))
    kept = {key: fields[key] for key in keys[: MAX_ARGS - 1]}
    return kept | {OVERFLOW_KEY: {key: fields[key] for key in keys[MAX_ARGS - 1 :]}}
