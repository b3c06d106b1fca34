"""The command line: one file a command. The only place that prints or exits.

Commands are loaded when they are called, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

import io
import os
import sys

import click

from traceq.cli.early import start_readers
from traceq.cli.lazy import LazyGroup
from traceq.errors import TraceqError
from traceq.units import printable

INTERRUPTED = 130
_COMMANDS = {
    "info": "What was captured, and what became of every event.",
    "ops": "Calls, CPU and GPU time per op.",
    "kernels": "What the GPU ran, and which ops launched it.",
    "scopes": "Calls, CPU and GPU time per module or label.",
    "tree": "The call tree: modules, ops and their kernels.",
    "steps": "The steps of the capture.",
    "timeline": "What the GPUs did over time, and why they were idle.",
    "diff": "Compare two sides: what replaced what, and what is more than noise.",
    "report": "A page to look at: call tree, tables, distributions.",
    "view": "Look at a trace in the Perfetto UI, also a large one.",
    "convert": "Write a trace small enough for other programs.",
    "record": "Put captures into a history, a DuckDB file.",
    "runs": "The runs of a history.",
    "history": "A figure over the runs of a history, and where it changed.",
    "forget": "Take runs out of a history.",
    "comment": "Post a report on a pull request.",
    "capture": "Capture traces that are worth comparing.",
    "sql": "Run PerfettoSQL over a trace.",
    "cache": "What is kept of traces to open them faster.",
    "queries": "The tables and functions that traceq adds to PerfettoSQL.",
}


@click.command(
    cls=LazyGroup,
    about=_COMMANDS,
    package="traceq.cli",
    before=start_readers,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: traceq info TRACE",
)
@click.version_option(package_name="traceq", prog_name="traceq")
def group() -> None:
    """Query and compare torch-profiler traces; every event counted.

    A TRACE is the JSON that torch.profiler's export_chrome_trace writes (.json, .gz, .zst, .zip),
    - for standard input, or tp://HOST:PORT for what a running trace_processor holds.
    """


def main() -> None:
    """Entry point: runs a command, and turns errors into one message and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not know every character
            stream.reconfigure(errors="backslashreplace")
    try:
        if code := group.main(standalone_mode=False):  # that of a click.exceptions.Exit
            sys.exit(code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        # Worker threads of the engine may still be unwinding; nothing of theirs is worth a wait.
        sys.stdout.flush()
        os._exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TraceqError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of the pipe has gone (head, less): not an error, and nothing left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _say(text: str) -> None:
    lines = (printable(line) for line in text.splitlines())  # names must not steer a terminal
    click.echo("traceq: " + "\n".join(lines), err=True)
