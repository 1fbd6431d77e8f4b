"""What holds a variant back: each rule speaks on planted evidence, keeps quiet below its threshold, and is silent without evidence."""

from __future__ import annotations

import dataclasses
import json

import page_data
import pytest

from evosdpa import insight_rules, insights, problem, variant_evidence, variants
from evosdpa.page import render
from evosdpa.profiling import CORE, HOPPER, STALL, STALL_REASONS
from evosdpa.variant_evidence import Evidence
from workspace import PROJECT

PROBLEM = problem.parse(page_data.GOAL)
GOOD = Evidence(
    name="v1", problem=PROBLEM, arch="sm_90a", times_us={"warm": 4.0, "stream": 4.2}, vs_floor={"warm": 2.0, "stream": 2.0},
    floors_us={"floor_empty": {"warm": 0.2}, "floor_bytes": {"warm": 2.0}},
    launch=dict(blocks=132, sms=132, waves=1.0, limiter="registers", blocks_per_sm=1), spill_bytes=0, instructions={"HGMMA": 24, "UTMALDG": 4},
    metrics={"gpu__time_duration.sum": 5000.0, "sm__cycles_elapsed.avg.per_second": 2e9, "smsp__issue_active.avg.pct_of_peak_sustained_active": 70.0,
             "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed": 30.0, "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active": 20.0,
             "sm__pipe_alu_cycles_active.avg.pct_of_peak_sustained_active": 20.0, "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active": 10.0,
             "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum": 13.0, "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum": 132_000.0,
             "dram__throughput.avg.pct_of_peak_sustained_elapsed": 5.0, "dram__bytes_read.sum": 1_600_000.0, "dram__bytes_write.sum": 0.0,
             "smsp__inst_executed.sum": 1000.0, "smsp__sass_inst_executed_op_local_ld.sum": 0.0, "smsp__sass_inst_executed_op_local_st.sum": 0.0,
             **{STALL.format(reason): 0.05 for reason in STALL_REASONS}, STALL.format("gmma"): 0.05, STALL.format("selected"): 1.0},
    kernels=1, levers={"BLOCK_Q": "64", "STAGES": "2", "NUM_WARPS": "8"}, defaults={"BLOCK_Q": "64", "STAGES": "2", "NUM_WARPS": "8"},
    declared={"BLOCK_Q": (32, 64, 128), "STAGES": (1, 2, 3, 4), "NUM_WARPS": (4, 8)})
"""Planted evidence, none of it measured, on which no rule speaks: 10,000 cycles, 132 busy SMs."""


def but(*, metrics=None, launch=None, **more):
    """GOOD with some values replaced; a metric that is None is not there."""
    merged = {name: value for name, value in {**GOOD.metrics, **(metrics or {})}.items() if value is not None}
    return dataclasses.replace(GOOD, metrics=merged, launch={**GOOD.launch, **(launch or {})}, **more)


def found(evidence):
    return {one.rule: one for one in insights.insights(evidence)}


def test_good_evidence_has_no_insight_and_all_strengths():
    assert found(GOOD) == {} and insights.unknown(GOOD) == {}
    assert {one.name for one in insights.strengths(GOOD)} == {"matrix_instructions", "asynchronous_copies", "all_sms", "no_spills", "no_bank_conflicts", "inputs_once"}


DURATION, ISSUE = "gpu__time_duration.sum", "smsp__issue_active.avg.pct_of_peak_sustained_active"
WAVEFRONTS, CONFLICTS = "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum", "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum"
NO_WAIT = {STALL.format("short_scoreboard"): 0.0, STALL.format("mio_throttle"): 0.0}
LOCAL = "smsp__sass_inst_executed_op_local_ld.sum"
FIRES = {
    # rule: evidence on which it speaks, the bound's share and what it is a share of
    "idle_sms": (but(launch=dict(blocks=66, waves=0.5)), 0.5, "warm"),
    "tail": (but(launch=dict(blocks=198, waves=1.5)), 0.25, "warm"),
    "no_matrix_instructions": (but(instructions={"FFMA": 900}), 0.5, "warm"),
    "issue_slots": (but(metrics={ISSUE: 25.0}), 0.75, "profile"),
    "spills": (but(metrics={LOCAL: 100.0, STALL.format("long_scoreboard"): 0.0}), 0.1, "profile"),
    "shared_memory_busy": (but(metrics={**NO_WAIT, WAVEFRONTS: 132 * 4000.0}), 0.4, "profile"),
    "bank_conflicts": (but(metrics={CONFLICTS: 132 * 500.0}), 0.05, "profile"),
    "exponentials": (but(metrics={**NO_WAIT, "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active": 40.0}), 0.4, "profile"),
    "tensor_pipe_busy": (but(metrics={"sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed": 80.0}), 0.2, "profile"),
    "fma_pipe_busy": (but(metrics={"sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active": 80.0}), 0.2, "profile"),
    "alu_pipe_busy": (but(metrics={"sm__pipe_alu_cycles_active.avg.pct_of_peak_sustained_active": 80.0}), 0.2, "profile"),
    "dram_busy": (but(metrics={"dram__throughput.avg.pct_of_peak_sustained_elapsed": 90.0, "dram__bytes_read.sum": 2.0 * PROBLEM.bytes}), 0.55, "profile"),
    "cold_inputs": (but(times_us={"warm": 4.0, "stream": 5.0}), 0.2, "stream"),
    "launch": (but(floors_us={"floor_empty": {"warm": 1.0}}), 0.0, "warm"),
    **{f"stall_{reason}": (but(metrics={ISSUE: 60.0, STALL.format(reason): 20.0}), 0.4, "profile") for reason in insight_rules.STALLS},
}


