"""The whole loop for real, on v0's levers on the CPU: three generations, a generator that answers well, wrongly and with nothing new; killed
in the second generation and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from evosdpa import evidence
from evosdpa.evidence import Bench, Verify
from evosdpa.evolve import document, lineage
from evosdpa.page import render
from workspace import CONFIG, Workspace, double

EVOLVE = {"start": ["v0_reference"], "generations": 3, "children": 2, "top_k": 2, "seed": 3, "generator": "sh answer.sh", "generated": 1}

ANSWER = """prompt=$(cat)
case "$prompt" in
*"g2c1: failed"*) sed 's/title: .*/title: nothing new/' kernels/v0_reference.cpp ;;  # after the wrong one was tried
*"Tried so far"*) cat wrong.cpp ;;
*) sed 's/title: .*/title: smaller tiles/; s/#define BLOCK_KV 64/#define BLOCK_KV 16/; s/#define BLOCK_Q 8/#define BLOCK_Q 4/' kernels/v0_reference.cpp ;;
esac
"""
FILES = ("proposal.json", "screening.json", "population.json")


def generations(workspace):
    return [workspace.folder / "results" / "cpu" / "evolve" / f"gen{number}" for number in range(4)]


def contents(workspace):
    return {str(path.relative_to(workspace.folder)): path.read_bytes() for place in generations(workspace) for path in map(place.joinpath, FILES)}


def stamps(workspace):
    """When each variant's steps and each final ended."""
    return {str(path): evidence.read(path, evidence.KINDS[path.stem]).ended
            for path in sorted((workspace.folder / "results" / "cpu").rglob("*.json")) if path.stem in ("verify", "bench")}


@pytest.fixture(scope="module")
def evolved(tmp_path_factory):
    """A workspace in which an evolution was killed in its second generation and then went on to its end; what was measured before the kill."""
    made = Workspace.create(tmp_path_factory.mktemp("evolved") / "project", config={**CONFIG, "evolve": EVOLVE})
    (made.folder / "answer.sh").write_text(ANSWER)
    (made.folder / "wrong.cpp").write_text(double("written_wrong", "return 0;"))
    second = generations(made)[2] / "screening.json"
    process = subprocess.Popen(made.command("evolve"), cwd=made.folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    deadline = time.monotonic() + 240
    while not second.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)  # into the measuring of its children
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert second.is_file() and not (generations(made)[2] / "population.json").exists(), "killed in the second generation"
    before = stamps(made)
    output = made.run("evolve")
    return made, before, output


def test_what_was_measured_before_the_kill_is_not_measured_again(evolved):
    workspace, before, _ = evolved
    after = stamps(workspace)
    whole = {path: ended for path, ended in before.items() if "/gen" in path or path.endswith("v0_reference/bench.json")}
    assert whole and {path: after[path] for path in whole} == whole


def test_every_generation_is_whole_and_its_children_are_variants_like_all_others(evolved):
    workspace, _, _ = evolved
    history = lineage.read(workspace.folder / "results", "cpu")
    assert len(history.generations) == 4
    names = [child.name for screening, _ in history.generations for child in screening.children]
    assert len(names) == len(set(names))
    for screening, population in history.generations[1:]:
        drawn = [child for child in screening.children if child.operator != "generator"]
        assert drawn and all(len(child.changes) == 2 and child.parent in names for child in drawn)
        assert 1 <= len(population.elites) <= 2
    for _, population in history.generations:
        for result in population.results:
            place = workspace.folder / "results" / "cpu" / result.name
            assert evidence.read(place / "verify.json", Verify).variant == evidence.read(place / "bench.json", Bench).variant == result.name
    child = next(child for child in history.generations[1][0].children if child.operator != "generator")
    assert workspace.ran(child.name) <= {child.name}, "asked for by name, and already there"


def test_what_the_generator_wrote_went_through_the_gate(evolved):
    workspace, _, _ = evolved
    children = {child["name"]: child for child in document._children(lineage.read(workspace.folder / "results", "cpu"))}
    good, wrong, twin = (children[f"v0_reference_g{number}c1"] for number in (1, 2, 3))
    assert good["status"] == "ok" and good["against"]["warm"]["ratio"] > 0
    assert wrong["status"] == "failed" and wrong["reason"] and not wrong["entered"] and wrong["times_us"] == {}
    assert twin["dropped"] == "is the same code as v0_reference" and twin["status"] == ""
    prompt = (workspace.folder / "results" / "cpu" / "evolve" / "gen3" / "prompt-1.md").read_text()
    for part in ("# Task", "sdpa_launch(const sdpa_problem", "Elites, best first:", "Tried so far", "v0_reference_g2c1: failed", "# What holds the parent back", "# Answer"):
        assert part in prompt, part


def test_the_same_seed_and_evidence_give_the_same_children_and_population_without_a_break(evolved, tmp_path):
    workspace, _, _ = evolved
    again = workspace.copy(tmp_path / "project")
    before, measured = contents(again), stamps(again)
    for place in generations(again):
        for name in FILES:
            (place / name).unlink()
    again.run("evolve")
    assert contents(again) == before and stamps(again) == measured


def test_more_generations_go_on_from_the_last_and_another_seed_starts_anew(evolved):
    workspace, _, _ = evolved
    workspace.configure({**CONFIG, "evolve": {**EVOLVE, "generations": 4}})
    assert {job for job in workspace.planned("evolve") if job.startswith("propose")} == {"propose"}
    output = workspace.run("-n", "evolve")
    assert "gen4/proposal.json" in output and "gen3/proposal.json\n    log" not in output
    workspace.configure({**CONFIG, "evolve": {**EVOLVE, "seed": 4}})
    assert "gen1/proposal.json" in workspace.run("-n", "evolve")
    workspace.configure({**CONFIG, "evolve": EVOLVE})


def test_the_page_and_the_table_have_the_children_and_nothing_is_measured_for_them(evolved, tmp_path):
    workspace, _, output = evolved
    assert "generation 3: " in output and "1. v0_reference" in output
    again = workspace.copy(tmp_path / "project")
    measured = stamps(again)
    again.run("results/gap.csv", "--config", "only=[]")
    assert {path: ended for path, ended in stamps(again).items() if path in measured} == measured
    table = (again.folder / "results" / "gap.csv").read_text()
    assert "v0_reference_g1c1" in table
    evolution = render.read(again.folder / "results" / "gap.json")["evolution"]
    assert [one["device"] for one in evolution] == ["cpu"] and len(evolution[0]["generations"]) == 4
    again.run("record")
    kept = again.folder / "results" / "recorded" / "cpu"
    assert lineage.read(again.folder / "results" / "recorded", "cpu").elites == lineage.read(again.folder / "results", "cpu").elites
    assert (kept / "evolve" / "sources" / "v0_reference_g1c1.cpp").is_file() and (kept / "v0_reference_g1c1" / "verify.json").is_file()
    assert evidence.read(kept / "evolve" / "gen3" / "population.json", lineage.Population).origin == "recorded"
