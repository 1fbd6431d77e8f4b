"""A variant as a PyTorch operator: the whole rule on the CPU, what it finds, its judgement, its key, the README and the page. Costs there are planted."""

from __future__ import annotations

import html
import re

import pytest
import torch
from page_data import GOAL, HOSTILE, H200, on_h200, operator as planted_operator, tried
from page_tools import browse, section, stands, whole
from test_readme import Planted, planted_in

from evosdpa import build as builds, config as configuration, evidence, gap, isolate, keys, operator, torch_op, variants
from evosdpa.evidence import Build, Operator, OperatorCheck, Status, Verify
from evosdpa.harness import operator as worker
from evosdpa.harness.operator_checks import BLOCKS, CALLS, WAYS, Block, Checks, attempt, tensors
from evosdpa.harness.operator_names import LIBRARY, OPERATOR, PYTORCH
from evosdpa.page import operators, render
from workspace import CONFIG, PROJECT, complaints

CAUSAL = f"{len([call for call in CALLS if '-causal' in call.problem]) + 4} of {len(CALLS) + 5} checks say no; call b1h8s512d64-fp16-causal: "
"""What is said on a CPU when the mask is forgotten: of the calls those with a mask, and all four blocks, but not opcheck."""


def settings(**more) -> dict:
    """The tests' configuration with v0's operator."""
    return {**CONFIG, "operator": {"variants": ["v0_reference"], **more}}


# ---- The checks

@pytest.fixture(scope="module")
def checks(built):
    return Checks("cpu", "v0_reference", str(built.folder / "results" / "build"), 5, 2.0)


def test_a_cpu_has_every_check_but_cuda_graphs(checks):
    assert set(checks.all()) == {*(call.name for call in CALLS), "opcheck", *(f"block {dtype}, {way}" for dtype in ("fp16", "bf16") for way in ("eager", "torch.compile"))}
    assert {name for name in Checks("cuda", "v", "b", 1, 2.0).all()} - set(checks.all()) == {"block fp16, CUDA graph", "block bf16, CUDA graph"}


def test_views_lie_as_they_are_called():
    by_layout = {call.layout: tensors(call, "cpu", 1) for call in CALLS}
    q, k, v = by_layout["packed"]
    assert q.stride(-1) == 1 and q.untyped_storage().data_ptr() == k.untyped_storage().data_ptr() == v.untyped_storage().data_ptr()
    assert all(one.stride(-1) != 1 for one in by_layout["turned"]) and all(one.is_contiguous() for one in by_layout["contiguous"])


@pytest.mark.parametrize("wrong, expected", [
    (lambda out: out * 1.01, "rows are wrong; the worst"), (lambda out: out.float(), "gives torch.float32"),
    (lambda out: out.transpose(1, 2).contiguous().transpose(1, 2), "which are not contiguous"), (lambda out: out * float("nan"), "values are not finite")])
def test_a_call_that_is_wrong_says_how(checks, monkeypatch, wrong, expected):
    monkeypatch.setattr(Checks, "attention", lambda self, *given, call=Checks.attention, **options: wrong(call(self, *given, **options)))
    found = attempt(checks.all()[CALLS[0].name])
    assert found["status"] == "failed" and expected in found["reason"]


def test_what_keeps_its_first_input_fails_on_the_second(checks):
    def kept(block: Block, x: torch.Tensor):
        first = block(x)
        return lambda values: first

    found = attempt(lambda: checks.block(BLOCKS[0], kept))
    assert found["status"] == "failed" and found["reason"].startswith("with other inputs: ") and found["ratio"] > 1


def test_a_graph_break_fails_and_is_named(checks, monkeypatch):
    def broken(self, *given, call=Checks.attention, **options):
        torch._dynamo.graph_break()
        return call(self, *given, **options)

    monkeypatch.setattr(Checks, "attention", broken)
    found = attempt(lambda: checks.block(BLOCKS[0], WAYS["torch.compile"]))
    assert found["status"] == "failed" and "graph_break" in found["reason"] and "\n" not in found["reason"]


