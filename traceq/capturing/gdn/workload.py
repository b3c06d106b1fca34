"""Runs the GDN workload, forward by forward, and captures it. The model is ``model``'s."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from traceq.capturing import capture, facts
from traceq.capturing.device import choose_device
from traceq.capturing.gdn.model import (
    VOCABULARY,
    build_model,
    dtype_of,
    kernels_used,
    memory_told,
    new_cache,
)
from traceq.capturing.gdn.settings import SCOPE, GdnSettings
from traceq.capturing.gdn.variants import Variant, find_variant
from traceq.capturing.session import Capture
from traceq.capturing.settings import Stack
from traceq.errors import CaptureError, TraceqError

_VERSIONS = {
    "transformers": "transformers",
    "einops": "einops",
    "fla": "flash-linear-attention",
    "causal_conv1d": "causal-conv1d",
    "triton": "triton",
}


@dataclass(frozen=True, slots=True)
class Workload:
    """A model and the tokens it is given, (batch, prompt + decoded).

    The tokens are drawn at random beforehand, so that all variants run on the same ones.
    """

    settings: GdnSettings
    model: Any
    tokens: Tensor

    @classmethod
    def build(
        cls, settings: GdnSettings, variant: Variant, device: str, *, decodes: int = 0
    ) -> Workload:
        """``decodes`` is how many a run needs, if more than the settings'."""
        model = build_model(settings, variant, device)
        longest = max(settings.steps, settings.forwards_before, decodes + 1)
        draw = torch.Generator().manual_seed(settings.seed)
        shape = (settings.batch, settings.prompt + longest - 1)
        with memory_told(settings):
            tokens = torch.randint(VOCABULARY, shape, generator=draw).to(device)
        return cls(settings, model, tokens)


class Run:
    """One run through a workload with a cache of its own: the prompt, then token by token."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._cache = new_cache(workload.model)
        self._end = 0

    def forward(self) -> Tensor:
        """The next forward; the logits of its last token, (batch, 1, vocabulary)."""
        start, prompt = self._end, self._workload.settings.prompt
        self._end = start + 1 if start else prompt
        result: Tensor = self._workload.model(
            input_ids=self._workload.tokens[:, start : self._end],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return result


def capture_gdn(
    settings: GdnSettings, path: str | os.PathLike[str], *, stack: Stack = "python"
) -> Capture:
    """Capture the workload: ``settings.steps`` forwards, the first of them the prefill.

    The warm-up is a run of its own, so the window begins with a fresh cache and warm kernels of
    both kinds; no forward runs after it. Raises UsageError and CaptureError.
    """
    variant = find_variant(settings.variant)
    device = choose_device(settings.device)
    captured = capture(
        path,
        under=SCOPE,
        stack=stack,
        warmup=settings.forwards_before,
        steps=settings.steps,
        device=device,
        workload=describe(settings, device),
    )
    if variant.file:
        captured.program = Path(variant.file)
    workload = Workload.build(settings, variant, device)
    with failures_told(settings, variant), torch.inference_mode(), captured:
        for forwards in (settings.forwards_before, settings.steps):
            run = Run(workload)
            for _ in range(forwards):
                run.forward()
                captured.step()
    return captured


def describe(settings: GdnSettings, device: str) -> dict[str, Any]:
    """The workload as JSON values, with what decides which code runs; sizes as in the settings."""
    return {
        "name": "gdn",
        **asdict(settings),
        "warmup": settings.forwards_before,
        "device": device,
        "dtype": str(dtype_of(settings, device)).removeprefix("torch."),
        "gdn_layers": settings.gdn_layers,
        "gdn_calls": settings.gdn_calls,
        "forwards": {"prefill": 1, "decode": settings.steps - 1},
        "heads": {
            "key": settings.key_heads,
            "value": settings.value_heads,
            "dim": settings.head_dim,
        },
        "kernels": kernels_used(device),
        "threads": torch.get_num_threads(),
        "versions": {name: facts.version(package) for name, package in _VERSIONS.items()},
    }


@contextlib.contextmanager
def failures_told(settings: GdnSettings, variant: Variant) -> Iterator[None]:
    """Tell of forwards that fail for want of memory, or in a user's own variant."""
    try:
        with memory_told(settings):
            yield
    except TraceqError:
        raise
    except Exception as error:
        if not variant.file:
            raise
        raise CaptureError(
            f"the forward of variant {variant.name!r} failed: {type(error).__name__}: {error}",
            hint=f"The variant is in {variant.file}.",
        ) from error
