"""What an evolution found, as tables and sentences: who leads and how it was made, what levers and rules were worth, what became of each child.

Everything is read from gap.json's part `evolution`, of which any piece may be missing; page and summary say the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evosdpa.page import words
from evosdpa.page.ratios import Ratio, gain, in_words

Entry = dict[str, Any]

MOST_ROWS = 40
"""Children in one table; gap.json has all."""
MOST_CHANGES = 40
"""Changes of levers in one table."""
FAR = 4.0
"""A goal that is further than this factor from all times is not drawn: it would press them into a line."""

HOW = {
    "start": "what it began with",
    "guided": "by rules and credit",
    "explore": "drawn blindly",
    "crossover": "levers of another elite",
    "generator": "written by a program",
}
"""How a child was made, by the operator's name."""

STANDS = {"elite": "elite now", "entered": "was an elite", "right": "right, not kept"}
"""How a right child stands."""

VERDICTS = ("faster", "slower", "same", "undecided")
COUNTS = (*VERDICTS, "lost", "beyond")
"""What is counted of a rule's children; lost: dropped, wrong, or without a good time."""


def of(document: dict[str, Any]) -> list[Evolution]:
    """The evolutions of a whole document (render.whole), the leading device's first."""
    found = [Evolution(document, entry) for entry in document["evolution"] if isinstance(entry, dict) and entry.get("generations")]
    return sorted(found, key=lambda one: (one.device != document["leading_device"], one.device))


