"""The processor's vector registers, left as other code expects to find them.

isal's AVX-512 routines return without VZEROUPPER. On Intel's processors each SSE instruction after
that waits for the upper halves of the registers, until somebody clears them (Intel 64 and IA-32
Architectures Optimization Reference Manual, "Mixing AVX Code with SSE Code"): the scanner, which
runs next, takes 130 ms for what takes 10 (measured on a Xeon of the Sapphire Rapids generation).
"""

from __future__ import annotations

import numpy as np

_SOME = np.zeros(64, np.int64)  # fewer than 4 are added without the instructions that matter


def clear_upper_halves() -> None:
    """Run a loop that a compiler made for the widest registers: these end with VZEROUPPER."""
    np.add(_SOME, _SOME, out=_SOME)
