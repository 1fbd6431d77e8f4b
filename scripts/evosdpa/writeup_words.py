"""What a write-up's words are made of: Markdown that text from outside cannot break, and an insight's numbers as a reader sees them."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from evosdpa import insights
from evosdpa.insight_rules import PROFILE, Reading
from evosdpa.insights import Insight
from evosdpa.page import words
from evosdpa.variant_evidence import Evidence


def one_line(text: Any, limit: int = 400) -> str:
    """Text from a source or a tool on one line, with no control character."""
    return words.clip("".join(char for char in " ".join(str(text or "").split()) if not unicodedata.category(char).startswith("C")), limit)


def escaped(text: str) -> str:
    """A line with nothing in it that Markdown would take for its own."""
    return re.sub(r"[\\`*\[\]<>|&#~]|(?<!\w)_|_(?!\w)|(?<=_)_|_(?=_)", r"\\\g<0>", text)


def prose(text: Any, limit: int = 400) -> str:
    """Text from a source or a tool as a line of Markdown."""
    return escaped(one_line(text, limit))


def spans(text: str) -> list[tuple[str, bool]]:
    """A line in parts, each with whether it is code: what stands between two backticks."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without its second is a letter
        parts[-2:] = ["`".join(parts[-2:])]
    return [(part, bool(place % 2)) for place, part in enumerate(parts)]


def marked(text: str) -> str:
    """A line, with code between backticks, as Markdown."""
    return "".join(code(part) if is_code else escaped(part) for part, is_code in spans(text))


def code(text: Any) -> str:
    """A name or a command as code, also inside a table."""
    text = " ".join(str(text or "").replace("`", "'").split())
    return f"`{text}`".replace("|", "\\|")


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + stopped(text[1:]) if text else ""


def stopped(text: str) -> str:
    """With a full stop, unless it ends with one, with dots or with a command."""
    return text if not text or text.endswith((".", "…", "`")) else f"{text}."


def table(titles: list[str], lines: list[list[str]], numbers: tuple[int, ...] = ()) -> list[str]:
    """A Markdown table; the columns named by place are aligned to the right."""
    marks = ["---:" if place in numbers else "---" for place in range(len(titles))]
    return [f"| {' | '.join(cells)} |" for cells in (titles, marks, *lines)]


def amount(value: float) -> str:
    """A bound: two digits, since it is one."""
    return words.number(value, abs(value) / 10) if value else "0"


def reading(one: Reading) -> str:
    """A metric with its value and unit."""
    unit = {"": "", "%": words.PERCENT, "us": " µs", "x": words.TIMES}.get(one.unit, f" {one.unit}")
    value = f"{one.value:,.0f}" if float(one.value).is_integer() and not one.unit else words.number(one.value)
    return f"{one.metric} {value}{unit}"


def threshold(insight: Insight) -> str:
    """From where on the rule speaks."""
    return f"{insight.threshold:.2g}{words.PERCENT if insight.unit == '%' else f' {insight.unit}'}"


def gain(insight: Insight, known: Evidence) -> str:
    """The most that it can gain, as a share and in microseconds."""
    if not insight.bound.share:
        return "nothing"
    of = "the profiled launch" if insight.bound.of == PROFILE else f"the {insight.bound.of} time"
    share = f"{words.percent(float(f'{insight.bound.share:.2g}'))} of {of}"
    found = insights.gain_us(insight, known)
    if found is None:
        return share
    mode, saved = found
    capped = saved < insight.bound.share * known.times_us[mode] * (1 - 1e-9)
    return f"{share}, {amount(saved)} µs {mode}" + (", all that lies above the floor" if capped else "")
