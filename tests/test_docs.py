"""The documentation is run: README's pictures, commands and Python, and every docstring."""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import traceq
from tests.conftest import ROOT
from traceq.cli import group
from traceq.cli.lazy import LazyGroup

README = (ROOT / "README.md").read_text(encoding="utf-8")
TRACEQ = Path(sys.executable).parent / "traceq"
MODULES = sorted(
    ["traceq", *(info.name for info in pkgutil.walk_packages(traceq.__path__, "traceq."))]
)


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def blocks(language: str) -> list[str]:
    """The fenced blocks of README in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The traceq commands in README's shell blocks, in order, as their arguments."""
    found = []
    for block in blocks("sh"):
        for line in re.sub(r'"[^"]*"', lambda m: m[0].replace("\n", " "), block).splitlines():
            for part in line.split(" && "):
                words = shlex.split(part, comments=True)
                if words and words[0].rpartition("/")[2] == "traceq":
                    found.append(words[1:])
    return found


def run(arguments: list[str], columns: int) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "TRACEQ_ENGINE"}
    return subprocess.run(
        [TRACEQ, *arguments],
        cwd=ROOT,
        env=env | {"COLUMNS": str(columns)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_picture_in_readme_is_what_the_first_command_prints() -> None:
    (picture,) = blocks("text")
    done = run(commands()[0], 96)
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout == picture


def test_the_kernels_in_readme_are_what_the_command_prints() -> None:
    (picture,) = blocks("console")
    done = run(
        next(words for words in commands() if words[0] == "kernels" and "/" in words[1]), 100
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", picture)


def test_the_query_in_readme_runs() -> None:
    (query,) = (words for words in commands() if words[0] == "sql" and "INCLUDE" in words[-1])
    done = run(query, 100)
    assert (done.returncode, done.stderr) == (0, "")
    assert "torch/nn/modules/module.py: _call_impl" in done.stdout
    assert done.stdout.startswith("5 rows\n")


def test_the_setup_commands_name_what_exists() -> None:
    setup = [line for block in blocks("sh") for line in block.splitlines() if "pip install" in line]
    assert len(setup) == 2
    for line in setup:
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install -q ")
    assert setup[1].endswith("&& .venv/bin/python -m tests")
    assert (ROOT / "tests" / "__main__.py").exists()


def test_python_in_readme_runs() -> None:
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert result.attempted >= 8
    assert result.failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    if name.endswith("_triton"):
        pytest.importorskip("triton", reason="a GPU's kernels: torch for CPUs has no Triton")
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what it is for"
    assert doctest.testmod(module).failed == 0


def test_there_are_examples_in_docstrings() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [
        example
        for name in MODULES
        if not name.endswith("_triton")
        for test in finder.find(importlib.import_module(name))
        for example in test.examples
    ]
    assert len(examples) > 15


@pytest.mark.parametrize("name", traceq.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(traceq, name)
    assert inspect.getdoc(value)
    if inspect.isclass(value):
        for key, member in vars(value).items():
            if not key.startswith("_") and (callable(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{name}.{key}"


@pytest.mark.parametrize(
    "first",
    [
        "traceq.Diff",
        "from traceq.compare import Diff",
        "from traceq import Diff, diff",
        "import traceq.report",
        "traceq.open; traceq.Trace; traceq.TraceqError",
        "getattr(traceq, '__all__')",
        "from traceq import *",
    ],
)
def test_public_names_are_what_they_say_whatever_was_imported_before(first: str) -> None:
    """The comparison is a function also where the module of its name has been imported."""
    program = f"import traceq\n{first}\nassert callable(traceq.diff), traceq.diff"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_public_names_are_listed() -> None:
    assert set(traceq.__all__) <= set(dir(traceq))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = traceq.nothing  # type: ignore[attr-defined]


def test_importing_traceq_is_cheap() -> None:
    program = (
        "import sys, traceq; heavy = {'pandas', 'numpy', 'perfetto', 'wasmtime', 'duckdb', 'rich'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", group.list_commands(None))  # type: ignore[arg-type]
def test_readme_mentions_each_command(command: str) -> None:
    assert re.search(rf"^traceq {command}\b", README, re.MULTILINE)


@pytest.mark.parametrize("fields", ["ops.OP", "kernels.KERNEL", "scopes.SCOPE", "steps.STEP"])
def test_tables_that_readme_names_have_documented_columns(fields: str) -> None:
    assert f"traceq.{fields}_FIELDS" in README
    module, _, prefix = fields.partition(".")
    columns = getattr(importlib.import_module(f"traceq.{module}"), f"{prefix}_FIELDS")
    assert all(column.doc.endswith(".") for column in columns)


def test_readme_mentions_no_command_or_option_that_is_not() -> None:
    for words in commands():
        command = group.get_command(None, words[0])  # type: ignore[arg-type]
        assert command is not None, words
        own = words[1 : words.index("--")] if "--" in words else words[1:]
        if isinstance(command, LazyGroup):
            command = command.get_command(None, own.pop(0))  # type: ignore[arg-type]
            assert command is not None, words
        known = {option for parameter in command.params for option in parameter.opts}
        if "-m" in own:
            own = own[: own.index("-m")]
        for word in own:
            if word.startswith("-"):
                assert word in known, words


@pytest.mark.parametrize("path", ["README.md", "sample_traces/README.md", "queries/README.md"])
def test_links_within_the_repository_lead_somewhere(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if "://" not in link:
            assert ((ROOT / path).parent / link.partition("#")[0]).exists(), link


def test_sample_traces_are_described() -> None:
    folder = ROOT / "sample_traces"
    text = (folder / "README.md").read_text(encoding="utf-8")
    traces = sorted(folder.glob("*.json.gz"))
    assert len(traces) == 6
    assert sum(path.stat().st_size for path in traces) <= 4_000_000
    for path in traces:
        assert f"`{path.name}`" in text
