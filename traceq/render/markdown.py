"""A report as GitHub-flavoured Markdown. No name can break a table, mention a user or be HTML."""

from __future__ import annotations

import re
from typing import Any

from traceq.names import shorten
from traceq.report import REPLACED_BY, Column, Report, Table, Unit
from traceq.units import printable

NAME_WIDTH = 80
"""Longest name in a table; GitHub's column is about this wide."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&-])")
_MENTION = re.compile(r"@(?=\w)")


def to_markdown(report: Report) -> str:
    """The report as Markdown: headline, warnings, tables, remarks."""
    parts = [f"**{escape(report.headline)}**", *map(_warning, report.warnings)]
    if report.facts:
        parts.append("\n".join(f"- {escape(key)}: {code(value)}" for key, value in report.facts))
    parts += map(_table, report.tables)
    parts += [f"<sub>{escape(remark)}</sub>" for remark in report.remarks]
    return "\n\n".join(parts) + "\n"


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

    GitHub looks for mentions in the finished text, where a backslash is gone: a zero-width space
    after the @ keeps a name from being one.

    >>> escape("a_b <b>")
    'a\\\\_b \\\\<b\\\\>'
    """
    return _MENTION.sub("@\N{ZERO WIDTH SPACE}", _SPECIAL.sub(r"\\\1", printable(text)))
