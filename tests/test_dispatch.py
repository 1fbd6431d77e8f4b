"""kernels/sdpa.cu: its table is the recorded evidence, and each problem goes to the rung that the table shows to be the fastest."""

from __future__ import annotations

import re

import pytest

from evosdpa import evidence
from workspace import PROJECT, Workspace

DEVICE = PROJECT / "results/recorded/nvidia-h200"
RUNGS = ("v1_scalar", "v3_mma", "v4_mma_split", "v5_wgmma", "v8_cluster", "v9_specialised")
SOURCE = (PROJECT / "kernels/sdpa.cu").read_text()
AS_GOOD = 1.05
"""Times this close are as good as each other: what a sweep allows by default."""

HEADS_AND_ROWS = re.compile(r"b(\d+)h(\d+)s(\d+)d")


def table() -> dict[str, dict[str, float]]:
    """Microseconds, warm, by problem and rung, as the source's comment has them."""
    head = re.search(r"^//\s+(v\d+(?: +v\d+)+)$", SOURCE, re.MULTILINE)[1].split()
    rows = re.findall(r"^//     (b\d\S+)\s+((?:(?:[\d.]+|-)\s+){%d})" % len(head), SOURCE, re.MULTILINE)
    return {problem: {rung: float(time) for rung, time in zip(head, times.split()) if time != "-"} for problem, times in rows}


def waves(problem: str) -> float:
    """How often v4's CTAs of 32 rows fill an H200's 132 SMs."""
    batch, heads, rows = map(int, HEADS_AND_ROWS.match(problem).groups())
    return -(-rows // 32) * batch * heads / 132


def test_the_table_is_the_recorded_sweep():
    results = evidence.read(DEVICE / "sdpa" / "sweep.json", evidence.Sweep).results
    rows = table()
    assert set(rows) == {one["problem"] for one in results} and len(rows) >= 24
    for one in results:
        times = {rung["name"].partition("_")[0]: rung["time_us"] for rung in one["rungs"] if rung["time_us"]}
        assert rows[one["problem"]] == pytest.approx(times, rel=0.01), one["problem"]


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """For an architecture, the rung of each problem's kernel, as the built library describes it without a GPU."""
    problems = [*table(), "b2h3s1d64-fp16-kv77", "b1h1s16384d64-bf16-causal", "b3h8s333d128-bf16-hkv2", "b16h16s512d64-fp16"]

    def of(arch: str) -> dict[str, str]:
        kernels = ("v0_reference.cpp", "sdpa.cu", *(f"{name}.cu" for name in RUNGS))
        made = Workspace.create(tmp_path_factory.mktemp(arch) / "project", kernels, {
            "arch": arch, "goal": {"problem": problems[0], "time_us": 5, "modes": ["warm"]}, "problems": problems, "variants": {"sdpa": {}}})
        made.run("sdpa")
        launches = made.json(f"results/build/{arch}/sdpa/static.json")["launches"]
        return {one["problem"]: re.match(r"_ZN\d+(v\d)", one["kernel"])[1] for one in launches}
    return of


def test_on_hopper_each_problem_of_the_table_goes_to_a_rung_that_is_as_good_as_its_fastest(described):
    picked = described("sm_90a")
    for problem, times in table().items():
        assert times[picked[problem]] <= AS_GOOD * min(times.values()), problem
    assert picked["b2h3s1d64-fp16-kv77"] == picked["b3h8s333d128-bf16-hkv2"] == "v5"
    assert picked["b1h1s16384d64-bf16-causal"] == picked["b16h16s512d64-fp16"] == "v5"
    assert set(picked.values()) == {"v4", "v5", "v8", "v9"}


def test_elsewhere_v4_has_what_is_one_wave_of_its_ctas_and_v3_what_is_more_than_two(described):
    picked = described("sm_80")
    assert set(picked.values()) == {"v3", "v4"}
    for problem, times in table().items():
        if waves(problem) <= 1 or waves(problem) > 2:
            assert picked[problem] == ("v4" if waves(problem) <= 1 else "v3"), problem
            assert times[picked[problem]] <= AS_GOOD * min(times["v3"], times["v4"]), problem
