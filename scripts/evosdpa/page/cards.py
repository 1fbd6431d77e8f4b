"""Cards of the variants for the page: which are shown whole, which in short. What they say is cards.py's of the package."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup, escape

from evosdpa import cards
from evosdpa.candidates import Candidate, Search
from evosdpa.page import facts
from evosdpa.writeup_words import spans

MOST_CARDS = 18
"""Whole cards; the next variants are in short."""
MOST_SHORT = 240
"""Lines of those in short."""


def marked(text: str) -> Markup:
    """A line, escaped, with what stands between backticks as code."""
    return Markup("").join(Markup("<code>{}</code>").format(part) if is_code else escape(part) for part, is_code in spans(text))


def sections(search: Search) -> dict[str, Any]:
    """A search's cards in its order: the first in full, the best of them open, the others in one line each."""
    whole, short = search.candidates[:MOST_CARDS], search.candidates[MOST_CARDS:]
    best = search.subject()[0] or next(iter(search.candidates), None)
    kept = facts.logs([one.view for one in whole])
    return dict(shown=[dict(view=one.view, card=cards.card(search, one), logs=logs, open=one is best) for one, logs in zip(whole, kept)],
                short=[_short(one) for one in short[:MOST_SHORT]], left_out=max(0, len(short) - MOST_SHORT))


def _short(one: Candidate) -> dict[str, Any]:
    hold = one.view["reason"] if one.broken or one.status == "unsupported" else one.insights[0].meaning if one.insights else ""
    return dict(name=one.name, mark=one.view["mark"], ranked=one.ranked, times=one.view["times"], correct=cards.correct(one), hold=hold)
