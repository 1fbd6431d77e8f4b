"""One variant over many problems: the whole rule on the CPU, its judgement, its key, the README and the page. Planted times; none was measured."""

from __future__ import annotations

import html
import re

import page_data
import pytest
from page_data import H200, SWEPT, on_h200, sweep as planted_sweep, swept
from page_tools import browse, section, stands, whole
from test_readme import Planted, planted_in

from evosdpa import benchmarking, build as builds, config as configuration, evidence, gap, keys, sweep, variants
from evosdpa.config import ConfigError
from evosdpa.evidence import Build, Status, Sweep, Timing, Verify
from evosdpa.page import render, sweeps
from workspace import CONFIG, PROJECT, complaints, double

FIRST, SECOND = "b1h1s32d64-fp16", "b1h2s33d64-fp16-causal"
CHILD = "v0_reference@LANES=8"
NOISE = (0.999, 1.0, 1.001)


def settings(**more) -> dict:
    """The tests' configuration with a sweep of v0."""
    return {**CONFIG, "sweep": {"variant": "v0_reference", "beside": [CHILD], "problems": [FIRST, SECOND], "processes": 2, **more}}


# ---- The judgement

def timing(name: str, time_us: float | None, problem: str = FIRST, status: Status = Status.OK, reason: str = "", noise: tuple[float, ...] = NOISE) -> Timing:
    return Timing(name=name, problem=problem, mode="warm", status=status, reason=reason, time_us=time_us, span={"launches": 1},
                  process_medians_us=[one * time_us for one in noise] if time_us else [])


def judged(*timings: Timing, beside: tuple[str, ...] = ("rung", "other"), **more) -> Sweep:
    """A sweep of `own` with these times."""
    found = list(dict.fromkeys(one.problem for one in timings))
    record = Sweep(variant="own", timings=list(timings), problems=found, rivals=["sdpa-cudnn", "triton-fa2"], beside_limit=1.05, rival_limit=1.1, **more)
    have = {(one.name, one.problem) for one in timings}
    for problem in found:
        for name in record.rivals:
            if (name, problem) not in have:
                record.timings.append(timing(name, None, problem, Status.UNSUPPORTED, f"{name} is not installed"))
    sweep.judge(record, list(beside))
    return record


def test_the_fastest_of_each_kind_is_what_a_time_is_held_against():
    record = judged(timing("own", 10.0), timing("rung", 9.8), timing("other", 30.0), timing("sdpa-cudnn", 12.0), timing("triton-fa2", 11.0))
    [one] = record.results
    assert record.status is Status.OK and record.reason == "" and one["met_beside"] is True and one["met_rival"] is True
    assert one["beside"]["name"] == "rung" and one["beside"]["ratio"] == pytest.approx(10 / 9.8) and one["beside"]["verdict"] == "slower"
    assert one["rival"]["name"] == "triton-fa2" and one["rival"]["verdict"] == "faster" and one["cudnn"]["ratio"] == pytest.approx(10 / 12)
    assert one["tflops"] == pytest.approx(4 * 64 * 32 * 32 / 10 / 1e6)
    assert {rung["name"]: (rung["rival"]["ratio"], rung["cudnn"]["ratio"]) for rung in one["rungs"]} == {
        "rung": (pytest.approx(9.8 / 11), pytest.approx(9.8 / 12)), "other": (pytest.approx(30 / 11), pytest.approx(30 / 12))}
    assert all(one.span == {} for one in record.timings if one.status is Status.OK)


def test_slower_than_a_rung_fails_and_the_worst_problem_is_named():
    record = judged(timing("own", 10.6), timing("rung", 10.0), timing("sdpa-cudnn", 20.0), timing("own", 13.0, SECOND), timing("rung", 13.0, SECOND),
                    timing("sdpa-cudnn", 10.0, SECOND))
    assert record.status is Status.FAILED
    assert record.reason == f"{SECOND}: 1.300 of the time of sdpa-cudnn, the best rival; at most 1.1 is wanted; over a limit on 2 of 2 problems"
    assert [(one["met_beside"], one["met_rival"]) for one in record.results] == [(False, True), (True, False)]
    assert "rung, the best variant beside it; at most 1.05" in judged(timing("own", 10.6), timing("rung", 10.0), timing("sdpa-cudnn", 20.0)).reason


def test_a_limit_is_held_against_the_ratio_not_its_interval():
    wide = timing("own", 10.6, noise=(0.8, 1.0, 1.25))
    record = judged(wide, timing("rung", 10.0), timing("sdpa-cudnn", 20.0))
    assert record.results[0]["beside"]["verdict"] == "undecided" and record.status is Status.FAILED


