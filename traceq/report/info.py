"""The report of ``traceq info``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from traceq import units
from traceq.info import TraceInfo
from traceq.model import Ledger, Tally, tally_dict
from traceq.report.capture import capture_facts, capture_notes
from traceq.report.model import Column, Report, Table, Unit
from traceq.report.words import plural
from traceq.table import records

if TYPE_CHECKING:
    import pandas as pd


def info_report(info: TraceInfo, ledger: Ledger, modules: pd.DataFrame) -> Report:
    """What was captured, what became of every event, and which scopes there are."""
    total = ledger.total
    return Report(
        headline=f"{info.path}: {plural(total.read, 'event')} in {units.duration(info.duration)}",
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
        warnings=(*ledger.notes, *capture_notes(info.capture)),
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
        *capture_facts(info.capture),
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
