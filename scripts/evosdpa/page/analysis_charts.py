"""Vega-Lite specifications of waterfalls, roofline, pipes and stalls. The page may exchange the data of bars for another variant's."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from evosdpa.page import analysis, charts
from evosdpa.page.analysis import Ceilings, Point

FIELDS = ("label", "value", "low", "high", "basis", "note")
"""Of a bar, in the order in which the page keeps those of the other variants."""
MOST_POINTS = 16
"""Times in the roofline; its table has more."""

STEP = 34
ROOF_HEIGHT = 340
LABEL_GAP = 15
"""Pixels between two names in the roofline."""

PLAIN = "format(datum.value, ',~g')"
"""How a tick is written: an axis' own format would round it to the digits that tell the ticks apart, in powers of ten."""

LOOKS = {
    # basis: fill, stroke
    "measured": ("var(--floor)", "var(--floor)"),
    "modelled": ("var(--variant)", "var(--variant)"),
    "unexplained": ("var(--paper)", "var(--warn)"),
    "total": ("var(--ink)", "var(--ink)"),
    "pipe": ("var(--variant)", "var(--variant)"),
    "near": ("var(--rival)", "var(--rival)"),
    "wait": ("var(--variant)", "var(--variant)"),
    "issue": ("var(--floor)", "var(--floor)"),
}


def placed(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bars with their places, from the top."""
    return [{"place": place, **one} for place, one in enumerate(values)]


def packed(question: str, choices: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Question (`{}` is the variant), answers and bars for the page's script.

    Bars repeat their texts, so each stands once in `texts`, at the place that a bar names.
    """
    texts: dict[str, int] = {}

    def short(field: str, value: Any) -> Any:
        return value if field in ("low", "high") else texts.setdefault(value, len(texts))

    found = {name: [one["answer"], [[short(field, bar[field]) for field in FIELDS] for bar in one["bars"]]] for name, one in choices.items()}
    return {"fields": FIELDS, "of": found, "question": question, "step": STEP, "texts": list(texts)}


def bars(values: list[dict[str, Any]], title: str, limit: float | None = None) -> dict[str, Any]:
    """Horizontal bars from `low` to `high`, each with its name and value above it."""
    y = alt.Y("place:O", axis=None, sort="ascending")
    scale = alt.Scale(domain=[0, limit], nice=False) if limit else alt.Scale(zero=True, nice=True)
    x = alt.X("low:Q", scale=scale, axis=alt.Axis(title=title, tickCount=5, labelExpr=PLAIN))
    looks = [alt.Scale(domain=list(LOOKS), range=[look[side] for look in LOOKS.values()]) for side in (0, 1)]
    tip = [alt.Tooltip("label:N", title="step"), alt.Tooltip("value:N", title="value"), alt.Tooltip("note:N", title="note")]
    layers = [
        alt.Chart().mark_bar(yOffset=8, size=11, strokeWidth=1.5).encode(
            x=x, x2="high:Q", y=y, fill=alt.Fill("basis:N", scale=looks[0], legend=None), stroke=alt.Stroke("basis:N", scale=looks[1], legend=None),
            strokeDash=alt.condition("datum.basis == 'unexplained'", alt.value([3, 2]), alt.value([1, 0])), tooltip=tip)]
    for at, text, style in ((0, "label", {"align": "left", "limit": alt.ExprRef("max(80, width - 122)")}), ("width", "value", {"align": "right"})):
        layers.append(alt.Chart().mark_text(dy=-7, fontSize=12, color="var(--ink)", **style).encode(x=alt.value(at), y=y, text=f"{text}:N"))
    return _spec(layers, placed(values), STEP * len(values))


def roofline(points: list[Point], top: Ceilings | None) -> dict[str, Any]:
    """Times under their ceilings, both axes logarithmic: filled over the bytes that must move, hollow over those that passed through L2."""
    intensities = [one.intensity for one in points] + [one.l2_intensity for one in points if one.l2_intensity]
    if top and top.ridge:
        intensities.append(top.ridge)
    low, high = min(intensities) / 3, max(intensities) * 6
    heights = [one.tflops for one in points] + ([max(filter(None, (top.tensor, top.exps)))] if top else [])
    bottom, summit = min(heights) / 2.5, max(heights) * 2.2
    x = alt.X("x:Q", scale=alt.Scale(type="log", domain=[low, high], nice=False),
              axis=alt.Axis(title="operations per byte (log scale)", values=charts.ticks(low, high), labelExpr=PLAIN))
    y = alt.Y("y:Q", scale=alt.Scale(type="log", domain=[bottom, summit], nice=False),
              axis=alt.Axis(title="TFLOP/s (log scale)", values=charts.ticks(bottom, summit), labelExpr=PLAIN))
    layers = _roofs(top, (low, high), bottom, x, y) if top else []
    names = _spaced(points, bottom, summit)
    values = []
    for place, one in enumerate(points):
        tone = charts.COLOURS[one.kind] if one.ranked else "var(--muted)"
        same = dict(y=one.tflops, name=one.name, kind=one.kind, time=f"{one.time} µs", tone=tone)
        values.append(dict(same, x=one.intensity, over=one.l2_intensity, label=one.name if place in names else "", fill=tone if one.ranked else "var(--paper)",
                           bytes="that must move"))
        if one.l2_intensity:
            values.append(dict(same, x=one.l2_intensity, over=None, label="", fill="var(--paper)", bytes="through L2, by the profile"))
    values = [{**one, **{axis: float(f"{one[axis]:.5g}") for axis in ("x", "y", "over") if one[axis]}} for one in values]

    def raw(channel: Any, name: str) -> Any:
        return channel(f"{name}:N", scale=None, legend=None)

    if any(one["over"] for one in values):
        layers.append(alt.Chart().mark_rule(strokeDash=[2, 3], opacity=0.8).transform_filter("isValid(datum.over)").encode(
            x=x, x2="over:Q", y=y, color=raw(alt.Color, "tone")))
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=list(charts.SHAPES), range=list(charts.SHAPES.values())), legend=None)
    tip = [alt.Tooltip(f"{name}:N", title=title) for name, title in (("name", "name"), ("kind", "kind"), ("time", "time"), ("bytes", "bytes"))]
    tip += [alt.Tooltip("y:Q", title="TFLOP/s", format=",.3~g"), alt.Tooltip("x:Q", title="operations per byte", format=",.3~g")]
    layers.append(alt.Chart().mark_point(size=70, opacity=1, strokeWidth=1.5).encode(
        x=x, y=y, stroke=raw(alt.Stroke, "tone"), fill=raw(alt.Fill, "fill"), shape=shape, tooltip=tip))
    layers.append(alt.Chart().mark_text(align="left", dx=9, fontSize=12, limit=alt.ExprRef("max(60, width * 0.38)")).encode(
        x=x, y=y, text="label:N", color=raw(alt.Color, "tone")))
    return _spec(layers, values, ROOF_HEIGHT)


