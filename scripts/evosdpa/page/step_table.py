"""Each variant beside its parent: what it changed, predicted, measured and gained, and which metric moved most. From gap.json alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from evosdpa import waiting
from evosdpa.candidates import TIMED, Candidate, Search
from evosdpa.page import ladders, words
from evosdpa.page.analysis import PIPES

LEAST_POINTS = 1.0
"""Percentage points by which a unit's use must differ to count as moved."""
RANGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:-|–|to)\s*(\d+(?:\.\d+)?)\s*(?:us|µs)\b")
"""A prediction that begins with a range of times, microseconds; one in other words is judged by the reader."""


@dataclass(frozen=True)
class Step:
    """One variant beside its parent."""

    name: str
    parent: str
    key: str
    """Where the variant's card is on the page."""
    device: str
    ranked: bool
    changed: str
    predicted: str
    held: str
    """How the first mode's time stands to the predicted range: inside, above or below; empty where either is missing."""
    times: tuple[str, ...]
    """One a mode of the goal, microseconds; `–` without one."""
    gains: tuple[dict[str, Any] | None, ...]
    """One a mode of the goal: the parent's time over the variant's, with interval and verdict."""
    stale: bool
    """Whether the gain rests on evidence that is out of date."""
    moved: tuple[str, ...]
    """Metrics that moved most between the two, each with both values."""
    moved_stale: bool


def steps(search: Search) -> list[Step]:
    """Of every candidate with a parent, in the search's order."""
    by_name = {(one.name, one.view["device"]): one for one in search.candidates}
    return [_step(search, one, by_name.get((one.view["parent"], one.view["device"]))) for one in search.candidates if one.view["parent"]]


def _step(search: Search, one: Candidate, parent: Candidate | None) -> Step:
    beside = one.fact.get("vs_parent") or {}
    gains = tuple(_gain((beside.get("modes") or {}).get(mode), one) for mode in search.modes)
    moved, moved_stale = _moved(parent, one) if parent else ((), False)
    is_child = "@" in one.name
    return Step(
        name=one.name, parent=one.view["parent"], key=one.view["id"], device=one.view["device"], ranked=one.ranked,
        changed=_levers(one) if is_child else one.view["idea"], predicted="" if is_child else one.view["expects"], held="" if is_child else _held(one),
        times=tuple(words.time_us(row) if row and row.get("status") in TIMED and not one.broken else words.NOTHING for row in one.rows),
        gains=gains, stale=bool(beside.get("stale")) and any(gains), moved=moved, moved_stale=moved_stale)


def _levers(one: Candidate) -> str:
    """The levers that a child sets, from the source's own values where they are known."""
    defaults = one.fact.get("default_levers") or {}
    return ", ".join(f"{lever} {defaults[lever]} → {value}" if lever in defaults else f"{lever} = {value}"
                     for lever, value in sorted((one.fact.get("levers") or {}).items()))


def _held(one: Candidate) -> str:
    row, found = one.rows[0], RANGE.match(one.view["expects"])
    if not found or not row or not ladders.is_ranked(row):
        return ""
    low, high = map(float, found.groups())
    return "below" if row["time_us"] < low else "above" if row["time_us"] > high else "inside"


def _gain(found: dict[str, Any] | None, one: Candidate) -> dict[str, Any] | None:
    """A gain as the page shows it; None without one, or for a variant that is broken."""
    value = words.finite((found or {}).get("gain"))
    if value is None or one.broken:
        return None
    half = words.half_width(found.get("low"), found.get("high"))
    return dict(value=value, text=words.number(value, half) + words.TIMES, interval=words.interval(value, found.get("low"), found.get("high")),
                verdict=str(found.get("verdict") or "undecided"))


# What moved

def _moved(parent: Candidate, one: Candidate) -> tuple[tuple[str, ...], bool]:
    """Metrics of both, the one of each kind that moved most, and whether any is out of date. Nothing of a wrong kernel."""
    if parent.broken or one.broken:
        return (), False
    profiled = [found for found in (_unit(parent, one), _stall(parent, one)) if found]
    static = [found for found in (_cost(parent, one),) if found]
    used = ({"profile"} if profiled else set()) | ({"static"} if static else set())
    return tuple(profiled + static), bool(used & (parent.evidence.stale | one.evidence.stale))


def _change(label: str, before: str, after: str) -> str:
    return f"{label} {before} → {after}"


