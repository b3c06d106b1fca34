"""Writes a trace's tables into a DuckDB database or as Parquet files, to go on in SQL.

The tables are those of :class:`Trace`; their columns are documented in the database itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from traceq.calltree import nearest
from traceq.categories import GPU_WORK
from traceq.errors import UsageError
from traceq.library import check_database, quote
from traceq.model import Bools, Field
from traceq.names import fold_name
from traceq.part import TABLES, Part
from traceq.table import ResultTable

if TYPE_CHECKING:
    import duckdb

SCHEMA_VERSION = 1
"""Version of the tables; raised when a column changes its meaning or goes away."""

SLICE_FIELDS = (
    Field("id", "LONG", "", "Slice id, as in Perfetto's table slice."),
    Field("ts", "LONG", "ns", "Start, on the trace's own clock."),
    Field("dur", "LONG", "ns", "Duration."),
    Field("name", "STRING", "", "Name as it stands in the trace."),
    Field("op", "STRING", "", "Name with addresses, line and instance numbers folded."),
    Field("category", "STRING", "", "What the profiler calls it: cpu_op, python_function, ..."),
    Field("parent_id", "LONG", "", "Id of the innermost slice around it, in the part or not."),
)
METADATA_FIELDS = (
    Field("key", "STRING", "", "What is told: path, gpu, a version, traceq's schema ..."),
    Field("value", "STRING", "", "What it is."),
)


def tables_of(part: Part) -> dict[str, Callable[[], ResultTable]]:
    """The tables by their names, each made when it is asked for.

    ``steps`` are all of the trace, to join on their number; the others are of the part: ``calls``
    what is below its scopes, ``slices`` also the scopes themselves and what they ran on the GPU.
    """
    return {
        "slices": lambda: slices_table(part),
        "ops": part.ops,
        "calls": lambda: part.calls("*"),
        "kernels": part.activities,
        "scopes": part.scopes,
        "steps": part.trace.steps,
        "metadata": lambda: metadata_table(part),
    }


def to_duckdb(
    part: Part,
    target: str | Path | duckdb.DuckDBPyConnection,
    tables: Sequence[str] = TABLES,
    *,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write tables into a database file (made if it is not there) or an open connection.

    All in one transaction; the rows of each. What traceq wrote there before is replaced, what else
    has one of the names only with ``overwrite``. Raises UsageError for an unknown table, for one
    that is not traceq's, or where the file cannot be written.
    """
    import duckdb

    if not isinstance(target, duckdb.DuckDBPyConnection):
        check_database(target)
    made = {name: make() for name, make in _chosen(part, tables).items()}
    try:
        if isinstance(target, duckdb.DuckDBPyConnection):
            _write_tables(target, made, overwrite=overwrite)
        else:
            with duckdb.connect(str(target)) as connection:
                _write_tables(connection, made, overwrite=overwrite)
    except duckdb.TransactionException as error:
        raise UsageError(
            f"the connection cannot take tables: {str(error).splitlines()[0]}",
            hint="End its transaction first: COMMIT or ROLLBACK.",
        ) from error
    except duckdb.Error as error:
        raise UsageError(
            f"{target}: cannot be written: {str(error).splitlines()[0]}",
            hint="Name a DuckDB file that no other program has open, or a new one.",
        ) from error
    return {name: len(table) for name, table in made.items()}


def to_parquet(part: Part, folder: str | Path, tables: Sequence[str] = TABLES) -> list[Path]:
    """Write each table as FOLDER/NAME.parquet (zstd); the files. Raises UsageError."""
    import duckdb

    folder, written = Path(folder), []
    chosen = _chosen(part, tables)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with duckdb.connect() as connection:
            for name, make in chosen.items():
                path = folder / f"{name}.parquet"
                table = make()
                connection.register(_FOUND, _as_loaded(table))
                form = "(FORMAT parquet, COMPRESSION zstd)"
                connection.execute(f"COPY ({_select(name, table)}) TO {quote(str(path))} {form}")
                written.append(path)
    except (OSError, duckdb.Error) as error:
        raise UsageError(
            f"{folder}: cannot be written: {str(error).splitlines()[0]}",
            hint="Name a folder that can be written to.",
        ) from error
    return written


def _chosen(part: Part, names: Sequence[str]) -> dict[str, Callable[[], ResultTable]]:
    known = tables_of(part)
    names = [names] if isinstance(names, str) else names
    for name in names:
        if name not in known:
            raise UsageError(f"there is no table {name!r}", hint=f"Tables: {', '.join(known)}.")
    return {name: known[name] for name in names}


def _write_tables(
    connection: duckdb.DuckDBPyConnection, tables: Mapping[str, ResultTable], *, overwrite: bool
) -> None:
    connection.execute("BEGIN")
    try:
        _make_room(connection, tables, overwrite=overwrite)
        for name, table in tables.items():
            _write_table(connection, name, table)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _write_table(connection: duckdb.DuckDBPyConnection, name: str, table: ResultTable) -> None:
    connection.register(_FOUND, _as_loaded(table))
    try:
        connection.execute(f"CREATE TABLE {name} AS {_select(name, table)}")
    finally:
        connection.unregister(_FOUND)
    connection.execute(f"COMMENT ON TABLE {name} IS {quote(_OURS)}")
    for field in table.fields:
        told = f"({field.unit}) {field.doc}" if field.unit else field.doc
        connection.execute(f'COMMENT ON COLUMN {name}."{field.name}" IS {quote(told)}')


