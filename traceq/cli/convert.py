"""``traceq convert``: the small file that traceq gives its engine, for other programs."""

from __future__ import annotations

import os

import click

from traceq.cli.opening import convert
from traceq.cli.output import write_bytes
from traceq.kineto import ArgSelection
from traceq.units import plural


@click.command("convert", epilog="Example: traceq convert TRACE -o trace.fxt")
@click.argument("trace")
@click.option("-o", "--output", metavar="FILE", required=True, help="The file, such as trace.fxt.")
@click.option(
    "--args",
    type=click.Choice(["default", "all"]),
    default="default",
    help="Which arguments of events to carry: those for joins and shapes, or every one.",
)
def command(trace: str, output: str, args: ArgSelection) -> None:
    """Write a trace in the Fuchsia format, about a fifteenth of its JSON.

    ui.perfetto.dev opens it where the JSON is too large for a browser. What the format cannot hold
    is counted on stderr.
    """
    chunks, ledger = convert(trace, args)
    write_bytes(chunks, output)
    total = ledger.total
    size = os.stat(output).st_size if os.path.isfile(output) else sum(map(len, chunks))
    click.echo(
        f"traceq: {output}: {size:,} bytes, {total.loaded:,} of {plural(total.read, 'event')}; "
        f"{total.not_carried:,} not carried, {total.unreadable:,} unreadable",
        err=True,
    )
    for note in ledger.notes:
        click.echo(f"traceq: {note}", err=True)
