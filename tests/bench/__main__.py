"""``python -m tests.bench load|query|diff|detect [TRACE]``: costs, measured in one run.

``load``: opening a trace against feeding the engine its JSON. Each figure comes from processes of
its own, the two ways in turn, after one uncounted run that fills the caches of files and of the
compiled engine. ``query``: every table over an open trace, beside the plain ways to the same rows.
``diff``: a trace against itself with a planted change, beside the time of loading both; measured as
``load`` is. ``detect``: how often a planted change is found, by its size and the number of
captures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import traceq

LARGE = "gdn-h200-large/einops.json.gz"
LIMIT_CPU, LIMIT_MEMORY = 0.45, 1.0
LIMIT_QUERY = 1.0
"""Seconds of CPU that one table may take, those that it is built on being there."""
LIMIT_DIFF = 2.0
"""CPU time of a diff, as so many times that of loading both of its traces."""
DETECT = "tests.bench.detect"
SAMPLES = Path(__file__).parents[2] / "sample_traces"


def main() -> int:
    """Run a benchmark; the exit code tells whether it kept its promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("what", choices=["load", "query", "diff", "detect"])
    parser.add_argument("trace", nargs="?", default=str(_corpus() / LARGE))
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each way")
    parser.add_argument("--large", action="store_true", help="detect: also by the steps of TRACE")
    parser.add_argument("--captures", type=Path, help="detect: also in captures of this folder")
    options = parser.parse_args()
    if options.what == "detect" and not options.large:
        return bench_detect(options.captures, None)
    if not Path(options.trace).exists():
        parser.error(f"{options.trace}: no such file; name a trace")
    if options.what == "query":
        return bench_query(options.trace)
    if options.what == "diff":
        return bench_diff(options.trace, options.runs)
    if options.what == "detect":
        return bench_detect(options.captures, Path(options.trace))
    return bench_load(options.trace, options.runs)


def _corpus() -> Path:
    default = Path(__file__).parents[3] / "shared" / "corpus"
    return Path(os.environ.get("TRACEQ_CORPUS", default))


def bench_load(trace: str, runs: int) -> int:
    """Open and one query, against the same engine fed the raw JSON."""
    figures: dict[str, list[dict[str, float]]] = {"traceq": [], "raw JSON": []}
    answers = set()
    for number in range(runs + 1):
        for way, taken in figures.items():
            result = _measure(way, trace)
            answers.add(json.dumps(result.pop("answer")))
            if number:
                taken.append(result)
    print(f"{trace}: open and one query, {runs} runs of each, medians; same engine, one run")
    ours, theirs = _median(figures["traceq"]), _median(figures["raw JSON"])
    print(f"{'':12}{'traceq':>12}{'raw JSON':>12}{'ratio':>8}{'limit':>8}")
    limits = {"cpu_s": LIMIT_CPU, "wall_s": float("inf"), "peak_mb": LIMIT_MEMORY}
    for key, limit in limits.items():
        ratio = ours[key] / theirs[key]
        shown = f"{limit:8.2f}" if limit != float("inf") else ""
        print(f"{key:12}{ours[key]:12.2f}{theirs[key]:12.2f}{ratio:8.2f}{shown}")
    print(f"answers: {'equal' if len(answers) == 1 else 'DIFFERENT'}: {' / '.join(answers)}")
    kept = all(ours[key] <= limit * theirs[key] for key, limit in limits.items())
    return 0 if kept and len(answers) == 1 else 1


def bench_query(path: str) -> int:
    """Every table over an open trace; the plain ways to the same rows beside them."""
    from tests.bench.query import PATIENCE, plain_ways, python_tables, sql_tables

    with traceq.open(path) as trace:
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
    """A diff of a trace and a planted copy, against loading the two."""
    figures: dict[str, list[dict[str, float]]] = {"diff": [], "load": []}
    with tempfile.TemporaryDirectory() as folder:
        planted, answers = str(Path(folder) / "planted.json.gz"), set()
        truth = _measure("plant", trace, planted, module=DETECT)
        for number in range(runs + 1):
            for way, taken in figures.items():
                result = _measure(way, trace, planted, module=DETECT)
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


def _measure(way: str, *traces: str, module: str = "tests.bench.load") -> dict[str, float]:
    command = [sys.executable, "-m", module, way, *traces]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _median(figures: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(item[key] for item in figures) for key in figures[0]}


if __name__ == "__main__":
    sys.exit(main())
