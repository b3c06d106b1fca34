"""``traceq timeline``: what the GPUs did over time."""

from __future__ import annotations

from typing import Any

import click

from traceq.cli import options
from traceq.cli.opening import opened
from traceq.cli.output import render, to_json, write
from traceq.cli.part import Limits, read_limits
from traceq.report import timeline_report
from traceq.selection import span_of
from traceq.table import records
from traceq.timeline import Timeline
from traceq.trace import Trace

SCHEMA_VERSION = 1
GAPS_SHOWN = 10


@click.command(
    "timeline",
    epilog="Example: traceq timeline trace.json.gz --skip-first",
)
@click.argument("trace")
@options.within
@options.output("table", "markdown", "json")
@options.opening
def command(
    trace: str, within: dict[str, Any], format_: str, output: str | None, **opening: Any
) -> None:
    """How busy the GPUs of TRACE were, why they were idle, their streams, the longest idle times.

    A span goes from the first of the chosen steps to the last, with all between them.
    """
    with opened(trace, **opening) as source:
        limits = read_limits(source, within)
        write(
            _format(source, limits, source.timeline(windows=limits.windows), format_, output),
            output,
        )


def _format(
    trace: Trace, limits: Limits, timeline: Timeline, format_: str, path: str | None
) -> str:
    origin = span_of(trace.slices)[0]
    warnings = (*trace.doubts(), *limits.warnings)
    if format_ == "json":
        return to_json(_data(trace, limits, timeline, origin, warnings))
    report = timeline_report(
        timeline,
        origin=origin,
        within=limits.words,
        warnings=warnings,
        limit=GAPS_SHOWN,
    )
    return render(report, format_, path)


def _data(
    trace: Trace, limits: Limits, timeline: Timeline, origin: int, warnings: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "kind": "timeline",
        "path": trace.path,
        "within": limits.data,
        "warnings": list(warnings),
        "trace_start": origin,
        "start": timeline.start,
        "end": timeline.end,
        "busy_share": [
            {"device": device, "share": float(share)}
            for device, share in timeline.busy_share.items()
        ],
        "states": records(timeline.states),
        "streams": records(timeline.streams),
        "gaps": records(timeline.gaps),
        "gap_count": timeline.gap_count,
        "gap_total": timeline.gap_total,
    }