def test_what_opcheck_finds_is_told_in_one_line(checks, monkeypatch):
    fake = torch.ops.evosdpa.sdpa.default
    monkeypatch.setattr(torch.library, "opcheck", lambda op, args, raise_exception: {"test_schema": "SUCCESS", "test_faketensor": RuntimeError(f"{op is fake}: strides\ndiffer")})
    assert checks.opcheck() == {"status": "failed", "reason": "test_faketensor: True: strides"}


def test_the_architecture_is_no_question_for_the_compiler(built, monkeypatch):
    """torch.compile cannot trace torch.cuda.get_device_capability, so nothing that is traced may ask for it."""
    def asked(device):
        assert not torch.compiler.is_compiling(), "asked while tracing"
        return "host"

    monkeypatch.setattr(torch_op, "_architecture", asked)
    call = torch.compile(lambda q: torch_op.sdpa(q, q, q, builds=built.folder / "results/build"), backend="aot_eager", fullgraph=True)
    q = torch.randn(1, 2, 16, 64)
    torch.testing.assert_close(call(q), torch.nn.functional.scaled_dot_product_attention(q, q, q), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("error, status", [(torch_op.UnsupportedError("too long"), "unsupported"), (worker.ContractError("gone"), "error"), (RuntimeError("no compiler\nat all"), "error")])
def test_what_is_raised_is_one_line_and_has_a_status(error, status):
    def check():
        raise error

    assert attempt(check) == {"status": status, "reason": str(error).splitlines()[0]}


# ---- The judgement

def judged(*statuses: str, outcome: isolate.Outcome | None = None, running: str = "") -> Operator:
    """A record of checks that ended so."""
    record = Operator(variant="v", checks=[OperatorCheck(name=f"check {number}", status=status, reason="" if status == "ok" else f"planted {status}")
                              for number, status in enumerate(statuses)])
    operator.judge(record, outcome or isolate.Outcome(Status.OK), running)
    return record


@pytest.mark.parametrize("statuses, status, reason", [
    (("ok", "ok"), "ok", ""), (("ok", "unsupported"), "ok", ""), (("unsupported", "unsupported"), "unsupported", "planted unsupported"), ((), "unsupported", "no check ran"),
    (("error", "ok", "failed"), "failed", "1 of 3 checks say no; check 2: planted failed"), (("ok", "error", "error"), "error", "2 of 3 checks broke; check 1: planted error")])
def test_the_status_follows_from_the_checks(statuses, status, reason):
    record = judged(*statuses)
    assert (record.status, record.reason) == (status, reason)


def test_what_is_wrong_comes_before_how_the_process_ended():
    crash = isolate.Outcome(Status.ERROR, "crashed with SIGSEGV")
    assert judged("failed", outcome=crash, running="check 1").reason == "1 of 1 checks say no; check 0: planted failed"
    assert judged("error", outcome=crash, running="check 1").reason == "crashed with SIGSEGV in check check 1"


def test_a_process_that_ends_badly_names_the_check():
    record = judged("ok", outcome=isolate.Outcome(Status.ERROR, "crashed with SIGSEGV", log="words"), running="block fp16, CUDA graph")
    assert (record.status, record.reason, record.log) == (Status.ERROR, "crashed with SIGSEGV in check block fp16, CUDA graph", "words")


def costed(process: int, name: str, host_us: float, event_us: float | None = None) -> dict:
    return dict(event="cost", process=process, name=name, calls=100, host_us=[host_us, 3 * host_us, 0.9 * host_us], event_us=[event_us] * 3 if event_us else [])


def test_costs_are_medians_within_processes_and_intervals_over_them():
    record = Operator(variant="v")
    noise = (0.98, 1.0, 1.02)
    operator.summarise(record, [costed(process, name, time_us * one, 0.9 * time_us * one) for process, one in enumerate(noise)
                                for name, time_us in ((LIBRARY, 5.0), (OPERATOR, 15.0), (PYTORCH, 20.0))])
    assert [one.name for one in record.costs] == [OPERATOR, PYTORCH, LIBRARY] and record.processes == 3
    first = record.costs[0]
    assert first.process_medians_us == [15 * one for one in noise] and first.time_us == pytest.approx(15.0, rel=1e-3) and first.ci_low_us < 15 < first.ci_high_us
    assert first.event_us == pytest.approx(13.5, rel=1e-3) and first.calls == [100] * 3
    assert record.over[PYTORCH]["ratio"] == pytest.approx(0.75) and record.over[PYTORCH]["verdict"] == "faster" and record.over[LIBRARY]["verdict"] == "slower"


def test_what_is_timed_computes_the_same(built):
    task = dict(problem="b1h2s33d64-fp16-causal", device="cpu", variant="v0_reference", builds=str(built.folder / "results/build"), seed=3)
    called = worker.callables(task)
    theirs = called[PYTORCH]()
    torch.testing.assert_close(called[OPERATOR](), theirs, atol=2e-3, rtol=2e-3)
    called[LIBRARY]().zero_()
    torch.testing.assert_close(called[LIBRARY](), theirs, atol=2e-3, rtol=2e-3)
    host_us, event_us = worker.repeat(called[LIBRARY], 2, on_gpu=False)
    assert host_us > 0 and event_us is None


@pytest.mark.parametrize("verdict, status", [("failed", "not_run"), ("unsupported", "unsupported")])
def test_a_variant_that_is_not_right_is_not_tried(monkeypatch, tmp_path, verdict, status):
    monkeypatch.chdir(PROJECT)
    made = operator.measure(variants.resolve("v0_reference"), configuration.check(settings()), "cpu", Build(variant="v0_reference"),
                            Verify(variant="v0_reference", status=verdict, reason="why"), tmp_path / "kernel.so")
    assert (made.status, made.reason) == (status, f"not tried because verify says {verdict}: why") and not made.checks and not made.costs


# ---- The key

@pytest.mark.parametrize("change, expected", [
    ({"operator": {"variants": [], "timeout_s": 5.0}}, []), ({"bench": {**CONFIG["bench"], "processes": 7}}, ["protocol"]), ({"verify": {"tolerance": 3.0}}, ["protocol"]),
    ({"bench": {**CONFIG["bench"], "cpu_problems": ["b1h2s33d64-fp16"]}}, ["protocol"])])
def test_what_decides_it_is_in_its_key(change, expected):
    built = Build(variant="v0_reference", key_parts={"source": "a"}, library_sha256="b")
    before, after = (operator.operator_parts(built, configuration.check(config), True) for config in (settings(), {**settings(), **change}))
    assert keys.changed(before, after) == expected and {"source", "binary", "harness", "operator", "judging"} <= set(before)


# ---- The whole rule

def test_the_whole_rule_on_the_cpu(workspace):
    workspace.configure(settings())
    assert "called:v0_reference" not in workspace.planned("all"), "only when it is asked for"
    workspace.run("operator")
    assert workspace.planned("operator") == set()
    path = workspace.folder / "results/cpu/v0_reference/operator.json"
    record = evidence.read(path, Operator)
    assert record.status is Status.OK, record.reason
    assert len(record.checks) == len(CALLS) + 5 and all(one.status is Status.OK for one in record.checks)
    assert all(0 <= one.ratio <= 1 and one.error >= 0 for one in record.checks if one.name != "opcheck")
    assert [one.name for one in record.costs] == [OPERATOR, PYTORCH, LIBRARY] and record.processes == 2 and record.problem == CONFIG["bench"]["cpu_problems"][0]
    assert all(len(one.process_medians_us) == 2 and one.ci_low_us < one.time_us < one.ci_high_us and one.event_us is None for one in record.costs)
    assert set(record.over) == {PYTORCH, LIBRARY} and record.over[LIBRARY]["ratio"] > 1 and record.tools["torch"] == torch.__version__ and record.seed == 7

    workspace.run("record")
    kept = evidence.read(workspace.folder / "results/recorded/cpu/v0_reference/operator.json", Operator)
    assert kept.origin == "recorded" and kept.checks == record.checks
    [shown] = workspace.json("results/gap.json")["operators"]
    assert (shown["device"], shown["variant"], shown["origin"], shown["stale"]) == ("cpu", "v0_reference", "measured", False)

    # A comment in the operator's module changes nothing; its code makes the evidence stale, and the mask forgotten there is found.
    workspace.edit("scripts/evosdpa/torch_op.py", "def struct_of(", "# a comment\ndef struct_of(")
    workspace.run("results/gap.json")
    assert [one["stale"] for one in workspace.json("results/gap.json")["operators"]] == [False]
    workspace.edit("scripts/evosdpa/torch_op.py", "causal=int(is_causal)", "causal=0")
    workspace.run("results/gap.json")
    [shown] = workspace.json("results/gap.json")["operators"]
    assert shown["stale"] and shown["changed"] == ["operator"] and shown["status"] == "ok", "nothing was measured again"
    workspace.run("operator")
    record = evidence.read(path, Operator)
    assert record.status is Status.FAILED and record.reason.startswith(CAUSAL) and "rows are wrong; the worst" in record.reason
    assert not record.costs, "what is wrong is not timed"
    workspace.run("results/report.html")
    assert f"Wrong: v0_reference on CPU ({record.device_info['name']}): {CAUSAL}" in html.unescape((workspace.folder / "results/report.html").read_text())


def test_another_librarys_operator_is_not_taken_for_this_one(built, workspace):
    """The operator finds its library by itself; one that is not the library of the rule ends in one line."""
    config = configuration.check(settings())
    made = evidence.read(workspace.folder / "results/build/host/v0_reference/build.json", Build)
    library = workspace.folder / "results/build/host/v0_reference/kernel.so"
    other = made.model_copy(update={"library_sha256": "0" * 16})
    record = operator.measure(variants.resolve("v0_reference"), config, "cpu", other, Verify(variant="v0_reference"), library)
    assert record.status is Status.ERROR and record.reason.startswith("the operator takes a library with hash ") and not record.checks


# ---- What a user gets wrong

@pytest.mark.parametrize("change, target, expected", [
    ({"variants": ["v0_refrence"]}, "all", "variant 'v0_refrence': there is no kernels/v0_refrence.cu"),
    ({"variants": []}, "operator", "config.yaml: operator.variants: is empty, so `operator` has nothing to do"),
    ({"variants": ["v1_scalar"]}, "operator", "config.yaml: operator.variants: all of them run on a GPU, and none is measured"),
    ({"variant": "v0_reference"}, "operator", "config.yaml: operator.variant: unknown key; did you mean 'variants'?"),
    ({}, "results/cpu/v1_scalar/operator.json", "v1_scalar runs on a GPU, and none is here, not on cpu"),
])
def test_what_cannot_be_tried_is_one_line(workspace, change, target, expected):
    workspace.configure(settings(**change))
    done = workspace.snakemake("-n", target)
    [line] = complaints(done)
    assert done.returncode == 1 and expected in line and "Traceback" not in done.stderr


# ---- README

@pytest.fixture
def readme_folder(tmp_path, monkeypatch):
    """A folder with planted variants, the operators of two of which are of interest."""
    with planted_in(tmp_path, monkeypatch) as made:
        with open("config.yaml", "a") as file:
            file.write("operator: {variants: [l1_right, l4_bare]}\n")
        yield made


def record_operator(planted: Planted, *checks: dict, changed: str = "", **more) -> None:
    """Record l1_right's operator."""
    entry = planted_operator(*checks, **more)
    config = configuration.load()
    built = Build(variant="l1_right", key_parts=builds.build_parts(variants.resolve("l1_right"), config, "sm_90a"))
    record = Operator(variant="l1_right", **{name: entry[name] for name in ("status", "reason", "checks", "costs", "problem", "processes", "over")})
    planted.record("l1_right", record, operator.operator_parts(built, config, False), changed)


def test_readme_lists_the_recorded_operators(readme_folder):
    assert readme_folder.block("operator").splitlines()[1:-1] == ["No operator of `l1_right` or `l4_bare` has been recorded yet."]
    record_operator(readme_folder)
    text = readme_folder.block("operator")
    assert re.search(rf"\| l1_right on Planted GPU \| `{GOAL}` \| 3 of 3 \| 15.0 \(1[\d.]+ to 1[\d.]+\) \| 18.0 \(1[\d.]+ to 1[\d.]+\) \| 5.0\d? \([45][\d.]+ to 5[\d.]*\) \| 0.83\d? \| 2031-01-02 \|", text)
    assert "`l1_right` on Planted GPU: `call fp32` is refused, no fp32 &lt;/script>" in text and "No operator of `l4_bare` has been recorded yet." in text
    assert "earlier state" not in text


def test_a_wrong_and_a_stale_operator_say_so_in_readme(readme_folder):
    record_operator(readme_folder, tried("a"), tried("b", "failed", "planted"), status="failed", reason="1 of 2 checks say no; b: planted", costs=False, changed="operator")
    text = readme_folder.block("operator")
    assert "| l1_right on Planted GPU (stale) |  | 1 of 2 |  |  |  |  | 2031-01-02 |" in text
    assert ("`l1_right` on Planted GPU: it ended as failed, 1 of 2 checks say no; b: planted; it is of an earlier state (changed since: operator).") in text
    [piece] = [one.pieces["operator"] for one in gap.Gap(configuration.load(), ["l1_right"], None, "sm_90a").chains.values()]
    assert piece.changed == ["operator"]


# ---- The page

def block(page: str) -> str:
    """The page's words about operators."""
    text = section(page, "problems")
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text[text.index('id="operator"'):])).split())


