"""``traceq convert``: the small file that traceq gives its engine, for other programs."""

from __future__ import annotations

import gzip
import os

import click

from traceq.cli import options
from traceq.cli.opening import convert
from traceq.cli.output import write_bytes
from traceq.kineto import ArgSelection
from traceq.limits import Limits


@click.command("convert", epilog="Example: traceq convert TRACE -o trace.fxt")
@click.argument("trace")
@click.option(
    "-o", "--output", metavar="FILE", required=True, help="The file: trace.fxt, or packed: .fxt.gz."
)
@options.part
@click.option(
    "--args",
    type=click.Choice(["default", "all"]),
    default="default",
    help="Which arguments of events to carry: those for joins and shapes, or every one.",
)
def command(trace: str, output: str, part: Limits, args: ArgSelection) -> None:
    """Write a trace in the Fuchsia format, about a tenth of its JSON.

    ui.perfetto.dev opens it where the JSON is too large for a browser. A name that ends in .gz is
    packed, to about a third. What the format cannot hold is counted on stderr. --under, --steps and
    --window write that part, and what is below, around and launched by it.
    """
    chunks = convert(trace, args, part)
    if output.endswith(".gz"):
        chunks = [gzip.compress(b"".join(chunks), compresslevel=1, mtime=0)]
    write_bytes(chunks, output)
    size = os.stat(output).st_size if os.path.isfile(output) else sum(map(len, chunks))
    click.echo(f"traceq: {output}: {size:,} bytes", err=True)
