"""Several ranks: who was waited for, what differs between them; and that they are no samples."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import traceq
from tests.conftest import ROOT
from tests.tracemaker import compact, complete
from traceq.cli import group
from traceq.errors import TraceqError, UsageError
from traceq.ranks import Ranks, gather_ranks, pair_ranks, rank_of
from traceq.reading import Question, Reading, read

RANKS = ROOT / "tests" / "data" / "ranks-h200"


def readings(paths: list[Path], *under: str) -> list[Reading]:
    question, found = Question(under=under), []
    for path in paths:
        with traceq.open(path) as trace:
            found.append(read(trace, question))
    return found


def of_run(name: str, *under: str) -> Ranks:
    return gather_ranks(readings([RANKS / f"{name}-rank{rank}.json.gz" for rank in (0, 1)], *under))


def plain(path: Path) -> dict[str, list[float]]:
    """The durations (µs) of collectives and of other work, by reading the JSON as it stands."""
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    kinds = ("kernel", "gpu_memcpy", "gpu_memset")
    work = sorted(
        (event for event in events if event.get("cat") in kinds), key=lambda event: event["ts"]
    )
    found = defaultdict(list)
    for event in work:
        found["nccl" if event["name"].startswith("nccl") else "work"].append(event["dur"])
    return found


@pytest.mark.parametrize("run", ["before", "after"])
def test_real_ranks_as_a_plain_reading_has_them(run: str) -> None:
    ranks = of_run(run)
    sides = [plain(RANKS / f"{run}-rank{rank}.json.gz") for rank in (0, 1)]
    least = [min(pair) for pair in zip(*(side["nccl"] for side in sides), strict=True)]
    for row, side in zip(ranks.table.to_dict("records"), sides, strict=True):
        assert row["collectives"] == len(side["nccl"]) == 16
        assert row["working"] == pytest.approx(1000 * sum(side["work"]), abs=1)
        assert row["gpu"] == row["working"] + row["collective"]
        waiting = sum(side["nccl"]) - sum(least)
        assert row["waiting"] == pytest.approx(1000 * waiting, abs=1)
    assert ranks.straggler == 1
    assert ranks.unmatched == 0


def test_what_differs_most_is_what_one_rank_does_more() -> None:
    ops = of_run("before", "Block").ops
    first = ops.iloc[0]
    assert first["kind"] == "gpu"
    assert "gemm" in first["op"]
    assert (first["least_rank"], first["most_rank"]) == (0, 1)
    assert first["most"] / first["least"] == pytest.approx(3, rel=0.02)  # three times the work


def test_ranks_before_and_after() -> None:
    before, after = of_run("before", "Block"), of_run("after", "Block")
    pairs = pair_ranks(before, after)
    assert pairs["rank"].tolist() == [0, 1]
    change = (pairs["working_after"] - pairs["working_before"]).tolist()
    assert abs(change[0]) < 100_000
    assert change[1] < -10_000_000
    same = pair_ranks(before, before)
    assert (same["waiting_before"] == same["waiting_after"]).all()
    with pytest.raises(UsageError, match="rank 1 is on one side only"):
        pair_ranks(before, gather_ranks(readings([RANKS / "after-rank0.json.gz"], "Block")))


def rank_file(folder: Path, rank: int, works: list[int], waits: list[int], told: bool) -> Path:
    """A rank whose blocks work and then wait; times in µs."""
    events, now = [], 100
    for number, (work, wait) in enumerate(zip(works, waits, strict=True)):
        for name, dur in ((f"gemm_{number}", work), ("ncclDevKernel_AllReduce", wait)):
            link = {"correlation": 10 * number + len(events)}
            events.append(complete("cudaLaunchKernel", now, 2, cat="cuda_runtime", args=link))
            args = link | {"device": 0, "stream": 7}
            events.append(complete(name, now + 5, dur, cat="kernel", pid=0, tid=7, args=args))
            now += dur + 10
    metadata = {"distributedInfo": {"rank": rank, "world_size": 3}} if told else {}
    path = folder / f"run-rank{rank}.json"
    path.write_text(json.dumps({**metadata, "traceEvents": events}), encoding="utf-8")
    return path


def test_who_was_waited_for(tmp_path: Path) -> None:
    waits = {0: [30, 1], 1: [1, 41], 2: [21, 21]}
    files = [rank_file(tmp_path, rank, [50, 50], item, rank != 2) for rank, item in waits.items()]
    ranks = gather_ranks(readings(files))
    assert ranks.table["waiting"].tolist() == [29_000, 40_000, 40_000]
    assert ranks.table["waited_for"].tolist() == [1, 1, 0]
    assert ranks.table["rank"].tolist() == [0, 1, 2]  # of the last, its file's name tells
    assert ranks.doubts == ()
    tie = {0: [10, 30], 1: [10, 30], 2: [30, 35]}  # two come last: neither is to blame
    for name in ("tie",):
        folder = tmp_path / name
        folder.mkdir()
        files_ = [rank_file(folder, rank, [50, 50], item, True) for rank, item in tie.items()]
        even = gather_ranks(readings(files_))
    assert even.table["waited_for"].tolist() == [0, 0, 0]
    assert even.straggler is None
    (doubt,) = gather_ranks(readings(files[:2])).doubts
    assert doubt.startswith("2 of 3 ranks: ")
    assert of_run("before").doubts == ()


def test_collectives_that_do_not_match_are_told(tmp_path: Path) -> None:
    files = [rank_file(tmp_path, 0, [5, 5], [3, 4], True), rank_file(tmp_path, 1, [5], [9], True)]
    ranks = gather_ranks(readings(files))
    assert ranks.unmatched == 2
    assert ranks.table["waiting"].tolist() == [0, 0]
    assert ranks.straggler is None
    shown = run("ops", *map(str, files), "--by", "rank").stdout
    assert "2 collectives cannot be matched" in shown


def test_what_is_no_rank_is_told(tmp_path: Path) -> None:
    plain_file = tmp_path / "trace.json"
    plain_file.write_bytes(compact([complete("a", 0, 5)]))
    with pytest.raises(UsageError, match="not known which rank"):
        rank_of(readings([plain_file])[0])
    named = tmp_path / "model-TP-3.json"
    named.write_bytes(plain_file.read_bytes())
    assert rank_of(readings([named])[0]) == 3
    with pytest.raises(UsageError, match="rank 0 is given twice"):
        gather_ranks(readings([RANKS / "before-rank0.json.gz", RANKS / "after-rank0.json.gz"]))


# The commands ---------------------------------------------------------------------------------


def run(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(group, [*words])


def test_the_commands() -> None:
    shown = run("ops", str(RANKS / "before-*.json.gz"), "--by", "rank", "--limit", "3")
    assert shown.exit_code == 0, shown.exception
    told = "36.9% of the GPU time is waiting in collectives, 15 of 16 times for rank 1"
    assert told in shown.stdout
    sides = ("--before", str(RANKS / "before-*.gz"), "--after", str(RANKS / "after-*.gz"))
    compared = run("diff", "--by", "rank", *sides, "--under", "Block")
    assert "GPU work by −11,424.806 to +42.715 µs a rank" in compared.stdout
    data = json.loads(run("diff", "--by", "rank", *sides, "--format", "json").stdout)
    assert data["straggler"] == [1, 1]
    words = ("ops", str(RANKS / "after-*.gz"), "--by", "rank", "--format")
    assert [row["rank"] for row in json.loads(run(*words, "json").stdout)["ranks"]] == [0, 1]
    assert run(*words, "csv").stdout.startswith("op,kind,ranks")


def test_ranks_are_no_samples_of_each_other() -> None:
    """Taken for captures, ranks of one run would make any change of the run look certain."""
    sides = ("--before", str(RANKS / "before-*.gz"), "--after", str(RANKS / "after-*.gz"))
    refused = run("diff", *sides)
    assert isinstance(refused.exception, TraceqError)
    assert "ranks of one run are no samples" in str(refused.exception)
