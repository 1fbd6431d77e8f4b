"""What to do next: mend, measure, prove the gate, or make a variant faster, each with what to type."""

from __future__ import annotations

from dataclasses import dataclass

from evosdpa import requirements
from evosdpa.candidates import Candidate, Search
from evosdpa.page import words
from evosdpa.writeup_words import code, gain, one_line, sentence

MOST_NEXT = 3
MOST_NAMES = 8
"""Names in one command; more are measured by `all`."""
SNAKEMAKE = "snakemake --cores 1"


@dataclass(frozen=True)
class Action:
    """Something to do next, and what to type, if anything."""

    text: str
    """A line, with code between backticks; no stop at its end."""
    command: str = ""

    def __str__(self) -> str:
        return sentence(self.text + (f". {code(self.command)}" if self.command else "."))


def command(names: list[str]) -> str:
    """What to type to have these variants measured."""
    return f"{SNAKEMAKE} {' '.join(names) if len(names) <= MOST_NAMES else 'all'}"


def steps(search: Search, one: Candidate) -> list[Action]:
    """What to do about one candidate."""
    if one.broken and one.view["stale"]:
        return [Action(f"it changed since: check it again{search.elsewhere(one.view['device'])}", f"{SNAKEMAKE} {one.name}")]
    if one.broken:
        return [Action("mend it: until it is right, its speed says nothing", f"{SNAKEMAKE} {one.name}")]
    if one.status in ("not run", "unsupported", "not permitted", "unstable"):
        return [Action(f"measure it{search.elsewhere(one.view['device'])}", f"{SNAKEMAKE} {one.name}")] if one.status != "unsupported" else []
    found = [Action(f"measure it again{search.elsewhere(one.view['device'])}", f"{SNAKEMAKE} {one.name}")] if one.view["stale"] else []
    return found + from_insights(search, one)


def from_insights(search: Search, one: Candidate) -> list[Action]:
    """What its insights point at, the largest bound first; a lever's next value where that child was not tried yet."""
    found = []
    for insight in one.insights:
        if not insight.bound.share:
            continue
        known = {other.name for other in search.candidates if other.fact.get("status") != "not_run"}
        move = next((move for move in insight.moves if move.child not in known), None)
        if move:
            found.append(Action(f"{insight.technique}; gains at most {gain(insight, one.evidence)}; "
                                f"the lever {move.lever} goes that way, {move.now} to {move.then}",
                                f"{SNAKEMAKE} {move.child}"))
        else:
            found.append(Action(f"{insight.technique}; gains at most {gain(insight, one.evidence)}"))
        if len(found) == MOST_NEXT:
            break
    return found


def actions(search: Search) -> tuple[list[Action], list[Action]]:
    """What could make it faster, and what would tell more: mend, measure again, measure at all, prove the gate."""
    best, _ = search.subject()
    faster = [] if best is None or best.fact.get("on_cpu") else from_insights(search, best)
    required = set(map(str, search.document["required"]))
    more: list[Action] = []
    broken = sorted((one for one in search.candidates if one.broken), key=lambda one: one.name not in required)
    for one in broken[:MOST_NAMES]:
        said = f"{code(one.name)}{' (required)' if one.name in required else ''}, {one.status}"
        if one.view["stale"]:
            more.append(Action(f"check {said}, again{search.elsewhere(one.view['device'])}: it changed since ({one_line(one.view['changed'])})",
                               f"{SNAKEMAKE} {one.name}"))
        else:
            more.append(Action(f"mend {said}: {one_line(one.view['reason'], 160)}", f"{SNAKEMAKE} {one.name}"))
    for device in dict.fromkeys(one.view["device"] for one in search.candidates):
        mine = [one for one in search.candidates if one.view["device"] == device]
        stale = [one.name for one in mine if one.view["stale"] and not one.broken]
        absent = [one.name for one in mine if one.status in ("not run", "unstable")]
        unprofiled = [one.name for one in mine if one.ranked and not one.fact.get("on_cpu") and not one.evidence.metrics]
        for names, verb, why in ((stale, "measure again", "stale"), (absent, "measure", "without a time"), (unprofiled, "profile", "timed only")):
            if names:
                more.append(Action(f"{verb}{search.elsewhere(device)} what is {why}: {words.listed(map(code, names), 5)}", command(names)))
    rivals = [row for mode in search.modes for row in search.rivals(mode)]
    if search.device and search.candidates and (not rivals or any(row.get("stale") for row in rivals)):
        more.append(Action(f"time the rivals{' again' if rivals else ''}{search.elsewhere(search.device)}: without that there is no verdict against them",
                           f"{SNAKEMAKE} results/{search.device}/rivals/bench.json"))
    gate = [line.partition("; run `")[0] for line in requirements.gate_lines(search.document)]  # the command follows
    if gate:
        others = f"; and {len(gate) - 1} more" if len(gate) > 1 else ""
        more.append(Action(f"let the gate prove itself ({one_line(gate[0], 200)}{others})", f"{SNAKEMAKE} selftest"))
    if search.document["errors"]:
        more.append(Action(f"restore from git or delete {words.plural(len(search.document['errors']), 'evidence file')} that cannot be read",
                           f"{SNAKEMAKE} all"))
    if not search.candidates:
        more.append(Action("write a variant into `kernels/`", f"{SNAKEMAKE} all"))
    return faster, more
