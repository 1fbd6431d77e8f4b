"""Numbers and words as cells of README's tables."""

from __future__ import annotations

from collections.abc import Sequence

from evosdpa.evidence import Status

TIMED = (Status.OK, Status.UNSTABLE, Status.SUSPECT)
"""What a time may be and still be shown, with the status beside it unless that is ok."""


def rounded(value: float, half: float | None, most: int = 2) -> str:
    """A number with no more decimals than the half-width of its interval justifies (1 % of it where there is none), `most` at most."""
    half = abs(value) * 0.01 if half is None else half
    digits = next((digits for digits in range(most) if half >= 10.0**-digits), most)
    return f"{value:,.{digits}f}"


def half_width(low: float | None, high: float | None) -> float | None:
    """Half of an interval's width; None without one."""
    return None if low is None or high is None else (high - low) / 2


def time(status: str, time_us: float | None, low_us: float | None, high_us: float | None) -> str:
    """A time in microseconds with its 95 % interval's digits, and its status unless that is ok; the status alone where there is no time."""
    if time_us is None or status not in TIMED:
        return status
    return rounded(time_us, half_width(low_us, high_us)) + ("" if status == Status.OK else f" ({status})")


def text(words: str) -> str:
    """Words from a source on one line, with nothing in them that ends a cell or begins a tag."""
    return " ".join(words.split()).replace("|", "\\|").replace("<", "&lt;")


def row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def head(words: Sequence[str], numbers: Sequence[str], more_words: Sequence[str] = ()) -> list[str]:
    """The two lines that a table begins with: its titles, and where its cells stand (numbers to the right)."""
    return [row([*words, *numbers, *more_words]), "|" + "---|" * len(words) + "---:|" * len(numbers) + "---|" * len(more_words)]
