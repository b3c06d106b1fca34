"""The device that is profiled beside the CPU: which there is, and waiting for it."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity

from traceq.errors import CaptureError


def choose_device(name: str) -> str:
    """The device to profile beside the CPU. Raises CaptureError where it is not there."""
    there = [kind for kind in ("cuda", "xpu") if _is_available(kind)]
    if name == "auto":
        return there[0] if there else "cpu"
    if name != "cpu" and name not in there:
        raise CaptureError(
            f"torch sees no {name} device here",
            hint=f"It sees {', '.join([*there, 'cpu'])}; 'auto' takes what is there.",
        )
    return name


def _is_available(kind: str) -> bool:
    module = getattr(torch, kind, None)
    return module is not None and bool(module.is_available())


def synchronize(device: str) -> None:
    """Wait for the work of all devices of a kind; the CPU has none to wait for."""
    if device == "cpu":
        return
    module = getattr(torch, device)
    if module.is_initialized():  # else there is no work, and waiting would make a context
        for index in range(module.device_count()):
            module.synchronize(index)


def activities(device: str) -> list[ProfilerActivity]:
    """What torch.profiler is to record."""
    beside = [] if device == "cpu" else [getattr(ProfilerActivity, device.upper())]
    return [ProfilerActivity.CPU, *beside]
