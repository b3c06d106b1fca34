"""``python -m tests``: lint, types, import rules and tests, in that order; stops at a failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports",),
    # A file at a time to each core: what a file's tests share is made once.
    ("pytest", "-n", "auto", "--dist", "loadfile", *sys.argv[1:]),
)


def main() -> int:
    """Run the checks from the checkout's root, with the tools beside this interpreter."""
    root, tools = Path(__file__).parent.parent, Path(sys.executable).parent
    for name, *arguments in CHECKS:
        print("+", name, *arguments, flush=True)
        code = subprocess.run([tools / name, *arguments], cwd=root, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
