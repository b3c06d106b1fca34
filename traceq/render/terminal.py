"""A report as text for a terminal of a given width.

Columns are given up by rank and names shortened in the middle until a table fits; figures are
never cut.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from traceq.names import shorten
from traceq.report import REPLACED_BY, Column, Report, Table, Unit
from traceq.units import printable

_GAP = 2
_LEAST_NAME = 8
"""Names are never narrower than this."""

_STYLES = {
    "replaced": "bold",
    "added": "red",
    "removed": "green",
    "changed": "yellow",
    "shifted": "yellow",
    "account": "dim",
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
    print_report(console, report, width)
    output = console.file
    assert isinstance(output, io.StringIO)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


def print_report(console: Console, report: Report, width: int) -> None:
    """Print a report on a console of rich, in ``width`` columns."""
    console.print(Text(printable(report.headline), style="bold"))
    for key, value in report.facts:
        console.print(Text(f"{key}: {printable(value)}"))
    for warning in report.warnings:
        console.print(Text(f"! {printable(warning)}", style="yellow"))
    for table in report.tables:
        _print_table(console, table, width)
    for remark in report.remarks:
        console.print(Text(printable(remark), style="dim"))


def _print_table(console: Console, table: Table, width: int) -> None:
    console.print()
    if table.title:
        console.print(Text(table.title, style="bold"))
    if table.rows:
        columns, widths = fit(table, width)
        grid = _rich_table(table, columns, widths)
        # What cannot be dropped may need more than there is: the terminal wraps, nothing is cut.
        console.width = max(width, sum(widths[column.key] + _GAP for column in columns))
        console.print(grid)
        console.width = width
    if table.note:
        console.print(Text(printable(table.note), style="dim"))


def fit(table: Table, width: int) -> tuple[list[Column], dict[str, int]]:
    """The columns that there is room for, and the width of each by its key."""
    widths = {column.key: _width(table, column) for column in table.columns}
    columns = list(table.columns)
    while True:
        names = [column for column in columns if _is_name(column)]
        taken = sum(widths[column.key] + _GAP for column in columns if not _is_name(column))
        room = width - taken - _GAP * max(len(names) - 1, 0)
        rank = max(column.rank for column in columns)
        wanted = sum(min(widths[column.key], column.ample) for column in names)
        if room >= wanted or rank == 0:
            shares = _share_out(room, {column.key: widths[column.key] for column in names})
            heads = {column.key: cell_len(column.title) for column in names}
            return columns, widths | {key: max(share, heads[key]) for key, share in shares.items()}
        columns = [column for column in columns if column.rank < rank]


def _share_out(room: int, wanted: dict[str, int]) -> dict[str, int]:
    """The width of each name: those that want little get it, the others as much as each other."""
    shares = {}
    for left, (key, width) in zip(
        range(len(wanted), 0, -1), sorted(wanted.items(), key=lambda item: item[1]), strict=True
    ):
        shares[key] = max(min(width, room // left), _LEAST_NAME)
        room -= shares[key]
    return shares


def _is_name(column: Column) -> bool:
    return column.unit is Unit.NAME


def _width(table: Table, column: Column) -> int:
    cells = (
        cell_len(_lead(column, row)) + cell_len(column.unit.show(row[column.key]))
        for row in table.rows
    )
    return max(cell_len(column.title), *cells)


def _lead(column: Column, row: dict[str, Any]) -> str:
    return str(row[column.lead]) if column.lead else ""


def _rich_table(table: Table, columns: list[Column], widths: dict[str, int]) -> RichTable:
    grid = RichTable(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        grid.add_column(
            Text(column.title, style="dim"),
            justify="left" if column.unit.is_text and column.key != "calls" else "right",
            no_wrap=True,
        )
    cells = [_cells(table, column, widths[column.key]) for column in columns]
    for number, row in enumerate(table.rows):
        style = _STYLES.get(str(row.get("status", "")), "")
        grid.add_row(*(column[number] for column in cells), style=style)
    return grid


def _cells(table: Table, column: Column, width: int) -> list[Text]:
    texts = [column.unit.show(row[column.key]) for row in table.rows]
    if not _is_name(column):
        return [Text(text) for text in texts]
    leads = [_fit_lead(_lead(column, row), width) for row in table.rows]
    rooms = [max(width - cell_len(lead), 1) for lead in leads]
    names = tell_apart(texts, rooms)
    return [Text(lead + name) for lead, name in zip(leads, names, strict=True)]


def _fit_lead(lead: str, width: int) -> str:
    """The lines of a tree, two characters a level; the depth where they leave a name no room."""
    return lead if cell_len(lead) <= width - _LEAST_NAME else f"[{cell_len(lead) // 2}] "


def tell_apart(texts: Sequence[str], rooms: Sequence[int]) -> list[str]:
    """Names cut to their rooms; of those that look the same then, the part where they differ.

    >>> tell_apart(["gemm_128x64_bf16_tn", "gemm_256x64_bf16_tn"], [12, 12])
    ['gemm…128x64…', 'gemm…256x64…']
    """
    found = [_fit_name(text, room) for text, room in zip(texts, rooms, strict=True)]
    alike: dict[str, list[int]] = {}
    for number, name in enumerate(found):
        alike.setdefault(name, []).append(number)
    for numbers in alike.values():
        names = [texts[number] for number in numbers]
        if len(set(names)) > 1:
            same = _common_start(names)
            for number in numbers:
                found[number] = _from_difference(texts[number], same, rooms[number])
    return found


def _common_start(names: Sequence[str]) -> int:
    """How many letters all the names begin with."""
    alike = (len(set(letters)) == 1 for letters in zip(*names, strict=False))
    return sum(1 for _ in itertools.takewhile(bool, alike))


def _from_difference(text: str, same: int, room: int) -> str:
    """The start of a name and, as far as there is room, what follows the first ``same`` letters."""
    head = min(same, room // 3)
    rest = f"{text[:head]}…{text[same:]}" if head < same else text
    while cell_len(rest) > room and len(rest) > 1:
        rest = rest[:-2] + "…"
    return rest


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
