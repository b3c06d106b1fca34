"""``traceq capture cost``: what the profiler itself costs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from traceq.cli import options
from traceq.cli.capture.gdn import quiet_notes, settings_of, sizes
from traceq.cli.output import render, to_json, write
from traceq.report.cost import cost_report, cost_row, drift_warnings

if TYPE_CHECKING:
    from traceq.capturing.cost import Costs

SCHEMA_VERSION = 1


@click.command("cost", epilog="Example: traceq capture cost --layers 32 --repeat 20")
@click.option(
    "--repeat",
    type=click.IntRange(min=3),
    default=10,
    show_default=True,
    metavar="N",
    help="Time N prefills and N decodes at each level.",
)
@sizes
@options.output("table", "markdown", "json")
def command(repeat: int, workload: dict[str, Any], format_: str, output: str | None) -> None:
    """Measure what the profiler costs here, with the workload of 'traceq capture gdn'.

    One process runs the same steps without the profiler and with --stack none, modules and python
    in turn: median time of a step, and how many times longer than without. The first row is what
    steps took before any profiler ran.
    """
    settings = settings_of(workload)
    from traceq.capturing.cost import measure_cost

    with tempfile.TemporaryDirectory(prefix="traceq-cost-") as folder, quiet_notes():
        costs = measure_cost(settings, repeat, Path(folder))
    if format_ == "json":
        write(to_json(_as_dict(costs)), output)
    else:
        write(render(cost_report(costs), format_, output), output)


def _as_dict(costs: Costs) -> dict[str, Any]:
    """Times in ns, sizes in bytes; with the time of each step."""
    rows = [
        cost_row(costs, level) | {"decodes": level.decodes, "prefills": level.prefills}
        for level in costs.levels
    ]
    return {
        "schema": SCHEMA_VERSION,
        "kind": "capture-cost",
        "workload": costs.workload,
        "warnings": [*drift_warnings(costs), *costs.notes],
        "rows": rows,
    }
