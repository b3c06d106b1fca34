"""The composite action, run as a job runs it: its script, its inputs, a server for its comment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.forge import NUMBER, PROJECT, TOKEN, Forge, serving

ACTION = ROOT / ".github" / "actions" / "traceq"
SAMPLES = ROOT / "sample_traces"


def description() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))
    return loaded


def run(folder: Path, forge: Forge, **inputs: str) -> subprocess.CompletedProcess[str]:
    """The step with its inputs, in the environment that a job gives it."""
    (step,) = description()["runs"]["steps"]
    given = {name: item.get("default", "") for name, item in description()["inputs"].items()}
    given |= {name.replace("_", "-"): value for name, value in inputs.items()}
    variables = {
        name: given[text.removeprefix("${{ inputs.").removesuffix(" }}")]
        for name, text in step["env"].items()
    }
    environment = os.environ | {
        **variables,
        "GITHUB_TOKEN": TOKEN,
        "TRACEQ_COMMAND": str(Path(sys.executable).parent / "traceq"),
        "GITHUB_ACTION_PATH": str(ACTION),
        "RUNNER_TEMP": str(folder),
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
        "GITHUB_REPOSITORY": PROJECT,
        "GITHUB_API_URL": forge.url,
        "GITHUB_EVENT_PATH": "",
    }
    assert step["run"] == 'bash "$GITHUB_ACTION_PATH/run.sh"'
    return subprocess.run(
        ["bash", str(ACTION / "run.sh")],
        env=environment,
        cwd=SAMPLES,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_inputs_reach_the_script_through_the_environment_alone() -> None:
    text = (ACTION / "run.sh").read_text(encoding="utf-8")
    assert "${{" not in text
    (step,) = description()["runs"]["steps"]
    named = {text.removeprefix("${{ inputs.").removesuffix(" }}") for text in step["env"].values()}
    assert named == set(description()["inputs"])


def test_it_comments_and_fails_where_a_condition_holds(tmp_path: Path) -> None:
    with serving(Forge()) as forge:
        done = run(
            tmp_path,
            forge,
            before="einops-0.json.gz\n",
            after="flatten-0.json.gz\r\n\n",
            under="GatedDeltaNet",
            fail_if="'flatten of Tensor'.calls > 0\ngpu > 1%",
            pr=str(NUMBER),
        )
        assert done.returncode == 1, done.stderr
        (body,) = forge.bodies
        assert body.startswith("**Under GatedDeltaNet, einops/einops.py: rearrange became ")
        assert "❌ gate" in body
        assert "✅ gate" in body
        assert body.endswith("<!-- traceq report: traceq -->\n")
        summary = (tmp_path / "summary").read_text(encoding="utf-8")
        assert body.startswith(summary.rstrip())
        told = (tmp_path / "output").read_text(encoding="utf-8")
        report = Path(told.removeprefix("report=").rstrip())
        assert report.is_relative_to(tmp_path)
        assert report.read_text(encoding="utf-8") == summary
        assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize("number", [str(NUMBER), "null"])
def test_a_comment_that_cannot_be_made_does_not_hide_the_outcome(
    tmp_path: Path, number: str
) -> None:
    with serving(Forge(can_write=False)) as forge:
        words = {"before": "einops-0.json.gz", "after": "einops-0.json.gz", "pr": number}
        done = run(tmp_path, forge, **words, fail_if="cpu > 2%")
        assert done.returncode == 0, done.stderr
        assert "::warning::" in done.stdout
        assert "In the whole trace" in (tmp_path / "summary").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["nothing.json", "$(touch pwned)"])
def test_what_cannot_be_compared_is_an_error_and_no_comment(tmp_path: Path, name: str) -> None:
    with serving(Forge()) as forge:
        words = {"before": name, "after": "einops-0.json.gz", "pr": str(NUMBER)}
        done = run(tmp_path, forge, **words)
        assert done.returncode == 2
        assert name in done.stderr
        assert not forge.asked
    assert not (SAMPLES / "pwned").exists()
