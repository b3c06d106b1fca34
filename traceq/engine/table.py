"""Query results as typed columns.

Decodes the cells of a ``QueryResult`` message (Perfetto's ``trace_processor.proto``) by column, so
that integers stay 64-bit integers without becoming objects on the way: Perfetto's own iterator
makes one array of objects of all cells. What the columns mean is left to the callers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

# CellsBatch.CellType
_NULL, _INT, _FLOAT, _STRING, _BLOB = 1, 2, 3, 4, 5

# Integers up to here are exact as float64.
_EXACT_FLOAT = 1 << 53


@dataclass(frozen=True)
class Column:
    """The cells of one column: ``kinds`` says what each is, ``values`` holds them by kind."""

    kinds: npt.NDArray[np.uint8]
    values: dict[int, npt.NDArray[Any]]

    def to_list(self) -> list[Any]:
        """The cells as Python values: int, float, str, bytes or None."""
        return list(self._objects())

    def to_array(self) -> Any:
        """The cells as the narrowest pandas-ready array that changes no value.

        Integers give int64, or pandas' Int64 where some are NULL. Floats give float64 with NaN for
        NULL. Everything else, and columns without a value, give objects with None for NULL.
        """
        kinds, nulls = set(self.values), self.kinds == _NULL
        if kinds == {_INT} and not nulls.any():
            return self.values[_INT]
        if kinds == {_INT}:
            return _nullable_integers(self.values[_INT], nulls)
        if kinds == {_FLOAT} or (kinds == {_INT, _FLOAT} and self._exact_as_float()):
            numbers = np.full(len(self.kinds), np.nan)
            for kind, values in self.values.items():
                numbers[self.kinds == kind] = values
            return numbers
        return self._objects()

    def _exact_as_float(self) -> bool:
        integers = self.values[_INT]
        return bool(((integers <= _EXACT_FLOAT) & (integers >= -_EXACT_FLOAT)).all())

    def _objects(self) -> npt.NDArray[Any]:
        cells = np.full(len(self.kinds), None, dtype=object)
        for kind, values in self.values.items():
            cells[self.kinds == kind] = values.astype(object)
        return cells


@dataclass(frozen=True)
class QueryTable:
    """The rows that a query returned; ``columns`` are names, in order, possibly repeated."""

    columns: list[str]
    cells: tuple[Column, ...]
    row_count: int

    @classmethod
    def decode(cls, result: Any) -> QueryTable:
        """Decodes a ``QueryResult`` message; its ``error`` must have been looked at before."""
        names = list(result.column_names)
        batches = [_decode_batch(batch, len(names)) for batch in result.batch] if names else []
        columns = tuple(_joined(parts) for parts in zip(*batches, strict=True))
        if not columns:
            columns = tuple(Column(np.empty(0, np.uint8), {}) for _ in names)
        return cls(names, columns, len(columns[0].kinds) if columns else 0)

    def __len__(self) -> int:
        return self.row_count

    def rows(self) -> list[tuple[Any, ...]]:
        """All rows as tuples of int, float, str, bytes or None."""
        return list(zip(*(column.to_list() for column in self.cells), strict=True))

    def to_pandas(self) -> pd.DataFrame:
        """The table as a data frame; dtypes as :meth:`Column.to_array` describes them."""
        import pandas as pd

        series = {
            index: pd.Series(array, dtype=getattr(array, "dtype", None), copy=False)
            for index, array in enumerate(column.to_array() for column in self.cells)
        }
        frame = pd.DataFrame(series, index=pd.RangeIndex(self.row_count), copy=False)
        # Named afterwards: names may repeat.
        frame.columns = pd.Index(self.columns, dtype=object if not self.columns else None)
        return frame


def _decode_batch(batch: Any, width: int) -> list[Column]:
    """The columns of one batch, whose cells come row by row, values of each kind in a row."""
    # np.array takes protobuf's number lists in one piece; iterating them costs 40 times as much.
    kinds = np.array(batch.cells, np.uint8).reshape(-1, width)
    stores = {
        _INT: np.array(batch.varint_cells, np.int64),
        _FLOAT: np.array(batch.float64_cells, np.float64),
        _STRING: _objects(_strings(batch.string_cells)),
        _BLOB: _objects(batch.blob_cells),
    }
    found: list[dict[int, npt.NDArray[Any]]] = [{} for _ in range(width)]
    for kind, store in stores.items():
        if not len(store):
            continue
        mask = kinds == kind
        rank = (np.cumsum(mask, dtype=np.int32) - 1).reshape(mask.shape)
        for column in np.flatnonzero(mask.any(axis=0)):
            found[column][kind] = store[rank[mask[:, column], column]]
    return [Column(kinds[:, index], values) for index, values in enumerate(found)]


def _strings(cells: str | bytes) -> list[str]:
    """Splits the NUL-terminated strings of a batch; equal ones share one object."""
    # Bytes come where the batch holds some that are not UTF-8.
    text = cells.decode("utf-8", "replace") if isinstance(cells, bytes) else cells
    strings = text.split("\0")
    strings.pop()
    shared: dict[str, str] = {}
    return list(map(shared.setdefault, strings, strings))


def _objects(values: Iterable[Any]) -> npt.NDArray[Any]:
    items = list(values)
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _joined(parts: Iterable[Column]) -> Column:
    """One column out of its parts in the batches."""
    columns = list(parts)
    kinds = {kind for column in columns for kind in column.values}
    values = {
        kind: np.concatenate([part.values[kind] for part in columns if kind in part.values])
        for kind in sorted(kinds)
    }
    return Column(np.concatenate([part.kinds for part in columns]), values)


def _nullable_integers(values: npt.NDArray[np.int64], nulls: npt.NDArray[np.bool_]) -> Any:
    import pandas as pd

    filled = np.zeros(len(nulls), np.int64)
    filled[~nulls] = values
    return pd.arrays.IntegerArray(filled, nulls.copy())
