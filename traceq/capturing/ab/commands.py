"""What a command line means: how it is run, and how it comes to write its trace where it should."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import takewhile
from pathlib import Path

from traceq.capturing.record import without_secrets
from traceq.errors import UsageError

OUT = "{out}"
"""Stands in a command where the path of its trace goes."""

_SHELL_WORDS = frozenset(("|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1", "&>"))
_PROGRAMS = ("-m", "-c")
"""Options of Python after which the program comes."""


class Form(Enum):
    """How a command comes to write its trace where it should."""

    OUT = "has {out}"
    CAPTURE = "traceq capture"
    PROGRAM = "Python program"
    AS_IS = "as it is"


@dataclass(frozen=True, slots=True)
class ProgramOptions:
    """What ``traceq capture run`` is told for Python programs; None and () leave its defaults."""

    under: tuple[str, ...] = ()
    stack: str | None = None
    warmup: int | None = None
    steps: int | None = None
    start: str | None = None

    @property
    def words(self) -> list[str]:
        """As words of the command line."""
        words = [word for pattern in self.under for word in ("--under", pattern)]
        for name, value in self._single.items():
            words += [name, str(value)] if value is not None else []
        return words

    @property
    def only_for_programs(self) -> list[str]:
        """The options given that mean nothing to other commands: --under limits the diff too."""
        return [name for name, value in self._single.items() if value is not None]

    @property
    def _single(self) -> dict[str, str | int | None]:
        names = ("--stack", "--warmup", "--steps", "--from")
        return dict(zip(names, (self.stack, self.warmup, self.steps, self.start), strict=True))


@dataclass(frozen=True, slots=True)
class Command:
    """One side: ``argv`` has ``{out}`` where the path of the trace goes."""

    text: str
    form: Form
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """As it was typed, less what looks like a secret."""
        words = shlex.split(self.text)
        safe = without_secrets(words)
        return self.text if safe == words else shlex.join(safe)

    def argv_for(self, path: Path) -> list[str]:
        """The words to run, with the path of the trace."""
        return [word.replace(OUT, str(path)) for word in self.argv]


def parse_command(text: str, options: ProgramOptions, *, as_is: bool = False) -> Command:
    """Read a command line, by the quoting of a shell but without one.

    Words ``NAME=VALUE`` before the command go into its environment. ``{out}`` is where the path of
    the trace goes; ``traceq capture …`` gets it by ``-o``; a Python program is put under
    ``traceq capture run``, unless ``as_is``; any other command finds it in ``TRACEQ_OUT``.

    >>> parse_command("FAST=1 ./bench --trace {out}", ProgramOptions()).argv
    ('./bench', '--trace', '{out}')
    """
    environment, words = _split(text)
    if words[0] == "traceq":  # the one that runs, whatever PATH finds
        words = [sys.executable, "-m", *words]
    if any(OUT in word for word in words):
        return Command(text, Form.OUT, tuple(words), environment)
    place = _capture_word(words)
    if place:
        return Command(text, Form.CAPTURE, tuple(_with_output(words, place)), environment)
    program = None if as_is else _python_program(words)
    if program is None:
        return Command(text, Form.AS_IS, tuple(words), environment)
    interpreter, script = program
    run = ["-m", "traceq", "capture", "run", "-o", OUT, *options.words, "--"]
    return Command(text, Form.PROGRAM, (*interpreter, *run, *script), environment)


def parse_side(side: str, text: str, options: ProgramOptions, as_is: bool) -> Command:
    """A side's command, of which it is known that it can be started."""
    try:
        command = parse_command(text, options, as_is=as_is)
        _check_start(command)
    except UsageError as error:
        raise UsageError(f"--{side}: {error.message}", hint=error.hint) from error
    return command