def test_what_has_no_right_time_is_never_the_best_and_says_why():
    record = judged(timing("own", 10.0), timing("rung", 1.0, status=Status.FAILED, reason="output of a timed launch: wrong"), timing("other", 10.0),
                    timing("sdpa-cudnn", 10.0))
    [one] = record.results
    assert record.status is Status.OK and one["beside"]["name"] == "other" and one["rungs"][0]["status"] == "failed" and one["rungs"][0]["rival"] is None
    assert one["untimed"] == {"triton-fa2": "unsupported: triton-fa2 is not installed"}


def test_without_any_rival_or_rung_a_problem_is_not_judged():
    record = judged(timing("own", 10.0), timing("rung", None, status=Status.UNSUPPORTED, reason="too long"), beside=("rung",))
    assert record.status is Status.NOT_RUN and record.reason == f"{FIRST}: no variant beside it has a right time to compare with; so on 1 of 1 problems"
    [one] = record.results
    assert one["met_beside"] is None and one["met_rival"] is None and one["cudnn"] is None and one["rungs"][0]["reason"] == "too long"


@pytest.mark.parametrize("status, reason, words", [
    (Status.UNSUPPORTED, "no", f"no right time on 1 of 2 problems; {SECOND}: no"), (Status.FAILED, "wrong", f"{SECOND}: wrong")])
def test_a_problem_without_a_time_is_named(status, reason, words):
    record = judged(timing("own", 10.0), timing("rung", 10.0), timing("sdpa-cudnn", 10.0), timing("own", None, SECOND, status, reason), timing("rung", 10.0, SECOND))
    assert record.status is status and record.reason == words and record.results[1]["beside"] is None


def test_times_of_other_processes_are_not_compared():
    [one] = judged(timing("own", 10.0), timing("rung", 9.0, noise=NOISE[:2]), timing("sdpa-cudnn", 12.0)).results
    assert one["beside"] is None and one["met_beside"] is None


def test_faster_than_a_floor_is_suspect(monkeypatch):
    monkeypatch.setattr(variants, "floors", lambda: ("floor_bytes",))
    record = judged(timing("own", 1.0), timing("rung", 10.0), timing("sdpa-cudnn", 12.0), timing("floor_bytes", 2.0))
    assert record.status is Status.SUSPECT and "faster than floor_bytes" in record.reason and record.results[0]["beside"] is None


def test_a_measurement_that_broke_stays_broken():
    record = judged(timing("own", 10.0), timing("rung", 5.0), timing("sdpa-cudnn", 12.0), status=Status.TIMEOUT, reason="measuring process: no answer")
    assert record.status is Status.TIMEOUT and record.reason.startswith("measuring process") and record.results


# ---- The key

def parts(config: dict, rung: dict | None = None) -> dict[str, str]:
    built = Build(variant="v0_reference", key_parts={"source": "a"}, library_sha256="b")
    beside = Build(variant=CHILD, key_parts={"source": "a", "levers": "LANES=8", **(rung or {})}, library_sha256="c")
    return sweep.sweep_parts(built, [beside], configuration.check(config), True)


@pytest.mark.parametrize("change, rung, expected", [
    ({"problems": [FIRST]}, None, []), ({"timeout_s": 5.0}, None, []), ({"processes": 4}, None, ["protocol"]), ({"rival_limit": 1.2}, None, ["protocol"]),
    ({"rivals": ["sdpa-math"]}, None, ["protocol"]), ({}, {"source": "z"}, [f"{CHILD}'s source"]), ({}, {"compiler": "z"}, [])])
def test_what_decides_a_sweep_is_in_its_key(monkeypatch, change, rung, expected):
    monkeypatch.chdir(PROJECT)
    assert keys.changed(parts(settings()), parts(settings(**change), rung)) == expected


def test_a_benchs_key_knows_nothing_of_a_sweep(monkeypatch):
    monkeypatch.chdir(PROJECT)
    assert all(benchmarking.bench_parts(None, configuration.check(CONFIG), cpu) == benchmarking.bench_parts(None, configuration.check(settings()), cpu)
               for cpu in (True, False))


def test_rivals_of_another_kind_of_device_are_left_out():
    config = configuration.check(settings())
    assert sweep.rivals(config, True) == ["sdpa-default"] and "sdpa-cudnn" in sweep.rivals(config, False)
    assert sweep.rivals(configuration.check(settings(rivals=["triton-fa2"])), True) == ["sdpa-default"]


