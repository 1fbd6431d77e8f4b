"""A busy GPU beside a timing: what can be tested of it without two GPUs. Planted times; none was measured."""

from __future__ import annotations

import contextlib
import sys
import time

import page_data
import pytest

from evosdpa import benchmarking, config as configuration, device, evidence, machine, neighbour, variants
from evosdpa.evidence import Bench, Build, EvidenceError, Neighbour, Status, Timing, Verify
from evosdpa.page import neighbours, render
from page_tools import section, whole
from workspace import CONFIG, PROJECT

COUNTS = [sys.executable, "-c", "import itertools, time\nfor turn in itertools.count(1):\n print(turn, flush=True)\n time.sleep(0.01)"]
NOISE = (0.999, 1.001, 1.0)
SETTINGS = configuration.check({**CONFIG, "goal": {**CONFIG["goal"], "modes": ["warm", "stream"]}, "repeatability": {"runs": 4}})


def bench(warm_us: float, status: Status = Status.OK, **more) -> Bench:
    """A run with a time in modes warm and stream."""
    return Bench(variant="v1_scalar", status=status, timings=[
        Timing(name="v1_scalar", problem="p", mode=mode, time_us=time_us, process_medians_us=[one * time_us for one in NOISE], **more)
        for mode, time_us in (("warm", warm_us), ("stream", 20.0))])


def judged(ratios: list[float], **more) -> Neighbour:
    """The verdict on pairs of runs with these ratios in mode warm."""
    record = Neighbour(variant="v1_scalar")
    neighbour.judge(record, [(bench(10.0, **more), bench(10.0 * ratio)) for ratio in ratios], ["warm", "stream"])
    return record


def test_a_neighbour_that_slows_a_timing_is_told():
    record = judged([1.03, 1.031, 1.029, 1.03])
    assert record.status is Status.FAILED and record.reason.startswith("warm: slower beside a busy GPU, ratio 1.03")
    assert {one["mode"]: one["verdict"] for one in record.results} == {"warm": "slower", "stream": "same"}


@pytest.mark.parametrize("ratios, verdict", [([1.0, 1.001, 0.999, 1.0], "same"), ([0.97, 1.03, 1.0, 1.01], "undecided")])
def test_one_that_cannot_be_told_apart_is_fine(ratios, verdict):
    record = judged(ratios)
    assert record.status is Status.OK and record.results[0]["verdict"] == verdict


def test_pairs_drifting_together_do_not_count_as_a_difference():
    record = Neighbour(variant="v1_scalar")
    neighbour.judge(record, [(bench(10.0 * drift), bench(10.001 * drift)) for drift in (1.0, 1.1, 1.2, 1.3)], ["warm"])
    assert record.results[0]["verdict"] == "same"


def test_a_time_that_is_none_decides_nothing():
    record = Neighbour(variant="v1_scalar")
    neighbour.judge(record, [(bench(10.0), bench(30.0)), (bench(10.0), bench(10.0, Status.TIMEOUT))], ["warm"])
    assert record.status is Status.TIMEOUT and not record.results


# ---- The neighbour itself

def test_it_is_at_work_before_and_until_the_end():
    turns: list[int] = []
    with neighbour.busy(COUNTS, {}, turns):
        time.sleep(0.3)
    assert turns[0] > 5


@pytest.mark.parametrize("code, words", [("raise SystemExit('no GPU')", "did not start"), ("print(1, flush=True); raise SystemExit('out of memory')", "ended by itself")])
def test_one_that_is_not_at_work_is_no_neighbour(code, words):
    with pytest.raises(EvidenceError, match=words) as caught, neighbour.busy([sys.executable, "-c", code], {}, []):
        time.sleep(0.5)
    assert "\n" not in str(caught.value)


def test_it_ends_with_what_it_stands_beside():
    with pytest.raises(ZeroDivisionError), neighbour.busy(COUNTS, {}, []):
        raise ZeroDivisionError


# ---- The measurement

def measured(monkeypatch, gpus: list[machine.Gpu], name: str = "v1_scalar", **more) -> Neighbour:
    """The evidence on a machine with these GPUs."""
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(machine, "gpus", lambda: tuple(gpus))
    return neighbour.measure(variants.resolve(name), SETTINGS, "cpu" if name == "v0_reference" else "nvidia-h200", Build(variant=name), Verify(variant=name),
                             PROJECT / "kernel.so", {})


def gpu(number: int) -> machine.Gpu:
    return machine.Gpu(number, "NVIDIA H200", f"GPU-{number}-of-the-tests", "sm_90a", "580")


@pytest.mark.parametrize("gpus, name, reason", [
    ([gpu(0)], "v1_scalar", "a neighbour needs two GPUs of one kind, and here is one"),
    ([], "v0_reference", "a neighbour needs two GPUs of one kind, and here is no GPU"),
])
def test_without_two_gpus_it_says_that_it_was_not_run(monkeypatch, gpus, name, reason):
    record = measured(monkeypatch, gpus, name)
    assert (record.status, record.reason) == (Status.NOT_RUN, reason) and record.ended


