"""The whole loop for real, on v0's levers on the CPU: three generations, a generator that answers well, wrongly and with nothing new; killed
in the second generation and started again."""

from __future__ import annotations

import os
import re
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
*g2c1_????": failed"*) sed 's/title: .*/title: nothing new/' kernels/v0_reference.cpp ;;  # after the wrong one was tried
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


def children_of(workspace, generation):
    """Names of the children of a generation that are measured."""
    return [child.name for child in evidence.read(generations(workspace)[generation] / "screening.json", lineage.Screening).children if not child.dropped]


@pytest.fixture(scope="module")
def evolved(tmp_path_factory):
    """A workspace in which an evolution was killed in its second generation, with a child measured, and then went on to its end; when what was
    measured before the kill had ended; and what the second run said."""
    made = Workspace.create(tmp_path_factory.mktemp("evolved") / "project", config={**CONFIG, "evolve": EVOLVE})
    (made.folder / "answer.sh").write_text(ANSWER)
    (made.folder / "wrong.cpp").write_text(double("written_wrong", "return 0;"))
    second = generations(made)[2] / "screening.json"
    process = subprocess.Popen(made.command("evolve"), cwd=made.folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    deadline = time.monotonic() + 240

    def a_child_is_timed():
        return second.is_file() and any((made.folder / "results" / "cpu" / name / "bench.json").is_file() for name in children_of(made, 2))

    while not a_child_is_timed() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert a_child_is_timed() and not (generations(made)[2] / "population.json").exists(), "killed in the second generation"
    before = stamps(made)
    time.sleep(1.1)  # evidence is stamped to the second
    output = made.run("evolve")
    return made, before, output


def test_what_was_measured_before_the_kill_is_not_measured_again(evolved):
    workspace, before, _ = evolved
    after = stamps(workspace)
    done = {name for name in children_of(workspace, 2) if any(f"/{name}/bench.json" in path for path in before)}
    assert done and any("/gen1/finals/" in path for path in before)
    again = {path for path, ended in before.items() if after[path] != ended}
    assert not {path for path in again if not path.endswith("/verify.json")}, "no time was taken again"
    assert len(again) <= 1, "at most the step that the kill cut short between its end and Snakemake's note of it"


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
    children = {child["name"]: child for child in document.entries(lineage.read(workspace.folder / "results", "cpu"))}
    good, wrong, twin = (next(one for name, one in children.items() if name.startswith(f"v0_reference_g{number}c1_") and "@" not in name) for number in (1, 2, 3))
    assert good["status"] == "ok" and good["against"]["warm"]["ratio"] > 0
    assert wrong["status"] == "failed" and wrong["reason"] and not wrong["entered"] and wrong["times_us"] == {}
    assert twin["dropped"] == "is the same code as v0_reference" and twin["status"] == ""
    prompt = (workspace.folder / "results" / "cpu" / "evolve" / "gen3" / "prompt-1.md").read_text()
    for part in ("# Task", "sdpa_launch(const sdpa_problem", "Elites, best first:", "Tried so far", f"{wrong['name']}: failed",
                 "# What holds the parent back", "# Answer"):
        assert part in prompt, part


def test_the_same_seed_and_evidence_give_the_same_children_and_population(evolved, tmp_path):
    workspace, _, _ = evolved
    again = workspace.copy(tmp_path / "project")
    before, measured = contents(again), stamps(again)
    for place in generations(again):
        for name in FILES:
            (place / name).unlink()
    (next((again.folder / "results/cpu/evolve/sources").glob("*g1c1*"))).unlink()  # comes back from the kept answer
    jobs = again.ran("evolve")
    assert contents(again) == before and stamps(again) == measured, "as if it had never been broken off"
    assert {job.partition(":")[0] for job in jobs} <= {"propose", "screen", "select", "evolve"}


def test_a_lost_source_and_an_edited_prompt_cost_no_time(evolved, tmp_path):
    workspace, _, _ = evolved
    again = workspace.copy(tmp_path / "project")
    measured = stamps(again)
    (next((again.folder / "results/cpu/evolve/sources").glob("*g1c1*"))).unlink()
    again.edit("scripts/evosdpa/evolve/prompting.py", "Answer with one complete", "Answer with one whole")
    again.configure({**CONFIG, "evolve": {**EVOLVE, "children": 9, "generator": "cat wrong.cpp", "explore": 0.9}, "profile": {"timeout_s": 99}})
    before = contents(again)
    assert again.ran("evolve") <= {"evolve", "compile:v0_reference_g1c1"} and stamps(again) == measured and contents(again) == before, \
        "new prompts and settings are for generations to come"


def test_more_generations_go_on_from_the_last(evolved):
    workspace, _, _ = evolved
    workspace.configure({**CONFIG, "evolve": {**EVOLVE, "generations": 4}})
    output = workspace.run("-n", "evolve")
    workspace.configure({**CONFIG, "evolve": EVOLVE})
    assert "gen4/proposal.json" in output and not re.search(r"output: results/cpu/evolve/gen[0-3]/(?!closing)", output)


def test_another_seed_starts_anew_and_the_old_generations_are_no_part_of_it(evolved, tmp_path):
    workspace, _, _ = evolved
    again = workspace.copy(tmp_path / "project")
    again.configure({**CONFIG, "evolve": {**EVOLVE, "seed": 4, "generations": 1, "generator": None}})
    output = again.run("evolve")
    assert "generation 1: " in output and "generation 2: " not in output
    assert len(lineage.read(again.folder / "results", "cpu").generations) == 2


def test_another_snakemake_may_run_a_single_job_of_it(evolved):
    workspace, _, _ = evolved
    done = workspace.snakemake("-n", "--target-jobs", "finals:device=cpu,generation=1", "--allowed-rules", "finals", "--mode", "remote", "--nolock")
    assert "There is no rule named" not in done.stdout + done.stderr


def test_a_start_of_which_nothing_is_right_ends_with_one_line(tmp_path):
    made = Workspace.create(tmp_path / "project", (), {**CONFIG, "variants": {}, "evolve": {"start": ["nothing"], "generations": 1}})
    (made.folder / "kernels" / "nothing.cpp").write_text(double("nothing", "return 0;"))
    done = made.snakemake("evolve")
    assert done.returncode == 1
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("evo-sdpa: no variant is right and timed: nothing: failed, ")]
    assert "Traceback" not in done.stdout + done.stderr
    assert made.snakemake("results/gpu/evolve/gen1/population.json").stderr.count("evo-sdpa: the evolution of evolve.start is on cpu, not on gpu") == 1


