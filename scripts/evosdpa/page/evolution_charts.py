"""Vega-Lite specifications of an evolution: lineage, the best over time, credit of levers, promised against measured."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from evosdpa import stats
from evosdpa.page import charts, words
from evosdpa.page.analysis_charts import PLAIN
from evosdpa.page.evolution import Evolution

MOST_POINTS = 110
"""Children in the lineage: elites, those that once were, then the fastest."""
LEAST_PROMISES = 3
"""Promises from which on they are drawn."""
SIDEWAYS = 0.7
"""Of the room of a generation, what its children take side by side."""
LINEAGE_HEIGHT = 340
BEST_HEIGHT = 240

SHAPES = {"elite": "diamond", "entered": "square", "right": "circle"}
TONES = {"elite": "var(--variant)", "entered": "var(--variant)", "right": "var(--muted)"}
MODE_SHAPES = ("circle", "square", "triangle-up", "diamond")
MODE_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])


def drawn(view: Evolution) -> list[dict[str, Any]]:
    """The children of the lineage's picture: right ones with a time in the first mode."""
    mode, order = view.modes[0], list(SHAPES)
    found = [child for child in view.children if child["right"] and mode in child["times_us"]]
    return sorted(found, key=lambda child: (order.index(child["stands"]), child["times_us"][mode]))[:MOST_POINTS]


def drawn_times(view: Evolution) -> list[float]:
    """Their times in the first mode, microseconds."""
    return [child["times_us"][view.modes[0]] for child in drawn(view)]


def lineage(view: Evolution) -> dict[str, Any] | None:
    """A point a right child, generation over time (log), with a line to its parent; elites carry their place. None without a time."""
    mode, places = view.modes[0], {one["name"]: place for place, one in enumerate(view.elites, 1)}
    children = drawn(view)
    if not children:
        return None
    across = _across(children)
    times = drawn_times(view)
    goal, _ = view.goal_beside(times)
    times += [goal] if goal else []
    spots = {child["name"]: (across[child["name"]], _short(child["times_us"][mode])) for child in children}
    values = []
    for child in children:
        tone, spot, from_ = TONES[child["stands"]], spots[child["name"]], spots.get(child["parent"], (None, None))
        values.append(dict(
            x=spot[0], y=spot[1], px=from_[0], py=from_[1], stands=child["stands"], tone=tone, fill=tone if child["stands"] == "elite" else "var(--paper)",
            place=str(places.get(child["name"], "")), name=child["name"], time=f"{words.number(child['times_us'][mode])} µs", standing=child["standing"],
            parent=child["parent"] or "none", change=words.clip(", ".join(child["changes"]) or child["how"], 160), verdict=child["verdict"] or "none"))
    x, y = _generations(view), _times(times, mode)
    layers = _goal(goal, y)
    if any(one["px"] is not None for one in values):
        layers.append(alt.Chart().mark_rule(strokeWidth=1, color="var(--muted)", opacity=0.55).transform_filter("isValid(datum.px)").encode(
            x=_generations(view, "px"), y=_times(times, mode, "py"), x2="x:Q", y2="y:Q"))
    tip = [alt.Tooltip(f"{name}:N", title=title) for name, title in (
        ("name", "name"), ("time", "time"), ("standing", "stands"), ("parent", "parent"), ("change", "change"), ("verdict", "against parent"))]
    shape = alt.Shape("stands:N", scale=alt.Scale(domain=list(SHAPES), range=list(SHAPES.values())), legend=None)
    layers.append(alt.Chart().mark_point(size=80, opacity=1, strokeWidth=1.5).encode(x=x, y=y, stroke=_raw(alt.Stroke, "tone"), fill=_raw(alt.Fill, "fill"),
                                                                                  shape=shape, tooltip=tip))
    layers.append(alt.Chart().mark_text(align="left", dx=9, fontSize=12, fontWeight="bold", color="var(--variant)").transform_filter("datum.place").encode(
        x=x, y=y, text="place:N"))
    return charts.finish(layers, values, LINEAGE_HEIGHT)