def test_both_gpus_are_held_and_the_other_one_is_the_busy_one(monkeypatch, tmp_path):
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    now: list[str] = []
    seen: list[tuple[str, tuple[str, ...]]] = []

    @contextlib.contextmanager
    def busy(command, environment, turns):
        now.append(environment["CUDA_VISIBLE_DEVICES"])
        turns.append(7)
        yield
        now.clear()

    def measure(record, held, *rest, **more):
        seen.append((held.gpu.uuid, tuple(now)))
        record.timings = bench(10.3 if now else 10.0).timings

    monkeypatch.setattr(neighbour, "busy", busy)
    monkeypatch.setattr(benchmarking, "measure", measure)
    record = measured(monkeypatch, [gpu(0), gpu(1)])
    (own,) = {one for one, _ in seen}
    other = gpu(1 if own == gpu(0).uuid else 0).uuid
    assert [beside for _, beside in seen] == [(), (other,), (other,), ()] * 2
    assert record.status is Status.FAILED and record.turns == [7] * 4 and record.neighbour_info["name"] == "NVIDIA H200"


def test_what_was_found_is_kept_in_git_like_all_evidence(workspace):
    workspace.run("results/cpu/v0_reference/neighbour.json")
    workspace.run("record")
    kept = evidence.read(workspace.folder / "results" / "recorded" / "cpu" / "v0_reference" / "neighbour.json", Neighbour)
    assert kept.origin == "recorded" and kept.status is Status.NOT_RUN and "needs two GPUs" in kept.reason
    pieces = {one["kind"]: one for one in render.read(workspace.folder / "results" / "gap.json")["provenance"] if one["variant"] == "v0_reference"}
    assert pieces["neighbour"]["origin"] == "measured" and not pieces["neighbour"]["stale"]


# ---- The page

def shown(*verdicts: tuple[str, float, str], **more) -> dict:
    """A document with one variant timed beside a busy GPU: mode, ratio and verdict of each result."""
    results = [dict(mode=mode, ratio=ratio, low=ratio - 0.001, high=ratio + 0.001, verdict=verdict) for mode, ratio, verdict in verdicts]
    return whole(page_data.on_h200(neighbours=[dict(dict(
        device=page_data.H200, variant="v2", origin="recorded", status="ok", reason="", stale=False, changed=[], ended="2026-11-28T08:02:31Z",
        problem="b1h8s512d64-fp16", turns=[563, 633, 602], neighbour="NVIDIA H200", load="a product", results=results), **more)]))


@pytest.mark.parametrize("verdicts, begins", [
    ([("warm", 0.9992, "same"), ("stream", 1.0002, "same")], "Not by 0.5 % or more: beside a busy GPU v2 on NVIDIA H200 takes 0.999 × its time alone in mode warm (same) and 1.000 ×"),
    ([("warm", 1.031, "slower"), ("stream", 1.0002, "same")], "YES: beside a busy GPU v2 on NVIDIA H200 takes 1.031 × its time alone in mode warm (slower)"),
    ([("warm", 1.004, "undecided")], "Not that one could tell: beside a busy GPU v2 on NVIDIA H200 takes 1.004 × its time alone in mode warm (undecided)."),
])
def test_the_page_says_whether_a_neighbour_shows(verdicts, begins):
    (one,) = neighbours.of(shown(*verdicts))
    assert one.answer.replace("\u202f", " ").startswith(begins)
    assert one.about.startswith("b1h8s512d64-fp16; 3 pairs of runs by turns; beside it NVIDIA H200 of the same machine, at work for 563 to 633 turns a run, each a product;")
    assert one.about.endswith("; recorded; 2026-11-28")


def test_what_is_stale_or_was_not_run_says_so():
    (stale,) = neighbours.of(shown(("warm", 1.0, "same"), stale=True, changed=["protocol"]))
    assert stale.answer.startswith("Out of date (changed since: protocol): not by") and stale.mark.text == "stale"
    (none,) = neighbours.of(shown(status="not_run", reason="a neighbour needs two GPUs of one kind, and here is one", turns=[]))
    assert none.answer == "Not known for v2 on NVIDIA H200: not run, a neighbour needs two GPUs of one kind, and here is one." and not none.modes


def test_one_that_lost_a_mode_does_not_say_no():
    (lost,) = neighbours.of(shown(("warm", 1.0, "same"), status="unstable", reason="stream: 2 of 5 processes were steady"))
    assert lost.answer.startswith("Not known for v2 on NVIDIA H200: unstable, stream: 2 of 5 processes were steady; beside a busy GPU v2") and len(lost.modes) == 1
    (slower,) = neighbours.of(shown(("warm", 1.03, "slower"), status="timeout", reason="stream: timeout"))
    assert slower.answer.startswith("YES: beside a busy GPU")
    (empty,) = neighbours.of(whole(page_data.on_h200(neighbours=[dict(results=[{}, dict(mode="warm")])])))
    assert empty.answer.startswith("Not known for it on") and not empty.modes


def test_the_page_has_it_where_there_is_evidence_and_nothing_can_break_out(tmp_path):
    text = section(render.page(shown(("warm", 1.0, "same"), variant=page_data.HOSTILE, problem=page_data.HOSTILE), tmp_path), "gate")
    assert text.count('id="neighbour"') == 1 and "<img" not in text and "1.000" in text
    assert 'id="neighbour"' not in render.page(whole(page_data.on_h200()), tmp_path)
