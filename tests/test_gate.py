"""The gate proves itself: planted wrong kernels are rejected, each by the checks meant for it; a gate that misses one is noticed."""

from __future__ import annotations

import re
import shutil

import pytest
import torch

import page_data
from evosdpa import config as configuration, machine, problem as problems, requirements, sanitizing, selftest, variants
from evosdpa.device import Held
from evosdpa.evidence import Build, Status, Verify
from evosdpa.harness.checks import SANITIZERS, Check
from evosdpa.harness.compare import compare, pytorch, reference, same_values
from evosdpa.harness.verify import POISONS
from evosdpa.page.gate import MEANING
from workspace import CONFIG, PROJECT, Workspace

PLANTED = PROJECT / "kernels" / "planted"
NAMES = sorted(path.stem for path in PLANTED.glob("*.cu"))


def with_planted(folder, names: tuple[str, ...] | None = None, config: dict | None = None) -> Workspace:
    """A workspace with v0 and the planted kernels of these names (None: all)."""
    made = Workspace.create(folder, config=config)
    target = made.folder / "kernels" / "planted"
    target.mkdir()
    for path in PLANTED.iterdir():
        if path.suffix == ".h" or names is None or path.stem in names:
            shutil.copy2(path, target / path.name)
    return made


@pytest.fixture(scope="module")
def proven(tmp_path_factory) -> Workspace:
    """A workspace in which the whole library was put through the gate on the CPU."""
    made = with_planted(tmp_path_factory.mktemp("proven") / "project", config={**CONFIG, "verify": {"seed": 7}})
    made.done = made.snakemake("selftest", timeout=900)
    return made


@pytest.fixture(scope="module")
def results(proven) -> dict[str, dict]:
    """The self-test's entries by name."""
    return {one["name"]: one for one in proven.json("results/cpu/selftest/selftest.json")["results"]}


# ---- The library

def test_the_library_covers_what_kernels_get_wrong():
    assert len(NAMES) >= 29 and "honest" in NAMES
    about = {name: variants.header(PLANTED / f"{name}.cu") for name in NAMES}
    assert {check for one in about.values() for check in one.rejected_by} == set(Check)
    assert [name for name, one in about.items() if not one.rejected_by] == ["honest"]
    assert all(one.title and one.idea for one in about.values())


def test_every_check_says_what_it_asks():
    assert set(MEANING) == set(Check)


def test_every_planted_kernel_compiles_for_hopper(tmp_path):
    """All sources in one call: what the GPU gets is the same text that the CPU's doubles are made of."""
    from evosdpa import isolate, machine
    command = [machine.tool("nvcc"), "--threads", "2", "-O1", "-std=c++17", "-gencode", "arch=compute_90a,code=sm_90a", "-I", str(PROJECT / "kernels/include"),
               "-Xcompiler", "-Wall", "-Werror", "all-warnings", "-ptx", "--output-directory", str(tmp_path), *map(str, sorted(PLANTED.glob("*.cu")))]
    outcome = isolate.run(command, 600)
    assert outcome.status == "ok", outcome.log
    assert {path.stem for path in tmp_path.glob("*.ptx")} == set(NAMES)


# ---- The gate over the library

def test_the_whole_library_is_rejected_and_the_honest_kernel_accepted(proven, results):
    assert proven.done.returncode == 0, proven.done.stdout[-3000:] + proven.done.stderr[-3000:]
    assert all(one["status"] == "ok" for one in results.values())
    on_cpu = {name for name in NAMES if "cpu" in variants.header(PLANTED / f"{name}.cu").runs_on}
    assert set(results) == on_cpu and len(on_cpu) >= 25


