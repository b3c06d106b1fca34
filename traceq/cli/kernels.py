"""``traceq kernels``: what the GPU ran."""

from __future__ import annotations

from typing import Any

import click
import pandas as pd

from traceq.cli import options
from traceq.cli.opening import opened
from traceq.cli.output import records_to_csv, render, to_json, write
from traceq.cli.part import Limits, read_limits, read_part
from traceq.errors import PatternError
from traceq.kernel_names import short_kernel
from traceq.names import Pattern, nearest_names
from traceq.report import (
    KERNEL_SORT_KEYS,
    activities_report,
    cut,
    kernels_report,
    sorted_kernels,
)
from traceq.selection import span_of
from traceq.table import records
from traceq.trace import Trace

SCHEMA_VERSION = 1


@click.command(
    "kernels",
    epilog="Example: traceq kernels trace.json.gz --under GatedDeltaNet --sort calls",
)
@click.argument("trace")
@options.under
@options.match_of("kernels")
@click.option("--full", is_flag=True, help="Whole names, with template arguments kept apart.")
@click.option("--each", is_flag=True, help="One row an activity, in the order of their start.")
@click.option(
    "--sort",
    type=click.Choice(KERNEL_SORT_KEYS),
    default="total",
    show_default=True,
    help="Column to sort by, largest first (name: by name). Not with --each.",
)
@options.within
@options.limit
@options.output("table", "markdown", "json", "csv")
@options.opening
def command(
    trace: str,
    under: tuple[str, ...],
    match: tuple[str, ...],
    full: bool,
    each: bool,
    sort: str,
    within: dict[str, Any],
    limit: int | None,
    format_: str,
    output: str | None,
    **opening: Any,
) -> None:
    """What the GPU ran in TRACE, or launched by a scope: kernels, copies and sets.

    Names are shortened: template arguments that do not tell kernels apart are left out.
    """
    with opened(trace, needed=options.limits(under, within), **opening) as source:
        limits = read_limits(source, within)
        rows = options.rows_to_show(limit, format_)
        if each:
            text = _each(source, under, match, full, limits, rows, format_, output)
        else:
            text = _kernels(source, under, match, full, sort, limits, rows, format_, output)
    write(text, output)


def _kernels(
    trace: Trace,
    under: tuple[str, ...],
    match: tuple[str, ...],
    full: bool,
    sort: str,
    limits: Limits,
    limit: int | None,
    format_: str,
    path: str | None,
) -> str:
    kernels: pd.DataFrame = trace.kernels(under, full_names=full, windows=limits.windows)
    if match:
        chosen = _matching(trace, match)
        kernels = _kept(kernels, kernels["kernel"].isin(chosen), match)
    shown = cut(sorted_kernels(kernels, sort), "kernel", limit).plain
    if format_ == "csv":
        return records_to_csv(shown, list(kernels.columns))
    part = read_part(trace, under, limits)
    if format_ == "json":
        head = {"schema": SCHEMA_VERSION, "kind": "kernels", **part.as_dict()}
        rows = {"match": list(match), "rows_total": len(kernels), "rows": shown}
        return to_json(head | rows)
    return render(kernels_report(kernels, part, sort=sort, limit=limit), format_, path)


def _each(
    trace: Trace,
    under: tuple[str, ...],
    match: tuple[str, ...],
    full: bool,
    limits: Limits,
    limit: int | None,
    format_: str,
    path: str | None,
) -> str:
    found: pd.DataFrame = trace.activities(under, windows=limits.windows)
    if match:
        found = _kept(found, found["name"].isin(_matching(trace, match)), match)
    shown = found.head(len(found) if limit is None else limit)
    if format_ == "csv":
        return records_to_csv(records(shown), list(found.columns))
    part = read_part(trace, under, limits)
    if format_ == "json":
        head = {"schema": SCHEMA_VERSION, "kind": "activities", **part.as_dict()}
        rows = {"match": list(match), "rows_total": len(found), "rows": records(shown)}
        return to_json(head | rows)
    report = activities_report(
        found, part, origin=span_of(trace.slices)[0], full_names=full, limit=limit
    )
    return render(report, format_, path)


def _matching(trace: Trace, match: tuple[str, ...]) -> set[str]:
    """Names of kernels, whole and in short, of which either matches a pattern."""
    whole = sorted({str(name) for name in trace.activities()["name"]})
    short = {name: short_kernel(name) for name in whole}
    chosen: set[str] = set()
    for text in match:
        pattern = Pattern.parse(text)
        found = {name for name in whole if pattern.matches(name) or pattern.matches(short[name])}
        if not found:
            near = "; ".join(nearest_names(text, short.values()))
            hint = f"Nearest: {near}" if near else "'traceq kernels' lists them."
            raise PatternError(f"no kernel, copy or set in the trace matches {text!r}", hint=hint)
        chosen |= found | {short[name] for name in found}
    return chosen


def _kept(table: pd.DataFrame, keep: pd.Series[bool], match: tuple[str, ...]) -> pd.DataFrame:
    if not keep.any():
        raise PatternError(
            f"what matches {', '.join(match)!r} was not launched where you asked",
            hint="Leave --under, --steps and --window out to see where it was.",
        )
    return table[keep].reset_index(drop=True)
