"""The picture of a history: times over the date on which they were recorded."""

from __future__ import annotations

import datetime
import math
from typing import Any

import altair as alt

from evosdpa.page import charts, words
from evosdpa.page.history import History, Point, Track

HEIGHT = 280
LABEL = 14
"""Pixels from one name to the next: less is not readable."""
POINTS = 0.68
"""Share of the width that the dates take; the names stand in the rest."""
AIR = datetime.timedelta(hours=1)
"""Least time to both sides of the points."""
STAMP = "%Y-%m-%dT%H:%M:%SZ"
HOUR, DAY = 3600, 86400
STEPS = (HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY, 91 * DAY, 182 * DAY, 364 * DAY)
"""From one mark of the axis to the next, seconds."""
MOST_MARKS = 5


def _moment(stamp: str) -> datetime.datetime | None:
    """A time in UTC; None for what is none."""
    try:
        return datetime.datetime.strptime(stamp, STAMP).replace(tzinfo=datetime.UTC)
    except ValueError:
        return None


def _at(stamp: str) -> int:
    """A time in UTC as milliseconds since 1970: numbers, because browsers read dates in a time zone of their own."""
    return _ms(_moment(stamp) or datetime.datetime.fromtimestamp(0, datetime.UTC))


def _ms(moment: datetime.datetime) -> int:
    return round(1000 * moment.timestamp())


def _placed(track: Track) -> list[Point]:
    """The versions that can be drawn."""
    return [point for point in track.points if point.time_us and _moment(point.when)]


def marks(first: datetime.datetime, last: datetime.datetime) -> tuple[list[int], str]:
    """Marks of an axis of dates, milliseconds since 1970, and how they are written."""
    start, end = first.timestamp(), last.timestamp()
    step = next((step for step in STEPS if (end - start) / step <= MOST_MARKS), STEPS[-1])
    found = [place * step * 1000 for place in range(math.ceil(start / step), math.floor(end / step) + 1)]
    return found, "%Y-%m-%d" if step >= DAY else "%m-%d %H:%M"


def _values(track: Track) -> list[dict[str, Any]]:
    """Points of a track. Shape: another kernel or the same one measured again; hollow: not a right time."""
    found = []
    for point in _placed(track):
        tone = "var(--variant)" if point.right else "var(--muted)"
        again = not point.version.get("first") and not point.parts("kernel")
        ends = words.time_interval(point.time)
        found.append(dict(at=_at(point.when), when=words.moment(point.when), time=point.time_us, kind="again" if again else "kernel", tone=tone, fill=tone if point.right else "var(--paper)",
                          name=track.name, value=f"{words.time_us(point.time)} µs", interval=f"{ends} µs" if ends else "none",
                          status=words.mark(point.time.get("status")).text, kernel=words.listed(point.parts("kernel"), 6) or "nothing",
                          measuring=words.listed(point.parts("measuring"), 6) or "nothing"))
    return found


def _segments(track: Track) -> list[dict[str, Any]]:
    """Lines from a version to the next; `same` where they were measured in the same way."""
    points = _placed(track)
    return [dict(at=_at(one.when), to=_at(two.when), time=one.time_us, end=two.time_us, same=not two.parts("measuring")) for one, two in zip(points, points[1:])]


