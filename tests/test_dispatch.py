"""kernels/sdpa.cu: its table is the recorded evidence, and each problem goes to the rung that the table shows to be the fastest."""

from __future__ import annotations

import re

import pytest

from evosdpa import evidence
from workspace import PROJECT, Workspace

DEVICE = PROJECT / "results/recorded/nvidia-h200"
RUNGS = {"v1": "v1_scalar", "v3": "v3_mma", "v4": "v4_mma_split", "v5": "v5_wgmma", "v8": "v8_cluster"}
SOURCE = (PROJECT / "kernels/sdpa.cu").read_text()
AS_GOOD = 1.01
"""Two times this close are as good as each other: further apart the table must say who wins."""


def table() -> dict[str, dict[str, float]]:
    """Microseconds, warm, by problem and rung, as the source's comment has them."""
    head = re.search(r"^//\s+(v\d+(?: +v\d+)+)$", SOURCE, re.MULTILINE)[1].split()
    rows = re.findall(r"^//     (b\d\S+)\s+((?:(?:[\d.]+|-)\s+){%d})" % len(head), SOURCE, re.MULTILINE)
    return {problem: {rung: float(time) for rung, time in zip(head, times.split()) if time != "-"} for problem, times in rows}


def recorded(rung: str, problem: str) -> float | None:
    timings = evidence.read(DEVICE / RUNGS[rung] / "bench.json", evidence.Bench).timings
    return next(one.time_us for one in timings if (one.name, one.problem, one.mode) == (RUNGS[rung], problem, "warm"))


def test_the_table_is_the_recorded_evidence():
    rows = table()
    assert len(rows) >= 5
    for problem, times in rows.items():
        for rung in ("v8", "v5", "v4", "v3"):
            time = recorded(rung, problem)
            assert times.get(rung) == (time and pytest.approx(time, rel=0.03)), (problem, rung)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """For an architecture, the rung of each problem's kernel, as the built library describes it without a GPU."""
    problems = [*table(), "b2h3s1d64-fp16-kv77", "b1h1s16384d64-bf16-causal", "b3h8s333d128-bf16-hkv2", "b16h16s512d64-fp16"]

    def of(arch: str) -> dict[str, str]:
        kernels = ("v0_reference.cpp", "sdpa.cu", *(f"{name}.cu" for name in RUNGS.values()))
        made = Workspace.create(tmp_path_factory.mktemp(arch) / "project", kernels, {
            "arch": arch, "goal": {"problem": problems[0], "time_us": 5, "modes": ["warm"]}, "problems": problems, "variants": {"sdpa": {}}})
        made.run("sdpa")
        launches = made.json(f"results/build/{arch}/sdpa/static.json")["launches"]
        return {one["problem"]: re.match(r"_ZN\d+(v\d)", one["kernel"])[1] for one in launches}
    return of


def test_on_hopper_each_problem_of_the_table_goes_to_its_fastest_rung(described):
    picked = described("sm_90a")
    for problem, times in table().items():
        assert times[picked[problem]] <= AS_GOOD * min(times.values()), problem
    assert {picked[name] for name in ("b1h1s16384d64-bf16-causal", "b3h8s333d128-bf16-hkv2")} == {"v5"}
    assert picked["b2h3s1d64-fp16-kv77"] == "v8" and picked["b16h16s512d64-fp16"] == "v5", "v8 only while its CTAs fit at once"


def test_elsewhere_it_picks_between_the_rungs_that_run_there(described):
    picked = described("sm_80")
    for problem, times in table().items():
        there = {rung: time for rung, time in times.items() if rung in ("v3", "v4")}
        assert there[picked[problem]] == min(there.values()), problem
    assert set(picked.values()) == {"v3", "v4"}


