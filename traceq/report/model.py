"""What a report consists of: units, columns, tables, remarks. No report knows how it will look."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from traceq import units

REPLACED_BY = " ⇒ "
"""Stands between an op and what took its place."""


class Unit(Enum):
    """How the values of a column are printed."""

    TEXT = "text"
    NAME = "name"  # text that may be shortened in the middle
    COUNT = "count"
    MICROS = "µs"
    DELTA = "Δ µs"
    RATIO = "ratio"
    COUNT_DELTA = "Δ"
    SHARE = "%"
    NUMBER = "number"  # of anything, with one place

    def show(self, value: Any) -> str:
        """A value as text; None where there is none."""
        return _PRINTERS[self](value)

    @property
    def is_text(self) -> bool:
        return self in (Unit.TEXT, Unit.NAME)


def _show_text(value: Any) -> str:
    return "" if value is None else units.printable(str(value))


_PRINTERS: dict[Unit, Callable[[Any], str]] = {
    Unit.TEXT: _show_text,
    Unit.NAME: _show_text,
    Unit.COUNT: units.count,
    Unit.MICROS: units.micros,
    Unit.DELTA: units.signed_micros,
    Unit.RATIO: units.ratio,
    Unit.COUNT_DELTA: units.count,
    Unit.SHARE: units.percent,
    Unit.NUMBER: units.decimal,
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: the key of its values, its title, its unit, and how easily it is given up.

    ``rank`` 0 is never dropped; where width is short, the highest ranks go first, until names have
    ``ample`` characters, or all that they need. ``lead`` is the key of what stands before a name
    and is never shortened with it: the lines of a tree.
    """

    key: str
    title: str
    unit: Unit
    rank: int = 0
    ample: int = 48
    lead: str = ""


def kept(columns: Iterable[Column], key: str, instead: str) -> tuple[Column, ...]:
    """The columns with that of ``key`` never dropped; if it was, ``instead`` is the first to go."""
    columns = tuple(columns)
    rank = next((column.rank for column in columns if column.key == key), 0)
    if not rank:
        return columns
    ranks = {key: 0, instead: max(column.rank for column in columns) + 1}
    return tuple(replace(column, rank=ranks.get(column.key, column.rank)) for column in columns)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of plain values under columns; ``note`` is printed below.

    A row may say under the key ``sort`` what its texts are sorted by, by column.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[dict[str, Any], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Details:
    """A part of a report that is folded away where it can be; ``title`` is seen all the same.

    ``blocks`` are texts in a language (``sh``, ``sql``). Where space is short, the parts of the
    highest ``rank`` go first.
    """

    title: str
    rank: int
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    blocks: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """A finished report, ready for any renderer.

    ``warnings`` are what a reader must know before believing a number; ``remarks`` come after the
    tables. ``details`` are for renderers that can fold.
    """

    headline: str
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    details: tuple[Details, ...] = ()
