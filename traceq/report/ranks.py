"""The reports of several ranks: ``traceq ops --by rank`` and ``traceq diff --by rank``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from traceq import units
from traceq.ranks import Ranks
from traceq.report.model import Column, Report, Table, Unit
from traceq.report.words import plural, quoted
from traceq.table import ResultTable, records

_RANKS = (
    Column("rank", "rank", Unit.TEXT),
    Column("cpu", "CPU µs", Unit.MICROS),
    Column("gpu", "GPU µs", Unit.MICROS),
    Column("working", "working µs", Unit.MICROS),
    Column("collective", "in collectives µs", Unit.MICROS, 1),
    Column("waiting", "waiting µs", Unit.MICROS),
    Column("waited_for", "came last", Unit.COUNT),
    Column("path", "capture", Unit.NAME, 2, ample=24),
)
_OPS = (
    Column("op", "op", Unit.NAME),
    Column("kind", "", Unit.TEXT),
    Column("ranks", "ranks", Unit.COUNT, 2),
    Column("calls", "calls", Unit.COUNT, 1),
    Column("total", "median µs", Unit.MICROS),
    Column("least", "least µs", Unit.MICROS),
    Column("least_rank", "rank", Unit.TEXT),
    Column("most", "most µs", Unit.MICROS),
    Column("most_rank", "rank", Unit.TEXT),
    Column("spread", "spread", Unit.SHARE),
)
_PAIRS = (
    Column("rank", "rank", Unit.TEXT),
    *(
        Column(f"{name}_{side}", f"{title} {side} µs", Unit.MICROS, rank)
        for name, title, rank in (
            ("cpu", "CPU", 2),
            ("gpu", "GPU", 3),
            ("working", "working", 0),
            ("waiting", "waiting", 1),
        )
        for side in ("before", "after")
    ),
    Column("working_delta", "Δ working", Unit.DELTA),
    Column("waiting_delta", "Δ waiting", Unit.DELTA),
    Column("cpu_delta", "Δ CPU", Unit.DELTA),
)
_DELTAS = ("cpu", "working", "waiting")
_MOST = "What differs most between them"
REMARK = (
    "Ranks of one run are no samples of each other: what differs between them is told, not whether "
    "it is more than noise. Waiting: what each collective took longer than on the rank where it "
    "was shortest, which came last; clocks of hosts are not compared."
)


def ranks_report(ranks: Ranks, under: Sequence[str], *, limit: int | None = None) -> Report:
    """The ranks of one run, and the ops that differ most between them."""
    rows = tuple(map(_rank_row, records(ranks.table)))
    shown = ranks.ops if limit is None else ranks.ops.head(limit)
    left = len(ranks.ops) - len(shown)
    note = f"{plural(left, 'more op or kernel', 'more ops and kernels')}." if left else ""
    return Report(
        headline=f"{plural(len(rows), 'rank')}{_where(under)}: {_told(ranks)}",
        tables=(
            Table("Ranks", _RANKS, rows),
            Table(_MOST, _OPS, tuple(map(_op_row, records(shown))), note),
        ),
        warnings=_warnings(ranks),
        remarks=(REMARK,),
    )


def ranks_diff_report(
    pairs: ResultTable, before: Ranks, after: Ranks, under: Sequence[str]
) -> Report:
    """Each rank before and after, the one that changed most by its work first."""
    rows = [
        _rank_row(row)
        | {f"{name}_delta": row[f"{name}_after"] - row[f"{name}_before"] for name in _DELTAS}
        for row in records(pairs)
    ]
    rows.sort(key=lambda row: -abs(row["working_delta"]))
    deltas = [row["working_delta"] for row in rows]
    low, high = (units.signed_micros(end) for end in (min(deltas), max(deltas)))
    change = f"GPU work by {low} to {high} µs a rank"
    return Report(
        headline=f"{plural(len(rows), 'rank')}{_where(under)}: {change}",
        facts=(("before", _told(before)), ("after", _told(after))),
        tables=(Table("Ranks", _PAIRS, tuple(rows)),),
        warnings=(*_warnings(before), *_warnings(after)),
        remarks=(REMARK,),
    )


def _where(under: Sequence[str]) -> str:
    return f" under {quoted(tuple(under))}" if under else ""


def _told(ranks: Ranks) -> str:
    """Who was waited for, and how much of the GPU's time went with that."""
    table = ranks.table
    gpu, waiting = int(table["gpu"].sum()), int(table["waiting"].sum())
    if not waiting:
        return "nobody waited in a collective" if table["collectives"].any() else "no collectives"
    if ranks.straggler is None:
        share = units.percent(waiting / max(gpu, 1))
        return (
            f"{share} of the GPU time is waiting in collectives, for no one rank more than others"
        )
    (row,) = (item for item in records(table) if item["rank"] == ranks.straggler)
    return (
        f"{units.percent(waiting / max(gpu, 1))} of the GPU time is waiting in collectives, "
        f"{units.count(row['waited_for'])} of {units.count(row['collectives'])} times for rank "
        f"{ranks.straggler}"
    )


def _warnings(ranks: Ranks) -> tuple[str, ...]:
    if not ranks.unmatched:
        return ranks.doubts
    number = plural(ranks.unmatched, "collective")
    text = f"{number} cannot be matched: the ranks do not have the same number of each kernel."
    return (*ranks.doubts, text)


def _rank_row(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"rank": str(row["rank"])}


def _op_row(row: dict[str, Any]) -> dict[str, Any]:
    texts = {key: str(row[key]) for key in ("least_rank", "most_rank")}
    return row | texts | {"kind": row["kind"].upper()}
