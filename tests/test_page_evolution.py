"""The page and the summary tell of evolutions: sentences follow from the data, every part may be missing, a real browser draws it."""

from __future__ import annotations

import html
import json
import re

import page_data
import pytest
from page_data import START, child, compared, evolution, lever, on_h200

from evosdpa import summary
from evosdpa.page import evolution as evolutions, evolution_charts, render
from evosdpa.page.evolution import Evolution
from page_tools import browse, chromium, section, stands, whole, without_bundle

LIMIT = 1_500_000


def told(*entries, **more) -> Evolution:
    """The first planted evolution as the page sees it."""
    return evolutions.of(whole(on_h200(evolution=list(entries), **more)))[0]


def document(name):
    return json.loads(json.dumps(page_data.EVOLUTIONS[name]()))


def page(name, cache):
    return render.page(document(name), cache)


def shown(text):
    """What a reader sees of the section, tags and entities resolved."""
    return html.unescape(re.sub(r"<script.*?</script>|<[^>]+>", " ", section(text, "evolution"), flags=re.DOTALL))


# Did it get faster?

def test_a_faster_child_is_said_with_ratio_interval_and_verdict():
    fast = child("v4_planted@STAGES=3", ratio=0.9, entered=True)
    assert told(evolution(START, fast, elites=(fast["name"], "v4_planted"))).best_answer == (
        "v4_planted@STAGES=3 leads. It was made from v4_planted, with which it began: 0.90\u202f× its time in warm mode (95\u202f% CI 0.89–0.91, faster) and "
        "0.90\u202f× its time in stream mode (95\u202f% CI 0.89–0.91, faster), timed in the same processes.")


def test_a_long_way_claims_no_ratio_between_its_ends():
    first, second = child("a", entered=True, ratio=0.9), child("b", 2, "a", entered=True, ratio=0.8, half=0.4, how="between")
    said = told(evolution(START, first, second, elites=("b", "a"))).best_answer
    assert "b leads, 2 steps from v4_planted" in said and "compared with the one before alone: 1 is faster and 1 is undecided." in said
    assert "The last, from a: 0.80\u202f× its time in warm mode (95\u202f% CI 0.40–1.20, undecided)" in said and "timed in two runs beside the anchor" in said
    assert "0.72" not in said


def test_another_start_without_a_ratio_is_named():
    fast, other = child("a", ratio=0.9, entered=True), child("v5_planted", 0, None, time_us=5.0, entered=True)
    assert told(evolution(START, other, fast, elites=("a",))).best_answer.endswith("No ratio to v5_planted, with which it began too, is on file.")


@pytest.mark.parametrize("children, said", [
    ((), "v4_planted, with which it began, leads; no child was measured."),
    ((child("a", dropped="spills"),), "v4_planted, with which it began, leads; no child was measured."),
    ((child("a", status="failed"), child("b", status="timeout")), "v4_planted, with which it began, still leads: of 2 children measured none is right."),
    ((child("a", ratio=1.2),), "v4_planted, with which it began, still leads: the one right child did not pass it."),
    ((child("a", ratio=1.001, half=0.05), child("b", ratio=1.0, half=0.001)), "v4_planted, with which it began, still leads: none of 2 right children passed it.")])
def test_where_nobody_passed_the_start_it_is_said_to_lead(children, said):
    assert told(evolution(START, *children)).best_answer == said


def test_a_leader_without_a_ratio_gets_none():
    alone = child("a", ratio=None, entered=True)
    assert told(evolution(START, alone, elites=("a",))).best_answer == "a leads. It was made from v4_planted, with which it began: no ratio is on file."


def test_a_leader_that_is_not_on_file_is_not_called_a_start():
    assert told(evolution(START, elites=("gone",))).best_answer == "gone leads; how it was made is not on file."


def test_without_an_elite_the_reason_is_said():
    view = evolutions.of(whole(document("no_start")))[0]
    assert view.best_answer == "There is no elite: no variant to begin with is right and timed: v4_planted: failed, planted."


# Counting

