"""Timing as the evidence has it: which processes count, which clocks must agree, when a binary is told apart from itself."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest

from evosdpa import benchmarking, config as configuration, evidence, gap, isolate, machine, repeatability, stats, steadiness, variants
from evosdpa.device import Held
from evosdpa.evidence import Bench, Build, Repeatability, Status, Timing
from evosdpa.harness.timing import launches_for, samples_for
from workspace import CONFIG, PROJECT, Workspace

GPU = machine.Gpu(0, "NVIDIA H200", "GPU-1", "sm_90a", "580")
GOAL = "b1h8s512d64-fp16"
SETTINGS = configuration.Config()


def clock(process: int, mode: str = "warm", mhz: float = 1980, late: int = 0, **more: Any) -> dict[str, Any]:
    """A chunk's clock record as a worker reports it."""
    reading = {"sm_mhz": mhz, "throttle_reasons": 0, "processes": 1}
    return {"event": "clocks", "process": process, "problem": GOAL, "mode": mode, "before": reading, "during": {**reading}, "after": reading, "late": late,
            "samples": 160, **more}


def reasons(clocks: list[dict[str, Any]], reference: dict[int, float] | None = None, mode: str = "warm") -> dict[int, str]:
    """Rejections by process."""
    given = {(process, GOAL, mode): value for process, value in (reference or {}).items()}
    return {chunk[0]: why for chunk, why in steadiness.rejections(clocks, given).items()}


# ---- Which processes count

def test_steady_processes_all_count():
    assert reasons([clock(number) for number in range(5)], {0: 1.438, 1: 1.441, 2: 1.437, 3: 1.44, 4: 1.439}) == {}


@pytest.mark.parametrize("bit, words", steadiness.THROTTLED.items())
def test_a_throttled_process_does_not_count(bit, words):
    chunks = [clock(0), clock(1), clock(2)]
    chunks[1]["during"]["throttle_reasons"] = bit
    assert reasons(chunks) == {1: words}


def test_the_power_cap_is_how_the_card_behaves():
    chunks = [clock(0), clock(1)]
    chunks[1]["during"]["throttle_reasons"] = 0x04
    assert reasons(chunks) == {}


def test_a_clock_that_is_off_the_others_does_not_count_but_a_card_that_always_runs_slow_does():
    found = reasons([clock(0), clock(1), clock(2, mhz=1900), clock(3), clock(4)])
    assert list(found) == [2] and "SM clock -4.0 % off the other processes'" in found[2]
    assert reasons([clock(number, mhz=1100) for number in range(5)]) == {}


def test_a_reference_kernel_that_is_off_its_time_rejects_the_process():
    found = reasons([clock(number) for number in range(5)], {0: 1.44, 1: 1.44, 2: 1.50, 3: 1.44, 4: 1.44})
    assert list(found) == [2] and "the reference kernel took 104.2 % of its time" in found[2]


def test_eager_times_are_the_hosts_and_judged_by_the_clock_alone():
    assert reasons([clock(0, "eager"), clock(1, "eager")], {0: 9.0, 1: 14.0}, "eager") == {}


def test_another_process_on_the_gpu_rejects():
    chunk = clock(0)
    chunk["before"] = {**chunk["before"], "processes": 3}
    assert reasons([chunk, clock(1)]) == {0: "2 other processes on the GPU"}


def test_a_host_that_came_late_too_often_rejects():
    assert reasons([clock(0, late=8), clock(1)]) == {}
    assert reasons([clock(0, late=9), clock(1)]) == {0: "the host was late for 9 of 169 samples"}


def test_without_nvml_nothing_is_rejected_for_what_could_not_be_read():
    chunks = [clock(number) for number in range(3)]
    for chunk in chunks:
        chunk.update(before={"unavailable": "NVML: none"}, during={}, after={"unavailable": "NVML: none"})
    assert reasons(chunks) == {}


# ---- The processes of a run

class Scripted(Held):
    """A held GPU on which each process reports what `process(index)` says instead of running."""

    def __init__(self, process) -> None:
        super().__init__(GPU)
        self.tasks: list[dict[str, Any]] = []
        self._process = process

    def run(self, command, timeout_s, task=None, on_report=None, env=None) -> isolate.Outcome:
        self.tasks.append(task)
        [index] = task["processes"]
        found = self._process(index)
        return found if isinstance(found, isolate.Outcome) else isolate.Outcome(Status.OK, reports=[*found, dict(event="measured", process=index)])


