"""The cell magic, in a real IPython shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import traceq
from traceq.errors import CaptureError, UsageError


@pytest.fixture(scope="module")
def shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "traceq")
    shell.run_cell("import torch; net = torch.nn.Linear(4, 4); count = 0")
    yield shell
    InteractiveShell.clear_instance()


def names(shell: InteractiveShell) -> dict[str, Any]:
    return shell.user_ns


def test_the_cell_is_the_step(shell: InteractiveShell, tmp_path: Path) -> None:
    out = tmp_path / "out.json.gz"
    line = f"'{out}' --under Linear --stack modules --warmup 2 --steps 3"
    names(shell)["count"] = 0
    assert shell.run_cell_magic("traceq", line, "y = net(torch.zeros(2, 4))\ncount += 1\ny") == out
    assert names(shell)["count"] == 5
    with traceq.open(out) as trace:
        assert [len(trace.steps()), len(trace.scope_calls("Linear"))] == [3, 3]


def test_magics_and_shell_syntax_within_the_cell(shell: InteractiveShell, tmp_path: Path) -> None:
    cell = "folder = %pwd\nnet(torch.zeros(1, 4))"
    shell.run_cell_magic("traceq", f"{tmp_path / 'o.json'} --warmup 0 --no-shapes", cell)
    assert names(shell)["folder"] == str(Path.cwd())


@pytest.mark.parametrize(
    ("line", "cell", "error"),
    [
        ("", "1", UsageError),
        ("o.json --stops 3", "1", UsageError),
        ("o.json 'unclosed", "1", UsageError),
        ("nowhere/o.json", "1", CaptureError),
        ("o.json", "1 +", SyntaxError),
        ("o.json", "1 / 0", ZeroDivisionError),
    ],
)
def test_what_cannot_be(
    shell: InteractiveShell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    cell: str,
    error: type[Exception],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        shell.run_cell_magic("traceq", line, cell)
    assert list(tmp_path.iterdir()) == []
