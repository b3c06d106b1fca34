"""One capture: drives torch.profiler step by step and leaves one whole file.

What is done in which step is ``plan``'s. The device is waited for before the window begins, and
the profiler waits for it at the end; steps themselves are not synchronised: that would change
what is measured. A capture belongs to the process and the thread that begin it, as torch's
profiler does.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import functools
import inspect
import json
import os
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

import torch
from torch.profiler import profile, record_function

from traceq.capturing import exclusive, facts, files
from traceq.capturing.device import activities, choose_device, synchronize
from traceq.capturing.modules import (
    InputShapes,
    ModuleLabels,
    classes_around,
    is_compiled,
    live_modules,
    roots,
)
from traceq.capturing.plan import AFTER, FREE, PROFILER, WINDOW, Plan
from traceq.capturing.record import OUT_VARIABLE, RECORD_VERSION, command_line
from traceq.capturing.settings import Settings
from traceq.errors import CaptureError, CaptureWarning, UsageError

P = ParamSpec("P")
R = TypeVar("R")

LEAST_FREE_STEPS = 3
"""Warm steps without the profiler below which nothing is said of its cost."""


class Capture:
    """A capture in the making; made by :func:`traceq.capturing.capture`.

    ``path`` is the file, once it is written; ``record`` what was embedded in it; ``notes`` what
    the user should know of it. ``steps_done`` counts the steps that have ended. ``start``,
    ``finish``, ``advance`` and ``label`` are for those who drive it otherwise than by a block.
    """

    def __init__(
        self,
        settings: Settings,
        path: str | os.PathLike[str] | None = None,
        *,
        workload: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings = settings
        self.final = _final_name(path)
        self.path: Path | None = None
        self.record: dict[str, Any] = {}
        self.notes: list[str] = []
        self.steps_done = 0
        self.program: Path | None = None
        self._workload = _json_values(workload)
        self._plan = Plan.of(settings)
        self._profiler: profile | None = None
        self._device = ""
        self._labels = ModuleLabels()
        self._shapes = InputShapes()
        self._guard = exclusive.Guard(self._give_way)
        self._times: dict[str, list[int]] = {FREE: [], PROFILER: [], WINDOW: []}
        self._began = 0
        self._elapsed: int | None = None
        self._is_abandoned = False
        self._is_closed = False
        self._warned = 0
        self.is_forward_alone = False
        self._owner = (0, 0)
        self._in_call = contextvars.ContextVar("in_call", default=False)
        self._label: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()

    # --- as a block and as a decorator ---------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        elif kind is SystemExit:
            self._finish_quietly()
        else:
            self.abandon()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate the function that is one step; the capture starts with its first call.

        Steps that are left when the program ends are done without: what was recorded is written.
        Calls in other threads than that of the first are no steps. Raises UsageError for a
        generator function, whose calls return before they have done anything.
        """
        if not callable(function):
            raise UsageError(f"{function!r} is no function to decorate", hint=_DECORATOR)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise UsageError(
                f"{function.__qualname__} is a generator: a call of it is no step",
                hint="Decorate what is called for each item, or use 'with' and step().",
            )
        if inspect.iscoroutinefunction(function):
            return cast(Callable[P, R], self._decorate_coroutine(function))

        @functools.wraps(function)
        def step(*args: P.args, **kwargs: P.kwargs) -> R:
            if torch.compiler.is_compiling():  # a compiled caller has no steps within it
                return function(*args, **kwargs)
            with self._call():
                return function(*args, **kwargs)

        return step

    def _decorate_coroutine(self, function: Callable[P, Any]) -> Callable[P, Any]:
        @functools.wraps(function)
        async def step(*args: P.args, **kwargs: P.kwargs) -> Any:
            with self._call():
                return await function(*args, **kwargs)

        return step

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        """A call that is a step; one within another is part of it."""
        if self._profiler is None and not self._is_abandoned:
            self.start(label=False)
            atexit.register(self._finish_quietly)
        if self._in_call.get() or not self.is_running:
            yield
            return
        token = self._in_call.set(True)
        try:
            with self.label():
                yield
        except BaseException as error:
            if not isinstance(error, SystemExit) and self.is_running:
                self.tell(f"a step raised {type(error).__name__}: the capture was given up")
                self.abandon()
            raise
        finally:
            self._in_call.reset(token)
        self.advance()

    def _finish_quietly(self) -> None:
        """Where the program ends anyway, with an exit code of its own."""
        try:
            self.finish()
        except CaptureError as error:
            warnings.warn(str(error), CaptureWarning, stacklevel=1)

    # --- step by step --------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether the window has ended: what follows runs without the profiler."""
        return self._plan.phase(self.steps_done) == AFTER

    @property
    def is_running(self) -> bool:
        """Whether steps are told to it still, in this process and thread."""
        own = (os.getpid(), threading.get_ident())
        return (
            self._profiler is not None
            and self._owner == own
            and not (self.is_over or self._is_abandoned or self._is_closed)
        )

    def start(self, *, label: bool = True) -> None:
        """Begin with the first step; with a label on it unless calls are labelled one by one.

        Raises CaptureError where another profiler runs or the file cannot be written.
        """
        if self._profiler is not None:
            raise UsageError("this capture has begun already", hint="Make another one.")
        ranks = facts.rank()
        self.final = files.with_rank(self.final, ranks[0] if ranks else None)
        files.check_name(self.final)
        exclusive.refuse_second()
        files.remove_leftovers(self.final)
        self._device = choose_device(self.settings.device)
        self._facts = self._collect_facts()
        self._owner = (os.getpid(), threading.get_ident())
        self._profiler = self._build_profiler()
        self._prepare(0)
        self._guard.install()
        with self._guard.own():
            self._profiler.start()
        self._warn()
        self._began = time.perf_counter_ns()
        if label:
            self._open_label()

    def step(self) -> None:
        """End a step and begin the next. Nothing happens once the window has ended.

        Raises UsageError where the capture has not begun.
        """
        if self._profiler is None:
            raise UsageError("this capture has not begun", hint=_DECORATOR)
        self._close_label()
        self.advance()
        self._open_label()

    @contextlib.contextmanager
    def label(self) -> Iterator[None]:
        """The label of the step that goes on, as torch.profiler names it, and its time."""
        began = time.perf_counter_ns()
        with self._make_label():
            yield
        self._elapsed = time.perf_counter_ns() - began

    def advance(self) -> None:
        """Let the profiler go on to the next step, without a label.

        The step's time is that of its label, or since the last step where it has none.
        """
        if self._profiler is None or not self.is_running:
            return
        elapsed = self._elapsed or time.perf_counter_ns() - self._began
        self._times[self._plan.phase(self.steps_done)].append(elapsed)
        self.steps_done += 1
        self._prepare(self.steps_done)
        try:
            with self._guard.own():
                self._profiler.step()  # writes the file after the last step
        finally:
            if self.is_over:
                self._close()
        self._warn()
        self._elapsed = None
        self._began = time.perf_counter_ns()

    def finish(self) -> None:
        """End the window, if it has not ended, and write the file.

        Raises CaptureError where no step was recorded, or the file cannot be written.
        """
        if not self.is_running:
            return
        self._close_label()
        if self.steps_done < self.settings.warmup:
            self.abandon()
            raise CaptureError(
                f"nothing was recorded: {self.steps_done} steps were made, and the window begins "
                f"after {self.settings.warmup} of warm-up",
                hint="Make more steps, or take fewer of warm-up (warmup, --warmup): with 0 the "
                "window begins at once. In a 'with' block each step ends with a call of step().",
            )
        wanted, made = self.settings.steps, len(self._times[WINDOW])
        if wanted is not None and made < wanted:
            self.tell(
                f"the window holds {made} whole steps, not the {wanted} asked for: "
                "make more, or take fewer"
            )
        self._close()
        self._warn()

    def abandon(self) -> None:
        """End the capture and write nothing."""
        was_running = self.is_running
        self._is_abandoned = True
        if was_running:
            self._close_label()
            self._close()
        self._warn()

    def _open_label(self) -> None:
        self._label = self._make_label()
        self._label.__enter__()

    def _close_label(self) -> None:
        opened, self._label = self._label, contextlib.nullcontext()
        opened.__exit__(None, None, None)

    def _make_label(self) -> contextlib.AbstractContextManager[Any]:
        if not self.is_running or self._plan.phase(self.steps_done) == FREE:
            return contextlib.nullcontext()
        return record_function(f"ProfilerStep#{self.steps_done}")

    def _close(self) -> None:
        self._is_closed = True
        self._remove_hooks()
        try:
            if self._profiler is not None:
                with self._guard.own():
                    self._profiler.stop()
        finally:
            self._guard.remove()

    def _give_way(self) -> None:
        """The program starts a profiler of its own: it goes first."""
        self.tell("the program started a profiler of its own: this capture was given up")
        self.abandon()

    def tell(self, text: str) -> None:
        """Add a note to the record; the warning waits until nothing can be broken by it."""
        self.notes.append(text)

    def _warn(self) -> None:
        """Give the warnings that wait; a filter may make them errors."""
        while self._warned < len(self.notes):
            self._warned += 1
            warnings.warn(self.notes[self._warned - 1], CaptureWarning, stacklevel=3)

    # --- the profiler --------------------------------------------------------------------------

    def _build_profiler(self) -> profile:
        profiler = profile(
            activities=activities(self._device),
            schedule=self._plan.action,
            on_trace_ready=self._write,
            record_shapes=self.settings.shapes,
            profile_memory=self.settings.memory,
            with_stack=self.settings.stack == "python",
        )
        profiler.record_steps = False  # its labels would cross the frames of a decorated step
        return profiler

    def _prepare(self, step: int) -> None:
        """What must be done before the profiler changes its state for a step."""
        if self._plan.phase(step) == AFTER:
            self._remove_hooks()  # a label that is open would have no end in the trace
        if self._plan.must_wait(step):
            synchronize(self._device)
        if step == self._plan.hooks_from:
            self._set_hooks()
        if step == self.settings.warmup:
            self._labels.restart()
            self._shapes.restart()

    def _set_hooks(self) -> None:
        modules = live_modules()
        if self.settings.stack == "modules":
            self._labels.begin(modules, self.settings.under)
            if any(is_compiled(module) for module in modules):
                self.tell("within compiled modules there are no labels, but one around each")
        elif self.settings.under and modules and not classes_around(modules, self.settings.under):
            names = ", ".join(self.settings.under)
            self.tell(f"no nn.Module matches {names}; a label or function of that name may")
        self._shapes.begin(roots(modules))

    def _remove_hooks(self) -> None:
        self._labels.end()
        self._shapes.end()

    # --- the file ------------------------------------------------------------------------------

    def _write(self, profiler: profile) -> None:
        """Called by torch.profiler when the window has ended."""
        self._remove_hooks()
        if self._is_abandoned:
            return
        if self.settings.stack == "modules" and not self._labels.count:
            names = ", ".join(self.settings.under) or "any"
            self.tell(f"no call of a module that matches {names}: there are no labels")
        with files.hidden_files(self.final) as raw:
            _export(profiler, raw)
            self._check_kernels(raw)
            self._check_backward(raw)
            self.record = self._make_record()
            self.path = files.write_trace(raw, self.final, self.record)

    def _check_kernels(self, raw: Path) -> None:
        if self._device != "cpu" and not files.has_kernels(raw):
            self.tell(
                f"the trace holds no kernel although {self._device} was profiled: the work ran "
                "elsewhere, or the profiler cannot see the GPU"
            )

    def _check_backward(self, raw: Path) -> None:
        if self.is_forward_alone and files.holds(raw, b"autograd::engine"):
            self.tell(
                "backward passes ran, and the steps do not hold them: a step is a call of a "
                "module; name the function that is a training step (--from)"
            )

    def _collect_facts(self) -> dict[str, Any]:
        ranks = facts.rank()
        folder = self.program.resolve().parent if self.program else facts.program_folder()
        return {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "argv": command_line(),
            "git": facts.git_state(folder),
            "versions": facts.versions(),
            "machine": facts.machine(),
            "rank": ranks[0] if ranks else None,
            "world_size": ranks[1] if ranks else None,
        }

    def _make_record(self) -> dict[str, Any]:
        return {
            "version": RECORD_VERSION,
            "kind": "session",
            **self._facts,
            "settings": {**self.settings.to_dict(), "device": self._device},
            "steps": self._times,
            "cost": step_cost(self._times),
            "shapes": self._shapes.table(),
            "workload": self._workload,
            "notes": self.notes,
        }