def _roofs(top: Ceilings, ends: tuple[float, float], bottom: float, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """The lines that nothing exceeds, with their names."""
    low, high = ends
    summit = top.tensor or top.exps
    start = max(low, bottom / top.dram)
    ridge = min(high, summit / top.dram)
    line = alt.InlineData(values=[dict(x=at, y=min(summit, at * top.dram)) for at in (start, ridge, high)])
    together = top.tensor is not None and abs(top.exps / top.tensor - 1) <= analysis.CLOSE
    tensor = f"tensor cores{' and exp unit' if together else ''}: {top.tensor:,.0f} TFLOP/s" if top.tensor else f"exp unit: {top.exps:,.0f} TFLOP/s"
    layers = [alt.Chart(line).mark_line(strokeWidth=2, color="var(--muted)").encode(x=x, y=y)]
    if top.tensor:
        exps = alt.InlineData(values=[dict(x=max(low, top.exps / top.dram), y=top.exps), dict(x=high, y=top.exps)])
        layers.append(alt.Chart(exps).mark_line(strokeWidth=2, strokeDash=[6, 4], color="var(--goal)").encode(x=x, y=y))
    # The exp ceiling's name stands below its line where it is lower, above where it is higher.
    words = [dict(x=high, y=summit, text=tensor, tone="var(--muted)", dy=-7 if top.tensor is None or together or top.exps < summit else 13)]
    if top.tensor and not together:
        words.append(dict(x=high, y=top.exps, text=f"exp unit: {top.exps:,.0f} TFLOP/s", tone="var(--goal)", dy=13 if top.exps < summit else -7))
    for one in words:
        layers.append(alt.Chart(alt.InlineData(values=[one])).mark_text(
            align="right", dx=-4, dy=one["dy"], fontSize=11, fontWeight="bold", color=one["tone"]).encode(x=x, y=y, text="text:N"))
    at = start**0.7 * ridge**0.3  # low on the slope, to its right: away from the times
    slope = alt.InlineData(values=[dict(x=at, y=at * top.dram, text=f"DRAM: {top.dram:g} TB/s")])
    layers.append(alt.Chart(slope).mark_text(align="left", dx=8, dy=8, fontSize=11, fontWeight="bold", color="var(--muted)").encode(x=x, y=y, text="text:N"))
    return layers


def _spaced(points: list[Point], bottom: float, summit: float) -> set[int]:
    """Which points have room for their names: the best variant and the best rival before all, then variants."""
    first = [next((place for place, one in enumerate(points) if one.kind == kind), None) for kind in ("variant", "rival")]
    rest = sorted(range(len(points)), key=lambda place: (points[place].kind != "variant", place))
    order = [place for place in dict.fromkeys([*first, *rest]) if place is not None]
    taken: list[float] = []
    found = set()
    for place in order:
        at = ROOF_HEIGHT * math.log(points[place].tflops / bottom) / math.log(summit / bottom)
        if all(abs(at - other) >= LABEL_GAP for other in taken):
            taken.append(at)
            found.add(place)
    return found


def _spec(layers: list[alt.Chart], values: list[dict[str, Any]], height: Any) -> dict[str, Any]:
    chart = alt.layer(*layers, data=alt.InlineData(values=values)).properties(
        width="container", height=height, padding={"left": 10, "right": 12, "top": 8, "bottom": 4})
    with alt.data_transformers.enable(consolidate_datasets=False):
        spec = chart.configure(**charts.CONFIG).to_dict()
    for key in ("$schema", "name"):
        spec.pop(key, None)
    return spec
