"""What helpers read ahead is what this process would have read."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from traceq.ahead import keep_file, reading_ahead
from traceq.cache import Cache
from traceq.cli import group
from traceq.errors import TraceReadError
from traceq.loading import open_trace

SAMPLES = [
    str(path)
    for path in sorted((Path(__file__).parent.parent / "sample_traces").glob("*.json.gz"))[:3]
]


def test_what_is_kept_is_the_same_whoever_reads_it(cache: Cache) -> None:
    keep_file(SAMPLES[0], "default")
    [entry] = cache.entries()
    ahead = entry.path.read_bytes()
    entry.path.unlink()
    with open_trace(SAMPLES[0]):
        pass
    assert entry.path.read_bytes() == ahead


def test_a_helper_reads_what_comes_next(cache: Cache, was_read: list[str]) -> None:
    with reading_ahead(SAMPLES, "default", helpers=1) as ahead:
        for path in reversed(SAMPLES):
            ahead.wait_for(path)
            with open_trace(path):
                pass
    assert set(was_read) <= {Path(SAMPLES[0]).name, Path(SAMPLES[2]).name}
    assert len(cache.entries()) == 3


def test_without_its_helper_all_is_read_here(
    cache: Cache,
    was_read: list[str],
) -> None:
    with reading_ahead(SAMPLES, "default", helpers=2) as ahead:
        for helper in ahead._helpers:
            helper.kill()
        for path in SAMPLES:
            ahead.wait_for(path)
            with open_trace(path):
                pass
    assert len(was_read) == 3


def test_a_file_that_no_helper_can_read_is_told_of_here(cache: Cache, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("no trace " * 20_000)
    paths = [SAMPLES[0], str(broken), SAMPLES[1]]
    with reading_ahead(paths, "default", helpers=1) as ahead:
        ahead.wait_for(paths[2])
        ahead.wait_for(paths[1])
        with pytest.raises(TraceReadError):
            open_trace(broken)
    assert ahead._left == []


def test_a_diff_is_the_same_with_helpers_and_without(
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("traceq.ahead.WORTHWHILE", 0)
    monkeypatch.setattr("traceq.ahead._cores", lambda: 3)
    words = ["diff", *SAMPLES[:2], "--under", "GatedDeltaNet", "--format", "json"]
    texts = set()
    for more in ([], [], ["--no-cache"]):
        result = CliRunner().invoke(group, [*words, *more], catch_exceptions=False)
        assert result.exit_code == 0
        texts.add(result.stdout)
    assert len(texts) == 1


def test_where_no_process_can_be_started_all_is_read_here(
    cache: Cache, was_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr("subprocess.Popen", refuse)
    with reading_ahead(SAMPLES, "default", helpers=2) as ahead:
        for path in SAMPLES:
            ahead.wait_for(path)
            with open_trace(path):
                pass
    assert len(was_read) == 3
