"""What became of each variant from one recorded version to the next, and what changed beside it: gap.json's history as lines, tables, sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from evosdpa.page import words

MOST_DRAWN = 12
"""Variants in one picture: those with several versions first, then the fastest."""
MOST_ROWS = 60
COMMAND = "snakemake --cores 1 record"


@dataclass(frozen=True)
class Point:
    """One version of a variant with its time in one mode."""

    version: dict[str, Any]
    time: dict[str, Any]

    @property
    def time_us(self) -> float | None:
        """Microseconds for the whole problem; None where there is none that can be drawn."""
        time = words.finite(self.time.get("time_us"))
        return time if time and time > 0 else None

    @property
    def right(self) -> bool:
        """Whether the time is one: of a variant whose answers were right."""
        return self.time.get("status") == "ok" and self.time_us is not None

    @property
    def when(self) -> str:
        """When the measurement ended, UTC, ISO 8601."""
        return str(self.version.get("recorded_on") or "")

    def parts(self, name: str) -> list[str]:
        """What changed since the version before of `kernel` or `measuring`."""
        return [str(part) for part in self.version.get(name) or []]


@dataclass(frozen=True)
class Track:
    """A variant's versions in one mode, the oldest first."""

    name: str
    points: tuple[Point, ...]

    @property
    def last(self) -> Point:
        """The newest version."""
        return self.points[-1]


@dataclass(frozen=True)
class History:
    """Every track of one device and mode, the fastest of today first."""

    device_words: str
    mode: str
    tracks: tuple[Track, ...]
    goal_us: float | None

    @property
    def drawn(self) -> list[Track]:
        """Tracks with a time, at most MOST_DRAWN, in the order of all."""
        some = [track for track in self.tracks if any(point.time_us for point in track.points)]
        kept = {track.name for track in sorted(some, key=lambda track: len(track.points) == 1)[:MOST_DRAWN]}
        return [track for track in some if track.name in kept]

    @property
    def left_out(self) -> int:
        """Variants that the picture does not show."""
        return len(self.tracks) - len(self.drawn)


def history(document: dict[str, Any], mode: str) -> History:
    """The leading device's history in a mode on the goal's problem."""
    device = document["leading_device"]
    entry = next((one for one in document["devices"] if one.get("slug") == device), {"slug": device})
    found: dict[str, list[Point]] = {}
    for version in sorted((one for one in document["history"] if one.get("device") == device), key=lambda one: str(one.get("recorded_on") or "")):
        time = next((one for one in version.get("times") or [] if one.get("mode") == mode), None)
        if time is not None:
            found.setdefault(str(version.get("variant") or ""), []).append(Point(version, time))
    tracks = [Track(name, tuple(points)) for name, points in found.items()]
    tracks.sort(key=lambda track: (not track.last.right, track.last.time_us or math.inf, track.name))
    return History(words.device_words(entry), mode, tuple(tracks), words.finite(document["goal"].get("time_us")))


def nothing(document: dict[str, Any]) -> str:
    """Why there is no history; empty where there is one."""
    device = document["leading_device"]
    if any(one.get("device") == device and one.get("times") for one in document["history"]):
        return ""
    entry = next((one for one in document["devices"] if one.get("slug") == device), {"slug": device})
    return f"No version of a variant is recorded on {words.device_words(entry) or 'any device'} yet; {COMMAND} keeps the first."


def answer(view: History) -> str:
    """The newest change in one sentence: of whom, by how much, and whether the kernel alone can have made it."""
    again = [track for track in view.tracks if len(track.points) > 1]
    if not again:
        some = f"Each of the {len(view.tracks)} variants has" if len(view.tracks) > 1 else f"{view.tracks[0].name} has"
        return f"{some} one recorded version in {view.mode} mode on {view.device_words}, so there is no change to speak of yet."
    newest = max(again, key=lambda track: (track.last.when, track.name))
    text = f"{newest.name}, recorded again on {words.date(newest.last.when)}, {_step(newest.points[-2], newest.last)}"
    if len(view.tracks) > 1:
        text += f"; {len(again)} of {len(view.tracks)} variants {'has' if len(again) == 1 else 'have'} more than one version"
    return text + "."