@pytest.mark.parametrize("name", [name for name in NAMES if "cpu" in variants.header(PLANTED / f"{name}.cu").runs_on and name != "honest"])
def test_each_is_rejected_by_the_check_meant_for_it(results, name):
    about = variants.header(PLANTED / f"{name}.cu")
    expected = [check for check in about.rejected_by if check not in SANITIZERS]
    assert results[name]["expected"] == expected and set(expected) <= set(results[name]["said"])
    assert results[name]["reason"] and results[name]["missed"] == ""


def test_the_honest_kernel_passes_with_room(results):
    assert results["honest"]["said"] == {} and results["honest"]["ratio"] <= 0.75 and results["honest"]["cases"] > 250


def test_kernels_that_cheat_only_when_timed_pass_every_case(results):
    for name in ("wrong_when_timed", "cached_when_timed"):
        assert results[name]["said"] == {"timed_output": 1} and results[name]["cases"] == results["honest"]["cases"]


def test_the_terminal_says_each_verdict(proven, results):
    said = proven.done.stdout + proven.done.stderr
    assert all(re.search(rf"^ok +{name} ", said, re.MULTILINE) for name in results)


def test_the_evidence_reaches_gap_page_and_check(proven):
    proven.run("all")
    document = proven.json("results/gap.json")
    [selftest] = document["selftests"]
    assert (selftest["device"], selftest["status"], selftest["stale"]) == ("cpu", "ok", False) and document["planted"] == len(NAMES)
    assert "cached_when_timed" in (proven.folder / "results/report.html").read_text().replace("<wbr>", "")
    assert proven.snakemake("check").returncode == 0
    assert proven.planned() == set()


SECRETLY_RIGHT = (PLANTED / "honest.cu").read_text().replace("rejected_by: []", "rejected_by: [accuracy]")


@pytest.fixture(scope="module")
def missed(tmp_path_factory) -> Workspace:
    """A workspace with a planted kernel that nothing is wrong with: no gate can reject it."""
    made = with_planted(tmp_path_factory.mktemp("missed") / "project", ("zeros",))
    (made.folder / "kernels/planted/secretly_right.cu").write_text(SECRETLY_RIGHT)
    made.done = made.snakemake("selftest")
    return made


def test_a_gate_that_misses_one_fails_the_selftest(missed):
    said = missed.done.stdout + missed.done.stderr
    assert missed.done.returncode == 1
    assert "evo-sdpa: selftest on cpu: secretly_right: accuracy does not say no" in said and re.search(r"^ok +zeros ", said, re.MULTILINE)


def test_a_gate_that_misses_one_fails_check(missed):
    missed.run("all")
    done = missed.snakemake("check")
    assert done.returncode == 1
    assert "evo-sdpa: selftest on cpu: the gate was wrong about 1 of 2 planted kernels; secretly_right" in done.stdout + done.stderr
    assert "secretly_right" in (missed.folder / "results/report.html").read_text().replace("<wbr>", "")


def test_check_asks_for_the_gates_own_evidence(proven):
    document = proven.json("results/gap.json")
    assert requirements.complaints(document) == []
    stale = {**document, "selftests": [{**document["selftests"][0], "stale": True, "changed": ["harness"]}]}
    assert requirements.complaints(stale) == ["selftest on cpu: the evidence is stale; changed since: harness"]
    [line] = requirements.complaints({**document, "selftests": []})
    assert line == "selftest on cpu: the gate has not proved itself there; run `snakemake --cores 1 selftest`"
    told_apart = [{"device": "cpu", "variant": "v0_reference", "status": "failed", "reason": "9 of 20 verdicts"}]
    assert requirements.complaints({**document, "repeatability": told_apart}) == ["v0_reference against itself on cpu: failed: 9 of 20 verdicts"]


