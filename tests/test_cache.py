"""What is kept of a trace is what was read of it, or nothing."""

from __future__ import annotations

import ctypes
import gzip
import os
import random
import shutil
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from tests import tracemaker as tm
from tests.joined import check_same
from traceq import stored
from traceq.cache import Cache
from traceq.cli import group
from traceq.engine.image import pack_memory, unpack_memory
from traceq.errors import QueryError, QueryTimeoutError, TraceReadError, UsageError
from traceq.info import describe
from traceq.joins import join
from traceq.kept import KeptTrace
from traceq.kineto import read_trace
from traceq.layout import arrange
from traceq.loading import open_trace
from traceq.stored import StoredTrace
from traceq.trace import Trace

SAMPLE = Path(__file__).parent.parent / "sample_traces" / "flatten-0.json.gz"


def check_trace(one: Trace, other: Trace) -> None:
    assert (one.info, one.ledger) == (other.info, other.ledger)
    assert one.fingerprint == other.fingerprint
    for table in ("modules", "steps", "shapes"):
        assert getattr(one, table)().equals(getattr(other, table)())
    for table in ("ops", "kernels", "scopes", "tree", "activities"):
        assert getattr(one, table)("GatedDeltaNet").equals(getattr(other, table)("GatedDeltaNet"))


# The bytes --------------------------------------------------------------------------------------


@given(events=tm.gpu_traces())
def test_random_traces_survive_being_stored(tmp_path: Path, events: list[tm.Event]) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(tm.compact(events, traceName="x\ud800", big=2**70, odd=[None, 1.5]))
    data = read_trace(path)
    joined = join(data, arrange(data))
    if joined is None:
        return
    trace = StoredTrace(describe(data, str(path)), data.ledger, joined)
    again = StoredTrace.unpack(memoryview(b"".join(trace.pack())), str(path))
    assert (again.info, again.ledger) == (trace.info, trace.ledger)
    check_same(again.joined, trace.joined)


@given(values=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9), rises=st.booleans())
def test_any_numbers_survive_being_narrowed(values: list[int], rises: bool) -> None:
    numbers = np.array(sorted(values) if rises else values, np.int64)
    writer = stored._Writer()
    how = writer._column(numbers)
    found = stored._Reader(memoryview(b"".join(writer.frames)))._column(how)
    assert list(found) == numbers.tolist()


# The entries ------------------------------------------------------------------------------------


def test_a_second_open_does_not_read_the_file(cache: Cache, was_read: list[str]) -> None:
    with open_trace(SAMPLE) as first, open_trace(SAMPLE) as second:
        assert was_read == ["flatten-0.json.gz"]
        check_trace(first, second)
    [entry] = cache.entries()
    assert stat.S_IMODE(entry.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry.path.stat().st_mode) == 0o600
    with open_trace(SAMPLE, args="all"), open_trace(SAMPLE, cache=False):
        assert len(was_read) == 3
    assert len(cache.entries()) == 2  # another choice of arguments is another entry


def test_a_copy_under_another_name_is_known(
    cache: Cache, was_read: list[str], tmp_path: Path
) -> None:
    copy = tmp_path / "other.json.gz"
    shutil.copy(SAMPLE, copy)
    with open_trace(SAMPLE), open_trace(copy) as trace:
        assert was_read == ["flatten-0.json.gz"]
        assert trace.info.path == trace.path == str(copy)


def test_other_content_under_the_same_name_is_read(
    cache: Cache, was_read: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "trace.json.gz"
    shutil.copy(SAMPLE, path)
    with open_trace(path) as before:
        pass
    when = path.stat()
    text = gzip.decompress(SAMPLE.read_bytes()).replace(b"GatedDeltaNet", b"GatedDeltaNut")
    path.write_bytes(gzip.compress(text, 1))
    os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))
    with open_trace(path) as after:
        assert len(was_read) == 2
        assert after.names != before.names


