"""Who is fastest, and how sure is that: rows of gap.json as ladders with one sentence each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from evosdpa.page import words

Row = dict[str, Any]

MODES = {
    "warm": "back to back, inputs in cache",
    "stream": "back to back, inputs from memory",
    "cold": "one launch after a cache flush",
    "eager": "as a Python caller pays it",
}
"""Modes in the order of the page, with what each means."""

MOST_ROWS = 36
"""Rows of one table; gap.csv has all."""

KINDS = ("variant", "rival", "floor")


@dataclass(frozen=True)
class Entry:
    """One rung: a row, its place among variants and rivals, and whether it counts."""

    row: Row
    rank: int | None
    ranked: bool

    @property
    def name(self) -> str:
        """The variant, rival or floor."""
        return str(self.row.get("name") or "")

    @property
    def kind(self) -> str:
        """variant, rival or floor."""
        return str(self.row.get("kind") or "variant")

    @property
    def mark(self) -> words.Mark:
        """The status as a mark."""
        return words.mark(self.row.get("status"), self.row.get("stale"))

    @property
    def cells(self) -> tuple[str, ...]:
        """Its numbers as a table shows them: time, interval, over the goal, over the best rival, verdict, over the floor, TFLOP/s."""
        row = self.row
        return (words.time_us(row), words.time_interval(row) or words.NOTHING, words.versus_goal(row), words.versus_rival(row),
                str(row.get("verdict") or words.NOTHING), words.number(row.get("vs_floor")), words.number(row.get("tflops")))

    @property
    def why(self) -> str:
        """Why the entry is not ranked, or how many processes stand behind it."""
        reason = str(self.row.get("reason") or "")
        if self.row.get("stale"):
            changed = f"changed since: {self.row.get('changed') or 'unknown'}"
            return f"{reason}; {changed}" if reason else changed
        if not reason and not self.ranked and self.row.get("status") == "ok":
            return "no time"
        return reason


@dataclass(frozen=True)
class Ladder:
    """All rows of one device, problem and mode."""

    id: str
    device: str
    device_words: str
    problem: str
    mode: str
    entries: list[Entry]
    goal_us: float | None = None
    """The goal's time when it applies to this ladder."""
    question: str = ""
    answer: str = ""

    def ranked(self, kind: str) -> list[Entry]:
        """Entries of a kind that count, the fastest first."""
        return [entry for entry in self.entries if entry.ranked and entry.kind == kind]

    def fastest(self, kind: str) -> Entry | None:
        """The first entry of a kind that counts."""
        return next(iter(self.ranked(kind)), None)

    @property
    def shown(self) -> list[Entry]:
        """Entries of the table: all of them, or the floors, the rivals and the first variants of a very long ladder."""
        return shortened(self.entries, MOST_ROWS)

    @property
    def drawable(self) -> bool:
        """Whether any entry has a time."""
        return any(words.finite(entry.row.get("time_us")) for entry in self.entries)


def shortened(entries: list[Entry], most: int) -> list[Entry]:
    """The entries to show of a long ladder, in its order: floors and rivals first, then the fastest variants, then those without a rank."""
    if len(entries) <= most:
        return entries
    places = sorted(range(len(entries)), key=lambda place: (entries[place].kind == "variant", not entries[place].ranked, place))
    return [entries[place] for place in sorted(places[:most])]


def is_ranked(row: Row) -> bool:
    """Only a right, current time has a rank."""
    time = words.finite(row.get("time_us"))
    return row.get("status") == "ok" and not row.get("stale") and time is not None and time > 0


def entries(rows: list[Row]) -> list[Entry]:
    """Rungs in the order of the ladder: ranked ones by time, then the rest by kind and name."""
    ranked = sorted((row for row in rows if is_ranked(row)), key=lambda row: (row["time_us"], str(row.get("name"))))
    rest = sorted((row for row in rows if not is_ranked(row)),
                  key=lambda row: (KINDS.index(row["kind"]) if row.get("kind") in KINDS else 9, str(row.get("name"))))
    found, place = [], 0
    for row in ranked:
        place += row.get("kind") != "floor"
        found.append(Entry(row, place if row.get("kind") != "floor" else None, True))
    return found + [Entry(row, None, False) for row in rest]


