"""``traceq comment``: a report as the one comment of its key on a pull request."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from traceq.cli.output import write
from traceq.errors import TraceReadError
from traceq.posting import Service, body_of, check_key, find_target, post
from traceq.units import printable

SUMMARY_LIMIT = 1_000_000
"""Bytes: GitHub drops a step's summary of more than 1 MiB."""


@click.command(
    "comment",
    epilog="Example: traceq diff BEFORE AFTER --format markdown | traceq comment --key gdn",
)
@click.argument("report", default="-", metavar="[REPORT]")
@click.option(
    "--key", default="traceq", show_default=True, help="Reports of other keys are kept apart."
)
@click.option(
    "--pr", "number", type=click.IntRange(1), help="Number of the request; else the CI job's."
)
@click.option("--repo", metavar="OWNER/NAME", help="The repository; else the CI job's.")
@click.option(
    "--service",
    type=click.Choice([item.value for item in Service]),
    help="Whose API; else that of the CI job's.",
)
@click.option("--api-url", metavar="URL", help="Address of the API; else the CI job's.")
@click.option(
    "--token-variable",
    metavar="NAME",
    help="Environment variable with the token; else GITHUB_TOKEN, or of GitLab GITLAB_TOKEN.",
)
@click.option(
    "--summary/--no-summary",
    default=True,
    help="Add it to the job's summary as well, where GITHUB_STEP_SUMMARY names the file.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be posted, and post nothing.")
def command(
    report: str,
    key: str,
    number: int | None,
    repo: str | None,
    service: str | None,
    api_url: str | None,
    token_variable: str | None,
    summary: bool,
    dry_run: bool,
) -> None:
    """Post a report (a Markdown file, or standard input) on a pull request, or a merge request.

    The comment of a key is made once and then kept up to date. Where the report cannot be posted,
    it is printed. In a job of GitHub Actions or GitLab CI, all is known but the token.
    """
    text = _read(report)
    try:
        check_key(key)
        target = find_target(
            os.environ,
            service=None if service is None else Service(service),
            project=repo,
            number=number,
            base=api_url,
            token_variable=token_variable,
            needs_token=not dry_run,
        )
        if dry_run:
            write(body_of(target, text, key), None)
            click.echo(f"traceq: would be posted on {target.name}, nothing was", err=True)
            return
        posted = post(target, text, key)
    except BaseException:
        write(text, None)  # the report is not lost
        raise
    finally:
        if summary and not dry_run:
            _add_to_summary(text)
    write(f"{printable(posted.url) or target.name}\n", None)
    click.echo(f"traceq: {posted.deed} the comment on {target.name}", err=True)


def _read(report: str) -> str:
    if report == "-" and sys.stdin is None:  # closed by the caller
        raise TraceReadError("there is no standard input", hint="Name the file of a report.")
    try:
        data = sys.stdin.buffer.read() if report == "-" else Path(report).read_bytes()
    except OSError as error:
        raise TraceReadError(
            f"{report}: {error.strerror}", hint="Name the Markdown file of a report, or -."
        ) from error
    text = data.decode("utf-8", "replace")
    if not text.strip():
        raise TraceReadError(
            "the report is empty", hint="Did 'traceq diff --format markdown' before it fail?"
        )
    return text


def _add_to_summary(text: str) -> None:
    """Add the report to the summary of a job; that it cannot be is told, and no more."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    if len(text.encode()) > SUMMARY_LIMIT:
        click.echo("traceq: the report is too long for the job's summary", err=True)
        return
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text.rstrip() + "\n\n")
    except OSError as error:
        click.echo(f"traceq: the job's summary cannot be written: {error.strerror}", err=True)
