"""What the top of the page says of the best variant in a few numbers, and whether its measurement can be trusted at a glance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from evosdpa.page import facts, gate, ladders, words
from evosdpa.page.ladders import Row


@dataclass(frozen=True)
class Tile:
    """What a number is, and for each mode the number and what stands beside it."""

    title: str
    lines: tuple[tuple[str, str], ...]


def tiles(document: dict[str, Any], first_gate: gate.Proof) -> list[Tile]:
    """The best variant: its times, against the goal and the best rival, the floor's share of them, correctness and the gate. Nothing without
    a variant that has a rank."""
    name, found = ladders.closest(document)
    rows = [found[mode] for mode in map(str, document["goal"].get("modes") or []) if mode in found]
    if not rows:
        return []

    def tile(title: str, number: Callable[[Row], str], beside: Callable[[Row], str]) -> Tile:
        return Tile(title, tuple((f"{number(row)} {row.get('mode')}", beside(row)) for row in rows))

    return [
        tile(f"best variant: {name}", lambda row: f"{words.time_us(row)} µs", _interval),
        tile("over the goal’s time", words.versus_goal, lambda row: _goal(document, row)),
        tile("over the best rival’s time", lambda row: words.versus_rival(row) or words.NOTHING, _rival),
        tile("the floor’s share of the time", _share, lambda row: "of the slowest floor in the same processes"),
        _correct(document, name, first_gate)]


def _interval(row: Row) -> str:
    ends = words.time_interval(row)
    return f"95{words.PERCENT} CI {ends}" if ends else "no interval"


def _goal(document: dict[str, Any], row: Row) -> str:
    limit = words.finite(document["goal"].get("time_us"))
    return ladders.against_goal(row, limit)[0] if limit else ""


def _rival(row: Row) -> str:
    if words.finite(row.get("vs_best_rival")) is None:
        return "no current time of a rival"
    ends = words.interval(*(row.get(key) for key in ("vs_best_rival", "vs_best_rival_low", "vs_best_rival_high")))
    return f"{row.get('best_rival')}, {row.get('verdict') or 'no verdict'}{f', CI {ends}' if ends else ''}"


def _share(row: Row) -> str:
    over = words.finite(row.get("vs_floor"))
    return words.percent(1 / over) if over and over > 0 else words.NOTHING


def _correct(document: dict[str, Any], name: str, first_gate: gate.Proof) -> Tile:
    fact = next((one for one in document["variants"] if (one.get("name"), one.get("device")) == (name, document["leading_device"])), {})
    checked = fact.get("correctness") or {}
    mark, text = facts.verdict(checked.get("counts") or {})
    return Tile("right answers", ((f"{mark.glyph} {text} cases" if text else words.NOTHING, f"worst error {words.allowance(checked.get('worst_ratio'))} of what is allowed"),
                                  ("", first_gate.badge[1])))


def health(document: dict[str, Any]) -> tuple[str, str] | None:
    """The badge about the processes that timed the best variants on the leading device: a tone, and how many count; None without a record."""
    every = [one for entry in document["processes"] if entry.get("device") == document["leading_device"] for one in entry.get("processes") or []]
    if not every:
        return None
    rejected, late = sum(not one.get("accepted") for one in every), sum(int(words.finite(one.get("late")) or 0) for one in every)
    samples = late + sum(int(words.finite(one.get("samples")) or 0) for one in every)
    said = f"{rejected} of {len(every)} timed processes rejected" if rejected else f"all {len(every)} timed processes steady"
    return "warn" if rejected else "good", f"{said}; {late} of {samples:,} samples came late and were dropped"
