"""Makes the next blocks of text on a thread of its own while those before are decoded.

Inflating and scanning both leave Python's lock alone, so two cores do both at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator

_BLOCK = 1 << 20
_BLOCKS = 16
"""Bytes of a block at least, and how many are made ahead."""

_LOOK_SECONDS = 0.1

_Item = bytes | Exception | None


def make_ahead(blocks: Iterator[bytes]) -> Generator[bytes]:
    """The same bytes, in larger blocks. What making them raises, this raises in its place.

    To be closed where it is left early: the thread has ended then.
    """
    made: queue.Queue[_Item] = queue.Queue(_BLOCKS)
    is_left = threading.Event()
    thread = threading.Thread(target=_make, args=(blocks, made, is_left), daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        is_left.set()
        thread.join()


def _make(blocks: Iterator[bytes], made: queue.Queue[_Item], is_left: threading.Event) -> None:
    last: Exception | None = None
    try:
        for block in _joined(blocks):
            if not _put(made, block, is_left):
                return
    except Exception as error:  # noqa: BLE001  # raised again where it can be met
        last = error
    _put(made, last, is_left)


def _put(made: queue.Queue[_Item], item: _Item, is_left: threading.Event) -> bool:
    """Wait for room; False where nobody waits for the item any more."""
    while not is_left.is_set():
        try:
            made.put(item, timeout=_LOOK_SECONDS)
        except queue.Full:
            continue
        return True
    return False


def _joined(blocks: Iterator[bytes]) -> Iterator[bytes]:
    parts, size = [], 0
    for block in blocks:
        parts.append(block)
        size += len(block)
        if size >= _BLOCK:
            yield b"".join(parts)
            parts, size = [], 0
    yield b"".join(parts)
