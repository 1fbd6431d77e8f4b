"""Ratios of times as gap.json has them, and how a reader sees them: value, interval, gain, verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from evosdpa.page import words


@dataclass(frozen=True)
class Ratio:
    """Time over another's in one mode, with its 95 % interval where there is one."""

    mode: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = ""
    how: str = ""

    @classmethod
    def of(cls, mode: str, found: Any) -> Ratio:
        """From an entry of gap.json; without a value where it has none."""
        found = found if isinstance(found, dict) else {}
        value = words.finite(found.get("ratio"))
        if not value or value <= 0:
            return cls(mode)
        return cls(mode, value, words.finite(found.get("low")), words.finite(found.get("high")), str(found.get("verdict") or ""), str(found.get("how") or ""))

    @property
    def text(self) -> str:
        """The ratio alone."""
        return words.number(self.value, words.half_width(self.low, self.high)) + (words.TIMES if self.value else "")

    @property
    def interval(self) -> str:
        """The interval's ends; empty without one."""
        return words.interval(self.value, self.low, self.high)

    @property
    def shown(self) -> str:
        """`0.93 ×, 95 % CI 0.91–0.95`."""
        return f"{self.text}, 95{words.PERCENT} CI {self.interval}" if self.interval else f"{self.text}, no interval"

    @property
    def gained(self) -> str:
        """The share of the other's time that it saves, with interval."""
        if self.value is None:
            return words.NOTHING
        half = words.half_width(self.low, self.high)
        if half is None:
            return gain(1 - self.value)
        ends = [gain(1 - end, half) for end in (self.high, self.low)]
        return f"{gain(1 - self.value, half)} ({ends[0]} to {ends[1]})"


def gain(share: float | None, half: float | None = None) -> str:
    """A share of the parent's time that is saved, signed, with the digits that its interval's half-width justifies."""
    if share is None:
        return words.NOTHING
    digits = 1 if half is None or half >= 0.001 else 2
    return f"{100 * share:+.{digits}f}{words.PERCENT}".replace("-", "−")


def in_words(ratios: Iterable[Ratio], whose: str = "the") -> str:
    """Ratios of time, each with its mode, interval and verdict."""
    return words.listed(f"{ratio.text} {whose} time in {ratio.mode} mode ({f'95{words.PERCENT} CI {ratio.interval}' if ratio.interval else 'no interval'}, "
                        f"{ratio.verdict or 'no verdict'})" for ratio in ratios)
