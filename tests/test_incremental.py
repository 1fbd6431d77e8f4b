"""What runs again after a change, and what does not: each promise of the README, against the real Snakefile."""

from __future__ import annotations

import os

import pytest
import yaml

from workspace import CONFIG

V0_CHAIN = {"compile:v0_reference", "verify:v0_reference", "bench:v0_reference"}
V1_CHAIN = {"compile:v1_scalar", "inspect:v1_scalar"}
AGGREGATES = {"gap", "report", "writeup"}


def test_nothing_to_do_when_nothing_changed(workspace):
    assert workspace.planned() == set()


def test_touching_files_without_changing_them_reruns_nothing(workspace):
    for path in [*workspace.folder.glob("kernels/**/*.*"), *workspace.folder.glob("scripts/**/*.py"), workspace.folder / "config.yaml"]:
        os.utime(path)
    assert workspace.planned() == set()


def test_an_edited_cuda_source_plans_its_own_chain_and_the_aggregates(workspace):
    workspace.edit("kernels/v1_scalar.cu", "#ifndef BLOCK_Q\n", "#define EDITED 1\n#ifndef BLOCK_Q\n")
    assert workspace.planned() == V1_CHAIN | AGGREGATES


def test_an_edited_host_source_plans_its_own_chain_and_the_aggregates(workspace):
    source = workspace.folder / "kernels" / "v0_reference.cpp"
    source.write_text(source.read_text() + "\nstatic const int edited = 1;\nint use_it() { return edited; }\n")
    assert workspace.planned() == V0_CHAIN | AGGREGATES


def test_a_comment_compiles_again_and_then_stops(workspace):
    verdict = (workspace.folder / "results/cpu/v0_reference/verify.json").read_bytes()
    source = workspace.folder / "kernels" / "v0_reference.cpp"
    source.write_text(source.read_text() + "\n// a comment\n")
    ran = workspace.ran("results/cpu/v0_reference/bench.json")
    assert ran == {"compile:v0_reference"}
    assert (workspace.folder / "results/cpu/v0_reference/verify.json").read_bytes() == verdict


def test_a_comment_leaves_no_evidence_stale(workspace):
    source = workspace.folder / "kernels" / "v0_reference.cpp"
    source.write_text(source.read_text() + "\n// a comment\n")
    workspace.run("all")
    assert {row["stale"] for row in workspace.gap()} == {"False"}
    assert workspace.planned() == set()


def test_an_edited_header_reruns_its_includers_only(workspace):
    (workspace.folder / "kernels/include/sdpa_dtype.cuh").open("a").write("\nstruct Edited {};\n")
    assert workspace.planned() == V1_CHAIN | AGGREGATES


def test_the_contract_reruns_everything_that_is_built_on_it(workspace):
    header = workspace.folder / "kernels/include/sdpa.h"
    header.write_text(header.read_text().replace("#endif\n", "struct edited;\n#endif\n", 1))
    planned = workspace.planned()
    assert V0_CHAIN | V1_CHAIN | AGGREGATES <= planned


def test_a_variants_entry_in_the_config_reruns_that_variant(workspace):
    workspace.configure({**CONFIG, "variants": {"v0_reference": {"required": True}, "v1_scalar": {"flags": ["-DEDITED=1"]}}})
    assert workspace.planned() == V1_CHAIN | AGGREGATES


@pytest.mark.parametrize("section, expected", [
    ({"goal": {**CONFIG["goal"], "time_us": 6.0}}, set()),
    ({"verify": {"repeats": 3, "seed": 7}}, {"verify:v0_reference", "bench:v0_reference"}),
    ({"bench": {**CONFIG["bench"], "cpu_samples": 4}}, {"bench:v0_reference", "rival", "rivals"}),
    ({"compile": {"host_flags": ["-O2", "-std=c++17"]}},
     V0_CHAIN | V1_CHAIN | {"rival", "rivals", "compile:floor_empty_cpu", "compile:floor_bytes_cpu"}),
])
def test_a_section_of_the_config_reruns_what_it_decides(workspace, section, expected):
    workspace.configure({**CONFIG, **section})
    assert workspace.planned() == expected | AGGREGATES


@pytest.mark.parametrize("path, old, new, expected", [
    ("scripts/evosdpa/harness/compare.py", "TINY_ROW = 1e-3", "TINY_ROW = 2e-3", {"verify:v0_reference", "bench:v0_reference", "rival", "rivals"}),
    ("scripts/evosdpa/harness/timing.py", "MIN_SAMPLES = 5", "MIN_SAMPLES = 6", {"bench:v0_reference", "rival", "rivals"}),
    ("scripts/evosdpa/inspection.py", '"blocks"', '"CTAs"', {"inspect:v1_scalar"}),
    ("scripts/build_gap.py", "left out: ", "skipped: ", set()),
])
def test_changed_code_reruns_the_rules_that_use_it(workspace, path, old, new, expected):
    workspace.edit(path, old, new)
    assert workspace.planned() == expected | AGGREGATES


def test_changed_code_of_the_page_rebuilds_the_page_only(workspace):
    workspace.edit("scripts/build_report.py", "def main()", "EDITED = 1\n\n\ndef main()")
    assert workspace.planned() == {"report"}


def test_a_comment_in_a_rules_code_reruns_nothing(workspace):
    workspace.edit("scripts/evosdpa/harness/compare.py", "from __future__", "# reworded\nfrom __future__")
    assert workspace.planned() == set()


def test_a_new_variant_runs_alone(workspace):
    text = (workspace.folder / "kernels/v0_reference.cpp").read_text()
    (workspace.folder / "kernels/v9_copy.cpp").write_text(text)
    assert workspace.planned() == {"compile:v9_copy", "verify:v9_copy", "bench:v9_copy"} | AGGREGATES


def test_a_removed_variant_leaves_the_table_and_reruns_only_the_aggregates(workspace):
    (workspace.folder / "kernels/v1_scalar.cu").unlink()
    assert workspace.planned() == AGGREGATES
    workspace.run("all")
    assert "v1_scalar" not in {row["name"] for row in workspace.gap()}


def test_a_required_source_that_is_gone_is_an_error_not_old_results(workspace):
    (workspace.folder / "kernels/v0_reference.cpp").unlink()
    done = workspace.snakemake("-n", "all")
    assert done.returncode == 1
    assert "there is no kernels/v0_reference.cu or kernels/v0_reference.cpp" in done.stderr


@pytest.mark.parametrize("path", ["results/cpu/v0_reference/verify.json", "results/build/host/v0_reference/kernel.so"])
def test_deleted_evidence_is_made_again(workspace, path):
    (workspace.folder / path).unlink()
    rule = "verify:v0_reference" if path.endswith("verify.json") else "compile:v0_reference"
    assert rule in workspace.planned()


def test_one_variant_by_name_is_its_whole_chain_and_nothing_else(workspace):
    workspace.configure({**yaml.safe_load((workspace.folder / "config.yaml").read_text()), "verify": {"repeats": 4, "seed": 7}})
    assert workspace.planned("v0_reference") == {"verify:v0_reference", "bench:v0_reference"}
    assert workspace.planned("v1_scalar") == set()


def test_a_child_can_be_asked_for_by_name(workspace):
    child = "v0_reference@BLOCK_KV=32,LANES=8"
    assert workspace.planned(child) == {f"compile:{child}", f"verify:{child}", f"bench:{child}"}
    workspace.run(child)
    assert workspace.json(f"results/cpu/{child}/verify.json")["status"] == "ok"
    assert workspace.json(f"results/build/host/{child}/build.json")["levers"] == {"BLOCK_KV": "32", "LANES": "8"}
