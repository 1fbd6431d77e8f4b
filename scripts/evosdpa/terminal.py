"""The ladder as plain text for a terminal: ASCII, at most 100 columns, the same with and without colour."""

from __future__ import annotations

import os
from typing import Any, TextIO

from evosdpa import waiting
from evosdpa.candidates import TIMED, Candidate, Search
from evosdpa.page import ladders, render, words
from evosdpa.variant_evidence import Evidence

WIDTH = 100
NAME = 17
"""Columns of a name; a longer one stands on a line of its own above its row."""
MOST_ROWS = 40
GAP = "  "

COLOURS = {"good": "32", "bad": "31", "warn": "33", "mute": "2"}
"""ANSI's select graphic rendition, by the tone of a mark."""
WAITS = {
    "long_scoreboard": "memory", "short_scoreboard": "shared memory", "math_pipe_throttle": "a busy pipe", "mio_throttle": "the MIO queue",
    "lg_throttle": "the LSU queue", "wait": "fixed latency", "no_instruction": "instructions", "gmma": "tensor cores", "branch_resolving": "branches",
    "dispatch_stall": "dispatch", "imc_miss": "constants",
}
"""Nsight Compute's stall reasons in a word or two (waiting.MEANING has the long words); one that is not here stands for itself."""
VERDICTS = {"same": " =", "undecided": " ?"}
PLAIN = str.maketrans({"\u202f": " ", "µ": "u", "×": "x", "–": "-", "’": "'", "…": "...", "⊘": " refused", "−": "-"})


def ascii_text(text: Any) -> str:
    """Text that every terminal can show: one line, ASCII, and no control character that could steer the terminal."""
    text = "".join(char for char in " ".join(str(text or "").translate(PLAIN).split()) if char.isprintable())
    return text.encode("ascii", "replace").decode()


def clip(text: str, width: int) -> str:
    """A text's beginning, with dots when it is longer than the width."""
    return text if len(text) <= width else text[:max(0, width - 3)].rstrip() + "..." if width > 3 else text[:width]


def wants_colour(stream: TextIO) -> bool:
    """Whether to colour: only a terminal that can, and not when $NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _time(row: dict[str, Any] | None) -> str:
    """`4.29+-0.01`: the interval's wider side, since it is a little lopsided."""
    value = words.finite((row or {}).get("time_us"))
    if value is None or row.get("status") not in TIMED:
        return "-"
    low, high = words.finite(row.get("ci_low_us")), words.finite(row.get("ci_high_us"))
    text = words.time_us(row)
    if low is not None and high is not None and high > low:
        wider, decimals = max(value - low, high - value), len(text.partition(".")[2])
        text += f"+-{max(wider, 10.0 ** -decimals):,.{decimals}f}"
    return ascii_text(text)


def _rival(row: dict[str, Any] | None) -> str:
    """`0.78x`, with `=` where the verdict is same and `?` where it is undecided."""
    if not row or words.finite(row.get("vs_best_rival")) is None:
        return "-"
    return ascii_text(words.versus_rival(row).replace(words.TIMES, "x")) + VERDICTS.get(str(row.get("verdict")), "")


def _waits(known: Evidence) -> str:
    """The largest stall reason and its share of a warp's time."""
    stalls = waiting.stalls(known.states)
    if not stalls:
        return "-"
    reason, cycles = stalls[0]
    return ascii_text(f"{WAITS.get(reason, reason.replace('_', ' '))} {100 * cycles / sum(known.states.values()):.0f}%")