@pytest.mark.parametrize("verdict, status", [("failed", "not_run"), ("unsupported", "unsupported")])
def test_a_variant_that_is_not_right_is_not_timed(monkeypatch, tmp_path, verdict, status):
    monkeypatch.chdir(PROJECT)
    made = sweep.measure(variants.resolve("v0_reference"), configuration.check(settings()), "cpu", Build(variant="v0_reference"),
                         Verify(variant="v0_reference", status=verdict, reason="why"), tmp_path / "kernel.so", {}, [], tmp_path / evidence.SWEEP_SAMPLES)
    assert (made.status, made.reason) == (status, f"not timed because verify says {verdict}: why") and not made.results
    assert keys.digest_file(tmp_path / evidence.SWEEP_SAMPLES) == made.samples_sha256


# ---- The whole rule

def test_the_whole_rule_on_the_cpu(workspace):
    (workspace.folder / "kernels/wrong_one.cpp").write_text(double("answers nothing", "return 0;"))
    (workspace.folder / "kernels/v0_copy.cpp").write_text((workspace.folder / "kernels/v0_reference.cpp").read_text())
    workspace.configure(settings(beside=[CHILD, "wrong_one", "v0_copy"], rivals=["sdpa-default", "sdpa-math", "triton-fa2"], rival_limit=1000.0, beside_limit=1000.0))
    assert "swept:v0_reference" not in workspace.planned("all"), "only when it is asked for"
    workspace.run("sweep")
    assert workspace.planned("sweep") == set()
    path = workspace.folder / "results/cpu/v0_reference/sweep.json"
    record = evidence.read(path, Sweep)
    evidence.check_samples(path, record)
    assert record.status is Status.OK, record.reason
    assert [one["problem"] for one in record.results] == [FIRST, SECOND] and record.rivals == ["sdpa-default", "sdpa-math"] and record.processes == 2
    assert list(record.left_out) == ["wrong_one"] and "verify says failed" in record.left_out["wrong_one"]
    for one in record.results:
        assert one["beside"]["name"] in (CHILD, "v0_copy") and one["rival"]["name"] in record.rivals and one["met_beside"] and one["met_rival"]
        assert [rung["status"] for rung in one["rungs"]] == ["ok", "not_run", "ok"]
    assert {row[1] for row in benchmarking.read_samples(path.with_name(evidence.SWEEP_SAMPLES))} == {
        "v0_reference", CHILD, "v0_copy", "sdpa-default", "sdpa-math", "floor_empty_cpu", "floor_bytes_cpu"}

    workspace.run("record")
    kept = workspace.folder / "results/recorded/cpu/v0_reference/sweep.json"
    evidence.check_samples(kept, evidence.read(kept, Sweep))
    [shown] = workspace.json("results/gap.json")["sweeps"]
    assert (shown["device"], shown["variant"], shown["origin"], shown["stale"]) == ("cpu", "v0_reference", "measured", False)

    # A comment in a rung changes nothing; its code does, and says whose.
    copy = workspace.folder / "kernels/v0_copy.cpp"
    copy.write_text(copy.read_text() + "\n// a comment\n")
    workspace.run("results/gap.json")
    assert [one["stale"] for one in workspace.json("results/gap.json")["sweeps"]] == [False]
    copy.write_text(copy.read_text() + "\nint edited() { return 1; }\n")
    workspace.run("results/gap.json")
    [shown] = workspace.json("results/gap.json")["sweeps"]
    assert shown["stale"] and set(shown["changed"]) <= {"v0_copy's source", "v0_copy's binary"}
    path.with_name(evidence.SWEEP_SAMPLES).write_bytes(b"")
    workspace.run("-R", "gap", "--", "results/gap.json")
    assert any("sweep.csv.gz: is not the file that sweep.json describes" in one for one in workspace.json("results/gap.json")["errors"])


# ---- What a user gets wrong

@pytest.mark.parametrize("change, expected", [
    ({"problems": [FIRST, "b1h1s32-fp16"]}, "config.yaml: sweep.problems.1: 'b1h1s32-fp16' is not a problem name"),
    ({"problems": []}, "config.yaml: sweep.problems: is empty, and sweep.variant is v0_reference"),
    ({"beside": []}, "config.yaml: sweep.beside: is empty, and sweep.variant is v0_reference"),
    ({"beside": [CHILD, CHILD]}, f"config.yaml: sweep.beside: {CHILD} is listed twice"),
    ({"beside": ["v0_reference"]}, "config.yaml: sweep.beside: v0_reference is sweep.variant itself"),
    ({"rivals": ["sdpa-cudn"]}, "config.yaml: sweep.rivals: 'sdpa-cudn' is no rival; did you mean 'sdpa-cudnn'?"),
    ({"proceses": 3}, "config.yaml: sweep.proceses: unknown key; did you mean 'processes'?"),
])
def test_a_section_that_cannot_be_used_is_one_line(change, expected):
    with pytest.raises(ConfigError) as caught:
        configuration.check(settings(**change))
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)