@pytest.mark.parametrize("rule", [one.name for one in insight_rules.RULES])
def test_each_rule_speaks_with_readings_a_threshold_and_a_bound(rule):
    evidence, share, of = FIRES[rule]
    one = found(evidence)[rule]
    assert one.bound.share == pytest.approx(share, abs=1e-6) and one.bound.of == of and one.bound.basis
    assert one.readings and one.source and one.meaning and one.technique and not one.stale
    below = one.readings[0].value < one.threshold
    assert below == (rule in ("issue_slots", "no_matrix_instructions")), "the first reading crosses the threshold"


@pytest.mark.parametrize("rule", insight_rules.RULES, ids=lambda rule: rule.name)
def test_without_its_evidence_a_rule_says_nothing_and_is_named(rule):
    lacking = {"static": dict(launch={}), "instructions": dict(instructions={}), "profile": dict(metrics={}), "warm": dict(times_us={"stream": 5.0}),
               "stream": dict(times_us={"warm": 4.0}), "floors": dict(vs_floor={}), "empty": dict(floors_us={})}
    for need in rule.needs:
        evidence = dataclasses.replace(FIRES[rule.name][0], **lacking[need])
        assert rule.name not in found(evidence)
        assert rule.name in insights.unknown(evidence)[insight_rules.STEP[need]]


def test_no_evidence_at_all_is_no_insight():
    nothing = Evidence("v1")
    assert insights.insights(nothing) == [] == insights.strengths(nothing)
    assert {name for names in insights.unknown(nothing).values() for name in names} == {rule.name for rule in insight_rules.RULES}


def test_a_profile_that_lacks_single_metrics_only_silences_their_rules():
    evidence = but(metrics=dict.fromkeys(GOOD.metrics), launch=dict(blocks=66, waves=0.5))
    assert set(found(dataclasses.replace(evidence, metrics={ISSUE: 25.0}))) == {"idle_sms", "issue_slots"}


def test_rules_read_metrics_that_are_asked_for():
    asked = {*CORE, *HOPPER, *(STALL.format(reason) for reason in STALL_REASONS)}
    assert set(GOOD.metrics) <= asked
    assert {*insight_rules.STALLS, "selected", "not_selected"} == {*STALL_REASONS, "gmma"}


def test_several_ctas_on_an_sm_are_uneven_before_the_first_wave_is_full():
    one = found(but(launch=dict(blocks=198, waves=0.75)))["tail"]
    assert one.bound.share == pytest.approx(0.25) and "busiest SM" in one.meaning
    assert "tail" not in found(but(launch=dict(blocks=264, waves=0.5)))


def test_removing_a_stall_cannot_beat_one_instruction_a_cycle():
    one = found(but(metrics={ISSUE: 90.0, STALL.format("barrier"): 20.0}))["stall_barrier"]
    assert one.bound.share == pytest.approx(0.1) and "one issued in every cycle" in one.bound.basis


def test_a_unit_mended_takes_the_waits_for_it_along():
    states = {STALL.format(reason): 0.0 for reason in STALL_REASONS} | {STALL.format("gmma"): 0.0, STALL.format("selected"): 1.0}
    evidence = but(metrics={**states, STALL.format("short_scoreboard"): 0.6, STALL.format("mio_throttle"): 0.4, WAVEFRONTS: 132 * 4000.0,
                            "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active": 30.0})
    assert found(evidence)["exponentials"].bound.share == pytest.approx(0.8) and found(evidence)["shared_memory_busy"].bound.share == pytest.approx(0.9)


def test_several_kernels_can_save_launches():
    one = found(but(floors_us={"floor_empty": {"warm": 1.0}}, kernels=3))["launch"]
    assert one.bound.share == pytest.approx(0.5)