def _missing(document: dict[str, Any], device: str, mode: str, present: set[str]) -> list[Row]:
    """Rows for variants of a device that have none in this mode, so that no ladder hides one."""
    rows = []
    for fact in document["variants"]:
        if fact.get("device") != device or fact.get("name") in present:
            continue
        status = fact.get("status") or "not_run"
        reason = fact.get("reason") or f"not timed in {mode} mode"
        rows.append(dict(kind="variant", name=fact.get("name"), device=device, mode=mode, status="not_run" if status == "ok" else status, reason=reason,
                         stale=False, changed=""))
    return rows


def ladder(document: dict[str, Any], device: str, problem: str, mode: str) -> Ladder:
    """One ladder with its question and answer."""
    rows = [row for row in document["rows"] if (row.get("device"), row.get("problem"), row.get("mode")) == (device, problem, mode)]
    goal = document["goal"]
    on_goal = problem == goal.get("problem")
    if on_goal:
        rows += _missing(document, device, mode, {str(row.get("name")) for row in rows})
    entry = next((one for one in document["devices"] if one.get("slug") == device), {"slug": device})
    applies = on_goal and device == document["leading_device"] and mode in (goal.get("modes") or [])
    made = Ladder(id=f"{device}-{problem}-{mode}", device=device, device_words=words.device_words(entry), problem=problem, mode=mode,
                  entries=entries(rows), goal_us=words.finite(goal.get("time_us")) if applies else None,
                  question=f"{mode.capitalize()}: {MODES.get(mode, 'how fast is each?')}")
    return replace(made, answer=answer(made))


def modes(document: dict[str, Any], device: str, problem: str) -> list[str]:
    """Modes that a device has on a problem, and those of the goal on the leading device, in the order of the page."""
    found = {str(row.get("mode")) for row in document["rows"] if (row.get("device"), row.get("problem")) == (device, problem)}
    if device == document["leading_device"] and device != "cpu":
        found |= {str(mode) for mode in document["goal"].get("modes") or []}
    order = list(MODES)
    return sorted(found, key=lambda mode: (order.index(mode) if mode in order else len(order), mode))


# Sentences

def with_interval(row: Row) -> str:
    """`5.27 µs (95 % CI 5.25–5.29)`."""
    ends = words.time_interval(row)
    return f"{words.time_us(row)} µs" + (f" (95{words.PERCENT} CI {ends})" if ends else "")


def against_goal(row: Row, goal_us: float) -> tuple[str, str]:
    """`met`, `missed` or `undecided`, and the words for it. The whole interval must be on one side."""
    goal = f"the goal of {words.number(goal_us) if goal_us % 1 else f'{goal_us:,.0f}'} µs"
    low = words.finite(row.get("ci_low_us"))
    high = words.finite(row.get("ci_high_us"))
    if low is None or high is None:
        return "undecided", f"{words.versus_goal(row)} {goal}, without an interval"
    if high < goal_us:
        return "met", f"under {goal} ({words.versus_goal(row)})"
    if low >= goal_us:
        return "missed", f"{words.versus_goal(row)} {goal}"
    return "undecided", f"not told apart from {goal}, which lies inside the interval"


def against_rival(row: Row) -> str:
    """How a variant stands to the best rival; empty without a ratio."""
    best, ratio = row.get("best_rival"), words.finite(row.get("vs_best_rival"))
    if not best or ratio is None:
        return ""
    ends = words.interval(ratio, row.get("vs_best_rival_low"), row.get("vs_best_rival_high"))
    shown = words.versus_rival(row) + (f", CI {ends}" if ends else "")
    return {
        "faster": f"faster than the best rival {best} ({shown})",
        "slower": f"slower than the best rival {best} ({shown})",
        "same": f"as fast as the best rival {best} ({shown})",
    }.get(str(row.get("verdict")), f"not told apart from the best rival {best} ({shown})")


