"""results/summary.md and the ladder in the terminal: they follow from the data alone, on planted documents."""

from __future__ import annotations

import copy
import io
import json
import os
import re
import subprocess
import sys

import page_data
import pytest
from page_data import GOAL, H200, fact, on_h200, row

from evosdpa import invocation, plan, summary, terminal, variants
from evosdpa.evidence import EvidenceError
from evosdpa.candidates import Search
from evosdpa.page import render
from evosdpa.writeup_words import prose
from workspace import PROJECT

ANSI = re.compile(r"\x1b\[\d*m")
EVERY = {**page_data.EXTREMES, "realistic": page_data.realistic, "measured_here": page_data.measured_here}


def plain(document):
    """As it comes from a file."""
    return json.loads(json.dumps(document))


def text(document):
    return summary.markdown(plain(document)).replace("\u202f", " ")


def section(document, title):
    """A section of the summary, between its title and the next."""
    return re.search(rf"^## {title}\n\n(.*?)(?=^## |\Z)", text(document), re.DOTALL | re.MULTILINE)[1]


def card(document, name):
    return re.search(rf"^### `{re.escape(name)}`[^\n]*\n\n(.*?)(?=^##)", text(document), re.DOTALL | re.MULTILINE)[1]


def shown(document, colour=False):
    return terminal.ladder(plain(document), "results/report.html", "results/summary.md", colour)


def ordered(document):
    return [one.name for one in Search(render.whole(plain(document))).candidates]


# Any document

@pytest.mark.parametrize("name", EVERY)
def test_every_document_gives_the_same_whole_text_again(name):
    document = plain(EVERY[name]())
    made = summary.markdown(copy.deepcopy(document))
    assert made == summary.markdown(json.loads(json.dumps(document, sort_keys=True)))
    assert [line for line in made.splitlines() if line.startswith("## ")] == ["## Goal", "## Candidates", "## State of the search", "## Gap analysis", "## Next actions"]
    assert "None" not in made and "nan" not in made and "\n\n\n" not in made and made.endswith("\n") and not made.endswith("\n\n")
    for lines in re.findall(r"(?:^\|.*\n)+", made, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines.splitlines()}) == 1, "a table's rows have as many cells as its head"


@pytest.mark.parametrize("name", EVERY)
def test_the_terminal_gets_plain_narrow_text(name):
    said = shown(EVERY[name]())
    assert said.isascii() and said.isprintable() is False and "\x1b" not in said and "None" not in said
    assert max(map(len, said.splitlines())) <= terminal.WIDTH
    assert ANSI.sub("", shown(EVERY[name](), colour=True)) == said, "colour changes no letter"


def test_text_from_tools_stays_text():
    made = text(page_data.realistic())
    assert "<img" not in made.replace("\\<img", "") and "</script" not in made.replace("\\</script", "")
    assert prose("a `b` [c](d) <e> | f_g __h * \\ &lt;") == r"a \`b\` \[c\](d) \<e\> \| f_g \_\_h \* \\ \&lt;"
    assert terminal.ascii_text("a\x1b[31m\nb\u202fµs × –") == "a[31m b us x -"
    document = on_h200(variants=[fact("v1", status="failed", reason="line\none \x1b[2J")])
    assert "\x1b" not in shown(document) + text(document) and "Failed: line one" in card(document, "v1")


# Goal

def test_a_goal_that_is_met_names_variant_interval_origin_and_date():
    said = section(page_data.one_variant(4.5), "Goal")
    assert "**Met by v1: 4.50 µs warm and 4.50 µs stream.**" in said
    assert "| stream | `v1` | 4.50 | 4.48–4.52 | 0.900 × | 5 | recorded, NVIDIA H200 | 2031-01-02 |" in said


def test_a_goal_that_is_not_met_names_the_closest():
    said = section(page_data.realistic(), "Goal")
    assert "**Not met: v2\\_wmma" not in said and "**Not met: v2_wmma comes closest" in said and "| warm | `v2_wmma` | 4.83 |" in said
    assert "no variant has a right and current time" in section(page_data.only_stale(), "Goal")
    half = page_data.one_variant(4.5)
    half["rows"] = half["rows"][:1]
    assert "in each of the modes warm and stream" in section(half, "Goal") and "| stream |" not in section(half, "Goal")


# Candidates

