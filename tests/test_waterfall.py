"""The waterfall's arithmetic on planted numbers: what is added, what overlaps, what stays unexplained."""

from __future__ import annotations

import page_data
import pytest

from evosdpa import gap_document, peaks, problem, waterfall
from evosdpa.evidence import Bench, Status, Timing
from evosdpa.profiling import STALL

GOAL = problem.parse("b1h8s512d64-fp16")
H200 = peaks.DEVICES["nvidia-h200"]
MHZ = 1980.0
FLOORS = dict(empty_us=0.75, bytes_us=1.45)
CHIP = dict(peaks=H200, mhz=MHZ, sms=132)


def kernel(instructions=1_000_000.0, grid=(16, 8, 1), block=(256, 1, 1), waves=0.97, conflicts=0.0, **states):
    """A kernel of a profile; states are cycles per issued instruction."""
    states = states or dict(long_scoreboard=2.0, short_scoreboard=1.0, barrier=1.0, selected=1.0)
    return dict(grid=list(grid), block=list(block), metrics={
        waterfall.INSTRUCTIONS: instructions, waterfall.WAVES: waves, waterfall.CONFLICTS: conflicts,
        **{STALL.format(reason): value for reason, value in states.items()}})


def keys(found):
    return [step.key for step in found.steps]


def total(found):
    return sum(step.us for step in found.steps) + found.unexplained_us


def test_the_limits_of_the_goal_problem():
    # 2^21 pairs at 16 exponentials and 4 x 64 operations: at head_dim 64 both limits are half a microsecond at 1980 MHz.
    found = waterfall.limits(GOAL, H200, MHZ, **FLOORS)
    assert found["bytes"] == (pytest.approx(0.70), "measured")
    assert found["exps"] == (pytest.approx(2**21 / (16 * 132 * 1980)), "modelled") and found["exps"][0] == pytest.approx(0.5015, abs=1e-4)
    assert found["flops"][0] == pytest.approx(0.5015, abs=1e-3)


def test_causal_counts_only_the_pairs_that_are_seen():
    causal = problem.parse("b1h8s512d64-fp16-causal")
    ratio = waterfall.limits(causal, H200, MHZ, None, None)["exps"][0] / waterfall.limits(GOAL, H200, MHZ, None, None)["exps"][0]
    assert ratio == pytest.approx(513 / 1024)


def test_head_dim_128_halves_the_exponentials_of_a_product():
    found = waterfall.limits(problem.parse("b1h8s512d128-fp16"), H200, MHZ, None, None)
    assert found["flops"][0] == pytest.approx(2 * found["exps"][0], rel=1e-3)


def test_the_tensor_peak_is_not_that_of_fp32():
    assert set(waterfall.limits(problem.parse("b1h8s512d64-fp32"), H200, MHZ, **FLOORS)) == {"bytes", "exps"}


def test_limits_that_overlap_are_not_added():
    found = waterfall.waterfall(4.0, GOAL, **FLOORS, **CHIP, blocks=132)
    assert keys(found) == ["launch", "bytes", "idle"] and found.bound.us == pytest.approx(0.70)
    assert set(found.overlapped) == {"flops", "exps"} and "not added" in found.bound.note
    assert found.unexplained_us == pytest.approx(4.0 - 0.75 - 0.70)


@pytest.mark.parametrize("blocks, sms, expected", [(132, 132, 1.0), (128, 132, 132 / 128), (64, 132, 132 / 64), (133, 132, 2 * 132 / 133), (264, 132, 1.0),
                                                   (0, 132, None), (None, 132, None), (128, None, None)])
def test_idle_sms_stretch_what_is_done_sm_by_sm(blocks, sms, expected):
    assert waterfall.stretch(blocks, sms) == (expected if expected is None else pytest.approx(expected))