def best(view: Evolution) -> dict[str, Any] | None:
    """The best elite's time over the generations, a line a mode; shape, dashes and a word tell the modes apart. None without a time."""
    values = [dict(x=one["generation"], y=_short(one["best"][mode]), mode=mode, time=f"{words.number(one['best'][mode])} µs")
              for one in view.generations for mode in view.modes if mode in one["best"]]
    if not values:
        return None
    goal, _ = view.goal_beside(view.best_times)
    modes = [mode for mode in view.modes if any(one["mode"] == mode for one in values)]
    x, y = _generations(view), _times(view.best_times + ([goal] if goal else []), "")
    layers = _goal(goal, y)
    looks = [modes, [MODE_SHAPES[place % 4] for place in range(len(modes))], [MODE_DASHES[place % 4] for place in range(len(modes))]]
    layers.append(alt.Chart().mark_line(strokeWidth=2, color="var(--variant)").encode(
        x=x, y=y, detail="mode:N", strokeDash=alt.StrokeDash("mode:N", scale=alt.Scale(domain=looks[0], range=looks[2]), legend=None)))
    layers.append(alt.Chart().mark_point(size=60, opacity=1, stroke="var(--variant)", fill="var(--card)", strokeWidth=1.5).encode(
        x=x, y=y, shape=alt.Shape("mode:N", scale=alt.Scale(domain=looks[0], range=looks[1]), legend=None),
        tooltip=[alt.Tooltip("x:Q", title="generation"), alt.Tooltip("mode:N", title="mode"), alt.Tooltip("time:N", title="best elite")]))
    last = sorted((max((one for one in values if one["mode"] == mode), key=lambda one: one["x"]) for mode in modes), key=lambda one: one["y"])
    for place, one in enumerate(last):
        below = place == 0 and len(last) > 1  # the lowest line's name stands below it, so that two close lines do not share a place
        layers.append(alt.Chart(alt.InlineData(values=[one])).mark_text(dy=16 if below else -12, fontSize=12, fontWeight="bold", color="var(--ink)").encode(
            x=x, y=y, text="mode:N"))
    return charts.finish(layers, values, BEST_HEIGHT)


def credit(view: Evolution) -> dict[str, Any] | None:
    """Time after over before where a lever was changed, seen towards its larger value, with its interval; of many levers those furthest from 1. None where no lever was."""
    sources = {one["source"] for one in view.levers}
    values = []
    shown = sorted(view.levers, key=lambda one: -abs(math.log(one["ratio"].value)))[:charts.MOST_RUNGS]
    for place, one in enumerate(one for one in view.levers if one in shown):
        ratio = one["ratio"]
        label = one["lever"] + (f" of {one['source']}" if len(sources) > 1 else "") + f" · {words.plural(one['pairs'], 'pair')}"
        values.append(dict(place=place, kind="variant", ranked=ratio.low is not None, time=_short(ratio.value), low=ratio.low and _short(ratio.low),
                           high=ratio.high and _short(ratio.high), label=label, value=f"{ratio.text} {one['verdict']}", name=one["lever"],
                           interval=ratio.interval or "none", status=one["verdict"], why=f"in {one['source']}"))
    return charts.ratios(values, stats.SAME_BAND, "time after over before (left of 1: more of the lever is faster)", "var(--good)") if values else None


