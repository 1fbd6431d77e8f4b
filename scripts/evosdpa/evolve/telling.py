"""An evolution in a few lines of text."""

from __future__ import annotations

from typing import Any

from evosdpa.evidence import Bench
from evosdpa.evolve import credit, selecting
from evosdpa.evolve.lineage import History, Population


def told(history: History, closing: Bench) -> str:
    """A line a generation, the elites with their times and against what the evolution began with, the levers, and what to type for the page."""
    lines = []
    for screening, population in history.generations:
        dropped = sum(bool(child.dropped) for child in screening.children)
        right = sum(one.status == "ok" for one in population.results)
        entered = [one.name for one in population.results if one.entered]
        lines.append(f"generation {population.generation}: {len(population.results)} measured, {right} right, {dropped} dropped before; "
                     + (f"new elites: {', '.join(entered)}" if entered else "no new elite"))
        if population.reason:
            lines.append(f"  {population.reason}")
    last = history.generations[-1][1] if history.generations else Population(variant="evolve")
    compared = selecting.against_start(history, closing)
    for place, name in enumerate(last.elites, 1):
        beside = [f"{ratio(one)} times the time of {one['start']} in {one['mode']}" for one in compared.get(name, [])]
        lines.append(f"{place}. {name}: {'; '.join([times(last, name), *beside])}")
    lines += [f"{one.source} {one.lever} up: {words(one)}" for one in credit.of_levers(history)]
    lines.append("the page: snakemake --cores 1 results/report.html")
    return "\n".join(lines)


def ratio(one: dict[str, Any]) -> str:
    """A ratio with its interval and verdict, for example `0.962 (0.955 to 0.969, faster)`."""
    ends = f"{one['low']:.3f} to {one['high']:.3f}, " if one["low"] is not None else ""
    return f"{one['ratio']:.3f} ({ends}{one['verdict']})"


def times(population: Population, name: str) -> str:
    """An elite's times, for example `4.29 us warm, 4.97 us stream`."""
    return ", ".join(f"{time_us:.4g} us {mode}" for mode, time_us in population.times_us.get(name, {}).items()) or "no time"


def words(one: credit.Credit) -> str:
    """A lever's credit, for example `gain +3.2 % (+1.1 % to +5.3 %) over 4 children that changed it`: the share of the parent's time that the child saves."""
    def gain(ratio: float) -> str:
        return f"{100 * (1 - ratio):+.1f} %"
    interval = one.ratio.interval()
    return (f"gain {gain(one.ratio.value)}" + (f" ({gain(interval[1])} to {gain(interval[0])})" if interval else "")
            + f" over {one.pairs} child{'' if one.pairs == 1 else 'ren'} that changed it")
