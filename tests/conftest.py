"""What all tests share: a deterministic hypothesis profile, the corpus, an engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from traceq.cache import Cache
from traceq.engine import Engine, open_engine
from traceq.engine.module_cache import cache_folder as engine_folder
from traceq.kineto import read_trace

settings.register_profile(
    "traceq",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=45,
    print_blob=False,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)
settings.load_profile("traceq")

ROOT = Path(__file__).resolve().parent.parent
CORPUS = Path(os.environ.get("TRACEQ_CORPUS") or ROOT.parent / "shared" / "corpus")
NO_CORPUS = f"the corpus is not at {CORPUS}: set TRACEQ_CORPUS to its directory"


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The directory of the corpus; skips the test where there is none."""
    if not CORPUS.is_dir():
        pytest.skip(NO_CORPUS)
    return CORPUS


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """One engine for the whole run; each ``load`` replaces the trace before it."""
    with open_engine(None) as opened:
        yield opened


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """A cache of the test's own, with the engine that was compiled before."""
    engines = engine_folder()
    engines.mkdir(parents=True, exist_ok=True)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "engine").symlink_to(engines)
    monkeypatch.setenv("TRACEQ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TRACEQ_CACHE_SIZE", raising=False)
    return Cache(tmp_path / "cache" / "traces", 1 << 30)


@pytest.fixture
def was_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read, and not found in the cache."""
    found: list[str] = []

    def read(path: Path, **rest: object) -> object:
        found.append(os.path.basename(path))
        return read_trace(path, **rest)  # type: ignore[arg-type]

    for module in ("intake", "loading"):
        monkeypatch.setattr(f"traceq.{module}.read_trace", read)
    return found
