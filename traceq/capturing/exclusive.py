"""Keeps two torch profilers in one process from destroying each other.

Kineto holds one session: a second start cancels the first without an exception, and exporting the
first then crashes the interpreter (seen with torch 2.13 and 2.14). So a capture does not begin
while another profiler or capture runs, and gives way before another profiler begins.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.autograd.profiler as autograd_profiler

from traceq.errors import CaptureError

_STARTS = ("_prepare_trace", "_start_trace")
"""Methods through which every profiler of torch begins, torch.profiler's included."""

_holders: list[Guard] = []
"""The one capture that goes on, if any."""


def refuse_second() -> None:
    """Raise CaptureError if a torch profiler or another capture runs in this process."""
    if _holders:
        raise CaptureError(
            "another capture is going on in this process",
            hint="One process holds one profiler: let the other end first.",
        )
    # The first is of this thread alone, the second of the process; not every torch has it.
    if torch._C._autograd._profiler_enabled() or getattr(
        autograd_profiler, "_is_profiler_enabled", False
    ):
        raise CaptureError(
            "another torch profiler is running in this process",
            hint="One process holds one profiler: stop the other first.",
        )


class Guard:
    """Calls ``give_way`` before a profiler starts that is not started within :meth:`own`."""

    def __init__(self, give_way: Callable[[], object]) -> None:
        self._give_way = give_way
        self._is_own = False
        self._originals: dict[str, Callable[..., Any]] = {}

    def install(self) -> None:
        """Hold the process's profiler and watch for others. Raises CaptureError: see above."""
        refuse_second()
        _holders.append(self)
        kind = autograd_profiler.profile
        for name in _STARTS:  # a torch without these methods is left as it is
            original = vars(kind).get(name)
            if original is not None:
                self._originals[name] = original
                setattr(kind, name, self._watched(original))

    def remove(self) -> None:
        """Watch no more, and let others begin."""
        while self._originals:
            setattr(autograd_profiler.profile, *self._originals.popitem())
        if self in _holders:
            _holders.remove(self)

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """The capture's own profiler may start within."""
        before, self._is_own = self._is_own, True
        try:
            with warnings.catch_warnings():
                # Said of the events in memory, which are not asked for; the file is not concerned.
                warnings.filterwarnings("ignore", message=".*Profiler clears events")
                yield
        finally:
            self._is_own = before

    def _watched(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def start(profiler: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._is_own and self in _holders:
                self.remove()
                self._give_way()
            return original(profiler, *args, **kwargs)

        return start
