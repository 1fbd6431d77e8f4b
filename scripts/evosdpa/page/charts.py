"""Vega-Lite specifications. Colours are the style sheet's variables, so that one picture serves light, dark and paper."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from evosdpa.page import words
from evosdpa.page.ladders import Entry, Ladder, shortened

MOST_RUNGS = 24
"""Rungs in one picture; the table under it has all."""

STEP = 36
TRY_STEP = 13
MOST_TRIES = 60
"""Tries in one picture: those furthest from 1."""
NAME_LIMIT = "max(80, width - 118)"
"""Pixels that a name may take before it is cut: what the value on the right leaves."""
STATIC_WIDTH = 520
"""Width of the picture for readers without scripts; with them it follows the page."""

SHAPES = {"variant": "circle", "rival": "square", "floor": "triangle-up"}
COLOURS = {kind: f"var(--{kind})" for kind in SHAPES}

CONFIG = {
    "aria": False,
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)", "titleColor": "var(--muted)", "gridColor": "var(--line)", "domainColor": "var(--line)", "tickColor": "var(--line)",
        "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "labelOverlap": "greedy",
    },
}


def rungs(entries: list[Entry]) -> list[Entry]:
    """What a picture shows of a ladder."""
    return shortened(entries, MOST_RUNGS)


def domain(values: list[float]) -> tuple[float, float]:
    """Ends of a log axis with air on both sides."""
    low, high = min(values), max(values)
    air = max(1.12, (high / low) ** 0.06)
    return low / air, high * air


def ticks(low: float, high: float) -> list[float]:
    """Round values on a log axis: powers of ten over many decades, 1-2-5 steps over some, even steps over less than one."""
    decades = math.log10(high / low)
    if decades < 0.7:
        step = 10 ** math.floor(math.log10((high - low) / 3))
        step *= next(factor for factor in (5, 2, 1) if (high - low) / (factor * step) >= 3)
        return [float(f"{place * step:.6g}") for place in range(math.ceil(low / step), math.floor(high / step) + 1)]
    steps = (1, 2, 5) if decades <= 2.5 else (1,)
    found = [float(f"{step * 10**power:.6g}") for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for step in steps]
    return [tick for tick in found if low <= tick <= high]


def _rung(place: int, entry: Entry) -> dict[str, Any]:
    row, time = entry.row, words.finite(entry.row.get("time_us"))
    time = time if time and time > 0 else None
    ends = words.time_interval(row)
    shown = f"{words.time_us(row)} µs" if time else ""
    state = "" if entry.ranked else f"{entry.mark.glyph} {entry.mark.text}"
    low, high = words.finite(row.get("ci_low_us")), words.finite(row.get("ci_high_us"))
    place_text = f"{entry.rank}. " if entry.rank else ""
    bounded = time and low and low > 0
    return dict(
        place=place, kind=entry.kind, ranked=entry.ranked, time=time, low=low if bounded else None, high=high if bounded else None,
        label=f"{place_text}{entry.name} · {entry.kind}", value=" ".join(filter(None, [shown, state])),
        name=entry.name, interval=f"{ends} µs" if ends else "none", status=entry.mark.text, why=words.clip(entry.why, 160))


FIELDS = ("place", "kind", "time", "low", "high", "label", "value", "name", "interval", "status", "why", "tone", "fill", "ink")
"""What a rung in a picture consists of."""


def _layers(values: list[dict[str, Any]], scale: alt.Scale, axis: alt.Axis) -> list[alt.Chart]:
    """Tracks, intervals, points, names and values of rungs; the same for every ladder. The data is the whole picture's."""
    y = alt.Y("place:O", axis=None, sort="ascending")

    def raw(channel: Any, name: str) -> Any:
        return channel(f"{name}:N", scale=None, legend=None)

    tip = [alt.Tooltip(f"{name}:N", title=title) for name, title in (
        ("name", "name"), ("kind", "kind"), ("value", "value"), ("interval", "95 % CI"), ("status", "status"), ("why", "note"))]
    layers = [alt.Chart().mark_rule(yOffset=8, color="var(--line)", strokeDash=[1, 3]).encode(x=alt.value(0), x2=alt.value("width"), y=y)]
    if any(one["low"] for one in values):
        layers.append(alt.Chart().mark_rule(yOffset=8, strokeWidth=3, opacity=0.75).transform_filter("isValid(datum.low)").encode(
            x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q", y=y, color=raw(alt.Color, "tone")))
    if any(one["time"] for one in values):
        shape = alt.Shape("kind:N", scale=alt.Scale(domain=list(SHAPES), range=list(SHAPES.values())), legend=None)
        layers.append(alt.Chart().mark_point(yOffset=8, size=75, opacity=1, strokeWidth=1.5).transform_filter("isValid(datum.time)").encode(
            x=alt.X("time:Q", scale=scale, axis=axis), y=y, stroke=raw(alt.Stroke, "tone"), fill=raw(alt.Fill, "fill"), shape=shape, tooltip=tip))
    for at, text, style in ((0, "label", {"align": "left", "limit": alt.ExprRef(NAME_LIMIT)}), ("width", "value", {"align": "right"})):
        layers.append(alt.Chart().mark_text(dy=-8, fontSize=12, **style).encode(x=alt.value(at), y=y, text=f"{text}:N", color=raw(alt.Color, "ink")))
    return layers


def _coloured(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for one in values:
        one["tone"] = COLOURS.get(one["kind"], "var(--muted)") if one["ranked"] else "var(--muted)"
        one["fill"] = one["tone"] if one["ranked"] else "var(--paper)"
        one["ink"] = "var(--ink)" if one["ranked"] else "var(--muted)"
    return values


def _marker(at: float, text: str, share: float, colour: str) -> list[alt.Chart]:
    """A dashed vertical line with a label above the plot, kept inside it."""
    align = "left" if share < 0.2 else "right" if share > 0.8 else "center"
    one = alt.InlineData(values=[{"at": at, "text": text}])
    return [
        alt.Chart(one).mark_rule(strokeDash=[5, 4], strokeWidth=1.5, color=colour).encode(x="at:Q"),
        alt.Chart(one).mark_text(align=align, baseline="bottom", color=colour, fontSize=11, fontWeight="bold").encode(
            x="at:Q", y=alt.value(-5), text="text:N"),
    ]


def finish(layers: list[alt.Chart], values: list[dict[str, Any]], height: int, top: int = 8) -> dict[str, Any]:
    """Layers as one specification of this height, pixels, with `top` pixels of air above it; `values` is the whole picture's data."""
    chart = alt.layer(*layers, data=alt.InlineData(values=values)).properties(
        width="container", height=height, padding={"left": 10, "right": 10, "top": top, "bottom": 4})
    with alt.data_transformers.enable(consolidate_datasets=False):
        spec = chart.configure(**CONFIG).to_dict()
    for key in ("$schema", "name"):
        spec.pop(key, None)
    return spec


def _finish(layers: list[alt.Chart], values: list[dict[str, Any]], step: int = STEP) -> dict[str, Any]:
    return finish(layers, values, step * len(values))


def rung_values(entries: list[Entry]) -> list[dict[str, Any]]:
    """What a picture draws of a ladder, from the top; FIELDS names it."""
    return _coloured([_rung(place, entry) for place, entry in enumerate(rungs(entries))])


def slowest_floor(values: list[dict[str, Any]]) -> float | None:
    """The time of the slowest floor among some rungs, microseconds; None without one."""
    return max((one["time"] for one in values if one["kind"] == "floor" and one["ranked"]), default=None)


def ladder(view: Ladder, limits: tuple[float, float] | None = None) -> dict[str, Any]:
    """Times on a log axis: points with 95 % intervals, the goal as a line, what lies below the slowest floor as a band."""
    values, (low, high) = rung_values(view.entries), limits or span([view])
    return _ladder(values, (low, high), ticks(low, high), slowest_floor(values), view.goal_us)


def _ladder(values: list[dict[str, Any]], ends: tuple[float, float], marks: list[float], floor_us: float | None, goal_us: float | None) -> dict[str, Any]:
    low, high = ends
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    axis = alt.Axis(values=marks, title="µs for the whole problem (log scale)", labelExpr="format(datum.value, ',~g')")
    layers: list[alt.Chart] = []
    if floor_us is not None:
        band = alt.InlineData(values=[{"from": low, "to": floor_us}])
        layers.append(alt.Chart(band).mark_rect(color="var(--floor)", opacity=0.13).encode(x=alt.X("from:Q", scale=scale, axis=axis), x2="to:Q"))
    if goal_us:
        share = math.log(goal_us / low) / math.log(high / low)
        layers += _marker(goal_us, f"goal {goal_us:,.4g} µs", share, "var(--goal)")
    return _finish(layers + _layers(values, scale, axis), values)


def empty_ladder() -> dict[str, Any]:
    """A ladder's specification without a goal, for the page's script to fill: `$values`, `$domain`, `$ticks` and `$band` stand where those
    of a ladder go; its height is that of one rung."""
    values = [{field: 1.0 if field in ("time", "low", "high") else 0 for field in FIELDS}]
    ends, marks, floor_us = (0.25, 8.25), [4.25], 2.25  # stand for nothing: they are only looked for
    filled = {"$values": values, "$domain": list(ends), "$ticks": marks, "$band": [{"from": ends[0], "to": floor_us}]}

    def emptied(part: Any) -> Any:
        slot = next((name for name, value in filled.items() if part == value), None)
        if slot:
            return slot
        if isinstance(part, dict):
            return {key: emptied(value) for key, value in part.items()}
        return [emptied(value) for value in part] if isinstance(part, list) else part

    return emptied(_ladder(values, ends, marks, floor_us, None))


def span(views: list[Ladder]) -> tuple[float, float]:
    """Ends of the log axis that several ladders share."""
    values = [value for view in views for entry in rungs(view.entries) for key in ("time_us", "ci_low_us", "ci_high_us")
              if (value := words.finite(entry.row.get(key))) and value > 0]
    values += [view.goal_us for view in views if view.goal_us]
    return domain(values or [1.0, 10.0])


def zoomed(view: Ladder, most: float = 2.0) -> list[Entry]:
    """Variants and rivals within a factor of the best rival, for the linear picture."""
    found = [entry for entry in view.entries if entry.ranked and (ratio := words.finite(entry.row.get("vs_best_rival"))) and ratio <= most]
    return found[:MOST_RUNGS] if any(entry.kind == "variant" for entry in found) and len(found) > 1 else []


def zoom(entries: list[Entry], band: float) -> dict[str, Any]:
    """Time over the best rival's on a linear axis, where a tenth can be seen."""
    values = []
    for place, entry in enumerate(entries):
        row = entry.row
        ratio, low, high = (words.finite(row.get(key)) for key in ("vs_best_rival", "vs_best_rival_low", "vs_best_rival_high"))
        ends = words.interval(ratio, low, high)
        values.append(dict(place=place, kind=entry.kind, ranked=True, time=ratio, low=low, high=high, label=f"{entry.name} · {entry.kind}",
                           value=f"{words.versus_rival(row)} {row.get('verdict') or ''}".strip(), name=entry.name, interval=ends or "none", status="ok", why=""))
    return ratios(values, band, "time over the best rival’s (left of 1 is faster)", "var(--rival)")


def ratios(values: list[dict[str, Any]], band: float, title: str, tone: str, limit: float | None = None) -> dict[str, Any]:
    """Rungs (`time` is a ratio) on a linear axis, the band around 1 within which two times are the same, and a limit as a line."""
    numbers = [one[key] for one in values for key in ("time", "low", "high") if one[key]] + [1 - band, 1 + band] + ([limit] if limit else [])
    air = 0.06 * (max(numbers) - min(numbers))
    low, high = min(numbers) - air, max(numbers) + air
    scale = alt.Scale(domain=[low, high], nice=False, zero=False)
    axis = alt.Axis(title=title, tickCount=6, format=",~r")
    same = alt.InlineData(values=[{"from": 1 - band, "to": 1 + band}])
    layers = [alt.Chart(same).mark_rect(color=tone, opacity=0.25).encode(x=alt.X("from:Q", scale=scale, axis=axis), x2="to:Q")]
    if limit:
        layers += _marker(limit, f"limit {limit:g} ×", (limit - low) / (high - low), "var(--goal)")
    return _finish(layers + _layers(_coloured(values), scale, axis), values)


TRY_SHAPES = {"same": "circle", "undecided": "diamond", "slower": "triangle-right", "faster": "triangle-left"}
TRY_COLOURS = {"same": "var(--good)", "slower": "var(--bad)", "faster": "var(--bad)"}


def tries(lines: list[dict[str, Any]], band: float, limits: tuple[float, float]) -> dict[str, Any]:
    """One binary over itself: each try's ratio with its interval on a linear axis, and the band within which two times are the same.

    Shape and colour tell the verdict; the wrong ones also carry it as a word.
    """
    def short(value: float | None) -> float | None:
        return None if value is None else float(f"{value:.7g}")

    values = []
    for place, one in enumerate(drawn_tries(lines)):
        verdict = one["verdict"]
        tone = TRY_COLOURS.get(verdict, "var(--muted)")
        values.append(dict(place=place, ratio=short(one["ratio"]), low=short(one["low"]), high=short(one["high"]), verdict=verdict, tone=tone,
                           fill="var(--paper)" if verdict == "undecided" else tone, state=verdict if verdict in ("faster", "slower") else "",
                           runs=one["runs"], copies=one["copies"], shown=one["shown"], interval=one["interval"] or "none"))
    scale = alt.Scale(domain=list(limits), nice=False, zero=False, clamp=True)
    axis = alt.Axis(title="time of a binary over its own (shaded: the same)", tickCount=5, format=",~r")
    y = alt.Y("place:O", axis=None, sort="ascending")
    tip = [alt.Tooltip(f"{name}:N", title=title) for name, title in (
        ("verdict", "verdict"), ("shown", "ratio"), ("interval", "95 % CI"), ("runs", "run"), ("copies", "copy"))]
    same, one = alt.InlineData(values=[{"from": 1 - band, "to": 1 + band}]), alt.InlineData(values=[{"at": 1}])
    x = alt.X("ratio:Q", scale=scale, axis=axis)

    def raw(channel: Any, name: str) -> Any:
        return channel(f"{name}:N", scale=None, legend=None)

    layers = [alt.Chart(same).mark_rect(color="var(--good)", opacity=0.14).encode(x=alt.X("from:Q", scale=scale, axis=axis), x2="to:Q"),
              alt.Chart(one).mark_rule(strokeDash=[2, 3], color="var(--muted)").encode(x="at:Q")]
    if any(value["low"] is not None for value in values):
        layers.append(alt.Chart().mark_rule(strokeWidth=2, opacity=0.6).transform_filter("isValid(datum.low)").encode(
            x=alt.X("low:Q", scale=scale, axis=axis), x2="high:Q", y=y, color=raw(alt.Color, "tone")))
    shape = alt.Shape("verdict:N", scale=alt.Scale(domain=list(TRY_SHAPES), range=list(TRY_SHAPES.values())), legend=None)
    layers.append(alt.Chart().mark_point(size=46, opacity=1, strokeWidth=1.5).encode(
        x=x, y=y, stroke=raw(alt.Stroke, "tone"), fill=raw(alt.Fill, "fill"), shape=shape, tooltip=tip))
    if any(value["state"] for value in values):
        layers.append(alt.Chart().mark_text(align="right", fontSize=11, fontWeight="bold").transform_filter("datum.state").encode(
            x=alt.value("width"), y=y, text="state:N", color=raw(alt.Color, "tone")))
    return _finish(layers, values, TRY_STEP)


def drawn_tries(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a picture shows of some tries, by ratio."""
    return sorted(sorted(lines, key=lambda one: -abs(one["ratio"] - 1))[:MOST_TRIES], key=lambda one: one["ratio"])


def tries_span(lines: list[dict[str, Any]], band: float) -> tuple[float, float]:
    """Ends of the axis that several pictures of tries share: every ratio and the band; an interval may reach further."""
    numbers = [one["ratio"] for one in lines] + [1 - band, 1 + band]
    reach = 4 * max(abs(number - 1) for number in numbers)
    numbers += [end for one in lines for end in (one["low"], one["high"]) if end is not None and abs(end - 1) < reach]
    air = 0.06 * (max(numbers) - min(numbers))
    # The words of false verdicts stand at the right.
    return min(numbers) - air, max(numbers) + air * (4 if any(one["verdict"] in ("faster", "slower") for one in lines) else 1)


def static(spec: dict[str, Any]) -> dict[str, Any]:
    """The specification for a picture of fixed width. Names are cut here: Vega's own cutting measures texts again and again."""
    layers = []
    for layer in spec["layer"]:
        mark = layer["mark"]
        layers.append({**layer, "mark": {name: value for name, value in mark.items() if name != "limit"}} if isinstance(mark, dict) else layer)
    values = [{**one, "label": words.clip(one["label"], 54)} if "label" in one else one for one in spec["data"]["values"]]
    return {**spec, "layer": layers, "data": {"values": values}, "width": STATIC_WIDTH, "autosize": {"type": "pad", "contains": "padding"}}