def samples(process: int, time_us: float = 5.0, name: str = "v", mode: str = "warm", ok: bool = True, **clocked: Any) -> list[dict[str, Any]]:
    """What one process reports of one subject."""
    about = dict(process=process, problem=GOAL, mode=mode)
    return [dict(event="samples", name=name, times_us=[time_us] * 5, launches=90, **about), clock(process, mode, **clocked),
            dict(event="output", name=name, ok=ok, reason="" if ok else "input set 0 of 1: 3 of 512 rows are wrong", **about)]


def run(process, monkeypatch) -> tuple[Bench, Scripted, list[tuple]]:
    """Measure one subject in scripted processes."""
    monkeypatch.setattr(machine, "describe", lambda gpu: {})
    record, held, rows = Bench(variant="v", device="nvidia-h200"), Scripted(process), []
    benchmarking.measure(record, held, SETTINGS, {"v": {"path": "v.so", "sha256": "0"}}, [], [], [GOAL], rows, modes=["warm"])
    return record, held, rows


def test_a_rejected_process_is_made_up_for_and_its_samples_are_kept_apart(monkeypatch):
    record, held, rows = run(lambda index: samples(index, 9.0, mhz=1500) if index == 2 else samples(index, 5.0 + index / 100), monkeypatch)
    [timing] = record.timings
    assert [task["processes"] for task in held.tasks] == [[0], [1], [2], [3], [4], [5]]
    assert timing.status is Status.OK and len(timing.process_medians_us) == 5 and max(timing.process_medians_us) < 5.1
    assert timing.rejected == ["process 2: SM clock -24.2 % off the other processes'"]
    assert {row[0] for row in rows if not row[6]} == {2} and len(rows) == 30


def test_what_never_gets_steady_is_published_as_unstable_with_its_spread(monkeypatch):
    record, held, _ = run(lambda index: samples(index, 5.0 + index, late=100), monkeypatch)
    [timing] = record.timings
    assert len(held.tasks) == 5 + steadiness.RETRIES
    assert timing.status is Status.UNSTABLE and timing.time_us > 5 and len(timing.process_medians_us) == 8
    assert "0 of 5 processes were steady, also after 3 more; process 0: the host was late" in timing.reason


def test_only_what_was_rejected_is_measured_again(monkeypatch):
    def process(index):
        return samples(index) + samples(index, mode="stream", mhz=1980 if index else 1500)
    monkeypatch.setattr(machine, "describe", lambda gpu: {})
    held = Scripted(process)
    benchmarking.measure(Bench(variant="v"), held, SETTINGS, {"v": {"path": "v.so", "sha256": "0"}}, [], [], [GOAL], [], modes=["warm", "stream"])
    assert [task["modes"] for task in held.tasks[5:]] == [["stream"]]


def test_wrong_output_of_one_timed_launch_fails_the_variant(monkeypatch):
    record, _, _ = run(lambda index: samples(index, ok=index != 3), monkeypatch)
    [timing] = record.timings
    assert timing.status is Status.FAILED and timing.outputs_checked is False and "output of a timed launch: input set 0" in timing.reason


def test_a_hang_ends_the_run_and_keeps_what_was_measured(monkeypatch):
    hang = isolate.Outcome(Status.TIMEOUT, "did not end within 420 s")
    record, held, _ = run(lambda index: hang if index == 2 else samples(index), monkeypatch)
    assert record.status is Status.TIMEOUT and len(held.tasks) == 3 and len(record.timings[0].process_medians_us) == 2


def test_one_crash_does_not_end_the_run(monkeypatch):
    crash = isolate.Outcome(Status.ERROR, "crashed with SIGSEGV", log="why")
    record, held, _ = run(lambda index: crash if index == 2 else samples(index), monkeypatch)
    assert len(held.tasks) == 5 and record.status is Status.ERROR and "SIGSEGV" in record.reason and record.log == "why"


