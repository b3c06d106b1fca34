"""The queries of the package: finds queries/*.sql, reads their documentation, names them.

Each file is one PerfettoSQL module ``traceq.<file>`` with one public table or function, described
in its comments. Running them is left to ``trace`` and the engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

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


def ui_query(name: str, under: str) -> str:
    """The text of queries/ui/<name>.sql for one GLOB pattern: to be pasted into the Perfetto UI."""
    text = (query_folder() / "ui" / f"{name}.sql").read_text(encoding="utf-8")
    return text.replace("$under", quote(under)).rstrip()


def duckdb_query(name: str) -> str:
    """The text of queries/duckdb/<name>.sql: joins over tables that came out of the engine."""
    return (query_folder() / "duckdb" / f"{name}.sql").read_text(encoding="utf-8")


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
