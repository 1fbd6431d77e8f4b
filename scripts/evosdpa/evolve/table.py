"""What a recorded evolution found, as README's tables."""

from __future__ import annotations

from typing import Any

from evosdpa import evidence, gap, machine, table_cells as cells
from evosdpa.config import Config
from evosdpa.evidence import Status
from evosdpa.evolve import document, telling


MADE = {"guided": "followed rules or credit", "explore": "drawn blindly", "crossover": "crossed with another elite",
        "generator": "written by a program"}
"""How children were made, by operator."""


def of(config: Config) -> str:
    """The recorded evolution on the configured device. Raises EvidenceError for evidence that cannot be read."""
    histories, errors = document.found(("recorded",))
    if errors:
        raise evidence.EvidenceError(errors[0])
    device = config.show_device
    if device not in histories:
        return f"No evolution is recorded on {device} yet.\n"
    own = {device: histories[device]}
    found = gap.Gap(config, document.measured(own), None, machine.DEFAULT_ARCH, origins=("recorded",))
    entry = document.evolutions(found, own)[0]
    lines = [*_about(entry), "", *_elites(entry), "", *_levers(entry)]
    if entry["changed"]:
        lines += ["", f"Stale (changed since: {', '.join(entry['changed'])})."]
    return "\n".join(lines) + "\n"


def _about(entry: dict[str, Any]) -> list[str]:
    made = [child for child in entry["children"] if child["parent"]]
    dropped = sum(bool(child["dropped"]) for child in made)
    right = sum(child["status"] == Status.OK for child in made)
    ways = [f"{count} {said}" for way, said in MADE.items() if (count := sum(child["operator"] == way for child in made))]
    name = entry["finals"].get("device", {}).get("name") or entry["device"]
    first = next(iter(entry["elites"]), "")
    leads = f" `{first}`, with which it began, still leads." if entry["closed"] and first in entry["begun_with"] else ""
    ended = "" if entry["closed"] else " It was broken off before its last comparison, so nothing is said of an elite against what it began with."
    return [f"Recorded on {'one' if entry['cards'] == 1 else entry['cards']} {name}, {entry['finals'].get('ended', '')[:10]}; `{entry['problem']}`, microseconds. "
            f"{len(entry['generations']) - 1} generations after the start, {len(made)} children ({', '.join(ways)}): "
            f"{len(made) - dropped} measured, {right} of them right, {dropped} dropped before; {entry['measured_s'] / 60:.0f} minutes of "
            f"measuring.{ended}{leads} "
            + ("The elites, with the last comparison against the variant of their source that it began with:" if entry["closed"] else "The elites:")]


def _elites(entry: dict[str, Any]) -> list[str]:
    modes, children = entry["modes"], {child["name"]: child for child in entry["children"]}
    compared = modes if entry["closed"] else []
    lines = cells.head(["elite", "made from", "changed"], [*modes, *(f"over the start's, {mode}" for mode in compared)])
    for name in entry["elites"]:
        child, times = children.get(name, {}), entry["times_us"].get(name, {})
        ratios = {one["mode"]: one for one in entry["against_start"].get(name, [])}
        changed = ", ".join(f"{one['lever']} {one['before']} -> {one['after']}" for one in child.get("changes", []))
        own = (cells.rounded(times[mode], None) if mode in times else "" for mode in modes)
        over = (telling.ratio(ratios[mode]) if mode in ratios else "" for mode in compared)
        lines.append(cells.row([f"**{name}**", child.get("parent") or "given", changed, *own, *over]))
    return lines


def _levers(entry: dict[str, Any]) -> list[str]:
    lines = cells.head(["lever, towards its larger value"], ["children that changed it", "time after over before"], ["95 % interval"])
    for one in entry["levers"]:
        ends = f"{one['low']:.3f} to {one['high']:.3f}" if one["low"] is not None else ""
        lines.append(cells.row([f"{one['source']} {one['lever']}", str(one["pairs"]), f"{one['ratio']:.3f}", ends]))
    return lines