def test_the_order_is_elites_then_ranked_then_stale_broken_and_not_measured():
    assert ordered(page_data.realistic()) == ["v2_wmma", "v2_wmma@STAGES=3", "v1_scalar", "v2_stale", "v2_broken", "v2_hang", "v2_wrong", "v2_wgmma", "v0_reference"]
    said = section(page_data.realistic(), "Candidates")
    assert said.count("(elite)") == 3 and "| 1 | `v2_wmma` (elite) |" in said and "|  | `v0_reference` | cpu |" in said


def test_a_card_holds_status_metrics_what_works_what_holds_back_and_next():
    document = page_data.one_variant(4.5)
    document["variants"][0].update(vs_anchor={"warm": dict(name="sdpa-default", ratio=0.5, low=0.498, high=0.502, verdict="faster")}, default_levers={"BLOCK_Q": "128"})
    said = card(document, "v1")
    for part in ("**Status:** ✓ ok; elite, the only one with a rank; recorded on nvidia-h200, 2031-01-02.", "warm 4.50 µs (4.48–4.52), 0.900 × the goal",
                 "over SDPA (sdpa-default) 0.500 × warm", "correct 304/304", "registers 168 a thread", "shared memory 1 KiB + 63 KiB", "occupancy 12.5 % (shared memory)",
                 "Right in all 304 cases", "Faster than PyTorch's default SDPA (0.500 × its time, warm)", "32 CTAs leave 100 of 132 SMs without work (idle SMs 75.8 %, threshold 1.9 %)",
                 "gains at most 76 % of the warm time, 2.5 µs warm, all that lies above the floor", "the lever BLOCK_Q goes that way, 128 to 64", "`snakemake --cores 1 v1@BLOCK_Q=64`"):
        assert part in said, part


def test_a_lever_value_that_was_measured_is_not_proposed_again():
    document = page_data.one_variant(4.5)
    document["variants"][0]["default_levers"] = {"BLOCK_Q": "128"}
    document["variants"].append(fact("v1@BLOCK_Q=64"))
    assert "v1@BLOCK_Q=64`" not in card(document, "v1")


def test_a_wrong_kernels_speed_says_nothing():
    said = card(page_data.realistic(), "v2_wrong")
    assert "**Status:** ✗ failed; 4 of 300 cases wrong" in said and "- Failed: 4 of 300 cases wrong." in said
    assert "SMs without work" not in said and "Mend it" in said and "3.1" not in said.split("**What works")[0]


def test_what_was_never_run_has_a_short_card():
    document = on_h200(variants=[fact("v9", status="not_run", reason="nothing recorded", launch=None)])
    assert card(document, "v9").strip().splitlines()[-3:] == ["- **Status:** · not run; nothing recorded.", "- **Next:**", "  - Measure it on NVIDIA H200. `snakemake --cores 1 v9`"]
    here = {**document, "this_device": H200}
    assert "Measure it. `snakemake" in card(here, "v9")


def test_a_long_search_is_cut_and_says_so():
    document = page_data.many(200)
    made = text(document)
    assert made.count("\n### ") == summary.MOST_CARDS and "164 more are in `results/gap.csv`" in made and "Cards of the other 188" in made and len(made) < 60_000
    assert "(160 more in results/gap.csv)" in shown(document)


def test_devices_do_not_share_a_ladder():
    said = shown(page_data.realistic())
    assert said.index("on NVIDIA H200:") < said.index("v1_scalar") < said.index("on cpu:") < said.index("v0_reference")
    assert "number 1 of 3 with a rank" in card(page_data.realistic(), "v2_wmma") and "the only one with a rank" in card(page_data.realistic(), "v0_reference")


# State of the search

def test_a_tie_is_called_one():
    said = section(page_data.realistic(), "State of the search")
    assert "v2_wmma@STAGES=3’s overlaps: their order is undecided" in said
    assert "not told apart from v2_wmma@STAGES=3" in card(page_data.realistic(), "v2_wmma")


@pytest.mark.parametrize("rivals, why", [
    ([], "none was timed"), ([row("sdpa-default", 6.0, "rival", stale=True, changed="protocol")], "the evidence about them is stale (changed since: protocol)"),
    ([row("sdpa-default", 6.0, "rival", status="unstable", reason="clock")], "none has a time that is ok"),
    ([row("sdpa-default", 6.0, "rival")], "not timed beside one anchor")])
def test_no_verdict_against_a_rival_has_its_reason(rivals, why):
    document = page_data.one_variant(4.5)
    document["rows"] += rivals
    assert why in section(document, "State of the search")


