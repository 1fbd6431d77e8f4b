"""A cluster's GPUs: planned where there is none, asked for one a job, checked by the job, never mixed. SLURM itself: test_slurm.py."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evosdpa import benchmarking, build, config as configuration, evidence, gap, gap_document, invocation, keys, machine, plan, variants, verification
from evosdpa.evidence import Bench, Build, Timing, Verify
from evosdpa.page import render
from workspace import CONFIG, PROJECT, Workspace, complaints

H200, L4 = "nvidia-h200", "nvidia-l4"
TWO = {H200: {"arch": "sm_90a", "model": "h200", "partition": "fast", "time_min": 90, "mem_mb": 20000, "cores": 8}, L4: {"arch": "sm_89"}}
SETTINGS = {**CONFIG, "device": "auto", "cluster": TWO}


def program(folder: Path, name: str, line: str) -> dict[str, str]:
    """An environment in which a program says one line."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{line}'\n")
    (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.fixture
def workspace(tmp_path):
    """A workspace of a login node: two kinds of GPU on the cluster, none here; nothing is built."""
    return Workspace.create(tmp_path / "project", ("v1_scalar.cu", "v0_reference.cpp"), SETTINGS)


def test_one_task_over_two_kinds_of_gpu_is_planned_without_either(workspace):
    said = workspace.run("-n", "--cores", "16", "all")
    jobs = re.split(r"\n(?=(?:rule|checkpoint) )", said)
    for device, arch in ((H200, "sm_90a"), (L4, "sm_89")):
        for step in ("verify", "sanitize", "bench", "profile"):
            (job,) = [one for one in jobs if one.startswith(f"rule {step}:") and f"output: results/{device}/v1_scalar/" in one]
            assert f"results/build/{arch}/v1_scalar/kernel.so" in job and "gpu=1" in job
        assert any(one.startswith("rule rival:") and f"results/{device}/rivals/" in one for one in jobs)
        assert f"results/build/{arch}/v1_scalar/static.json" in said
    timed = next(one for one in jobs if one.startswith("rule bench:") and H200 in one)
    assert all(words in timed for words in ("threads: 8", "gpu_model=h200", "slurm_partition=fast", "runtime=90", "mem_mb=20000"))
    other = next(one for one in jobs if one.startswith("rule bench:") and L4 in one)
    assert "gpu_model" not in other and "slurm_partition" not in other and "runtime=60" in other
    on_cpu = next(one for one in jobs if one.startswith("rule bench:") and "results/cpu/" in one)
    assert "gpu=0" in on_cpu and "runtime=60" in on_cpu


def test_one_of_them_can_be_named(workspace):
    workspace.configure({**SETTINGS, "device": L4})
    said = workspace.run("-n", "v1_scalar")
    assert f"results/{L4}/" in said and f"results/{H200}/" not in said and "sm_90a" not in said


def test_jobs_for_the_cluster_do_not_start_on_the_login_node(workspace):
    done = workspace.snakemake("v1_scalar")
    assert done.returncode == 1 and complaints(done) == [f"evo-sdpa: {H200} is on the cluster that config.yaml describes, not here: add --profile "
                                                         "profiles/slurm; or measure nothing on GPUs with --config device=cpu"]
    assert not (workspace.folder / "results").exists()


@pytest.mark.parametrize("change, expected", [
    ({"cluster": {H200: {}}}, f"config.yaml: cluster.{H200}.arch: is needed, for example sm_90a; the GPU is not here to be asked"),
    ({"cluster": {H200: {"arch": "sm_90"}}}, f"config.yaml: cluster.{H200}.arch: write sm_90a: sm_90 has no wgmma, so Hopper's kernels would compile to nothing"),
    ({"cluster": {"cpu": {"arch": "sm_90a"}}}, "config.yaml: cluster.cpu.arch: the CPU has none; leave it out"),
    ({"cluster": {"NVIDIA H200": {"arch": "sm_90a"}}}, "config.yaml: cluster: 'NVIDIA H200' is no slug of a device, for example nvidia-h200 or cpu"),
    ({"cluster": {H200: {"arch": "sm_90a", "partitions": "a"}}}, f"config.yaml: cluster.{H200}.partitions: unknown key; did you mean 'partition'?"),
    ({"arch": "sm_80"}, "config.yaml: arch: with cluster each device has its own; leave it at auto"),
    ({"device": "nvidia-a100"}, f"config.yaml: device: nvidia-a100 is not one of cluster's ({H200}, {L4})"),
])
def test_what_is_wrong_about_a_cluster_is_one_line(change, expected):
    with pytest.raises(configuration.ConfigError) as caught:
        configuration.check({**SETTINGS, **change})
    assert str(caught.value) == expected


# ---- In a job

def test_a_job_on_another_gpu_says_so_and_leaves_no_evidence(tmp_path):
    environment = program(tmp_path / "bin", "nvidia-smi", "0, NVIDIA L4, GPU-planted, 8.9, 580")
    done = subprocess.run([sys.executable, "scripts/bench_rival.py", "sdpa-default", "--device", H200, "--settings", "{}", "--output", str(tmp_path / "bench.json"),
                           "--samples", str(tmp_path / "samples.csv.gz")], cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.splitlines() == [
        "evo-sdpa: this job is on the wrong machine: nvidia-h200 is asked for, and here is NVIDIA L4 (nvidia-l4); on a cluster, `cluster` in config.yaml says "
        "which model and partition it asks for"]
    assert not (tmp_path / "bench.json").exists()


def test_an_architecture_that_is_not_the_gpus_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(machine, "gpus", lambda: (machine.Gpu(0, "NVIDIA L4", "GPU-planted", "sm_89", "580"),))
    with pytest.raises(SystemExit):
        plan.Plan({"cluster": {L4: {"arch": "sm_90a"}}})
    assert capsys.readouterr().err == f"evo-sdpa: config.yaml: cluster.{L4}.arch: is sm_90a, and the NVIDIA L4 here is sm_89\n"


def test_evidence_names_the_job_and_the_gpus_that_it_was_given(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert "slurm_job" not in machine.describe(None)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert {"slurm_job": "17", "slurm_gpus": "3"}.items() <= machine.describe(None).items()


def given(executor: str = "slurm", mode: str = "DEFAULT", **more: bool) -> argparse.Namespace:
    """Snakemake's options, as far as they are looked at."""
    return argparse.Namespace(executor=executor, mode=argparse.Namespace(name=mode), **more)


def test_a_job_leaves_the_locks_of_its_run_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lock = tmp_path / ".snakemake" / "locks" / "0.input.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("the run's")
    for mode in ("REMOTE", "SUBPROCESS"):
        invocation.claim_folder(given("slurm-jobstep", mode))
    assert lock.exists()


@pytest.mark.parametrize("job, expected", [("finals:device=cpu,generation=0", ["evolve"]), ("verify:variant=v0_reference,device=cpu", [])])
def test_a_job_that_runs_alone_knows_the_rules_that_it_needs(job, expected):
    assert invocation.requested(invocation.options(["--mode", "remote", "--cores", "1", "--target-jobs", job])) == expected


@pytest.mark.parametrize("variant", ["v0_reference", "v0_reference@LANES=8", "v0_reference@BLOCK_KV=32,BLOCK_Q=4,LANES=8"])
def test_a_job_that_runs_alone_is_about_the_whole_variant(variant):
    options = invocation.options(["--mode", "remote", "--cores", "1", "--target-jobs", f"verify:device=cpu,variant={variant}"])
    invocation.mend_target_jobs(options)
    (spec,) = options.target_jobs
    assert spec.rulename == "verify" and spec.wildcards_dict == {"device": "cpu", "variant": variant}


def test_every_wildcard_of_the_workflow_is_known():
    used = re.findall(r"\{(?:wildcards\.)?(\w+)(?::q)?\}", "".join(re.findall(r"results/\{?[\w{}/.]*|\{wildcards\.\w+", (PROJECT / "Snakefile").read_text())))
    constrained = re.findall(r"^    (\w+)=", re.search(r"wildcard_constraints:\n((?:    .*\n)+)", (PROJECT / "Snakefile").read_text())[1], re.MULTILINE)
    assert set(constrained) == set(invocation.WILDCARDS) >= set(used)


# ---- Before a run

def test_jobs_of_a_run_that_was_killed_are_not_sent_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", program(tmp_path / "bin", "squeue", f"41 {tmp_path}\n7 /elsewhere\n42 {tmp_path}")["PATH"])
    with pytest.raises(SystemExit):
        invocation.check_queue(given())
    assert f"evo-sdpa: SLURM still has jobs of an earlier run in {tmp_path}: 41 42; let them end or cancel them (scancel 41 42)" in capsys.readouterr().err
    for other in (given("local"), given("slurm-jobstep", "REMOTE"), given(dryrun=True)):
        invocation.check_queue(other)
    monkeypatch.setenv("PATH", program(tmp_path / "bin", "squeue", "7 /elsewhere")["PATH"])
    invocation.check_queue(given())


def test_the_profile_without_slurm_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit):
        invocation.check_queue(given())
    assert capsys.readouterr().err.startswith("evo-sdpa: squeue does not answer; is this a node of a SLURM cluster?")


def test_plugin_and_snakemake_are_pinned_together():
    pins = [line.split("#")[0].strip() for name in ("requirements", "requirements-slurm", "constraints")
            for line in (PROJECT / "envs" / f"{name}.txt").read_text().splitlines()]
    for name in ("snakemake", "snakemake-executor-plugin-slurm", "snakemake-executor-plugin-slurm-jobstep"):
        assert sum(pin.startswith(f"{name}==") for pin in pins) == 1, name


def test_what_failed_is_not_tried_again_and_what_lost_its_node_is():
    profile = yaml.safe_load((PROJECT / "profiles" / "slurm" / "config.yaml").read_text())
    assert profile["retries"] == 0 and profile["slurm-requeue"] is True and profile["slurm-status-command"] == "squeue"


# ---- Two kinds of GPU in one run: planted evidence, no number below was measured

NOISE = (0.999, 1.0, 1.001, 0.9995, 1.0005)
FACTOR = {H200: 1.0, L4: 10.0}
ARCHS = {device: entry["arch"] for device, entry in TWO.items()}


def planted_times(name: str, time_us: float, **more) -> Timing:
    """A time of mode warm with a narrow interval."""
    return Timing(name=name, problem=CONFIG["goal"]["problem"], mode="warm", time_us=time_us, ci_low_us=0.998 * time_us, ci_high_us=1.002 * time_us,
                  process_medians_us=[one * time_us for one in NOISE], **more)


def keep(folder: str, record: evidence.Head) -> None:
    """Write planted evidence with its key."""
    record.key, record.ended = keys.combine(record.key_parts), "2031-01-02T03:04:05Z"
    if isinstance(record, Bench):
        evidence.write_bytes(f"{folder}/{evidence.SAMPLES}", b"planted")
        record.samples_file, record.samples_sha256 = evidence.SAMPLES, keys.digest(b"planted")
    evidence.write(f"{folder}/{record.kind}.json", record)


@pytest.fixture
def side_by_side(workspace, monkeypatch):
    """gap.json's content after a run that measured v1_scalar and the rivals on an H200 and, ten times slower, on an L4."""
    monkeypatch.chdir(workspace.folder)
    variants.sources.cache_clear(), variants.floors.cache_clear()
    config, variant = configuration.load(), variants.resolve("v1_scalar")
    for device, arch in ARCHS.items():
        about = {"name": device, "arch": arch}
        built = Build(variant=variant.name, arch=arch, key_parts=build.build_parts(variant, config, arch), library_sha256=f"binary for {arch}")
        keep(f"results/build/{arch}/{variant.name}", built)
        keep(f"results/{device}/{variant.name}", Verify(variant=variant.name, device=device, counts={"ok": 10}, device_info=about,
                                                         key_parts=verification.verify_parts(built, config)))
        factor = FACTOR[device]
        keep(f"results/{device}/{variant.name}", Bench(
            variant=variant.name, device=device, device_info=about, key_parts=benchmarking.bench_parts(built, config, False),
            timings=[planted_times(variant.name, 4 * factor)], anchors=[planted_times("sdpa-default", 10 * factor), planted_times("floor_bytes", 2 * factor)]))
        keep(f"results/{device}/rivals", Bench(
            variant="rivals", device=device, device_info=about, key_parts=benchmarking.bench_parts(None, config, False),
            timings=[planted_times("sdpa-default", 10 * factor), planted_times("triton-fa2", 5 * factor)],
            anchors=[planted_times("sdpa-default", 10 * factor, beside="triton-fa2")]))
    yield gap_document.document(gap.Gap(config, ["v1_scalar"], H200, ARCHS[H200], archs=ARCHS))
    variants.sources.cache_clear(), variants.floors.cache_clear()


def test_evidence_of_two_kinds_lies_in_two_folders_and_is_compared_within_each(side_by_side):
    assert not side_by_side["errors"]
    rows = {row["device"]: row for row in side_by_side["rows"] if row["name"] == "v1_scalar"}
    assert set(rows) == {H200, L4}
    for device, row in rows.items():
        assert row["status"] == "ok" and not row["stale"] and row["time_us"] == 4 * FACTOR[device]
        assert row["vs_best_rival"] == pytest.approx(0.8, rel=0.01) and row["best_rival"] == "triton-fa2"
    facts = {fact["device"]: fact["build"]["arch"] for fact in side_by_side["variants"]}
    assert facts == ARCHS


def test_a_binary_of_the_other_kind_is_not_this_ones(side_by_side, workspace):
    path = workspace.folder / f"results/{L4}/v1_scalar/bench.json"
    record = evidence.read(path, Bench)
    record.key_parts["binary"] = f"binary for {ARCHS[H200]}"
    evidence.write(path, record)
    found = gap.Gap(configuration.load(), ["v1_scalar"], H200, ARCHS[H200], archs=ARCHS)
    stale = {row["device"]: (row["stale"], row["changed"]) for row in found.rows() if row["name"] == "v1_scalar"}
    assert stale == {H200: (False, ""), L4: (True, "binary")}


def test_the_page_shows_both_side_by_side_and_ranks_neither_with_the_other(side_by_side, cache):
    document = render.whole(side_by_side)
    figures = render.goal_figures(document) + render.other_figures(document)
    shown = [{entry.row["device"] for entry in figure["ladder"].entries} for figure in figures if figure["ladder"].entries]
    assert all(len(devices) == 1 for devices in shown) and {device for devices in shown for device in devices} == {H200, L4}
    text = render.page(side_by_side, cache)
    assert f"results/{H200}/v1_scalar/bench.json" in text and f"results/{L4}/v1_scalar/bench.json" in text


def test_evidence_in_the_other_kinds_folder_is_left_out(side_by_side, workspace):
    folder = workspace.folder / "results"
    (folder / L4 / "v1_scalar" / "verify.json").write_bytes((folder / H200 / "v1_scalar" / "verify.json").read_bytes())
    found = gap.Gap(configuration.load(), ["v1_scalar"], H200, ARCHS[H200], archs=ARCHS)
    assert len(found.errors) == 1 and "does not belong here" in found.errors[0]
