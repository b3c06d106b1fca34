"""``traceq capture gdn``: the GatedDeltaNet workload, and the options of its sizes."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from traceq.capturing.extras import require
from traceq.capturing.gdn.settings import DTYPES, SCOPE, GdnSettings
from traceq.capturing.gdn.variants import VARIANTS, find_variant
from traceq.capturing.settings import DEVICES, STACKS
from traceq.cli.capture import options
from traceq.errors import CaptureWarning
from traceq.units import plural

if TYPE_CHECKING:
    from traceq.capturing.session import Capture

Command = TypeVar("Command", bound=Callable[..., Any])

_DEFAULT = {field.name: field.default for field in dataclasses.fields(GdnSettings)}


def _list_variants(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        width = max(map(len, VARIANTS))
        for item in VARIANTS.values():
            click.echo(f"{item.name:{width}}  {item.about}")
        context.exit()


def _number(name: str, help_: str, least: int = 1) -> Callable[[Command], Command]:
    return click.option(
        f"--{name}",
        type=click.IntRange(min=least),
        default=_DEFAULT[name],
        show_default=True,
        metavar="N",
        help=help_,
    )


_SIZES: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--variant",
        default=_DEFAULT["variant"],
        show_default=True,
        metavar="NAME",
        help=f"The layer's code: {', '.join(VARIANTS)}, or your own, path/to/file.py:name.",
    ),
    click.option(
        "--list",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_list_variants,
        help="Say what each variant is, and exit.",
    ),
    _number("layers", "Layers; all but each fourth are GatedDeltaNet.", least=4),
    _number("batch", "Sequences."),
    _number("prompt", "Tokens of each that the prefill takes in."),
    _number("hidden", "Hidden size; heads are of 64, and of 128 from 2048 on."),
    click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        default="auto",
        show_default=True,
        help="Type of weights and activations; auto: bfloat16 on a GPU, float32 on a CPU.",
    ),
    click.option(
        "--device",
        type=click.Choice(DEVICES),
        default="auto",
        show_default=True,
        help="Where to run; auto: on a GPU if there is one.",
    ),
    _number("seed", "Of weights and tokens.", least=0),
    click.option(
        "--warmup",
        type=click.IntRange(min=0),
        metavar="N",
        help="Forwards before the window, with a cache of their own; by default as many as "
        "--steps, 8 at least.",
    ),
)


def sizes(command: Command) -> Command:
    """What is run; the command gets it as one dictionary, ``workload``."""

    @functools.wraps(command)
    def sized(**values: Any) -> Any:
        names = [name for name in values if name in _DEFAULT and name != "steps"]
        workload = {name: values.pop(name) for name in names}
        return command(workload=workload, **values)

    decorated = cast(Command, sized)
    for decorate in reversed(_SIZES):
        decorated = decorate(decorated)
    return decorated


def settings_of(workload: dict[str, Any], **more: Any) -> GdnSettings:
    """Checked before torch is loaded, which takes seconds. Raises UsageError, CaptureError."""
    settings = GdnSettings(**workload, **more)
    require("torch", "transformers", extra="gdn")
    find_variant(settings.variant)
    return settings


@click.command(
    "gdn",
    epilog="Example: traceq capture gdn --variant flatten --layers 32 --steps 30 -o after.json.gz",
)
@options.out
@_number("steps", "Forwards in the window: a prefill, then decodes of one token.")
@sizes
@click.option(
    "--stack",
    type=click.Choice(STACKS),
    default="python",
    show_default=True,
    help="python: every Python frame (costs CPU time; einops: rearrange is one). modules: a label "
    "on each GatedDeltaNet and on what is around it. none: ops and kernels alone.",
)
def command(output: str, steps: int, workload: dict[str, Any], stack: Any) -> None:
    """Capture GatedDeltaNet layers at work: a prefill, then decodes.

    The model is transformers' own Qwen3.5 with random weights; nothing is downloaded. A variant
    changes one place of the layer's code: compare einops with flatten (the reshape before
    out_proj), and gating with reshape. On a GPU, kernels of flash-linear-attention and
    causal-conv1d run where installed. Capture two variants with the same sizes, then: traceq diff
    A B --under GatedDeltaNet. Prints the path of the trace.
    """
    settings = settings_of(workload, steps=steps)
    from traceq.capturing.gdn.workload import capture_gdn

    with quiet_notes():
        captured = capture_gdn(settings, output, stack=stack)
    for note in captured.notes:
        click.echo(f"traceq: {note}", err=True)
    click.echo(f"traceq: {summary(settings, captured)}", err=True)
    click.echo(captured.path)


@contextmanager
def quiet_notes() -> Iterator[None]:
    """Notes of a capture are printed from it, once, and not as Python's warnings."""

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CaptureWarning)
        yield


def summary(settings: GdnSettings, captured: Capture) -> str:
    """What was run, and how many calls a diff should find."""
    workload = captured.record["workload"]
    return (
        f"{settings.variant} on {place(workload)}: {plural(settings.steps, 'step')} "
        f"(1 prefill of {settings.batch} × {settings.prompt} tokens, "
        f"{plural(settings.steps - 1, 'decode')}); expect "
        f"{plural(settings.gdn_calls, SCOPE + ' call')} "
        f"({settings.gdn_layers} of {plural(settings.layers, 'layer')})"
    )


def place(workload: dict[str, Any]) -> str:
    """Device, type and whose kernels, as in a capture's workload."""
    kernels = dict.fromkeys(workload["kernels"].values())
    return f"{workload['device']} ({workload['dtype']}, {' and '.join(kernels)} kernels)"
