"""The whole workflow as jobs of a real SLURM, on this machine with two pretend GPUs: `make test-slurm`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

import slurm_cluster
from slurm_cluster import Cluster
from workspace import CONFIG, Workspace

pytestmark = pytest.mark.slurm

PRETEND = {"model": "pretend", "partition": "test", "time_min": 10, "mem_mb": 1500, "cores": 1}
"""CPU variants whose jobs ask for a GPU each."""

CHILD = "v0_reference@BLOCK_KV=32,LANES=8"
"""What is measured: the comma in its name is one that Snakemake trips over (invocation.mend_target_jobs)."""

VERIFY, BENCH = f"rule_verify/cpu_{CHILD}", f"rule_bench/cpu_{CHILD}"

BESIDE = """import argparse
from evosdpa import invocation
invocation.check_queue(argparse.Namespace(executor='slurm', mode=argparse.Namespace(name='DEFAULT')))"""
"""What another run of this folder asks before it starts, if the first one did not hold the folder."""

STEP_S = 240.0
"""Longest wait for something that takes some ten seconds on an idle machine."""

MEASURED = (f"{CHILD}/verify", f"{CHILD}/bench", "rivals/sdpa-default/bench", "rivals/sdpa-math/bench")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A running cluster; what it needs must be here, because nobody asks for these tests by accident."""
    assert not slurm_cluster.missing(), slurm_cluster.missing()
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


class Run:
    """One snakemake at work with the profile for SLURM."""

    def __init__(self, workspace: Workspace, *targets: str, **environment: str) -> None:
        self.log = workspace.folder / f"run{len(list(workspace.folder.glob('run*.log')))}.log"
        command = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "1", *targets]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, cwd=workspace.folder, stdout=log, stderr=log, env={**os.environ, **environment})

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait while the run is alive; fails with its output when it ends before, or after STEP_S."""
        deadline = time.monotonic() + STEP_S
        while not condition():
            assert self.process.poll() is None, f"ended before {what}:\n{self.output()}"
            assert time.monotonic() < deadline, f"no {what} after {STEP_S:.0f} s:\n{self.output()}"
            time.sleep(0.2)

    def end(self) -> int:
        """Wait for the end; the exit status."""
        return self.process.wait(STEP_S)

    def output(self) -> str:
        """All that it said so far."""
        return self.log.read_text()

    def states(self, cluster: Cluster) -> dict[str, str]:
        """State of each job that it sent, by its rule."""
        known = cluster.jobs()
        return {rule: known.get(job, "") for rule, job in self.submitted().items()}

    def submitted(self) -> dict[str, str]:
        """SLURM's id of each job by its rule, for example `rule_verify/cpu_v0_reference`; a rule that was sent twice fails."""
        found = re.findall(r"submitted with SLURM jobid (\d+) \(log: \S*/slurm_logs/(\S+)/\d+\.log\)", self.output())
        assert len({rule for _, rule in found}) == len(found), f"sent twice: {found}"
        return {rule: job for job, rule in found}


def in_state(states: dict[str, str], *wanted: str) -> set[str]:
    """The rules whose jobs are in one of these states."""
    return {rule for rule, state in states.items() if state in wanted}


def restarted(cluster: Cluster, run: Run) -> set[str]:
    """The rules whose jobs SLURM started more than once."""
    return {rule for rule, job in run.submitted().items() if "Restarts=0" not in cluster.output("scontrol", "show", "job", job)}


def span(cluster: Cluster, job: str) -> tuple[str, str]:
    """When a job started and ended, as SLURM tells it."""
    said = cluster.output("scontrol", "show", "job", job)
    return re.search(r"StartTime=(\S+)", said)[1], re.search(r"EndTime=(\S+)", said)[1]


@pytest.fixture(scope="session")
def misled(cluster, tmp_path_factory):
    """A run whose job asks for an H200 and finds an L4. It is at work beside the others, because its end is slow to be seen."""
    folder = tmp_path_factory.mktemp("misled")
    workspace = Workspace.create(folder / "project", config={**CONFIG, "device": "auto", "cluster": {"nvidia-h200": {**PRETEND, "arch": "sm_90a"}}})
    smi = folder / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho '0, NVIDIA L4, GPU-pretend, 8.9, 580'\n")
    smi.chmod(0o755)
    return workspace, Run(workspace, "results/nvidia-h200/rivals/sdpa-default/bench.json", PATH=f"{smi.parent}:{os.environ['PATH']}")


