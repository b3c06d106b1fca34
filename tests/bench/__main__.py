"""``python -m tests.bench WHAT [TRACE]``: costs, measured in one run.

``load``: opening a trace, first and again, against feeding the engine its JSON. Each figure comes
from processes of its own, the ways in turn, after one uncounted run that fills the caches.
``sides``: both traces of a diff against one. ``start``: commands on a sample. ``size``: how a first
open grows with the file. ``query``: every table over an open trace, beside the plain ways to the
same rows.
``diff``: a trace against itself with a planted change, beside the time of loading both; measured as
``load`` is. ``detect``: how often a planted change is found, by its size and the number of
captures. ``page``: size and first paint of the page of a trace and a planted copy, in Chromium.
``store``: a trace's tables in DuckDB and Parquet, and a capture in a history.
``others``: beside other tools, by the size of the trace (``tests.bench.others``).
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import traceq
from tests.bench import others
from tests.bench.store import bench_store
from traceq.engine.module_cache import cache_folder

LARGE = "gdn-h200-large/einops.json.gz"
LIMIT_LOAD = {
    ("first open, ops", "cpu_s"): 0.33,
    ("first open, ops", "peak_mb"): 1.0,
    ("second open, ops", "wall_s"): 0.05,
    ("first open, SQL", "cpu_s"): 0.6,
    ("first open, SQL", "peak_mb"): 1.0,
}
"""As parts of what the engine takes that is fed the raw JSON: a first open of ops, a second one."""
LIMIT_BOTH = 1.3
"""Wall time of opening both traces of a diff, as so many times that of opening one."""
LIMIT_START = {"traceq --help": 0.15, "ops, kept": 1.0, "ops, read": 2.5}
"""Seconds that a command takes on a sample trace."""
LIMIT_QUERY = 1.0
"""Seconds of CPU that one table may take, those that it is built on being there."""
LIMIT_DIFF = 2.0
"""CPU time of a diff, as so many times that of loading both of its traces."""
LIMIT_PAGE, LIMIT_PAINT = 1_500_000, 1.0
"""Bytes of a page, and seconds to its first paint (median)."""
DETECT = "tests.bench.detect"
GIGABYTES = (0.3, 1.0, 3.0)
"""Sizes of JSON that ``size`` makes."""
SAMPLES = Path(__file__).parents[2] / "sample_traces"


def main() -> int:
    """Run a benchmark; the exit code tells whether it kept its promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("what", choices=[*BENCHES, "size", "query", "detect", "others"])
    parser.add_argument("trace", nargs="?", default=str(_corpus() / LARGE))
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each way")
    parser.add_argument("--gigabytes", type=float, nargs="+", help="size, others: of the JSON")
    parser.add_argument("--large", action="store_true", help="detect: also by the steps of TRACE")
    parser.add_argument("--captures", type=Path, help="detect: also in captures of this folder")
    others.add_options(parser)
    options = parser.parse_args()
    if options.what == "detect" and not options.large:
        return bench_detect(options.captures, None)
    if not Path(options.trace).exists() and not options.redraw:
        parser.error(f"{options.trace}: no such file; name a trace")
    if options.what == "detect":
        return bench_detect(options.captures, Path(options.trace))
    if options.what == "size":
        return bench_size(options.trace, options.gigabytes or GIGABYTES)
    if options.what == "others":
        return others.bench_others(options)
    if options.what == "query":
        return bench_query(options.trace)
    return BENCHES[options.what](options.trace, options.runs)


def _corpus() -> Path:
    default = Path(__file__).parents[3] / "shared" / "corpus"
    return Path(os.environ.get("TRACEQ_CORPUS", default))


def bench_load(trace: str, runs: int) -> int:
    """Open and one question, first and again, against the same engine fed the raw JSON."""
    from tests.bench.load import WAYS

    figures: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    answers = set()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(runs + 1):
            for way, taken in figures.items():
                if way.startswith("first"):
                    env = _own_cache(Path(tempfile.mkdtemp(dir=folder)))
                result = _measure(way, trace, env=env)
                answers.add(json.dumps(result.pop("answer")))
                if number:
                    taken.append(result)
    print(f"{trace}: open and one question, {runs} runs of each, medians; same engine, one run")
    kept = _beside_raw({way: _median(taken) for way, taken in figures.items()})
    print(f"answers: {'equal' if len(answers) == 1 else 'DIFFERENT'}: {' / '.join(answers)}")
    return 0 if kept and len(answers) == 1 else 1


