"""Ladders to choose from by device, problem and mode: what the page's script needs to draw each, with its sentence and its table."""

from __future__ import annotations

from typing import Any

from evosdpa.page import charts, ladders, words
from evosdpa.page.ladders import Entry, Ladder

TITLES = ("#", "name", "kind", "time, µs", f"95{words.PERCENT} CI", "vs goal", "vs best rival", "verdict", "vs floor", "TFLOP/s", "status", "origin", "note")
"""Columns of a ladder's table, as report.html.jinja has them."""
NUMBERS = ("place", "time", "low", "high")
"""What of a rung in the picture is a number and stands for itself; the rest is text, each text kept once."""


def view(document: dict[str, Any]) -> dict[str, Any] | None:
    """Devices, problems and modes to choose, and for each combination that the page does not show by itself what to draw. None where
    there is nothing to choose."""
    device, goal = str(document["leading_device"]), str(document["goal"].get("problem") or "")
    devices = {str(entry.get("slug") or ""): words.device_words(entry) for entry in document["devices"]}
    timed = {tuple(str(row.get(key) or "") for key in ("device", "problem", "mode")) for row in document["rows"]}
    of = {(one, problem): [mode for mode in ladders.modes(document, one, problem) if (one, problem, mode) in timed or (one, problem) == (device, goal)]
          for one in devices for problem in _problems(document, goal)}
    found = {mode for modes in of.values() for mode in modes}
    modes = [*(mode for mode in ladders.MODES if mode in found), *sorted(found - set(ladders.MODES))]
    if not goal or device not in devices or sum(map(len, of.values())) < 2:
        return None
    texts: dict[str, int] = {}
    packed: dict[str, Any] = {}
    for (one, problem), own in of.items():
        usual = (one, problem) == (device, goal)  # the page shows these by itself
        packed.setdefault(one, {})[problem] = {
            mode: _packed(ladders.ladder(document, one, problem, mode), texts) if mode in own else _nothing(devices[one], problem, mode)
            for mode in modes if not (usual and mode in own)} if own or usual else _nothing(devices[one], problem, "")
    data = dict(device=device, problem=goal, of=packed, texts=list(texts), titles=TITLES, fields=charts.FIELDS, numbers=NUMBERS, spec=charts.empty_ladder())
    return dict(devices=devices, problems=list(dict.fromkeys(problem for _, problem in of)), modes=modes, device=device, problem=goal, data=data)


def _problems(document: dict[str, Any], goal: str) -> list[str]:
    """The goal's problem, then what was timed besides, in the configuration's order as far as it has one."""
    timed = dict.fromkeys(str(row.get("problem") or "") for row in document["rows"])
    return [one for one in dict.fromkeys([goal, *map(str, document["problems"]), *timed]) if one and (one == goal or one in timed)]


def _nothing(device: str, problem: str, mode: str) -> str:
    return f"Nothing was timed on {device} for {problem}{f' in {mode} mode' if mode else ''}."


def _packed(made: Ladder, texts: dict[str, int]) -> dict[str, Any]:
    """One ladder: question, answer, picture and table."""
    def place(text: Any) -> int:
        return texts.setdefault(str(text), len(texts))

    drawn, low, high = charts.rung_values(made.entries), *charts.span([made])
    floor = charts.slowest_floor(drawn)
    rungs = [[_rounded(one[field]) if field in NUMBERS else place(one[field]) for field in charts.FIELDS] for one in drawn] if made.drawable else []
    return dict(
        question=f"{made.mode.capitalize()} on {made.device_words}, {made.problem}: how fast is each?", answer=made.answer,
        domain=[low, high], ticks=charts.ticks(low, high), band=[{"from": low, "to": floor}] if floor else [], rungs=rungs,
        table=[[int(entry.ranked), *map(place, _cells(entry))] for entry in made.shown], more=len(made.entries) - len(made.shown))


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _cells(entry: Entry) -> tuple[str, ...]:
    """One text a column of TITLES."""
    return (str(entry.rank or ""), entry.name, entry.kind, *entry.cells, f"{entry.mark.glyph} {entry.mark.text}", str(entry.row.get("origin") or words.NOTHING),
            words.clip(entry.why, 240))
