"""Figures of a comparison: which of its parts are drawn, and what is said of them.

Drawing itself is left to ``plotting``, the sentences are those of ``report.verdicts``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from traceq.evidence import Evidence
from traceq.groups import Group
from traceq.maps import JOINED
from traceq.names import shorten
from traceq.plotting import Bar, draw_distribution, draw_waterfall
from traceq.report.verdicts import mean_time, op_fact, scope_fact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from traceq.compare import Diff


@dataclass(frozen=True)
class DiffPlots:
    """Figures of a comparison."""

    diff: Diff

    def waterfall(self, most: int = 8) -> Figure:
        """From the scopes' CPU time before to that after (means of the captures), part by part.

        Hatched is what is not shown to be more than noise; unchanged code always is.
        """
        diff, groups = self.diff, self.diff.groups
        bars = _bars(diff)
        if rest := bars[most:]:
            told = all(bar.is_told for bar in rest)
            bars = [*bars[:most], Bar(f"({len(rest):,} more)", sum(b.delta for b in rest), told)]
        bars.append(Bar("(unchanged code)", _change(groups.unchanged), is_told=False))
        before = sum(_mean(group, "before") for group in (*groups.rows, groups.unchanged))
        where = f"under {', '.join(diff.under)}" if diff.under else "of the whole trace"
        title = f"CPU time {where}: {scope_fact(diff, 'cpu')}"
        several = max(len(diff.before.captures), len(diff.after.captures)) > 1
        label = "CPU time, means of the captures" if several else "CPU time"
        return draw_waterfall(before, bars, title, label)

    def distribution(self, match: str) -> Figure:
        """How long each call of the ops that match took, before and after, in all captures.

        Where several ops match, a call below another of them is left out. Raises PatternError where
        nothing matches.
        """
        diff = self.diff
        ops = diff.ops_matching(match)
        before, after = diff.calls_of(*ops)
        where = f" under {', '.join(diff.under)}" if diff.under else ""
        title = f"{len(ops)} ops that match {match!r}{where}: {', '.join(ops)}"
        if len(ops) == 1:
            title = f"{ops[0]}{where}; {op_fact(diff, ops[0])}"
        return draw_distribution([("before", before), ("after", after)], title)


def _bars(diff: Diff) -> list[Bar]:
    """What became of the code, most change first."""
    bars = [
        Bar(_name(group), _change(group), _is_told(diff.evidence, str(number), group))
        for number, group in enumerate(diff.groups.rows)
    ]
    return sorted(bars, key=lambda bar: -abs(bar.delta))


def _is_told(evidence: Evidence, number: str, group: Group) -> bool:
    """Whether the time of a group changed by more than noise; one side's alone did as such."""
    finding = evidence.of("groups", number)
    return group.is_steady and (finding is None or finding.verdict.is_change)


def _mean(group: Group, side: str) -> float:
    return mean_time(group, side) or 0.0


def _change(group: Group) -> float:
    return _mean(group, "after") - _mean(group, "before")


def _name(group: Group) -> str:
    old, new = (shorten(JOINED.join(ops), 40) for ops in (group.key.before, group.key.after))
    return f"{old} → {new}" if old and new else old or new
