"""``traceq capture server``: profile a running sglang or vLLM server."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from traceq.errors import UsageError
from traceq.units import printable

if TYPE_CHECKING:
    from traceq.capturing.server import Load, ServerCapture

_KEY_VARIABLE = "TRACEQ_SERVER_API_KEY"
_ENDING = ("SIGTERM", "SIGHUP")


@click.command(
    "server",
    epilog="Example: traceq capture server http://localhost:30000 --steps 30 "
    "--drive prompts=10,input=256,output=32 -o traces/",
)
@click.argument("url")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Record N forwards of the model (sglang; vLLM cannot count them). With --drive, output "
    "has to be N + 2 at least; without it, N forwards of live traffic.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Record live traffic for S seconds.",
)
@click.option(
    "--drive",
    metavar="LOAD",
    help="Make the load too: prompts=10,input=256,output=32 is one batch of 10 made-up prompts of "
    "256 tokens, 32 tokens generated for each. Without --steps, all of it is recorded: as many "
    "forwards as output, or more.",
)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    metavar="N",
    help="Rounds of the driven load before the one that is recorded.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the driven load's token ids."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False),
    default="traces",
    show_default=True,
    metavar="DIR",
    help="Folder for the traces and server_info.json; made if it is not there.",
)
@click.option(
    "--server-dir",
    metavar="PATH",
    help="Where the server writes, as a path on its own disk. sglang: by default a folder in -o, "
    "removed afterwards. vLLM: the folder it was launched with. Traces stay there; if the path "
    "cannot be seen from here, they are named and not fetched.",
)
@click.option(
    "--stack",
    type=click.Choice(["python", "none"]),
    help="Record every Python frame and module (sglang's default here), or none: cheaper. vLLM "
    "has it from its launch.",
)
@click.option(
    "--shapes/--no-shapes",
    default=None,
    help="Record the shapes of operands (sglang: on by default). vLLM has it from its launch.",
)
@click.option(
    "--activities",
    default="CPU,GPU",
    show_default=True,
    metavar="LIST",
    help="What to record: of CPU, GPU, XPU. vLLM has it from its launch.",
)
@click.option(
    "--by-stage",
    is_flag=True,
    help="Separate traces of prefill and decode, --steps of each (sglang).",
)
@click.option("--prefix", metavar="TEXT", help="Begin the traces' names with TEXT (sglang).")
@click.option(
    "--server",
    "engine",
    type=click.Choice(["sglang", "vllm"]),
    help="Which engine it is, where it is not recognised.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="Give up when a stage takes longer: a round of the load, waiting for the steps, or for "
    "whole files. The server always has 600 s to stop, as it writes its traces meanwhile.",
)
@click.option(
    "--api-key-env",
    default=_KEY_VARIABLE,
    show_default=True,
    metavar="NAME",
    help="Environment variable with the server's API key (sglang: the admin key, if it has one).",
)
def command(
    url: str,
    drive: str | None,
    warmup: int,
    seed: int,
    output: str,
    activities: str,
    timeout: float,
    api_key_env: str,
    **chosen: Any,
) -> None:
    """Profile a running sglang or vLLM server at URL, and bring its traces.

    It starts and stops the engine's own profiler, waits until the traces are whole, and writes them
    to -o with what a comparison needs to know in them. Their names go to standard output. Say how
    long to record: --steps, --seconds or --drive. Without --drive it waits for live traffic.

    Labels of modules alone (--stack modules of 'capture run') cannot be asked for from outside.
    Should anything fail, or on Ctrl-C, the server's profile is stopped.
    """
    from traceq.capturing.server import capture_server

    with _ended_by_signals(), _talking() as (notify, progress):
        capture = capture_server(
            url,
            output,
            load=_load(drive, seed, warmup),
            activities=[name.strip().upper() for name in activities.split(",")],
            api_key=_api_key(api_key_env),
            patience=timeout,
            notify=notify,
            progress=progress,
            **chosen,
        )
    _print(capture)


def _print(capture: ServerCapture) -> None:
    for path in capture.files:
        click.echo(str(path))
    if capture.left_at is not None:
        _notify(
            f"not fetched: the server's disk cannot be seen from here. There, the traces are "
            f"{capture.left_at}"
        )


def _load(drive: str | None, seed: int, warmup: int) -> Load | None:
    from traceq.capturing.server import Load

    if drive is None:
        return None
    return Load.parse(drive, seed=seed, warmup=warmup)


def _api_key(name: str) -> str | None:
    if not re.fullmatch(r"[A-Za-z_]\w*", name):  # not repeated: it may be the key itself
        raise UsageError(
            "--api-key-env is not the name of an environment variable",
            hint="Put the API key into a variable, and give the variable's name.",
        )
    key = os.environ.get(name) or None
    if key is None and name != _KEY_VARIABLE:
        raise UsageError(
            f"the environment variable {name!r} is not set", hint="Put the API key into it."
        )
    return key


def _notify(message: str) -> None:
    click.echo(f"traceq: {printable(message)}", err=True)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the command as Ctrl-C does: the server's profile is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    heard = [name for name in names if signal.getsignal(name) != signal.SIG_IGN]  # nohup
    before = {name: signal.signal(name, signal.default_int_handler) for name in heard}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextlib.contextmanager
def _talking() -> Iterator[tuple[Callable[[str], None], Callable[[str], None]]]:
    """What prints warnings, and what shows on a terminal what is being waited for."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield _notify, lambda _: None
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    with console.status("asking the server") as status:
        yield (
            lambda text: console.print(Text(f"traceq: {printable(text)}"), soft_wrap=True),
            lambda text: status.update(Text(printable(text))),
        )
