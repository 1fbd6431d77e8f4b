"""The page: its sentences, its escaping, its size, and that a real browser shows it with the network off."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import page_data
import pytest

from evosdpa.evidence import EvidenceError
from evosdpa.page import charts, facts, gate, ladders, render, tiles, words
from page_tools import browse, chromium, loads, planted, section, stands, whole, with_blocks, without_bundle

ROOT = Path(__file__).parents[1]
LIMIT = 1_500_000


def warm(document, problem=page_data.GOAL, device=page_data.H200):
    return ladders.ladder(whole(document), device, problem, "warm")


# Numbers

@pytest.mark.parametrize("value, low, high, shown, ends", [
    (5.2718, 5.2512, 5.2924, "5.27", "5.25–5.29"), (5.2718, 4.9, 5.7, "5.3", "4.9–5.7"), (18650.4, 15310.7, 22718.7, "19,000", "15,000–23,000"),
    (0.77831, 0.7751, 0.7813, "0.778", "0.775–0.781"), (2.05, None, None, "2.05", ""), (None, None, None, "–", ""), (float("nan"), 1, 2, "–", ""),
    (0.0, None, None, "0.00", ""), (9.999, 9.5, 10.5, "10.0", "9.5–10.5")])
def test_no_more_digits_than_the_interval_justifies(value, low, high, shown, ends):
    assert words.number(value, words.half_width(low, high)) == shown
    assert words.interval(value, low, high) == ends


# Sentences

def test_the_fastest_right_and_current_variant_is_named():
    answer = warm(page_data.realistic()).answer
    assert answer.startswith("v2_wmma is the fastest variant: 4.83 µs")
    assert "under the goal of 5 µs" in answer and "faster than the best rival sdpa-cudnn" in answer
    assert "1 failed" in answer and "1 stale" in answer


def test_overlapping_intervals_are_a_tie():
    assert "v2_wmma@STAGES=3’s overlaps: their order is undecided" in warm(page_data.realistic()).answer
    apart = page_data.on_h200(rows=[page_data.row("v1", 4.0), page_data.row("v2", 6.0)])
    assert "undecided" not in warm(apart).answer


@pytest.mark.parametrize("verdict, said", [("same", "as fast as the best rival sdpa-cudnn"), ("undecided", "not told apart from the best rival"),
                                           ("slower", "slower than the best rival")])
def test_the_verdict_against_the_best_rival_is_said_as_it_is(verdict, said):
    assert said in warm(page_data.on_h200(rows=[page_data.row("v1", 6.2, ratio=1.0, best="sdpa-cudnn", verdict=verdict)])).answer


@pytest.mark.parametrize("document, state, said", [
    (page_data.one_variant(4.5), "met", "Met by v1: 4.50 µs warm and 4.50 µs stream."),
    (page_data.one_variant(5.01, spread=0.01), "undecided", "lies inside an interval of v1"),
    (page_data.one_variant(6.0), "missed", "v1 comes closest"), (page_data.realistic(), "missed", "v2_wmma comes closest with 4.83 µs warm and 5.41 µs stream"),
    (page_data.only_stale(), "missed", "no variant has a right and current time"), (page_data.everything_failed(), "missed", "no variant has a right"),
    (page_data.one_variant(4.5, spread=0), "undecided", "Undecided"), (page_data.empty(), "missed", "no variant has a right")])
def test_the_goal_is_met_only_when_every_interval_is_below_it(document, state, said):
    found, sentence = ladders.goal_verdict(whole(document))
    assert found == state and said in sentence


def test_the_goal_needs_both_modes():
    document = page_data.one_variant(4.5)
    document["rows"] = document["rows"][:1]
    assert ladders.goal_verdict(whole(document))[0] == "missed"


def test_only_right_and_current_times_have_a_rank():
    view = warm(page_data.realistic())
    names = [entry.name for entry in view.entries if entry.ranked]
    assert "v2_stale" not in names and "v2_wrong" not in names
    assert [entry.rank for entry in view.entries if entry.kind == "floor"] == [None, None]
    assert [entry.rank for entry in view.entries if entry.rank] == list(range(1, 9))
    unranked = {entry.name: entry for entry in view.entries if not entry.ranked}
    assert set(unranked) == {"v2_stale", "v2_wrong", "v2_broken", "v2_wgmma", "v2_hang", "flash-attn-3"}
    assert unranked["v2_stale"].why == "changed since: source, protocol"


def test_devices_never_share_a_ladder():
    document = whole(page_data.realistic())
    for figure in render.goal_figures(document) + render.other_figures(document):
        assert len({entry.row["device"] for entry in figure["ladder"].entries}) == 1
    others = render.other_figures(document)
    assert [figure["question"] for figure in others] == ["CPU (planted CPU), warm: how fast is each?"]


def test_the_top_has_the_best_variant_in_a_few_numbers():
    document = whole(page_data.one_variant(4.5))
    told = {tile.title.partition(":")[0]: [value for value, _ in tile.lines] + [beside for _, beside in tile.lines] for tile in tiles.tiles(document, proof())}
    assert told["best variant"][0].startswith("4.50 µs warm") and "met" in told["over the goal’s time"]
    assert any("faster" in one or "no current time of a rival" == one for one in told["over the best rival’s time"])
    assert any("planted" in one or "gate" in one for one in told["right answers"])
    for nothing in (page_data.everything_failed(), page_data.only_stale(), page_data.empty(), {}):
        assert tiles.tiles(whole(nothing), proof()) == [], "no number without a rank"


def test_processes_that_were_rejected_are_said_at_the_top():
    def told(*accepted):
        lines = [dict(process=number, mode="warm", accepted=one, late=2, samples=100) for number, one in enumerate(accepted)]
        return tiles.health(whole({**page_data.one_variant(), "processes": [dict(name="v", device=page_data.H200, processes=lines)]}))
    assert told(True, True) == ("good", "all 2 timed processes steady; 4 of 204 samples came late and were dropped")
    assert told(True, False)[0] == "warn" and "1 of 2 timed processes rejected" in told(True, False)[1]
    assert tiles.health(whole({**page_data.one_variant(), "processes": []})) is None


def test_where_numbers_are_from_is_said_at_the_top():
    recorded = render.headline(whole(page_data.realistic()))["notice"]
    assert "GPU results are recorded on NVIDIA H200 on 2031-01-02" in recorded
    assert render.headline(whole(page_data.measured_here()))["notice"] == ""
    assert "none is recorded" in render.headline(whole(page_data.empty()))["notice"]
    badges = [text for device in facts.devices(whole(page_data.realistic())) for _, text in device["badges"]]
    assert badges == ["recorded: NVIDIA H200, 2031-01-02", "measured on this machine: CPU (planted CPU)"]


def test_correctness_counts_only_supported_cases():
    answer = facts.correctness_answer(whole(page_data.realistic()))
    assert answer.startswith("5 of 8 checked variants pass every case that they support; v2_wrong fails 4 of 300")
    assert "No case is supported by v2_wgmma" in answer
    table = facts.matrices(whole(page_data.realistic()))[0]
    wrong = next(line for line in table["lines"] if line["name"] == "v2_wrong")
    cell = wrong["cells"][table["labels"].index("tile + 1")]
    assert (cell["mark"].text, cell["text"], cell["ratio"]) == ("failed", "12/16", "37.2")


@pytest.mark.parametrize("low, high", [(1.1, 1.3), (4, 9), (1, 60), (3, 1400), (0.02, 40000)])
def test_a_log_axis_always_has_ticks(low, high):
    assert 2 <= len(charts.ticks(low, high)) <= 14


# The gate

def proof(*selftests, device=page_data.H200, **more):
    return gate.proof(whole(page_data.on_h200(selftests=list(selftests), **more)), device)


def test_a_proven_gate_is_said_to_be_proven():
    found = proof(page_data.selftest())
    assert found.answer == "On NVIDIA H200 all 2 planted wrong kernels are rejected, each by the check meant for it, and the honest one passes at 0.50 of the allowance."
    assert found.badge == ("good", "gate: 2 of 2 planted kernels rejected") and found.mark.tone == "good"


def test_what_the_gate_misses_is_named_first_and_shown_first():
    found = proof(page_data.selftest(page_data.result("aaa", "accuracy"), page_data.missed("hang", "timeout"), page_data.honest()))
    assert found.answer.startswith("On NVIDIA H200 the gate MISSES 1 of 2 planted wrong kernels: hang.") and "rejects 1 of 2" in found.answer
    assert found.badge == ("bad", "gate missed 1 planted kernel") and found.mark.tone == "bad"
    assert [(line["name"], line["outcome"].mark.text) for line in found.lines] == [("hang", "MISSED"), ("aaa", "rejected"), ("honest", "accepted")]


@pytest.mark.parametrize("odd, verdict, said, badge", [
    (page_data.result("astray", "finite", said={"accuracy": 6}, missed="finite does not say no"), "rejected, not as meant", "astray is rejected, but not as meant",
     "gate: 1 planted kernel not rejected as meant"),
    (page_data.not_built(), "error: not tried", "unbuilt could not be tried", "gate: 1 planted kernel not rejected as meant"),
    (page_data.honest(0.9, "the honest kernel passes without room"), "accepted, without room", "the honest one passes WITHOUT ROOM, at 0.90 of the allowance",
     "gate leaves the honest kernel no room"),
    (page_data.honest(1.2, "the honest kernel is rejected: 1 of 6 cases", "1 of 6 cases"), "WRONGLY REJECTED", "the honest one is WRONGLY REJECTED",
     "gate rejects the honest kernel")])
def test_every_other_way_to_fail_has_its_own_words(odd, verdict, said, badge):
    others = [page_data.result("zeros", "accuracy")] + ([] if gate.is_honest(odd) else [page_data.honest()])
    found = proof(page_data.selftest(odd, *others))
    assert found.lines[0]["outcome"].mark.text == verdict and said in found.answer
    assert found.badge == ("bad", badge) and found.state == "wrong"


def test_a_gate_that_was_not_tried_says_how_to_try_it():
    found = proof()
    assert found.answer == "On NVIDIA H200 none of the 38 planted kernels was put through the gate. Run snakemake --cores 1 selftest on a machine with this GPU to have it done."
    assert proof(this_device=page_data.H200).answer.endswith("Run snakemake --cores 1 selftest to have it done.")
    assert found.badge == ("open", "gate: not proven here")
    broken = proof({**page_data.selftest(reason="nvcc is missing"), "results": []})
    assert "nvcc is missing" in broken.answer and broken.badge == ("open", "gate: not proven here")


def test_a_proof_of_another_gate_is_stale():
    found = proof(page_data.selftest(stale=True, changed=("harness", "compiler")))
    assert found.answer.startswith("Out of date (changed since: harness and compiler): on NVIDIA H200 all 2")
    assert found.badge == ("warn", "gate: 2 of 2 planted kernels rejected, stale") and found.mark.text == "stale"
    assert proof(page_data.selftest(page_data.missed(), page_data.honest(), stale=True)).badge[0] == "bad", "being old does not excuse a miss"


@pytest.mark.parametrize("results", [[page_data.honest()], [page_data.result("zeros", "accuracy")]])
def test_half_a_proof_is_none(results):
    assert proof(page_data.selftest(*results)).badge == ("open", "gate: not proven here")


def test_the_page_shows_how_the_gate_did(pages):
    shown = section(pages("realistic"), "gate")
    assert shown.index("MISSED") < shown.index("rejected, not as meant") < shown.index("</i>rejected<")
    assert "wrong only in cases with “primes”, “one query” and “one key”" in shown and "the process ends in time" not in shown
    assert "each row&#39;s relative L2 error is within the allowance" in shown
    assert shown.count('<table class="planted">') == 2 and shown.index("On NVIDIA H200") < shown.index("On CPU (planted CPU)")
    header = pages("realistic").split("<main>")[0].split("<body>")[1]
    assert '<li class="badge bad"><a href="#gate">gate missed 1 planted kernel</a>' in header
    assert 'href="#gate">gate: not proven here' in pages("one_variant") and "<code class=\"command\">snakemake --cores 1 selftest</code>" in section(pages("one_variant"), "gate")


def test_planted_kernels_and_compile_errors_are_only_text(cache):
    hostile = {key: page_data.HOSTILE for key in ("name", "title", "idea", "reason", "missed")}
    document = page_data.on_h200(selftests=[page_data.selftest(
        {**page_data.missed(), **hostile, "where": [page_data.HOSTILE], "expected": [page_data.HOSTILE], "said": {page_data.HOSTILE: 1, '"><b>': 2}},
        page_data.not_built(reason=page_data.HOSTILE * 20), page_data.honest(), stale=True, changed=(page_data.HOSTILE,), origin=page_data.HOSTILE)],
        repeatability=[page_data.itself(page_data.HOSTILE, reason=page_data.HOSTILE, problem=page_data.HOSTILE)])
    document["repeatability"][0]["tries"][0].update(copies=[page_data.HOSTILE], verdict=page_data.HOSTILE)
    document["repeatability"][0]["counts"][0].update(mode=page_data.HOSTILE, kind=page_data.HOSTILE)
    text = render.page(document, cache)
    rest = without_bundle(text, cache)
    assert "<img" not in rest and '"><b>' not in rest and "&lt;img" in section(rest, "gate")
    assert text.count("</script") == text.count("<script") - render.bundle(cache).count("<script")
    assert [loaded for loaded in loads(rest) if not loaded.startswith("#")] == []


# A binary against itself

def itself(**more):
    document = whole(page_data.on_h200(repeatability=[page_data.itself(**more)]))
    found = gate.against_itself(document)
    return gate.itself_answer(document, found), found[0]


@pytest.mark.parametrize("false, said, tone", [
    (0, "No: of 80 comparisons of v2_wmma with itself on NVIDIA H200 none ends in a false verdict (76 same and 4 undecided).", "good"),
    (1, "Seldom: 1 of 80 comparisons of v2_wmma with itself on NVIDIA H200 ends in a false verdict", "good"),
    (3, ("YES, TOO OFTEN: 3 of 80 comparisons of v2_wmma with itself on NVIDIA H200 end in a false verdict; 3 of 20 in the same processes, warm, "
         "where a 95\u202f% interval allows 1 in 20."), "bad")])
def test_false_verdicts_are_counted_and_judged(false, said, tone):
    answer, found = itself(false=false)
    assert answer.startswith(said)
    assert found.counts[0]["wrong"] == false and found.counts[0]["mark"].tone == tone and found.counts[1]["mark"].text == "none"


def test_a_repeat_that_did_not_happen_is_not_a_good_one():
    assert itself(measured=False, status="unstable", reason="3 processes rejected")[0] == "Not known for v2_wmma on NVIDIA H200: unstable, 3 processes rejected."
    assert itself(stale=True, changed=("source",))[0].startswith("Out of date (changed since: source): no: of 80")
    nothing = whole(page_data.on_h200())
    assert gate.itself_answer(nothing, gate.against_itself(nothing)).startswith("Not measured on NVIDIA H200")
    elsewhere = whole(page_data.on_h200(repeatability=[page_data.itself(device="cpu")]))
    assert "Not measured on NVIDIA H200" in gate.itself_answer(elsewhere, gate.against_itself(elsewhere))


def test_process_medians_are_shown_around_their_median():
    line = itself()[1].spread[0]
    assert (line["low"], line["high"], line["count"]) == ("−0.41\u202f%", "+0.66\u202f%", "200")


def test_tries_are_drawn_where_there_are_some(pages):
    shown = section(pages("realistic"), "gate")
    questions = re.findall(r"<h3>(.*?)<a", shown)
    assert questions == ["Warm, in the same processes: is it the same as itself?", "Warm, in two runs: is it the same as itself?",
                         "Stream, in the same processes: is it the same as itself?", "Stream, in two runs: is it the same as itself?",
                         "Warm, in the same processes: is it the same as itself?", "Warm, in two runs: is it the same as itself?"]
    assert shown.count("data-chart=") == len(questions) == shown.count('class="marks"')
    assert ">slower</text>" in shown and "</i>slower</span>" in shown, "a false verdict is a word in the picture and in the table"
    assert "data-chart=" not in section(pages("one_variant"), "gate")


def test_a_picture_of_many_tries_keeps_the_outliers():
    lines = gate.against_itself(whole(page_data.on_h200(repeatability=[{**page_data.itself(), "tries": page_data.tries("within", "warm", 300, false=5)}])))[0].tries
    drawn = charts.drawn_tries(lines)
    assert len(drawn) == charts.MOST_TRIES and sum(one["verdict"] == "slower" for one in drawn) == 5
    assert f"Drawn: the {charts.MOST_TRIES} furthest from 1" in gate.group_answer(lines, len(drawn))


@pytest.mark.parametrize("status", ["unstable", "suspect"])
def test_a_mode_without_a_rank_says_why(status, cache):
    document = page_data.one_variant()
    document["rows"][1].update(status=status, reason="processes 2 and 4 rejected: SM clock off")
    card = re.search(r'<details class="card".*?<h4>Next', render.page(document, cache), re.DOTALL)[0]
    assert f"<li>Stream is {status}: processes 2 and 4 rejected: SM clock off.</li>" in card


# The file

@pytest.mark.parametrize("name", [*page_data.EXTREMES, "realistic", "measured_here"])
def test_the_page_stands_on_every_document(name, cache, pages):
    document, text = planted(name), pages(name)
    assert len(text.encode()) < LIMIT
    assert text == render.page(json.loads(json.dumps(document, sort_keys=True)), cache), "the same document must give the same bytes"
    stands(text, cache)


@pytest.mark.parametrize("git, shown", [
    (dict(commit="a" * 40, dirty=False), "aaaaaaaaaaaa"), (dict(commit="a" * 40, dirty=True), "aaaaaaaaaaaa+"), ({}, ""),
    (dict(commit="a" * 40, dirty=None, told_by="EVOSDPA_COMMIT"), "aaaaaaaaaaaa, as told by EVOSDPA_COMMIT"),
])
def test_the_commit_says_what_is_known_of_changes(cache, git, shown):
    document = page_data.on_h200(provenance=[{**page_data.piece("v1", "bench"), "git": git}])
    [line], _ = facts.provenance(document)
    assert line["commit"] == shown and "None" not in (text := render.page(document, cache)).replace(render.bundle(cache), "")
    assert f"<code>{shown}</code>" in text or not shown


def test_text_from_tools_cannot_break_out(cache):
    document = page_data.realistic()
    document["rows"][0]["name"] = document["rows"][3]["reason"] = document["variants"][2]["idea"] = page_data.HOSTILE
    document["variants"][1]["profile"][0]["reason"] = document["devices"][0]["info"]["name"] = page_data.HOSTILE
    document["variants"][2]["name"] = document["rows"][12]["name"] = document["goal"]["modes"][1] = page_data.HOSTILE
    document["correctness"][0]["label"] = document["provenance"][0]["path"] = page_data.HOSTILE
    text = render.page(document, cache)
    assert "<img" not in text.replace(render.bundle(cache), "")
    assert text.count("</script") == text.count("<script") - render.bundle(cache).count("<script")
    for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', with_blocks(text), re.DOTALL):
        assert not re.search("[<>&\u2028\u2029]", block)
        json.loads(block)


def test_long_logs_do_not_blow_up_the_page(cache):
    log = "\n".join(f"kernel.cu({line}): error: something long that a template says about itself" for line in range(10_000))
    document = page_data.on_h200(variants=[page_data.fact(f"v{number}", status="error", reason="does not compile", log=log) for number in range(30)])
    assert len(render.page(document, cache).encode()) < LIMIT


def test_nan_and_missing_files_are_handled(tmp_path, cache):
    path = tmp_path / "gap.json"
    path.write_text(json.dumps(page_data.realistic()).replace("4.83,", "NaN,", 1))
    assert "NaN" not in without_bundle(render.page(render.read(path), cache), cache)
    for content in ("{", "[]"):
        path.write_text(content)
        with pytest.raises(EvidenceError):
            render.read(path)
    with pytest.raises(EvidenceError):
        render.read(tmp_path / "absent.json")


def test_the_charting_library_is_packed_the_same_each_time(tmp_path, cache):
    assert render.bundle(tmp_path) == render.bundle(cache) and len(render.bundle(cache)) < 500_000


def test_the_script_writes_the_page(tmp_path, cache):
    library = render.bundle(cache)
    shutil.copytree(cache, tmp_path / ".cache")
    (tmp_path / "gap.json").write_text(json.dumps(page_data.one_variant()))
    command = [sys.executable, ROOT / "scripts" / "build_report.py", "--gap", tmp_path / "gap.json", "--output", tmp_path / "report.html"]
    subprocess.run(command, check=True, timeout=60)
    first = (tmp_path / "report.html").read_bytes()
    subprocess.run(command, check=True, timeout=60)
    assert (tmp_path / "report.html").read_bytes() == first
    assert library.encode() in first and len(list((tmp_path / ".cache").iterdir())) == 1


# The browser

@pytest.mark.parametrize("name", ["realistic", "many", "empty", "bare"])
def test_a_browser_shows_every_chart_and_nothing_overflows(name, tmp_path, pages):
    browse(pages(name), tmp_path)


def test_the_browser_reports_charts_on_the_page_itself(tmp_path, pages):
    (tmp_path / "page.html").write_text(pages("one_variant"))
    dom, log = chromium(tmp_path / "page.html", tmp_path / "profile")
    assert 'data-charts="7"' in dom[:400] and 'data-failed=""' in dom[:400]
    assert dom.count('role="img" aria-label="') == 7 and 'aria-label="Vega' not in dom, "Vega replaces the words for screen readers"
    assert not [line for line in log.splitlines() if "CONSOLE" in line]


def test_a_browser_that_cannot_unpack_keeps_the_pictures_and_offers_nothing_to_choose(tmp_path, pages):
    text = pages("realistic").replace("<body>", "<body><script>delete window.DecompressionStream;"
                                      "addEventListener('unhandledrejection', event => document.documentElement.dataset.lost = String(event.reason));</script>", 1)
    (tmp_path / "page.html").write_text(text)
    dom, _ = chromium(tmp_path / "page.html", tmp_path / "profile")
    assert dom.count('class="marks"') == text.count('class="marks"') > 0 and 'data-charts="0"' in dom[:400] and 'data-failed="all"' in dom[:400]
    assert dom.count("data-choose") > 0 and not re.search(r'<[a-z]+ class="choose"(?![^>]*hidden)', dom) and "data-lost=" not in dom[:400]


def test_without_scripts_the_pictures_stay(tmp_path, pages):
    text = re.sub(r"<script>.*?</script>", "", pages("one_variant"), flags=re.DOTALL)
    (tmp_path / "page.html").write_text(text)
    dom, _ = chromium(tmp_path / "page.html", tmp_path / "profile")
    assert dom.count('class="marks"') == 7 and "goal 5 µs" in dom and "data-charts" not in dom


def test_a_long_evolution_with_the_gates_own_evidence_stays_small(cache):
    document, gates = planted("many"), planted("realistic")
    document.update(selftests=gates["selftests"][:1], repeatability=gates["repeatability"][:1], planted=gates["planted"])
    text = render.page(document, cache)
    assert 'id="gate"' in text and len(text.encode()) < LIMIT
