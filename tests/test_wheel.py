"""The wheel: what is in it, and that it works away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT


def run(arguments: list[str | Path], *, cwd: Path, **environment: str) -> str:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        arguments, cwd=cwd, env=env | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    run(build, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def target(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("target")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    run([*pip, "--target", folder, wheel], cwd=folder)
    return folder


def test_the_queries_are_in_the_wheel(names: set[str]) -> None:
    queries = {
        f"traceq/_queries/{path.relative_to(ROOT / 'queries')}"
        for path in (ROOT / "queries").rglob("*.sql")
    }
    assert len(queries) > 10
    assert any(name.startswith("traceq/_queries/duckdb/") for name in queries)
    assert queries <= names


def test_every_module_is_in_the_wheel_and_nothing_of_the_tests(names: set[str]) -> None:
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "traceq").rglob("*.py")}
    assert modules <= names
    assert "traceq/py.typed" in names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"traceq"}
    assert not [name for name in names if name.endswith((".pyc", ".json.gz"))]


def test_the_metadata(wheel: Path, names: set[str]) -> None:
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    (entry_points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(metadata).decode("utf-8")
        scripts = archive.read(entry_points).decode("utf-8")
    assert "\nName: traceq\n" in text
    assert "\nRequires-Python: >=3.11\n" in text
    assert (ROOT / "README.md").read_text(encoding="utf-8").strip() in text
    assert "traceq = traceq.cli:main" in scripts
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_wheel_works_away_from_the_checkout(target: Path, tmp_path: Path) -> None:
    where = run(
        [sys.executable, "-c", "import traceq; print(traceq.__file__)"],
        cwd=tmp_path,
        PYTHONPATH=str(target),
    )
    assert Path(where.strip()).is_relative_to(target)
    program = "from traceq.cli import main; main()"
    trace = ROOT / "sample_traces" / "flatten-0.json.gz"
    out = run(
        [
            *(sys.executable, "-c", program, "ops", trace, "--under", "GatedDeltaNet"),
            *("--match", "aten::flatten", "--format", "csv"),
        ],
        cwd=tmp_path,
        PYTHONPATH=str(target),
    )
    header, row = out.splitlines()
    assert header.startswith("op,category,calls,total")
    assert row.startswith("aten::flatten,cpu_op,45,215239,")


def test_the_installed_queries_are_found_inside_the_package(target: Path, tmp_path: Path) -> None:
    found = run(
        [sys.executable, "-c", "from traceq import library as l; print(l.query_folder())"],
        cwd=tmp_path,
        PYTHONPATH=str(target),
    )
    assert Path(found.strip()) == target / "traceq" / "_queries"