def labels(heights: list[float], room: float = HEIGHT) -> list[float]:
    """Where names stand that belong to these heights (pixels from the top, ascending): as near as they can without touching."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + LABEL) if placed else height)
    over = placed[-1] - room if placed else 0
    for at in range(len(placed) - 1, -1, -1):  # those pushed out at the bottom push back
        limit = room if at == len(placed) - 1 else placed[at + 1] - LABEL
        placed[at] = min(placed[at], limit) if over > 0 else placed[at]
    return placed


def trend(view: History) -> dict[str, Any] | None:
    """Times of each variant's versions on a log axis over their dates, the goal as a line; None when there is no point."""
    values = [value for track in view.drawn for value in _values(track)]
    if not values:
        return None
    low, high = charts.domain([value["time"] for value in values] + ([view.goal_us] if view.goal_us else []))
    moments = [datetime.datetime.fromtimestamp(value["at"] / 1000, datetime.UTC) for value in values]
    air = max(AIR, (max(moments) - min(moments)) * 0.05)
    first, last = min(moments) - air, max(moments) + air
    x_scale = alt.Scale(domain=[_ms(first), _ms(first + (last - first) / POINTS)], nice=False, zero=False)
    y_scale = alt.Scale(type="log", domain=[low, high], nice=False)
    dates, written = marks(first, last)
    x_axis = alt.Axis(title="recorded on (UTC)", values=dates, labelExpr=f"utcFormat(datum.value, '{written}')", titleAnchor="start")
    y_axis = alt.Axis(values=charts.ticks(low, high), title="µs for the whole problem (log scale)", labelExpr="format(datum.value, ',~g')")
    x, y = alt.X("at:Q", scale=x_scale, axis=x_axis), alt.Y("time:Q", scale=y_scale, axis=y_axis)

    def raw(channel: Any, name: str) -> Any:
        return channel(f"{name}:N", scale=None, legend=None)

    layers: list[alt.Chart] = []
    if view.goal_us:
        goal = alt.InlineData(values=[{"at": _ms(first), "to": _ms(last), "goal": view.goal_us, "text": f"goal {view.goal_us:,.4g} µs"}])
        layers += [alt.Chart(goal).mark_rule(strokeDash=[5, 4], strokeWidth=1.5, color="var(--goal)").encode(
                       x=x, x2="to:Q", y=alt.Y("goal:Q", scale=y_scale, axis=y_axis)),
                   alt.Chart(goal).mark_text(align="left", dy=-6, dx=4, color="var(--goal)", fontSize=11, fontWeight="bold").encode(
                       x=alt.value(0), y="goal:Q", text="text:N")]
    segments = [segment for track in view.drawn for segment in _segments(track)]
    for same in (True, False):
        if some := [segment for segment in segments if segment["same"] is same]:
            layers.append(alt.Chart(alt.InlineData(values=some)).mark_rule(
                strokeWidth=1.5, color="var(--variant)" if same else "var(--muted)", strokeDash=[1, 0] if same else [3, 3]).encode(
                    x=x, x2="to:Q", y=y, y2="end:Q"))
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=["kernel", "again"], range=["circle", "diamond"]), legend=None)
    tip = [alt.Tooltip(f"{name}:N", title=title) for name, title in (
        ("name", "variant"), ("when", "recorded on"), ("value", "time"), ("interval", "95 % CI"), ("status", "status"), ("kernel", "changed in the kernel"),
        ("measuring", "changed in the measurement"))]
    layers.append(alt.Chart().mark_point(size=80, opacity=1, strokeWidth=1.5).encode(
        x=x, y=y, stroke=raw(alt.Stroke, "tone"), fill=raw(alt.Fill, "fill"), shape=shape, tooltip=tip))
    names = alt.InlineData(values=_names(view, low, high, _ms(last)))
    layers.insert(0, alt.Chart(names).mark_rule(color="var(--line)").encode(x=x, x2="to:Q", y=y, y2="height:Q"))
    layers.append(alt.Chart(names).mark_text(align="left", fontSize=11.5, dx=4, limit=alt.ExprRef(f"{1 - POINTS:.2g} * width - 4")).encode(
        x=alt.X("to:Q", scale=x_scale, axis=x_axis), y=alt.Y("height:Q", scale=y_scale, axis=y_axis), text="label:N", color=raw(alt.Color, "ink")))
    return charts.finish(layers, values, HEIGHT, top=14)


def _short(name: str, most: int = 26) -> str:
    """A long name without its middle: children of one source differ at the end."""
    return name if len(name) <= most else f"{name[:most // 3]}…{name[-(most - most // 3 - 1):]}"


def _names(view: History, low: float, high: float, edge: int) -> list[dict[str, Any]]:
    """Names right of the date `edge`, each as near to its newest point as there is room; `height` is a place on the axis of times."""
    shown = [(HEIGHT * math.log(high / points[-1].time_us) / math.log(high / low), track.name, points[-1]) for track in view.drawn if (points := _placed(track))]
    shown.sort(key=lambda one: one[:2])
    return [dict(at=_at(point.when), time=point.time_us, to=edge, height=float(f"{high * (low / high) ** (pixel / HEIGHT):.5g}"),
                 label=("" if point.right else f"{words.mark(point.time.get('status')).glyph} ") + f"{_short(name)} {words.time_us(point.time)}",
                 ink="var(--ink)" if point.right else "var(--muted)")
            for pixel, (_, name, point) in zip(labels([one[0] for one in shown]), shown)]
