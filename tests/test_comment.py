"""One comment a key: made, changed, found among many; refusals told; the report never lost."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.forge import NUMBER, PROJECT, TOKEN, Forge, Refusal, serving
from traceq.cli import group
from traceq.errors import TraceqError, UsageError
from traceq.posting import Service, Target, find_target, post
from traceq.posting import api as api_module
from traceq.posting.api import PATIENCE, PostError
from traceq.posting.sticky import connect

REPORT = "**faster**\n\n| a | b |\n| --- | --- |\n| `x` | 1 |\n"
MARKER = "<!-- traceq report: gdn -->"


@pytest.fixture(params=[False, True], ids=["github", "gitlab"])
def forge(request: pytest.FixtureRequest) -> Iterator[Forge]:
    with serving(Forge(is_gitlab=request.param)) as served:
        yield served


@pytest.fixture
def github() -> Iterator[Forge]:
    with serving(Forge()) as served:
        yield served


def target_of(forge: Forge, token: str = TOKEN) -> Target:
    service = Service.GITLAB if forge.is_gitlab else Service.GITHUB
    return Target(service, forge.url, PROJECT, NUMBER, token)


def send(forge: Forge, text: str = REPORT, key: str = "gdn", token: str = TOKEN) -> str:
    """Post without a wait; what was done."""
    target = target_of(forge, token)
    api = connect(target)
    api.sleep = lambda seconds: None
    return post(target, text, key, api).deed


# One comment ----------------------------------------------------------------------------------


def test_two_runs_leave_one_comment(forge: Forge) -> None:
    assert send(forge) == "created"
    assert send(forge, "second") == "updated"
    assert forge.bodies == [f"second\n\n{MARKER}\n"]
    assert forge.tokens == {TOKEN}


def test_each_key_has_its_own(forge: Forge) -> None:
    send(forge, "one", "gdn")
    send(forge, "two", "gdn-2")
    assert send(forge, "three", "gdn") == "updated"
    assert [body.split("\n")[0] for body in forge.bodies] == ["three", "two"]


def test_it_is_found_among_many_pages(forge: Forge) -> None:
    for number in range(250):
        forge.add(f"talk {number}")
    send(forge)
    for number in range(120):
        forge.add(f"more talk {number}")
    assert send(forge, "second") == "updated"
    assert sum(MARKER in body for body in forge.bodies) == 1
    assert len([path for method, path in forge.asked if "page=" in path]) > 6


def test_comments_of_others_are_left_alone(forge: Forge) -> None:
    forge.add(f"a quotation\n\n{MARKER}", author="someone")
    forge.add(f"> quoted\n> {MARKER}\n\nand an answer")
    assert send(forge) == "created"
    assert send(forge, "second") == "updated"
    assert len(forge.bodies) == 3
    assert forge.bodies[0].startswith("a quotation")


def test_the_token_of_a_job_may_not_ask_for_its_name() -> None:
    with serving(Forge(user=None, author="github-actions[bot]")) as forge:
        forge.add(f"a quotation\n\n{MARKER}", author="someone")
        assert send(forge) == "created"
        assert send(forge, "second") == "updated"
        assert len(forge.bodies) == 2


def test_two_runs_at_once_leave_one_comment(forge: Forge) -> None:
    gate = threading.Barrier(2)  # both have looked before either makes one
    forge.before_made.append(lambda: gate.wait(timeout=10))
    deeds: list[str] = []
    threads = [
        threading.Thread(target=lambda text=text: deeds.append(send(forge, text)))  # type: ignore[misc]
        for text in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(deeds) == 2
    assert len(forge.bodies) == 1
    assert forge.bodies[0].split("\n")[0] in ("one", "two")


# Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "not valid"), (403, "may not write"), (404, "does not see it"), (422, "not take the")],
)
def test_refusals_are_told_with_the_next_step(forge: Forge, status: int, hint: str) -> None:
    forge.refusals.append(Refusal(status, {"message": f"no {TOKEN}"}, method="POST"))
    with pytest.raises(PostError, match=f"HTTP {status}: no \\*\\*\\*") as caught:
        send(forge)
    assert hint in str(caught.value.hint)
    assert caught.value.status == status


def test_a_forks_token_can_only_read() -> None:
    with serving(Forge(user=None, can_write=False)) as forge:
        with pytest.raises(PostError, match="not accessible by integration") as caught:
            send(forge)
        assert "fork" in str(caught.value.hint)
        assert sum(method == "POST" for method, _ in forge.asked) == 1


def test_a_wrong_token(forge: Forge) -> None:
    with pytest.raises(PostError, match="HTTP 401") as caught:
        send(forge, token="wrong-token")
    assert "wrong-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("refusal", "waits"),
    [
        (Refusal(429, None, {"retry_after": "7"}), [7.0]),
        (Refusal(403, {"message": "secondary rate limit"}, {"retry_after": "3"}), [3.0]),
        (Refusal(429), [60.0]),
        (Refusal(403, {"message": "You have exceeded a secondary rate limit"}), [60.0]),
        (Refusal(429, None, {"retry_after": "\xb2"}), [60.0]),
        (
            Refusal(403, None, {"x_ratelimit_remaining": "0", "x_ratelimit_reset": "12"}),
            [1.0],  # it has been reset by now
        ),
        (Refusal(502, None, {}, "GET"), [1.0]),
        (Refusal(0, method="GET", cut=True), [1.0]),
    ],
)
def test_what_passes_is_waited_for(github: Forge, refusal: Refusal, waits: list[float]) -> None:
    github.refusals.append(refusal)
    target, slept = target_of(github), []
    api = connect(target)
    api.sleep = slept.append
    assert post(target, REPORT, "gdn", api).deed == "created"
    assert slept == waits
    assert len(github.bodies) == 1


def test_what_a_run_that_was_cut_off_has_left_goes(forge: Forge) -> None:
    for text in ("old", "older"):
        forge.add(f"{text}\n\n{MARKER}")
    assert send(forge) == "updated"
    assert forge.bodies == [f"{REPORT.rstrip()}\n\n{MARKER}\n"]


def test_one_that_somebody_deletes_meanwhile_is_made_again(github: Forge) -> None:
    listed = [{"id": 99, "body": MARKER, "user": {"login": "octo-bot"}}]
    github.refusals.append(Refusal(200, {"login": "octo-bot"}, method="GET"))
    github.refusals.append(Refusal(200, listed, method="GET"))
    assert send(github) == "created"
    assert len(github.bodies) == 1


def test_a_list_that_lags_behind_leaves_one_comment(github: Forge) -> None:
    """The list does not have the comment that was just made, but that of another run."""
    other = github.add(f"the other\n\n{MARKER}")
    shown = [github.comments[other]]
    github.refusals.append(Refusal(200, {"login": "octo-bot"}, method="GET"))
    github.refusals.append(Refusal(200, [], method="GET"))
    github.refusals.append(Refusal(200, shown, method="GET"))
    assert send(github) == "updated"
    assert github.bodies == [f"{REPORT.rstrip()}\n\n{MARKER}\n"]


def test_pages_behind_another_name_are_read(github: Forge) -> None:
    """As where a proxy stands before the service: its links have the name that it knows."""
    for number in range(150):
        github.add(f"talk {number}")
    github.link_base = "http://inside.example:8080"
    assert send(github) == "created"
    assert send(github, "second") == "updated"
    assert sum(MARKER in body for body in github.bodies) == 1


def test_a_proxy_never_sees_what_stays_on_this_machine(
    github: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Forge()) as proxy:
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        assert send(github) == "created"
        assert not proxy.asked


@pytest.mark.parametrize("way", ["drip", "flood"])
def test_a_reply_without_end_is_given_up(
    github: Forge, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "TIMEOUT", 0.3)
    monkeypatch.setattr(api_module, "_MOST", 1 << 20)
    github.way = way
    with pytest.raises(PostError, match="in time" if way == "drip" else "more than 1 MiB"):
        send(github)


def test_nobody_waits_for_ever(github: Forge) -> None:
    github.refusals.append(Refusal(429, None, {"retry_after": str(int(PATIENCE) + 1)}))
    with pytest.raises(PostError, match="asks for a wait") as caught:
        send(github)
    assert caught.value.hint == "Run it again later."
    github.refusals.extend(Refusal(503, method="GET") for _ in range(9))
    with pytest.raises(PostError, match="HTTP 503"):
        send(github)


def test_a_comment_is_not_made_twice_where_the_reply_was_lost(github: Forge) -> None:
    for refusal in (Refusal(502, method="POST"), Refusal(0, method="POST", cut=True)):
        github.refusals.append(refusal)
        with pytest.raises(PostError):
            send(github)
    assert sum(method == "POST" for method, _ in github.asked) == 2
    assert send(github) == "created"


def test_redirects_and_links_elsewhere_are_not_followed(github: Forge) -> None:
    with serving(Forge()) as other:
        github.refusals.append(Refusal(301, None, {"location": f"{other.url}/user"}))
        with pytest.raises(PostError, match="HTTP 301"):
            send(github)
        link = f'<{other.url}/repos/octo/repo/issues/7/comments?page=2>; rel="next"'
        github.refusals.append(Refusal(200, {"login": "octo-bot"}, method="GET"))
        github.refusals.append(Refusal(200, [], {"link": link}, method="GET"))
        send(github)
        assert not other.asked


@pytest.mark.parametrize("body", ["<html>", 7, {"id": 1}])
def test_what_is_no_api(github: Forge, body: Any) -> None:
    github.refusals.append(Refusal(200, {"login": "octo-bot"}, method="GET"))
    github.refusals.append(Refusal(200, body, method="GET"))
    with pytest.raises(PostError, match="no list of comments"):
        send(github)


def test_nothing_listens() -> None:
    target = Target(Service.GITHUB, "http://127.0.0.1:9", PROJECT, NUMBER, TOKEN)
    api = connect(target)
    api.sleep = lambda seconds: None
    with pytest.raises(PostError, match="cannot be reached") as caught:
        post(target, REPORT, "gdn", api)
    assert TOKEN not in repr(caught.value) + repr(target) + repr(api)


def test_a_report_that_is_too_long_is_not_sent(github: Forge) -> None:
    with pytest.raises(UsageError, match="65,5"):
        send(github, "x" * 65_530)
    assert not github.asked


@pytest.mark.parametrize("key", ["", "a b", "a-->", "a--b", "x" * 65, "ü", "a\n"])
def test_keys_that_could_break_the_marker(github: Forge, key: str) -> None:
    with pytest.raises(UsageError, match="no key"):
        send(github, key=key)


# Where to -------------------------------------------------------------------------------------


def test_a_job_of_github_tells_all(tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    variables = {
        "GITHUB_REPOSITORY": "octo/repo",
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_TOKEN": TOKEN,
        "GITHUB_API_URL": "https://ghe.example/api/v3/",
    }
    for data in ({"number": 12}, {"pull_request": {"number": 12}}, {"issue": {"number": 12}}):
        event.write_text(json.dumps(data), encoding="utf-8")
        found = find_target(variables)
        assert (found.name, found.base) == ("octo/repo#12", "https://ghe.example/api/v3")
    for text in ("", "[]", '{"number": "12; rm"}', '{"number": true}', '{"number": -1}'):
        event.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match="not known on which request"):
            find_target(variables)
    assert find_target(variables, number=3).name == "octo/repo#3"


def test_a_job_of_gitlab_tells_all() -> None:
    variables = {
        "GITLAB_CI": "true",
        "CI_PROJECT_ID": "55",
        "CI_MERGE_REQUEST_IID": "4",
        "CI_API_V4_URL": "https://gitlab.example/api/v4",
        "GITLAB_TOKEN": TOKEN,
    }
    assert find_target(variables).name == "55!4"
    of_fork = variables | {"CI_MERGE_REQUEST_PROJECT_ID": "9"}
    assert find_target(of_fork).name == "9!4"
    with pytest.raises(UsageError, match="not known on which request"):
        find_target(variables | {"CI_MERGE_REQUEST_IID": "²"})
    assert find_target(variables, service=Service.GITLAB, project="a/b/c").project == "a/b/c"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"GITHUB_TOKEN": ""}, "no token to post with: GITHUB_TOKEN"),
        ({"GITHUB_TOKEN": "a\nb"}, "is no token"),
        ({"GITHUB_REPOSITORY": ""}, "GITHUB_REPOSITORY is not set"),
        *(
            ({"GITHUB_REPOSITORY": text}, "no repository")
            for text in ("../../x", "repo", "a/b/c", "a/..", "./b", "a/b/")
        ),
        ({"GITHUB_API_URL": "http://["}, "cannot be used"),
        ({"GITHUB_API_URL": "https://h:abc"}, "cannot be used"),
        ({"GITHUB_API_URL": "https://api.github.com?x=1"}, "cannot be used"),
        ({"GITHUB_REPOSITORY": "a b"}, "no repository"),
        ({"GITHUB_API_URL": "http://example.org"}, "plain text"),
        ({"GITHUB_API_URL": "ftp://example.org"}, "cannot be used"),
        ({"GITHUB_API_URL": "https://user:secret@example.org"}, "cannot be used"),
    ],
)
def test_what_is_not_known_is_told(change: dict[str, str], message: str) -> None:
    variables = {"GITHUB_REPOSITORY": "octo/repo", "GITHUB_TOKEN": TOKEN} | change
    with pytest.raises(UsageError, match=message) as caught:
        find_target(variables, number=1)
    assert caught.value.hint
    assert "secret" not in str(caught.value)


# The command ----------------------------------------------------------------------------------


def run(forge: Forge, *words: str, text: str = REPORT, **variables: str) -> Result:
    environment = {
        "GITHUB_REPOSITORY": PROJECT,
        "GITHUB_API_URL": forge.url,
        "GITHUB_TOKEN": TOKEN,
        "GITHUB_EVENT_PATH": "",
        "GITHUB_STEP_SUMMARY": "",
        "NO_PROXY": "127.0.0.1",
    }
    return CliRunner(env=environment | variables).invoke(
        group, ["comment", "--pr", str(NUMBER), "--key", "gdn", *words], input=text
    )


def test_the_command_posts_and_prints_where(github: Forge, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    done = run(github, GITHUB_STEP_SUMMARY=str(summary))
    assert (done.exit_code, done.stdout) == (0, f"{github.url}/c/101\n")
    assert done.stderr == f"traceq: created the comment on {PROJECT}#{NUMBER}\n"
    file = tmp_path / "report.md"
    file.write_text("second", encoding="utf-8")
    assert run(github, str(file), GITHUB_STEP_SUMMARY=str(summary)).exit_code == 0
    assert github.bodies == [f"second\n\n{MARKER}\n"]
    assert summary.read_text(encoding="utf-8") == f"{REPORT}\nsecond\n\n"


def test_the_report_is_printed_where_it_cannot_be_posted(github: Forge, tmp_path: Path) -> None:
    github.can_write = False
    summary = tmp_path / "summary.md"
    done = run(github, GITHUB_STEP_SUMMARY=str(summary))
    assert isinstance(done.exception, TraceqError)
    assert done.stdout == REPORT
    assert summary.read_text(encoding="utf-8").startswith(REPORT)
    for words, variables in ((["--repo", "a b"], {}), ([], {"GITHUB_TOKEN": ""})):
        assert run(github, *words, **variables).stdout == REPORT


def test_a_dry_run_asks_nobody(github: Forge) -> None:
    done = run(github, "--dry-run", GITHUB_TOKEN="")
    assert done.exit_code == 0
    assert done.stdout == f"{REPORT}\n{MARKER}\n"
    assert "nothing was" in done.stderr
    assert not github.asked


def test_an_empty_report_is_an_error(github: Forge) -> None:
    done = run(github, text=" \n")
    assert isinstance(done.exception, TraceqError)
    assert "empty" in str(done.exception)
    assert not github.asked


def test_the_token_is_nowhere(github: Forge, tmp_path: Path) -> None:
    github.refusals.append(Refusal(403, {"message": f"bad {TOKEN} {os.sep}"}, method="POST"))
    done = run(github)
    trail = io.StringIO()
    trail.write(done.output + str(done.exception) + repr(done.exception))
    assert TOKEN not in trail.getvalue()
