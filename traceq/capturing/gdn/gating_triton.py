"""The Triton kernel of the ``gating`` variant. Imported where there is a GPU and Triton alone."""

from typing import Any

import torch
import triton  # type: ignore[import-not-found,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor, nn

from traceq.capturing.gdn.gating import decay_of

_BLOCK = 256


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def gdn_gating_kernel(  # type: ignore[no-untyped-def]
    a, b, decay, dt_bias, g, beta, count, heads: tl.constexpr, block: tl.constexpr
):
    at = tl.program_id(0) * block + tl.arange(0, block)
    there = at < count
    head = at % heads
    shifted = tl.load(a + at, mask=there, other=0).to(tl.float32)
    shifted += tl.load(dt_bias + head).to(tl.float32)
    # As in torch, softplus(x) is x above 20.
    soft = tl.where(shifted > 20.0, shifted, tl.log(1.0 + tl.exp(shifted)))
    tl.store(g + at, tl.load(decay + head) * soft, mask=there)
    gate = tl.load(b + at, mask=there, other=0).to(tl.float32)
    tl.store(beta + at, 1.0 / (1.0 + tl.exp(-gate)), mask=there)


def fused_gates(layer: nn.Module, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The same as ``gating.plain_gates``, in one launch."""
    bias: Any = layer.dt_bias
    a, b = a.contiguous(), b.contiguous()
    g, beta = torch.empty_like(a, dtype=torch.float32), torch.empty_like(b)
    count, heads = a.numel(), a.shape[-1]
    gdn_gating_kernel[(triton.cdiv(count, _BLOCK),)](
        a, b, decay_of(layer), bias, g, beta, count, heads, _BLOCK
    )
    return g, beta
