"""Builds the Qwen3.5 model of the workload: transformers' classes, random weights, no download.

The layer's forward is changed on this model's layers alone; the classes of transformers stay as
they are. What is run with the model is ``workload``'s.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import inspect
import os
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

# Read by transformers when it is imported. Nothing is to be fetched, neither weights nor kernels;
# what the user has set stays. Reference code on a CPU is no news: the summary tells of it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("USE_HUB_KERNELS", "NO")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch

from traceq.capturing.gdn.settings import GdnSettings
from traceq.capturing.gdn.source import ForwardSource
from traceq.capturing.gdn.variants import Variant
from traceq.errors import CaptureError

try:
    import transformers
    from transformers import DynamicCache, Qwen3_5TextConfig
    from transformers.models.qwen3_5 import modeling_qwen3_5 as modeling
except ImportError as error:
    raise CaptureError(
        f"transformers {importlib.metadata.version('transformers')} has no Qwen3.5, or cannot be "
        f"imported: {error}",
        hint="Install transformers 5.17 or later.",
    ) from error

VOCABULARY = 512
ORIGIN = f"transformers {transformers.__version__}"

_LAYER = modeling.Qwen3_5GatedDeltaNet
# Functions for which transformers takes a package's kernels, and how these packages are imported.
_PACKAGES = {
    "torch_chunk_gated_delta_rule": "fla",
    "torch_recurrent_gated_delta_rule": "fla",
    "causal_conv1d_fn": "causal_conv1d",
    "causal_conv1d_update": "causal_conv1d",
}


def build_model(settings: GdnSettings, variant: Variant, device: str) -> Any:
    """The model on ``device`` ("cpu", "cuda", "xpu"), its GDN layers changed by ``variant``.

    Sets torch's random seed. Raises CaptureError where it does not fit into memory, or the variant
    does not fit transformers' code.
    """
    forward = changed_forward(variant, device)
    torch.manual_seed(settings.seed)
    with memory_told(settings), _default_dtype(dtype_of(settings, device)), torch.device(device):
        model: Any = modeling.Qwen3_5ForCausalLM(make_config(settings))
    model.eval()
    for module in model.modules():
        if isinstance(module, _LAYER):
            # The instance's attribute: called before the class's, and gone with the model.
            module.forward = MethodType(forward, module)
    return model


def new_cache(model: Any) -> Any:
    """An empty cache for a run."""
    return DynamicCache(config=model.config)


def make_config(settings: GdnSettings) -> Any:
    """Qwen3.5's configuration with its own proportions, at the sizes asked for."""
    return Qwen3_5TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=settings.hidden,
        intermediate_size=3 * settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.value_heads,
        num_key_value_heads=max(1, settings.key_heads // 2),
        head_dim=settings.head_dim,
        linear_num_key_heads=settings.key_heads,
        linear_num_value_heads=settings.value_heads,
        linear_key_head_dim=settings.head_dim,
        linear_value_head_dim=settings.head_dim,
        max_position_embeddings=1 << 20,
    )


def changed_forward(variant: Variant, device: str) -> Callable[..., Any]:
    """The GDN layer's forward as ``variant`` has it, for a device."""
    source = ForwardSource(_LAYER.forward, origin=ORIGIN, device=device)
    if device == "cpu":
        source.define(**reference_functions())
    variant.apply(source)
    return source.compiled()


def reference_functions() -> dict[str, Callable[..., Any]]:
    """transformers' own functions in torch, where it has chosen a package's kernels instead.

    It chooses by what is installed, also where there is no GPU for these kernels to run on.
    """
    return {
        name: inspect.unwrap(getattr(modeling, name))
        for name, package in _PACKAGES.items()
        if importlib.util.find_spec(package) is not None and hasattr(modeling, name)
    }


def kernels_used(device: str) -> dict[str, str]:
    """Whose delta rule and convolution run on a device: a package's name, or "torch"."""
    return {
        "delta_rule": _package_of("torch_chunk_gated_delta_rule", device),
        "conv": _package_of("causal_conv1d_fn", device),
    }


def _package_of(name: str, device: str) -> str:
    function = getattr(modeling, name, None)
    if device == "cpu" or function is None:
        return "torch"
    # transformers' wrapper holds what it has chosen, which differs from what it wraps.
    inside = inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
    chosen = inside.get("implementation")
    package = str(getattr(chosen, "__module__", "transformers")).partition(".")[0]
    return "torch" if package == "transformers" else package


def dtype_of(settings: GdnSettings, device: str) -> torch.dtype:
    """The type of weights and activations."""
    name = settings.dtype
    if name == "auto":
        name = "float32" if device == "cpu" else "bfloat16"
    chosen = getattr(torch, name)
    assert isinstance(chosen, torch.dtype)
    return chosen


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Weights are made in this type; what the model wants in float32 for itself stays so."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def memory_told(settings: GdnSettings) -> Iterator[None]:
    """Tell of memory that does not suffice as a CaptureError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_about_memory(error):
            raise
        raise CaptureError(
            f"the workload does not fit into memory: {settings.layers} layers of hidden "
            f"{settings.hidden}, {settings.batch} × {settings.prompt} tokens",
            hint="Give a smaller --hidden, --layers, --batch or --prompt.",
        ) from error


def _is_about_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error)
    return any(part in text for part in ("allocate memory", "out of memory", "size calculation"))
