"""The tables of ``python -m tests.bench query``: what each takes over an open trace.

SQL tables are built in the order of what they include, so that each is charged for itself alone;
``in all`` adds what it includes. The plain ways are what one would write without traceq: LIKE, and
descendant_slice() for each root.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from traceq import Trace, library
from traceq.errors import QueryTimeoutError

UNDER = "GatedDeltaNet"

PLAIN = {
    "ops under a scope, ancestors of each slice": """
        SELECT s.name, COUNT(*), SUM(s.dur) FROM slice s
        WHERE s.name LIKE 'aten::%'
          AND EXISTS (SELECT 1 FROM ancestor_slice(s.id) a WHERE a.name LIKE '%GatedDeltaNet%')
        GROUP BY s.name""",
    "ops under a scope, descendants of each root": """
        SELECT d.name, COUNT(*), SUM(d.dur), MIN(d.dur), MAX(d.dur)
        FROM slice s JOIN descendant_slice(s.id) d
        WHERE s.name LIKE '%GatedDeltaNet%' GROUP BY d.name""",
    "ops of the whole trace, with self time": """
        SELECT s.name, COUNT(*), SUM(s.dur), SUM(s.dur - COALESCE(c.dur, 0)), MIN(s.dur), MAX(s.dur)
        FROM slice s
        LEFT JOIN (SELECT parent_id, SUM(dur) AS dur FROM slice GROUP BY parent_id) c
          ON c.parent_id = s.id
        GROUP BY s.name""",
    "kernels under a scope, descendants of each root": """
        WITH launch AS (
          SELECT EXTRACT_ARG(d.arg_set_id, 'args.correlation') AS correlation
          FROM slice s JOIN descendant_slice(s.id) d
          WHERE s.name LIKE '%GatedDeltaNet%' AND d.category LIKE 'cuda%'
        ), activity AS (
          SELECT name, dur, EXTRACT_ARG(arg_set_id, 'args.correlation') AS correlation
          FROM slice WHERE category LIKE 'kernel' OR category LIKE 'gpu_mem%'
        )
        SELECT a.name, COUNT(*), SUM(a.dur) FROM launch l JOIN activity a USING (correlation)
        GROUP BY a.name""",
}


def in_order() -> list[str]:
    """The modules, each after those that it includes."""
    found: list[str] = []

    def visit(module: str) -> None:
        if module not in found:
            for other in included(module):
                visit(other)
            found.append(module)

    for module in library.modules():
        visit(module)
    return found


def included(module: str) -> list[str]:
    """The modules that one includes itself."""
    return re.findall(
        r"^INCLUDE PERFETTO MODULE ([\w.]+);", library.modules()[module], re.MULTILINE
    )


def timed(work: Callable[[], Any]) -> float:
    """Seconds of CPU, of all threads of this process; infinite where it was given up."""
    started = time.process_time()
    try:
        work()
    except QueryTimeoutError:
        return math.inf
    return time.process_time() - started


def sql_tables(trace: Trace) -> dict[str, tuple[float, float]]:
    """For each public table and function: (its own time, with all that it includes)."""
    own: dict[str, float] = {}
    found = {}
    for module in in_order():
        query = next(item for item in library.catalogue() if item.module == module)
        include = f"INCLUDE PERFETTO MODULE {module}; SELECT 1"
        own[module] = timed(lambda include=include: trace.sql(include))
        around = sum(own[item] for item in _all_included(module))
        for what, select in _selects(query):
            taken = own[module] + timed(lambda select=select: trace.sql(select))
            found[query.name + what] = (taken, taken + around)
    return found


def _selects(query: library.Query) -> Iterator[tuple[str, str]]:
    """The ways to ask for a table or function, by what they are for; ids and durations are read."""
    read = [item.name for item in query.columns if item.name in ("id", "dur", "total", "calls")]
    columns = ", ".join(f"MAX({name})" for name in read) or "NULL"
    values = {"pattern": f"'*{UNDER}*'", "match": "traceq_names('*rearrange*')"}
    given = [values.get(item.name, f"traceq_names('*{UNDER}*')") for item in query.parameters]
    call = f"{query.name}({', '.join(given)})" if given else query.name
    if query.returns:
        yield "", f"SELECT {call}"
        return
    yield " under" if given else "", f"SELECT COUNT(*), {columns} FROM {call}"
    if (
        query.parameters
        and query.parameters[-1].name in ("under", "names")
        and query.name != SCOPES
    ):
        whole = f"{query.name}({', '.join([*given[:-1], 'NULL'])})"
        yield " whole", f"SELECT COUNT(*), {columns} FROM {whole}"


SCOPES = "traceq_scopes"
"""Has no form for the whole trace."""


def _all_included(module: str) -> set[str]:
    found = set(included(module))
    for item in list(found):
        found |= _all_included(item)
    return found


def python_tables(trace: Trace) -> dict[str, float]:
    """For each table of the Python API, in the order of a session: those before it are there."""
    ways: dict[str, Callable[[], Any]] = {
        "Trace.slices (once)": lambda: trace.slices,
        "Trace.gpu (once)": lambda: trace.gpu,
        "Trace.ops()": trace.ops,
        f"Trace.ops({UNDER})": lambda: trace.ops(UNDER),
        "Trace.kernels()": trace.kernels,
        f"Trace.kernels({UNDER})": lambda: trace.kernels(UNDER),
        f"Trace.activities({UNDER})": lambda: trace.activities(UNDER),
        **{f"Trace.scopes(by={by!r})": lambda by=by: trace.scopes(by=by) for by in BY},
        "Trace.tree()": trace.tree,
        f"Trace.tree({UNDER}, functions)": lambda: trace.tree(UNDER, functions=True),
        "Trace.steps()": trace.steps,
        "Trace.timeline()": trace.timeline,
        "Trace.calls('rearrange')": lambda: trace.calls("rearrange", UNDER),
        "Trace.modules()": trace.modules,
    }
    return {name: timed(way) for name, way in ways.items()}


BY = ("class", "instance", "layer")


def plain_ways(trace: Trace) -> dict[str, float]:
    """The same rows, asked for without traceq's package; infinite where PATIENCE ran out."""
    return {
        name: timed(lambda sql=sql: trace.sql(sql, timeout=PATIENCE)) for name, sql in PLAIN.items()
    }


PATIENCE = 40.0
"""Seconds after which a plain query is given up."""