def test_children_are_counted_and_judged_against_their_own_parent():
    view = evolutions.of(whole(page_data.evolved()))[0]
    assert view.device == page_data.H200, "the leading device comes first"
    assert view.lineage_answer == ("3 generations after the start made 8 children: 7 measured, 6 right, 2 became elites, 1 dropped before measuring. "
                                   "Each against its own parent: 2 are faster, 2 are slower, 1 is the same and 1 is undecided.")
    assert [line["dropped"] for line in view.generations] == [0, 0, 1, 0] and [line["right"] for line in view.generations] == [1, 2, 2, 2]


def test_a_regression_is_not_made_to_look_better():
    view = evolutions.of(whole(document("regressed")))[0]
    assert "none became an elite" in view.lineage_answer and view.lineage_answer.endswith("Each against its own parent: 6 are slower.")
    assert view.credit_answer == "more STAGES (1.08\u202f×, 95\u202f% CI 1.05–1.11 over 6 pairs) came with more time."


def test_the_start_alone_is_no_search_yet():
    assert evolutions.of(whole(document("only_the_start")))[0].lineage_answer == "Only the start is measured: 1 variant, 1 right. No generation has followed yet."


def test_the_last_comparison_with_the_start_is_what_is_said_of_the_leader():
    fast = child("v4_planted@STAGES=3", ratio=0.9, entered=True)
    last = [dict(start="v4_planted", mode=mode, ratio=0.93, low=0.92, high=0.94, verdict="faster", how="within") for mode in ("warm", "stream")]
    view = told(evolution(START, fast, elites=(fast["name"], "v4_planted"), against_start={fast["name"]: last}))
    assert view.best_answer == (
        "v4_planted@STAGES=3 leads. In a last comparison, which chose nothing, it took 0.930\u202f× the time in warm mode (95\u202f% CI 0.920–0.940, faster) and "
        "0.930\u202f× the time in stream mode (95\u202f% CI 0.920–0.940, faster) of v4_planted, with which the evolution began.")
    assert [bool(one["against"]) for one in view.elites] == [True, False]


def test_one_that_was_broken_off_says_so_and_names_the_best_that_was_kept():
    kept, slower = child("v5_planted@STAGES=3", ratio=0.9, entered=True), child("b", ratio=1.2)
    view = told(evolution(START, kept, slower, elites=("v4_planted", kept["name"]), closed=False))
    assert view.best_answer.startswith("v4_planted, with which it began, still leads: none of 2 right children passed it. The best of them that was kept is "
                                       f"{kept['name']}, at ")
    assert view.best_answer.endswith(" It was broken off before its last comparison, which chooses nothing.")
    assert "broken off" not in told(evolution(START, slower, closed=True)).best_answer


def test_an_elite_that_broke_is_named_with_its_reason(cache):
    one = evolution(START, child("a", entered=True), elites=("a",))
    one["generations"][1]["left"] = {"v4_planted": "failed: 3 cases are wrong"}
    text = render.page({**json.loads(json.dumps(page_data.realistic())), "evolution": [one]}, cache)
    assert "v4_planted is no elite any more: failed: 3 cases are wrong" in shown(text)


# Levers, rules and promises

def test_credit_needs_its_whole_interval():
    view = told(evolution(START, child("a"), levers=[lever("A", 0.9, 0.2), lever("B", 0.95, None, 1), lever("C", 1.0, 0.001)]))
    assert view.credit_answer == "No lever surely came with less or more time: of 3 levers, 1 made no difference, 2 undecided (1 changed in one child only)."
    assert [one["verdict"] for one in view.levers] == ["undecided", "undecided", "same"]


@pytest.mark.parametrize("changes, said", [(2, "Each child changed two levers"), (3, "A child changes several levers at once")])
def test_shared_credit_is_called_shared(changes, said):
    one = child("a", changes=[dict(lever=f"L{number}", before="1", after="2") for number in range(changes)])
    assert told(evolution(START, one)).shared.startswith(f"{said}, so credit is shared")


def test_rules_are_right_or_wrong():
    view = evolutions.of(whole(page_data.evolved()))[0]
    assert [(one["rule"], one["lost"]) for one in view.rules] == [("cold_inputs", 0), ("stall_barrier", 2)]
    assert view.rules_answer == ("Of 2 rules that pointed at children, 1 pointed at one that is faster by verdict. stall_barrier did so most often: 2 of 5. "
                                 "A child surely gained more than the bound of stall_barrier allows: the bound is wrong, or the child’s other lever gained it.")


