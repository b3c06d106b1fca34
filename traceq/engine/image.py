"""An engine's memory between two calls as compressed bytes, and back into a fresh engine.

All that a WebAssembly instance knows between calls is in its memory, if its start was the same:
``facts`` says of the start what can be compared. Where the bytes are kept is left to others, whose
checksums this relies on.
"""

from __future__ import annotations

import ctypes
import json
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise

import zstandard

SEGMENT_BYTES = 16 << 20
"""Memory is compressed in pieces of so much, several at once; each is at most copied once."""

_LENGTH = struct.Struct("<Q")
_LEVEL = 1
_THREADS = 2

Facts = dict[str, int | str]


def pack_memory(address: int, size: int, facts: Facts) -> list[bytes]:
    """``size`` bytes of memory from ``address`` on, in parts."""
    view = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
    with ThreadPoolExecutor(_THREADS) as pool:
        pieces = [view[at : at + SEGMENT_BYTES] for at in range(0, size, SEGMENT_BYTES)]
        frames = list(pool.map(_compress, pieces))
    sizes = [len(frame) for frame in frames]
    told = {"facts": facts, "size": size, "segment": SEGMENT_BYTES, "frames": sizes}
    head = json.dumps(told).encode()
    return [_LENGTH.pack(len(head)), head, *frames]


def unpack_memory(content: memoryview, facts: Facts, reserve: Callable[[int], int | None]) -> bool:
    """Put what was packed into the memory that ``reserve(size)`` gives the address of.

    False where the facts are others, there is no such memory, or a piece does not fit: what is in
    the memory then is of no use.
    """
    (length,) = _LENGTH.unpack_from(content)
    start = _LENGTH.size + length
    head = json.loads(bytes(content[_LENGTH.size : start]))
    size, segment = int(head["size"]), int(head["segment"])
    if head["facts"] != facts or len(head["frames"]) != -(-size // segment):
        return False
    address = reserve(size)
    if address is None:
        return False

    def put(frame: memoryview, at: int) -> bool:
        piece = zstandard.ZstdDecompressor().decompress(frame)
        if len(piece) != min(segment, size - at):  # it would lie over, or leave a gap
            return False
        ctypes.memmove(address + at, piece, len(piece))
        return True

    ends = list(accumulate(head["frames"], initial=start))
    frames = [content[first:last] for first, last in pairwise(ends)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return all(pool.map(put, frames, range(0, size, segment)))


def _compress(piece: memoryview) -> bytes:
    return zstandard.ZstdCompressor(level=_LEVEL).compress(piece)