def test_an_entry_with_any_byte_damaged_is_made_again(cache: Cache, was_read: list[str]) -> None:
    with open_trace(SAMPLE) as whole:
        pass
    [entry] = cache.entries()
    kept = KeptTrace.of(SAMPLE, "default")
    assert kept is not None
    content, random_ = entry.path.read_bytes(), random.Random(7)
    places = [*range(64), *random_.sample(range(len(content)), 400), len(content) - 1]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << random_.randrange(8)
        entry.path.write_bytes(damaged)
        assert kept.read("x") is None, place
    for size in (0, 7, 40, len(content) // 2, len(content) - 1):
        entry.path.write_bytes(content[:size])
        assert kept.read("x") is None, size
    entry.path.write_bytes(content + b"\0")
    assert kept.read("x") is None
    with open_trace(SAMPLE) as again:
        assert len(was_read) == 2
        check_trace(whole, again)
    assert entry.path.read_bytes() == content


def test_an_entry_is_not_believed_under_another_key(cache: Cache) -> None:
    cache.write("one", [b"content"])
    cache._path("one").rename(cache._path("two"))
    assert cache.read("two") is None


@pytest.mark.parametrize("writable", ["entry", "folder"])
def test_what_others_can_write_is_not_believed(cache: Cache, writable: str) -> None:
    cache.write("key", [b"con", memoryview(b"tent")])
    found = cache.read("key")
    assert found is not None
    assert bytes(found) == b"content"
    (cache.folder if writable == "folder" else cache._path("key")).chmod(0o777)
    assert cache.read("key") is None


def test_a_folder_that_cannot_be_made_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRACEQ_CACHE_DIR", str(tmp_path / "file"))
    for _ in range(2):
        with open_trace(SAMPLE) as trace:
            assert trace.ledger.total.read == 26070


def test_what_was_used_longest_ago_goes_first(cache: Cache) -> None:
    small = Cache(cache.folder, 3 * 140)
    for number, key in enumerate("abc"):
        small.write(key, [bytes(100)])
        os.utime(small._path(key), (number, number))
    assert small.read("a") is not None
    small.write("d", [bytes(100)])
    assert sorted(entry.path.stem for entry in small.entries()) == ["a", "c", "d"]
    small.write("e", [bytes(1000)])
    assert len(small.entries()) == 3


def test_what_a_killed_writer_left_is_removed(cache: Cache) -> None:
    cache.write("a", [b""])
    old, young = cache.folder / ".aold", cache.folder / ".ayoung"
    old.touch()
    young.touch()
    os.utime(old, (1, 1))
    cache.write("b", [b""])
    assert (old.exists(), young.exists()) == (False, True)
    assert len(cache.clear()) == 2
    assert list(cache.folder.iterdir()) == []


def test_many_writers_and_readers_at_once(cache: Cache) -> None:
    limited = Cache(cache.folder, 20_000)
    end = time.monotonic() + 0.5

    def work(number: int) -> int:
        chosen, reads = random.Random(number), 0
        while time.monotonic() < end:
            key = str(chosen.randrange(4))
            found = limited.read(key)
            assert found is None or bytes(found) == key.encode() * 5000
            reads += found is not None
            limited.write(key, [key.encode() * 2500] * 2)
        return reads

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) > 0
    assert sum(entry.size for entry in limited.entries()) <= 20_000