def _unit(parent: Candidate, one: Candidate) -> str:
    """The unit whose use, in percent of its peak, moved by the most points."""
    pairs = [(label, before, after) for start, label, _ in PIPES
             if (before := parent.evidence.metric(start)) is not None and (after := one.evidence.metric(start)) is not None]
    label, before, after = max(pairs, key=lambda pair: abs(pair[2] - pair[1]), default=("", 0.0, 0.0))
    return _change(label, *(f"{words.number(value)}{words.PERCENT}" for value in (before, after))) if abs(after - before) >= LEAST_POINTS else ""


def _stall(parent: Candidate, one: Candidate) -> str:
    """The largest stall of each, as a share of a warp's time."""
    found = [(waiting.stalls(one.evidence.states), sum(one.evidence.states.values())) for one in (parent, one)]
    if not all(stalls for stalls, _ in found):
        return ""
    shown = [f"{stalls[0][0].replace('_', ' ')} {100 * stalls[0][1] / cycles:.0f}{words.PERCENT}" for stalls, cycles in found]
    return "" if shown[0] == shown[1] else _change("largest stall", *shown)


def _cost(parent: Candidate, one: Candidate) -> str:
    """What of a launch's static costs moved by the largest factor."""
    def costs(known: Candidate) -> dict[str, tuple[float | None, str]]:
        launch, view = known.fact.get("launch") or {}, known.view["launch"]
        shared = [words.finite(launch.get(f"{kind}_shared_bytes")) for kind in ("static", "dynamic")]
        total = None if shared == [None, None] else sum(filter(None, shared))
        return {"registers": (words.finite(launch.get("registers")), view["registers"]), "shared memory": (total, words.size(total)),
                "occupancy": (words.finite(launch.get("occupancy")), view["occupancy"]), "CTAs": (words.finite(launch.get("blocks")), f"{launch.get('blocks')}"),
                "spills": (words.finite(known.fact.get("spill_bytes")), view["spills"])}

    before, after = costs(parent), costs(one)
    pairs = [(label, *(pair[label] for pair in (before, after))) for label in before if before[label][0] is not None and after[label][0] is not None]

    def share(pair: tuple[str, tuple[float, str], tuple[float, str]]) -> float:
        """How much of the larger value the difference is: 0 to 1."""
        largest = max(pair[1][0], pair[2][0])
        return abs(pair[2][0] - pair[1][0]) / largest if largest > 0 else 0.0

    pairs = [pair for pair in pairs if share(pair)]
    if not pairs:
        return ""
    label, (_, was), (_, now) = max(pairs, key=share)
    return _change(label, was, now)


def view(search: Search, cards: list[str]) -> dict[str, Any]:
    """The table for the template: its sentence, as many steps as a table has, and which of them have one of these cards on the page."""
    found = steps(search)
    order = {(str(fact.get("name") or ""), str(fact.get("device") or "")): place for place, fact in enumerate(search.document["variants"])}
    shown = sorted(found[:ladders.MOST_ROWS], key=lambda one: (one.device != search.device, order[one.name, one.device]))  # as the configuration has them
    return dict(answer=answer(search, found), shown=shown, left_out=len(found) - len(shown), linked=set(cards), device=search.device)


# The sentence

def answer(search: Search, found: list[Step]) -> str:
    """How many steps gained, in the goal's first mode, which gained and lost most, and how many predictions held."""
    if not found:
        return "No variant names a parent."
    text = f"{words.plural(len(found), 'variant')} {'names' if len(found) == 1 else 'name'} a parent; {_gained(found, search.modes[0])}"
    predicted = [one for one in found if one.held]
    if predicted:
        text += f" Of {words.plural(len(predicted), 'predicted range')} with a time {sum(one.held == 'inside' for one in predicted) or 'none'} held."
    return text


def _gained(found: list[Step], mode: str) -> str:
    judged = [(one, one.gains[0]) for one in found if one.gains[0] and not one.stale]
    if not judged:
        return f"of none can a gain be told in {mode} mode: that takes a right and current time of both, by one protocol."
    by_verdict = {verdict: [pair for pair in judged if pair[1]["verdict"] == verdict] for verdict in ("faster", "slower", "same", "undecided")}
    counts = [f"{len(pairs)} {word}" for pairs, word in zip(by_verdict.values(), ("faster", "slower", "as fast", "undecided")) if pairs]
    text = f"of {len(judged)} a gain can be told in {mode} mode: {words.listed(counts)}."
    if by_verdict["faster"]:
        best, gain = max(by_verdict["faster"], key=lambda pair: (pair[1]["value"], pair[0].name))
        text += f" The largest: {best.name} over {best.parent}, {gain['text']} as fast."
    if by_verdict["slower"]:
        worst, gain = min(by_verdict["slower"], key=lambda pair: (pair[1]["value"], pair[0].name))
        text += f" A step back: {worst.name} has only {gain['text']} the speed of {worst.parent}."
    return text
