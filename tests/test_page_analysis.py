"""The page takes a variant's time apart: waterfall, roofline, pipes and stalls, and another variant chosen in a real browser."""

from __future__ import annotations

import html
import json
import re

import page_data
import pytest

from evosdpa.page import analysis, analysis_charts, render
from page_tools import chromium, section, whole, without_bundle


def analyses(document):
    return render.analyses(whole(document))


def one(**more):
    """One variant with another fact."""
    document = page_data.one_variant()
    document["variants"][0].update(more)
    return document


def waterfall_says(document):
    return analyses(document)["waterfalls"][0]["answer"]


def test_a_waterfall_says_where_the_time_goes():
    assert waterfall_says(one()) == (
        "Of the 4.50 µs of v1, 1.21 µs are an empty launch and 0.84 µs its bound, moving the bytes. Idle SMs or a last wave that is not full add 1.23 µs "
        "(32 CTAs on 132 SMs). Of what its warps do beyond that, waits for memory take most: 0.46 µs (long scoreboard 56% of a warp’s life). "
        "0.41 µs (9\u202f%) stay unexplained.")
    [warm, stream] = analyses(one())["waterfalls"]
    assert (warm["mode"], stream["mode"]) == ("warm", "stream") and warm["question"] == "Warm: where does the time of v1 go?"


@pytest.mark.parametrize("more, said", [
    (dict(profile=[], steps={}), "1.22 µs (27\u202f%) stay unexplained: not profiled."),
    (dict(steps={"profile": dict(status="not_permitted", reason="no rights", stale=False)}), "stay unexplained: profile: not permitted, no rights."),
    (dict(steps={"profile": dict(status="ok", reason="", stale=True)}), "stay unexplained. The profile is stale."),
    (dict(floors={}), "Of the 4.50 µs of v1, 0.50 µs are its bound, products on tensor cores."),
    (dict(launch=None, static=None), "(32 CTAs on 132 SMs)"),  # the profile knows the grid too
    (dict(launch=None, static=None, profile=[]), "0.84 µs its bound, moving the bytes. 2.45 µs (54\u202f%) stay unexplained"),
    (dict(floors={}, sm_mhz={}, profile=[], launch=None), "v1 takes 4.50 µs; no floor or limit is known. 4.50 µs (100\u202f%) stay unexplained"),
])
def test_what_a_waterfall_lacks_is_said(more, said, cache):
    assert said in waterfall_says(one(**more))
    assert "None" not in section(without_bundle(render.page(one(**more), cache), cache), "gap")


def test_a_model_that_explains_too_much_says_so(cache):
    document = page_data.one_variant(2.2)
    assert "The model over-explains by 1.89 µs; its waits are from a launch with flushed caches." in waterfall_says(document)
    assert "over-explained" in section(render.page(document, cache), "gap")


@pytest.mark.parametrize("name, said", [
    ("empty", "a CPU’s time is not taken apart"), ("everything_failed", "there is no gap to take apart"), ("bare", "there is no gap to take apart")])
def test_no_gap_without_a_right_time_on_a_gpu(name, said, pages):
    for part in ("gap", "roofline", "pipes"):
        assert said in html.unescape(section(pages(name), part)) and "<svg" not in section(pages(name), part).replace("aria-hidden", "")


def test_stale_times_are_shown_last_and_called_so():
    where = analysis.setting(whole(page_data.realistic()))
    assert [one.name for one in where.subjects] == ["v2_wmma", "v2_wmma@STAGES=3", "v1_scalar", "v2_stale"] and where.subjects[-1].state == " (stale)"
    assert "of v1 (stale)" in waterfall_says(page_data.only_stale())


def test_bars_begin_where_the_step_before_ends():
    where = analysis.setting(whole(one()))
    bars = analysis.waterfall_values(analysis.waterfall_of(where, where.subjects[0], "warm"))
    assert bars[0]["low"] == 0 and [bar["high"] for bar in bars[:-2]] == pytest.approx([bar["low"] for bar in bars[1:-1]], abs=2e-3)
    assert (bars[-2]["label"], bars[-2]["high"], bars[-1]["low"], bars[-1]["high"]) == ("unexplained", 4.5, 0, 4.5)


def test_many_variants_can_be_chosen_and_the_rest_is_counted(pages):
    found = analyses(page_data.many())
    assert len(found["names"]) == analysis.MOST_CHOICES and found["left_out"] == 200 - analysis.MOST_CHOICES
    kept = json.loads(found["waterfalls"][0]["choices"])
    answer, bars = kept["of"][found["names"][3][0]]
    assert answer.startswith(f"Of the 5.15 µs of {found['names'][3][0]}") and len(kept["of"]) == analysis.MOST_CHOICES
    assert kept["texts"][bars[0][0]] == "launch" and len(bars[0]) == len(analysis_charts.FIELDS)
    assert f"{200 - analysis.MOST_CHOICES} slower or stale variants" in section(pages("many"), "gap")


def test_the_roofline_says_which_ceiling_counts():
    document = one()
    found = analyses(document)["roofline"]
    assert found["answer"] == ("v1 reaches 119 TFLOP/s in warm mode: 11\u202f% of the 1,070 at which tensor cores and exp unit are saturated both (at 1,980 MHz). "
                               "With 256 operations per byte that must move, and a ridge at 223, compute, not DRAM, is the ceiling of this problem.")
    assert found["lines"][0]["l2"] == "64.0" and "989.4 TFLOP/s" in found["source"]
    assert "the datasheet’s clock, since none was read" in analyses(one(sm_mhz={}))["roofline"]["answer"]