def bench_sides(trace: str, runs: int) -> int:
    """Opening both traces of a diff, each in a process, against opening one: whole commands."""
    from tests.bench.load import SIDES

    figures: dict[str, list[float]] = {way: [] for way in SIDES}
    answers = set()
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first.json.gz"
        shutil.copy(trace, first)
        # Another content, so that the cache does not know it: an empty part more.
        (Path(folder) / "copy.json.gz").write_bytes(first.read_bytes() + gzip.compress(b" "))
        for number in range(runs + 1):
            for way, taken in figures.items():
                env = _own_cache(Path(tempfile.mkdtemp(dir=folder)))
                started = time.monotonic()
                answers.add(json.dumps(_measure(way, str(first), env=env)["answer"]))
                if number:
                    taken.append(time.monotonic() - started)
    one, both = (statistics.median(taken) for taken in figures.values())
    print(f"{trace}: first opens, whole processes, medians of {runs} runs; cores: {os.cpu_count()}")
    print(f"one {one:.2f} s, both of a diff {both:.2f} s: {both / one:.2f} (limit {LIMIT_BOTH})")
    return 0 if both <= LIMIT_BOTH * one and len(answers) == 1 else 1


def bench_start(trace: str, runs: int) -> int:
    """How long commands take in all, beside Python's own start; medians of wall time."""
    with tempfile.TemporaryDirectory() as folder:
        env, script = _own_cache(Path(folder)), str(Path(sys.executable).parent / "traceq")
        words = {
            "python -c pass": ["-c", "pass"],
            "traceq --help": [script, "--help"],
            "ops, kept": [script, "ops", trace, "--under", "GatedDeltaNet"],
            "ops, read": [script, "ops", trace, "--under", "GatedDeltaNet", "--no-cache"],
        }
        taken: dict[str, list[float]] = {name: [] for name in words}
        for number in range(runs + 1):
            for name, arguments in words.items():
                started = time.monotonic()
                command = [sys.executable, *arguments]
                subprocess.run(command, check=True, capture_output=True, env=env)
                if number:
                    taken[name].append(time.monotonic() - started)
    print(f"{trace}: seconds, medians of {runs} runs")
    kept = True
    for name, seconds in taken.items():
        limit, median = LIMIT_START.get(name), statistics.median(seconds)
        kept &= limit is None or median <= limit
        print(f"{name:16}{median:8.3f}" + (f"  (limit {limit})" if limit else ""))
    return 0 if kept else 1


def _own_cache(folder: Path) -> dict[str, str]:
    """The environment of an empty cache of traces, with the engine that was compiled before."""
    engines = cache_folder()
    engines.mkdir(parents=True, exist_ok=True)
    (folder / "engine").symlink_to(engines)
    return {**os.environ, "TRACEQ_CACHE_DIR": str(folder)}


def _beside_raw(figures: dict[str, dict[str, float]]) -> bool:
    """Print each way beside the raw JSON; whether the promises are kept."""
    theirs, kept = figures["raw JSON, SQL"], True
    print(f"{'':18}" + "".join(f"{key:>10}{'ratio':>8}{'limit':>7}" for key in theirs))
    for way, ours in figures.items():
        line = f"{way:18}"
        for key, value in ours.items():
            ratio, limit = value / theirs[key], LIMIT_LOAD.get((way, key))
            kept &= limit is None or ratio <= limit
            line += f"{value:10.2f}{ratio:8.3f}{'' if limit is None else format(limit, '.2f'):>7}"
        print(line)
    return kept