def test_what_failed_is_stale_or_cannot_be_read_is_listed():
    said = section(page_data.realistic(), "State of the search")
    assert "**Stale:** `v2_stale` (changed since: source, protocol)." in said and "**Timeout:** `v2_hang`: no answer after 300 s." in said
    assert "**Left out, cannot be read:** results/recorded/nvidia-h200/v9/bench.json" in said
    assert section(page_data.everything_failed(), "State of the search").count("`v") == 4
    many = on_h200(variants=[fact(f"v{number}", status="failed", reason="wrong") for number in range(20)])
    assert "12 more are broken" in section(many, "State of the search")


# Gap analysis

def test_the_gap_goes_from_time_to_floor_with_evidence_and_bounds():
    document = page_data.one_variant(4.1)
    document["variants"][0]["floors"] = {"warm": {"floor_bytes": 2.05, "floor_empty": 0.9}, "stream": {"floor_bytes": 2.3, "floor_empty": 1.0}}
    said = section(document, "Gap analysis")
    assert said.index("`v1`, measured | 4.10") < said.index("| the goal | 5 | 5 |") < said.index("`floor_bytes`: no kernel is faster | 2.05 | 2.30") < said.index("`floor_empty`")
    assert "Between time and slowest floor lie 2.0 µs warm, 50 % of the time." in said
    assert "do not add up" in said and "three times the standard deviation from run to run" in said and "an empty launch alone is 22 % of the time" in said


def test_without_a_right_and_current_variant_the_gap_says_so():
    assert "only out of date" in section(page_data.only_stale(), "Gap analysis") and "(out of date)" in section(page_data.only_stale(), "Gap analysis")
    for name in ("empty", "everything_failed", "bare", "nothing_at_all"):
        assert "there is no gap to explain" in section(page_data.EXTREMES[name](), "Gap analysis")


def test_missing_evidence_is_named():
    document = page_data.one_variant(4.5)
    document["variants"][0].update(profile=[], launch=None, instructions={}, floors={})
    said = section(document, "Gap analysis")
    assert "No rule speaks." in said and "Without a profile: " in said and "Without static facts of its launch: " in said and "`tail`" in said
    assert "Profile on NVIDIA H200 what is timed only: `v1`" in section(document, "Next actions")


# Next actions

def test_actions_mend_measure_and_prove_with_their_commands():
    document = page_data.realistic()
    document["required"] = ["v2_hang"]
    said = section(document, "Next actions")
    assert said.index("To get faster than `v2_wmma`") < said.index("More CTAs") < said.index("To know more:") < said.index("Mend `v2_hang` (required)") < said.index("Mend `v2_broken`")
    for command in ("v2_wrong", "v2_stale", "v2_wmma@STAGES=3", "selftest", "all"):
        assert f"`snakemake --cores 1 {command}`" in said


def test_a_failure_of_older_sources_is_checked_again_not_mended():
    document = on_h200(variants=[fact("v1", status="failed", reason="race", stale=True, changed=("source",))])
    said = section(document, "Next actions")
    assert "Check `v1`, failed, again on NVIDIA H200: it changed since (source). `snakemake --cores 1 v1`" in said and "Mend" not in said


def test_many_names_become_one_command():
    document = on_h200(variants=[fact(f"v{number}", status="not_run", reason="nothing recorded") for number in range(20)])
    assert "`v0`, `v1`, `v10`, `v11` and 16 more. `snakemake --cores 1 all`" in section(document, "Next actions")


def test_with_everything_there_and_nothing_to_say_there_is_nothing_to_do():
    document = page_data.one_variant(4.5)
    document.update(this_device=H200, planted=0)
    document["rows"] += [row("sdpa-default", 6.0, "rival", mode=mode) for mode in ("warm", "stream")]
    document["variants"][0].update(launch={**document["variants"][0]["launch"], "blocks": 132, "waves": 1.0}, profile=[dict(problem=GOAL, metrics={"smsp__inst_executed.sum": 1.0})])
    assert section(document, "Next actions").strip() == "Nothing: all evidence is there and current, and no rule speaks."


# The terminal

def test_the_terminal_shows_the_ladder_the_goal_and_where_more_is():
    said = shown(page_data.realistic())
    lines = said.splitlines()
    assert re.search(r"^v2_wmma +ok +4\.83\+-0\.02 +5\.41\+-0\.02 +0\.778x +1\.082x +304/304 +memory 56%$", said, re.MULTILINE), "vs goal is that of the slower mode"
    assert re.search(r"^v2_wrong +failed( +-)+ +296/300  -$", said, re.MULTILINE)
    assert re.search(r"^v2_wgmma +unsupported( +-){5}", said, re.MULTILINE)
    assert "best rival, warm: sdpa-cudnn 6.21 us; slowest floor: floor_bytes 2.050 us" in lines
    assert "Goal: Not met: v2_wmma comes closest" in said
    assert lines[-2:] == ["page:    results/report.html", "summary: results/summary.md"]