def promised(view: Evolution) -> dict[str, Any] | None:
    """What a child gained in the first mode, with its interval, beside what it was allowed and expected to. None for a few."""
    values = []
    for one in view.promised:
        ratio = one["child"]["ratios"][0]
        if ratio.value:
            low, high = (None, None) if ratio.low is None or ratio.high is None else (100 * (1 - ratio.high), 100 * (1 - ratio.low))
            share = dict(gained=1 - ratio.value, allowed=one["at_most"], hoped=one["expected"])
            values.append(dict({key: None if value is None else _short(100 * value) for key, value in share.items()},
                               low=None if low is None else _short(low), high=None if high is None else _short(high), label=one["name"], value=one["verdict"], measured=ratio.gained, at_most=one["allowed"], expected=one["hoped"]))
    if len(values) < LEAST_PROMISES:
        return None
    values = [{"place": place, **one} for place, one in enumerate(values[-charts.MOST_RUNGS:])]
    numbers = [one[key] for one in values for key in ("gained", "low", "high", "allowed", "hoped") if one[key] is not None] + [0.0]
    air = 0.05 * ((max(numbers) - min(numbers)) or 1.0)
    scale = alt.Scale(domain=[min(numbers) - air, max(numbers) + air], nice=False, zero=False)
    axis = alt.Axis(title="gain over the parent, % (right of 0 is faster)", tickCount=6, labelExpr=PLAIN)
    y = alt.Y("place:O", axis=None, sort="ascending")
    tip = [alt.Tooltip(f"{name}:N", title=title) for name, title in (
        ("label", "child"), ("measured", "measured"), ("at_most", "at most, by its rule"), ("expected", "expected, by credit"), ("value", "against parent"))]
    zero = alt.InlineData(values=[{"at": 0}])

    def x(name: str) -> alt.X:
        return alt.X(f"{name}:Q", scale=scale, axis=axis)

    layers = [alt.Chart(zero).mark_rule(strokeDash=[2, 3], color="var(--muted)").encode(x=x("at"))]
    if any(one["low"] is not None for one in values):
        layers.append(alt.Chart().mark_rule(yOffset=8, strokeWidth=3, opacity=0.75, color="var(--variant)").transform_filter("isValid(datum.low)").encode(
            x=x("low"), x2="high:Q", y=y))
    marks = (("allowed", dict(shape="stroke", angle=90, size=260, strokeWidth=2.5, stroke="var(--goal)")),
             ("hoped", dict(shape="diamond", size=80, strokeWidth=1.5, stroke="var(--rival)", fill="var(--paper)")),
             ("gained", dict(shape="circle", size=75, strokeWidth=1.5, stroke="var(--variant)", fill="var(--variant)")))
    layers += [alt.Chart().mark_point(yOffset=8, opacity=1, **look).transform_filter(f"isValid(datum.{name})").encode(x=x(name), y=y, tooltip=tip)
               for name, look in marks if any(one[name] is not None for one in values)]
    for at, text, style in ((0, "label", {"align": "left", "limit": alt.ExprRef(charts.NAME_LIMIT)}), ("width", "value", {"align": "right"})):
        layers.append(alt.Chart().mark_text(dy=-8, fontSize=12, color="var(--ink)", **style).encode(x=alt.value(at), y=y, text=f"{text}:N"))
    return charts.finish(layers, values, charts.STEP * len(values))


def _short(value: float) -> float:
    """More digits than a picture shows would only be bytes."""
    return float(f"{value:.6g}")


def _raw(channel: Any, name: str) -> Any:
    return channel(f"{name}:N", scale=None, legend=None)


def _across(children: list[dict[str, Any]]) -> dict[str, float]:
    """Where each child stands on the axis of generations: side by side, so that equal times do not hide each other."""
    beside: dict[float, list[str]] = {}
    for child in sorted(children, key=lambda child: child["name"]):
        beside.setdefault(child["generation"], []).append(child["name"])
    return {name: round(generation + (place - (len(names) - 1) / 2) * min(0.16, SIDEWAYS / len(names)), 4)
            for generation, names in beside.items() for place, name in enumerate(names)}


def _generations(view: Evolution, field: str = "x") -> alt.X:
    """The axis of generations; the first is called the start."""
    last = max(one["generation"] for one in view.generations)
    step = max(1, math.ceil(last / 12))
    return alt.X(f"{field}:Q", scale=alt.Scale(domain=[-0.5, last + 0.5], nice=False, zero=False),
                 axis=alt.Axis(title="generation", values=list(range(0, last + 1, step)), grid=False,
                               labelExpr="datum.value == 0 ? 'start' : format(datum.value, 'd')"))


def _times(times: list[float], mode: str, field: str = "y") -> alt.Y:
    """A logarithmic axis for these times, microseconds."""
    low, high = charts.domain(times)
    return alt.Y(f"{field}:Q", scale=alt.Scale(type="log", domain=[low, high], nice=False),
                 axis=alt.Axis(title=f"µs for the whole problem{f', {mode}' if mode else ''} (log scale)", values=charts.ticks(low, high), labelExpr=PLAIN))


def _goal(goal: float | None, y: alt.Y) -> list[alt.Chart]:
    """The goal as a dashed line with its name."""
    if not goal:
        return []
    one = alt.InlineData(values=[{"y": goal, "text": f"goal {goal:,.4g} µs"}])
    return [alt.Chart(one).mark_rule(strokeDash=[5, 4], strokeWidth=1.5, color="var(--goal)").encode(x=alt.value(0), x2=alt.value("width"), y=y),
            alt.Chart(one).mark_text(align="left", dx=4, dy=-7, fontSize=11, fontWeight="bold", color="var(--goal)").encode(x=alt.value(0), y=y, text="text:N")]
