"""The pure parts: names, keys, statistics, parsers, isolation."""

from __future__ import annotations

import math
import random
import sys
import time

import pytest

from evosdpa import between_runs, build, evidence, inspection, isolate, keys, machine, problem, profiling, sanitizing, stats, variants
from evosdpa.evidence import Bench, EvidenceError, Status, Timing
from workspace import PROJECT


# ---- Problems

@pytest.mark.parametrize("name", ["b1h8s512d64-fp16", "b4h16s4096d128-bf16-causal", "b2h4s100d64-fp16-hkv2", "b1h1s1d64-fp32-causal-hkv1-kv77"])
def test_a_problems_name_is_read_back(name):
    if name.endswith("hkv1-kv77"):
        with pytest.raises(ValueError, match="is written 'b1h1s1d64-fp32-causal-kv77'"):
            problem.parse(name)
    else:
        assert problem.parse(name).name == name


def test_work_of_the_goal_problem():
    goal = problem.parse("b1h8s512d64-fp16")
    assert goal.flops == 4 * 8 * 512 * 512 * 64
    assert goal.bytes == 4 * 8 * 512 * 64 * 2


@pytest.mark.parametrize("seq_q, seq_kv", [(5, 5), (3, 7), (7, 3), (1, 1)])
def test_causal_pairs_are_those_of_the_mask(seq_q, seq_kv):
    one = problem.Problem(2, 3, 3, seq_q, seq_kv, 64, "fp16", True)
    assert one.pairs == 6 * sum(1 for query in range(seq_q) for key in range(seq_kv) if key <= query)


# ---- Keys

def test_comments_and_layout_are_no_part_of_c_source():
    plain = 'int f() { return 1; }\nconst char *s = "// no comment /* here */";\n'
    noisy = '// first\nint f() { /* a\n b */ return 1; }  \n\nconst char *s = "// no comment /* here */"; // last\n'
    assert keys.strip_c(plain).split() == keys.strip_c(noisy).split()
    assert keys.strip_c(plain) != keys.strip_c(plain.replace("no comment", "another"))


def test_comments_and_docstrings_are_no_part_of_python_source():
    plain = "def f(x):\n    return '# no comment' + x\n"
    noisy = 'def f(x):  # why\n    """What, with a ü."""\n\n    # how\n    return \'# no comment\' + x\n'
    assert keys.strip_python(plain) == keys.strip_python(noisy)
    assert keys.strip_python(plain) != keys.strip_python(plain.replace("no comment", "another"))


def test_imports_are_followed_through_the_package():
    names = {path.name for path in keys.imports(PROJECT / "scripts" / "verify_variant.py")}
    assert {"verification.py", "isolate.py", "evidence.py", "keys.py"} <= names
    assert "gap.py" not in names and "benchmarking.py" not in names


