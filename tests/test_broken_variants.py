"""A broken variant is a result, not a crash; an interrupted run goes on where it stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from workspace import CONFIG, Workspace, double

DOUBLES = {
    "wrong_zeros": double("writes zeros", """
        for (int64_t b = 0; b < p->batch; ++b)
            for (int64_t h = 0; h < p->heads_q; ++h)
                for (int64_t s = 0; s < p->seq_q; ++s) {
                    char *row = (char *)p->o + (b * p->o_stride[0] + h * p->o_stride[1] + s * p->o_stride[2]) * (p->dtype == 2 ? 4 : 2);
                    for (int i = 0; i < p->head_dim * (p->dtype == 2 ? 4 : 2); ++i) row[i] = 0;
                }
        return 0;"""),
    "writes_nothing": double("never writes its output", "return 0;"),
    "hangs": double("never ends", "for (volatile int i = 0;; ) { i = 1; }"),
    "crashes": double("follows a bad pointer", "*(volatile int *)16 = 1; return 0;"),
    "does_not_compile": double("has a mistake", "return no_such_name;"),
    "refuses": double("takes nothing", "return 0;").replace("{ return nullptr; }", '{ return "only takes Tuesdays"; }', 1),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Workspace:
    """A workspace with every double beside v0; `all` has run."""
    config = {**CONFIG, "verify": {"repeats": 2, "seed": 7, "timeout_s": 20}}
    made = Workspace.create(tmp_path_factory.mktemp("broken") / "project", config=config)
    for name, text in DOUBLES.items():
        (made.folder / "kernels" / f"{name}.cpp").write_text(text)
    made.output = made.run("all")
    return made


@pytest.mark.parametrize("name, status, reason", [
    ("wrong_zeros", "failed", "cases are wrong"),
    ("writes_nothing", "failed", "values of o are what memory was filled with, first in batch 0, head 0, row 0, column 0: not written"),
    ("hangs", "timeout", "did not end within 20 s in case"),
    ("crashes", "error", "crashed with SIGSEGV in case"),
    ("does_not_compile", "failed", "no_such_name"),
    ("refuses", "unsupported", "only takes Tuesdays"),
])
def test_a_broken_variant_is_shown_with_its_reason(broken, name, status, reason):
    rows = [row for row in broken.gap() if row["name"] == name]
    assert {row["status"] for row in rows} == {status}
    assert all(reason in row["reason"] for row in rows)
    assert all(row["time_us"] == "" and row["verdict"] == "" for row in rows)


def test_the_rest_goes_on(broken):
    row = next(row for row in broken.gap() if row["name"] == "v0_reference")
    assert row["status"] == "ok" and float(row["time_us"]) > 0
    page = (broken.folder / "results/report.html").read_text()
    assert all(name in page for name in DOUBLES)


def test_a_compile_error_keeps_the_compilers_words(broken):
    build = broken.json("results/build/host/does_not_compile/build.json")
    assert build["status"] == "failed" and "no_such_name" in build["log"]


def test_nothing_is_planned_after_broken_variants(broken):
    assert broken.planned() == set()


def test_check_names_the_required_variant_that_is_not_ok(broken):
    assert broken.snakemake("check").returncode == 0
    config = {**CONFIG, "verify": {"repeats": 2, "seed": 7, "timeout_s": 20}, "variants": {"wrong_zeros": {"required": True}}}
    broken.configure(config)
    done = broken.snakemake("check")
    assert done.returncode == 1
    assert "wrong_zeros on cpu: failed: " in done.stdout + done.stderr


def test_a_killed_run_is_taken_up_again(tmp_path):
    workspace = Workspace.create(tmp_path / "project")
    process = subprocess.Popen(workspace.command("results/cpu/v0_reference/verify.json"), cwd=workspace.folder, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = workspace.folder / "results/logs/cpu/v0_reference/verify.log"
    deadline = time.monotonic() + 90
    while not log.exists():
        assert time.monotonic() < deadline and process.poll() is None, "verify never started"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (workspace.folder / "results/cpu/v0_reference/verify.json").exists()
    done = workspace.snakemake("results/cpu/v0_reference/verify.json")
    assert done.returncode == 0, done.stderr
    assert "the last run was killed" in done.stderr
    assert workspace.json("results/cpu/v0_reference/verify.json")["status"] == "ok"
    assert not list((workspace.folder / "results").glob("**/.*.json.*")), "half-written evidence was left behind"
