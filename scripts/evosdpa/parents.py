"""A variant beside its parent: who that is, and how much faster the variant is, as far as the evidence may say."""

from __future__ import annotations

from typing import Any

from evosdpa import benchmarking, between_runs, stats, variants
from evosdpa.evidence import Status
from evosdpa.gap import Gap
from evosdpa.stats import Estimate
from evosdpa.table_cells import TIMED

Row = dict[str, Any]


def parent_of(name: str) -> str | None:
    """The variant that a variant is compared with: for other lever values the source's own, for a source the one that its header names."""
    stem, _, levers = name.partition("@")
    return stem if levers else variants.header(variants.resolve(name).source).parent


def gain(gap: Gap, above: Row | None, below: Row | None) -> Estimate | None:
    """A parent's time over its child's, of two rows of gap.csv of one device, problem and mode: above 1 the child is faster. None unless
    both are right, both times are ok, and both were taken by one protocol and came from the same place, here or elsewhere."""
    medians = [_medians(gap, row) for row in (above, below)]
    if not all(medians):
        return None
    pieces = [gap.chains[row["device"], row["name"]].pieces["bench"] for row in (above, below)]
    names = benchmarking.bench_parts(None, gap.config, below["device"] == "cpu")
    protocols = [{part: piece.record.key_parts.get(part) for part in names} for piece in pieces]
    if protocols[0] != protocols[1] or pieces[0].origin != pieces[1].origin:
        return None
    return between_runs.quotient(*map(stats.of_medians, medians))


def _medians(gap: Gap, row: Row | None) -> list[float]:
    """The process medians behind a row's time, microseconds; none unless the time is ok and the variant right."""
    if not row or row["status"] != Status.OK or gap.status(row["name"], row["device"])[0] not in TIMED:
        return []
    timings = gap.chains[row["device"], row["name"]].get("bench").timings
    return next((one.process_medians_us for one in timings if (one.problem, one.mode) == (row["problem"], row["mode"])), [])


def beside(gap: Gap, times: dict[tuple[str, str], dict[str, Row]], name: str, device: str) -> dict[str, Any]:
    """What gap.json holds of a variant's parent: its name, whether the evidence of either is stale, and by mode the gain with its 95 %
    interval and the verdict on the variant. `times` are rows of one problem by variant and device, then mode. Empty without a parent."""
    parent = parent_of(name)
    if parent is None:
        return {}
    above, below = (times.get((one, device), {}) for one in (parent, name))
    gains = {}
    for mode, row in below.items():
        found = gain(gap, above.get(mode), row)
        if found is not None:
            low, high = found.interval() or (None, None)
            over_parent = Estimate(-found.log_mean, found.log_error, found.freedom)  # a verdict is about the child's time over the parent's
            gains[mode] = dict(gain=found.value, low=low, high=high, verdict=stats.verdict(over_parent))
    return dict(name=parent, stale=any(row["stale"] for row in (*above.values(), *below.values())), modes=gains)
