"""The notebook's cell magic: ``%load_ext traceq``, then ``%%traceq out.json.gz`` over a cell.

The cell is one step: it runs ``--warmup`` times outside of the window and ``--steps`` times in it.
Display of tables is left to the tables; IPython is needed only by those who load this from it.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from traceq.capturing import capture
from traceq.cli.capture import options
from traceq.errors import UsageError


@click.command("%%traceq", add_help_option=False)
@click.argument("file")
@options.window(1)
@options.under
@options.stack
@options.recording
def _parser(**given: Any) -> dict[str, Any]:
    """The magic's line, read as the command line's own options are."""
    return given


def load_ipython_extension(shell: Any) -> None:
    """Called by ``%load_ext traceq``."""

    def trace_cell(line: str, cell: str) -> Path | None:
        """%%traceq FILE [--under P] [--stack S] [--warmup N] [--steps N] [...]: capture a cell.

        The cell runs N + N times: first as warm-up, outside of the window, then recorded. Its
        value is the trace's path. Options are those of 'traceq capture run'.
        """
        return capture_cell(shell, line, cell)

    shell.register_magic_function(trace_cell, "cell", "traceq")


def capture_cell(shell: Any, line: str, cell: str) -> Path | None:
    """Run ``cell`` in the shell's names, step by step, and return the trace's path."""
    given = _parse(line)
    file, warmup, steps = given.pop("file"), given["warmup"], given["steps"]
    given["shapes"] = not given.pop("no_shapes")
    code = compile(shell.transform_cell(cell), shell.compile.cache(cell), "exec")
    with capture(file, **given) as recorder:
        for _ in range(warmup + steps):
            exec(code, shell.user_ns)
            recorder.step()
    return recorder.path


def _parse(line: str) -> dict[str, Any]:
    try:
        given: dict[str, Any] = _parser.main(shlex.split(line), standalone_mode=False)
    except (click.ClickException, ValueError) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        raise UsageError(
            f"%%traceq: {text}", hint="For example: %%traceq out.json.gz --under GatedDeltaNet"
        ) from error
    return given
