"""A part of a trace: its tables are those of the whole, and nothing is lost without a word."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tracemaker as tm
from traceq import TraceqError
from traceq.limits import Limits
from traceq.loading import open_trace
from traceq.model import NOT_IN_PART
from traceq.trace import Trace

SAMPLES = Path(__file__).parent.parent / "sample_traces"


def tables(trace: Trace, limits: Limits) -> dict[str, pd.DataFrame]:
    """What the commands show of a trace under limits."""
    windows = trace.windows(steps=limits.steps, skip_first=limits.skip_first, window=limits.window)
    under = limits.under
    found = {
        f"scopes by {by}": trace.scopes(under, by, windows=windows)
        for by in ("class", "instance", "layer")
    }
    found["ops"] = trace.ops(under, windows=windows)
    found["kernels"] = trace.kernels(under, windows=windows)
    found["tree"] = by_path(trace.tree(under, windows=windows))
    steps = trace.steps()[["step", "name", "ts", "dur"]]
    found["steps"] = steps[steps["step"].notna()]  # without the work outside of them
    return found


def by_path(tree: pd.DataFrame) -> pd.DataFrame:
    """A tree's nodes by the names on their paths: their order follows the first calls of all."""
    paths: dict[int, str] = {-1: ""}
    for node, above, name in zip(tree["node"], tree["parent"], tree["name"], strict=True):
        paths[node] = f"{paths[above]}/{name}"
    table = pd.DataFrame(tree).assign(path=[paths[node] for node in tree["node"]])
    table = table.drop(columns=["node", "parent"])
    return table.sort_values(["path", "kind", "calls", "gpu_total"], ignore_index=True)


def check_part(path: Path, limits: Limits) -> Trace | None:
    """Fails where a table of the part differs from the whole's; None where there is no part."""
    with open_trace(path, cache=False) as whole:
        try:
            wanted = tables(whole, limits)
        except TraceqError as error:
            with pytest.raises(type(error), match=re.escape(error.message)):
                open_trace(path, cache=False, part=limits)
            return None
        part = open_trace(path, cache=False, part=limits)
        found = tables(part, limits)
        for name, table in wanted.items():
            pd.testing.assert_frame_equal(
                pd.DataFrame(found[name]), pd.DataFrame(table), obj=f"{name} {limits.words}"
            )
        assert part.gpu_account(limits.under) is not None
        check_ledger(whole, part)
        return part


def check_ledger(whole: Trace, part: Trace) -> None:
    """Fails where the part's ledger does not account for every event of the file."""
    for (phase, category), row in part.ledger.tallies.items():
        assert row.read == row.loaded + row.not_carried + row.unreadable, (phase, category)
        assert row.read == whole.ledger.tallies[phase, category].read
        assert min(row.loaded, row.clamped, row.on_overflow_lane) >= 0
    for reason, count in part.ledger.reasons.items():
        # Arrows that join nothing may be left out for that they are not in the part.
        assert reason == NOT_IN_PART or count <= whole.ledger.reasons[reason]
    assert part.ledger.reasons.total() == sum(
        row.not_carried + row.unreadable for row in part.ledger.tallies.values()
    ) + _clamped(part)
    assert whole.ledger.total.read == part.ledger.total.read


def _clamped(trace: Trace) -> int:
    """How often the ledger's reasons tell of values that were changed."""
    return sum(
        count for reason, count in trace.ledger.reasons.items() if "set to 0" in reason
    ) + sum(count for reason, count in trace.ledger.reasons.items() if "ended with" in reason)


SPANS = st.tuples(st.integers(0, 80), st.integers(1, 60)).map(
    lambda span: f"{span[0]}us:{span[0] + span[1]}us"
)
LIMITS = st.builds(
    Limits,
    under=st.one_of(
        st.none(),
        st.sampled_from(["A_", "B_0", "label", "aten::y", "A_0", "m.py"]).map(lambda x: (x,)),
    ),
    steps=st.one_of(st.none(), st.none(), st.sampled_from(["0", "5", "5:7", "1:", "-1:"])),
    skip_first=st.sampled_from([False, False, True]),
    window=st.one_of(st.none(), SPANS),
)


@given(events=tm.gpu_traces(), limits=LIMITS)
def test_tables_of_a_part_are_those_of_the_whole(
    tmp_path: Path, events: list[tm.Event], limits: Limits
) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(tm.compact(events))
    check_part(path, limits)


@pytest.mark.parametrize("name", ["einops-0", "flatten-2"])
@pytest.mark.parametrize(
    "limits",
    [
        Limits(window="1ms:3ms"),
        Limits(window=":100us"),
        Limits(steps="9"),
        Limits(steps="9:11", under=("GatedDeltaNet",)),
        Limits(under=("GatedDeltaNet",)),
        Limits(under=("RMSNorm",), window="10ms:"),
        Limits(skip_first=True),
    ],
    ids=lambda limits: limits.words,
)
def test_parts_of_samples(name: str, limits: Limits) -> None:
    part = check_part(SAMPLES / f"{name}.json.gz", limits)
    assert part is not None
    assert part.ledger.reasons[NOT_IN_PART] > 0
