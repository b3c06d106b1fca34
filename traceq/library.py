"""The queries of the package: finds queries/*.sql, reads their documentation, names them.

Each file is one PerfettoSQL module ``traceq.<file>`` with one public table or function, described
in its comments. Running them is left to ``trace`` and the engine.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from traceq.errors import UsageError
from traceq.model import Field

PACKAGE = "traceq"

_STATEMENT = re.compile(
    r"CREATE OR REPLACE PERFETTO (?P<kind>TABLE|VIEW|FUNCTION) (?P<name>\w+)"
    r"\s*\((?P<fields>.*?)\n?\)"
    r"\s*(?:(?P<note>(?:--[^\n]*\n\s*)*)RETURNS (?P<returns>TABLE\s*\((?P<columns>.*?)\n\)|\w+)"
    r"\s*)?AS\b",
    re.DOTALL,
)
_FIELD = re.compile(r"(?P<doc>(?:\s*--[^\n]*\n)+)\s*(?P<name>\w+) (?P<type>[A-Z]+)")
_UNIT = re.compile(r"^\((?P<unit>\w+)\) ")


@dataclass(frozen=True, slots=True)
class Query:
    """The documentation of a public table or function; ``returns`` is the type of a scalar."""

    module: str
    name: str
    kind: str
    doc: str
    parameters: tuple[Field, ...]
    columns: tuple[Field, ...]
    returns: Field | None


def query_folder() -> Traversable:
    """The folder with the .sql files: beside the package in a checkout, inside it in a wheel."""
    checkout = Path(__file__).parent.parent / "queries"
    installed = files(PACKAGE) / "_queries"
    return installed if installed.is_dir() else checkout


@cache
def modules() -> Mapping[str, str]:
    """SQL text of every module, by its full name (``traceq.ops``)."""
    return {
        f"{PACKAGE}.{item.name.removesuffix('.sql')}": item.read_text(encoding="utf-8")
        for item in sorted(query_folder().iterdir(), key=lambda item: item.name)
        if item.name.endswith(".sql")
    }


def portable_modules() -> Mapping[str, str]:
    """Modules that take the place of others on engines which lack what these need."""
    folder = query_folder() / "portable"
    return {
        f"{PACKAGE}.{item.name.removesuffix('.sql')}": item.read_text(encoding="utf-8")
        for item in folder.iterdir()
        if item.name.endswith(".sql")
    }


def ui_query(name: str, under: Sequence[str]) -> str:
    """The text of queries/ui/<name>.sql for GLOB patterns: to be pasted into the Perfetto UI."""
    text = (query_folder() / "ui" / f"{name}.sql").read_text(encoding="utf-8")
    scopes = " OR ".join(f"a.name GLOB {quote(pattern)}" for pattern in under)
    return text.replace("$is_scope", f"({scopes})" if len(under) > 1 else scopes).rstrip()


def duckdb_query(name: str) -> str:
    """The text of queries/duckdb/<name>.sql: joins over tables that came out of the engine."""
    return (query_folder() / "duckdb" / f"{name}.sql").read_text(encoding="utf-8")


def history_query(name: str) -> str:
    """The text of queries/history/<name>.sql: over the tables of a history."""
    return (query_folder() / "history" / f"{name}.sql").read_text(encoding="utf-8")


def history_migrations() -> list[str]:
    """What brings a history from each version of its schema to the next: 001.sql, 002.sql ..."""
    folder = query_folder() / "history"
    found = {item.name: item for item in folder.iterdir() if re.fullmatch(r"\d{3}\.sql", item.name)}
    return [found[name].read_text(encoding="utf-8") for name in sorted(found)]


@cache
def catalogue() -> tuple[Query, ...]:
    """The public tables and functions, as their comments describe them."""
    return tuple(
        query
        for module, text in modules().items()
        for query in (_describe(module, match) for match in _STATEMENT.finditer(text))
        if not query.name.startswith("_")
    )


def query_named(name: str) -> Query:
    """The documentation of one table or function. Raises KeyError for an unknown name."""
    return {query.name: query for query in catalogue()}[name]


def _describe(module: str, match: re.Match[str]) -> Query:
    comments = re.search(r"((?:--[^\n]*\n)+)\Z", match.string[: match.start()])
    columns, parameters = match["columns"], match["fields"]
    if match["kind"] != "FUNCTION":
        columns, parameters = parameters, ""
    scalar = None
    if match["returns"] and not columns:
        scalar = Field("", match["returns"], "", _text(match["note"]))
    return Query(
        module=module,
        name=match["name"],
        kind=match["kind"].lower(),
        doc=_text(comments.group(1) if comments else ""),
        parameters=_fields(parameters),
        columns=_fields(columns or ""),
        returns=scalar,
    )


def _fields(text: str) -> tuple[Field, ...]:
    return tuple(_field(match) for match in _FIELD.finditer(text))


def _field(match: re.Match[str]) -> Field:
    doc = _text(match["doc"])
    unit = _UNIT.match(doc)
    return Field(
        match["name"],
        match["type"],
        unit["unit"] if unit else "",
        doc[unit.end() :] if unit else doc,
    )


def _text(comment: str) -> str:
    """Comment lines as running text; an empty comment line stays a paragraph's end."""
    lines = [line.strip().removeprefix("--").strip() for line in comment.strip().splitlines()]
    return "\n\n".join(
        " ".join(paragraph.split("\n")) for paragraph in "\n".join(lines).split("\n\n")
    )