def test_pipes_and_small_files_are_not_kept(cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_bytes(tm.compact([tm.complete("x", 1, 1)]))
    with open_trace(path):
        pass
    assert cache.entries() == []
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert KeptTrace.of(fifo, "default") is None


# The engine -------------------------------------------------------------------------------------


COUNT = "INCLUDE PERFETTO MODULE traceq.launches; SELECT COUNT(*) AS n FROM traceq_launches"


def test_a_second_query_goes_on_from_the_memory_of_the_first(
    cache: Cache, was_read: list[str]
) -> None:
    with open_trace(SAMPLE) as trace:
        first = trace.sql(COUNT)
    assert len(cache.entries()) == 2
    with open_trace(SAMPLE) as trace:
        assert trace.sql(COUNT).equals(first)
        assert was_read == ["flatten-0.json.gz"]
        with pytest.raises(QueryTimeoutError):
            trace.sql(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
                "SELECT MAX(x) FROM n",
                timeout=0.2,
            )
        assert trace.sql(COUNT).equals(first)  # a new engine, from the same memory


def test_tables_that_a_user_makes_are_not_kept(cache: Cache) -> None:
    with open_trace(SAMPLE) as trace:
        trace.sql("CREATE PERFETTO TABLE mine AS SELECT 1 AS x")
    with open_trace(SAMPLE) as trace, pytest.raises(QueryError, match="no such table: mine"):
        trace.sql("SELECT * FROM mine")


def test_a_damaged_memory_is_made_again(cache: Cache, was_read: list[str]) -> None:
    with open_trace(SAMPLE) as trace:
        first = trace.sql(COUNT)
    [path] = [entry.path for entry in cache.entries() if "-" in entry.path.stem]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with open_trace(SAMPLE) as trace:
        assert trace.sql(COUNT).equals(first)
    assert len(was_read) == 2
    with open_trace(SAMPLE) as trace:
        assert trace.sql(COUNT).equals(first)
    assert len(was_read) == 2


def test_the_memory_of_another_engine_is_not_used(
    cache: Cache, was_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_trace(SAMPLE) as trace:
        first = trace.sql(COUNT)
    monkeypatch.setattr("traceq.engine.wasm._REQUEST_BYTES", 5 << 20)  # its buffer lies elsewhere
    with open_trace(SAMPLE) as trace:
        assert trace.sql(COUNT).equals(first)
    assert len(was_read) == 2


def test_a_file_that_changes_before_the_first_query(
    cache: Cache, tmp_path: Path, was_read: list[str]
) -> None:
    path = tmp_path / "trace.json.gz"
    shutil.copy(SAMPLE, path)
    with open_trace(path), open_trace(path) as trace:
        path.write_bytes(gzip.compress(b'{"traceEvents": []}'))
        with pytest.raises(TraceReadError, match="has changed since it was opened"):
            trace.sql("SELECT 1")


# The command ------------------------------------------------------------------------------------


def run(*args: str) -> Result:
    result = CliRunner().invoke(group, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_results_with_and_without_the_cache(cache: Cache, was_read: list[str]) -> None:
    for command in (["ops", "--under", "GatedDeltaNet"], ["info"], ["tree"]):
        texts = {
            run(*command, str(SAMPLE), "--format", "json", *option).stdout
            for option in ([], [], ["--no-cache"])
        }
        assert len(texts) == 1
    assert len(was_read) == 1 + 3


def test_the_command(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("cache", "path").stdout == f"{cache.folder}\n"
    cache.write("a", [bytes(1000)])
    assert run("cache", "info").stdout == f"{cache.folder}: 1 entry, 1.0 kB of at most 4,000.0 MB\n"
    assert '"entries": 1,\n  "bytes": 1040,' in run("cache", "info", "--format", "json").stdout
    monkeypatch.setenv("TRACEQ_CACHE_SIZE", "0")
    assert "nothing is kept" in run("cache", "info").stdout
    assert run("cache", "clear").stderr == "removed 1 entry, 1.0 kB\n"
    monkeypatch.setenv("TRACEQ_CACHE_SIZE", "lots")
    with pytest.raises(UsageError, match="no size"):
        CliRunner().invoke(group, ["cache", "info"], catch_exceptions=False)


# Images of memory -------------------------------------------------------------------------------


def packed(content: bytes, **facts: int | str) -> memoryview:
    memory = ctypes.create_string_buffer(content, len(content))
    return memoryview(b"".join(pack_memory(ctypes.addressof(memory), len(content), facts)))


@given(content=st.binary(min_size=1, max_size=300), segment=st.integers(1, 310))
def test_memory_comes_back_as_it_was(content: bytes, segment: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("traceq.engine.image.SEGMENT_BYTES", segment)
        image = packed(content, a=1)
    memory = ctypes.create_string_buffer(len(content) + 8)
    assert unpack_memory(image, {"a": 1}, lambda _: ctypes.addressof(memory))
    assert memory.raw == content + bytes(8)
    assert not unpack_memory(image, {"a": 2}, lambda _: ctypes.addressof(memory))
    assert not unpack_memory(image, {"a": 1}, lambda _: None)


def test_pieces_that_do_not_fit_are_not_written() -> None:
    image = packed(bytes(4096), a=1)
    head = bytes(image).replace(b'"size": 4096', b'"size": 1024')  # as long as it was
    memory = ctypes.create_string_buffer(b"x" * 4096, 4096)
    assert not unpack_memory(memoryview(head), {"a": 1}, lambda _: ctypes.addressof(memory))
    assert memory.raw == b"x" * 4096


def test_a_cache_that_cannot_be_cleared(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write("a", [b"x"])

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    assert cache.clear() == []
    monkeypatch.undo()
    assert len(cache.entries()) == 1


def test_a_relative_path_stays_what_it_was(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SAMPLE.parent)
    with open_trace(SAMPLE.name), open_trace(SAMPLE.name) as trace:
        monkeypatch.chdir(tmp_path)
        assert trace.sql("SELECT COUNT(*) AS n FROM slice")["n"].tolist() == [len(trace.slices)]
