"""The gates of a GDN layer for the ``gating`` variant: g and beta from the projections a and b.

As transformers computes them, g = −exp(A_log) · softplus(a + dt_bias) and beta = sigmoid(b), but
with −exp(A_log) kept: it is a weight's, the same in every call. Which form is taken where is told
in ``variants``.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor, nn

Gates = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]

_KEPT = "traceq_decay"


def gates_for(device: str) -> Gates:
    """How the gates are computed on a device ("cpu", "cuda", "xpu")."""
    if device == "cpu" or importlib.util.find_spec("triton") is None:
        return plain_gates
    from traceq.capturing.gdn.gating_triton import fused_gates

    return fused_gates


def plain_gates(layer: nn.Module, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """g (float32) and beta (b's type), both of the shape of a and b: (batch, tokens, heads)."""
    bias: Any = layer.dt_bias
    return decay_of(layer) * F.softplus(a.float() + bias), b.sigmoid()


def decay_of(layer: nn.Module) -> Tensor:
    """−exp(A_log) of a layer, (heads,), float32; computed in its first call.

    Without gradients, so for inference alone.
    """
    kept: Tensor | None = layer.__dict__.get(_KEPT)
    if kept is None:
        assert isinstance(layer.A_log, Tensor)
        with torch.no_grad():
            kept = -layer.A_log.float().exp()
        layer.__dict__[_KEPT] = kept
    return kept
