"""Recorded evidence: kept by `record`, matched to today's sources, shown stale when they changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evosdpa import config as configuration, evidence, gap, gap_document, keys, machine, variants
from evosdpa.evolve import document as evolution
from evosdpa.page import render
from evosdpa.selftest import HONEST_ROOM
from workspace import PROJECT, aggregate


@pytest.fixture
def recorded(workspace):
    """A workspace whose evidence was recorded and whose own measurements are gone."""
    workspace.run("record")
    shutil.rmtree(workspace.folder / "results/cpu")
    return workspace


def test_recorded_evidence_fills_in_labelled(recorded):
    [row] = aggregate(recorded)
    assert (row["origin"], row["stale"], row["status"]) == ("recorded", "False", "ok")
    assert float(row["time_us"]) > 0 and row["recorded_on"].endswith("Z")


def test_recorded_evidence_of_another_source_is_stale_and_not_ranked(recorded):
    recorded.edit("kernels/v0_reference.cpp", "#ifndef BLOCK_KV", "struct Edited;\n#ifndef BLOCK_KV")
    [row] = aggregate(recorded)
    assert row["stale"] == "True" and row["changed"] == "source"
    assert row["verdict"] == "" and row["vs_best_rival"] == ""


@pytest.mark.parametrize("path, old, new, part", [
    ("kernels/include/sdpa_host.h", "#pragma once", "#pragma once\nstruct Edited;", "floors, headers"),  # the floors include it too
    ("scripts/evosdpa/harness/timing.py", "MIN_SAMPLES = 5", "MIN_SAMPLES = 6", "harness"),
    ("config.yaml", "cpu_samples: 3", "cpu_samples: 4", "protocol"),
])
def test_stale_evidence_says_what_changed(recorded, path, old, new, part):
    text = (recorded.folder / path).read_text()
    if old not in text:  # a header guarded by macros instead
        old, new = "#include", "struct Edited;\n#include"
    recorded.edit(path, old, new)
    [row] = aggregate(recorded)
    assert (row["stale"], row["changed"]) == ("True", part)


def test_a_comment_leaves_recorded_evidence_current(recorded):
    source = recorded.folder / "kernels/v0_reference.cpp"
    source.write_text(source.read_text().replace("#ifndef BLOCK_KV", "// a comment\n\n#ifndef BLOCK_KV", 1))
    [row] = aggregate(recorded)
    assert row["stale"] == "False"


def test_measured_here_wins_over_recorded(workspace):
    workspace.run("record")
    [row] = aggregate(workspace)
    assert row["origin"] == "measured"


def test_record_leaves_out_libraries_and_profilers_reports(recorded):
    kept = {path.name for path in (recorded.folder / "results/recorded/cpu/v0_reference").iterdir()}
    assert kept == {"build.json", "verify.json", "bench.json", "samples.csv.gz"}


def test_record_with_nothing_measured_says_so(workspace):
    document = workspace.json("results/gap.json")
    document["provenance"] = []
    (workspace.folder / "results/gap.json").write_text(json.dumps(document))
    done = subprocess.run([sys.executable, "scripts/record_evidence.py", "--gap", "results/gap.json"], cwd=workspace.folder,
                          capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("evo-sdpa: nothing was measured on this machine")


RECORDED = sorted(path for path in (PROJECT / "results/recorded").glob("*/*/*.json") if path.parent.parent.name != "tool")
TOOL = sorted((PROJECT / "results/recorded/tool").glob("*/tool_speed.json"))


def test_this_repository_carries_evidence_from_an_h200():
    names = {path.parent.name for path in RECORDED if path.parent.parent.name == "nvidia-h200"}
    assert {"v1_scalar", "v2_wmma", "rivals"} <= names


ROUNDED_TWICE = {"v8_cluster", "v8_cluster@PDL=1", "sdpa"}
"""Variants that round partial results to 16 bits by design, and what hands problems on to them: right, but with less room than a kernel that only
rounds at the end."""
ROUNDED_ROOM = 0.9
"""Some room all the same: seeds are drawn anew each time, so without any the next run would call it wrong."""


@pytest.mark.parametrize("path", [path for path in RECORDED if path.name == "verify.json"], ids=lambda path: "/".join(path.parts[-3:]))
def test_real_variants_pass_with_the_room_that_the_honest_kernel_needs(path: Path):
    record = evidence.read(path, evidence.Verify)
    assert record.status == "ok" and record.checks == {}
    assert record.worst_ratio <= (ROUNDED_ROOM if record.variant in ROUNDED_TWICE else HONEST_ROOM)


@pytest.mark.parametrize("path", [path for path in RECORDED if path.name == "selftest.json"], ids=lambda path: path.parts[-3])
def test_the_gate_has_proved_itself_on_every_recorded_device(path: Path):
    record = evidence.read(path, evidence.Selftest)
    on_cpu = record.device == "cpu"
    meant = {path.stem for path in PROJECT.glob("kernels/planted/*.cu") if ("cpu" if on_cpu else "gpu") in variants.header(path).runs_on}
    tried = {one["name"] for one in record.results}
    assert tried == meant if on_cpu else tried <= meant  # a GPU's evidence may be older than the newest planted kernel; the page says so
    assert record.status == "ok" and all(one["status"] == "ok" and set(one["expected"]) <= set(one["said"]) for one in record.results)


def test_a_binary_was_not_told_apart_from_itself_on_the_h200():
    record = evidence.read(PROJECT / "results/recorded/nvidia-h200/v2_wmma/repeatability.json", evidence.Repeatability)
    assert {(one["kind"], one["mode"]) for one in record.counts} == {(kind, mode) for kind in ("within", "between") for mode in ("warm", "stream")}
    assert all(one["tries"] == 20 and one["same"] + one["undecided"] >= 19 for one in record.counts)


@pytest.mark.parametrize("path", TOOL, ids=lambda path: path.parent.name)
def test_recorded_speed_of_the_tool_is_whole(path: Path):
    record = evidence.read(path, evidence.ToolSpeed)
    assert record.origin == "recorded" and record.results and record.ended


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: "/".join(path.parts[-3:]))
def test_recorded_files_are_whole(path: Path):
    record = evidence.read(path, evidence.KINDS[path.stem])
    assert record.origin in ("recorded", "static") and record.key_parts and record.ended
    assert record.variant == path.parent.name
    if isinstance(record, evidence.Bench):
        assert keys.digest_file(path.with_name(record.samples_file)) == record.samples_sha256
    assert path.stat().st_size < (1536 if record.variant == "rivals" else 512) * 1024  # the rivals' is a dozen runs in one


def test_the_page_of_what_this_repository_records_is_one_small_file(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    histories, errors = evolution.found(("recorded",))
    names = list(dict.fromkeys([*configuration.load("config.yaml").variants, *evolution.measured(histories)]))
    found = gap.Gap(configuration.load("config.yaml"), names, None, machine.DEFAULT_ARCH, origins=("recorded",))
    text = render.page(json.loads(gap_document.dumps(gap_document.document(found, evolution.evolutions(found, histories)))), tmp_path)
    assert not errors and 'id="evolution"' in text and 'id="neighbour"' in text
    assert len(text.encode()) < 1_500_000


def test_ratios_between_runs_agree_with_those_that_the_sweep_formed_within_processes(monkeypatch):
    """Whatever of the recorded evidence was timed both ways, in mode warm: the intervals meet."""
    monkeypatch.chdir(PROJECT)
    variants.sources.cache_clear(), variants.floors.cache_clear()
    found = gap.Gap(configuration.load("config.yaml"), list(variants.sources()), None, machine.DEFAULT_ARCH, origins=("recorded",))
    rows = {(row["name"], row["problem"], row["best_rival"]): row for row in found.rows() if row["mode"] == "warm" and row["device"] == "nvidia-h200"}
    results = evidence.read(PROJECT / "results/recorded/nvidia-h200/sdpa/sweep.json", evidence.Sweep).results
    compared = 0
    for one in results:
        for name, rival in [("sdpa", one["rival"]), *((rung["name"], rung["rival"]) for rung in one["rungs"])]:
            row = rows.get((name, one["problem"], rival["name"])) if rival else None
            if row and row["vs_best_rival"]:
                assert row["vs_best_rival_low"] <= rival["high"] and rival["low"] <= row["vs_best_rival_high"], (name, one["problem"])
                compared += 1
    assert compared >= 20
