"""A report as an HTML fragment, for notebooks. All text is escaped."""

from __future__ import annotations

from html import escape
from typing import Any

from traceq.report import Column, Report, Table
from traceq.units import printable


def to_html(report: Report) -> str:
    """The report as one ``<div>``; no script, no style sheet."""
    parts = [f"<p><b>{_text(report.headline)}</b></p>"]
    parts += [f"<p>⚠ {_text(warning)}</p>" for warning in report.warnings]
    parts += [
        f"<div>{_text(key)}: <code>{_text(value)}</code></div>" for key, value in report.facts
    ]
    parts += map(_table, report.tables)
    parts += [f"<p><small>{_text(remark)}</small></p>" for remark in report.remarks]
    return f"<div>{''.join(parts)}</div>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(column.title)}</th>" for column in table.columns)
    body = "".join(_row(table.columns, row) for row in table.rows)
    title = f"<p><b>{_text(table.title)}</b></p>" if table.title else ""
    note = f"<p><small>{_text(table.note)}</small></p>" if table.note else ""
    return f"{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def _row(columns: tuple[Column, ...], row: dict[str, Any]) -> str:
    cells = (
        f'<td style="text-align: {"left" if column.unit.is_text else "right"}">'
        f"{_lead(column, row)}{_text(column.unit.show(row[column.key]))}</td>"
        for column in columns
    )
    return f"<tr>{''.join(cells)}</tr>"


def _lead(column: Column, row: dict[str, Any]) -> str:
    """The lines of a tree; a page would close up common spaces."""
    return str(row[column.lead]).replace(" ", "\N{NO-BREAK SPACE}") if column.lead else ""


def _text(text: str) -> str:
    return escape(printable(text))