def bench_size(trace: str, gigabytes: Sequence[float]) -> int:
    """How the cost of a first open grows with the size of the JSON."""
    ways = ("first open, ops", "second open, ops")
    print(f"{trace}, repeated in time: open, and ops under a scope; one run of each")
    print(f"{'':18}{'JSON GB':>8}{'cpu_s':>10}{'wall_s':>10}{'peak_mb':>10}{'MB / GB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        large, env = Path(folder) / "large.json", _own_cache(Path(folder))
        for wanted in gigabytes:
            # In a process of its own: what comes after would inherit its peak of memory.
            words = [sys.executable, "-m", "tests.bench.size", trace, str(large), str(wanted * 1e9)]
            subprocess.run(words, check=True, capture_output=True)
            size = large.stat().st_size / 1e9
            for way in ways:
                taken = _measure(way, str(large), env=env)
                calls, total = taken.pop("answer")
                figures = "".join(f"{value:10.2f}" for value in taken.values())
                line = f"{way:18}{size:8.2f}{figures}{taken['peak_mb'] / size:10.0f}"
                print(f"{line}  {calls:,} calls, {total:,} ns", flush=True)
    return 0


def bench_query(path: str) -> int:
    """Every table over an open trace; the plain ways to the same rows beside them."""
    from tests.bench.query import PATIENCE, plain_ways, python_tables, sql_tables

    with traceq.open(path) as trace:
        trace.start_engine()
        sql = sql_tables(trace)
    with traceq.open(path) as trace:
        python, plain = python_tables(trace), plain_ways(trace)
    print(f"{path}: seconds of CPU for each table, in one run; limit {LIMIT_QUERY} for its own")
    print(f"{'':50}{'own':>8}{'in all':>8}")
    for name, (own, together) in sql.items():
        print(f"{name:50}{own:8.2f}{together:8.2f}")
    for name, own in python.items():
        print(f"{name:50}{own:8.2f}")
    print("without traceq's tables:")
    for name, own in plain.items():
        print(f"{name:50}{f'over {PATIENCE:.0f}' if own == math.inf else f'{own:.2f}':>8}")
    slow = [name for name, (own, _) in sql.items() if own > LIMIT_QUERY]
    slow += [name for name, own in python.items() if own > LIMIT_QUERY]
    print(f"over the limit: {', '.join(slow) or 'none'}")
    return 1 if slow else 0


def bench_diff(trace: str, runs: int) -> int:
    """A diff of a trace and a planted copy, read anew, against loading both into an engine."""
    figures: dict[str, list[dict[str, float]]] = {"diff": [], "load": []}
    with tempfile.TemporaryDirectory() as folder:
        planted, answers = str(Path(folder) / "planted.json.gz"), set()
        truth = _measure("plant", trace, planted, module=DETECT)
        without_cache = {**os.environ, "TRACEQ_CACHE_SIZE": "0"}
        for number in range(runs + 1):
            for way, taken in figures.items():
                result = _measure(way, trace, planted, module=DETECT, env=without_cache)
                answer = result.pop("answer")
                if way == "diff":
                    answers.add(json.dumps(answer))
                if number:
                    taken.append(result)
    print(f"{trace} and a planted copy under GatedDeltaNet, {runs} runs of each, medians; one run")
    kept = _against(_median(figures["diff"]), _median(figures["load"]))
    is_right = answers == {json.dumps([truth["cpu_ns"], 0])}
    print(f"change of the scopes' CPU time (ns), groups: {'right' if is_right else answers}")
    return 0 if kept and is_right else 1


def _against(diff: dict[str, float], load: dict[str, float]) -> bool:
    print(f"{'':12}{'diff':>12}{'load both':>12}{'ratio':>8}{'limit':>8}")
    for key, taken in diff.items():
        shown = f"{LIMIT_DIFF:8.2f}" if key == "cpu_s" else ""
        print(f"{key:12}{taken:12.2f}{load[key]:12.2f}{taken / load[key]:8.2f}{shown}")
    return diff["cpu_s"] <= LIMIT_DIFF * load["cpu_s"]


def bench_detect(captures: Path | None, large: Path | None) -> int:
    """Tables of how often a planted change is found, by its size; they promise nothing."""
    from tests.bench import detect

    folders = [SAMPLES, *([captures] if captures else [])]
    designs = itertools.chain.from_iterable(detect.of_folder(folder) for folder in folders)
    for design in itertools.chain(designs, map(detect.of_steps, [large] if large else [])):
        design.run()
        print("\n".join(design.lines()), flush=True)
    return 0


def bench_page(trace: str, runs: int) -> int:
    """The page of a trace and a planted copy: how large it is, and how soon a browser shows it."""
    from tests.bench.page import first_paints

    with tempfile.TemporaryDirectory() as folder:
        planted, page = str(Path(folder) / "planted.json.gz"), Path(folder) / "page.html"
        _measure("plant", trace, planted, module=DETECT)
        words = ["report", trace, planted, "--under", "GatedDeltaNet", "-o", str(page)]
        subprocess.run([sys.executable, "-m", "traceq", *words], check=True)
        size, paints = page.stat().st_size, first_paints(page, runs)
    first, drawn = (statistics.median(item[place] for item in paints) for place in (0, 1))
    print(f"{trace} and a planted copy: the page, in Chromium, from disk")
    print(f"size {size:,} bytes (limit {LIMIT_PAGE:,})")
    print(f"first paint {first:.2f} s (limit {LIMIT_PAINT}), all drawn {drawn:.2f} s; medians")
    return 0 if size <= LIMIT_PAGE and first <= LIMIT_PAINT else 1


def _measure(
    way: str, *traces: str, module: str = "tests.bench.load", env: dict[str, str] | None = None
) -> dict[str, float]:
    command = [sys.executable, "-m", module, way, *traces]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _median(figures: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(item[key] for item in figures) for key in figures[0]}


BENCHES = {
    "load": bench_load,
    "sides": bench_sides,
    "start": bench_start,
    "diff": bench_diff,
    "page": bench_page,
    "store": bench_store,
}


if __name__ == "__main__":
    sys.exit(main())
