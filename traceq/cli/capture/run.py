"""``traceq capture run``: a Python program under the profiler."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from traceq.capturing import capture as make_capture
from traceq.cli.capture import options
from traceq.errors import CaptureWarning, UsageError
from traceq.units import file_size

if TYPE_CHECKING:
    from traceq.capturing.session import Capture

INTERRUPTED = 130


@click.command(
    "run",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: traceq capture run -o before.json.gz --under GatedDeltaNet "
    "--from 'bench:step' -- bench.py --batch 8",
)
@options.out
@click.option("-m", "module", is_flag=True, help="PROGRAM is a module, as for python -m.")
@click.option(
    "--from",
    "function",
    metavar="[MODULE:]FUNCTION",
    help="Each call of this function is a step: pkg.mod:function, pkg.mod:Class.method, or a name "
    "in PROGRAM itself. By default each call of the first nn.Module with parameters begins one.",
)
@options.window(10)
@click.option("--whole", is_flag=True, help="Record the whole program: no steps, no warm-up.")
@options.under
@options.stack
@options.recording
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(
    output: str,
    module: bool,
    function: str | None,
    steps: int,
    warmup: int,
    whole: bool,
    under: tuple[str, ...],
    stack: Any,
    device: str,
    memory: bool,
    no_shapes: bool,
    program: str,
    arguments: tuple[str, ...],
) -> None:
    """Run PROGRAM with its ARGUMENTS under the profiler; its exit code is passed on.

    The first steps are warm-up and not recorded, the next are the window; then the trace is
    written, its path told on stderr, and the program goes on without the profiler. Put -- before
    PROGRAM where an argument of its own looks like one of these options. For backward passes say
    --from: a step that is a module's call holds the forward pass alone.
    """
    if whole and (function or _is_given("steps") or _is_given("warmup")):
        raise UsageError(
            "--whole has no steps and no warm-up",
            hint="Leave it out, or --from, --steps, --warmup.",
        )
    recorder = make_capture(
        output,
        under=under,
        stack=stack,
        warmup=0 if whole else warmup,
        steps=None if whole else steps,
        shapes=not no_shapes,
        memory=memory,
        device=device,
    )
    from traceq.capturing.program import Function, Program, run_program

    name, rest, is_module = _without_interpreter(program, arguments, module)
    what = Program(name, rest, is_module)
    chosen = Function.parse(function) if function else None
    warnings.simplefilter("ignore", CaptureWarning)  # told below, once
    try:
        code = run_program(what, recorder, function=chosen, whole=whole)
    except KeyboardInterrupt:
        click.echo("traceq: interrupted; no trace was written", err=True)
        code = INTERRUPTED
    _tell(recorder, code)
    sys.exit(code)


def _is_given(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is not click.core.ParameterSource.DEFAULT


def _without_interpreter(
    program: str, arguments: tuple[str, ...], is_module: bool
) -> tuple[str, tuple[str, ...], bool]:
    """Let ``python x.py`` and ``python -m x`` be written out of habit."""
    words = [program, *arguments]
    if Path(program).name.startswith("python") and not os.path.isfile(program) and not is_module:
        words = words[1:]
    if words and words[0] == "-m" and not is_module:
        is_module, words = True, words[1:]
    if not words:
        raise UsageError("no program is named", hint="Name it after --: -- bench.py --batch 8.")
    return words[0], tuple(words[1:]), is_module


def _tell(recorder: Capture, code: int) -> None:
    for note in recorder.notes:
        click.echo(f"traceq: {note}", err=True)
    if recorder.path is not None:
        size = file_size(recorder.path.stat().st_size)
        click.echo(f"traceq: wrote {recorder.path} ({size})", err=True)
    elif code != INTERRUPTED:
        click.echo(f"traceq: the program ended with {code}; no trace was written", err=True)