@pytest.mark.parametrize("change, line", [
    (dict(stale=True, changed=["harness", "source"]), "the evidence is stale; changed since: harness, source"),
    (dict(status="failed", reason="9 of 20 verdicts"), "failed: 9 of 20 verdicts"),
    (dict(device="nvidia-h200"), "not measured; run `snakemake --cores 1 selftest`"),
    ({}, ""),
])
def test_check_asks_for_the_binary_against_itself_where_config_names_it(proven, change, line):
    document = {**proven.json("results/gap.json"), "repeatability_wanted": ["v0_reference", "left_out"]}
    one = dict(device="cpu", variant="v0_reference", status="ok", reason="", stale=False, changed=[])
    expected = [f"v0_reference against itself on cpu: {line}"] if line else []
    assert requirements.complaints({**document, "repeatability": [{**one, **change}]}) == expected


def required_on_h200(**more) -> dict:
    """A planted document that requires v2_wmma in both of the goal's modes; on a machine without a GPU, with recorded evidence."""
    modes = more.pop("modes", ("warm", "stream"))
    document = page_data.on_h200(rows=[page_data.row("v2_wmma", 4.8, mode=mode) for mode in modes], variants=[page_data.fact("v2_wmma")],
                                 selftests=[page_data.selftest()], required=["v2_wmma"])
    return {**document, "repeatability_wanted": ["v2_wmma"], "repeatability": [page_data.itself()], **more}


def test_recorded_evidence_of_the_leading_device_is_enough():
    assert requirements.complaints(required_on_h200()) == []
    elsewhere = requirements.complaints(required_on_h200(repeatability=[page_data.itself(device="nvidia-a100")]))
    assert elsewhere == ["v2_wmma against itself on nvidia-h200: not measured; run `snakemake --cores 1 selftest`"]
    no_longer_asked_for = required_on_h200(repeatability=[page_data.itself(stale=True, changed=("source",))], repeatability_wanted=[])
    assert requirements.complaints(no_longer_asked_for) == []


@pytest.mark.parametrize("rows, said", [
    (dict(stream=("suspect", "two clocks")), ["stream: suspect: two clocks"]),
    (dict(warm=("unstable", "1 of 5"), stream=("not_run", "no sample was taken")), ["warm: unstable: 1 of 5", "stream: not_run: no sample was taken"]),
    (dict(cold=("unstable", "1 of 5")), []),
])
def test_a_required_variant_needs_a_time_that_counts_in_every_goal_mode(rows, said):
    document = required_on_h200(modes=())
    document["rows"] = [page_data.row("v2_wmma", 4.8, mode=mode, **dict(zip(("status", "reason"), rows.get(mode, ())))) for mode in page_data.MODES]
    assert requirements.complaints(document) == [f"v2_wmma on nvidia-h200: {page_data.GOAL} {one}" for one in said]


def test_a_required_variant_whose_goal_was_not_timed_is_not_enough():
    assert requirements.complaints(required_on_h200(modes=("warm",))) == [f"v2_wmma on nvidia-h200: {page_data.GOAL} stream: no time"]
    elsewhere = required_on_h200(rows=[page_data.row("v2_wmma", 4.8, mode=mode, problem=page_data.CAUSAL) for mode in ("warm", "stream")])
    assert len(requirements.complaints(elsewhere)) == 2


def test_on_the_cpu_its_own_problem_counts(proven):
    document = proven.json("results/gap.json")
    document["rows"] = [{**row, **(dict(status="suspect", reason="faster than light") if row["name"] == "v0_reference" else {})} for row in document["rows"]]
    assert requirements.complaints(document) == ["v0_reference on cpu: b1h2s64d64-fp16 warm: suspect: faster than light"]


# ---- Tools that find what no case shows

H200 = machine.Gpu(0, "NVIDIA H200", "GPU-of-the-tests", "sm_90a", "580")


