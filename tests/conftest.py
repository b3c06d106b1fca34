"""What all tests share: a deterministic hypothesis profile, the corpus, an engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from traceq.engine import Engine, open_engine

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
