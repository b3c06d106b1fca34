"""Which steps run without the profiler, with it warming up, and in the window."""

from __future__ import annotations

from dataclasses import dataclass

from torch.profiler import ProfilerAction

from traceq.capturing.settings import Settings

FREE, PROFILER, WINDOW, AFTER = "free", "profiler", "window", "after"


@dataclass(frozen=True, slots=True)
class Plan:
    """All warm-up steps but the last are free of the profiler; in the last it warms up."""

    warmup: int
    end: int | None

    @classmethod
    def of(cls, settings: Settings) -> Plan:
        """The plan of a capture; without ``steps`` the window has no end of its own."""
        steps = settings.steps
        return cls(settings.warmup, None if steps is None else settings.warmup + steps)

    @property
    def hooks_from(self) -> int:
        """The step at which hooks are set: the profiler's warm-up takes in their first use too."""
        return max(self.warmup - 1, 0)

    def phase(self, step: int) -> str:
        """What a step is part of, counted from 0."""
        if self.end is not None and step >= self.end:
            return AFTER
        if step >= self.warmup:
            return WINDOW
        return PROFILER if step == self.warmup - 1 else FREE

    def action(self, step: int) -> ProfilerAction:
        """What torch.profiler does in a step."""
        phase = self.phase(step)
        if phase in (FREE, AFTER):
            return ProfilerAction.NONE
        if phase == PROFILER:
            return ProfilerAction.WARMUP
        is_last = step + 1 == self.end
        return ProfilerAction.RECORD_AND_SAVE if is_last else ProfilerAction.RECORD

    def must_wait(self, step: int) -> bool:
        """Whether the device is waited for before a step.

        Kernels of steps before must not run in the profiler's warm-up or in the window; within the
        window nothing is waited for.
        """
        phase = self.phase(step)
        return phase in (PROFILER, WINDOW) and (step == 0 or phase != self.phase(step - 1))
