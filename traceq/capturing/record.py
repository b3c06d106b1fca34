"""What the records of all kinds of capture share; README documents them.

The rest is for those who make them: ``session`` and ``server``. No torch here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

RECORD_KEY = "traceq"
"""Top-level key of the trace's JSON under which the record is kept."""

RECORD_VERSION = 1
"""Raised when a key changes its meaning or goes away."""

OUT_VARIABLE = "TRACEQ_OUT"
"""Environment variable with the file for a capture that is given none."""

_USER = re.compile(r"://[^/@\s]+@")
"""Name and password in an address."""

_WORDS = (
    r"(?:(?:api|access|private|auth|openai|wandb|x)[-_]?)?key|secrets?|pass(?:w(?:or)?d|phrase)?|pwd"
    r"|credentials?|auth(?:orization)?|bearer|jwt|cookies?|token"
)
_OPTION = re.compile(rf"(?i)-{{1,2}}(?:[a-z0-9_-]*[-_])?(?:{_WORDS})")
"""An option whose value, the next word, is nobody's business."""

_PAIR = re.compile(rf"(?i)((?:^|[^a-z])(?:{_WORDS})[\"']?\s*[=:]\s*[\"']?)(?!//).+")
"""A name with its value in one word: an option, a variable, a header, a part of JSON."""


def command_line() -> list[str]:
    """The program's argv: without secrets, and traceq itself by its name, wherever it lies."""
    argv = without_secrets(sys.argv)
    program = Path(argv[0] if argv else "")
    if program.name == "traceq" or program.parts[-2:] == ("traceq", "__main__.py"):
        argv[0] = "traceq"
    return argv


def without_secrets(argv: Sequence[str]) -> list[str]:
    """A command line without what looks like a secret: a guess, by the names of options.

    >>> without_secrets(["x.py", "--api-key", "sk-1", "--token=abc", "--max-tokens", "3"])
    ['x.py', '--api-key', '***', '--token=***', '--max-tokens', '3']
    """
    kept: list[str] = []
    hide = False
    for word in argv:
        if hide and not word.startswith("-"):
            kept.append("***")
        else:
            kept.append(_PAIR.sub(r"\1***", _USER.sub("://***@", word)))
        hide = bool(_OPTION.fullmatch(word))
    return kept
