"""Makes many rank files of one run out of a real one: other ranks, other durations.

``python -m tests.rank_files TRACE FOLDER COUNT`` writes ``rank0.json.gz`` and so on. Each has the
events of TRACE, its own number in ``distributedInfo`` and in the kernel launches' process names,
and durations that are longer by a few nanoseconds that depend on the rank alone.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from isal import igzip

_DUR = re.compile(rb'("dur": ?)(\d+)\.(\d{3})')
_RANK = re.compile(rb'("rank": ?)\d+')
_WORLD = re.compile(rb'("world_size": ?)\d+')
_DISTRIBUTED = b'"distributedInfo": {"backend": "nccl", "rank": 0, "world_size": 1},\n'


def write_ranks(source: Path, folder: Path, count: int) -> list[Path]:
    """Write so many rank files; their paths, in the order of the ranks."""
    text = igzip.decompress(source.read_bytes())
    if b'"distributedInfo"' not in text:
        text = text.replace(b"{", b"{\n" + _DISTRIBUTED, 1)
    text = _WORLD.sub(rb"\g<1>%d" % count, text)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for rank in range(count):
        path = folder / f"rank{rank}.json.gz"
        path.write_bytes(igzip.compress(_of_rank(text, rank), 1))
        paths.append(path)
    return paths


def _of_rank(text: bytes, rank: int) -> bytes:
    text = _RANK.sub(rb"\g<1>%d" % rank, text)
    more = rank % 7  # too little for any slice to end after the one around it by a whole µs
    return _DUR.sub(
        lambda found: b"%s%s.%03d" % (found[1], found[2], min(int(found[3]) + more, 999)), text
    )


def main() -> None:
    """Write rank files."""
    source, folder, count = sys.argv[1:]
    write_ranks(Path(source), Path(folder), int(count))


if __name__ == "__main__":
    main()
