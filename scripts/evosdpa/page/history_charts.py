"""The picture of a history: times over the date on which they were recorded."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import Any

import altair as alt

from evosdpa.page import charts, words
from evosdpa.page.history import History, Point, Track

HEIGHT = 280
LABEL = 14
"""Pixels from one name to the next: less is not readable."""
POINTS = 0.64
"""Share of the width that the dates take; the names stand in the rest."""
AIR_MS = 3_600_000
"""Least time to both sides of the points."""
HOUR, DAY = 3600, 86400
STEPS = (HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY, 91 * DAY, 182 * DAY, 364 * DAY)
"""From one mark of the axis to the next, seconds."""
MOST_MARKS = 5


def _at(stamp: str) -> int | None:
    """A time in UTC as milliseconds since 1970: a number, because browsers read dates in a time zone of their own. None for what is no time."""
    try:
        return round(1000 * datetime.datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC).timestamp())
    except ValueError:
        return None


def marks(first: int, last: int) -> tuple[list[int], str]:
    """Marks of an axis from one date to another, all in milliseconds since 1970, and how they are written."""
    step = 1000 * next((step for step in STEPS if last - first <= 1000 * step * MOST_MARKS), STEPS[-1])
    return list(range(math.ceil(first / step) * step, last + 1, step)), "%Y-%m-%d" if step >= 1000 * DAY else "%m-%d %H:%M"


def _placed(track: Track) -> list[Point]:
    """The versions that can be drawn."""
    return [point for point in track.points if point.time_us and _at(point.when) is not None]


def _values(track: Track) -> list[dict[str, Any]]:
    """Points of a track. Shape: another kernel or the same one measured again; hollow: not a right time."""
    found = []
    for point in _placed(track):
        tone = "var(--variant)" if point.right else "var(--muted)"
        again = not point.version.get("first") and not point.parts("kernel")
        ends = words.time_interval(point.time)
        found.append(dict(at=_at(point.when), when=words.moment(point.when), time=point.time_us, kind="again" if again else "kernel", tone=tone,
                          fill=tone if point.right else "var(--paper)", name=track.name, value=f"{words.time_us(point.time)} µs",
                          interval=f"{ends} µs" if ends else "none", status=words.mark(point.time.get("status")).text, kernel=words.listed(point.parts("kernel"), 6) or "nothing",
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


@dataclass(frozen=True)
class _Frame:
    """Axes that all layers share: ends of the dates, milliseconds since 1970, and of the times, microseconds."""

    first: int
    last: int
    low: float
    high: float

    def x(self, field: str = "at") -> alt.X:
        """The date in a field; right of the last one there is room for names."""
        scale = alt.Scale(domain=[self.first, self.first + round((self.last - self.first) / POINTS)], nice=False, zero=False)
        dates, written = marks(self.first, self.last)
        axis = alt.Axis(title="recorded on (UTC)", values=dates, labelExpr=f"utcFormat(datum.value, '{written}')", titleAnchor="start")
        return alt.X(f"{field}:Q", scale=scale, axis=axis)

    def y(self, field: str = "time") -> alt.Y:
        """The time in a field."""
        axis = alt.Axis(values=charts.ticks(self.low, self.high), title="µs for the whole problem (log scale)", labelExpr="format(datum.value, ',~g')")
        return alt.Y(f"{field}:Q", scale=alt.Scale(type="log", domain=[self.low, self.high], nice=False), axis=axis)


def _frame(values: list[dict[str, Any]], goal_us: float | None) -> _Frame:
    low, high = charts.domain([value["time"] for value in values] + ([goal_us] if goal_us else []))
    moments = [value["at"] for value in values]
    air = max(AIR_MS, round((max(moments) - min(moments)) * 0.05))
    return _Frame(min(moments) - air, max(moments) + air, low, high)


def trend(view: History) -> dict[str, Any] | None:
    """Times of each variant's versions on a log axis over their dates, the goal as a line; None when there is no point."""
    values = [value for track in view.drawn for value in _values(track)]
    if not values:
        return None
    frame = _frame(values, view.goal_us)
    names = alt.InlineData(values=_names(view, frame))
    leaders = alt.Chart(names).mark_rule(color="var(--line)").encode(x=frame.x(), x2="to:Q", y=frame.y(), y2="height:Q")
    texts = alt.Chart(names).mark_text(align="left", fontSize=11.5, dx=4, limit=alt.ExprRef(f"{1 - POINTS:.2g} * width - 4")).encode(
        x=frame.x("to"), y=frame.y("height"), text="label:N", color=_raw(alt.Color, "ink"))
    return charts.finish([leaders, *_goal(view.goal_us, frame), *_lines(view, frame), _points(frame), texts], values, HEIGHT, top=14)


