"""How large the GDN workload is, checked before torch is loaded. Building it is ``model``'s."""

from __future__ import annotations

from dataclasses import dataclass

from traceq.errors import UsageError

DTYPES = ("auto", "float32", "bfloat16", "float16")
SCOPE = "GatedDeltaNet"
"""Part of the class name, and so what ``--under`` takes."""

_FULL_ATTENTION_INTERVAL = 4
_WIDE = 2048
_LEAST_WARMUP = 8
_LIMIT = 1 << 24  # far above any model; products of these stay within what torch can count


@dataclass(frozen=True, slots=True)
class GdnSettings:
    """Sizes of the model and of what is run; UsageError where one of them cannot be.

    ``batch`` is in sequences, ``prompt`` in tokens. One step is one forward: the first takes in the
    prompt (prefill), each further one a token of every sequence (decode). ``warmup`` steps of the
    same kinds run before the window, with a cache of their own. ``dtype`` "auto" is bfloat16 on a
    GPU and float32 on a CPU.
    """

    variant: str = "einops"
    layers: int = 8
    steps: int = 10
    warmup: int | None = None
    batch: int = 2
    prompt: int = 64
    hidden: int = 256
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        # A cache without a layer of full attention does not know its length.
        _check_count("layers", self.layers, _FULL_ATTENTION_INTERVAL)
        for name in ("steps", "batch", "prompt", "hidden"):
            _check_count(name, getattr(self, name), 1)
        if self.warmup is not None:
            _check_count("warmup", self.warmup, 0)
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"seed is {self.seed}", hint="Give a number from 0 to 2^63 - 1.")
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype is {self.dtype!r}", hint=f"It is one of {', '.join(DTYPES)}.")
        self._check_hidden()

    def _check_hidden(self) -> None:
        part = 2 * self.head_dim
        if self.hidden % part:
            lower = self.hidden // part * part
            near = [str(size) for size in (lower, lower + part) if size]
            raise UsageError(
                f"hidden is {self.hidden}, which does not make whole heads of {self.head_dim}",
                hint=f"Give a multiple of {part}: {' or '.join(near)}.",
            )

    @property
    def forwards_before(self) -> int:
        """Warm-up steps: ``warmup``, or a whole run, so that the memory for the window is there.

        Less than a run leaves allocations in the window, which cost more than the steps of a small
        model; and the first forwards compile kernels.
        """
        return max(_LEAST_WARMUP, self.steps) if self.warmup is None else self.warmup

    @property
    def gdn_layers(self) -> int:
        """Layers that are GatedDeltaNet: all but each fourth, which is full attention."""
        return self.layers - self.layers // _FULL_ATTENTION_INTERVAL

    @property
    def gdn_calls(self) -> int:
        """GatedDeltaNet calls in the window."""
        return self.gdn_layers * self.steps

    @property
    def head_dim(self) -> int:
        """Of all heads: 128, as in the real models, where hidden is 2048 or more; 64 below.

        Both suit the kernels of flash-linear-attention.
        """
        return 128 if self.hidden >= _WIDE else 64

    @property
    def value_heads(self) -> int:
        """Value heads of a GDN layer, and query heads of full attention."""
        return self.hidden // self.head_dim

    @property
    def key_heads(self) -> int:
        """Key heads of a GDN layer: half as many, as in the real models."""
        return self.value_heads // 2


def _check_count(name: str, value: int, least: int) -> None:
    if not least <= value <= _LIMIT:
        raise UsageError(
            f"{name} is {value}", hint=f"Give a whole number from {least} to {_LIMIT}."
        )
