"""``traceq sql``: any PerfettoSQL over a trace."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import click
import pandas as pd

from traceq.cli import options
from traceq.cli.opening import opened
from traceq.cli.output import render, to_csv, to_json, write
from traceq.errors import UsageError
from traceq.limits import Limits
from traceq.report import Column, Report, Table, Unit

SCHEMA_VERSION = 1


@click.command(
    "sql",
    epilog='Example: traceq sql trace.json.gz "SELECT name, COUNT(*) FROM slice GROUP BY name"',
)
@click.argument("trace")
@click.argument("query", required=False)
@click.option(
    "-f", "--file", "file", metavar="FILE", help="Read the query from FILE (- for standard input)."
)
@options.part
@options.output("table", "markdown", "json", "csv")
@options.opening
def command(
    trace: str,
    query: str | None,
    file: str | None,
    part: Limits,
    format_: str,
    output: str | None,
    **opening: Any,
) -> None:
    """Run PerfettoSQL over TRACE and print the rows of its last statement.

    The tables are those of Perfetto (slice, args, thread, ...); those of traceq come with
    INCLUDE PERFETTO MODULE traceq.ops; (see traceq queries). With --under, --steps or --window they
    hold that part: what is selected, what is below, around and launched by it, the steps' marks.
    """
    if (query is None) == (file is None):
        raise UsageError("give either a query or -f FILE", hint="See: traceq sql --help")
    if trace == file == "-":
        raise UsageError(
            "standard input holds the trace or the query, not both", hint="Name one of the files."
        )
    text = query if query is not None else _read(str(file))
    with opened(trace, part=part, needs_engine=True, **opening) as source:
        table = source.sql(text)
    write(_format(table, format_, output), output)


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"{file}: cannot be read: {reason}", hint="Check the path.") from error


def _format(table: pd.DataFrame, format_: str, path: str | None) -> str:
    columns = [str(column) for column in table.columns]
    rows = [[_plain(value) for value in row] for row in table.itertuples(index=False, name=None)]
    if format_ == "csv":
        return to_csv(columns, rows)
    if format_ == "json":
        return to_json({"schema": SCHEMA_VERSION, "kind": "sql", "columns": columns, "rows": rows})
    return render(_report(columns, rows), format_, path)


def _plain(value: Any) -> Any:
    if value is pd.NA or value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and math.isinf(value):
        return str(value)  # JSON has no word for it
    if isinstance(value, bytes):
        return value.hex()
    return value.item() if hasattr(value, "item") else value


def _report(columns: list[str], rows: list[list[Any]]) -> Report:
    """Values stand as the engine gave them: no scaling, no rounding, no dropped column.

    Long text is shortened in a table; CSV and JSON hold it whole.
    """
    keys = [str(number) for number in range(len(columns))]
    units = [
        Unit.NAME if any(isinstance(row[place], str) for row in rows) else Unit.TEXT
        for place in range(len(columns))
    ]
    table = Table(
        "",
        tuple(map(Column, keys, columns, units)),
        tuple(dict(zip(keys, row, strict=True)) for row in rows),
    )
    count = f"{len(rows):,} row" + ("" if len(rows) == 1 else "s")
    return Report(headline=count, tables=(table,) if rows else ())