def test_fp32_is_not_told_to_use_matrix_instructions():
    fp32 = problem.parse("b1h8s512d64-fp32")
    assert "no_matrix_instructions" not in found(but(instructions={"FFMA": 900}, problem=fp32))


def test_products_on_cuda_cores_are_set_against_the_tensor_cores():
    readings = {one.metric: one.value for one in found(but(instructions={"FFMA": 900}))["no_matrix_instructions"].readings}
    assert readings["both products on CUDA cores, at least"] == pytest.approx(1e6 * 536870912 / (256 * 132 * 2e9))
    assert readings["both products on tensor cores, at least"] == pytest.approx(1e6 * 536870912 / (4096 * 132 * 2e9))


def test_the_largest_bound_comes_first_and_no_gain_goes_below_the_floor():
    evidence = but(metrics={ISSUE: 10.0}, times_us={"warm": 4.0, "stream": 5.0})
    every = insights.insights(evidence)
    assert [one.rule for one in every] == ["issue_slots", "cold_inputs"]
    assert insights.gain_us(every[0], evidence) == ("warm", pytest.approx(2.0)), "90 % of 4 us, but half of it is floor"
    assert insights.gain_us(every[1], evidence) == ("stream", pytest.approx(1.0))
    assert insights.gain_us(every[0], dataclasses.replace(evidence, times_us={})) is None


def test_levers_point_to_the_next_value_and_name_the_child():
    one = found(but(launch=dict(blocks=66, waves=0.5)))["idle_sms"]
    assert one.levers == ("BLOCK_Q",) and one.moves == (insights.Move("BLOCK_Q", "64", 32, "v1@BLOCK_Q=32"),)
    waits = FIRES["stall_long_scoreboard"][0]
    assert [move.child for move in found(waits)["stall_long_scoreboard"].moves] == ["v1@STAGES=3"]
    assert found(dataclasses.replace(waits, levers={}))["stall_long_scoreboard"].moves == (), "no value is known"
    given = dataclasses.replace(waits, name="v1@STAGES=1", levers={**waits.levers, "STAGES": "1"})
    assert [move.child for move in found(given)["stall_long_scoreboard"].moves] == ["v1"], "the source's own value is not written"


def test_stale_evidence_makes_stale_insights():
    evidence = dataclasses.replace(FIRES["issue_slots"][0], stale=frozenset({"profile"}), launch={**GOOD.launch, "blocks": 66, "waves": 0.5})
    assert {name: one.stale for name, one in found(evidence).items()} == {"issue_slots": True, "idle_sms": False}


def test_defaults_of_levers_are_read_from_the_source(monkeypatch):
    monkeypatch.chdir(PROJECT)
    for name, source in variants.sources().items():
        if source.parent == variants.KERNELS:
            declared, given = variants.header(source).levers, variants.defaults(source)
            assert set(given) == set(declared), name
            assert all(value in map(str, declared[lever]) for lever, value in given.items()), name


# From a gap document

def test_a_gap_documents_entry_becomes_evidence():
    document = render.whole(page_data.realistic())
    fact = {**next(one for one in document["variants"] if one["name"] == "v2_wmma"), "default_levers": {"STAGES": "2"}, "floors": {"warm": {"floor_empty": 1.2}}}
    evidence = variant_evidence.of(document, fact)
    assert evidence.times_us["warm"] == 4.83 and evidence.vs_floor["warm"] == pytest.approx(4.83 / 2.05)
    assert evidence.arch == "sm_90a" and evidence.kernels == 1 and evidence.levers == {"STAGES": "2"} and evidence.launch["blocks"] == 32
    assert {"idle_sms", "issue_slots", "stall_long_scoreboard", "launch"} <= set(found(evidence))


def test_the_longest_kernel_counts_and_other_problems_do_not():
    def kernel(time, issue, name=page_data.GOAL):
        return dict(problem=name, kernel="k", metrics={DURATION: time, ISSUE: issue})

    document = page_data.on_h200()
    evidence = variant_evidence.of(document, page_data.fact("v1", profile=[kernel(1000.0, 50.0), kernel(3000.0, 20.0), kernel(9000.0, 5.0, page_data.CAUSAL)]))
    assert evidence.kernels == 2 and evidence.metrics[ISSUE] == 20.0


@pytest.mark.parametrize("name", page_data.EXTREMES)
def test_any_document_gives_evidence(name):
    document = render.whole(json.loads(json.dumps(page_data.EXTREMES[name]())))
    for fact in document["variants"]:
        insights.insights(variant_evidence.of(document, fact))
    hostile = dict(name="v1", launch=dict(blocks=True, sms="x", waves=float("nan")), profile=[dict(problem=page_data.GOAL, metrics={DURATION: "a", ISSUE: None})])
    assert insights.insights(variant_evidence.of(document, hostile)) == []