def test_a_process_that_stops_before_its_end_is_no_good_end(monkeypatch):
    record, held, _ = run(lambda index: isolate.Outcome(Status.OK, reports=samples(index)) if index == 1 else samples(index), monkeypatch)
    assert record.status is Status.ERROR and "1 ended by itself, with status 0, before it was done" in record.reason


def test_what_breaks_in_some_processes_has_no_time(monkeypatch):
    def process(index):
        broken = dict(event="skip", process=index, problem=GOAL, name="v", status="error", reason="sdpa_launch returned CUDA error 1")
        return [broken, clock(index)] if index in (1, 2, 4) else samples(index)
    record, _, _ = run(process, monkeypatch)
    assert record.timings[0].status is Status.ERROR and "failed in 3 of 5 processes: sdpa_launch returned CUDA error 1" in record.timings[0].reason


def test_the_loaded_binarys_hash_stands_in_the_evidence(monkeypatch):
    record, _, _ = run(lambda index: [dict(event="loaded", process=index, problem=GOAL, name="v", sha256="abc"), *samples(index)], monkeypatch)
    assert record.libraries == {"v": "abc"}


def test_a_rival_is_timed_in_processes_of_its_own_with_the_anchor(monkeypatch, tmp_path):
    asked = []

    class Company(Scripted):
        def run(self, command, timeout_s, task=None, on_report=None, env=None) -> isolate.Outcome:
            asked.append((task["rivals"], task["processes"]))
            [index] = task["processes"]
            reports = [one for name in task["rivals"] if name != "xformers" for one in samples(index, 9.0 if name == "sdpa-default" else 6.0, name)]
            if "xformers" in task["rivals"]:
                reports.append(dict(event="skip", process=index, problem=GOAL, name="xformers", status="unsupported", reason="xformers is not installed"))
            return isolate.Outcome(Status.OK, reports=[*reports, dict(event="measured", process=index)])

    monkeypatch.setattr(machine, "describe", lambda gpu: {})
    monkeypatch.setattr(machine, "gpus", lambda: (GPU,))
    monkeypatch.setattr(benchmarking.devices, "hold", lambda gpu: contextlib.nullcontext(Company(None)))
    config = SETTINGS.model_copy(update={"bench": SETTINGS.bench.model_copy(update={"gpu_modes": ["warm"]})})
    paths = []
    for name in ("sdpa-default", "triton-fa2", "xformers"):
        paths.append(tmp_path / name / "bench.json")
        evidence.write(paths[-1], benchmarking.bench_rival(name, config, "nvidia-h200", {}, paths[-1].with_name(evidence.SAMPLES)))
    assert asked[0] == (["sdpa-default"], [0]) and (["sdpa-default", "triton-fa2"], [604]) in asked
    assert sum("xformers" in rivals for rivals, _ in asked) == 1, "what is not installed is asked once"

    record = benchmarking.join_rivals("nvidia-h200", paths, tmp_path / evidence.SAMPLES)
    times = {timing.name: timing for timing in record.timings}
    assert record.status is Status.OK and times["triton-fa2"].time_us == 6.0 and times["sdpa-default"].time_us == 9.0
    assert times["xformers"].status is Status.UNSUPPORTED and "not installed" in times["xformers"].reason
    assert {timing.beside for timing in record.anchors} == {"triton-fa2", "xformers"} and set(record.seeds) == {"sdpa-default", "triton-fa2", "xformers"}
    rows = benchmarking.read_samples(tmp_path / evidence.SAMPLES)
    assert {(row[0], row[1]) for row in rows} >= {("0", "sdpa-default"), ("600", "triton-fa2"), ("600", "sdpa-default")}

    other = evidence.read(paths[2], Bench)
    evidence.write(paths[2], other.model_copy(update={"key_parts": {**other.key_parts, "harness": "older"}}))
    with pytest.raises(evidence.EvidenceError, match="xformers/bench.json: differs from .*sdpa-default/bench.json in harness; delete it"):
        benchmarking.join_rivals("nvidia-h200", paths, tmp_path / evidence.SAMPLES)

    paths[1].with_name(evidence.SAMPLES).write_bytes(b"")
    with pytest.raises(evidence.EvidenceError, match="is not the file that bench.json describes"):
        benchmarking.join_rivals("nvidia-h200", paths, tmp_path / evidence.SAMPLES)


