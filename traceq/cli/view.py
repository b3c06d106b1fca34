"""``traceq view``: traces in the Perfetto UI, served on this machine."""

from __future__ import annotations

import threading
import webbrowser

import click

from traceq.cli import options
from traceq.cli.opening import convert
from traceq.kineto import ArgSelection
from traceq.limits import Limits
from traceq.viewing import serving, ui_folder


@click.command("view", epilog="Example: traceq view TRACE")
@click.argument("traces", metavar="TRACE...", nargs=-1, required=True)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port; else a free one.")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
@options.part
@click.option(
    "--args",
    type=click.Choice(["default", "all"]),
    default="default",
    help="Which arguments of events to carry: those for joins and shapes, or every one.",
)
def command(
    traces: tuple[str, ...], port: int, no_browser: bool, part: Limits, args: ArgSelection
) -> None:
    """Serve the Perfetto UI with traces on this machine alone, until Ctrl-C.

    The browser loads the small re-encoded traces, so that one opens whose JSON it could not load.
    Each has an address of its own, printed in the order given. --under, --steps and --window show
    that part, and what is below, around and launched by it.
    """
    folder = ui_folder()
    files = [b"".join(convert(trace, args, part)) for trace in traces]
    with serving(files, folder, port) as addresses:
        for address in addresses:
            click.echo(address)
        click.echo("traceq: serving until Ctrl-C", err=True)
        if not no_browser:
            for address in addresses:
                webbrowser.open(address)
        threading.Event().wait()