_OURS = "written by traceq, which replaces it when it writes a table of this name again"
"""The comment that tells traceq's own tables from those of the user."""

_THERE = """
WITH there AS (
    SELECT table_name AS name, 'TABLE' AS kind, comment, temporary, database_name, schema_name
    FROM duckdb_tables()
    UNION ALL
    SELECT view_name, 'VIEW', NULL, temporary, database_name, schema_name FROM duckdb_views()
)
SELECT name, kind, comment FROM there
WHERE temporary OR (database_name = current_database() AND schema_name = current_schema())
"""
"""What stands under a plain name: temporary tables and views hide others."""


def _make_room(
    connection: duckdb.DuckDBPyConnection, names: Collection[str], *, overwrite: bool
) -> None:
    """Drop what is in the place of the tables. Raises UsageError for what is not traceq's."""
    found = connection.execute(_THERE).fetchall()
    if "schema_versions" in {name for name, _, _ in found}:
        raise UsageError(
            "this database is a history: its tables are its own", hint="Name another file."
        )
    for name, kind, comment in found:
        if name.lower() not in names:
            continue
        if comment != _OURS and not overwrite:
            raise UsageError(
                f"the database has a {kind.lower()} {name!r} that traceq did not write",
                hint="Name another file, leave it out of tables=, or replace it: overwrite=True.",
            )
        connection.execute(f'DROP {kind} "{name}"')


def _as_loaded(table: ResultTable) -> pd.DataFrame:
    """With texts as categories: DuckDB reads these, and numbers, as they lie in memory."""
    found = table.df.copy(deep=False)
    for name in found.columns:
        if found[name].dtype == object and len(found):
            code, distinct = pd.factorize(found[name])
            found[name] = pd.Categorical.from_codes(
                code, pd.Index([*map(_sound, distinct)], dtype=object)
            )
    return found


_FOUND = "_traceq_found"
"""Under this name a table stands while it is copied."""

_LONG = frozenset({"slices", "calls", "kernels"})
"""Tables in which a text stands many times: DuckDB keeps these as ENUM, which is written 2.5 times
as fast and compares as text does."""


def _select(name: str, table: ResultTable) -> str:
    """The rows as they are written: texts of short tables as VARCHAR."""
    texts = [
        field.name
        for field in table.fields
        # A column without any text would get a type that takes none.
        if field.type == "STRING" and (name not in _LONG or not table[field.name].notna().any())
    ]
    casts = ", ".join(f'"{name}"::VARCHAR AS "{name}"' for name in texts)
    return f"SELECT * {f'REPLACE ({casts})' if casts else ''} FROM {_FOUND}"


def slices_table(part: Part) -> ResultTable:
    """The part's scopes, what is below them, and what they ran on the GPU; columns: SLICE_FIELDS.

    Without scopes all slices within the part's limits of time.
    """
    slices = part.trace.slices
    missing = slices.parent < 0
    table = pd.DataFrame(
        {
            "id": np.arange(len(slices)),
            "ts": slices.ts,
            "dur": slices.dur,
            "name": _category(slices.names, slices.name),
            "op": _category([*map(fold_name, slices.names)], slices.name),
            "category": _category(slices.categories, slices.category),
            "parent_id": pd.arrays.IntegerArray(np.where(missing, 0, slices.parent), missing),
        }
    )
    if part != part.trace.whole:
        table = table[_is_in(part)].reset_index(drop=True)
        for name in table.columns[table.dtypes == "category"]:
            table[name] = table[name].cat.remove_unused_categories()
    return ResultTable.of(table, SLICE_FIELDS)


def _is_in(part: Part) -> Bools:
    """Marks the slices of a part; GPU activities where :meth:`Part.activities` has them."""
    slices = part.trace.slices
    selection = part.trace.selection(part.patterns, part.windows)
    found = ~slices.of_category(*GPU_WORK)
    if selection.under is not None:
        found &= nearest(slices.parent, selection.marks(slices)) >= 0
    if (counted := selection.counted(slices)) is not None:
        found &= counted
    found[part.activities()["id"].to_numpy(np.int64)] = True
    return found


def metadata_table(part: Part) -> ResultTable:
    """What was captured, and by what it was read; columns: :data:`METADATA_FIELDS`."""
    rows: dict[str, Any] = {"traceq_schema": SCHEMA_VERSION, "path": part.trace.path}
    rows |= {"part": repr(part)}
    info = part.trace.facts
    if info is not None:
        told = asdict(info)
        rows |= {f"version {key}": value for key, value in info.versions.items()}
        rows |= {"gpu": ", ".join(dict.fromkeys(info.gpus))}
        rows |= {key: told[key] for key in ("host", "rank", "world_size", "start", "duration")}
    found = {key: str(value) for key, value in rows.items() if value is not None}
    return ResultTable.of(
        pd.DataFrame({"key": [*found], "value": [*found.values()]}), METADATA_FIELDS
    )


def _category(texts: Sequence[str], number: Any) -> pd.Categorical:
    """Texts by their numbers; equal ones are one category."""
    code, distinct = pd.factorize(np.array([*texts], object))
    codes = np.where(number >= 0, code[number], -1) if len(code) else np.full(len(number), -1)
    return pd.Categorical.from_codes(codes, pd.Index([*map(_sound, distinct)], dtype=object))


def _sound(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
