"""The schema of a history's file: which version it has, and how it is brought to this one.

Each step is a file of queries/history; what SQL cannot read out of packed captures is filled in
here. Opening the file, and rows of this version, are left to ``store``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from traceq.comparability import CaptureFacts
from traceq.errors import HistoryError
from traceq.history.pack import packed_facts
from traceq.library import history_migrations

if TYPE_CHECKING:
    import duckdb

    Connection = duckdb.DuckDBPyConnection


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """All that is written in it, or nothing."""
    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def migrate(connection: Connection, path: Path, write: bool) -> None:
    """Bring the file to this version's schema. Raises HistoryError for a later one, or none."""
    steps = history_migrations()
    now = _version(connection, path)
    if now > len(steps):
        raise HistoryError(
            f"{path}: was written by a later version of traceq (schema {now}, not {len(steps)})",
            hint="Use that version, or later.",
        )
    if now == len(steps):
        return
    if not write:
        raise HistoryError(
            f"{path}: holds no history of this version (schema {now}, not {len(steps)})",
            hint="'traceq record' makes one, or brings an older one up to date.",
        )
    with transaction(connection):
        for number, text in enumerate(steps[now:], now + 1):
            connection.execute(text)
            if number == 2:
                _fill_from_packed(connection)
            connection.execute("INSERT INTO schema_versions VALUES (?)", [number])


def _version(connection: Connection, path: Path) -> int:
    """The schema's version; 0 for an empty file. Raises HistoryError where it is another's."""
    names = {name for (name,) in connection.execute("SHOW TABLES").fetchall()}
    if not names:
        return 0
    if "schema_versions" not in names:
        raise HistoryError(
            f"{path}: is a database of something else", hint="Name another file with --db."
        )
    (row,) = connection.execute("SELECT max(version) FROM schema_versions").fetchall()
    if not isinstance(row[0], int) or row[0] < 1:
        raise HistoryError(
            f"{path}: its schema has no version", hint="Take a copy that is whole, or a new file."
        )
    return row[0]


def _fill_from_packed(connection: Connection) -> None:
    """The columns of version 2, for what version 1 recorded."""
    rows = connection.execute("SELECT capture, sha256, path FROM captures").fetchall()
    for key, sha256, path in rows:
        packed = connection.execute("SELECT packed FROM captures WHERE capture = ?", [key])
        facts = packed_facts(packed.fetchall()[0][0])
        connection.execute(
            "UPDATE captures SET captured = ?, content = ?, workload = ? WHERE capture = ?",
            [moment(facts.time), facts.fingerprint or sha256 or path, workload_of(facts), key],
        )
    connection.execute(
        "UPDATE runs SET recorded = NULL "
        "WHERE run IN (SELECT run FROM captures WHERE captured IS NOT NULL)"
    )


def workload_of(facts: CaptureFacts) -> str:
    """What of a capture's work must be equal for times to compare, as JSON."""
    return json.dumps(facts.workload, ensure_ascii=False, sort_keys=True)


def moment(seconds: float | None) -> datetime | None:
    """A time since the epoch in UTC; None where a calendar has none."""
    try:
        return (
            None if seconds is None else datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
        )
    except (ValueError, OverflowError, OSError):
        return None
