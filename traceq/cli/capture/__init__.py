"""``traceq capture``: traces that are worth comparing, one file a command."""

from __future__ import annotations

import click

from traceq.cli.lazy import LazyGroup

_COMMANDS = {
    "run": "Run a Python program under the profiler.",
    "server": "Profile a running sglang or vLLM server.",
    "gdn": "The GatedDeltaNet workload: one layer's code, in variants.",
    "ab": "Run two commands in turn, several times, and compare.",
    "cost": "What the profiler itself costs, level by level.",
}


@click.command(
    "capture",
    cls=LazyGroup,
    about=_COMMANDS,
    package="traceq.cli.capture",
    epilog="Example: traceq capture run -o before.json.gz --under GatedDeltaNet -- bench.py",
)
def command() -> None:
    """Capture traces that are worth comparing.

    Warm-up stays outside of the window, and what a comparison needs to know (versions, GPU, commit,
    settings, shapes, the profiler's own cost) is kept in the trace: 'traceq info TRACE' shows it.
    """
