"""The page sets each variant beside its parent: gain, prediction and what moved most follow from planted data, and nothing is said without evidence."""

from __future__ import annotations

import html
import re

import page_data
import pytest
from page_data import fact, on_h200, row
from page_tools import section, whole

from evosdpa.candidates import Search
from evosdpa.page import render, step_table

ISSUE = "smsp__issue_active.avg.pct_of_peak_sustained_active"
STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"


def beside(gain, verdict, half=0.01, stale=False, modes=("warm", "stream")):
    """A planted comparison with a parent."""
    return dict(name="v1", stale=stale, modes={mode: dict(gain=gain, low=gain * (1 - half), high=gain * (1 + half), verdict=verdict) for mode in modes})


def pair(vs_parent=None, time_us=4.0, above=None, **more):
    """A variant and its parent."""
    return on_h200(rows=[row(name, time, mode=mode) for mode in ("warm", "stream") for name, time in (("v1", 5.0), ("v2", time_us))],
                   variants=[fact("v1", **(above or {})), fact("v2", parent="v1", vs_parent=vs_parent or {}, **more)])


def found(document):
    search = Search(whole(document))
    steps = step_table.steps(search)
    return step_table.answer(search, steps), steps


def says(document):
    return found(document)[0]


def only(document):
    [step] = found(document)[1]
    return step


# The sentence

@pytest.mark.parametrize("gain, verdict, said", [
    (1.25, "faster", "of 1 a gain can be told in warm mode: 1 faster. The largest: v2 over v1, 1.25\u202f× as fast."),
    (0.8, "slower", "of 1 a gain can be told in warm mode: 1 slower. A step back: v2 has only 0.800\u202f× the speed of v1."),
    (1.0, "same", "of 1 a gain can be told in warm mode: 1 as fast."),
    (1.003, "undecided", "of 1 a gain can be told in warm mode: 1 undecided."),
])
def test_a_gain_a_regression_and_a_tie_are_said_as_they_are(gain, verdict, said):
    answer = says(pair(beside(gain, verdict)))
    assert answer.startswith("1 variant names a parent; ") and said in answer


@pytest.mark.parametrize("vs_parent", [{}, beside(1.25, "faster", stale=True), beside(1.25, "faster", modes=("stream",))])
def test_what_is_stale_or_was_not_measured_gains_nothing(vs_parent):
    assert says(pair(vs_parent)).startswith("1 variant names a parent; of none can a gain be told in warm mode: that takes a right and current time of both")


def test_a_stale_gain_is_shown_as_stale():
    step = only(pair(beside(1.25, "faster", stale=True)))
    assert step.stale and step.gains[0]["text"] == "1.25\u202f×"


def test_a_wrong_variant_gains_nothing_and_moves_nothing():
    step = only(pair(beside(9.0, "faster"), status="failed", reason="wrong", above=dict(spill_bytes=64)))
    assert step.gains == (None, None) and step.moved == () and step.times == ("–", "–")


@pytest.mark.parametrize("name, said", [
    ("empty", "No variant names a parent."), ("one_variant", "No variant names a parent."), ("everything_failed", "No variant names a parent."),
    ("many", "200 variants name a parent; of none can a gain be told"), ("realistic", "3 variants name a parent; of none can a gain be told")])
def test_every_document_has_its_sentence(name, said, pages):
    shown = html.unescape(section(pages(name), "steps"))
    assert f'<p class="answer">{said}' in shown and ("<table" in shown) == ("No variant" not in said)


def test_a_long_evolution_names_its_largest_gain_and_is_cut(cache):
    document = page_data.many(200)
    for number, one in enumerate(document["variants"]):
        one["vs_parent"] = beside(1 + 0.001 * number, "faster" if number > 5 else "undecided")
    text = section(render.page(document, cache), "steps")
    assert "of 200 a gain can be told in warm mode: 194 faster and 6 undecided." in text and "STAGES=199 over v3_mma, 1.20" in html.unescape(text)
    assert text.count('<th scope="row">') == 36 and "164 more steps in gap.json" in text


# What was predicted

@pytest.mark.parametrize("expects, time_us, held", [
    ("3.9-4.1 us on the goal problem", 4.0, "inside"), ("3.5-3.8 us", 4.0, "above"), ("10 to 15 µs, by latency", 4.0, "below"), ("faster than v1", 4.0, ""),
    ("450-550 TFLOP/s", 4.0, "")])
def test_a_predicted_range_is_held_against_the_time(expects, time_us, held):
    document = pair(expects=expects, time_us=time_us)
    assert only(document).held == held
    assert (f"Of 1 predicted range with a time {1 if held == 'inside' else 'none'} held." in says(document)) == bool(held)


def test_a_stale_time_proves_no_prediction():
    document = pair(expects="3.9-4.1 us")
    document["rows"][1]["stale"] = True
    assert only(document).held == ""


# What it changed, what moved

def test_a_child_is_told_by_its_levers():
    document = on_h200(variants=[fact("v1"), fact("v1@STAGES=2", parent="v1", default_levers={"STAGES": "3"})])
    step = only(document)
    assert step.changed == "STAGES 3 → 2" and step.predicted == "", "the source's prediction is not the child's"


def profile(**metrics):
    return [dict(problem=page_data.GOAL, metrics=metrics)]


def test_what_moved_most_is_named_with_both_values():
    above = dict(profile=profile(**{ISSUE: 21.0, "sm__pipe_fma_cycles_active.avg": 12.0, STALL.format("long_scoreboard"): 3.0, STALL.format("selected"): 1.0}))
    below = dict(profile=profile(**{ISSUE: 38.0, "sm__pipe_fma_cycles_active.avg": 14.0, STALL.format("barrier"): 2.0, STALL.format("selected"): 2.0}))
    document = pair(above=above, **below)
    document["variants"][1]["launch"] = {**document["variants"][1]["launch"], "registers": 96}
    assert only(document).moved == ("issue slots 21.0\u202f% → 38.0\u202f%", "largest stall long scoreboard 75\u202f% → barrier 50\u202f%", "registers 168 → 96")
    assert not only(document).moved_stale
    document["variants"][0]["steps"]["profile"]["stale"] = True
    assert only(document).moved_stale


@pytest.mark.parametrize("more", [dict(profile=[], launch=None, spill_bytes=None), {}])
def test_without_evidence_or_a_difference_nothing_moved(more):
    assert only(pair(**more)).moved == ()


def test_a_parent_that_is_not_there_is_only_named(cache):
    document = on_h200(rows=[row("v2", 4.0)], variants=[fact("v2", parent="v1 <b>")])
    text = section(render.page(document, cache), "steps")
    assert "v1 &lt;b&gt;" in text and only(document).moved == () and re.search(r'href="#variant-v2-nvidia-h200"', text)
