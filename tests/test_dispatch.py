"""kernels/sdpa.cu: its table is the recorded evidence, and each problem goes to the rung that the table shows to be the fastest."""

from __future__ import annotations

import re

import pytest

from evosdpa import evidence, problem as problems
from workspace import PROJECT, Workspace

DEVICE = PROJECT / "results/recorded/nvidia-h200"
RUNGS = ("v1_scalar", "v3_mma", "v4_mma_split", "v5_wgmma", "v8_cluster", "v10_gapless", "v11_splitkv")
SOURCE = (PROJECT / "kernels/sdpa.cu").read_text()
AS_GOOD = 1.05
"""Times this close are as good as each other: what a sweep allows by default."""

UNSTEADY = set(re.findall(r"^//     (b\d\S+) .* unstable$", SOURCE, re.MULTILINE))
"""Problems whose row decides nothing."""

UNTIMED = {"b2h3s1d64-fp16-kv77": "v5", "b3h8s333d128-bf16-hkv2": "v10", "b1h1s16384d64-bf16-causal": "v11", "b16h16s512d64-fp16": "v10",
           "b2h8s1d64-fp16-hkv2-kv600": "v11", "b64h8s1d64-fp16-kv600": "v4"}
"""Problems that the table does not have, and their rungs on Hopper."""


def table() -> dict[str, dict[str, float]]:
    """Microseconds, warm, by problem and rung, as the source's comment has them."""
    head = re.search(r"^//\s+(v\d+(?: +v\d+)+)$", SOURCE, re.MULTILINE)[1].split()
    rows = re.findall(r"^//     (b\d\S+)((?: +(?:[\d.]+|-)){%d})" % len(head), SOURCE, re.MULTILINE)
    return {problem: {rung: float(time) for rung, time in zip(head, times.split()) if time != "-"} for problem, times in rows}


def test_the_table_is_the_recorded_sweep():
    results = evidence.read(DEVICE / "sdpa" / "sweep.json", evidence.Sweep).results
    rows = table()
    assert set(rows) == {one["problem"] for one in results} and len(rows) >= 24
    assert UNSTEADY == {one["problem"] for one in results if one["status"] != evidence.Status.OK}
    for one in results:
        times = {rung["name"].partition("_")[0]: rung["time_us"] for rung in one["rungs"] if rung["time_us"]}
        assert rows[one["problem"]] == pytest.approx(times, rel=0.01), one["problem"]


def decodes(name: str) -> bool:
    """Whether heads are made rows, so that the rung's own time on the problem is another: one row of queries, and heads that share keys."""
    problem = problems.parse(name)
    return problem.seq_q == 1 and not problem.causal and problem.heads_kv < problem.heads_q


def namespace(mangled: str) -> str:
    """The first name of a mangled one, _ZN<length><name>...: the rung that a kernel belongs to."""
    length = re.match(r"_ZN(\d)v", mangled)[1]
    return mangled[4:4 + int(length)]


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """For an architecture, the rung of each problem's kernel, as the built library describes it without a GPU."""
    asked = [*table(), *UNTIMED]

    def of(arch: str) -> dict[str, str]:
        kernels = ("v0_reference.cpp", "sdpa.cu", *(f"{name}.cu" for name in RUNGS))
        made = Workspace.create(tmp_path_factory.mktemp(arch) / "project", kernels, {
            "arch": arch, "goal": {"problem": asked[0], "time_us": 5, "modes": ["warm"]}, "problems": asked, "variants": {"sdpa": {}}})
        made.run("sdpa")
        launches = made.json(f"results/build/{arch}/sdpa/static.json")["launches"]
        return {one["problem"]: namespace(one["kernel"]) for one in launches}
    return of


def test_on_hopper_each_problem_of_the_table_goes_to_a_rung_that_is_as_good_as_its_fastest(described):
    picked = described("sm_90a")
    for problem, times in table().items():
        assert decodes(problem) or problem in UNSTEADY or times[picked[problem]] <= AS_GOOD * min(times.values()), problem
    assert {problem: picked[problem] for problem in UNTIMED} == UNTIMED
    assert set(picked.values()) == {"v4", "v5", "v8", "v10", "v11"}


def test_decoding_with_heads_that_share_keys_is_faster_than_any_rung_that_takes_the_heads_one_by_one():
    results = evidence.read(DEVICE / "sdpa" / "sweep.json", evidence.Sweep).results
    found = [one for one in results if decodes(one["problem"])]
    assert found and all(one["beside"]["ratio"] < 1 for one in found)


def test_elsewhere_each_problem_goes_to_v3_or_v4_whichever_the_table_shows_to_be_as_good(described):
    picked = described("sm_80")
    assert set(picked.values()) == {"v3", "v4"}
    for problem, times in table().items():
        assert decodes(problem) or problem in UNSTEADY or times[picked[problem]] <= AS_GOOD * min(times["v3"], times["v4"]), problem