@pytest.mark.parametrize("change, target, expected", [
    ({"variant": "v0_refrence"}, "sweep", "variant 'v0_refrence': there is no kernels/v0_refrence.cu"),
    ({"beside": ["v0_referenc"]}, "all", "variant 'v0_referenc': there is no kernels/v0_referenc.cu"),
    ({"beside": ["v1_scalar"]}, "all", "config.yaml: sweep.beside: v1_scalar runs on GPUs, and v0_reference does not"),
    ({"variant": None}, "sweep", "config.yaml: sweep.variant: is not given, so `sweep` has nothing to do"),
    ({"variant": "v1_scalar", "beside": ["v1_scalar@BLOCK_Q=32"]}, "sweep", "config.yaml: sweep.variant: v1_scalar runs on a GPU, and none is measured"),
    ({}, f"results/cpu/{CHILD}/sweep.json", f"config.yaml: sweep.variant: is v0_reference, so there is no sweep of {CHILD}"),
])
def test_what_cannot_be_swept_is_one_line(workspace, change, target, expected):
    workspace.configure(settings(**change))
    done = workspace.snakemake("-n", target)
    [line] = complaints(done)
    assert done.returncode == 1 and expected in line and "Traceback" not in done.stderr


# ---- README

@pytest.fixture
def readme_folder(tmp_path, monkeypatch):
    """A folder with two planted variants of which one is swept."""
    with planted_in(tmp_path, monkeypatch) as made:
        with open("config.yaml", "a") as file:
            file.write(f"sweep: {{variant: l1_right, beside: [l2_wrong, l4_bare], problems: [{FIRST}, {SECOND}]}}\n")
        yield made


def record_sweep(planted: Planted, *timings: Timing, changed: str = "", **more) -> None:
    """Record a sweep of l1_right with these times."""
    config = configuration.load()
    built = {name: Build(variant=name, key_parts=builds.build_parts(variants.resolve(name), config, "sm_90a")) for name in ("l1_right", "l2_wrong", "l4_bare")}
    record = Sweep(variant="l1_right", timings=[one.model_copy() for one in timings], problems=[FIRST, SECOND], rivals=["sdpa-cudnn"], beside_limit=1.05, rival_limit=1.1, processes=3, **more)
    sweep.judge(record, ["l2_wrong", "l4_bare"])
    planted.record("l1_right", record, sweep.sweep_parts(built["l1_right"], [built["l2_wrong"], built["l4_bare"]], config, False), changed)


TIMES = [timing("l1_right", 10.0), timing("l4_bare", 10.0), timing("sdpa-cudnn", 12.5), timing("l1_right", 30.0, SECOND), timing("l4_bare", 20.0, SECOND),
         timing("sdpa-cudnn", None, SECOND, Status.UNSUPPORTED, "no | odd lengths")]


def test_readme_lists_the_recorded_sweep(readme_folder):
    assert readme_folder.block("sweep").splitlines()[1] == "No sweep of `l1_right` has been recorded yet."
    record_sweep(readme_folder, *TIMES, left_out={"l2_wrong": "verify says failed"})
    text = readme_folder.block("sweep")
    assert f"It ended as failed: {SECOND}: 1.500 of the time of l4_bare, the best variant beside it; at most 1.05 is wanted" in text
    assert ("`l1_right` on one Planted GPU, 2031-01-02, warm, at least 3 processes each: at most 1.05 times the best of the variants beside it on 1 of 2 problems, "
            "at most 1.1 times the best rival on 1 of 1, of 2 in all. Rivals: sdpa-cudnn.") in text and "earlier state" not in text
    assert re.search(rf"\| `{FIRST}` \| 10.0\d* \| [\d.e-]+ \| l4_bare \| 1.000 \| sdpa-cudnn \| 0.800 \| yes \|", text)
    assert re.search(rf"\| `{SECOND}` \| 30.0\d* \| [\d.e-]+ \| l4_bare \| 1.500 \|  \|  \| no \|", text)
    assert f"| `{FIRST}` | 0.800 | not_run | 0.800 |" in text, "each variant over sdpa-cudnn"
    assert "Left out: `l2_wrong` (verify says failed)." in text and "sdpa-cudnn (unsupported: no \\| odd lengths)" in text


