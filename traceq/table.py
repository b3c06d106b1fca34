"""A result as a table: a pandas data frame that knows what its columns mean.

How reports show tables is left to ``report`` and ``render``; this is what a notebook displays.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from traceq import units
from traceq.errors import UsageError
from traceq.model import Field
from traceq.names import shorten

if TYPE_CHECKING:
    import duckdb
    import pyarrow

SHOWN = 25
"""Rows that are displayed."""


class ResultTable(pd.DataFrame):
    """A data frame with whole figures (times in ns), shown with times in µs.

    All of pandas works on it. Its rows and columns, chosen or sorted, know their ``fields`` (type,
    unit and meaning); what is computed from them does not.

    >>> import traceq
    >>> with traceq.open("sample_traces/einops-0.json.gz") as trace:
    ...     steps = trace.steps()
    >>> [(field.name, field.unit) for field in steps.fields[:4]]
    [('step', ''), ('name', ''), ('ts', 'ns'), ('dur', 'ns')]
    >>> steps.relation.aggregate("count(*)").fetchall()
    [(5,)]
    >>> steps.sort_values("dur").head(2)[["step", "stage", "dur"]]
      step   stage      dur µs
    4   12  decode  24,122.877
    1    9  decode  24,829.447
    <BLANKLINE>
    [2 rows × 3 columns; values in ns, shown in µs]
    """

    @classmethod
    def of(cls, table: pd.DataFrame, fields: Sequence[Field]) -> ResultTable:
        """A table whose columns ``fields`` describe; ``attrs`` are kept."""
        found = cls(table)
        found.attrs |= table.attrs | {"fields": tuple(fields)}
        return found

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return ResultTable

    def __finalize__(self, other: Any, method: str | None = None, **more: Any) -> Self:
        """Keep the fields of what was chosen, sorted or copied alone: pandas carries all on."""
        super().__finalize__(other, method=method, **more)  # type: ignore[misc]
        if method not in _KEEPING:
            self.attrs.pop("fields", None)
        return self

    def _arith_method(self, other: Any, op: Any) -> Any:
        return _without_fields(super()._arith_method(other, op))  # type: ignore[misc]

    def _cmp_method(self, other: Any, op: Any) -> Any:
        return _without_fields(super()._cmp_method(other, op))  # type: ignore[misc]

    def __setitem__(self, key: Any, value: Any) -> None:
        """As pandas; a column that is replaced is no longer what its field says."""
        super().__setitem__(key, value)
        names = {key} if isinstance(key, str) else {*key} if isinstance(key, list) else None
        known = self.attrs.get("fields", ()) if names else ()
        self.attrs["fields"] = tuple(field for field in known if field.name not in (names or ()))

    @property
    def fields(self) -> tuple[Field, ...]:
        """What each column means, in their order; not of columns that were added or computed."""
        known = {field.name: field for field in self.attrs.get("fields", ())}
        named = [(known[name], dtype) for name, dtype in self.dtypes.items() if name in known]
        return tuple(field for field, dtype in named if _is_of(field, dtype))

    @property
    def df(self) -> pd.DataFrame:
        """The same as a plain pandas data frame."""
        return pd.DataFrame(self)

    @property
    def arrow(self) -> pyarrow.Table:
        """The same as an Arrow table, with ``unit`` and ``doc`` in the metadata of its fields.

        Raises UsageError where pyarrow is not installed.
        """
        try:
            import pyarrow
        except ImportError as error:
            raise UsageError(
                "Arrow tables need pyarrow",
                hint="Install traceq with the extra 'arrow' (pip install '.[arrow]'), or pyarrow.",
            ) from error
        table = pyarrow.Table.from_pandas(self.df, preserve_index=False)
        known = {field.name: field for field in self.fields}
        schema = [_with_meaning(column, known.get(column.name)) for column in table.schema]
        return table.cast(pyarrow.schema(schema))

    @property
    def relation(self) -> duckdb.DuckDBPyRelation:
        """The same as a relation of DuckDB's default connection, to go on in SQL."""
        import duckdb

        return duckdb.from_df(self.df)

    def __repr__(self) -> str:
        if not self.fields:
            return super().__repr__()
        shown = _as_wide(self._shown(str), _width())
        size = f"{units.plural(len(self), 'row')} × {units.plural(self.shape[1], 'column')}"
        if shown.shape != self.shape:
            size += f", {shown.shape[0]} × {shown.shape[1]} shown"
        scaled = any(field.unit == "ns" for field in self.fields)
        text = f"{shown.to_string()}\n\n" if len(shown) else ""
        return f"{text}[{size}{'; values in ns, shown in µs' if scaled else ''}]"

    def _repr_html_(self) -> str:
        shown = self._shown(lambda name: name.replace("_", " "))
        text: str = shown.to_html(escape=True, index=False, border=0)
        more = len(self) - len(shown)
        return text + (f"<p><small>{units.plural(more, 'more row')}.</small></p>" if more else "")

    def _shown(self, name_of: Callable[[str], str]) -> pd.DataFrame:
        """The first rows as texts, with units in the heads of their columns; names may repeat."""
        rows = self.df.head(SHOWN)
        known = {field.name: field for field in self.fields}
        fields = [known.get(str(name)) for name in rows.columns]
        columns = {
            at: [_cell(value, field) for value in rows.iloc[:, at]]
            for at, field in enumerate(fields)
        }
        names = zip(map(str, rows.columns), fields, strict=True)
        heads = [name_of(name) + _unit(field) for name, field in names]
        return pd.DataFrame(columns, rows.index, dtype=object).set_axis(heads, axis=1)


