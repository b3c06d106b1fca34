"""One run of a command: a process in a group of its own, and the end of all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traceq.capturing.ab.commands import Command
from traceq.capturing.record import OUT_VARIABLE
from traceq.units import duration

_GRACE = 10.0
"""Seconds that a command gets to end by itself before it is killed."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a side. ``duration`` in ns; ``problem`` is empty where all went well.

    ``trace`` is None for a throw-away run and for one that failed.
    """

    number: int
    name: str
    side: str
    is_warm: bool
    argv: tuple[str, ...]
    started: str
    duration: int
    exit_code: int | None
    trace: Path | None
    log: Path
    problem: str = ""


def execute(
    command: Command, out: Path, log: Path, timeout: float | None, caught: list[int]
) -> tuple[int | None, str]:
    """Run a command to its end, or end it: its exit code, and what went wrong."""
    try:
        with log.open("wb") as file:
            process = subprocess.Popen(
                command.argv_for(out),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **command.environment, OUT_VARIABLE: str(out)},
                start_new_session=True,  # so that all that it starts can be ended with it
            )
    except OSError as error:
        return None, f"could not be started: {error.strerror or error}"
    try:
        ended = _wait(process, timeout, caught)
    finally:
        _end(process, caught)
    if not ended and not caught:
        return process.returncode, f"took longer than {duration(int((timeout or 0) * 1e9))}"
    return process.returncode, _exit_problem(process.returncode)


def _wait(process: subprocess.Popen[bytes], timeout: float | None, caught: list[int]) -> bool:
    """Wait for the end of a command; False if its time was up, or a signal came."""
    deadline = time.monotonic() + timeout if timeout is not None else float("inf")
    while not caught and (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(min(left, 0.2))
            return True
    return False


def _end(process: subprocess.Popen[bytes], caught: list[int]) -> None:
    """End what still runs of a command and of what it started; a second Ctrl-C does so at once.

    After a good end too: what is left of one run would take its time from the next.
    """
    before, deadline = len(caught), time.monotonic() + _GRACE
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
    while process.poll() is None and time.monotonic() < deadline and len(caught) == before:
        time.sleep(0.02)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS, where all are gone
        os.killpg(process.pid, number)


def _exit_problem(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}" if code else ""
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Signals that ask to stop are only noted: raised anywhere, they could lose a new process."""
    caught: list[int] = []
    old: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                continue  # nohup
            old[number] = signal.signal(number, lambda number, _frame: caught.append(number))
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