def test_at_head_dim_128_the_exp_unit_saturates_at_twice_the_tensor_peak():
    document = one()
    name = "b1h8s512d128-fp16"
    document["goal"]["problem"] = name
    for row in document["rows"]:
        row["problem"] = name
    assert "of the tensor cores’ 1,070 and 11\u202f% of the 2,141 at which the exp unit is saturated" in analyses(document)["roofline"]["answer"]


def test_a_device_without_peaks_has_no_ceiling():
    document = json.loads(json.dumps(one()).replace(page_data.H200, "nvidia-planted"))
    found = analyses(document)
    assert "No peak rates of NVIDIA H200 are on file, so no ceiling is drawn." in found["roofline"]["answer"] and found["roofline"]["spec"]
    assert "exponentials" in found["waterfalls"][0]["lines"][0]["note"]


def test_fp32_has_no_tensor_peak(cache):
    document = json.loads(json.dumps(one()).replace(page_data.GOAL, "b1h8s512d64-fp32"))
    assert "The exp unit is saturated at 1,071 TFLOP/s (at 1,980 MHz); no tensor peak" in analyses(document)["roofline"]["answer"]
    assert "exp unit: 1,071 TFLOP/s" in section(render.page(document, cache), "roofline")


def busy(**metrics):
    stalls = {"smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio": 2.0, "smsp__average_warps_issue_stalled_selected_per_issue_active.ratio": 1.0}
    return analysis.busy([dict(metrics={"sm__pipe_tensor_cycles_active.avg.pct": 10.0, **stalls, **metrics})])


@pytest.mark.parametrize("percent, said", [
    (83.0, "Busiest in v1: the tensor cores, at 83.0\u202f% of peak. That is a unit at its limit: it bounds the kernel."), (65.0, "That is near a limit."),
    (20.0, "No unit is near its limit: waiting decides.")])
def test_the_busiest_unit_is_judged(percent, said):
    subject = analysis.setting(whole(one())).subjects[0]
    assert said in analysis.pipes_answer(subject, busy(**{"sm__pipe_tensor_cycles_active.avg.pct": percent}))
    assert analysis.stalls_answer(subject, busy()).startswith(
        "Warps of v1 wait most for the CTA's other warps at a barrier (barrier): 2.00 of the 3.00 cycles between two instructions, 67\u202f%; they issue in 1.00.")


def test_rare_states_share_a_bar():
    states = {f"smsp__average_warps_issue_stalled_{name}_per_issue_active.ratio": 0.1 for name in "abcdefghijkl"}
    values = analysis.stall_values(busy(**states))
    assert len(values) == analysis.MOST_STALLS + 1 and values[-1]["label"] == "5 others" and values[-1]["value"] == "0.50"


def test_variants_without_a_profile_are_not_drawn_first():
    document = page_data.realistic()
    document["variants"][2]["profile"] = []
    found = analyses(document)
    assert found["pipes"][0]["question"] == "How busy is each unit of v1_scalar?"
    assert analyses(one(profile=[], steps={}))["pipes_nothing"] == "No variant with a right time has a profile of the goal’s problem."
    assert "(profile: not permitted, no rights)" in analyses(one(steps={"profile": dict(status="not_permitted", reason="no rights")}))["pipes_nothing"]


# Choosing

def test_without_scripts_the_best_variants_pictures_and_every_table_stay(pages):
    text = re.sub(r"<script.*?</script>", "", pages("realistic"), flags=re.DOTALL)
    for name, pictures in (("gap", 2), ("roofline", 1), ("pipes", 2)):
        shown = section(text, name)
        assert shown.count('class="marks"') == pictures and 'class="choose" hidden' in shown or name == "roofline"
        assert all(f'<th scope="row">{variant}<' in shown for variant in ("v2_wmma", "v2_wmma@STAGES=3", "v1_scalar", "v2_stale"))
        assert "v2_wrong" not in shown, "a time without a right answer is none"


CHOOSE = """<script>
(function wait() {
  const root = document.documentElement;
  if (root.dataset.charts === undefined) return void setTimeout(wait, 50);
  const select = document.querySelector("#pipes select");
  select.value = "v1_scalar";
  select.dispatchEvent(new Event("change"));
})();
</script>"""
"""Chooses another variant as a reader does."""


def test_another_variant_can_be_chosen(tmp_path, pages):
    (tmp_path / "page.html").write_text(pages("realistic").replace("<body>", "<body>" + CHOOSE, 1))
    dom, log = chromium(tmp_path / "page.html", tmp_path / "profile")
    assert 'data-chosen="v1_scalar"' in dom[:600]
    for id_, question, bar in (("gap-warm", "Warm: where does the time of v1_scalar go?", "41.2 µs · measured"),
                               ("pipes-use", "How busy is each unit of v1_scalar?", "33.1"), ("pipes-stalls", "What do the warps of v1_scalar wait for?", "3.21")):
        figure = re.search(f'<figure id="{id_}">.*?</figure>', dom, re.DOTALL)[0]
        assert f"<span data-question=\"\">{question}</span>" in figure and f'aria-label="{question}' in figure
        assert bar in re.search(r'<svg[^>]*class="marks".*?</svg>', figure, re.DOTALL)[0] and figure.count('class="marks"') == 1
    assert not [line for line in log.splitlines() if "CONSOLE" in line]
