"""Captures traces that are worth comparing: torch.profiler with warm-up outside of the window.

Public: :func:`capture`. The package is named ``capturing`` because ``traceq.capture`` is the
function. It knows nothing of how traces are read; torch is imported below here, nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from traceq.capturing.extras import require
from traceq.capturing.settings import DEFAULT_WARMUP, Settings, Stack

if TYPE_CHECKING:
    from traceq.capturing.session import Capture

__all__ = ["capture"]


def capture(
    path: str | os.PathLike[str] | None = None,
    *,
    under: str | Sequence[str] = (),
    stack: Stack = "python",
    warmup: int = DEFAULT_WARMUP,
    steps: int | None = None,
    shapes: bool = True,
    memory: bool = False,
    device: str = "auto",
    workload: Mapping[str, Any] | None = None,
) -> Capture:
    """Capture a trace: a context manager, or a decorator of the function that is one step.

    ::

        with traceq.capture("out.json.gz", under="GatedDeltaNet", steps=10) as cap:
            for batch in batches:
                model(batch)
                cap.step()

        @traceq.capture("out.json.gz", steps=10)
        def train_step(batch): ...

    The first ``warmup`` steps are outside of the window: all but the last of them run without the
    profiler, the last with the profiler warming up. Then ``steps`` steps are recorded (None: all
    until the block ends), and the file is written at once; what follows runs without the profiler.
    With ``warmup=0`` the window begins with the block, and ``step()`` need not be called. Without
    ``steps``, what follows the last ``step()`` has a label too, as with torch.profiler. If the
    block raises, nothing is written. Threads that are started in the window are not recorded.

    ``path`` ends in .json, .json.gz or .json.zst; None takes the environment's ``TRACEQ_OUT``.
    Under torch.distributed (or torchrun) the rank is put into the name: ``out-rank3.json.gz``.
    ``under`` are patterns over module classes, as for ``traceq ops --under``; they choose the
    labels of ``stack="modules"`` and are kept in the record. ``stack`` is ``"python"``
    (every Python frame: the way to see ``einops.py: rearrange``; costs CPU time), ``"modules"``
    (labels on the modules that match ``under`` and those around them, or on all modules without
    it; cheap) or ``"none"``. ``shapes`` and ``memory`` are the profiler's record_shapes and
    profile_memory. ``device`` is ``"cuda"`` (ROCm too), ``"xpu"``, ``"cpu"``, or ``"auto"``: what
    is there. ``workload`` is kept in the trace as it is (JSON values).

    Raises CaptureError where torch is absent or another profiler runs, UsageError where an
    argument is out of range, PatternError where a pattern is none.
    """
    require("torch", extra="capture")
    from traceq.capturing.session import Capture

    patterns = (under,) if isinstance(under, str) else tuple(under)
    settings = Settings(patterns, stack, warmup, steps, shapes, memory, device)
    return Capture(settings, path, workload=workload)
