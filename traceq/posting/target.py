"""Where a report goes: which service, repository and request, from options or a CI's variables.

Facts of the environment in, a target out; nothing is asked of any server here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from traceq.errors import UsageError


class Service(StrEnum):
    """Whose API it is."""

    GITHUB = "github"
    GITLAB = "gitlab"


@dataclass(frozen=True, slots=True)
class Target:
    """A pull request, or a merge request, and what it takes to write there."""

    service: Service
    base: str
    project: str
    number: int
    token: str = field(repr=False)

    @property
    def name(self) -> str:
        """As people write it: owner/name#12, group/name!12."""
        return f"{self.project}{'#' if self.service is Service.GITHUB else '!'}{self.number}"


@dataclass(frozen=True, slots=True)
class _Variables:
    """The variables of a CI that tell the same thing for one service.

    Of ``projects`` the first that is set counts: a merge request from a fork is one of the project
    that it is to go into, while the job runs in the fork.
    """

    base: str
    default_base: str
    projects: tuple[str, ...]
    token: str


_NAMES = {
    Service.GITHUB: _Variables(
        "GITHUB_API_URL", "https://api.github.com", ("GITHUB_REPOSITORY",), "GITHUB_TOKEN"
    ),
    Service.GITLAB: _Variables(
        "CI_API_V4_URL",
        "https://gitlab.com/api/v4",
        ("CI_MERGE_REQUEST_PROJECT_ID", "CI_PROJECT_ID"),
        "GITLAB_TOKEN",
    ),
}
_PART = r"(?!\.{1,2}(?:/|\Z))[\w.-]+"  # no way up
_PROJECTS = {
    Service.GITHUB: re.compile(f"{_PART}/{_PART}", re.ASCII),
    Service.GITLAB: re.compile(f"{_PART}(?:/{_PART})*", re.ASCII),
}
_LOCAL = ("localhost", "127.0.0.1", "::1")


def find_target(
    environment: Mapping[str, str],
    *,
    service: Service | None = None,
    project: str | None = None,
    number: int | None = None,
    base: str | None = None,
    token_variable: str | None = None,
    needs_token: bool = True,
) -> Target:
    """The target that options name; what they leave open, a CI's variables tell.

    Raises UsageError with the option to give where something is not known.
    """
    chosen = service or _service(environment)
    names = _NAMES[chosen]
    told = (environment[name] for name in names.projects if environment.get(name))
    project = project or next(told, None)
    if not project:
        raise UsageError(
            f"it is not known to which repository to post: {names.projects[-1]} is not set",
            hint="Name it with --repo (OWNER/NAME; of GitLab its path or number).",
        )
    if not _PROJECTS[chosen].fullmatch(project):
        raise UsageError(f"{project!r} is no repository", hint="Write it as OWNER/NAME.")
    variable = token_variable or names.token
    token = environment.get(variable, "")
    if needs_token:
        _check_token(token, variable)
    return Target(
        service=chosen,
        base=_checked_base(base or environment.get(names.base) or names.default_base),
        project=project,
        number=number or _number(chosen, environment),
        token=token,
    )


def _service(environment: Mapping[str, str]) -> Service:
    return Service.GITLAB if "GITLAB_CI" in environment else Service.GITHUB


def _check_token(token: str, variable: str) -> None:
    if not token:
        raise UsageError(
            f"there is no token to post with: {variable} is not set",
            hint="Give the step the token (env: GITHUB_TOKEN: ${{ github.token }}), or name the "
            "variable that has it with --token-variable; --dry-run posts nothing.",
        )
    if not re.fullmatch(r"[!-~]+", token):
        raise UsageError(
            f"what is in {variable} is no token: no HTTP header can carry it",
            hint="See that it has no space or line break in it.",
        )


def _checked_base(text: str) -> str:
    """The address of an API; a token goes over TLS, or stays on this machine."""
    try:
        parts = urlsplit(text)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            "the address of the API cannot be used", hint="Write it as https://api.github.com."
        )
    if parts.scheme == "http" and parts.hostname not in _LOCAL:
        raise UsageError(
            f"a token would go to {parts.hostname} in plain text", hint="Use https:// instead."
        )
    return text.rstrip("/")


def _number(service: Service, environment: Mapping[str, str]) -> int:
    if service is Service.GITLAB:
        text = environment.get("CI_MERGE_REQUEST_IID", "")
        if re.fullmatch(r"[0-9]{1,12}", text):
            return int(text)
    elif (found := _number_of_event(environment.get("GITHUB_EVENT_PATH"))) is not None:
        return found
    raise UsageError(
        "it is not known on which request to comment: this is no job of one",
        hint="Name it with --pr NUMBER.",
    )


def _number_of_event(path: str | None) -> int | None:
    """The number of the pull request that an event of GitHub Actions is about."""
    if not path:
        return None
    try:
        event: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(event, dict):
        return None
    for key in ("pull_request", "issue"):
        if isinstance(event.get(key), dict) and _is_number(event[key].get("number")):
            return int(event[key]["number"])
    return int(event["number"]) if _is_number(event.get("number")) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def comments_path(target: Target) -> str:
    """Where the comments of the target are listed and made."""
    if target.service is Service.GITHUB:
        return f"/repos/{target.project}/issues/{target.number}/comments"
    project = quote(target.project, safe="")
    return f"/projects/{project}/merge_requests/{target.number}/notes"


def comment_path(target: Target, comment: int) -> str:
    """Where one comment is changed and deleted."""
    if target.service is Service.GITHUB:
        return f"/repos/{target.project}/issues/comments/{comment}"
    return f"{comments_path(target)}/{comment}"