# ---- Two clocks

@pytest.mark.parametrize("span, said", [
    (dict(launches=60, event_us=302.5, span_us=300.0, kernels=60, single=1, overlapped=0), ""),
    (dict(launches=60, event_us=302.5, span_us=300.0, kernels=120, single=2, overlapped=1), ""),
    (dict(launches=60, event_us=302.5, span_us=900.0, kernels=60, single=1, overlapped=0), "work is done outside the interval that is timed"),
    (dict(launches=60, event_us=302.5, span_us=250.0, kernels=60, single=1, overlapped=0), "work is done outside the interval that is timed"),
    (dict(launches=60, event_us=302.5, span_us=300.0, kernels=1, single=1, overlapped=0), "1 kernels ran for 60 launches, where one launch by itself runs 1"),
    (dict(launches=60, event_us=302.5, span_us=300.0, kernels=30, single=1, overlapped=0), "do less when captured"),
    (dict(launches=60, event_us=302.5, span_us=300.0, kernels=60, single=1, overlapped=59), "59 of 60 launches begin before the one before has ended"),
    (dict(reason="no kernel was recorded"), ""),
])
def test_events_and_the_kernels_own_record_must_agree(monkeypatch, span, said):
    def process(index):
        loaded = [dict(event="loaded", process=index, problem=GOAL, name="v", sha256="0")]
        return loaded + samples(index) + ([dict(event="span", process=0, problem=GOAL, name="v", names=["k"], **span)] if index == 0 else [])
    record, _, _ = run(process, monkeypatch)
    [timing] = record.timings
    assert timing.status is (Status.SUSPECT if said else Status.OK) and said in timing.reason
    assert timing.span == ({**span, "names": ["k"]})


def test_samples_and_launches_fit_their_budgets():
    assert launches_for(5.0, 400) * 5.0 >= 400 and launches_for(1e6, 400) == 1 and launches_for(0.001, 400) == 4000
    assert samples_for(1e6, 1, 40, 0.5) == 5 and samples_for(1.0, 90, 40, 0.5) == 40


# ---- Against the floor and the rivals

@pytest.fixture
def judged(monkeypatch):
    """The gap's judgement of one variant's medians beside those of its floors and anchor."""
    monkeypatch.chdir(PROJECT)
    variants.sources.cache_clear(), variants.floors.cache_clear()

    def judge(medians, floor, anchor=(9.0, 9.1, 8.9, 9.0, 9.05), best=(6.2, 6.21, 6.19, 6.2, 6.22), anchor_status=Status.OK, beside=True,
              rows=False) -> Any:
        """The variant's row, or all rivals' rows by name. `anchor`, `best`: None where there is none; `anchor_status`: beside the variant."""
        def timing(name, values, **more):
            return Timing(name=name, problem=GOAL, mode="warm", time_us=stats.of_medians(list(values)).value, process_medians_us=list(values), **more)

        def found(name, values, **more):
            return [] if values is None else [timing(name, values, **more)]
        made = gap.Gap(SETTINGS, [], None, "sm_90a")
        bench = Bench(variant="v", timings=[timing("v", medians)], anchors=[*found("sdpa-default", anchor, status=anchor_status), timing("floor_bytes", floor)])
        rivals = Bench(variant="rivals", timings=[*found("sdpa-default", anchor), *found("triton-fa2", best)],
                       anchors=found("sdpa-default", anchor and beside and [2 * one for one in anchor] or None, beside="triton-fa2"))
        made.chains = {("nvidia-h200", "v"): gap.Chain("v", "nvidia-h200", {
            kind: gap.Piece(PROJECT, record, "recorded") for kind, record in (("verify", evidence.Verify(variant="v")), ("bench", bench))}),
            ("nvidia-h200", "rivals"): gap.Chain("rivals", "nvidia-h200", {"bench": gap.Piece(PROJECT, rivals, "recorded")})}
        of_rivals = made.chains[("nvidia-h200", "rivals")]
        return {row["name"]: row for row in made._rival_rows("nvidia-h200", of_rivals)} if rows else made._variant_rows("v", "nvidia-h200", of_rivals)[0]

    return judge


