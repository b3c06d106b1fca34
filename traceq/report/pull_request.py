"""The report of a comparison for a pull request: the verdict, ten rows, and the rest folded away.

What is in the tables is that of ``report.diff``; how it looks, and what goes where a comment would
be too long, is left to ``render.markdown``.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from traceq.compare import CaptureTotals, Diff
from traceq.evidence import BOUND, LEVEL
from traceq.library import ui_query
from traceq.model import tally_dict
from traceq.names import Pattern
from traceq.reading import Question, Reading
from traceq.report import diff as full
from traceq.report.model import Column, Details, Report, Table, Unit
from traceq.report.verdicts import change_cell, declared_rows, quotable
from traceq.report.words import plural

_NOTE = (
    "Times in µs, children included; Δ is after less before. ⇒ replaced, ↷ moved, + added, "
    "− removed, ↓ faster, ↑ slower; ~ can't be told from noise."
)

GROUPS_SHOWN, OPS_SHOWN, WARNINGS_SHOWN = 4, 2, 5
MORE_WARNINGS = "More warnings"

_COLUMNS = (
    Column("mark", "", Unit.TEXT),
    Column("name", "what changed", Unit.NAME),
    Column("scopes", "scopes", Unit.TEXT),
    Column("calls", "calls", Unit.TEXT),
    Column("before", "before µs", Unit.MICROS),
    Column("after", "after µs", Unit.MICROS),
    Column("delta", "Δ µs", Unit.DELTA),
    Column("change", "change", Unit.TEXT),
)
_CAPTURES = (
    Column("side", "side", Unit.TEXT),
    Column("path", "capture", Unit.NAME),
    Column("scopes", "scopes", Unit.COUNT),
    Column("cpu", "CPU µs", Unit.MICROS),
    Column("gpu", "GPU µs", Unit.MICROS),
    Column("activities", "GPU activities", Unit.COUNT),
)
_EVENTS = (
    Column("path", "capture", Unit.NAME),
    Column("read", "read", Unit.COUNT),
    Column("loaded", "loaded", Unit.COUNT),
    Column("not_carried", "not carried", Unit.COUNT),
    Column("unreadable", "unreadable", Unit.COUNT),
    Column("on_overflow_lane", "overflow lane", Unit.COUNT),
    Column("clamped", "clamped", Unit.COUNT),
)


def pull_request_report(diff: Diff, *, show_all: bool = False) -> Report:
    """The verdict, what became of the conditions, ten rows at most; all else in details."""
    shown, rest = diff.warnings[:WARNINGS_SHOWN], diff.warnings[WARNINGS_SHOWN:]
    more = (f"{plural(len(rest), 'more warning')}: see below.",) if rest else ()
    return Report(
        headline=" ".join(quotable(diff)),
        facts=tuple(_conditions(diff)),
        tables=(_main_table(diff),),
        warnings=(*shown, *more),
        remarks=(_NOTE,),
        details=tuple(_details(diff, rest, show_all)),
    )


_STATES = {"fail": "❌ gate", "inconclusive": "❔ gate", "pass": "✅ gate"}


def _conditions(diff: Diff) -> Iterator[tuple[str, str]]:
    for outcome in diff.outcomes:
        yield _STATES[outcome.state], outcome.reason


# The table --------------------------------------------------------------------------------


def _main_table(diff: Diff) -> Table:
    """What was replaced, the rest, what moved most within it, all, and the GPU's time."""
    several = "; means of the captures" if full.has_several(diff) else ""
    return Table(f"CPU time{several}", _COLUMNS, tuple(_rows(diff)))


def _rows(diff: Diff) -> Iterator[dict[str, Any]]:
    rows = [*_group_rows(diff)]
    whole = full.sum_row("(all of these)", [*diff.groups.rows, diff.groups.unchanged])
    yield from rows
    yield full.unchanged_row(diff.groups, rows, whole)
    for row in declared_rows(diff)[:OPS_SHOWN]:
        yield _op_row(row, " (medians)" if full.has_several(diff) else "")
    yield whole | {"change": change_cell(diff.evidence.of("scopes", "cpu"))}
    if diff.has_gpu:
        yield _gpu_row(diff)


def _group_rows(diff: Diff) -> Iterator[dict[str, Any]]:
    steady = diff.steady_groups[:GROUPS_SHOWN]
    for number, group in steady:
        yield full.group_row(group, diff.evidence.of("groups", number))
    chosen = {number for number, _ in steady}
    left = [item for number, item in enumerate(diff.groups.rows) if str(number) not in chosen]
    if left:
        yield full.sum_row(f"({len(left):,} more)", left)


def _op_row(row: dict[str, Any], what: str) -> dict[str, Any]:
    """An op that takes longer, or shorter, within the unchanged code; its figures are medians."""
    shown = full.diff_row(row)
    return shown | {
        "name": f"of it, {shown['name']}{what}",
        "scopes": "",
        "before": row["total_before"],
        "after": row["total_after"],
        "change": shown["change_text"],
    }


def _gpu_row(diff: Diff) -> dict[str, Any]:
    times = []
    for side in (diff.before, diff.after):
        sums = [item.totals.gpu_here.total for item in side.captures]
        times.append(round(sum(sums) / len(sums)))
    change = change_cell(diff.evidence.of("scopes", "gpu"))
    return full.plain_row("(GPU time)", *times) | {"change": change}


