"""A report as text for a terminal of a given width.

Columns are given up by rank and names shortened in the middle until a table fits; figures are
never cut.
"""

from __future__ import annotations

import io
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from traceq.names import shorten
from traceq.report import REPLACED_BY, Column, Report, Table
from traceq.units import printable

_GAP = 2
_AMPLE_NAME = 48
"""Columns are dropped until names have this much room, or all of it that they need."""

_STYLES = {
    "replaced": "bold",
    "added": "red",
    "removed": "green",
    "changed": "yellow",
    "shifted": "yellow",
}


def to_terminal(report: Report, *, width: int, color: bool) -> str:
    """The report as lines of at most ``width`` columns; ``color`` adds ANSI styles."""
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        soft_wrap=False,
    )
    console.print(Text(printable(report.headline), style="bold"))
    for key, value in report.facts:
        console.print(Text(f"{key}: {printable(value)}"))
    for warning in report.warnings:
        console.print(Text(f"! {printable(warning)}", style="yellow"))
    for table in report.tables:
        _print_table(console, table, width)
    for remark in report.remarks:
        console.print(Text(printable(remark), style="dim"))
    output = console.file
    assert isinstance(output, io.StringIO)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


def _print_table(console: Console, table: Table, width: int) -> None:
    console.print()
    if table.title:
        console.print(Text(table.title, style="bold"))
    if table.rows:
        columns, name_width = fit(table, width)
        grid = _rich_table(table, columns, name_width)
        # What cannot be dropped may need more than there is: the terminal wraps, nothing is cut.
        needed = sum(_column_width(table, column, name_width) + _GAP for column in columns)
        console.width = max(width, needed)
        console.print(grid)
        console.width = width
    if table.note:
        console.print(Text(printable(table.note), style="dim"))


def fit(table: Table, width: int) -> tuple[list[Column], int]:
    """The columns that there is room for, and the width left for names."""
    columns = list(table.columns)
    longest = max((_width(table, column) for column in columns if _is_name(column)), default=0)
    while True:
        taken = sum(_width(table, column) + _GAP for column in columns if not _is_name(column))
        names = sum(map(_is_name, columns)) or 1
        room = (width - taken - _GAP * (names - 1)) // names
        rank = max(column.rank for column in columns)
        if room >= min(longest, _AMPLE_NAME) or rank == 0:
            return columns, max(min(longest, room), 8)
        columns = [column for column in columns if column.rank < rank]


def _is_name(column: Column) -> bool:
    return column.unit.value == "name"


def _width(table: Table, column: Column) -> int:
    cells = (cell_len(column.unit.show(row[column.key])) for row in table.rows)
    return max(cell_len(column.title), *cells)


def _column_width(table: Table, column: Column, name_width: int) -> int:
    return name_width if _is_name(column) else _width(table, column)


def _rich_table(table: Table, columns: list[Column], name_width: int) -> RichTable:
    grid = RichTable(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        grid.add_column(
            Text(column.title, style="dim"),
            justify="left" if column.unit.is_text and column.key != "calls" else "right",
            no_wrap=True,
        )
    for row in table.rows:
        style = _STYLES.get(str(row.get("status", "")), "")
        grid.add_row(*(_cell(column, row, name_width) for column in columns), style=style)
    return grid


def _cell(column: Column, row: dict[str, Any], name_width: int) -> Text:
    text = column.unit.show(row[column.key])
    return Text(_fit_name(text, name_width) if _is_name(column) else text)


def _fit_name(text: str, width: int) -> str:
    """One line where the name fits; a replaced op and its replacement else take a line each."""
    if cell_len(text) > width and REPLACED_BY in text:
        old, new = text.split(REPLACED_BY, 1)
        return f"{_shorten(old, width)}\n⇒ {_shorten(new, width - 2)}"
    return _shorten(text, width)


def _shorten(text: str, width: int) -> str:
    """Shorten to a width on the screen, where some characters take two columns and some none."""
    room = width
    while cell_len(short := shorten(text, room)) > width:
        room -= max(1, (cell_len(short) - width) // 2)
    return short
