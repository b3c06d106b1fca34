"""What a capture is asked to record. No torch here: a wrong value is told before torch loads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from traceq.errors import UsageError
from traceq.names import Pattern

Stack = Literal["python", "modules", "none"]
STACKS: tuple[Stack, ...] = get_args(Stack)
DEVICES = ("auto", "cuda", "xpu", "cpu")

DEFAULT_WARMUP = 5
"""Steps before the window: a cold one, three warm ones without the profiler, the profiler's own."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one capture, as :func:`traceq.capturing.capture` takes them."""

    under: tuple[str, ...] = ()
    stack: Stack = "python"
    warmup: int = DEFAULT_WARMUP
    steps: int | None = None
    shapes: bool = True
    memory: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        for text in self.under:
            Pattern.parse(text)
        _check_choice("stack", self.stack, STACKS)
        _check_choice("device", self.device, DEVICES)
        _check_count("warmup", self.warmup, 0)
        if self.steps is not None:
            _check_count("steps", self.steps, 1)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "under": list(self.under)}


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {value!r}", hint=f"It is one of {', '.join(choices)}.")


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name} is {value!r}", hint=f"Give a whole number, {least} or more.")
