"""A file is hashed once, and again as soon as it may have changed."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from traceq import content
from traceq.content import file_sha256


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that a content was hashed."""
    counted: list[int] = []
    real = hashlib.file_digest

    def digest(*given: object) -> object:
        counted.append(1)
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(content.hashlib, "file_digest", digest)
    monkeypatch.setattr(content, "_known", {})
    return counted


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is ahead by an hour: what was just written is old."""
    now = time.time_ns
    monkeypatch.setattr(content.time, "time_ns", lambda: now() + 3_600 * 10**9)


@pytest.mark.usefixtures("later")
def test_a_file_that_stays_is_hashed_once(tmp_path: Path, hashed: list[int]) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    assert {file_sha256(path) for _ in range(3)} == {hashlib.sha256(b"one").hexdigest()}
    assert len(hashed) == 1


@pytest.mark.usefixtures("later")
def test_a_change_that_hides_its_time_is_seen(tmp_path: Path, hashed: list[int]) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    before, found = os.stat(path), file_sha256(path)
    time.sleep(0.02)
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_sha256(path) == hashlib.sha256(b"two").hexdigest() != found
    assert len(hashed) == 2


def test_a_new_file_is_hashed_each_time(tmp_path: Path, hashed: list[int]) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    assert file_sha256(path) == file_sha256(path)
    assert len(hashed) == 2


def test_what_is_no_file_has_no_hash(tmp_path: Path) -> None:
    assert file_sha256(tmp_path) is None
    assert file_sha256(tmp_path / "none") is None
    (tmp_path / "small").write_bytes(b"x")
    assert file_sha256(tmp_path / "small", smallest=2) is None
