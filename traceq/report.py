"""What a report says, in order: headline, facts, tables, remarks. How it looks is ``render``'s.

Each ``*_report`` function turns a result into a :class:`Report`; values in tables stay in base
units and carry a :class:`Unit`, so that every renderer prints the same figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from traceq import units
from traceq.compare import STATUS_ORDER, Diff, ScopeTotals, records
from traceq.info import TraceInfo
from traceq.model import Ledger, Tally, tally_dict

if TYPE_CHECKING:
    import pandas as pd

RATIO_NOTE = (
    "CPU times in µs, children included, without the GPU's work; ratio = before / after, above 1 "
    "is faster. ⇒ replaced, ~ other calls, ≈ same calls, time shifted, + added, − removed."
)
REPLACED_BY = " ⇒ "
"""Stands between an op and what took its place."""

MARKS = {
    "replaced": "⇒",
    "changed": "~",
    "shifted": "≈",
    "added": "+",
    "removed": "−",
    "same": "",
}


class Unit(Enum):
    """How the values of a column are printed."""

    TEXT = "text"
    NAME = "name"  # text that may be shortened in the middle
    COUNT = "count"
    MICROS = "µs"
    DELTA = "Δ µs"
    RATIO = "ratio"
    COUNT_DELTA = "Δ"

    def show(self, value: Any) -> str:
        """A value as text; None where there is none."""
        return _PRINTERS[self](value)

    @property
    def is_text(self) -> bool:
        return self in (Unit.TEXT, Unit.NAME)


def _show_text(value: Any) -> str:
    return "" if value is None else units.printable(str(value))


_PRINTERS: dict[Unit, Callable[[Any], str]] = {
    Unit.TEXT: _show_text,
    Unit.NAME: _show_text,
    Unit.COUNT: units.count,
    Unit.MICROS: units.micros,
    Unit.DELTA: units.signed_micros,
    Unit.RATIO: units.ratio,
    Unit.COUNT_DELTA: units.count,
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: the key of its values, its title, its unit, and how easily it is given up.

    ``rank`` 0 is never dropped; where width is short, the highest ranks go first.
    """

    key: str
    title: str
    unit: Unit
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of plain values under columns; ``note`` is printed below."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[dict[str, Any], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A finished report, ready for any renderer.

    ``warnings`` are what a reader must know before believing a number; ``remarks`` come after the
    tables.
    """

    headline: str
    facts: tuple[tuple[str, str], ...] = ()
    tables: tuple[Table, ...] = ()
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = field(default=())


# Ops ----------------------------------------------------------------------------------------

SORT_KEYS = ("total", "self", "calls", "average", "min", "max", "outermost", "op")

_OP_COLUMNS = (
    Column("op", "op", Unit.NAME),
    Column("calls", "calls", Unit.COUNT),
    Column("total", "total µs", Unit.MICROS),
    Column("self", "self µs", Unit.MICROS, 2),
    Column("average", "average µs", Unit.MICROS, 1),
    Column("min", "min µs", Unit.MICROS, 4),
    Column("max", "max µs", Unit.MICROS, 3),
    Column("outermost", "outermost µs", Unit.MICROS, 5),
    Column("category", "category", Unit.TEXT, 6),
)


def sorted_ops(ops: pd.DataFrame, key: str) -> pd.DataFrame:
    """Ops by one of SORT_KEYS, largest first; by name where they are equal."""
    return ops.sort_values([key, "op"], ascending=[key == "op", True], kind="stable")


def ops_report(
    ops: pd.DataFrame,
    *,
    under: Sequence[str],
    scopes: ScopeTotals | None,
    sort: str = "total",
    limit: int | None = None,
    doubts: Sequence[str] = (),
) -> Report:
    """Ops of one trace, sorted, at most ``limit`` of them; what is left out is said."""
    shown = sorted_ops(ops, sort).head(len(ops) if limit is None else limit)
    left = len(ops) - len(shown)
    note = f"{left:,} more ops (--limit 0 shows all)." if left else ""
    return Report(
        headline=_ops_headline(ops, under, scopes),
        tables=(Table("", _OP_COLUMNS, tuple(records(shown)), note),),
        warnings=tuple(doubts),
        remarks=("Times include children; self leaves them out.",),
    )


def _ops_headline(ops: pd.DataFrame, under: Sequence[str], scopes: ScopeTotals | None) -> str:
    calls = f"{_plural(int(ops['calls'].sum()), 'slice')} of {_plural(len(ops), 'op')}"
    if scopes is None:
        return f"{calls} in the whole trace"
    return (
        f"{calls} under {_plural(scopes.scopes, 'scope')} of {_quoted(under)}, "
        f"in all {units.micros(scopes.total)} µs"
    )


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _quoted(patterns: Sequence[str]) -> str:
    return ", ".join(units.printable(pattern) for pattern in patterns)


# Diff ---------------------------------------------------------------------------------------

_DIFF_COLUMNS = (
    Column("mark", "", Unit.TEXT),
    Column("name", "op", Unit.NAME),
    Column("calls", "calls", Unit.TEXT),
    Column("total_before", "before µs", Unit.MICROS),
    Column("total_after", "after µs", Unit.MICROS),
    Column("delta", "Δ µs", Unit.DELTA),
    Column("ratio", "ratio", Unit.RATIO),
    Column("average_before", "avg before", Unit.MICROS, 2),
    Column("average_after", "avg after", Unit.MICROS, 2),
    Column("min_before", "min before", Unit.MICROS, 5),
    Column("min_after", "min after", Unit.MICROS, 5),
    Column("max_before", "max before", Unit.MICROS, 4),
    Column("max_after", "max after", Unit.MICROS, 4),
)


def diff_report(diff: Diff, *, show_all: bool = False, limit: int | None = None) -> Report:
    """A comparison: the scopes' totals, what changed, and the rest in one line or in full."""
    rows = [_diff_row(row) for row in records(diff.changes)]
    shown = rows if limit is None else rows[:limit]
    left = len(rows) - len(shown)
    changes = Table(
        "",
        _DIFF_COLUMNS,
        tuple(shown),
        f"{left:,} more changed ops (--limit 0 shows all)." if left else "",
    )
    tables = [changes] if rows else []
    if show_all and len(diff.unchanged):
        same = tuple(_diff_row(row) for row in records(diff.unchanged))
        tables.append(Table("Same calls", _DIFF_COLUMNS, same))
    return Report(
        headline=_diff_headline(diff),
        facts=(
            ("before", _side_fact(diff.before.path, diff.before.totals)),
            ("after", _side_fact(diff.after.path, diff.after.totals)),
            (
                "change",
                f"{units.signed_micros(diff.after.totals.total - diff.before.totals.total)} µs",
            ),
        ),
        tables=tuple(tables),
        warnings=diff.warnings,
        remarks=(*_unchanged_line(diff, show_all), RATIO_NOTE),
    )


