"""Says which extra to install where a package that only captures need is absent."""

from __future__ import annotations

import importlib.util

from traceq.errors import CaptureError


def require(*packages: str, extra: str) -> None:
    """Raise CaptureError if one of ``packages`` cannot be imported; nothing is imported here."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise CaptureError(
                f"capturing needs {package}, which is not installed here",
                hint=f"From a checkout of traceq: pip install '.[{extra}]' (or pip install "
                f"{package}, where you have a build of your own to choose). Reading traces does "
                "not need it.",
            )