def test_long_names_stand_above_their_row():
    said = shown(page_data.many(3)).splitlines()
    place = said.index("v3_mma@BLOCK_KV=32,BLOCK_Q=64,NUM_WARPS=4,STAGES=0")
    assert said[place + 1].split()[0] == "ok"


@pytest.mark.parametrize("tty, environment, wanted", [
    (True, {"TERM": "xterm"}, True), (False, {"TERM": "xterm"}, False), (True, {"TERM": "xterm", "NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False)])
def test_colour_is_for_terminals_that_want_it(monkeypatch, tty, environment, wanted):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    stream.isatty = lambda: tty
    assert terminal.wants_colour(stream) is wanted


def test_colour_marks_statuses_and_the_verdict():
    said = shown(page_data.realistic(), colour=True)
    assert "\x1b[32mok" in said and "\x1b[31mfailed" in said and "\x1b[33mstale" in said and "\x1b[31mGoal: Not met" in said


# The scripts and the workflow

def script(name, *arguments, cwd):
    return subprocess.run([sys.executable, PROJECT / "scripts" / name, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, env={**os.environ, "LANG": "C"})


def test_the_scripts_write_and_print(tmp_path):
    (tmp_path / "gap.json").write_text(json.dumps(page_data.realistic()))
    done = script("build_summary.py", "--gap", "gap.json", "--output", "summary.md", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "summary.md").read_text() == summary.markdown(page_data.realistic())
    done = script("print_summary.py", "--gap", "gap.json", "--page", "report.html", "--summary", "summary.md", cwd=tmp_path)
    assert done.returncode == 0 and "\x1b" not in done.stdout and "v2_wmma" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["page:    report.html (not there yet: snakemake --cores 1 report.html)", "summary: summary.md"]
    (tmp_path / "gap.json").write_text("{")
    for name, more in (("build_summary.py", ("--output", "x.md")), ("print_summary.py", ())):
        done = script(name, "--gap", "gap.json", *more, cwd=tmp_path)
        assert done.returncode == 1 and done.stderr.startswith("evo-sdpa: gap.json: not valid JSON") and done.stderr.count("\n") == 1
    with pytest.raises(EvidenceError):
        summary.build(tmp_path / "absent.json", tmp_path / "x.md")


def test_the_target_is_not_snakemakes_own_summary():
    target, option = (invocation.options(["--cores", "1", *more]) for more in (["summary"], ["--summary", "all"]))
    assert invocation.starts_jobs(target) and not target.summary and list(target.targets) == ["summary"]
    assert not invocation.starts_jobs(option) and option.summary
    assert {"summary", "writeup"} <= set(plan.RULES)
    assert not re.fullmatch(variants.STEM, "summary") and not re.fullmatch(variants.STEM, "writeup")


def test_the_recorded_evidence_makes_a_summary(monkeypatch):
    from evosdpa import config, gap, gap_document, ladder

    monkeypatch.chdir(PROJECT)
    settings = config.load("config.yaml")
    found = gap.Gap(settings, ladder.Ladder(settings).names, None, "sm_90a", origins=("recorded",))
    document = json.loads(gap_document.dumps(gap_document.document(found)))
    made = summary.markdown(document)
    assert f"on {document['devices'][0]['info'].get('name')}" in made and "over SDPA (sdpa-default) " in made and "`floor_bytes`: no kernel is faster" in made
    assert max(map(len, shown(document).splitlines())) <= terminal.WIDTH


def test_snakemake_prints_the_ladder_and_makes_the_summary(workspace):
    (workspace.folder / "results" / "summary.md").unlink()
    done = workspace.snakemake("summary")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^v0_reference +ok ", done.stdout, re.MULTILINE) and re.search(r"^v1_scalar +not run", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout and "summary: results/summary.md" in done.stdout and "page:    results/report.html" in done.stdout
    first = (workspace.folder / "results" / "summary.md").read_bytes()
    assert b"`v0_reference`" in first
    (workspace.folder / "results" / "summary.md").unlink()
    workspace.run("results/summary.md")
    assert (workspace.folder / "results" / "summary.md").read_bytes() == first
    assert workspace.planned() == set()