@dataclass(frozen=True)
class Evolution:
    """One device's evolution: its facts as lines of tables, and a sentence for each question."""

    document: dict[str, Any]
    entry: Entry

    # What it is about

    @property
    def device(self) -> str:
        """The device's slug."""
        return str(self.entry.get("device") or "")

    @property
    def device_words(self) -> str:
        """The device as people call it."""
        known = next((one for one in self.document["devices"] if one.get("slug") == self.device), None)
        return words.device_words(known or dict(slug=self.device, info=self._finals.get("device"))) or "an unknown device"

    @property
    def problem(self) -> str:
        """The problem's name."""
        return str(self.entry.get("problem") or "")

    @property
    def modes(self) -> list[str]:
        """Modes that decide, the first of which is drawn."""
        return [str(mode) for mode in self.entry.get("modes") or ["warm"]]

    @property
    def _finals(self) -> Entry:
        return self.entry.get("finals") or {}

    @property
    def badge(self) -> tuple[str, str]:
        """Where the finals were timed, and when: a kind for the style sheet, and words."""
        origin = str(self.entry.get("origin") or "")
        kind = origin if origin in ("measured", "recorded") else "plain"
        said = f"measured on this machine: {self.device_words}" if origin == "measured" else f"{origin or 'origin unknown'}: {self.device_words}"
        return kind, f"{said}, {words.date(self._finals['ended'])}" if self._finals.get("ended") else said

    @property
    def stale(self) -> str:
        """What changed since it was measured, in the elites' code or in how they are timed; empty while it is current."""
        changed = self.entry.get("changed") or []
        return f"Changed since it was measured: {words.listed(changed)}. Its times and verdicts are of then." if changed else ""

    @property
    def goal_us(self) -> float | None:
        """The goal's time where it is about this problem, device and mode, microseconds."""
        goal = self.document["goal"]
        applies = (self.problem == goal.get("problem") and self.device == self.document["leading_device"] and self.modes[0] in (goal.get("modes") or []))
        return words.finite(goal.get("time_us")) if applies else None

    def goal_beside(self, times: list[float]) -> tuple[float | None, str]:
        """The goal's time for a picture of these times, or, where it is too far off to be drawn, a sentence that says so."""
        goal = self.goal_us
        if not goal or not times or min(times) / FAR <= goal <= max(times) * FAR:
            return goal, ""
        return None, f"The goal, {goal:,.4g} µs, lies far {'below' if goal < min(times) else 'above'} the picture."

    # Its parts

    @cached_property
    def generations(self) -> list[Entry]:
        """A line a generation: how it ended, its children counted, and the best time of any elite by mode."""
        lines = []
        for number, one in enumerate(_dicts(self.entry.get("generations"))):
            number = _count(one.get("generation"), number)
            here = [child for child in self.children if child["generation"] == number]
            best = {mode: time for mode in self.modes if (time := words.finite((one.get("best") or {}).get(mode))) and time > 0}
            status = str(one.get("status") or "not_run")
            lines.append(dict(
                generation=number, mark=words.mark(status), ok=status == "ok", reason=str(one.get("reason") or ""), best=best, left=_left(one),
                times=[words.number(best.get(mode)) for mode in self.modes], elites=[str(name) for name in one.get("elites") or []],
                proposed=len(here), measured=sum(child["measured"] for child in here), right=sum(child["right"] for child in here),
                dropped=sum(bool(child["dropped"]) for child in here), entered=sum(child["entered"] for child in here)))
        return lines

    @property
    def best_times(self) -> list[float]:
        """The best times of all generations and modes, microseconds."""
        return [time for one in self.generations for time in one["best"].values()]

    @cached_property
    def children(self) -> list[Entry]:
        """A line a child, those it began with too, in the order of the generations."""
        elites = [str(name) for name in self.entry.get("elites") or []]
        return [self._child(one, elites) for one in _dicts(self.entry.get("children"))]

    def _child(self, one: Entry, elites: list[str]) -> Entry:
        name, status, dropped = str(one.get("name") or ""), str(one.get("status") or ""), str(one.get("dropped") or "")
        right, operator = status == "ok", str(one.get("operator") or "")
        times = {mode: time for mode in self.modes if (time := words.finite((one.get("times_us") or {}).get(mode))) and time > 0}
        ratios = [Ratio.of(mode, (one.get("against") or {}).get(mode)) for mode in self.modes]
        entered = bool(one.get("entered"))
        stands = ("elite" if name in elites else "entered" if entered else "right") if right else ""
        return dict(
            generation=_count(one.get("generation")), name=name, parent=str(one.get("parent") or ""), other=str(one.get("other") or ""), operator=operator,
            how=HOW.get(operator, operator), changes=[_change(change) for change in _dicts(one.get("changes"))], levers=len(_dicts(one.get("changes"))),
            rules=[str(rule) for rule in one.get("rules") or []], at_most=words.finite(one.get("at_most")), expected=words.finite(one.get("expected")),
            dropped=dropped, measured=bool(status) and not dropped, right=right, why=dropped or str(one.get("reason") or ""),
            mark=words.Mark("⊘", "dropped", "mute") if dropped else words.mark(status), times_us=times,
            times=[words.number(times.get(mode)) for mode in self.modes], ratios=ratios, compared=any(ratio.value for ratio in ratios),
            verdict=str(one.get("verdict") or ""), entered=entered, stands=stands, standing=STANDS.get(stands, ""))

    @cached_property
    def shown(self) -> list[Entry]:
        """The children of the table, in the order of the generations: all, or those that matter most."""
        return sorted(sorted(self.children, key=_importance)[:MOST_ROWS], key=self.children.index)

    @cached_property
    def elites(self) -> list[Entry]:
        """The elites of the last generation, best first: name, times, and what each was made from."""
        known, times_us = {child["name"]: child for child in self.children}, self.entry.get("times_us") or {}
        lines = []
        for name in map(str, self.entry.get("elites") or []):
            own = times_us.get(name) or {}
            shown = [f"{words.number(own[mode])} µs {mode}" for mode in self.modes if words.finite(own.get(mode)) is not None]
            lines.append(dict(name=name, times=words.listed(shown) or "no time", made=_made(known.get(name)), against=self._against_start(name)))
        return lines

    def _against_start(self, name: str) -> str:
        """An elite beside the variant of its source that the evolution began with, in the last comparison; empty where there is none."""
        found = [(str(one.get("start") or ""), Ratio.of(str(one.get("mode") or ""), one)) for one in _dicts((self.entry.get("against_start") or {}).get(name))]
        found = [(start, ratio) for start, ratio in found if ratio.value]
        return f"{in_words(ratio for _, ratio in found)} of {found[0][0]}" if found else ""

    @cached_property
    def bred(self) -> list[Entry]:
        """Children that were made: not those it began with."""
        return [child for child in self.children if child["operator"] != "start" and child["parent"]]

    # How the search went

    @property
    def lineage_answer(self) -> str:
        """How many children there were and how they did against their parents."""
        last = max((one["generation"] for one in self.generations), default=0)
        started = [child for child in self.children if child["operator"] == "start"]
        if not self.bred:
            right = sum(child["right"] for child in started)
            return f"Only the start is measured: {words.plural(len(started), 'variant')}, {right} right. " \
                   + ("No child was made." if last else "No generation has followed yet.")
        measured = [child for child in self.bred if child["measured"]]
        right = sum(child["right"] for child in measured)
        entered = sum(child["entered"] for child in measured)
        counts = [f"{len(measured)} measured", f"{right or 'none'} right", f"{entered or 'none'} became {'elites' if entered > 1 else 'an elite'}"]
        dropped = sum(bool(child["dropped"]) for child in self.bred)
        if dropped:
            counts.append(f"{dropped} dropped before measuring")
        text = f"{words.plural(last, 'generation')} after the start made {children(len(self.bred))}: {', '.join(counts)}."
        verdicts = [child["verdict"] for child in measured if child["compared"]]
        if verdicts:
            text += f" Each against its own parent: {_counted(verdicts)}."
        return text

    @property
    def best_answer(self) -> str:
        """How the leader stands to what the evolution began with, and whether that is its last word."""
        unended = " It was broken off before its last comparison, which chooses nothing." if self.entry.get("closed") is False else ""
        return self._leader_answer() + unended

    def _leader_answer(self) -> str:
        if not self.elites:
            reason = next((one["reason"] for one in reversed(self.generations) if one["reason"]), "")
            return "There is no elite" + (f": {reason}." if reason else ".")
        way = self.way
        root, leader = way[0], way[-1]
        if against := self.elites[0]["against"]:
            return f"{leader['name']} leads. In a last comparison, which chose nothing, it took {against}, with which the evolution began."
        if not leader["parent"] and leader["operator"] != "start":
            return f"{leader['name']} leads; how it was made is not on file."
        if not leader["parent"]:
            return self._start_leads(leader["name"])
        steps = [child for child in way if child["parent"]]
        if root["parent"]:  # what it began with is not on file
            return f"{leader['name']} leads. Against its parent: {_step(leader)}"
        others = [child["name"] for child in self.children if child["operator"] == "start" and child["right"] and child is not root]
        tail = f" No ratio to {words.listed(others)}, with which it began too, is on file." if others else ""
        if len(steps) == 1:
            return f"{leader['name']} leads. It was made from {root['name']}, with which it began: {_step(leader)}{tail}"
        return (f"{leader['name']} leads, {len(steps)} steps from {root['name']}, with which it began. Each step was compared with the one before alone: "
                f"{_counted(child['verdict'] for child in steps)}. The last, from {leader['parent']}: {_step(leader)}{tail}")

    def _start_leads(self, name: str) -> str:
        measured = [child for child in self.bred if child["measured"]]
        right = sum(child["right"] for child in measured)
        if not measured:
            return f"{name}, with which it began, leads; no child was measured."
        if not right:
            return f"{name}, with which it began, still leads: of {children(len(measured))} measured none is right."
        passed = "the one right child did not pass it" if right == 1 else f"none of {right} right children passed it"
        kept = next((one for one in self.elites[1:] if any(child["name"] == one["name"] for child in self.bred)), None)
        best = f" The best of them that was kept is {kept['name']}, at {kept['times']}." if kept else ""
        return f"{name}, with which it began, still leads: {passed}.{best}"

    @cached_property
    def way(self) -> list[Entry]:
        """The leader's ancestors as far as they are on file, the oldest first, and the leader; nothing without an elite."""
        if not self.elites:
            return []
        known, name = {child["name"]: child for child in reversed(self.children)}, self.elites[0]["name"]
        way: list[Entry] = []
        while name in known and known[name] not in way:
            way.insert(0, known[name])
            name = known[name]["parent"]
        return way or [self._child(dict(name=name), [name])]

    # What it teaches

    @cached_property
    def levers(self) -> list[Entry]:
        """Credit of every lever, the one that paid most first."""
        return [_credit(one) for one in _dicts(self.entry.get("levers")) if one.get("lever") and words.finite(one.get("ratio"))]

    @cached_property
    def changes(self) -> list[Entry]:
        """Credit of every change of a lever, the one that paid most first."""
        return [_credit(one) for one in _dicts(self.entry.get("changes")) if one.get("lever") and words.finite(one.get("ratio"))]

    @property
    def shared(self) -> str:
        """Why credit is not a lever's own."""
        counts = {child["levers"] for child in self.bred if child["levers"]}
        said = "Each child changed two levers" if counts == {2} else "A child changes several levers at once"
        return (f"{said}, so credit is shared: what stands here came with a lever, not from it alone. "
                "A lever is seen towards its larger value, whichever way a child went.")

    @property
    def credit_answer(self) -> str:
        """Which levers paid."""
        if not self.levers:
            return "No lever was changed in a child that could be compared with its parent."
        by_verdict = {verdict: [one for one in self.levers if one["verdict"] == verdict] for verdict in VERDICTS}
        parts = []
        for verdict, verb in (("faster", "came with less time"), ("slower", "came with more time")):
            found = by_verdict[verdict]
            if found:
                first = found[0] if verdict == "faster" else found[-1]
                others = f" and {len(found) - 1} more" if len(found) > 1 else ""
                parts.append(f"more {first['lever']} ({first['ratio'].shown} over {words.plural(first['pairs'], 'pair')}){others} {verb}")
        single = sum(one["pairs"] < 2 for one in by_verdict["undecided"])
        rest = len(by_verdict["undecided"]) + len(by_verdict["same"])
        tail = [f"{len(by_verdict['same'])} made no difference" if by_verdict["same"] else "",
                f"{len(by_verdict['undecided'])} undecided" if by_verdict["undecided"] else ""]
        if not parts:
            said = f"No lever surely came with less or more time: of {words.plural(rest, 'lever')}, {', '.join(filter(None, tail))}"
            return said + (f" ({single} changed in one child only)." if single else ".")
        return f"{'; '.join(filter(None, [*parts, *tail]))}."

    @cached_property
    def rules(self) -> list[Entry]:
        """The record of every rule that pointed at a child, counts only."""
        return [dict(rule=str(one["rule"]), **{key: _count(one.get(key)) for key in ("children", *COUNTS)})
                for one in _dicts(self.entry.get("rules")) if one.get("rule")]

    @property
    def rules_answer(self) -> str:
        """How often rules were right."""
        if not self.rules:
            return "No rule pointed at a child that could be compared with its parent."
        right = sum(bool(one["faster"]) for one in self.rules)
        text = f"Of {words.plural(len(self.rules), 'rule')} that pointed at children, {right or 'none'} pointed at one that is faster by verdict."
        best = max(self.rules, key=lambda one: (one["faster"], -one["children"]))
        if best["faster"]:
            text += f" {best['rule']} did so most often: {best['faster']} of {best['children']}."
        beyond = [one["rule"] for one in self.rules if one["beyond"]]
        if beyond:
            text += f" A child surely gained more than the bound of {words.listed(beyond)} allows: the bound is wrong, or the child’s other lever gained it."
        return text

    @cached_property
    def promised(self) -> list[Entry]:
        """Children that had a bound or an expectation and were compared with their parent."""
        lines = []
        for child in self.bred:
            if child["compared"] and (child["at_most"] is not None or child["expected"] is not None):
                sure = max((1 - ratio.high for ratio in child["ratios"] if ratio.high is not None), default=0.0)
                beyond = child["at_most"] is not None and sure > child["at_most"]
                expected = 1 - child["expected"] if child["expected"] is not None else None
                lines.append(dict(child=child, name=child["name"], generation=child["generation"], at_most=child["at_most"], expected=expected, beyond=beyond,
                                  allowed=words.percent(child["at_most"]), hoped=gain(expected), measured=[ratio.gained for ratio in child["ratios"]],
                                  verdict=child["verdict"]))
        return lines

    @property
    def promised_answer(self) -> str:
        """Whether promises came true."""
        if not self.promised:
            return "No child that was compared with its parent had a bound or an expectation."
        bounded, parts = [one for one in self.promised if one["at_most"] is not None], []
        if bounded:
            beyond = sum(one["beyond"] for one in bounded)
            parts.append(f"of {children(len(bounded))} with a bound {beyond or 'none'} surely gained more than it allows")
        mode = self.modes[0]
        hoped = [(one["expected"], ratio) for one in self.promised
                 if one["expected"] is not None and (ratio := one["child"]["ratios"][0]).low is not None and ratio.high is not None]
        if hoped:
            inside = sum(1 - ratio.high <= expected <= 1 - ratio.low for expected, ratio in hoped)
            parts.append(f"what credit led to expect lies inside the measured interval for {inside} of {len(hoped)} ({mode})")
        text = "; ".join(parts) or f"no child with an expectation has an interval in {mode} mode"
        return f"{text[:1].upper()}{text[1:]}."

    @property
    def silent(self) -> list[str]:
        """What there is nothing to show of, a sentence each."""
        parts = ((self.levers, self.credit_answer), (self.rules, self.rules_answer), (self.promised, self.promised_answer))
        return [answer for lines, answer in parts if not lines]

    @cached_property
    def out(self) -> list[Entry]:
        """Children that were dropped or are not right, with the reason, the newest first."""
        return [child for child in reversed(self.children) if child["dropped"] or (child["measured"] and not child["right"])]