def test_the_page_and_the_table_have_the_children_and_nothing_is_measured_for_them(evolved, tmp_path):
    workspace, _, output = evolved
    assert "generation 3: " in output and "1. v0_reference" in output
    again = workspace.copy(tmp_path / "project")
    measured = stamps(again)
    again.run("results/gap.csv")
    assert {path: ended for path, ended in stamps(again).items() if path in measured} == measured
    table = (again.folder / "results" / "gap.csv").read_text()
    written = next(name for name in children_of(again, 1) if "_g1c1_" in name)
    assert written in table
    [evolution] = render.read(again.folder / "results" / "gap.json")["evolution"]
    assert evolution["device"] == "cpu" and len(evolution["generations"]) == 4 and evolution["changed"] == []
    assert set(evolution["against_start"]) == set(evolution["elites"]) - {"v0_reference"}
    again.run("record")
    kept = again.folder / "results" / "recorded" / "cpu"
    assert lineage.read(again.folder / "results" / "recorded", "cpu").elites == lineage.read(again.folder / "results", "cpu").elites
    assert (kept / "evolve" / "sources" / f"{written}.cpp").is_file() and (kept / written / "verify.json").is_file()
    assert evidence.read(kept / "evolve" / "gen3" / "population.json", lineage.Population).origin == "recorded"
    timed = evidence.read(kept / "evolve" / "gen3" / "closing" / "bench.json", evidence.Bench).libraries
    assert {path.stem for path in (kept / "evolve" / "builds").glob("*.json")} == {*evolution["elites"], "v0_reference"}
    assert lineage.built(kept.parent, "cpu", "v0_reference", timed["v0_reference"]).library_sha256 == timed["v0_reference"]
    again.edit("kernels/v0_reference.cpp", "#define BLOCK_Q 8", "#define BLOCK_Q 16")
    again.run("results/gap.json")
    [evolution] = render.read(again.folder / "results" / "gap.json")["evolution"]
    assert "binary of v0_reference" in evolution["changed"], "what it found is of other code"
