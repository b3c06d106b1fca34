"""``traceq tree``: the merged call tree."""

from __future__ import annotations

from typing import Any, cast

import click
import pandas as pd

from traceq.cli import options
from traceq.cli.opening import opened
from traceq.cli.output import nested_to_json, render, write
from traceq.cli.part import read_limits, read_part
from traceq.report import Part, tree_branches, tree_nodes, tree_report
from traceq.tree import METRICS, Metric, stacks

SCHEMA_VERSION = 1
SMALLEST = 0.01


def _read_part_of_whole(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Read ``1%`` or ``0.01``."""
    if text is None:
        return None
    try:
        part = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        part = -1.0
    if not 0 <= part <= 1:
        raise click.BadParameter(f"{text!r} is no part of a whole: write 1% or 0.01")
    return part


@click.command(
    "tree",
    epilog="Example: traceq tree trace.json.gz --under GatedDeltaNet --format stacks -o gdn.folded",
)
@click.argument("trace")
@options.under
@click.option(
    "--depth",
    type=click.IntRange(min=1),
    metavar="N",
    help="Show at most N levels, by default all.",
)
@click.option(
    "--by",
    type=click.Choice(METRICS),
    help="Order, share and fold by CPU or GPU time; by default the GPU's where there is any.",
)
@click.option(
    "--smallest",
    callback=_read_part_of_whole,
    metavar="PART",
    help="Fold nodes of less than this part of the tree: 1% in a table or Markdown, 0 in JSON.",
)
@click.option("--functions", is_flag=True, help="Add Python functions.")
@options.within
@options.output("table", "markdown", "json", "stacks")
@options.opening
def command(
    trace: str,
    under: tuple[str, ...],
    depth: int | None,
    by: str | None,
    smallest: float | None,
    functions: bool,
    within: dict[str, Any],
    format_: str,
    output: str | None,
    **opening: Any,
) -> None:
    """The call tree of TRACE, or of a scope: modules and labels, ops, and their kernels.

    Calls with the same way down to them are one node. JSON nests the nodes; stacks has a line
    a node with its own time in ns, as flamegraph.pl and speedscope read it.
    """
    with opened(trace, needed=options.limits(under, within), **opening) as source:
        limits = read_limits(source, within)
        table = source.tree(under, functions=functions, windows=limits.windows)
        part = read_part(source, under, limits)
    metric = cast(Metric, by) if by else _metric(table)
    write(_format(table, part, metric, depth, smallest, functions, format_, output), output)


def _metric(table: pd.DataFrame) -> Metric:
    nodes = table[table["kind"] != "account"]
    return "gpu" if nodes["activities"].any() else "cpu"


def _format(
    table: pd.DataFrame,
    part: Part,
    by: Metric,
    depth: int | None,
    smallest: float | None,
    functions: bool,
    format_: str,
    path: str | None,
) -> str:
    if format_ == "stacks":
        return "".join(line + "\n" for line in stacks(table, by))
    if format_ == "json":
        found = tree_branches(table, by=by, depth=depth, smallest=smallest or 0)
        head = {"schema": SCHEMA_VERSION, "kind": "tree", **part.as_dict()}
        head |= {"by": by, "functions": functions, "nodes_total": len(table)}
        return nested_to_json(head, "nodes", tree_nodes(found))
    small = SMALLEST if smallest is None else smallest
    return render(tree_report(table, part, by=by, depth=depth, smallest=small), format_, path)