def step_cost(times: Mapping[str, list[int]]) -> dict[str, int] | None:
    """Median time (ns) of a step without and with the profiler, of one capture; None if untold.

    Without: the warm-up steps that ran without the profiler, less the first, which is cold; there
    must be LEAST_FREE_STEPS. A hint alone: they need not do what the steps of the window do, and
    on a GPU a step's time is the host's.
    """
    free, window = times[FREE][1:], times[WINDOW]
    if len(free) < LEAST_FREE_STEPS or not window:
        return None
    return {
        "without": int(statistics.median(free)),
        "with": int(statistics.median(window)),
        "steps_without": len(free),
    }


_DECORATOR = (
    "Write 'with traceq.capture(FILE) as cap:', or '@traceq.capture(FILE)' above a function."
)


def _export(profiler: profile, raw: Path) -> None:
    try:
        profiler.export_chrome_trace(str(raw))
    except (OSError, RuntimeError) as error:
        raise CaptureError(
            f"the profiler could not write its trace: {error}",
            hint=f"See that {str(raw.parent)!r} has room for the unpacked trace.",
        ) from error


def _final_name(path: str | os.PathLike[str] | None) -> Path:
    if callable(path):
        raise UsageError("the capture is given a function, and no file", hint=_DECORATOR)
    chosen = os.fspath(path) if path is not None else os.environ.get(OUT_VARIABLE)
    if not chosen:
        raise UsageError("the capture has no file to go to", hint="Name one: out.json.gz.")
    files.check_name(Path(chosen))
    final = Path(chosen).absolute()  # the program may change its folder
    files.check_name(final)
    return final


def _json_values(workload: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if workload is None:
        return None
    try:
        return cast(dict[str, Any], json.loads(json.dumps(dict(workload), allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"the workload is not made of JSON values: {error}",
            hint="Use numbers, texts, lists and dictionaries.",
        ) from error