def test_faster_than_what_no_kernel_can_beat_is_suspect(judged):
    row = judged([1.1, 1.11, 1.1, 1.12, 1.1], [1.44, 1.44, 1.45, 1.44, 1.44])
    assert row["status"] == "suspect" and "faster than floor_bytes, which no kernel can be" in row["reason"]
    assert row["vs_floor"] < 1 and not any(row[name] for name in VERDICT), "what cannot be has no rank"


VERDICT = ("verdict", "best_rival", "vs_best_rival", "vs_best_rival_low", "vs_best_rival_high")


def test_slower_than_the_floor_is_no_news(judged):
    row = judged([4.0, 4.01, 4.0, 4.02, 4.0], [1.44, 1.44, 1.45, 1.44, 1.44])
    assert row["status"] == "ok" and row["vs_floor"] == pytest.approx(4.0 / 1.44, rel=0.01)


def test_the_anchor_beside_the_best_rival_is_the_one_that_counts(judged):
    row = judged([4.5] * 5, [1.44] * 5)
    # The rival's processes ran at half the speed, as the anchor beside it shows: at the variant's speed it would take 3.1 us.
    assert row["best_rival"] == "triton-fa2" and row["vs_best_rival"] == pytest.approx(4.5 / 3.1, rel=0.01) and row["verdict"] == "slower"


def test_of_the_ratios_through_what_both_runs_timed_the_middle_one_counts(monkeypatch):
    """The rival's run was as fast as the variant's for the floors; the anchor alone took a tenth longer there."""
    monkeypatch.chdir(PROJECT)
    def timing(name, time_us):
        return Timing(name=name, problem=GOAL, mode="warm", time_us=time_us, process_medians_us=[time_us * (1 + step / 1000) for step in range(5)])
    here = [timing("sdpa-default", 9.0), timing("floor_bytes", 1.44), timing("floor_empty", 0.75)]
    there = [timing("sdpa-default", 9.9), timing("floor_bytes", 1.44), timing("floor_empty", 0.75)]
    assert gap.Gap._ratio(timing("v", 4.5), here, timing("triton-fa2", 6.0), there).value == pytest.approx(4.5 / 6.0, rel=0.002)
    assert gap.Gap._ratio(timing("v", 4.5), here[:2], timing("triton-fa2", 6.0), there).value == pytest.approx(4.5 / 6.0 * 1.1, rel=0.002)


@pytest.mark.parametrize("how", [dict(anchor=None), dict(anchor_status=Status.UNSTABLE), dict(beside=False)])
def test_without_a_good_anchor_on_both_sides_there_is_no_ratio_and_no_verdict(judged, how):
    row = judged([4.5] * 5, [1.44] * 5, **how)
    assert row["status"] == "ok" and row["best_rival"] == "triton-fa2"
    assert row["verdict"] is None and row["vs_best_rival"] is None and row["vs_best_rival_low"] is None


def test_where_the_best_rival_is_the_anchor_one_run_is_enough(judged):
    row = judged([4.5, 4.51, 4.5, 4.52, 4.5], [1.44] * 5, best=None)
    assert row["best_rival"] == "sdpa-default" and row["vs_best_rival"] == pytest.approx(0.5, rel=0.01) and row["verdict"] == "faster"
    assert judged([4.5] * 5, [1.44] * 5, best=None, anchor_status=Status.UNSTABLE)["verdict"] is None


def test_rivals_are_compared_with_the_best_of_them_under_the_same_rule(judged):
    through = judged([4.5] * 5, [1.44] * 5, rows=True)
    assert (through["triton-fa2"]["vs_best_rival"], through["triton-fa2"]["verdict"]) == (1.0, "same")
    assert through["sdpa-default"]["vs_best_rival"] == pytest.approx(18 / 6.2, rel=0.01) and through["sdpa-default"]["verdict"] == "slower"
    alone = judged([4.5] * 5, [1.44] * 5, beside=False, rows=True)["sdpa-default"]
    assert alone["best_rival"] == "triton-fa2" and alone["vs_best_rival"] is None and alone["verdict"] is None


# ---- A binary against itself