@pytest.mark.parametrize("document, said", [
    (on_h200(), "Not known on NVIDIA H200: no variant was tried there as a PyTorch operator. Name one in config.yaml, operator.variants, and run snakemake --cores 1 operator"),
    (on_h200(operators=[planted_operator()]), "Right: sdpa_planted on NVIDIA H200 passes 3 of 3 checks and refuses 1, and a call costs a Python caller 15.0 µs, "
     "0.833 × the cost of F.scaled_dot_product_attention and 3.000 × that of the launch alone."),
    (on_h200(operators=[planted_operator(stale=True, changed=("operator",))]), "Out of date (changed since: operator): right: sdpa_planted"),
    (on_h200(operators=[planted_operator(tried("a", "failed", "rows", 9.0), status="failed", reason="1 of 1 checks say no; a: rows", costs=False)]),
     "Wrong: sdpa_planted on NVIDIA H200: 1 of 1 checks say no; a: rows."),
    (on_h200(operators=[planted_operator(status="timeout", reason="did not end within 240 s in check opcheck", costs=False)]),
     "Timeout: sdpa_planted on NVIDIA H200: did not end within 240 s in check opcheck."),
    (on_h200(operators=[planted_operator(device="cpu")]), "Not known on NVIDIA H200"),
])
def test_the_answer_follows_from_the_data(document, said, cache):
    page = render.page(document, cache)
    stands(page, cache)
    assert said in block(page)