# Details ----------------------------------------------------------------------------------


def _details(diff: Diff, warnings: tuple[str, ...], show_all: bool) -> Iterator[Details]:
    yield Details(
        "What was compared, and by which samples",
        rank=2,
        facts=tuple(full.facts(diff)),
        tables=(Table("", _CAPTURES, tuple(_captures(diff))),),
    )
    if warnings:
        rows = tuple({"text": text} for text in warnings)
        table = Table("", (Column("text", "warning", Unit.TEXT),), rows)
        yield Details(MORE_WARNINGS, rank=1, tables=(table,))
    yield from _full_tables(diff, show_all)
    yield Details(
        "Events of the files",
        rank=4,
        tables=(replace(events_table([item for _, item in _each(diff)]), title=""),),
        remarks=tuple(full.account_lines(diff)),
    )
    yield Details("How to reproduce", rank=0, facts=tuple(_versions()), blocks=tuple(_blocks(diff)))


def _full_tables(diff: Diff, show_all: bool) -> Iterator[Details]:
    tables = [*full.tables(diff, show_all=show_all, show_kernels=True, limit=None)]
    for title, family, rank in (
        ("What replaced what", ("What replaced what: ",), 3),
        ("Ops", ("Ops that changed", "Same calls"), 5),
        ("Kernels, copies and sets", ("What replaced what on the GPU", "Kernels"), 6),
    ):
        own = tuple(table for table in tables if table.title.startswith(family))
        if own:
            rows = sum(len(table.rows) for table in own)
            yield Details(f"{title} ({plural(rows, 'row')})", rank, tables=own)
    yield Details("Counts, and how to read the tables", rank=3, remarks=_remarks(diff))


def _remarks(diff: Diff) -> tuple[str, ...]:
    medians = (full.MEDIANS,) if full.has_several(diff) else ()
    gpu = (full.GPU_NOTE,) if diff.has_gpu else ()
    return (*full.counts(diff), *full.unchanged_lines(diff), full.NOTES, *medians, *gpu)


def _captures(diff: Diff) -> Iterator[dict[str, Any]]:
    for name, item in _each(diff):
        totals = item.totals
        yield {
            "side": name,
            "path": item.path,
            "scopes": None if totals.is_whole else totals.scopes,
            "cpu": totals.total,
            "gpu": totals.gpu_here.total,
            "activities": totals.gpu_here.activities,
        }


def events_table(captures: Sequence[CaptureTotals | Reading]) -> Table:
    """What became of all that is in the files of some captures."""
    rows = []
    for item in captures:
        events = dict.fromkeys(column.key for column in _EVENTS[1:])
        if item.events is not None:
            events |= tally_dict(item.events)
        rows.append({"path": item.path, **events})
    return Table("Events of the files", _EVENTS, tuple(rows))


def _each(diff: Diff) -> Iterator[tuple[str, CaptureTotals]]:
    for name, side in (("before", diff.before), ("after", diff.after)):
        for item in side.captures:
            yield name, item


# How to reproduce -------------------------------------------------------------------------


def _versions() -> Iterator[tuple[str, str]]:
    from importlib.metadata import version

    yield "traceq", version("traceq")
    yield "Python", platform.python_version()
    yield "perfetto", version("perfetto")


def _blocks(diff: Diff) -> Iterator[tuple[str, str]]:
    yield "sh", command_of(diff)
    hashes = [f"{item.sha256}  {item.path}" for _, item in _each(diff) if item.sha256]
    if hashes:
        yield "text", "\n".join(["# sha256sum", *dict.fromkeys(hashes)])
    globs = [Pattern.parse(text).glob for text in diff.under]
    if globs and None not in globs:
        limited = any(diff.within[key] for key in ("steps", "skip_first", "window"))
        note = "-- For ui.perfetto.dev, of the whole capture: limits of time are not in it.\n"
        yield "sql", (note if limited else "") + ui_query("ops_under", [*map(str, globs)])


def capture_command(command: str, path: str, question: Question, words: Sequence[str] = ()) -> str:
    """The command that shows one capture again, quoted for a shell."""
    under = [word for text in question.under for word in ("--under", text)]
    return shlex.join(["traceq", command, path, *under, *_limit_words(question.limits), *words])


def _limit_words(within: dict[str, Any]) -> Iterator[str]:
    for option, key in (("--steps", "steps"), ("--window", "window")):
        if within[key] is not None:
            yield from (option, within[key])
    if within["skip_first"]:
        yield "--skip-first"


def command_of(diff: Diff) -> str:
    """The command that makes this comparison, quoted for a shell."""
    words = ["traceq", "diff"]
    for option, side in (("--before", diff.before), ("--after", diff.after)):
        words += [word for item in side.captures for word in (option, item.path)]
    conditions = tuple(str(item.condition) for item in diff.outcomes)
    lists = (
        ("--under", diff.under),
        ("--match", diff.match),
        ("--map", diff.maps),
        ("--fail-if", conditions),
    )
    words += [word for option, texts in lists for text in texts for word in (option, text)]
    words += _limit_words(diff.within)
    for option, value, usual in (
        ("--level", diff.evidence.level, LEVEL),
        ("--bound", diff.evidence.bound, BOUND),
    ):
        words += [option, f"{value:g}"] if value != usual else []
    words += ["--force"] if diff.comparability.blockers else []
    return shlex.join(words)