def _width() -> int:
    """As pandas has it: as wide as the terminal, where there is one."""
    width = int(pd.get_option("display.width") or 80)
    return max(width, shutil.get_terminal_size().columns) if sys.stdout.isatty() else width


def _as_wide(shown: pd.DataFrame, width: int) -> pd.DataFrame:
    """Texts with long ones shortened, and the first columns that fit; at least two."""
    shown = shown.map(lambda text: shorten(text, _LONGEST))
    widths = [
        2 + max([len(str(head)), *map(len, shown.iloc[:, at])])
        for at, head in enumerate(shown.columns)
    ]
    left = max([0, *map(len, map(str, shown.index))])
    fitting = sum(left + total <= width for total in accumulate(widths))
    return shown.iloc[:, : max(fitting, 2)]


_LONGEST = 40
"""Longest text in a table's ``repr``."""

_CHOOSING = ("take", "reindex", "drop_duplicates", "sort_values", "sort_index", "reset_index")
_KEEPING = frozenset((None, *_CHOOSING, "copy", "concat", "round", "rename"))
"""What pandas calls the steps that leave values, and so their units and meaning, as they are."""


def _without_fields(found: Any) -> Any:
    if isinstance(found, ResultTable):
        found.attrs.pop("fields", None)
    return found


def _is_of(field: Field, dtype: Any) -> bool:
    """Whether values may still be those of a field: whole figures that were divided are not."""
    return not (field.type == "LONG" and pd.api.types.is_float_dtype(dtype))


def _unit(field: Field | None) -> str:
    return " µs" if field and field.unit == "ns" else ""


def _cell(value: Any, field: Field | None) -> str:
    if (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, float) and math.isnan(value))
    ):
        return ""
    if isinstance(value, str):
        return units.printable(value)
    if field and field.unit == "ns":
        return units.micros(value)
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _with_meaning(column: pyarrow.Field, field: Field | None) -> pyarrow.Field:
    meaning = {} if field is None else {"unit": field.unit, "doc": field.doc}
    return column.with_metadata(meaning)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain data, absent values as None."""
    columns = [_plain(table.iloc[:, place]) for place in range(table.shape[1])]
    names = [str(name) for name in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _plain(column: pd.Series[Any]) -> list[Any]:
    values = column.tolist()
    missing = column.isna().to_numpy()
    if missing.any():
        values = [None if gone else v for v, gone in zip(values, missing.tolist(), strict=True)]
    return [value.item() if isinstance(value, np.generic) else value for value in values]