def test_a_stale_sweep_says_so_in_readme(readme_folder):
    record_sweep(readme_folder, *TIMES, changed="l4_bare's source")
    assert "It is of an earlier state (changed since: l4_bare's source)." in readme_folder.block("sweep")
    [piece] = [one.pieces["sweep"] for one in gap.Gap(configuration.load(), ["l1_right"], None, "sm_90a").chains.values()]
    assert piece.changed == ["l4_bare's source"]


# ---- The page

def block(document) -> str:
    """The page's words about sweeps."""
    text = section(document, "problems")
    return html.unescape(re.sub(r"<svg.*?</svg>|<script.*?</script>", "", text[text.index('id="sweep"'):], flags=re.DOTALL))


@pytest.mark.parametrize("document, said", [
    (on_h200(), "Not measured on NVIDIA H200: no variant was timed there over many problems."),
    (on_h200(sweeps=[planted_sweep()]), "Yes: sdpa_planted on NVIDIA H200 takes at most 1.05\u202f× the time of the best variant beside it on 8 of 8 problems"),
    (on_h200(sweeps=[planted_sweep(stale=True, changed=("v5_planted",))]), "Out of date (changed since: v5_planted): yes: sdpa_planted"),
    (on_h200(sweeps=[planted_sweep(swept(SWEPT[0], near=1.2), swept(SWEPT[1], fast=1.2))]), "Furthest over a limit: b1h8s512d64-fp16, 1.200\u202f× the time of v5_planted."),
    (on_h200(sweeps=[planted_sweep(swept(SWEPT[0]), swept(SWEPT[1], status="unsupported", time_us=10.0, beside=None, rival=None, met_beside=None, met_rival=None))]),
     "Wherever it could be judged: sdpa_planted on NVIDIA H200 takes at most 1.05\u202f× the time of the best variant beside it on 1 of 1 problem, and at most "
     "1.1\u202f× that of the best rival on 1 of 1, of 2 in all. No right time on 1 problem."),
    (on_h200(sweeps=[planted_sweep(swept(SWEPT[0], rival=None, met_rival=None))]), "Wherever it could be judged: sdpa_planted on NVIDIA H200"),
    (on_h200(sweeps=[{**planted_sweep(), "results": [], "status": "not_run", "reason": "verify says failed"}]),
     "Not known for sdpa_planted on NVIDIA H200: not run, verify says failed."),
])
def test_the_answer_follows_from_the_data(document, said, cache):
    page = render.page(document, cache)
    stands(page, cache)
    assert said in block(page)


def test_how_a_sweep_ended_is_said(cache):
    broken = on_h200(sweeps=[planted_sweep(status="timeout", reason="measuring process: no answer after 900 s")])
    assert "measuring process: no answer after 900 s; warm mode; at least 3 processes each" in block(render.page(broken, cache))


def test_a_stale_sweep_is_drawn_hollow_and_ranks_nothing():
    [view] = sweeps.of(whole(on_h200(sweeps=[planted_sweep(stale=True, changed=("source",))])))
    assert view.mark.text == "stale" and {one["ranked"] for one in sweeps.values(view)} == {False}


def test_the_picture_has_the_slowest_beside_its_rival_first():
    [view] = sweeps.of(whole(on_h200(sweeps=[planted_sweep(swept(SWEPT[0], fast=0.8), swept(SWEPT[1], fast=1.3), swept(SWEPT[2], rival=None, met_rival=None))])))
    drawn = sweeps.values(view)
    assert [one["label"] for one in drawn] == [SWEPT[1], SWEPT[0]] and drawn[0]["value"].endswith("✗") and not drawn[1]["value"].endswith("✗")
    assert len(view.lines) == 3, "the table has every problem"


def test_a_real_browser_shows_it_in_both_widths(cache, tmp_path):
    names = [name.replace("b1h8", f"b{number}h8") for number in range(1, 5) for name in SWEPT if name.startswith("b1h8")]
    document = on_h200(sweeps=[planted_sweep(*(swept(name, fast=0.8 + number / 20) for number, name in enumerate(names))), planted_sweep(device="cpu", stale=True)])
    document["devices"].append(dict(slug="cpu", info={"name": "planted CPU"}, origins=["measured"], newest=page_data.PLANTED, oldest=page_data.PLANTED))
    page = render.page(document, cache)
    assert block(page).index("on NVIDIA H200") < block(page).index("planted CPU") and document["leading_device"] == H200
    browse(page, tmp_path)