def test_idle_sms_cost_nothing_while_the_bytes_bind():
    found = waterfall.waterfall(4.0, GOAL, **FLOORS, **CHIP, blocks=128)
    assert found.step("idle").us == 0 and "bytes bind" in found.step("idle").note


def test_half_a_chip_makes_the_exponentials_bind():
    found = waterfall.waterfall(4.0, GOAL, **FLOORS, **CHIP, blocks=64)
    assert found.bound.key == "bytes" and found.step("idle").us == pytest.approx(0.5017 * 132 / 64 - 0.70, abs=1e-3)


def test_a_warps_life_is_its_instructions_times_the_cycles_between_them():
    alive = waterfall.life([kernel()], 132)
    assert alive.cycles == pytest.approx(1_000_000 / (128 * 8) * 5) and alive.tail_cycles == 0
    assert alive.shares() == pytest.approx(dict(memory=0.4, shared=0.2, issue=0.2, other=0.2))
    assert sum(alive.states.values()) == pytest.approx(alive.cycles)


def test_a_block_that_is_no_multiple_of_a_warp_has_one_more():
    assert waterfall.life([kernel(block=(48, 1, 1))], 132).cycles == pytest.approx(1_000_000 / (128 * 2) * 5)


def test_waves_follow_each_other_and_the_last_one_may_idle():
    alive = waterfall.life([kernel(waves=2.25)], 132)
    once = waterfall.life([kernel()], 132).cycles
    assert alive.cycles == pytest.approx(3 * once) and alive.tail_cycles == pytest.approx(0.75 * once)
    found = waterfall.waterfall(12.0, GOAL, **FLOORS, **CHIP, blocks=297, kernels=[kernel(waves=2.25)])
    assert found.step("idle").us == pytest.approx(0.75 * once / MHZ)
    assert total(found) == pytest.approx(12.0)


def test_only_the_excess_over_the_bound_is_split_among_the_waits():
    found = waterfall.waterfall(4.0, GOAL, **FLOORS, **CHIP, blocks=132, kernels=[kernel(grid=(132, 1, 1))])
    life_us = 1_000_000 / (132 * 8) * 5 / MHZ
    assert sum(found.step(key).us for key in waterfall.STATES) == pytest.approx(life_us - 0.70)
    assert found.step("memory").us == pytest.approx(0.4 * (life_us - 0.70))
    assert found.unexplained_us == pytest.approx(4.0 - 0.75 - life_us) and found.profiled and not found.missing


def test_bank_conflicts_are_taken_out_of_the_waits_for_shared_memory():
    without, with_ = (waterfall.waterfall(4.0, GOAL, **FLOORS, **CHIP, blocks=128, kernels=[kernel(conflicts=count)]) for count in (0, 128 * 198))
    assert with_.step("conflicts").us == pytest.approx(0.1)
    assert with_.step("shared").us == pytest.approx(without.step("shared").us - 0.1) and with_.unexplained_us == pytest.approx(without.unexplained_us)
    capped = waterfall.waterfall(4.0, GOAL, **FLOORS, **CHIP, blocks=128, kernels=[kernel(conflicts=1e9)])
    assert capped.step("shared").us == 0 and capped.step("conflicts").us == pytest.approx(without.step("shared").us)


def test_a_life_that_is_longer_than_the_time_over_explains():
    found = waterfall.waterfall(2.0, GOAL, **FLOORS, **CHIP, blocks=128, kernels=[kernel()])
    assert found.unexplained_us < 0 and all(step.us >= 0 for step in found.steps) and total(found) == pytest.approx(2.0)


def test_a_life_shorter_than_the_bound_leaves_no_waits():
    found = waterfall.waterfall(2.0, GOAL, **FLOORS, **CHIP, blocks=132, kernels=[kernel(instructions=1000.0)])
    assert all(found.step(key).us == 0 for key in waterfall.STATES) and found.unexplained_us == pytest.approx(2.0 - 1.45)


def test_bytes_faster_than_an_empty_launch_count_as_nothing():
    assert waterfall.limits(GOAL, None, None, 0.75, 0.74)["bytes"][0] == 0


