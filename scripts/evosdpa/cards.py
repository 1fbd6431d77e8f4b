"""A card a variant: status, metrics, what works, what holds it back, next steps. Made once; the summary and the page only format it.

Texts are plain, with code between backticks: writeup_words.marked makes Markdown of them, the page HTML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evosdpa import insights, next_actions
from evosdpa.candidates import ELITES, TIMED, Candidate, Search
from evosdpa.insights import Insight
from evosdpa.next_actions import Action
from evosdpa.page import ladders, words
from evosdpa.variant_evidence import Evidence
from evosdpa.writeup_words import code, gain, one_line, reading, sentence, threshold

MOST_INSIGHTS = 5
"""Insights of one card; the rest is named."""


@dataclass(frozen=True)
class Metric:
    """One number about a variant, with what it is called."""

    name: str
    value: str


@dataclass(frozen=True)
class Hold:
    """One thing that holds a variant back, as a rule sees it in the evidence."""

    meaning: str
    reading: str
    """The metric and its value."""
    threshold: str
    """From where on the rule speaks."""
    technique: str
    lever: str
    """The variant's lever that does it, and its next value; empty where it has none."""
    gain: str
    """The most that mending this one thing can gain."""
    why: str
    """Why it cannot be more."""
    stale: bool
    """Whether it rests on evidence that is out of date."""

    def __str__(self) -> str:
        out_of_date = "; from evidence that is out of date" if self.stale else ""
        return f"{self.meaning} ({self.reading}, threshold {self.threshold}); mending it gains at most {self.gain}{out_of_date}"


@dataclass(frozen=True)
class Card:
    """What is to be said of a candidate. Every text is whole: it begins with a capital and ends with a stop, but for metrics."""

    status: str
    about: str
    """Its idea, parent and prediction, from its source; empty where that says nothing."""
    bare: bool
    """Neither measured nor inspected: only status and next steps say something."""
    metrics: tuple[Metric, ...]
    works: tuple[str, ...]
    troubles: tuple[str, ...]
    """What keeps it, or one of its modes, from a rank."""
    holds: tuple[Hold, ...]
    less: tuple[str, ...]
    """Names of the rules that see less than those of `holds`."""
    silent: str
    """What to say where nothing is seen that holds it back."""
    steps: tuple[Action, ...]


def card(search: Search, one: Candidate) -> Card:
    """The card of one of a search's candidates."""
    view, judged = one.view, not (one.broken or one.status == "unsupported")  # a wrong kernel's speed says nothing
    about = [part for part in (one_line(view["idea"]), f"parent {code(view['parent'])}" if view["parent"] else "",
                               f"predicted: {one_line(view['expects'])}" if view["expects"] else "") if part]
    seen = one.insights if judged else ()
    silent = "no rule speaks" if one.evidence.metrics else "not known: nothing was profiled that a rule could judge"
    return Card(
        status=_status(search, one), about=sentence("; ".join(about)), bare=one.status == "not run" and not view["launch"]["kernel"],
        metrics=tuple(_metrics(search, one)), works=tuple(map(sentence, _works(search, one))), troubles=tuple(map(sentence, _troubles(one, judged))),
        holds=tuple(_hold(insight, one.evidence) for insight in seen[:MOST_INSIGHTS]), less=tuple(insight.rule for insight in seen[MOST_INSIGHTS:]),
        silent=sentence("the rules are about GPUs" if one.fact.get("on_cpu") else silent), steps=tuple(next_actions.steps(search, one)))


def correct(one: Candidate) -> str:
    """Right cases out of those that it supports; empty where nothing was checked."""
    counts = (one.fact.get("correctness") or {}).get("counts") or {}
    refused = counts and not any(count for status, count in counts.items() if status != "unsupported")
    return "none supported" if refused else one.view["correct"]["text"]


def over_sdpa(one: Candidate, mode: str) -> str:
    """Its time over that of PyTorch's default SDPA, taken in the same processes; empty without one."""
    found = _anchor(one, mode)
    return words.number(found["ratio"], words.half_width(found.get("low"), found.get("high"))) + words.TIMES if found else ""


def _anchor(one: Candidate, mode: str) -> dict[str, Any]:
    found = (one.fact.get("vs_anchor") or {}).get(mode) or {}
    return found if words.finite(found.get("ratio")) is not None and one.evidence.times_us.get(mode) else {}


def _status(search: Search, one: Candidate) -> str:
    parts = [f"{one.view['mark'].glyph} {one.status}"]
    if one.ranked:
        peers = [other for other in search.candidates if other.ranked and other.view["device"] == one.view["device"]]
        place = peers.index(one) + 1
        rank = "the only one with a rank" if len(peers) == 1 else f"number {place} of {len(peers)} with a rank"
        parts.append(f"{'elite, ' if one in search.ranked[:ELITES] else ''}{rank}")
        tied = ladders.tied(one.rows[0], [other.rows[0] for other in peers[place:place + 4]])
        if tied:
            parts.append(f"not told apart from {words.listed(tied)}")
    if one.view["reason"]:
        parts.append(one_line(one.view["reason"]))
    if one.view["stale"]:
        parts.append(f"changed since: {one_line(one.view['changed']) or 'unknown'}; no rank until it is measured again")
    timed = [row for row in one.rows if row and words.finite(row.get("time_us"))]
    dates = sorted({words.date(row["recorded_on"]) for row in timed if row.get("recorded_on")})
    origins = sorted({str(row["origin"]) for row in timed if row.get("origin")})
    if dates:
        parts.append(f"{' and '.join(origins)} on {one.view['device']}, {' and '.join(dates)}")
    return sentence("; ".join(parts))


