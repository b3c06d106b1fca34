"""Keeps one comment for each key: found by a marker that does not show, changed, else made.

A comment is ours if its last line is the marker and its author is who the token belongs to, as
far as the service tells. Two runs at once may both make one: each looks again afterwards, writes
to the oldest and deletes its own. Others that are ours, which a run that was cut off has left, go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from traceq.errors import UsageError
from traceq.posting.api import Api, PostError, Reply
from traceq.posting.target import Service, Target, comment_path, comments_path

LIMIT = {Service.GITHUB: 65_536, Service.GITLAB: 1_000_000}
"""Longest comment in characters."""

ACTIONS_BOT = "github-actions[bot]"
"""Who writes with the token of a GitHub Actions job, which may not ask for its own name."""

_KEY = re.compile(r"[\w.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of a report: ``deed`` is created or updated."""

    deed: str
    url: str


def check_key(key: str) -> str:
    """A key as it may stand in the marker. Raises UsageError."""
    if not _KEY.fullmatch(key) or "--" in key:
        raise UsageError(
            f"{key!r} is no key",
            hint="Use up to 64 letters, digits, dots, underlines and single hyphens.",
        )
    return key


def with_marker(text: str, key: str) -> str:
    """A report with the marker of its key as its last line, which Markdown does not show."""
    return f"{text.rstrip()}\n\n{_marker(key)}\n"


def _marker(key: str) -> str:
    return f"<!-- traceq report: {key} -->"


def post(target: Target, text: str, key: str, api: Api | None = None) -> Posted:
    """Make the comment of a key, or change it. Raises PostError, UsageError."""
    body = body_of(target, text, key)
    api = api or connect(target)
    author = _author(api, target)
    if (posted := _update(api, target, key, author, body)) is not None:
        return posted
    made = api.request("POST", comments_path(target), {"body": body})
    return _settled(api, target, key, body, made)


def body_of(target: Target, text: str, key: str) -> str:
    """The comment as it is sent. Raises UsageError where it is too long."""
    body = with_marker(text, check_key(key))
    if len(body) > LIMIT[target.service]:
        raise UsageError(
            f"the report has {len(body):,} characters, and a comment at most "
            f"{LIMIT[target.service]:,}",
            hint="'traceq diff --format markdown' makes one that fits.",
        )
    return body


def _update(
    api: Api, target: Target, key: str, author: str | None, body: str, own: int | None = None
) -> Posted | None:
    """Write to the oldest comment, and delete the others; None: there is none, or it is ``own``.

    One that somebody deletes after it was listed is passed over.
    """
    ours = {*_ours(api, target, key, author), *([own] if own is not None else [])}
    for oldest in sorted(ours):
        if oldest == own:
            break
        try:
            written = _write(api, target, oldest, body)
        except PostError as error:
            if error.status != 404:
                raise
            continue
        for other in sorted(ours - {oldest}):
            _delete(api, target, other)
        return Posted("updated", _url(api, written))
    if own is not None:
        for other in sorted(ours - {own}):
            _delete(api, target, other)
    return None


def connect(target: Target) -> Api:
    """The API of a target's service."""
    if target.service is Service.GITHUB:
        headers = {
            "authorization": f"Bearer {target.token}",
            "accept": "application/vnd.github+json",
            "x-github-api-version": "2022-11-28",
        }
        return Api(target.base, headers, target.token, _GITHUB_HINTS)
    return Api(target.base, {"private-token": target.token}, target.token, _GITLAB_HINTS)


_GITHUB_HINTS = {
    401: "The token is not valid: see that the step has env: GITHUB_TOKEN: ${{ github.token }}.",
    403: "The token may not write comments. Give the job 'permissions: pull-requests: write'; on a "
    "pull request from a fork the token can only read: README, 'Forks', has a recipe.",
    404: "There is no such pull request, or the token does not see it: check --repo and --pr.",
    422: "The service does not take the comment: is the pull request locked?",
    429: "Too many requests: run it again later.",
}
_GITLAB_HINTS = {
    401: "The token is not valid: use a project access token with the scope 'api'; a job's own "
    "token may not write notes.",
    403: "The token may not write notes: it needs the scope 'api' and the role of a reporter.",
    404: "There is no such merge request, or the token does not see it: check --repo and --pr.",
    422: "The service does not take the note: is it too long?",
    429: "Too many requests: run it again later.",
}


def _author(api: Api, target: Target) -> str | None:
    """Who the token belongs to; None where the service does not tell."""
    key = "login" if target.service is Service.GITHUB else "username"
    try:
        data = api.request("GET", "/user").data
    except PostError as error:
        if error.status not in (403, 404):
            raise
        return ACTIONS_BOT if target.service is Service.GITHUB else None
    return str(data[key]) if isinstance(data, dict) and key in data else None


def _ours(api: Api, target: Target, key: str, author: str | None) -> list[int]:
    """The numbers of the comments with the marker, the oldest first."""
    found = []
    for comment in api.pages(f"{comments_path(target)}?per_page=100"):
        if isinstance(comment, dict) and _is_ours(comment, key, author):
            found.append(int(comment["id"]))
    return sorted(found)


def _is_ours(comment: dict[str, Any], key: str, author: str | None) -> bool:
    body, user = comment.get("body"), comment.get("user") or comment.get("author") or {}
    name = user.get("login") or user.get("username") if isinstance(user, dict) else None
    number = comment.get("id")
    if not isinstance(body, str) or not isinstance(number, int) or number <= 0:
        return False
    return body.rstrip().endswith(_marker(key)) and (author is None or name == author)


def _write(api: Api, target: Target, comment: int, body: str) -> Reply:
    method = "PATCH" if target.service is Service.GITHUB else "PUT"
    return api.request(method, comment_path(target, comment), {"body": body})


def _settled(api: Api, target: Target, key: str, body: str, made: Reply) -> Posted:
    """After a comment was made: where another run made one at the same time, one goes."""
    created = Posted("created", _url(api, made))
    own = made.data.get("id") if isinstance(made.data, dict) else None
    if not isinstance(own, int):
        return created
    user = made.data.get("user") or made.data.get("author")
    author = user.get("login") or user.get("username") if isinstance(user, dict) else None
    return _update(api, target, key, author, body, own) or created


def _delete(api: Api, target: Target, comment: int) -> None:
    try:
        api.request("DELETE", comment_path(target, comment))
    except PostError as error:
        if error.status != 404:  # the other run was first
            raise


def _url(api: Api, reply: Reply) -> str:
    data = reply.data if isinstance(reply.data, dict) else {}
    return str(data.get("html_url") or data.get("url") or "").replace(api.token, "***")
