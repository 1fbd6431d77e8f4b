"""Numbers and statuses as a reader sees them: no more digits than the interval justifies, never colour alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from evosdpa import problem as problems
from evosdpa.finite import finite  # here too under this name: every module of the page asks `words.finite`

NOTHING = "–"
"""What a cell shows that has no value."""

TIMES = "\u202f×"
PERCENT = "\u202f%"


@dataclass(frozen=True)
class Mark:
    """How a status looks: a glyph, its words, and a tone that the style sheet colours."""

    glyph: str
    text: str
    tone: str


MARKS = {
    "ok": Mark("✓", "ok", "good"),
    "failed": Mark("✗", "failed", "bad"),
    "error": Mark("!", "error", "bad"),
    "timeout": Mark("∞", "timeout", "bad"),
    "unsupported": Mark("⊘", "unsupported", "mute"),
    "not_run": Mark("·", "not run", "mute"),
    "not_permitted": Mark("⊗", "not permitted", "mute"),
    "unstable": Mark("≈", "unstable", "warn"),
    "suspect": Mark("?", "suspect", "warn"),
    "stale": Mark("↺", "stale", "warn"),
}
"""Every status of evidence, and stale."""


def mark(status: Any, stale: Any = False) -> Mark:
    """The mark of a status; stale evidence that is otherwise ok shows as stale."""
    if stale and status == "ok":
        return MARKS["stale"]
    return MARKS.get(str(status), Mark("·", str(status or "not run").replace("_", " "), "mute"))


def _decimals(value: float, half: float | None) -> int:
    """Decimal places that the half-width of an interval justifies: two to four significant digits; three without one."""
    magnitude = math.floor(math.log10(abs(value))) if value else 0
    significant = 3
    if half:
        significant = min(4, max(2, magnitude - math.floor(math.log10(half)) + 1))
    return significant - 1 - magnitude


def _rounded(value: float, decimals: int) -> str:
    return f"{round(value, decimals):,.{max(0, min(decimals, 9))}f}"


def half_width(low: Any, high: Any) -> float | None:
    """Half of an interval's width, or None when there is none."""
    low, high = finite(low), finite(high)
    return (high - low) / 2 if low is not None and high is not None and high > low else None


def number(value: Any, half: float | None = None) -> str:
    """A number with the digits that its interval's half-width justifies."""
    value = finite(value)
    if value is None:
        return NOTHING
    if value and abs(value) < 1e-4:
        return f"{value:.2g}"
    return _rounded(value, _decimals(value, half))


def interval(value: Any, low: Any, high: Any) -> str:
    """An interval's ends, with the decimals of the value between them; empty without one."""
    half, value = half_width(low, high), finite(value)
    if half is None or value is None:
        return ""
    decimals = _decimals(value, half)
    return f"{_rounded(low, decimals)}–{_rounded(high, decimals)}"


def time_us(row: dict[str, Any]) -> str:
    """A row's time in microseconds, without the unit."""
    return number(row.get("time_us"), half_width(row.get("ci_low_us"), row.get("ci_high_us")))


def time_interval(row: dict[str, Any]) -> str:
    """The 95 % interval of a row's time."""
    return interval(row.get("time_us"), row.get("ci_low_us"), row.get("ci_high_us"))


def versus_goal(row: dict[str, Any]) -> str:
    """A row's time over the goal's, with the digits that the time has."""
    ratio, time = finite(row.get("vs_goal")), finite(row.get("time_us"))
    half = half_width(row.get("ci_low_us"), row.get("ci_high_us"))
    return number(ratio, half * ratio / time if half and ratio and time else None) + (TIMES if ratio is not None else "")


def versus_rival(row: dict[str, Any]) -> str:
    """A row's time over the best rival's."""
    ratio = finite(row.get("vs_best_rival"))
    return number(ratio, half_width(row.get("vs_best_rival_low"), row.get("vs_best_rival_high"))) + (TIMES if ratio is not None else "")


def allowance(ratio: Any) -> str:
    """An error over what is allowed: two decimals around the limit of 1, three digits far beyond it."""
    ratio = finite(ratio)
    if ratio is None:
        return NOTHING
    return f"{ratio:.2f}" if ratio < 10 else number(ratio)


def percent(share: Any) -> str:
    """A share (0 to 1) as a percentage of three digits at most."""
    share = finite(share)
    return NOTHING if share is None else f"{100 * share:.3g}{PERCENT}"


def size(count: Any) -> str:
    """A number of bytes in KiB when it has some."""
    count = finite(count)
    if count is None:
        return NOTHING
    return f"{count:.0f} B" if count < 1024 else f"{count / 1024:.4g} KiB"


def plural(count: int, noun: str) -> str:
    """`1 variant`, `2 variants`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Iterable[Any], limit: int = 4) -> str:
    """Names joined as in a sentence, the rest of a long list as a number."""
    names = [str(name) for name in names]
    if len(names) > limit:
        names = [*names[: limit - 1], f"{len(names) - limit + 1} more"]
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


def date(stamp: Any) -> str:
    """The day of an ISO 8601 time."""
    return str(stamp or "")[:10]


def moment(stamp: Any) -> str:
    """An ISO 8601 time in UTC as `2026-11-23 08:59 UTC`."""
    text = str(stamp or "")
    return f"{text[:10]} {text[11:16]} UTC" if len(text) >= 16 else text or NOTHING


def clip(text: Any, limit: int) -> str:
    """A text's beginning, with an ellipsis when it is longer than the limit."""
    text = str(text or "")
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def problem_words(name: str) -> str:
    """A problem's name in words; the name itself when it is not one."""
    try:
        problem = problems.parse(name)
    except ValueError:
        return name
    heads = f"{problem.heads_q} heads" + (f" over {problem.heads_kv} key-value heads" if problem.heads_kv != problem.heads_q else "")
    if problem.seq_q == problem.seq_kv:
        length = f"{problem.seq_q} queries and keys"
    else:
        length = f"{problem.seq_q} queries, {problem.seq_kv} keys"
    return f"batch {problem.batch}, {heads}, {length}, head dimension {problem.head_dim}, {problem.dtype}, {'causal' if problem.causal else 'no mask'}"


def device_words(entry: dict[str, Any]) -> str:
    """A device as people call it: its name, and that it is a CPU when it is one."""
    slug = str(entry.get("slug") or "")
    name = str((entry.get("info") or {}).get("name") or slug)
    return f"CPU ({name})" if slug == "cpu" else name