def runs_of(shift: float = 0.0, copies: int = 8, count: int = 5) -> list[Bench]:
    """Runs in which every copy takes the same time, but for noise and a shift of the second of each pair."""
    chance, made = random.Random(3), []
    for _ in range(count):
        machine_speed = [1 + chance.gauss(0, 0.01) for _ in range(5)]
        made.append(Bench(variant="v", timings=[
            Timing(name=name, problem=GOAL, mode="warm", time_us=5.0, process_medians_us=[
                base * speed * (1 + chance.gauss(0, 0.002)) * (1 + (shift if name.endswith(("2", "4", "6", "8")) else 0)) for speed in machine_speed])
            for name, base in [*((f"v#{number}", 5.0) for number in range(1, copies + 1)), ("sdpa-default", 9.0)]]))
    return made


def repeated(**how: Any) -> Repeatability:
    record = Repeatability(variant="v", device="nvidia-h200")
    repeatability._judge(record, runs_of(**how), [f"v#{number}" for number in range(1, 9)], ["warm"])
    return record


def test_a_binary_is_not_told_apart_from_itself():
    record = repeated()
    assert record.status is Status.OK and [(one["kind"], one["tries"]) for one in record.counts] == [("within", 20), ("between", 20)]
    assert all(one["same"] + one["undecided"] >= 19 for one in record.counts)


def test_a_protocol_that_tells_it_apart_is_noticed():
    record = repeated(shift=0.02)
    assert record.status is Status.FAILED and "within processes, warm: 20 of 20 verdicts tell a binary apart from itself" in record.reason


def test_a_variant_against_itself_through_the_workflow(tmp_path):
    config = {**CONFIG, "repeatability": {"variants": ["v0_reference"], "runs": 2, "copies": 2}}
    workspace = Workspace.create(tmp_path / "project", config=config)
    done = workspace.snakemake("selftest")
    record = workspace.json("results/cpu/v0_reference/repeatability.json")
    assert record["copies"] == 2 and len(record["medians_us"]["warm"]) == 2 and len(record["tries"]) == 4
    assert (done.returncode == 0) == (record["status"] == "ok"), done.stderr
    assert "v0_reference against itself on cpu, within processes, warm: 2 tries" in done.stdout + done.stderr
    workspace.run("results/gap.json")
    [shown] = workspace.json("results/gap.json")["repeatability"]
    assert shown["variant"] == "v0_reference" and not shown["stale"] and shown["spread"][0]["count"] == 8


def test_a_variant_that_is_wrong_is_not_measured_against_itself():
    wrong = evidence.Verify(variant="v", status=Status.FAILED, reason="3 cases are wrong")
    record = repeatability.measure(variants.Variant("v", "v", PROJECT / "kernels/v1_scalar.cu"), SETTINGS, "nvidia-h200", Build(variant="v"), wrong, PROJECT, {})
    assert record.status is Status.NOT_RUN and "verify says failed" in record.reason


def test_launches_that_overlap_in_mode_warm_are_believed_in_no_mode_in_a_row(monkeypatch):
    monkeypatch.chdir(PROJECT)
    variants.sources.cache_clear(), variants.floors.cache_clear()
    overlap = dict(status=Status.SUSPECT, reason="126 of 127 launches begin before the one before has ended", span=dict(launches=127, overlapped=126))
    times = [Timing(name="v", problem=GOAL, mode=mode, time_us=4.0, process_medians_us=[4.0] * 5, **(overlap if mode == "warm" else {}))
             for mode in ("warm", "stream", "cold")]
    pieces = {kind: gap.Piece(PROJECT, record, "recorded") for kind, record in (("verify", evidence.Verify(variant="v")), ("bench", evidence.Bench(variant="v", timings=times)))}
    made = gap.Gap(SETTINGS, [], None, "sm_90a")
    made.chains = {("nvidia-h200", "v"): gap.Chain("v", "nvidia-h200", pieces)}
    rows = {row["mode"]: row for row in made._variant_rows("v", "nvidia-h200", None)}
    assert {mode: row["status"] for mode, row in rows.items()} == {"warm": "suspect", "stream": "suspect", "cold": "ok"}
    assert rows["stream"]["reason"] == "launches overlap, says the record of mode warm: 126 of 127 launches begin before the one before has ended"
