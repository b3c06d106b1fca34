"""The order of the runs, A B A B …, and what becomes of the trace of each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from traceq.capturing.ab.commands import (
    OUT,
    Command,
    Form,
    ProgramOptions,
    check_options,
    parse_side,
)
from traceq.capturing.ab.folder import (
    command_dict,
    last_lines,
    prepare,
    run_dict,
    trace_problem,
    unwritable,
    work_folder,
    write_manifest,
)
from traceq.capturing.ab.process import Run, execute, signals
from traceq.capturing.record import OUT_VARIABLE
from traceq.errors import CaptureError, UsageError
from traceq.units import printable

SIDES = ("a", "b")

Progress = Callable[[int, int, str, int | None], None]
"""Called with (number of the run, in all, its name, ns that it took; None at its start)."""


@dataclass(frozen=True, slots=True)
class AbCapture:
    """A finished series: all runs in their order, the throw-away ones first."""

    folder: Path
    commands: Mapping[str, Command]
    runs: tuple[Run, ...]

    @property
    def captures(self) -> tuple[Run, ...]:
        """The runs whose traces were kept."""
        return tuple(run for run in self.runs if run.trace is not None)

    @property
    def is_same_command(self) -> bool:
        """Whether this is an A/A: its differences are those of chance and order."""
        one, other = (self.commands[side] for side in SIDES)
        return (one.argv, one.environment) == (other.argv, other.environment)


def capture_ab(
    a: str,
    b: str,
    folder: str | Path,
    *,
    repeat: int = 5,
    warm: int = 1,
    options: ProgramOptions | None = None,
    as_is: bool = False,
    run_timeout: float | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> AbCapture:
    """Run ``a`` and ``b`` in turn, ``warm`` times each for nothing, then ``repeat`` times each.

    The runs for nothing are made once, before the series, and fill the caches of disk and
    compilers; what a run does before its window is up to the command (``options.warmup``).
    Traces come to be ``folder/a-0.json.gz``, ``folder/b-0.json.gz``, …, each once it is whole;
    ``folder/ab.json`` says what was run. For how a command is read see :func:`parse_command`.
    ``run_timeout`` in seconds; ``force`` replaces an earlier series. Raises UsageError before
    anything runs, CaptureError for the first run that fails, KeyboardInterrupt on SIGINT, SIGTERM
    and SIGHUP, after the command and all that it started have been ended.
    """
    if repeat < 1 or warm < 0:
        raise UsageError(f"repeat {repeat}, warm {warm}", hint="Capture each side at least once.")
    options = options or ProgramOptions()
    texts = dict(zip(SIDES, (a, b), strict=True))
    commands = {side: parse_side(side, texts[side], options, as_is) for side in SIDES}
    check_options(commands, options)
    series = _Series(prepare(Path(folder), force), commands, repeat, warm, run_timeout)
    with signals() as caught:
        series.go(caught, progress or (lambda *_: None))
    if caught:  # after the last run had ended
        raise KeyboardInterrupt
    return AbCapture(series.folder, commands, tuple(series.runs))


class _Series:
    """The runs done so far, and their account in the manifest."""

    def __init__(
        self,
        folder: Path,
        commands: Mapping[str, Command],
        repeat: int,
        warm: int,
        run_timeout: float | None,
    ) -> None:
        self.folder = folder
        self.runs: list[Run] = []
        self._commands = commands
        self._repeat, self._warm, self._timeout = repeat, warm, run_timeout
        self._started = _now()

    def go(self, caught: list[int], progress: Progress) -> None:
        """All runs, in turn; the manifest is true after each."""
        names = [f"{side}-warm-{turn}" for turn in range(self._warm) for side in SIDES]
        names += [f"{side}-{turn}" for turn in range(self._repeat) for side in SIDES]
        self._write("running")
        for number, name in enumerate(names, 1):
            progress(number, len(names), name, None)
            run = self._run(number, name, caught)
            self.runs.append(run)
            if caught:
                self._write("interrupted")
                raise KeyboardInterrupt
            self._write("failed" if run.problem else "running")
            if run.problem:
                raise self._failure(run, len(names))
            progress(number, len(names), name, run.duration)
        self._write("done")

    def _run(self, number: int, name: str, caught: list[int]) -> Run:
        """One run, its trace in a folder of its own until it is known to be whole."""
        command, is_warm = self._commands[name[0]], "warm" in name
        log, final = self.folder / f"{name}.log", self.folder / f"{name}.json.gz"
        with work_folder(self.folder) as work:
            out, started, clock = work / final.name, _now(), time.monotonic_ns()
            code, problem = execute(command, out, log, self._timeout, caught)
            took = time.monotonic_ns() - clock
            problem = problem or trace_problem(out)
            keep = not (problem or caught or is_warm)
            if keep:
                try:
                    os.replace(out, final)
                except OSError as error:
                    raise unwritable(self.folder, error) from error
        problem = "was interrupted" if caught else problem
        trace = final if keep else None
        argv = command.argv
        return Run(number, name, name[0], is_warm, argv, started, took, code, trace, log, problem)

    def _write(self, state: str) -> None:
        """The manifest as of now."""
        values = {
            "state": state,
            "traceq": version("traceq"),
            "started": self._started,
            "directory": str(Path.cwd()),
            "repeat": self._repeat,
            "warm": self._warm,
            "run_timeout": self._timeout,
            "commands": {side: command_dict(item) for side, item in self._commands.items()},
            "runs": [run_dict(run) for run in self.runs],
        }
        write_manifest(self.folder, values)

    def _failure(self, run: Run, total: int) -> CaptureError:
        command = self._commands[run.side]
        tail = [f"  | {line}" for line in last_lines(run.log)]
        kept = sum(item.trace is not None for item in self.runs)
        hint = f"Its output is in {run.log}" + (", which ends with:" if tail else " (none).")
        left = f"Captures kept in {self.folder}: {kept}. " if kept else ""
        step = f"{left}Try the command alone; then start again with --force, or in another folder."
        return CaptureError(
            f"run {run.number} of {total} ({run.name}, {printable(command.shown)}) {run.problem}",
            hint="\n".join([hint, *tail, *_advice(command, run), step]),
        )


def _advice(command: Command, run: Run) -> list[str]:
    """How a command that ran well, but left no trace, is told where to write it."""
    if run.exit_code != 0 or command.form is Form.CAPTURE or command.form is Form.PROGRAM:
        return []
    if command.form is Form.OUT:
        return [f"It has to write one trace to {OUT} before it ends."]
    return [
        f"Write {OUT} where the command takes the trace's path, or let it call traceq.capture() "
        f"without a path: it then takes ${OUT_VARIABLE}."
    ]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
