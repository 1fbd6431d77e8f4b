"""What each process of a bench measured, from its samples."""

from __future__ import annotations

import gzip

import pytest

from evosdpa import evidence
from evosdpa.evidence import Bench, EvidenceError, Timing
from evosdpa.process_times import process_times
from workspace import PROJECT

GOAL = "b1h8s512d64-fp16"
MODES = ["warm", "stream"]
RECORDED = [path for path in sorted((PROJECT / "results/recorded/nvidia-h200").glob("*/bench.json")) if path.parent.name != "rivals"]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_the_accepted_medians_are_those_of_the_evidence(path):
    bench = evidence.read(path, Bench)
    found = process_times(path, bench, GOAL, MODES)
    for timing in bench.timings:
        if timing.problem == GOAL and timing.mode in MODES and timing.status == "ok":
            assert [one["median_us"] for one in found if one["mode"] == timing.mode and one["accepted"]] == pytest.approx(timing.process_medians_us, abs=2e-5)


def planted(folder, clocks, rejected=()):
    """A bench of three processes at 4, 5 and 6 us, with samples beside it."""
    lines = ["process,name,problem,mode,round,time_us,accepted"]
    lines += [f"{process},{name},{GOAL},warm,{number},{4 + process + (number - 1) / 10 + (name == 'floor')},1"
              for process in range(3) for name in ("v1", "floor") for number in range(3)]
    (folder / evidence.SAMPLES).write_bytes(gzip.compress("\n".join(lines).encode()))
    return Bench(variant="v1", clocks=clocks, timings=[Timing(name="v1", problem=GOAL, mode="warm", rejected=list(rejected))])


def clock(process, **during):
    return dict(process=process, problem=GOAL, mode="warm", before={"sm_mhz": 1900}, during=during, after={"sm_mhz": 1920}, late=1, samples=3)


def test_each_process_has_its_median_clock_and_verdict(tmp_path):
    bench = planted(tmp_path, [clock(0, sm_mhz=1980, sm_mhz_min=1965, sm_mhz_max=1980), clock(1, sm_mhz=1755), clock(2)], ["process 1: SM clock -11.4 % off"])
    found = process_times(tmp_path / "bench.json", bench, GOAL, MODES)
    assert [(one["process"], one["median_us"], one["sm_mhz"], one["accepted"], one["reason"]) for one in found] == [
        (0, 4.0, 1980, True, ""), (1, 5.0, 1755, False, "SM clock -11.4 % off"), (2, 6.0, 1910, True, "")]


def test_a_cpu_has_no_clocks_and_its_samples_are_not_opened(tmp_path):
    assert process_times(tmp_path / "absent.json", Bench(variant="v1", clocks=[dict(process=0, problem=GOAL, mode="warm", during={})]), GOAL, MODES) == []


def test_samples_that_cannot_be_read_are_one_line(tmp_path):
    bench = planted(tmp_path, [clock(0, sm_mhz=1980)])
    for damage in (b"no gzip", gzip.compress(b"a,b\n1,2\n"), (tmp_path / evidence.SAMPLES).read_bytes()[:40]):
        (tmp_path / evidence.SAMPLES).write_bytes(damage)
        with pytest.raises(EvidenceError, match="cannot be read as samples") as caught:
            process_times(tmp_path / "bench.json", bench, GOAL, MODES)
        assert "\n" not in str(caught.value)
