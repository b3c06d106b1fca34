"""What a comparison must know of the machine and the program: versions, GPUs, commit, command line.

Each fact is looked up once, before the window; one that cannot be had is None, never a failure.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

_PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "einops",
    "flash-linear-attention",
    "causal-conv1d",
    "sglang",
    "vllm",
    "numpy",
)
_PATIENCE = 5
"""Seconds that a helper program (git, nvidia-smi) may take."""


def machine() -> dict[str, Any]:
    """CPU and GPUs: names, memory in bytes, driver."""
    return {
        "cpu": {"name": _cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "gpus": _gpus(),
        "driver": _driver(),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str | None]:
    """Python, CUDA or ROCm, and the packages that decide what runs; None where absent."""
    return {
        "python": platform.python_version(),
        "traceq": version("traceq"),
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        **{name: version(name) for name in _PACKAGES},
    }


def version(package: str) -> str | None:
    """The installed version of a package; None where it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _gpus() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for kind in ("cuda", "xpu"):
        module = getattr(torch, kind, None)
        if module is None or not module.is_available():
            continue
        for index in range(module.device_count()):
            properties = module.get_device_properties(index)
            found.append({"name": properties.name, "memory": properties.total_memory})
    return found


def _driver() -> str | None:
    """The kernel driver's version: NVIDIA's, else AMD's."""
    for path in ("/proc/driver/nvidia/version", "/sys/module/amdgpu/version"):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if found := re.search(r"\b\d+\.\d+(?:\.\d+)*\b", text):
            return found[0]
    line = _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    return line.splitlines()[0].strip() if line else None


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit, branch and whether tracked files differ from it; None outside of a repository."""
    commit = _output(["git", "-C", str(folder), "rev-parse", "HEAD"])
    if not commit:
        return None
    changed = _output(["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"])
    branch = _output(["git", "-C", str(folder), "rev-parse", "--abbrev-ref", "HEAD"])
    return {
        "commit": commit.strip(),
        "branch": branch.strip() if branch else None,
        "dirty": None if changed is None else bool(changed.strip()),
    }


def _output(command: Sequence[str]) -> str | None:
    """What a helper program prints; None where it is absent, fails or takes too long."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def program_folder() -> Path:
    """Where the running program's main file lies; the working folder without one."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(main).resolve().parent if main else Path.cwd()


def rank() -> tuple[int, int] | None:
    """(rank, ranks in all) under torch.distributed or its launcher; None for a single process."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        own, size = distributed.get_rank(), distributed.get_world_size()
    else:
        own, size = (_number(os.environ.get(name, "")) for name in ("RANK", "WORLD_SIZE"))
    return (own, size) if size > 1 else None


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