@pytest.mark.parametrize("ratio, half, beyond", [(0.95, 0.01, False), (0.85, 0.01, True), (0.85, 0.1, False)])
def test_a_bound_is_exceeded_only_by_a_whole_interval(ratio, half, beyond):
    [line] = told(evolution(START, child("a", ratio=ratio, half=half, at_most=0.1, expected=ratio))).promised
    assert line["beyond"] == beyond


def test_promises_are_told_beside_what_came():
    view = told(evolution(START, child("a", ratio=0.95, expected=0.955), child("b", ratio=0.95, expected=0.8, at_most=None)))
    assert view.promised_answer == ("Of 1 child with a bound none surely gained more than it allows; what credit led to expect lies inside the measured interval "
                                    "for 1 of 2 (warm).")
    line = view.promised[0]
    assert (line["allowed"], line["hoped"], line["measured"][0]) == ("10\u202f%", "+4.5\u202f%", "+5.0\u202f% (+4.0\u202f% to +6.0\u202f%)")
    assert evolution_charts.promised(view) is None, "two are a table, not a picture"


# Pictures

def test_the_lineage_draws_right_children_and_ties_them_to_their_parents():
    view = evolutions.of(whole(page_data.evolved()))[0]
    values = {one["name"]: one for one in evolution_charts.lineage(view)["data"]["values"]}
    assert len(values) == 7 and "v4_planted@BLOCK_KV=128,STAGES=4" not in values
    second, first = values["v4_planted@BLOCK_Q=32,STAGES=3"], values["v4_planted@BLOCK_Q=128,STAGES=3"]
    assert (second["px"], second["py"], second["place"], second["stands"]) == (first["x"], first["y"], "1", "elite")
    assert values["v4_planted"]["px"] is None and values["v4_planted_g3_1"]["stands"] == "right"


def test_the_goal_is_drawn_where_it_is_the_evolutions_and_near():
    def goal(view):
        return "goal 5" in json.dumps(evolution_charts.best(view)), view.goal_beside([6.0])[1]

    assert goal(told(evolution(START))) == (True, "")
    assert goal(told(evolution(START, problem="b1h8s1024d64-fp16"))) == (False, "")
    assert goal(told(evolution(START, device="cpu"))) == (False, "")
    far = told(evolution(child("v4_planted", 0, None, time_us=600.0, entered=True)))
    assert "goal 5" not in json.dumps(evolution_charts.best(far)) and far.goal_beside([600.0])[1] == "The goal, 5 µs, lies far below the picture."


# The page

def test_without_an_evolution_the_page_says_nothing_of_one(pages):
    assert 'id="evolution"' not in pages("realistic") and "#evolution" not in re.sub("<style>.*?</style>", "", pages("realistic"), flags=re.DOTALL)


@pytest.mark.parametrize("name", page_data.EVOLUTIONS)
def test_the_page_stands_on_every_evolution(name, cache):
    text = page(name, cache)
    assert len(text.encode()) < LIMIT
    stands(text, cache)
    assert text == render.page(json.loads(json.dumps(document(name), sort_keys=True)), cache), "the same document must give the same bytes"
    order = [text.index(f'<section id="{part}">') for part in ("variants", "evolution", "provenance")]
    assert order == sorted(order)


def test_a_long_search_with_a_long_evolution_stays_small(cache):
    both = {**json.loads(json.dumps(page_data.many())), "evolution": document("long_evolution")["evolution"]}
    text = render.page(both, cache)
    assert len(text.encode()) < LIMIT and f"{201 - evolutions.MOST_ROWS} more rows in gap.json" in shown(text)
    assert section(text, "evolution").count('<tr') < 420


def test_the_page_shows_each_device_its_origin_and_what_is_stale(cache):
    text = page("evolved", cache)
    said = shown(text)
    assert said.index("recorded: NVIDIA H200, 2031-01-02") < said.index("measured on this machine: CPU (planted CPU), 2031-01-02")
    assert said.count("Changed since it was measured: protocol.") == 1
    assert re.search(r"Generation 3:\s+≈\s*unstable\s+finals: 3 processes rejected", said)
    assert "spills 512 bytes of registers </script><img" in said and "4 of 300 cases wrong </script>" in said, "why a child was dropped stays readable"