def test_changed_parts_are_named_in_order():
    assert keys.changed({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b", "c"]
    assert keys.changed({"a": "1", "b": "2"}, {"a": "1", "b": "3"}, ignore=("b",)) == []


# ---- Statistics

def test_intervals_cover_what_they_claim():
    chance = random.Random(1)
    hits = 0
    for _ in range(600):
        medians = [5.0 * math.exp(chance.gauss(0, 0.003)) for _ in range(5)]
        low, high = stats.of_medians(medians).interval()
        hits += low <= 5.0 <= high
    assert 0.92 <= hits / 600 <= 0.98


def test_drift_cancels_in_ratios_within_processes():
    drift = [1.0, 1.1, 0.9, 1.2, 1.05]
    ratio = stats.ratio_within([2 * one for one in drift], drift)
    assert ratio.value == pytest.approx(2) and ratio.log_error == pytest.approx(0, abs=1e-12)


def test_two_runs_whose_anchor_kept_another_speed_are_not_told_apart():
    """As recorded on an H200: a binary's ratio to the anchor, in five processes each of two runs, steady within and 1.75 % apart."""
    one, other = stats.of_medians([1.7175, 1.7180, 1.7172, 1.7178, 1.7170]), stats.of_medians([1.6880, 1.6885, 1.6878, 1.6882, 1.6876])
    assert stats.verdict(stats.quotient(one, other)) == "slower"
    assert stats.verdict(between_runs.quotient(one, other)) == "undecided"


def test_two_runs_of_kernels_that_differ_are_told_apart():
    fast, slow = stats.of_medians([0.440, 0.441, 0.440, 0.442, 0.441]), stats.of_medians([0.668, 0.669, 0.667, 0.668, 0.668])
    assert stats.verdict(between_runs.quotient(fast, slow)) == "faster"
    assert between_runs.quotient(fast, slow).value == pytest.approx(0.441 / 0.668, rel=0.01)


def test_a_run_of_one_process_has_no_interval_beside_another_either():
    assert between_runs.quotient(stats.of_medians([1.0]), stats.of_medians([1.0, 1.1])).interval() is None


@pytest.mark.parametrize("low, high, expected", [(0.9, 0.95, "faster"), (1.05, 1.1, "slower"), (0.998, 1.002, "same"), (0.98, 1.02, "undecided"),
                                                 (0.98, 0.997, "undecided")])
def test_verdicts_follow_the_whole_interval(low, high, expected):
    middle, half = (math.log(low) + math.log(high)) / 2, (math.log(high) - math.log(low)) / 2
    from scipy.special import stdtrit
    assert stats.verdict(stats.Estimate(middle, half / float(stdtrit(4, 0.975)), 4)) == expected


def test_one_process_decides_nothing():
    assert stats.verdict(stats.of_medians([3.0])) == "undecided"


# ---- Evidence

def test_evidence_is_read_back(tmp_path):
    record = Bench(variant="v", timings=[Timing(name="v", problem="b1h8s512d64-fp16", mode="warm", time_us=4.5)])
    evidence.write(tmp_path / "a" / "bench.json", record)
    assert evidence.read(tmp_path / "a" / "bench.json", Bench) == record


def test_not_a_number_is_no_evidence(tmp_path):
    with pytest.raises(ValueError):
        evidence.write(tmp_path / "x.json", Bench(variant="v", device_info={"watts": float("nan")}))
    assert not (tmp_path / "x.json").exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EvidenceError, match="cannot be written") as caught:
        evidence.write_text(tmp_path / "file" / "below.json", "{}")
    assert "\n" not in str(caught.value)


def test_long_output_is_clipped_in_the_middle():
    text = evidence.clip("a" * 50_000 + "b" * 50_000)
    assert len(text) < evidence.LOG_LIMIT + 100 and text.startswith("aaa") and text.endswith("bbb") and "left out" in text


# ---- Isolation

def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_hang_ends_with_its_whole_process_group(tmp_path):
    mark = tmp_path / "alive"
    code = f"import subprocess, time; subprocess.Popen(['sh', '-c', 'sleep 3; touch {mark}']); print('started', flush=True); time.sleep(60)"
    outcome = isolate.run(python(code), 1)
    assert outcome.status is Status.TIMEOUT and "1 s" in outcome.reason and "started" in outcome.log
    time.sleep(3)
    assert not mark.exists()


def test_a_process_that_ignores_sigterm_is_killed():
    outcome = isolate.run(python("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"), 1)
    assert outcome.status is Status.TIMEOUT and outcome.seconds < 1 + isolate.GRACE_S + 3


def test_a_crash_keeps_what_was_reported_before():
    code = "import os; os.write(int(os.environ['EVOSDPA_REPORT_FD']), b'{\"event\": \"result\"}\\nnot json\\n'); os.abort()"
    outcome = isolate.run(python(code), 20)
    assert outcome.status is Status.ERROR and "SIGABRT" in outcome.reason and outcome.reports == [{"event": "result"}]


def test_printing_is_not_reporting():
    outcome = isolate.run(python("print('{\"event\": \"result\"}')"), 20)
    assert outcome.status is Status.OK and outcome.reports == []


def test_a_program_that_is_missing_is_a_reason():
    outcome = isolate.run(["no-such-program-anywhere"], 5)
    assert outcome.status is Status.ERROR and "no-such-program-anywhere could not be started" in outcome.reason


# ---- Tools' output

PTXAS = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z3fooIfEvv' for 'sm_90a'
ptxas info    : Function properties for _Z3fooIfEvv
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 168 registers, used 2 barriers, 1024 bytes smem
ptxas info    : Compiling entry function '_Z3barv' for 'sm_90a'
ptxas info    : Function properties for _Z3barv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers
"""


def test_ptxas_report():
    first, second = build.parse_ptxas(PTXAS)
    assert first == dict(name="_Z3fooIfEvv", arch="sm_90a", registers=168, stack_bytes=16, spill_stores=8, spill_loads=12, static_shared_bytes=1024)
    assert (second["name"], second["registers"], second["static_shared_bytes"]) == ("_Z3barv", 32, 0)


def test_sass_is_counted_by_family():
    text = """
		Function : _Z3foov
	.headerflags	@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                /* 0x00 */
                                                                        /* 0x00 */
        /*0010*/              @!P0 MUFU.EX2 R2, R3 ;                     /* 0x00 */
        /*0020*/             @UP1 HMMA.16816.F32 R4, R2, R6, R4 ;        /* 0x00 */
        /*0030*/                   HMMA.16816.F32 R8, R2, R6, R8 ;       /* 0x00 */
"""
    counts = inspection.parse_sass(text)
    assert inspection.families(counts["_Z3foov"]) == {"HMMA": 2, "LDC": 1, "MUFU.EX2": 1}


@pytest.mark.parametrize("blocks, per_sm, sms, expected", [(128, 1, 132, (0.9697, 0.0303)), (264, 2, 132, (1.0, 0.0)), (133, 1, 132, (1.0076, 0.9924))])
def test_waves_and_tail(blocks, per_sm, sms, expected):
    found = inspection.waves(blocks, per_sm, sms)
    assert (found["waves"], found["tail"]) == expected


def test_occupancy_is_that_of_nvidias_own_formula(tmp_path):
    program, why_not = inspection._occupancy_program(tmp_path)
    assert program, why_not
    found = inspection.occupancy(program, "sm_90a", 168, 1024, 96 * 1024, 384)
    assert found == {"blocks_per_sm": 1, "limiter": "registers", "occupancy": 0.1875}


RAW_PAGE = '''==PROF== Connected
"ID","Kernel Name","Block Size","Grid Size","gpu__time_duration.sum","device__attribute_chip","broken.metric"
"","","","","ns","",""
"0","sdpa<64>(sdpa_problem)","(64, 1, 1)","(16, 8, 1)","18,816.00","384","n/a"
'''


def test_ncus_raw_page():
    [kernel] = profiling.parse_raw_page(RAW_PAGE, ["gpu__time_duration.sum", "broken.metric", "absent.metric"])
    assert kernel == dict(kernel="sdpa<64>(sdpa_problem)", grid=[16, 8, 1], block=[64, 1, 1], metrics={"gpu__time_duration.sum": 18816.0},
                          units={"gpu__time_duration.sum": "ns"})


def test_metrics_differ_by_chip():
    assert any("gmma" in name for name in profiling.metrics_for("sm_90a")) and not any("gmma" in name for name in profiling.metrics_for("sm_80"))
    assert any(name.endswith("_v2.sum") for name in profiling.metrics_for("sm_89"))


def test_sanitizers_findings():
    log = ("========= COMPUTE-SANITIZER\n========= Invalid __global__ write of size 2 bytes\n=========     at kernel+0x10 in x.cu:12\n"
           "========= ERROR SUMMARY: 3 errors\n")
    count, lines = sanitizing.findings(log)
    assert count == 3 and lines == ["Invalid __global__ write of size 2 bytes", "at kernel+0x10 in x.cu:12"]
    assert sanitizing.findings("========= RACECHECK SUMMARY: 0 hazards displayed\n========= ERROR SUMMARY: 0 errors\n") == (0, [])


# ---- Kernels and machine

@pytest.mark.parametrize("stem", sorted(variants.sources()))
def test_every_kernel_says_what_it_is(stem):
    about = variants.header(variants.sources()[stem])
    assert about.title and about.idea
    if variants.sources()[stem].parent == variants.KERNELS:
        assert about.expects and about.levers


def test_slug_of_a_gpu():
    assert machine.Gpu(0, "NVIDIA H100 80GB HBM3", "GPU-1", "sm_90a", "580").slug == "nvidia-h100-80gb-hbm3"


# ---- Git

def test_a_commit_that_was_told_says_nothing_of_changes(monkeypatch, tmp_path):
    monkeypatch.setenv("EVOSDPA_COMMIT", "a" * 40)
    told = machine.git_state()
    assert told == {"commit": "a" * 40, "dirty": None, "told_by": "EVOSDPA_COMMIT"}
    evidence.write(tmp_path / "bench.json", Bench(variant="v", git=told))
    assert evidence.read(tmp_path / "bench.json", Bench).git == told
    monkeypatch.setenv("EVOSDPA_COMMIT", "main")
    assert "told_by" not in machine.git_state()
