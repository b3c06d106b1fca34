"""A report as GitHub-flavoured Markdown. No name can break a table, mention a user or be HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from traceq.names import shorten
from traceq.report import REPLACED_BY, Column, Details, Report, Table, Unit
from traceq.units import printable

FACT_WIDTH = 400
NAME_WIDTH = 80
"""Longest name in a table; GitHub's column is about this wide."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&-])")
_LINKED = re.compile(r"@(?=\w)|#(?=\d)|://|\bwww\.", re.IGNORECASE)


LIMIT = 65_000
"""Longest report, in bytes: GitHub takes comments of 65,536 characters, its marker included."""


def to_markdown(report: Report, limit: int = LIMIT) -> str:
    """The report as Markdown: headline, warnings, tables, remarks, and folded details.

    What is longer than ``limit`` bytes loses rows, then details, those needed least first, and says
    so.
    """
    left_out: list[str] = []
    while True:
        text = _assemble(report, left_out)
        if len(text.encode()) <= limit:
            return text
        smaller = _smaller(report, left_out)
        if smaller is None:
            return _cut(text, limit)
        report = smaller


def _assemble(report: Report, left_out: Sequence[str]) -> str:
    parts = [f"**{escape(report.headline)}**", *map(_warning, report.warnings)]
    if report.facts:
        parts.append(_facts(report.facts))
    parts += map(_table, report.tables)
    parts += [f"<sub>{escape(remark)}</sub>" for remark in report.remarks]
    parts += map(_details, report.details)
    if left_out:
        names = ", ".join(dict.fromkeys(left_out))
        parts.append(f"<sub>Left out, as a comment may not be longer: {escape(names)}.</sub>")
    return "\n\n".join(parts) + "\n"


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {escape(key)}: {code(shorten(value, FACT_WIDTH))}" for key, value in facts)


def _details(details: Details) -> str:
    """A part that is folded away; the empty lines let what is inside be Markdown."""
    title = html.escape(printable(details.title), quote=False)  # no Markdown within HTML
    parts = [f"<details><summary>{title}</summary>"]
    parts += [_facts(details.facts)] if details.facts else []
    parts += map(_table, details.tables)
    parts += [_block(language, text) for language, text in details.blocks]
    parts += [f"<sub>{escape(remark)}</sub>" for remark in details.remarks]
    return "\n\n".join([*parts, "</details>"])


def _block(language: str, text: str) -> str:
    lines = "\n".join(map(printable, text.split("\n")))
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", lines)), default=0))
    return f"{fence}{language}\n{lines}\n{fence}"


FEW_ROWS = 8
"""A table in details is cut to no fewer rows before the details go."""


def _smaller(report: Report, left_out: list[str]) -> Report | None:
    """The report with less of what is needed least; None where nothing is left to leave out."""
    if not report.details:
        return None
    least = max(report.details, key=lambda item: item.rank)
    rows = max((len(table.rows) for table in least.tables), default=0)
    place = report.details.index(least)
    before, after = report.details[:place], report.details[place + 1 :]
    if rows > FEW_ROWS:
        left_out.append(f"rows of {least.title}")
        tables = tuple(_fewer_rows(table, max(rows // 2, FEW_ROWS)) for table in least.tables)
        return replace(report, details=(*before, replace(least, tables=tables), *after))
    left_out.append(least.title)
    return replace(report, details=(*before, *after))


def _fewer_rows(table: Table, most: int) -> Table:
    return replace(table, rows=table.rows[:most])


def _cut(text: str, limit: int) -> str:
    """The last resort, for warnings or names without end."""
    note = "\n\n<sub>Cut off, as a comment may not be longer.</sub>\n"
    kept = text.encode()[: limit - len(note.encode())].decode(errors="ignore")
    return (kept.rpartition("\n\n")[0] or kept) + note


def _warning(text: str) -> str:
    return f"> **Note:** {escape(text)}"


def _table(table: Table) -> str:
    title = f"**{escape(table.title)}**\n\n" if table.title else ""
    note = f"\n\n<sub>{escape(table.note)}</sub>" if table.note else ""
    if not table.rows:
        return title + note.strip()
    columns = [column for column in table.columns if _has_values(table, column)]
    lines = [
        _line(escape(column.title) for column in columns),
        _line(
            "---" if column.unit.is_text and column.key != "calls" else "--:" for column in columns
        ),
        *(_line(_cell(column, row) for column in columns) for row in table.rows),
    ]
    return title + "\n".join(lines) + note


def _has_values(table: Table, column: Column) -> bool:
    return any(row[column.key] is not None for row in table.rows)


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(column: Column, row: dict[str, Any]) -> str:
    text = column.unit.show(row[column.key])
    if column.unit is Unit.NAME and REPLACED_BY in text:
        return REPLACED_BY.join(
            code(shorten(part, NAME_WIDTH), in_table=True) for part in text.split(REPLACED_BY, 1)
        )
    if column.unit is not Unit.NAME:
        return escape(text)
    lead = row[column.lead] if column.lead else ""
    return code(lead + shorten(text, NAME_WIDTH), in_table=True)


def code(text: str, *, in_table: bool = False) -> str:
    """A code span that holds any text, also inside a table.

    >>> code("a`b"), code("x|y", in_table=True)
    ('`` a`b ``', '`x\\\\|y`')
    """
    text = printable(text)
    fence = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or len(fence) > 1 else ""
    if in_table:
        text = text.replace("|", "\\|")
    return f"{fence}{pad}{text}{pad}{fence}" if text else ""


def escape(text: str) -> str:
    """Text with every character that Markdown or HTML could act on made plain.

    GitHub looks for mentions, issues and addresses in the finished text, where a backslash is gone:
    a zero-width space within keeps a name from being one.

    >>> escape("a_b <b>")
    'a\\\\_b \\\\<b\\\\>'
    """
    apart = _LINKED.sub("\\g<0>\N{ZERO WIDTH SPACE}", printable(text))
    return _SPECIAL.sub(r"\\\1", apart)