def tied(first: Row, others: list[Row]) -> list[str]:
    """Names whose interval overlaps the first one's: their order is not decided."""
    high = words.finite(first.get("ci_high_us"))
    found = []
    for row in others:
        low = words.finite(row.get("ci_low_us"))
        if high is None or low is None or low <= high:
            found.append(str(row.get("name")))
    return found


def _out_of_rank(ladder: Ladder) -> str:
    """How many variants carry no rank, by the reason's word."""
    counts: dict[str, int] = {}
    for entry in ladder.entries:
        if entry.kind == "variant" and not entry.ranked:
            counts[entry.mark.text] = counts.get(entry.mark.text, 0) + 1
    return ", ".join(f"{count} {text}" for text, count in sorted(counts.items()))


def answer(ladder: Ladder) -> str:
    """One or two sentences: the fastest variant, the goal, the best rival, and ties."""
    variants, rivals = ladder.ranked("variant"), ladder.ranked("rival")
    left_out = _out_of_rank(ladder)
    if not variants:
        text = "No variant has a right and current time here" + (f" ({left_out})." if left_out else ".")
        if rivals:
            text += f" The fastest rival is {rivals[0].name} at {with_interval(rivals[0].row)}."
        return text
    best = variants[0].row
    text = f"{variants[0].name} is {'the fastest variant' if len(variants) > 1 else 'the only variant with a rank'}: {with_interval(best)}"
    if ladder.goal_us:
        text += f", {against_goal(best, ladder.goal_us)[1]}"
    rival = against_rival(best)
    text += f"; {rival}." if rival else "."
    overlapping = tied(best, [entry.row for entry in variants[1:]])
    if overlapping:
        verb = "overlaps" if len(overlapping) == 1 else "overlap"
        text += f" Its interval and {words.listed(overlapping)}’s {verb}: their order is undecided."
    if left_out:
        text += f" Without a rank: {left_out}."
    return text


def closest(document: dict[str, Any]) -> tuple[str, dict[str, Row]]:
    """The variant on the leading device that comes closest to the goal, with its ranked rows by mode: the fastest in its slowest mode of
    those that have all of the goal's modes, else the fastest that has any. An empty name without one."""
    goal, wanted = document["goal"], [str(mode) for mode in document["goal"].get("modes") or []]
    times: dict[str, dict[str, Row]] = {}
    for row in document["rows"]:
        if (row.get("kind") == "variant" and (row.get("device"), row.get("problem")) == (document["leading_device"], goal.get("problem"))
                and row.get("mode") in wanted and is_ranked(row)):
            times.setdefault(str(row.get("name")), {})[str(row.get("mode"))] = row
    return min(times.items(), key=lambda item: (len(item[1]) < len(wanted), max(row["time_us"] for row in item[1].values()), item[0]), default=("", {}))


def goal_verdict(document: dict[str, Any]) -> tuple[str, str]:
    """Whether the goal is met, in every mode that it asks for by one variant, and the sentence that says so."""
    goal = document["goal"]
    wanted, limit = [str(mode) for mode in goal.get("modes") or []], words.finite(goal.get("time_us"))
    if limit is None or not wanted:
        return "unknown", "The evidence names no goal."
    name, found = closest(document)
    if not found:
        return "missed", "Not met: no variant has a right and current time on this device."
    if set(found) != set(wanted):
        return "missed", f"Not met: no variant has a right and current time in each of the modes {words.listed(wanted)} on this device."
    states = [against_goal(found[mode], limit)[0] for mode in wanted]
    shown = words.listed(f"{words.time_us(found[mode])} µs {mode}" for mode in wanted)
    if all(state == "met" for state in states):
        return "met", f"Met by {name}: {shown}."
    if "missed" not in states:
        return "undecided", f"Undecided: the goal lies inside an interval of {name} ({shown})."
    worst = max((found[mode] for mode in wanted), key=lambda row: row["time_us"])
    return "missed", f"Not met: {name} comes closest with {shown}, {words.versus_goal(worst)} the goal in {worst.get('mode')} mode."