def _diff_row(row: dict[str, Any]) -> dict[str, Any]:
    name = row["op"] if row["replaced_by"] is None else row["op"] + REPLACED_BY + row["replaced_by"]
    calls = _calls(row["calls_before"], row["calls_after"])
    return row | {"mark": MARKS[row["status"]], "name": name, "calls": calls}


def _calls(before: int | None, after: int | None) -> str:
    if before is None:
        return f"0→{units.count(after)}"
    if after is None:
        return f"{units.count(before)}→0"
    if before == after:
        return units.count(before)
    return f"{units.count(before)}→{units.count(after)}"


def _diff_headline(diff: Diff) -> str:
    where = f"Under {_quoted(diff.under)}" if diff.under else "In the whole trace"
    counts = diff.table["status"].value_counts()
    found = [
        f"{counts[status]:,} {status}"
        for status in STATUS_ORDER
        if status != "same" and counts.get(status, 0)
    ]
    if not found:
        return f"{where}: no op changed its calls, and no time shifted much."
    return f"{where}: {', '.join(found)} of {_plural(len(diff.table), 'op')}."


def _side_fact(path: str, totals: ScopeTotals) -> str:
    time = f"{units.micros(totals.total)} µs"
    if not totals.scopes:
        return f"{path}: {time}, own time of all slices of all threads and streams"
    return f"{path}: {_plural(totals.scopes, 'scope')}, {time}"