def sanitized(monkeypatch, tmp_path, tool: str | None, tools: list[str], expected: list[Check], **said: int) -> str:
    """What the gate misses of a planted kernel when only these tools can run; each that runs finds nothing."""
    monkeypatch.setattr(machine, "tool", lambda name: tool)
    monkeypatch.setattr(sanitizing, "run_tool", lambda *_: {"status": Status.OK, "errors": 0})
    config = configuration.Config.model_validate({"sanitize": {"tools": tools}})
    variant = variants.Variant("planted", "planted", PLANTED / "zeros.cu")
    result = dict(said=dict(said), reason="")
    selftest._sanitize(result, variant, Held(H200), config, Build(variant="planted"), tmp_path, expected)
    return selftest._missed(Verify(variant="planted"), result, expected, ())


def test_a_tool_that_was_not_run_is_said_to_be_that(monkeypatch, tmp_path):
    missing = sanitized(monkeypatch, tmp_path, None, ["memcheck"], [Check.MEMCHECK])
    assert missing == "memcheck was not run: compute-sanitizer was not found; it comes with the CUDA toolkit; that proves nothing"
    left_out = sanitized(monkeypatch, tmp_path, "/x/compute-sanitizer", ["memcheck"], [Check.REPEATABLE, Check.RACECHECK], repeatable=6)
    assert left_out == "racecheck was not run: racecheck is not among sanitize.tools; that proves nothing"
    both = sanitized(monkeypatch, tmp_path, "/x/compute-sanitizer", ["memcheck"], [Check.REPEATABLE, Check.RACECHECK])
    assert both.startswith("repeatable does not say no (no check says no); racecheck was not run: ")
    silent = sanitized(monkeypatch, tmp_path, "/x/compute-sanitizer", ["memcheck"], [Check.MEMCHECK])
    assert silent == "memcheck does not say no (no check says no)"


@pytest.mark.parametrize("settings, said", [
    ({"tolerance": 1.2}, "the honest kernel passes without room"),
    ({"tolerance": 0.4}, "the honest kernel is rejected"),
])
def test_a_gate_that_is_too_strict_is_noticed(tmp_path, settings, said):
    made = with_planted(tmp_path / "project", ("honest",), {**CONFIG, "verify": {"repeats": 2, "seed": 7, **settings}})
    done = made.snakemake("selftest")
    assert done.returncode == 1 and said in done.stdout + done.stderr


def test_a_loose_gate_is_noticed(tmp_path):
    made = with_planted(tmp_path / "project", ("scale_off",), {**CONFIG, "verify": {"repeats": 2, "seed": 7, "tolerance": 1000}})
    done = made.snakemake("selftest")
    assert done.returncode == 1 and "scale_off: accuracy does not say no" in done.stdout + done.stderr


def test_a_planted_kernel_that_does_not_compile_proves_nothing(tmp_path):
    made = with_planted(tmp_path / "project", ("zeros",))
    path = made.folder / "kernels/planted/zeros.cu"
    path.write_text(path.read_text() + "\nno_such_type x;\n")
    done = made.snakemake("selftest")
    assert done.returncode == 1 and "zeros: does not compile" in done.stdout + done.stderr


@pytest.mark.parametrize("old, new, said", [
    ("rejected_by: [accuracy]", "rejected_by: [luck]", ":4: rejected_by must be a list of: launch, bounds"),
    ("rejected_by: [accuracy]", "rejected_by: accuracy", ":4: rejected_by must be a list of"),
    ("rejected_by: [accuracy]", "expects: nothing", ":4: unknown key 'expects'; known: title, idea, rejected_by, where, runs_on"),
    ("rejected_by: [accuracy]", "runs_on: [tpu]", ":4: runs_on must be a list of: cpu, gpu"),
])
def test_a_planted_kernels_head_is_checked(tmp_path, old, new, said):
    made = with_planted(tmp_path / "project", ("zeros",))
    made.edit("kernels/planted/zeros.cu", old, new)
    done = made.snakemake("-n", "all")
    assert done.returncode == 1 and "kernels/planted/zeros.cu" + said in done.stderr and "Traceback" not in done.stderr


# ---- Judging an output

PROBLEM = problems.Problem(1, 2, 1, 40, 70, 64, "fp16", False)
CAUSAL = problems.Problem(1, 2, 1, 40, 70, 64, "fp16", True)