def quote(text: str) -> str:
    """An SQL string literal.

    >>> quote("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


_GAP = r"(?:\s|--[^\n]*\n|/\*.*?\*/)+"
_BOUND = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|\Z)"""
    r"""|(?<![\w$])\$(?P<name>\w+)|(?P<end>;)|\bCREATE"""
    + _GAP
    + rf"(?:OR{_GAP}REPLACE{_GAP})?PERFETTO{_GAP}(?:FUNCTION|MACRO)\b(?P<arguments>.*?)\bRETURNS\b",
    re.DOTALL | re.IGNORECASE,
)
"""A value's place, or what may hold a dollar that is none: texts, identifiers, comments; and where
the body of a function or macro begins, which has arguments of its own, and where it ends."""

_LARGEST = 2**63
_MAGIC = slice(8, 12)


def check_database(path: str | Path) -> None:
    """Raises UsageError for what is no DuckDB file of this machine, and no place for a new one.

    DuckDB itself would take other files for data, and some names for services on a network.
    """
    text, file = str(path), Path(path)
    if text.startswith(":") or re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:", text):
        raise UsageError(f"{text!r} is no file", hint="Name a DuckDB file, or a new one.")
    try:
        if not file.exists():
            return
        if not file.is_file():
            raise UsageError(f"{text}: is no file", hint="Name a DuckDB file, or a new one.")
        with file.open("rb") as opened:
            head = opened.read(_MAGIC.stop)
    except OSError as error:
        raise UsageError(
            f"{text}: cannot be read: {error.strerror}", hint="Name another DuckDB file."
        ) from error
    if head and head[_MAGIC] != b"DUCK":
        raise UsageError(f"{text}: is no DuckDB database", hint="Name a DuckDB file, or a new one.")


def bind(query: str, params: Mapping[str, str | int | float | None]) -> str:
    """SQL with values, as literals, in the places of ``$name``.

    In the body of a function or macro of PerfettoSQL its own arguments stay. Raises UsageError for
    a place without a value, and for a value without a place.

    >>> bind("SELECT $name, '$name'", {"name": "it's"})
    "SELECT 'it''s', '$name'"
    """
    if not isinstance(params, Mapping):
        raise UsageError(
            f"values for a query come by name, not as {type(params).__name__}",
            hint='Write $NAME in the query, and give a dict: {"NAME": value}.',
        )
    used: set[str] = set()
    body: str | None = None  # the arguments of the function that a match is in

    def put(match: re.Match[str]) -> str:
        nonlocal body
        name = match["name"]
        if name is None:
            body = None if match["end"] else match["arguments"] or body
            return match[0]
        # What is no argument of it either, the engine refuses.
        if body is not None and (name not in params or re.search(rf"\b{name}\b", body)):
            return match[0]
        used.add(name)
        return _literal(name, _value_of(name, params))

    text = _BOUND.sub(put, query)
    if left := sorted(map(str, params.keys() - used)):
        raise UsageError(
            f"the query has no ${left[0]}", hint="Write $NAME where the value is to stand."
        )
    return text


def _value_of(
    name: str, params: Mapping[str, str | int | float | None]
) -> str | int | float | None:
    if name not in params:
        raise UsageError(
            f"${name} has no value",
            hint=f"Give one, trace.sql(query, {{'{name}': ...}}), or quote it as text: '${name}'.",
        )
    return params[name]


def _literal(name: str, value: str | int | float | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str) and "\0" not in value and _is_text(value):
        return quote(value)
    # In parentheses: a minus before a negative number would begin a comment.
    if isinstance(value, numbers.Integral) and abs(int(value)) < _LARGEST:
        return f"({int(value)})"
    is_fraction = isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
    if is_fraction and math.isfinite(float(value)):
        return f"({float(value)!r})"
    raise UsageError(f"${name} has no value that SQL knows", hint="Give text, a number, or None.")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def op_names_module(ops: Mapping[str, str]) -> str:
    """The module ``traceq.op_names`` for one trace, from name to op."""
    head = "CREATE OR REPLACE PERFETTO TABLE traceq_op_names(\nname STRING, op STRING)\nAS\n"
    if not ops:
        return f"{head}SELECT '' AS name, '' AS op WHERE 0;"
    rows = ",\n".join(f"({quote(name)}, {quote(op)})" for name, op in ops.items())
    return f"{head}SELECT column1 AS name, column2 AS op FROM (VALUES {rows});"


def as_markdown() -> str:
    """The catalogue as Markdown: what queries/README.md holds."""
    intro = (
        "# The PerfettoSQL package `traceq`\n\n"
        "Generated by `traceq queries --format markdown` from the comments in the .sql files.\n\n"
        "traceq registers these modules in every trace that it opens:\n\n"
        "```sql\nINCLUDE PERFETTO MODULE traceq.ops;\n"
        "SELECT op, calls, total FROM traceq_ops(traceq_names('*GatedDeltaNet*'));\n```\n"
    )
    return "\n".join([intro, *map(_query_markdown, catalogue())])


def _query_markdown(query: Query) -> str:
    parts = [f"## {query.name}\n", f"{query.kind} in module `{query.module}`\n", query.doc + "\n"]
    if query.parameters:
        parts.append(_fields_markdown("parameter", query.parameters))
    if query.columns:
        parts.append(_fields_markdown("column", query.columns))
    if query.returns:
        parts.append(f"Returns {query.returns.type}: {query.returns.doc}\n")
    return "\n".join(parts)


def _fields_markdown(title: str, fields: tuple[Field, ...]) -> str:
    rows = [f"| `{f.name}` | {f.type} | {f.unit} | {f.doc.replace('|', '/')} |" for f in fields]
    return "\n".join(
        [f"| {title} | type | unit | meaning |", "| --- | --- | --- | --- |", *rows, ""]
    )