def _split(text: str) -> tuple[dict[str, str], list[str]]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no command line: {error}", hint="Close it.") from error
    assignments = list(takewhile(re.compile(r"[A-Za-z_]\w*=").match, words))
    words = words[len(assignments) :]
    if not words:
        raise UsageError(f"{text!r} holds no command", hint="Write it as --a 'python bench.py'.")
    shell = next((word for word in words if word in _SHELL_WORDS), None)
    if shell is not None:
        raise UsageError(
            f"{shell!r} in {text!r}: commands are run without a shell",
            hint="Put it into a script that takes {out}, or write bash -c '… {out}'.",
        )
    pairs = (word.partition("=") for word in assignments)
    return {name: value for name, _, value in pairs}, words


def _capture_word(words: list[str]) -> int:
    """The place of the word ``capture`` in a command of traceq's own; 0 where it is none."""
    if _is_python(words[0]) and words[1:4] == ["-m", "traceq", "capture"]:
        words[0] = _interpreter(words[0])
        return 3
    return int(Path(words[0]).name == "traceq" and words[1:2] == ["capture"])


def _with_output(words: list[str], place: int) -> list[str]:
    """``-o`` comes right behind the subcommand: at the end it could be a program's."""
    kind = (words[place + 1 : place + 2] or [""])[0]
    if kind not in ("run", "gdn"):
        raise UsageError(
            f"'traceq capture {kind}' does not write one trace",
            hint="Commands of traceq that ab runs are 'traceq capture run' and 'capture gdn'.",
        )
    own = takewhile(lambda word: word not in ("--", "-m") and word[-3:] != ".py", words[place:])
    if any(word.startswith(("-o", "--output")) for word in own):
        raise UsageError("-o is set for each run", hint="Leave it out of the command.")
    return [*words[: place + 2], "-o", OUT, *words[place + 2 :]]


def _is_python(word: str) -> bool:
    return re.fullmatch(r"python(\d+(\.\d+)?)?(\.exe)?", Path(word).name) is not None


def _interpreter(word: str) -> str:
    """A bare ``python`` means the one that runs; one with a path means that one."""
    return word if os.path.dirname(word) else sys.executable


def _python_program(words: list[str]) -> tuple[list[str], list[str]] | None:
    """The interpreter with its options, and the program with its arguments."""
    if words[0] == "-m" or words[0].endswith(".py"):
        return [sys.executable], words
    if not _is_python(words[0]):
        return None
    end = 1
    while words[end : end + 1] and words[end].startswith("-") and words[end][:2] not in _PROGRAMS:
        end += 2 if words[end] in ("-X", "-W") else 1
    program = words[end:]
    if not program or program[0][:2] == "-c":
        raise UsageError(
            f"{shlex.join(words)!r} names no file and no module to run under the profiler",
            hint="Put the code into a file, or write its trace's path as {out}.",
        )
    if program[0].startswith("-m") and program[0] != "-m":
        program = ["-m", program[0][2:], *program[1:]]
    return [_interpreter(words[0]), *words[1:end]], program


def _check_start(command: Command) -> None:
    word = command.argv[0]
    if shutil.which(word, path=command.environment.get("PATH")) is None:
        raise UsageError(
            f"{word}: command not found",
            hint="Commands are run without a shell: no aliases, no functions. Check the path.",
        )
    if command.form is Form.PROGRAM:
        script = command.argv[command.argv.index("--") + 1]
        if script != "-m" and not Path(script).exists():
            raise UsageError(f"{script}: no such file", hint="Check the path of the program.")


def check_options(commands: Mapping[str, Command], options: ProgramOptions) -> None:
    """An option that would reach one side alone, or none, would make captures that differ by it."""
    names = options.only_for_programs
    for side, command in commands.items():
        if names and command.form is not Form.PROGRAM:
            raise UsageError(
                f"{names[0]} is for Python programs that ab puts under 'traceq capture run'; "
                f"--{side} is run as it stands",
                hint=f"Write {names[0]} into the command itself, if it takes it.",
            )