def _unchanged_line(diff: Diff, show_all: bool) -> tuple[str, ...]:
    """One sentence on the ops with the same calls; self time, since totals hold each other."""
    same = diff.unchanged
    if same.empty:
        return ()
    before, after = int(same["self_before"].sum()), int(same["self_after"].sum())
    more = "" if show_all else " (--all shows them)"
    return (
        f"{_plural(len(same), 'op')} with the same calls: self time {units.micros(before)} → "
        f"{units.micros(after)} µs, Δ {units.signed_micros(after - before)} µs{more}.",
    )


# Info ---------------------------------------------------------------------------------------


def info_report(info: TraceInfo, ledger: Ledger, modules: pd.DataFrame) -> Report:
    """What was captured, what became of every event, and which scopes there are."""
    total = ledger.total
    return Report(
        headline=f"{info.path}: {_plural(total.read, 'event')} in {units.duration(info.duration)}",
        facts=tuple((key, value) for key, value in _info_facts(info) if value),
        tables=(
            Table("Slices by category", _CATEGORY_COLUMNS, _category_rows(info)),
            Table("Ledger of events", _LEDGER_COLUMNS, _ledger_rows(ledger), _reasons(ledger)),
            Table(
                "Modules (for --under)",
                _MODULE_COLUMNS,
                tuple(records(modules)),
                _no_modules(modules),
            ),
        ),
        warnings=tuple(ledger.notes),
    )


_CATEGORY_COLUMNS = (
    Column("category", "category", Unit.NAME),
    Column("slices", "slices", Unit.COUNT),
    Column("total", "sum of durations µs", Unit.MICROS),
)
_LEDGER_COLUMNS = (
    Column("phase", "phase", Unit.TEXT),
    Column("category", "category", Unit.NAME),
    Column("read", "read", Unit.COUNT),
    Column("loaded", "loaded", Unit.COUNT),
    Column("not_carried", "not carried", Unit.COUNT),
    Column("unreadable", "unreadable", Unit.COUNT),
    Column("on_overflow_lane", "overflow lane", Unit.COUNT, 2),
    Column("clamped", "clamped", Unit.COUNT, 1),
)
_MODULE_COLUMNS = (
    Column("module", "module", Unit.NAME),
    Column("instances", "instances", Unit.COUNT),
    Column("calls", "calls", Unit.COUNT),
    Column("total", "total µs", Unit.MICROS),
)


def _info_facts(info: TraceInfo) -> list[tuple[str, str]]:
    rank = "" if info.rank is None else f"{info.rank} of {info.world_size or '?'}"
    return [
        ("host", info.host or ""),
        ("GPUs", _counted(info.gpus)),
        ("versions", ", ".join(f"{name} {text}" for name, text in info.versions.items())),
        ("rank", rank + (f", {info.backend}" if rank and info.backend else "")),
        ("processes", "; ".join(info.processes)),
        ("recorded with", ", ".join(info.flags)),
    ]


def _counted(names: Sequence[str]) -> str:
    return ", ".join(
        f"{names.count(name)} × {name}" if names.count(name) > 1 else name
        for name in dict.fromkeys(names)
    )


def _category_rows(info: TraceInfo) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"category": item.category or "(none)", "slices": item.slices, "total": item.total}
        for item in info.categories
    )


def _ledger_rows(ledger: Ledger) -> tuple[dict[str, Any], ...]:
    rows = [_ledger_row(phase, category, tally) for phase, category, tally in ledger.rows()]
    return (*rows, _ledger_row("all", "", ledger.total))


def _ledger_row(phase: str, category: str, tally: Tally) -> dict[str, Any]:
    kind = _PHASES.get(phase, "")
    return {
        "phase": f"{phase} {kind}".strip(),
        "category": category,
        **tally_dict(tally),
    }


_PHASES = {
    "X": "slice",
    "B": "begin",
    "E": "end",
    "i": "instant",
    "I": "instant",
    "C": "counter",
    "s": "flow start",
    "t": "flow step",
    "f": "flow end",
    "M": "metadata",
}


def _reasons(ledger: Ledger) -> str:
    return "; ".join(f"{count:,} × {reason}" for reason, count in ledger.reasons.most_common())


def _no_modules(modules: pd.DataFrame) -> str:
    if len(modules):
        return ""
    return "No nn.Module frames: capture with with_stack=True to have them."
