"""Captures traces of a running sglang or vLLM server, over HTTP, with the engine's own profiler.

Public: :func:`capture_server`, :class:`Load`, :class:`ServerCapture`. No torch is needed here. The
way down: ``sequence`` (what happens in which order), ``recording`` (a profile that is stopped
whatever happens), ``recognise``, ``sglang`` and ``vllm`` (the engines), ``arrival`` (whole files),
``load``, ``http`` and ``words``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from traceq.capturing.server.arrival import Patience
from traceq.capturing.server.engine import ServerSettings
from traceq.capturing.server.http import Address, Client
from traceq.capturing.server.load import Load
from traceq.capturing.server.recognise import recognise
from traceq.capturing.server.sequence import Job, ServerCapture
from traceq.errors import UsageError

__all__ = ["Load", "Patience", "ServerCapture", "capture_server"]

_MARGIN = 2
"""Forwards that a load needs beyond the steps to record: one ends the profile, one is chance."""

_MOST = 1_000_000  # seconds, or steps
_ACTIVITIES = ("CPU", "GPU", "XPU")


def capture_server(
    url: str,
    out: str | os.PathLike[str],
    *,
    engine: str | None = None,
    steps: int | None = None,
    seconds: float | None = None,
    load: Load | None = None,
    stack: str | None = None,
    shapes: bool | None = None,
    by_stage: bool = False,
    prefix: str | None = None,
    activities: Sequence[str] = ("CPU", "GPU"),
    server_dir: str | None = None,
    api_key: str | None = None,
    patience: Patience | float = 600.0,
    notify: Callable[[str], None] = lambda _: None,
    progress: Callable[[str], None] = lambda _: None,
) -> ServerCapture:
    """Profile the server at ``url``, and bring its traces into the folder ``out``.

    The window is ``steps`` forwards (sglang alone can count them), ``seconds`` of live traffic, or
    the whole ``load``, which is driven from here after its warm-up rounds; with steps and a load,
    the first steps of the load. ``engine`` is "sglang", "vllm", or None: it is recognised.

    For sglang, ``stack`` is "python" (the default) or "none", ``shapes`` (default True) records the
    shapes of operands, ``by_stage`` makes separate traces of prefill and decode, ``prefix`` begins
    the file names, ``activities`` are of CPU, GPU and XPU. vLLM has all that from its launch.

    ``server_dir`` is an absolute path on the server's disk: by default a folder in ``out`` that is
    removed again, for vLLM the one that it was launched with. If it cannot be seen from here,
    nothing is brought, and ``left_at`` of the result names the traces.

    ``patience`` is a number of seconds for each stage, or all the times one by one. ``notify`` is
    called with warnings, ``progress`` with what is being waited for. ``api_key`` is shown and
    written nowhere. If anything fails, or on KeyboardInterrupt, the profile is stopped.

    Raises UsageError before anything is sent where the arguments do not go together, CaptureError
    where the capture fails.
    """
    _check_window(steps, seconds, load)
    _check_values(activities, server_dir, prefix)
    waits = patience if isinstance(patience, Patience) else Patience(timeout=patience)
    _check_positive("timeout", waits.timeout)
    found = recognise(Client(Address.parse(url), api_key), engine)
    wanted = ServerSettings(steps, seconds, stack, shapes, by_stage, prefix, tuple(activities))
    settings = found.completed(wanted)
    if server_dir is None and not found.chooses_folder:
        raise UsageError(
            "vLLM writes to the folder that it was launched with",
            hint="Give that folder as --server-dir, also where it cannot be seen from here.",
        )
    job = Job(found, settings, load, Path(out), server_dir, waits, notify, progress)
    return job.run()


def _check_window(steps: int | None, seconds: float | None, load: Load | None) -> None:
    if steps is None and seconds is None and load is None:
        raise UsageError(
            "nothing says how long to record",
            hint="Give --steps N, --seconds S, or --drive prompts=10,input=256,output=32.",
        )
    if seconds is not None and (steps is not None or load is not None):
        raise UsageError(
            "--seconds goes with neither --steps nor --drive", hint="Leave one of them out."
        )
    if seconds is not None:
        _check_positive("seconds", seconds)
    if steps is None:
        return
    _check_positive("steps", steps)
    if load is not None and load.forwards < steps + _MARGIN:
        raise UsageError(
            f"{steps} steps do not fit into a load with output={load.output}",
            hint="The server ends a profile only as the step after the last one begins: give "
            f"output={steps + _MARGIN} or more, or leave --steps out to record the whole load.",
        )


def _check_values(activities: Sequence[str], server_dir: str | None, prefix: str | None) -> None:
    if not activities or any(name not in _ACTIVITIES for name in activities):
        raise UsageError(
            f"the activities are {', '.join(activities) or 'none'}",
            hint=f"They are some of {', '.join(_ACTIVITIES)}.",
        )
    if server_dir is not None and not server_dir.startswith("/"):
        raise UsageError(
            f"the server's folder {server_dir!r} is not an absolute path",
            hint="It is a path on the server's disk, where yours means nothing: begin with /.",
        )
    if prefix is not None and not prefix.replace("-", "").replace("_", "").isalnum():
        raise UsageError(
            f"the prefix is {prefix!r}", hint="It is made of letters, digits, - and _."
        )


def _check_positive(name: str, value: float) -> None:
    if not 0 < value <= _MOST:  # nor nan
        raise UsageError(f"{name} is {value:g}", hint=f"Give a number above 0, {_MOST:,} at most.")
