"""What a capture tells of the code and the machine it ran on, as labels of its run.

The record of ``traceq capture`` comes first, then the variables of GitHub Actions or GitLab CI,
which tell of the job that records. What a user gives goes over both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from traceq.errors import UsageError
from traceq.info import TraceInfo
from traceq.units import printable

_OF_JOB = {
    "commit": ("GITHUB_SHA", "CI_COMMIT_SHA"),
    "branch": ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME"),
}


def known_labels(infos: Sequence[TraceInfo | None], job: Mapping[str, str]) -> dict[str, str]:
    """Labels on which all captures agree; ``job`` are the environment's variables."""
    found = [_of_capture(info) for info in infos if info is not None]
    agreed = {
        key: value
        for key, value in (found[0] if found else {}).items()
        if all(item.get(key) == value for item in found)
    }
    if any("commit" in item for item in found):  # the job may be another checkout's
        return agreed
    for key, names in _OF_JOB.items():
        value = next((job[name] for name in names if job.get(name)), None)
        agreed |= {key: value} if value else {}
    return agreed


def _of_capture(info: TraceInfo) -> dict[str, str]:
    git = info.capture.get("git")
    told = {key: git.get(key) if isinstance(git, Mapping) else None for key in ("commit", "branch")}
    told |= {"gpu": ", ".join(dict.fromkeys(info.gpus)) or None}
    versions = info.capture.get("versions")
    told |= {"torch": versions.get("torch") if isinstance(versions, Mapping) else None}
    found = {key: value for key, value in told.items() if isinstance(value, str) and value}
    if isinstance(git, Mapping) and git.get("dirty") and "commit" in found:
        found["commit"] += "+changes"
    return found


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """``KEY=VALUE`` texts as labels. Raises UsageError.

    >>> parse_labels(["commit=1a2b3c", "note=a=b"])
    {'commit': '1a2b3c', 'note': 'a=b'}
    """
    found = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key.strip() or not value.strip():
            raise UsageError(f"{text!r} is no label", hint="Give KEY=VALUE, as branch=main.")
        if not (key + value).isprintable():
            raise UsageError(
                f"{printable(text)!r} is no label", hint="Use characters that can be shown."
            )
        found[key.strip()] = value.strip()
    return found