def _step(earlier: Point, now: Point) -> str:
    """From one version to the next, as the end of a sentence."""
    if not (earlier.right and now.right):
        return f"is {_state(now)}, and was {_state(earlier)}"
    change = words.finite(now.time.get("ratio"))
    return f"takes {words.time_us(now.time)} µs after {words.time_us(earlier.time)} µs, {_percent(change)}, {_joint(now)} {cause(now)}"


def _joint(now: Point) -> str:
    return "but" if now.parts("measuring") else "and"


def _state(point: Point) -> str:
    """A time, or why it is none."""
    mark = words.mark(point.time.get("status"))
    if point.right:
        return f"{words.time_us(point.time)} µs"
    return mark.text if mark.text != "ok" else "without a time"


def _percent(ratio: float | None) -> str:
    """A ratio of times as more or less; three digits at most."""
    if ratio is None:
        return "not compared"
    share = ratio - 1
    return f"{abs(100 * share):.2g}{words.PERCENT} {'more' if share > 0 else 'less'}" if abs(share) >= 5e-5 else "the same"


def cause(now: Point) -> str:
    """What can have made the difference to the version before. A changed measurement is never the kernel's gain."""
    kernel, measuring = now.parts("kernel"), now.parts("measuring")
    if kernel and measuring:
        return f"beside its kernel ({words.listed(_bare(kernel), 6)}) the measurement changed too ({words.listed(measuring, 6)}), so it is not the kernel’s alone"
    if measuring:
        return f"the kernel is the same and only the measurement changed ({words.listed(measuring, 6)}), so it is no gain or loss of the kernel"
    if kernel:
        verdict = str(now.time.get("verdict") or "undecided")
        said = {"faster": "that is faster", "slower": "that is slower", "same": "that is the same time"}.get(
            verdict, "that is not told from what two runs differ by")
        return f"{said}: only its kernel changed ({words.listed(_bare(kernel), 6)})"
    return "nothing changed, so it is what two runs differ by"


def _bare(kernel: list[str]) -> list[str]:
    """Why a binary is another one; `binary` itself only where nothing else says so."""
    return [part for part in kernel if part != "binary"] or kernel


def line(track: Track, place: int) -> dict[str, Any]:
    """A version's row in the table."""
    point = track.points[place]
    version, time, first = point.version, point.time, bool(point.version.get("first"))
    passed, cases = words.finite(version.get("cases_passed")), words.finite(version.get("cases"))
    ratio = words.finite(time.get("ratio"))
    anchor, ends = words.finite(time.get("vs_anchor")), [time.get(name) for name in ("vs_anchor", "vs_anchor_low", "vs_anchor_high")]
    return dict(
        name=track.name, when=words.moment(point.when), mark=words.mark(time.get("status")), right=point.right, time=words.time_us(time),
        interval=words.time_interval(time), anchor=words.number(anchor, words.half_width(*ends[1:])) + (words.TIMES if anchor else ""),
        cases=f"{passed:.0f}/{cases:.0f}" if passed is not None and cases is not None else words.NOTHING,
        change=words.NOTHING if ratio is None else _percent(ratio), verdict=str(time.get("verdict") or ""),
        kernel="first version" if first else words.listed(_bare(point.parts("kernel")), 6) or "nothing",
        measuring=words.NOTHING if first else words.listed(point.parts("measuring"), 6) or "nothing",
        commit=str(version.get("commit") or "")[:10] or words.NOTHING)


def lines(view: History) -> list[dict[str, Any]]:
    """Rows of the table: variant by variant, the newest version first."""
    return [line(track, place) for track in view.tracks for place in reversed(range(len(track.points)))]
