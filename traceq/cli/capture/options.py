"""Options that several capture commands share, as decorators."""

from __future__ import annotations

from collections.abc import Callable

import click

from traceq.capturing.record import OUT_VARIABLE
from traceq.capturing.settings import DEFAULT_WARMUP, DEVICES, STACKS
from traceq.cli.options import Command, chain


def stack(command: Command) -> Command:
    """How much of the Python side is recorded."""
    return click.option(
        "--stack",
        type=click.Choice(STACKS),
        default="python",
        show_default=True,
        help="python: every Python frame (costs CPU time). modules: a label on the modules that "
        "match --under and on those around them; without it, on all. none: ops and kernels alone.",
    )(command)


def out(command: Command) -> Command:
    """Where the trace goes."""
    return click.option(
        "-o",
        "--output",
        metavar="FILE",
        envvar=OUT_VARIABLE,
        show_envvar=True,
        required=True,
        help="The trace: .json.gz, .json.zst or .json. Under torchrun the rank is put into the "
        "name.",
    )(command)


def window(steps: int) -> Callable[[Command], Command]:
    """Which steps are recorded."""
    return chain(
        click.option(
            "--warmup",
            type=click.IntRange(min=0),
            default=DEFAULT_WARMUP,
            show_default=True,
            metavar="N",
            help="Leave the first N steps out of the window.",
        ),
        click.option(
            "--steps",
            type=click.IntRange(min=1),
            default=steps,
            show_default=True,
            metavar="N",
            help="Record N steps.",
        ),
    )


def recording(command: Command) -> Command:
    """What the profiler is told beside the stack."""
    return chain(
        click.option("--no-shapes", is_flag=True, help="Leave the ops' input shapes out."),
        click.option("--memory", is_flag=True, help="Record allocations (profile_memory)."),
        click.option(
            "--device",
            type=click.Choice(DEVICES),
            default="auto",
            show_default=True,
            help="What to profile beside the CPU; auto: what is there.",
        ),
    )(command)


def under(command: Command) -> Command:
    """What the capture is about."""
    return click.option(
        "--under",
        multiple=True,
        metavar="PATTERN",
        help="Module classes that the capture is about (patterns as for 'traceq ops'): with "
        "--stack modules they get the labels; all is recorded whatever it says. May be given "
        "several times.",
    )(command)