def ladder(document: dict[str, Any], page: str, writeup: str, colour: bool = False) -> str:
    """The ladder on the goal's problem, the goal's verdict, and where the page and the summary are (as the caller words it)."""
    document = render.whole(document)
    goal, device = document["goal"], document["leading_device"]
    known = Search(document)
    modes, head = known.modes, render.headline(document)
    lines = [f"{head['problem']}; goal: under {head['limit']} us in {head['modes'] or 'no mode'}; times in us, +-95% interval"]
    for place in dict.fromkeys([device, *(one.view["device"] for one in known.candidates)]):
        found = [one for one in known.candidates if one.view["device"] == place]  # devices never share a ladder
        if found or place == device:
            lines += ["", f"on {known.where if place == device else place or 'any GPU'}:", *_table(found[:MOST_ROWS], modes, place == device, colour)]
        if len(found) > MOST_ROWS:
            lines.append(f"({len(found) - MOST_ROWS} more in results/gap.csv)")
    if known.candidates:
        lines.append(f"vs rival: in {modes[0]} (= same, ? undecided); vs goal: in the slowest of the goal's modes")
    lines.append("")
    for mode in modes:
        view = ladders.ladder(document, device, goal.get("problem"), mode)
        rival, floors = view.fastest("rival"), view.ranked("floor")
        said = f"best rival, {mode}: {rival.name} {words.time_us(rival.row)} us" if rival else f"best rival, {mode}: {_no_rival(view)}"
        lines.append(said + (f"; slowest floor: {floors[-1].name} {words.time_us(floors[-1].row)} us" if floors else ""))
    tone = {"met": "good", "missed": "bad", "undecided": "warn"}.get(head["state"], "mute")
    lines += ["", *(_paint(line, tone, colour) for line in _wrapped(f"Goal: {head['sentence']}"))]
    for text in (head["notice"].replace("on this page", "here"), *(f"cannot be read: {error}" for error in head["errors"][:3])):
        lines += _wrapped(text) if text else []
    lines += ["", f"page:    {page}", f"summary: {writeup}"]
    return "\n".join(line if "\x1b" in line else clip(ascii_line(line), WIDTH) for line in lines) + "\n"


def ascii_line(line: str) -> str:
    """A line as ASCII with its columns kept."""
    return "".join(char for char in line.translate(PLAIN) if char.isprintable()).encode("ascii", "replace").decode().rstrip()


def _no_rival(view: ladders.Ladder) -> str:
    """Why no rival has a rank."""
    stale = next((entry for entry in view.entries if entry.kind == "rival" and entry.row.get("stale")), None)
    if stale:
        return f"none, their evidence is stale (changed since: {ascii_text(stale.row.get('changed')) or 'unknown'})"
    return "none was timed" if not any(entry.kind == "rival" for entry in view.entries) else "none has a time that is ok"


def _wrapped(text: str) -> list[str]:
    """A sentence on lines of at most WIDTH characters."""
    lines, text = [""], ascii_text(text)
    for word in text.split(" "):
        word = clip(word, WIDTH)
        if lines[-1] and len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines


def _paint(text: str, tone: str, colour: bool) -> str:
    return f"\x1b[{COLOURS[tone]}m{text}\x1b[0m" if colour and tone in COLOURS else text


def _cells(one: Candidate, modes: list[str], leading: bool) -> list[str]:
    """A variant's row as text."""
    slowest = max((row for row in one.rows if _time(row) != "-"), key=lambda row: row["time_us"], default=None)
    over = words.versus_goal(slowest).replace(words.TIMES, "x") if slowest and leading else "-"
    correct = one.view["correct"]["text"].partition(" ")[0]
    correct = correct if "/" in correct else "-"
    return [ascii_text(one.name), ascii_text(one.status), *map(_time, one.rows), _rival(one.rows[0]), ascii_text(over), ascii_text(correct),
            "-" if one.broken else _waits(one.evidence)]


def _table(found: list[Candidate], modes: list[str], leading: bool, colour: bool) -> list[str]:
    """Lines of a device's table; words to the left, numbers to the right, the last column cut where the line would be too long."""
    if not found:
        return ["(no variant)"]
    table = [["variant", "status", *modes, "vs rival", "vs goal", "correct", "waits for"], *(_cells(one, modes, leading) for one in found)]
    tones = ["", *(one.view["mark"].tone for one in found)]
    last = len(table[0]) - 1
    widths = [max(len(line[place]) for line in table) for place in range(last)]
    widths[0] = min(NAME, widths[0])
    widths.append(max(0, WIDTH - sum(widths) - len(GAP) * last))
    lines = []
    for line, tone in zip(table, tones):
        if len(line[0]) > NAME:
            lines.append(clip(line[0], WIDTH))
            line = ["", *line[1:]]
        cells = [cell.ljust(width) if place in (0, 1, last) else cell.rjust(width) for place, (cell, width) in enumerate(zip(line, widths))]
        cells[last] = clip(line[last], widths[last])
        cells[1] = _paint(cells[1], tone, colour)
        lines.append(GAP.join(cells).rstrip())
    return lines
