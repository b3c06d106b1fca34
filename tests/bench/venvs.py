"""Virtual environments for other people's tools: made on demand, kept, never this project's own.

Each is a folder named after the tool and what is installed in it, so that another version is
another folder; it counts as made once its tool has been imported there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

_DONE = "made.json"
_REASON_LENGTH = 300
_VERSIONS = (
    "import importlib.metadata as m, json, sys; "
    "print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"
)


@dataclass(frozen=True)
class Installed:
    """Where a tool lives: its Python, or why there is none; versions by the package's name."""

    python: str | None
    reason: str = ""
    versions: dict[str, str] = field(default_factory=dict)


def default_folder() -> Path:
    """Where environments are kept unless a folder is named."""
    return Path(platformdirs.user_cache_dir("traceq")) / "bench-venvs"


def install(
    folder: Path, name: str, requires: Sequence[str], module: str, packages: Sequence[str]
) -> Installed:
    """The environment of a tool: the one there is, else a new one. Never raises for the tool."""
    key = hashlib.sha256("\n".join([sys.version, *requires]).encode()).hexdigest()[:12]
    place = folder / f"{name.lower()}-{key}"
    done, python = place / _DONE, str(place / "bin" / "python")
    if done.exists():
        return Installed(python, versions=json.loads(done.read_text()))
    shutil.rmtree(place, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        [python, "-m", "pip", "install", "--quiet", *requires],
        [python, "-c", f"import {module}"],
        [python, "-c", _VERSIONS, *packages],
    ):
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            shutil.rmtree(place, ignore_errors=True)
            return Installed(None, _reason(ran.stderr or ran.stdout))
    done.write_text(ran.stdout)
    return Installed(python, versions=json.loads(ran.stdout))


def _reason(text: str) -> str:
    """The line that says it: git's or pip's own error before what pip makes of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for mark in ("fatal:", "ERROR:", "Error"):
        if found := [line for line in lines if mark in line]:
            return found[0][:_REASON_LENGTH]
    return (lines[-1] if lines else "no reason was given")[:_REASON_LENGTH]
