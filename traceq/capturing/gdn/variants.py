"""Variants of the GatedDeltaNet layer's forward. A new one is one function::

    from traceq.capturing.gdn.variants import MERGE_HEADS, variant

    @variant
    def view(forward):
        \"\"\"Tensor.view before out_proj.\"\"\"
        forward.replace(MERGE_HEADS, "core_attn_out.view(batch_size, seq_len, self.value_dim)")

Its name is what ``--variant`` takes, the first line of its docstring what ``--list`` shows. It gets
the layer's forward as a :class:`~traceq.capturing.gdn.source.ForwardSource` and replaces
expressions or statements of it; functions that the new code calls are handed over by name
(``forward.replace(old, new, rearrange=einops.rearrange)``). Packages it needs are imported inside
it: this file loads without any. Variants outside of traceq: ``--variant path/to/file.py:name``.
Lines of the same forward are the same in all variants, so traces differ where the code does.
"""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from traceq.capturing.extras import require
from traceq.capturing.gdn.source import ForwardSource
from traceq.errors import CaptureError, TraceqError, UsageError
from traceq.names import nearest_names

Edit = Callable[[ForwardSource], None]

MERGE_HEADS = "core_attn_out.reshape(batch_size, seq_len, -1)"
"""transformers' reshape before ``out_proj``, of (tokens × heads, dim)."""

_HEADS_APART = "core_attn_out.reshape(batch_size, seq_len, -1, self.head_v_dim)"


@dataclass(frozen=True, slots=True)
class Variant:
    """A change to the layer's forward; ``file`` is the user's own, if it is not built in."""

    name: str
    about: str
    edit: Edit
    file: str = ""

    def apply(self, forward: ForwardSource) -> None:
        """Change ``forward``. Raises CaptureError where the variant does not fit it, or fails."""
        try:
            self.edit(forward)
        except TraceqError:
            raise
        except (Exception, SystemExit) as error:
            raise CaptureError(
                f"variant {self.name!r} failed: {type(error).__name__}: {error}",
                hint=_place(error),
            ) from error


VARIANTS: dict[str, Variant] = {}
"""The variants that are known, by name, in the order of their registration."""


def variant(edit: Edit) -> Edit:
    """Register a variant under the function's name."""
    lines = (edit.__doc__ or "").strip().splitlines()
    VARIANTS[edit.__name__] = Variant(edit.__name__, lines[0] if lines else "", edit)
    return edit


@variant
def einops(forward: ForwardSource) -> None:
    """einops.rearrange before out_proj, as before sglang's PR 20386."""
    require("einops", extra="gdn")
    from einops import rearrange

    merged = f"rearrange({_HEADS_APART}, '... h d -> ... (h d)')"
    forward.replace(MERGE_HEADS, merged, rearrange=rearrange)


@variant
def flatten(forward: ForwardSource) -> None:
    """Tensor.flatten(-2) in its place, as after that PR."""
    forward.replace(MERGE_HEADS, f"{_HEADS_APART}.flatten(-2)")


@variant
def reshape(forward: ForwardSource) -> None:
    """transformers' own code: the one to compare other variants with."""


@variant
def gating(forward: ForwardSource) -> None:
    """Gates g and beta in one Triton kernel on a GPU; fewer ops on a CPU.

    Compare it with ``reshape``. The constant, −exp(A_log), is computed once a layer, in its first
    call. Of eight launches in bfloat16 (six in float32) that leaves one on a GPU with Triton, and
    five (four) elsewhere.
    """
    from traceq.capturing.gdn.gating import gates_for

    forward.replace(
        "beta = b.sigmoid()",
        "g, beta = compute_gates(self, a, b)",
        compute_gates=gates_for(forward.device),
    )
    forward.replace("g = -self.A_log.float().exp() * F.softplus(a.float() + self.dt_bias)", "pass")


def find_variant(text: str) -> Variant:
    """The variant of that name, or a user's own, ``file.py:name``.

    Raises UsageError where there is none, CaptureError where the file cannot be run.
    """
    file, colon, name = text.rpartition(":")
    if colon:
        return _variant_of(file, name)
    if text not in VARIANTS:
        near = nearest_names(text, VARIANTS)
        hint = f"Nearest: {', '.join(near)}. " if near else ""
        known = ", ".join(VARIANTS)
        raise UsageError(
            f"there is no variant {text!r}",
            hint=f"{hint}Known: {known}; your own: --variant path/to/file.py:name.",
        )
    return VARIANTS[text]


def _variant_of(file: str, name: str) -> Variant:
    found = _registered_by(file)
    if name not in found:
        known = ", ".join(found) or "none: put @variant above the function"
        raise UsageError(
            f"{file} has no variant {name!r}",
            hint=f"It has {known}; a variant is a function with @variant.",
        )
    chosen = found[name]
    return Variant(chosen.name, chosen.about, chosen.edit, file)


def _registered_by(file: str) -> dict[str, Variant]:
    """Variants that running a file registers; the known ones stay as they were."""
    if not Path(file).is_file():
        raise UsageError(f"there is no file {file!r}", hint="--variant path/to/file.py:name")
    spec = importlib.util.spec_from_file_location("traceq_user_variants", file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{file!r} is no Python file", hint="--variant path/to/file.py:name")
    known = VARIANTS.copy()
    VARIANTS.clear()
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        return VARIANTS.copy()
    except (Exception, SystemExit) as error:
        raise CaptureError(
            f"{file} could not be run: {type(error).__name__}: {error}", hint=_place(error)
        ) from error
    finally:
        VARIANTS.clear()
        VARIANTS.update(known)


def _place(error: BaseException) -> str | None:
    """Where it was raised, as ``file:line``."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"Raised at {frames[-1].filename}:{frames[-1].lineno}." if frames else None