def answers(problem, seed=0):
    """Inputs, the float64 reference and PyTorch's answer."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, heads, seq, 64, generator=generator).half() for heads, seq in ((2, problem.seq_q), (1, problem.seq_kv), (1, problem.seq_kv)))
    return (q, k, v), reference(problem, q, k, v), pytorch(problem, q, k, v)


@pytest.mark.parametrize("problem", [PROBLEM, CAUSAL])
@pytest.mark.parametrize("factor, words", [(0.0, "key 3 counts too little"), (2.0, "key 3 counts too much")])
def test_the_key_that_is_wrong_is_named(problem, factor, words):
    (q, k, v), expected, own = answers(problem)
    scores = q.double() @ k.double().transpose(2, 3) * problem.scale
    if problem.causal:
        scores.masked_fill_(~torch.ones(40, 70, dtype=torch.bool).tril(), float("-inf"))
    weights = scores.softmax(-1)
    weights[..., 3] *= factor
    wrong = (weights / weights.sum(-1, keepdim=True) @ v.double()).half()
    judged = compare(problem, wrong, expected, own, 2.0, (q, k, v))
    assert judged.check is Check.ACCURACY and words in judged.reason and judged.worst["key"] == 3


def test_no_key_is_blamed_for_what_no_key_did():
    (q, k, v), expected, own = answers(PROBLEM)
    judged = compare(PROBLEM, own * 1.5, expected, own, 2.0, (q, k, v))
    assert judged.check is Check.ACCURACY and "key" not in judged.worst


def test_the_worst_place_is_named():
    (q, k, v), expected, own = answers(PROBLEM)
    own = own.clone()
    wrong = own.clone()
    wrong[0, 1, 17, 5] += 4
    judged = compare(PROBLEM, wrong, expected, own, 2.0)
    assert judged.worst == {"batch": 0, "head": 1, "row": 17, "column": 5} and "head 1, row 17, column 5" in judged.reason
    wrong[0, 0, 3, 9] = float("inf")
    judged = compare(PROBLEM, wrong, expected, own, 2.0)
    assert judged.check is Check.FINITE and "1 values are not finite, first in batch 0, head 0, row 3, column 9" in judged.reason


def test_nan_must_stay_nan_and_nowhere_else():
    (q, k, v), _, _ = answers(CAUSAL)
    k[0, 0, 12, 7] = float("nan")
    expected, own = reference(CAUSAL, q, k, v), pytorch(CAUSAL, q, k, v)
    assert bool(torch.isnan(expected[0, :, 12:]).all()) and bool(torch.isfinite(expected[0, :, :12]).all())
    right = expected.half()
    assert compare(CAUSAL, right, expected, own, 2.0).check is None
    assert compare(CAUSAL, torch.nan_to_num(right), expected, own, 2.0).check is Check.NAN
    spread = right.clone()
    spread[0, 0, 0] = float("nan")
    assert compare(CAUSAL, spread, expected, own, 2.0).check is Check.FINITE


def test_if_pytorch_itself_were_wrong_the_check_could_still_fail():
    (q, k, v), expected, own = answers(PROBLEM)
    wrong = torch.zeros_like(own)
    assert compare(PROBLEM, wrong, expected, wrong, 2.0).check is Check.ACCURACY


def test_the_two_fills_differ_and_one_is_nan():
    values = [torch.full((2,), pattern, dtype=torch.uint8).view(torch.float16) for pattern in POISONS]
    assert bool(torch.isnan(values[0]).all()) and bool(torch.isfinite(values[1]).all())


def test_nan_is_the_same_as_nan_whatever_its_bits():
    one = torch.tensor([1.0, float("nan")]).half()
    assert same_values(one, torch.tensor([1.0, -float("nan")]).half()) and not same_values(one, torch.tensor([1.0, 2.0]).half())