def _raw(channel: Any, name: str) -> Any:
    """A channel whose values are colours already."""
    return channel(f"{name}:N", scale=None, legend=None)


def _goal(goal_us: float | None, frame: _Frame) -> list[alt.Chart]:
    """The goal as a dashed line with its name."""
    if not goal_us:
        return []
    goal = alt.InlineData(values=[{"at": frame.first, "to": frame.last, "goal": goal_us, "text": f"goal {goal_us:,.4g} µs"}])
    return [alt.Chart(goal).mark_rule(strokeDash=[5, 4], strokeWidth=1.5, color="var(--goal)").encode(x=frame.x(), x2="to:Q", y=frame.y("goal")),
            alt.Chart(goal).mark_text(align="left", dy=-6, dx=4, color="var(--goal)", fontSize=11, fontWeight="bold").encode(
                x=alt.value(0), y=frame.y("goal"), text="text:N")]


def _lines(view: History, frame: _Frame) -> list[alt.Chart]:
    """From version to version, dashed where the measurement changed."""
    every = [segment for track in view.drawn for segment in _segments(track)]
    looks = {True: ("var(--variant)", [1, 0]), False: ("var(--muted)", [3, 3])}
    return [alt.Chart(alt.InlineData(values=some)).mark_rule(strokeWidth=1.5, color=colour, strokeDash=dash).encode(x=frame.x(), x2="to:Q", y=frame.y(), y2="end:Q")
            for same, (colour, dash) in looks.items() if (some := [segment for segment in every if segment["same"] is same])]


def _points(frame: _Frame) -> alt.Chart:
    """The versions; the data is the whole picture's."""
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=["kernel", "again"], range=["circle", "diamond"]), legend=None)
    tip = [alt.Tooltip(f"{name}:N", title=title) for name, title in (
        ("name", "variant"), ("when", "recorded on"), ("value", "time"), ("interval", "95 % CI"), ("status", "status"), ("kernel", "changed in the kernel"),
        ("measuring", "changed in the measurement"))]
    return alt.Chart().mark_point(size=80, opacity=1, strokeWidth=1.5).encode(
        x=frame.x(), y=frame.y(), stroke=_raw(alt.Stroke, "tone"), fill=_raw(alt.Fill, "fill"), shape=shape, tooltip=tip)


def _short(name: str, most: int = 19) -> str:
    """A long name without its middle: children of one source differ at the end."""
    return name if len(name) <= most else f"{name[:most // 3]}…{name[-(most - most // 3 - 1):]}"


def _names(view: History, frame: _Frame) -> list[dict[str, Any]]:
    """Names right of the last date, each as near to its newest point as there is room; `height` is a place on the axis of times."""
    reach = math.log(frame.high / frame.low)
    shown = [(HEIGHT * math.log(frame.high / points[-1].time_us) / reach, track.name, points[-1]) for track in view.drawn if (points := _placed(track))]
    shown.sort(key=lambda one: one[:2])
    return [dict(at=_at(point.when), time=point.time_us, to=frame.last, height=float(f"{frame.high * math.exp(-reach * pixel / HEIGHT):.5g}"),
                 label=("" if point.right else f"{words.mark(point.time.get('status')).glyph} ") + f"{_short(name)} {words.time_us(point.time)}",
                 ink="var(--ink)" if point.right else "var(--muted)")
            for pixel, (_, name, point) in zip(labels([one[0] for one in shown]), shown)]