# Words

def _importance(child: Entry) -> tuple[int, float, str]:
    """Elites first, then those that were, right ones by time, then the newest of the others."""
    order = list(STANDS).index(child["stands"]) if child["stands"] else len(STANDS)
    return order, min(child["times_us"].values(), default=0.0) if child["right"] else -child["generation"], child["name"]


def children(count: int) -> str:
    """`1 child`, `2 children`."""
    return f"{count:,} {'child' if count == 1 else 'children'}"


def _dicts(found: Any) -> list[Entry]:
    return [one for one in found or [] if isinstance(one, dict)]


def _count(found: Any, otherwise: int = 0) -> int:
    number = words.finite(found)
    return otherwise if number is None else int(number)


def _change(change: Entry) -> str:
    return f"{change.get('lever') or '?'} {change.get('before') or words.NOTHING} → {change.get('after') or words.NOTHING}"


def _made(child: Entry | None) -> str:
    """What an elite was made from."""
    if child is None:
        return "not on file"
    if not child["parent"]:
        return child["how"]
    source = f"from {child['parent']}" + (f" and {child['other']}" if child["other"] else "")
    return f"{source}, {child['how']}, in generation {child['generation']}" + (f": {', '.join(child['changes'])}" if child["changes"] else "")


def _counted(verdicts: Iterable[str]) -> str:
    """How often each verdict fell."""
    found = list(verdicts)
    counts = [f"{count} {'is' if count == 1 else 'are'} {'the same' if word == 'same' else word}" for word in VERDICTS if (count := found.count(word))]
    return words.listed(counts) or "no verdict fell"


def _step(child: Entry) -> str:
    """A child against its parent, in every mode with a ratio: the end of a sentence."""
    found = [ratio for ratio in child["ratios"] if ratio.value]
    if not found:
        return "no ratio is on file."
    said = in_words(found, "its")
    how = {"within": ", timed in the same processes", "between": ", timed in two runs beside the anchor"}.get(found[0].how, "")
    return f"{said}{how}."


def _left(generation: Entry) -> str:
    """Elites that something was wrong with, and what."""
    return "; ".join(f"{name} is no elite any more: {why}" for name, why in sorted((generation.get("left") or {}).items()))


def _credit(one: Entry) -> Entry:
    ratio = Ratio.of("", one)
    return dict(source=str(one.get("source") or ""), lever=str(one.get("lever") or ""), before=str(one.get("before") or words.NOTHING),
                after=str(one.get("after") or words.NOTHING), ratio=ratio, pairs=_count(one.get("pairs")), verdict=str(one.get("verdict") or "undecided"))