@pytest.mark.parametrize("lost, said", [
    ("empty_us", "launch floor"), ("bytes_us", "limit of bytes"), ("peaks", "limit of exponentials"), ("mhz", "SM clock unknown"), ("blocks", "grid or number of SMs unknown"), ("sms", "grid or number of SMs unknown"),
    ("kernels", "no profile")])
def test_what_is_not_known_is_named_and_left_unexplained(lost, said):
    given = {**FLOORS, **CHIP, "blocks": 128, "kernels": [kernel()]}
    found = waterfall.waterfall(4.0, GOAL, **{**given, lost: None})
    assert any(said in one for one in found.missing) and total(found) == pytest.approx(4.0)


def test_nothing_known_leaves_everything_unexplained():
    found = waterfall.waterfall(4.0, GOAL)
    assert found.steps == () and found.unexplained_us == 4.0 and found.bound is None


@pytest.mark.parametrize("broken", [dict(grid=[]), dict(block=[0, 1, 1]), dict(metrics={}), dict(metrics=None)])
def test_half_a_profile_is_none(broken):
    assert waterfall.life([{**kernel(), **broken}], 132) is None


def test_kernels_of_one_launch_run_one_after_the_other():
    one, two = waterfall.life([kernel()], 132), waterfall.life([kernel(), kernel()], 132)
    assert two.cycles == pytest.approx(2 * one.cycles) and two.shares() == pytest.approx(one.shares())


def test_every_state_belongs_to_one_step():
    from evosdpa import profiling
    reasons = [*profiling.STALL_REASONS, "gmma"]
    assert {waterfall.group_of(reason) for reason in reasons} == {"memory", "shared", "issue", "other"}
    grouped = [reason for group in waterfall.GROUPS.values() for reason in group]
    assert len(grouped) == len(set(grouped)) and set(grouped) <= set(reasons)


def test_the_peaks_of_the_datasheet_agree_with_the_rates_per_clock():
    assert H200.half_tflops == pytest.approx(132 * 4096 * 1830 / 1e6, rel=1e-3)
    assert H200.exp_tflops(4 * 64, 1830) == pytest.approx(H200.tensor_tflops(1830), rel=1e-3), "at head_dim 64 both units are busy alike"


# What gap.json holds for it

def test_the_gap_gives_the_floors_and_the_clock_of_the_variants_own_processes():
    def floor(name, mode, time_us, **more):
        return Timing(name=name, problem=GOAL.name, mode=mode, time_us=time_us, **more)

    bench = Bench(variant="v", anchors=[
        floor("floor_empty", "warm", 0.75), floor("floor_bytes", "warm", 1.45), floor("floor_bytes", "stream", 2.3, status=Status.UNSTABLE),
        floor("sdpa-default", "warm", 9.0), Timing(name="floor_empty", problem="b1h8s512d128-fp16", mode="warm", time_us=0.9)],
        clocks=[dict(problem=GOAL.name, mode="warm", during=dict(sm_mhz=mhz)) for mhz in (1980, 1965, 1950)] + [
            dict(problem=GOAL.name, mode="stream", before=dict(sm_mhz=1900), after=dict(sm_mhz=1920)), dict(problem=GOAL.name, mode="cold", during={}),
            dict(problem="b1h8s512d128-fp16", mode="warm", during=dict(sm_mhz=1))])
    assert gap_document.own_floors(bench, GOAL.name) == {"warm": {"floor_empty": 0.75, "floor_bytes": 1.45}}
    assert gap_document.sm_mhz(bench, GOAL.name) == {"warm": 1965, "stream": 1910}


def test_the_planted_page_data_is_of_the_same_form():
    fact = page_data.fact("v")
    assert waterfall.life(fact["profile"], 132) is not None and set(fact["floors"]["warm"]) == {"floor_empty", "floor_bytes"}
