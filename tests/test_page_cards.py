"""A card a variant on the page: the same that the summary says, as HTML, in a real browser and for a long evolution."""

from __future__ import annotations

import html
import re

import page_data
import pytest
from page_data import fact, on_h200
from page_tools import planted, section, whole, without_bundle

from evosdpa import cards as made
from evosdpa import summary
from evosdpa.candidates import Search
from evosdpa.page import cards, facts, render
from evosdpa.writeup_words import marked

LIMIT = 1_500_000
EVERY = [*page_data.EXTREMES, "realistic", "measured_here"]


def card(text, key):
    """A variant's card, up to its evidence."""
    return re.search(rf'<details class="card" id="{re.escape(key)}"( open)?>(.*?)<summary>Its evidence', text, re.DOTALL)


@pytest.mark.parametrize("name", EVERY)
def test_page_and_summary_say_the_same(name, pages):
    """Every text of every card stands in both."""
    search, written = Search(whole(planted(name))), summary.markdown(planted(name))
    for one in search.candidates[:summary.MOST_CARDS]:
        found, shown = made.card(search, one), card(pages(name), facts.variant_key(one.fact))[0]
        values = [] if found.bare else [metric.value for metric in found.metrics]
        for text in (found.status[:-1], *found.works, *found.troubles, *map(str, found.steps), *values):
            assert str(cards.marked(text)) in shown and marked(text) in written, text
        for hold in found.holds:
            assert all(str(cards.marked(text)) in shown for text in (hold.meaning, hold.reading, hold.threshold, hold.gain))
            assert hold.gain in written and marked(hold.reading) in written


def test_a_card_has_status_metrics_what_works_what_holds_it_back_and_what_is_next(cache):
    document = page_data.one_variant(4.5)
    document["variants"][0].update(vs_anchor={"warm": dict(name="sdpa-default", ratio=0.5, low=0.498, high=0.502, verdict="faster")}, default_levers={"BLOCK_Q": "128"})
    said = card(render.page(document, cache), "variant-v1-nvidia-h200")[0].replace("\u202f", " ")
    assert said.startswith('<details class="card" id="variant-v1-nvidia-h200" open>')
    for name, value in (("warm", "4.50 µs (4.48–4.52), 0.900 × the goal"), ("over SDPA (sdpa-default)", "0.500 × warm"), ("correct", "304/304, worst error 0.81 of the allowance"),
                        ("registers", "168 a thread"), ("shared memory", "1 KiB + 63 KiB (static + dynamic)"), ("occupancy", "12.5 % (shared memory)")):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in said, name
    first = re.search(r"<tbody>\s*<tr>(.*?)</tr>", said, re.DOTALL)[1]
    for part in ("32 CTAs leave 100 of 132 SMs without work", "idle SMs 75.8 %", "1.9 %", "more CTAs", "BLOCK_Q 128 to 64", "76 % of the warm time, 2.5 µs warm, all that lies above the floor"):
        assert part in first, part
    assert "<code>snakemake --cores 1 v1@BLOCK_Q=64</code>" in said
    assert said.index("What works") < said.index("What holds it back") < said.index("<h4>Next")


def test_a_wrong_kernels_speed_says_nothing(pages):
    said = card(pages("realistic"), "variant-v2_wrong-nvidia-h200")[0]
    assert "Failed: 4 of 300 cases wrong." in said and "Mend it" in said and "without work" not in said and "µs" not in said.split("</summary>")[0]


def test_what_was_never_run_has_a_short_card(cache):
    text = render.page(on_h200(variants=[fact("v9", status="not_run", reason="nothing recorded", launch=None)]), cache)
    said = card(text, "variant-v9-nvidia-h200")[0]
    assert "<h4>Next" in said and "Measure it on NVIDIA H200." in said and "What works" not in said and "metrics" not in said


@pytest.mark.parametrize("known, said", [({}, "<td>BLOCK_Q</td>"), ({"BLOCK_Q": "64"}, "<td>BLOCK_Q = 64: no further value declared</td>"),
                                         ({"BLOCK_Q": "128"}, "<td>BLOCK_Q 128 to 64</td>")])
def test_a_lever_is_named_with_no_more_than_is_known_of_it(known, said, cache):
    document = page_data.one_variant(4.5)
    document["variants"][0]["default_levers"] = known
    assert said in card(render.page(document, cache), "variant-v1-nvidia-h200")[0]


def test_only_the_best_variants_card_is_open(pages):
    for name, best in (("realistic", "v2_wmma"), ("many", "v3_mma@BLOCK_KV=32,BLOCK_Q=64,NUM_WARPS=4,STAGES=0"), ("only_stale", "v1"), ("everything_failed", "v1")):
        opened = re.findall(r'<details class="card" id="variant-([^"]*)" open>', pages(name))
        assert len(opened) == 1 and (opened[0].startswith(best.replace(",", "-")) or name == "everything_failed"), opened


def test_of_200_variants_the_rest_is_in_short_and_the_page_stays_small(cache):
    document, more = planted("many"), planted("realistic")
    document.update(selftests=more["selftests"][:1], repeatability=more["repeatability"][:1], planted=more["planted"], problems=more["problems"])
    for one in document["variants"]:
        one["vs_parent"] = dict(name="v3_mma", stale=False, modes={mode: dict(gain=1.2, low=1.19, high=1.21, verdict="faster") for mode in page_data.MODES})
    for problem in more["problems"][1:]:
        document["rows"] += [dict(one, problem=problem, vs_goal=None) for one in planted("many")["rows"]]
    text = render.page(document, cache)
    assert len(text.encode()) < LIMIT
    shown = section(without_bundle(text, cache), "variants")
    assert shown.count('<details class="card"') == cards.MOST_CARDS and f"In short: {200 - cards.MOST_CARDS} more variants" in shown
    names = [one["name"] for one in document["variants"]]
    assert all(f">{name}<" in shown for name in names), "every variant has a card or a line"


def test_beyond_what_a_page_holds_variants_are_counted(monkeypatch, cache):
    monkeypatch.setattr(cards, "MOST_CARDS", 2), monkeypatch.setattr(cards, "MOST_SHORT", 3)
    assert "3 more variants without a place among these" in section(render.page(page_data.many(8), cache), "variants")


def test_text_from_tools_stays_text(cache):
    hostile = f"`{page_data.HOSTILE}` and `"
    document = on_h200(variants=[fact("v1", status="failed", reason=hostile, idea=hostile, title=hostile, parent=hostile, expects=hostile)])
    text = without_bundle(render.page(document, cache), cache)
    assert "<img" not in text and f"<code>{html.escape(' '.join(page_data.HOSTILE.split()))}</code>" in text.replace("&#34;", "&quot;").replace("&#39;", "&#x27;")
