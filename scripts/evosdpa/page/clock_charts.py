"""The picture of times over clocks: a lane for each variant, a point for each of its processes."""

from __future__ import annotations

from typing import Any

import altair as alt

from evosdpa.page import charts, words
from evosdpa.page.clocks import BAND, Spread, Subject

LANE = 92
"""Pixels of a variant's lane."""
MIDDLE, HALF = 0.56, 0.42
"""Of a lane: where the variant's time lies, and from there to the furthest point; the rest is for the name."""
CLOCK_AIR = 0.02
"""The axis reaches this share beyond the clocks: a process that is further off is rejected (steadiness.py)."""


def _values(lane: int, subject: Subject, reach: float) -> list[dict[str, Any]]:
    """Points of a lane; shape and colour tell what was rejected."""
    return [dict(place=round(lane + MIDDLE - HALF * subject.off(one) / reach, 4), mhz=one["sm_mhz"], verdict="accepted" if one["accepted"] else "rejected",
                 tone="var(--variant)" if one["accepted"] else "var(--bad)", name=subject.name, process=str(one.get("process")),
                 time=f"{words.number(one['median_us'], one['median_us'] / 1000)} µs", off=f"{100 * subject.off(one):+.2f} %",
                 clock=f"{one['sm_mhz']:,.0f} MHz", why=words.clip(one.get("reason"), 160))
            for one in subject.processes]


def lanes(view: Spread) -> dict[str, Any]:
    """Each process's median off its variant's time, up is slower, over its SM clock; the band within which two times are the same."""
    reach = max([2 * BAND] + [abs(subject.off(one)) for subject in view.subjects for one in subject.processes])
    values = [value for lane, subject in enumerate(view.subjects) for value in _values(lane, subject, reach)]
    clocks = [value["mhz"] for value in values]
    scale = alt.Scale(domain=[min(clocks) * (1 - CLOCK_AIR), max(clocks) * (1 + CLOCK_AIR)], nice=False, zero=False)
    axis = alt.Axis(title="SM clock while it ran, MHz", tickCount=5, format=",~r")
    heights = alt.Scale(domain=[0, len(view.subjects)], reverse=True, nice=False, zero=False)

    def height(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", scale=heights, axis=None)

    half = HALF * BAND / reach
    grounds = alt.InlineData(values=[{"from": lane + MIDDLE - half, "to": lane + MIDDLE + half, "middle": lane + MIDDLE} for lane in range(len(view.subjects))])
    names = alt.InlineData(values=[{"top": lane + 0.1, "name": words.clip(subject.name, 48), "spread": f"{words.percent(subject.reach)} apart"}
                                   for lane, subject in enumerate(view.subjects)])

    def raw(channel: Any, name: str) -> Any:
        return channel(f"{name}:N", scale=None, legend=None)

    layers = [
        alt.Chart(grounds).mark_rect(color="var(--good)", opacity=0.14).encode(x=alt.value(0), x2=alt.value("width"), y=height("from"), y2="to:Q"),
        alt.Chart(grounds).mark_rule(color="var(--line)", strokeDash=[1, 3]).encode(x=alt.value(0), x2=alt.value("width"), y=height("middle")),
        alt.Chart(names).mark_text(align="left", fontSize=12, color="var(--ink)", limit=alt.ExprRef(charts.NAME_LIMIT)).encode(x=alt.value(0), y=height("top"), text="name:N"),
        alt.Chart(names).mark_text(align="right", fontSize=12, color="var(--ink)").encode(x=alt.value("width"), y=height("top"), text="spread:N"),
    ]
    shape = alt.Shape("verdict:N", scale=alt.Scale(domain=["accepted", "rejected"], range=["circle", "cross"]), legend=None)
    tip = [alt.Tooltip(f"{name}:N", title=title) for name, title in (
        ("name", "variant"), ("process", "process"), ("verdict", "verdict"), ("time", "median"), ("off", "off the variant’s time"),
        ("clock", "SM clock"), ("why", "why"))]
    layers.append(alt.Chart().mark_point(size=55, opacity=0.85, strokeWidth=1.5).encode(
        x=alt.X("mhz:Q", scale=scale, axis=axis), y=height("place"), stroke=raw(alt.Stroke, "tone"), fill=raw(alt.Fill, "tone"), shape=shape, tooltip=tip))
    return charts.finish(layers, values, LANE * len(view.subjects))