@pytest.fixture(scope="session")
def finished(cluster, misled, tmp_path_factory):
    """A workspace in which a first run was interrupted, and a second one had its node drained while it verified and lost it while it timed; with
    both runs and what was seen."""
    workspace = Workspace.create(tmp_path_factory.mktemp("runs") / "project", config={**CONFIG, "only": [CHILD], "cluster": {"cpu": PRETEND}})
    seen: dict[str, Any] = {}

    first = Run(workspace, "all")
    first.until(lambda: any("compile" not in rule for rule in in_state(first.states(cluster), "RUNNING")), "job that measures")
    first.process.send_signal(signal.SIGINT)
    seen["status"] = first.end()
    deadline = time.monotonic() + STEP_S
    while in_state(first.states(cluster), "RUNNING", "PENDING", "COMPLETING") and time.monotonic() < deadline:
        time.sleep(0.2)
    seen["left"] = first.states(cluster)
    seen["built"] = {path: path.stat().st_mtime_ns for path in (workspace.folder / "results" / "build").glob("*/*/build.json")}

    second = Run(workspace, "all")
    second.until(lambda: len(in_state(second.states(cluster), "RUNNING")) == 2, "two jobs at once")
    cluster.node_is("state=drain", "reason=test")
    second.until(lambda: not in_state(second.states(cluster), "RUNNING", "COMPLETING"), "end of what ran on the drained node")
    done = {name: path.read_bytes() for name in MEASURED if (path := workspace.folder / "results" / "cpu" / f"{name}.json").exists()}
    second.until(lambda: bool(in_state(second.states(cluster), "PENDING")), "job that waits for the drained node")
    seen["queue"] = subprocess.run([sys.executable, "-c", BESIDE], cwd=workspace.folder, env={**os.environ, "PYTHONPATH": "scripts"}, capture_output=True, text=True)
    seen["drained"] = cluster.state(), second.states(cluster), done
    cluster.node_is("state=resume")

    second.until(lambda: second.states(cluster).get(BENCH) == "RUNNING", "job that times")
    cluster.node_is("state=down", "reason=test")
    second.until(lambda: second.states(cluster)[BENCH] == "PENDING", "job back in the queue")
    cluster.node_is("state=resume")
    assert second.end() == 0, second.output()
    return workspace, first, second, seen


def test_an_interrupted_run_takes_its_jobs_back(finished):
    _, first, _, seen = finished
    assert seen["status"] != 0
    assert {state for rule, state in seen["left"].items() if "compile" not in rule} == {"CANCELLED"}


def test_the_next_run_finishes_what_was_left_and_builds_nothing_again(finished):
    workspace, _, second, seen = finished
    assert seen["built"] and all(path.stat().st_mtime_ns == before for path, before in seen["built"].items())
    assert {VERIFY, BENCH} <= set(second.submitted()) and not any("compile" in rule for rule in second.submitted())
    assert {row["status"] for row in workspace.gap() if row["name"] == CHILD} == {"ok"}
    assert (workspace.folder / "results" / "report.html").is_file() and (workspace.folder / "results" / "summary.md").is_file()


def test_a_drained_node_loses_nothing_and_nothing_is_measured_twice(cluster, finished):
    workspace, _, second, seen = finished
    state, states, done = seen["drained"]
    assert state.startswith("drain") and done and in_state(states, "PENDING") and set(states.values()) == {"COMPLETED", "PENDING"}
    assert all((workspace.folder / "results" / "cpu" / f"{name}.json").read_bytes() == before for name, before in done.items())
    assert set(second.states(cluster).values()) == {"COMPLETED"}
    assert restarted(cluster, second) == {BENCH}


def test_jobs_that_a_killed_run_would_leave_are_named(finished):
    _, _, second, seen = finished
    waiting = [second.submitted()[rule] for rule in in_state(seen["drained"][1], "PENDING")]
    assert seen["queue"].returncode == 1 and f": {' '.join(waiting)}; let them end or cancel them (scancel" in seen["queue"].stderr


def test_a_job_whose_node_failed_runs_again_as_the_same_job(cluster, finished):
    workspace, _, second, _ = finished
    assert BENCH in restarted(cluster, second)
    assert workspace.json(f"results/cpu/{CHILD}/bench.json")["device_info"]["slurm_job"] == second.submitted()[BENCH]


def test_every_measuring_job_had_a_device_of_its_own_and_two_ran_at_once(cluster, finished):
    workspace, first, second, _ = finished
    told = [workspace.json(f"results/cpu/{name}.json")["device_info"] for name in MEASURED]
    jobs = {one["slurm_job"] for one in told}
    assert len(jobs) == len(MEASURED) and set(second.submitted().values()) <= jobs <= {*first.submitted().values(), *second.submitted().values()}
    spans = [(*span(cluster, one["slurm_job"]), one["slurm_gpus"]) for one in told]
    at_once = [(one, other) for number, one in enumerate(spans) for other in spans[:number] if one[0] < other[1] and other[0] < one[1]]
    assert at_once, spans
    assert all({one[2], other[2]} == {"0", "1"} for one, other in at_once), spans


def test_afterwards_there_is_nothing_to_do(finished):
    workspace = finished[0]
    assert "Nothing to be done" in workspace.run("--profile", "profiles/slurm", "all")


def test_a_job_on_the_wrong_gpu_fails_once_and_its_line_is_shown(cluster, misled):
    workspace, run = misled
    assert run.end() == 1
    assert list(run.states(cluster).values()) == ["FAILED"] and not restarted(cluster, run)
    assert "evo-sdpa: this job is on the wrong machine: nvidia-h200 is asked for, and here is NVIDIA L4 (nvidia-l4)" in run.output()
    assert not list(workspace.folder.glob("results/nvidia-h200/**/*.json"))