def test_the_tables_have_every_check_and_every_cost(cache):
    text = block(render.page(on_h200(operators=[planted_operator()]), cache))
    assert "torch_op.sdpa the operator 15.0 14.7–15.3 14.8" in text and "called a call, µs between events, µs the operator over it" in text
    assert " ".join(f"call fp32 ⊘ unsupported – – no fp32 {HOSTILE}".split()) in text and "block fp16, CUDA graph ✓ ok 0.49" in text


def test_what_is_stale_has_no_good_mark():
    [view] = operators.of(whole(on_h200(operators=[planted_operator(stale=True, changed=("source",))])))
    assert view.mark.text == "stale" and view.stale


def test_a_real_browser_shows_it_in_both_widths(cache, tmp_path):
    long = planted_operator(*(tried(f"call {GOAL}, packed, number {number}", "failed", f"many words {HOSTILE} " * 20, 50.0) for number in range(20)), status="failed",
                            reason="20 of 20 checks say no; " + "words " * 60, costs=False, device="cpu")
    document = on_h200(operators=[planted_operator(), long])
    document["devices"].append(dict(slug="cpu", info={"name": "planted CPU"}, origins=["measured"], newest="", oldest=""))
    page = render.page(document, cache)
    assert block(page).index("on NVIDIA H200") < block(page).index("planted CPU") and document["leading_device"] == H200
    browse(page, tmp_path)