def test_hostile_text_is_only_text(cache):
    bad = json.loads(json.dumps(document("evolved")).replace('"v4_planted@BLOCK_Q=128,STAGES=3"', json.dumps(page_data.HOSTILE)))
    entry = bad["evolution"][1]
    entry["modes"][1] = entry["origin"] = entry["problem"] = entry["rules"][0]["rule"] = entry["levers"][0]["lever"] = entry["levers"][0]["source"] = page_data.HOSTILE
    entry["children"][1]["changes"][0].update(lever=page_data.HOSTILE, before='"><b>', after=page_data.HOSTILE)
    entry["children"][1].update(operator=page_data.HOSTILE, verdict=page_data.HOSTILE, rules=[page_data.HOSTILE], other=page_data.HOSTILE, dropped="", status="ok")
    entry["changed"], entry["generations"][3]["reason"] = [page_data.HOSTILE], page_data.HOSTILE
    text = render.page(bad, cache)
    rest = without_bundle(text, cache)
    assert "<img" not in rest and '"><b>' not in section(text, "evolution")
    assert text.count("</script") == text.count("<script") - render.bundle(cache).count("<script")
    made = summary.markdown(bad)
    assert "<img" not in made.replace("\\<img", "").replace("`" + " ".join(page_data.HOSTILE.split()) + "`", "")


def test_pictures_and_tables_stay_without_scripts(cache):
    text = re.sub(r"<script.*?</script>", "", page("evolved", cache), flags=re.DOTALL)
    found = section(text, "evolution")
    assert found.count('class="marks"') == 6 and ">goal 5 µs<" in found
    assert all(f'<th scope="row">{name}' in found for name in ("BLOCK_Q", "NUM_WARPS", "stall_barrier"))


@pytest.mark.parametrize("name", ["evolved", "long_evolution", "nothing_right", "bare_evolution"])
def test_a_browser_shows_every_picture_and_nothing_overflows(name, tmp_path, cache):
    browse(page(name, cache), tmp_path)


def test_a_browser_without_scripts_keeps_the_pictures(tmp_path, cache):
    (tmp_path / "page.html").write_text(re.sub(r"<script>.*?</script>", "", page("regressed", cache), flags=re.DOTALL))
    dom, _ = chromium(tmp_path / "page.html", tmp_path / "profile")
    assert section(dom, "evolution").count('class="marks"') == 4


# The summary

@pytest.mark.parametrize("name", page_data.EVOLUTIONS)
def test_the_summary_tells_of_every_evolution(name):
    made = summary.markdown(document(name))
    assert made == summary.markdown(json.loads(json.dumps(document(name), sort_keys=True)))
    titles = [line for line in made.splitlines() if line.startswith("## ")]
    assert titles == ["## Goal", "## Candidates", "## State of the search", "## Evolution", "## Gap analysis", "## Next actions"]
    assert "None" not in made and "nan" not in made and "\n\n\n" not in made
    for lines in re.findall(r"(?:^\|.*\n)+", made, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines.splitlines()}) == 1, "a table's rows have as many cells as its head"


def test_the_summary_and_the_page_say_the_same(cache):
    def plain(text):
        return text.replace("\u202f", " ")

    made, said = plain(summary.markdown(document("evolved"))).replace("\\", ""), plain(shown(page("evolved", cache)))
    views = evolutions.of(whole(page_data.evolved()))
    for view in views:
        for answer in (view.lineage_answer, view.best_answer, view.credit_answer, view.rules_answer, view.promised_answer):
            assert plain(answer) in made and plain(answer) in said
    assert f"- **Evolution on NVIDIA H200:** {plain(views[0].best_answer)}" in made
    assert "| BLOCK_KV | `v4_planted` | 1.10 × | none | 1 | undecided |" in made
    assert "`v4_planted@BLOCK_Q=256,STAGES=4` (dropped: spills 512 bytes of registers" in made


def test_a_ratio_without_an_interval_says_so():
    one = child("a", entered=True, against={"warm": {**compared(0.9), "low": None, "high": None, "verdict": "undecided"}})
    said = told(evolution(START, one, elites=("a",))).best_answer
    assert said.endswith("0.900\u202f× its time in warm mode (no interval, undecided), timed in the same processes.")