def _metrics(search: Search, one: Candidate) -> list[Metric]:
    found = []
    for mode, row in zip(search.modes, one.rows):
        if row and words.finite(row.get("time_us")) is not None and row.get("status") in TIMED:
            ends, over = words.time_interval(row), words.versus_goal(row) if one.view["device"] == search.device else ""
            found.append(Metric(mode, f"{words.time_us(row)} µs" + (f" ({ends})" if ends else "")
                                + (f", {over} the goal" if over and over != words.NOTHING else "")
                                + (f" [{words.mark(row['status']).text}]" if row["status"] != "ok" else "")))
    if not found:
        found.append(Metric("time", "not measured on the goal's problem"))
    compared = [f"{shown} {mode}" for mode in search.modes if (shown := over_sdpa(one, mode))]
    if compared:
        name = next(_anchor(one, mode)["name"] for mode in search.modes if _anchor(one, mode))
        found.append(Metric(f"over SDPA ({one_line(name)})", ", ".join(compared)))
    rival = ladders.against_rival(one.rows[0]) if one.rows[0] else ""
    found += [Metric("best rival", f"{rival}, {search.modes[0]}")] if rival else []
    found.append(Metric("correct", (correct(one) or "not checked")
                        + (f", worst error {one.view['worst']} of the allowance" if one.view["worst"] != words.NOTHING else "")))
    return found if one.fact.get("on_cpu") else found + _costs(one.view["launch"])


def _costs(launch: dict[str, str]) -> list[Metric]:
    """What a launch takes of an SM."""
    known = [Metric("registers", f"{launch['registers']} a thread" if launch["registers"] != words.NOTHING else ""),
             Metric("shared memory", f"{launch['shared']} (static + dynamic)" if launch["shared"] != words.NOTHING else ""),
             Metric("occupancy", launch["occupancy"] + (f" ({launch['limiter']})" if launch["limiter"] else "") if launch["occupancy"] != words.NOTHING else ""),
             Metric("spills", launch["spills"] if launch["spills"] != words.NOTHING else "")]
    return [one for one in known if one.value] or [Metric("registers, shared memory, occupancy", "not inspected")]


def _works(search: Search, one: Candidate) -> list[str]:
    found = []
    counts = {status: words.finite(count) for status, count in ((one.fact.get("correctness") or {}).get("counts") or {}).items()}
    if counts.get("ok") and not any(count for status, count in counts.items() if status not in ("ok", "unsupported")):
        found.append(f"right in all {counts['ok']:.0f} cases that it supports")
    tools = one.fact.get("sanitize") or []
    if tools and all(tool.get("status") == "ok" for tool in tools):
        found.append(f"compute-sanitizer finds nothing ({one_line(', '.join(str(tool.get('tool')) for tool in tools))})")
    limit = words.finite(search.goal.get("time_us"))
    met = [mode for mode, row in zip(search.modes, one.rows)
           if row and limit is not None and ladders.is_ranked(row) and ladders.against_goal(row, limit)[0] == "met"]
    if met and one.view["device"] == search.device:
        found.append(f"under the goal in mode{'s' if len(met) > 1 else ''} {words.listed(met)}, interval and all")
    first = search.modes[0]
    if _anchor(one, first).get("verdict") == "faster" and not one.view["stale"] and not one.broken:
        found.append(f"faster than PyTorch's default SDPA ({over_sdpa(one, first)} its time, {first})")
    strengths: dict[bool, list[str]] = {}
    for strength in insights.strengths(one.evidence):
        strengths.setdefault(strength.stale, []).append(strength.meaning)
    return found + [", ".join(meanings) + (" (as of evidence that is out of date)" if stale else "") for stale, meanings in sorted(strengths.items())]


def _troubles(one: Candidate, judged: bool) -> list[str]:
    if not judged:
        return [f"{one.status}: {one_line(one.view['reason']) or 'no reason given'}"]
    return [f"{trouble['mode']} is {trouble['mark'].text}: {one_line(trouble['reason'])}" for trouble in one.view["troubles"]]


def _hold(insight: Insight, known: Evidence) -> Hold:
    moves = {move.lever: f"{move.lever} {move.now} to {move.then}" for move in insight.moves}
    still = {lever: f"{lever} = {known.levers[lever]}: no further value declared" if lever in known.levers else lever for lever in insight.levers}
    lever = "; ".join({**still, **moves}.values())
    return Hold(insight.meaning, reading(insight.readings[0]), threshold(insight), insight.technique, lever, gain(insight, known), insight.bound.basis,
                insight.stale)
