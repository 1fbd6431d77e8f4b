"""Timers. A sample is one number for one subject; subjects are interleaved in shuffled order within each round."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from evosdpa.harness.nvtx import launch_range
from evosdpa.harness.report import first_line
from evosdpa.harness.subjects import Inputs, Subject
from evosdpa.problem import Problem

Sample = tuple[str, int, float]
"""Name of the subject, round, microseconds."""

Renew = Callable[[int], None]
"""Called with a round's number before that round: gives every input set other values in place."""

STREAM_L2_MULTIPLE = 3
"""Stream mode rotates over inputs and outputs of at least this multiple of the L2 cache."""

FLUSH_L2_MULTIPLE = 2
"""Cold mode writes a buffer of this multiple of the L2 cache before each sample (NVBench writes 1x, Triton 256 MB)."""

AHEAD_CYCLES = 200_000
"""A spin of about 100 us before each timed graph or launch lets the host queue everything first, as NVBench's blocking kernel
does. A subject for which that was too short gets twice as much from then on, up to MAX_AHEAD_CYCLES."""

MAX_AHEAD_CYCLES = 20_000_000

TRIAL_LAUNCHES = 10
"""Launches in the small graph from which the size of the timed one follows."""

EAGER_CALLS = 100

OVERLAP_US = 0.1
"""A launch overlaps the one before when it begins so much before that one's end; below it is the record's own resolution."""

MIN_SAMPLES = 5


def launches_for(single_us: float, replay_us: float) -> int:
    """Launches in one graph so that a replay lasts at least `replay_us`; event resolution is about 0.5 us."""
    return max(1, min(4000, math.ceil(1.15 * replay_us / max(single_us, 1e-3))))


def samples_for(single_us: float, launches: int, wanted: int, budget_s: float) -> int:
    """Samples to take: as many as wanted, fewer when calls are slow, never under MIN_SAMPLES."""
    return max(MIN_SAMPLES, min(wanted, int(budget_s * 1e6 / max(single_us * launches, 1e-3))))


class GpuTimer:
    """CUDA events around graph replays and single launches, on a stream of its own."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._task = task
        self._random = random.Random(task["seed"])
        self.stream = torch.cuda.Stream()
        self.l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
        self._flush = torch.empty(FLUSH_L2_MULTIPLE * self.l2_bytes, dtype=torch.uint8, device="cuda")
        self._driver = ctypes.CDLL("libcuda.so.1")
        self.late = 0
        """Samples dropped because the host had not queued everything before the GPU was ready."""
        self.launches: dict[str, int] = {}
        self._ahead: dict[str, int] = {}
        self.failures: dict[str, str] = {}
        """Subjects that could not be timed in the last call of samples(), with the reason."""
        self.warm_graphs: dict[str, torch.cuda.CUDAGraph] = {}
        self.launches_warm: dict[str, int] = {}
        """The graphs of mode warm that were timed last, and the launches in each; kept for span()."""

    def sets_for(self, problem: Problem, mode: str) -> int:
        """Input sets that a mode needs for a problem."""
        if mode == "stream":
            return max(2, math.ceil(STREAM_L2_MULTIPLE * self.l2_bytes / problem.bytes))
        return 3 if mode == "cold" else 1

    def single_us(self, subject: Subject) -> float:
        """Rough time of one launch, microseconds; also the warm-up."""
        torch.cuda.synchronize()  # inputs were written on another stream
        with torch.cuda.stream(self.stream):
            subject.launch(0)
            self.stream.synchronize()
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            subject.launch(0)
            end.record()
            self.stream.synchronize()
        return start.elapsed_time(end) * 1e3

    def _capture(self, subject: Subject, indexes: list[int]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self.stream):
            for index in sorted(set(indexes)):
                subject.launch(index)  # everything lazy happens before the capture
            self.stream.synchronize()
            # Not torch.cuda.graph(): it collects garbage and empties PyTorch's cache each time, which costs more than the capture.
            # No garbage collection inside: destroying a CUDA object while capturing would invalidate the graph.
            gc.disable()
            graph.capture_begin()
            try:
                for index in indexes:
                    subject.launch(index)
            except BaseException:
                with contextlib.suppress(RuntimeError):  # it would hide what went wrong
                    graph.capture_end()
                raise
            else:
                graph.capture_end()
            finally:
                gc.enable()
            graph.replay()
            self.stream.synchronize()
        return graph

    def _prepared(self, subjects: list[Subject], prepare: Callable[[Subject], None]) -> list[Subject]:
        """The subjects for which `prepare` went well; the others' reasons go into `failures`. Their outputs are then poisoned, so
        that only timed launches can make them right."""
        good = []
        for subject in subjects:
            try:
                prepare(subject)
                good.append(subject)
            except Exception as error:  # whatever a rival raises here must not end the others
                self.failures[subject.name] = first_line(error)
        with torch.cuda.stream(self.stream):
            for subject in good:
                subject.poison()
            self.stream.synchronize()
        return good

    def _timed(self, name: str, enqueue: Callable[[], None], before: Callable[[], None] | None = None, trial: bool = False) -> float | None:
        """Microseconds between two events around `enqueue`; None when the GPU was ready before the host had queued it all. A trial
        is no sample: it finds out how far ahead the host must be, and is not counted when it comes late."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        ahead = self._ahead.get(name, AHEAD_CYCLES)
        with torch.cuda.stream(self.stream):
            if before:
                before()
            torch.cuda._sleep(ahead)
            start.record()
            enqueue()
            end.record()
            late = start.query()
            self.stream.synchronize()
        if late:
            self.late += not trial
            self._ahead[name] = min(2 * ahead, MAX_AHEAD_CYCLES)
            return None
        return start.elapsed_time(end) * 1e3

    def _graph_us(self, name: str, graph: torch.cuda.CUDAGraph) -> float:
        """One replay, microseconds, tried until the host was in time; raises RuntimeError when it never is."""
        for _ in range(12):
            elapsed = self._timed(name, graph.replay, trial=True)
            if elapsed is not None:
                return elapsed
        raise RuntimeError(f"{name}: the host never queued a graph replay in time")

    def _fresh(self, number: int, subjects: list[Subject], renew: Renew) -> list[Subject]:
        """The subjects of a round. Before every round but the first the inputs get other values in place, and the outputs of what
        reads them in place are poisoned: only launches on the new inputs can make them right."""
        if number:
            renew(number)
            torch.cuda.synchronize()
            with torch.cuda.stream(self.stream):
                for subject in subjects:
                    if subject.reads_in_place:
                        subject.poison()
                self.stream.synchronize()
        return self._random.sample(subjects, len(subjects))

    def graph_samples(self, subjects: list[Subject], mode: str, sets: int, problem: Problem, renew: Renew) -> Iterator[Sample]:
        """Modes warm (one set) and stream (rotating sets): graph replay time over launches in it."""
        graphs: dict[str, torch.cuda.CUDAGraph] = {}
        slowest = 0.0

        def prepare(subject: Subject) -> None:
            nonlocal slowest
            trial = self._capture(subject, [0] * TRIAL_LAUNCHES)
            single = self._graph_us(subject.name, trial) / TRIAL_LAUNCHES
            count = math.ceil(launches_for(single, self._task["replay_us"]) / sets) * sets
            graphs[subject.name] = self._capture(subject, [number % sets for number in range(count)])
            self.launches[subject.name] = count
            slowest = max(slowest, single * count)

        subjects = self._prepared(subjects, prepare)
        if mode == "warm":
            self.warm_graphs, self.launches_warm = graphs, dict(self.launches)
        rounds = samples_for(slowest, 1, self._task["samples"], self._task["mode_budget_s"])
        for number in range(rounds):
            for subject in self._fresh(number, subjects, renew):
                with launch_range(subject.name, problem.name, mode):
                    elapsed = self._timed(subject.name, graphs[subject.name].replay)
                if elapsed is not None:
                    yield subject.name, number, elapsed / self.launches[subject.name]

    def cold_samples(self, subjects: list[Subject], sets: int, problem: Problem, single_us: float, renew: Renew) -> Iterator[Sample]:
        """Mode cold: one launch between two events after the L2 cache was overwritten. Contains about 2 us of event overhead."""
        rounds = samples_for(single_us, 1, self._task["samples"], self._task["mode_budget_s"])

        def prepare(subject: Subject) -> None:
            with torch.cuda.stream(self.stream):
                for index in range(sets):
                    subject.launch(index)  # everything lazy happens before the clock runs
                self.stream.synchronize()

        subjects = self._prepared(subjects, prepare)

        def flush() -> None:
            self._driver.cuCtxResetPersistingL2Cache()
            self._flush.fill_((number + turn) % 255)

        for number in range(0, rounds, sets):
            order = [(turn, subject) for turn in range(sets) for subject in self._fresh(0 if turn else number, subjects, renew)]
            for turn, subject in order:
                self.launches[subject.name] = 1
                with launch_range(subject.name, problem.name, "cold"):
                    elapsed = self._timed(f"{subject.name} cold", lambda: subject.launch(turn), flush)
                if elapsed is not None:
                    yield subject.name, number + turn, elapsed

    def eager_samples(self, subjects: list[Subject], problem: Problem, single_us: float, renew: Renew) -> Iterator[Sample]:
        """Mode eager: wall time of a loop of calls from Python to the end of the last, over their number."""
        calls = max(2, min(EAGER_CALLS, int(self._task["mode_budget_s"] * 1e6 / max(1.0, single_us) / MIN_SAMPLES)))
        rounds = samples_for(single_us, calls, 10, self._task["mode_budget_s"])

        def prepare(subject: Subject) -> None:
            with torch.cuda.stream(self.stream):
                subject.launch(0)
                self.stream.synchronize()

        subjects = self._prepared(subjects, prepare)
        for subject in subjects:
            self.launches[subject.name] = calls
        for number in range(rounds):
            for subject in self._fresh(number, subjects, renew):
                with torch.cuda.stream(self.stream), launch_range(subject.name, problem.name, "eager"):
                    self.stream.synchronize()
                    started = time.perf_counter()
                    for _ in range(calls):
                        subject.launch(0)
                    self.stream.synchronize()
                    yield subject.name, number, (time.perf_counter() - started) * 1e6 / calls

    def samples(self, subjects: list[Subject], mode: str, problem: Problem, inputs: Inputs, single_us: float, renew: Renew) -> Iterator[Sample]:
        """Samples of all subjects in one mode.

        Before each round but the first `renew` is called with the round's number and gives the inputs other values in place; the
        outputs that the last round leaves behind are the ones to judge.
        """
        sets = self.sets_for(problem, mode)
        self.failures = {}
        inputs.grow(sets, self._task["seed"])
        torch.cuda.synchronize()  # inputs and poison were written on another stream
        if mode in ("warm", "stream"):
            return self.graph_samples(subjects, mode, sets, problem, renew)
        if mode == "cold":
            return self.cold_samples(subjects, sets, problem, single_us, renew)
        return self.eager_samples(subjects, problem, single_us, renew)

    def span(self, subject: Subject) -> dict[str, Any]:
        """One replay of the subject's warm graph, the one that was timed, told by two clocks: CUDA events around it, and the activity
        record of the kernels it ran.

        Returns launches, event_us, span_us (first kernel's start to last kernel's end, over all streams), kernels, single (kernels of
        one launch by itself), overlapped (launches that began before the one before had ended) and the kernels' names. Work that
        events do not see, a launch that computes for many and launches that overlap all show. Raises RuntimeError when nothing
        was recorded.
        """
        graph, launches = self.warm_graphs[subject.name], self.launches_warm[subject.name]
        torch.cuda.synchronize()
        alone, _ = self._recorded(subject, lambda: subject.launch(0))
        ran, event_us = self._recorded(subject, graph.replay)
        single = len(alone)
        firsts = ran[single::single] if len(ran) == single * launches else []
        overlapped = sum(first.time_range.start < max(event.time_range.end for event in ran[number * single:(number + 1) * single]) - OVERLAP_US
                         for number, first in enumerate(firsts))
        span_us = max(event.time_range.end for event in ran) - ran[0].time_range.start
        return dict(launches=launches, event_us=round(event_us, 3), span_us=round(span_us, 3), kernels=len(ran), single=single, overlapped=overlapped,
                    names=sorted({event.name[:120] for event in ran}))

    def _recorded(self, subject: Subject, enqueue: Callable[[], None]) -> tuple[list[Any], float]:
        """What the GPU ran for `enqueue` in the order of its start, by the activity record, and the microseconds between two events."""
        for _ in range(6):
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                event_us = self._timed(f"{subject.name} span", enqueue, trial=True)
            ran = sorted((event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA),
                         key=lambda event: event.time_range.start)
            ran = [event for event in ran if "spin_kernel" not in event.name]  # torch.cuda._sleep's
            if event_us is not None and ran:
                return ran, event_us
        raise RuntimeError("no kernel was recorded, or the host never queued the launches in time")


class CpuTimer:
    """Wall time around loops of calls, one thread. Only mode warm: a CPU's caches are not ours to control."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._task = task
        self._random = random.Random(task["seed"])
        self.late = 0
        self.launches: dict[str, int] = {}
        self.failures: dict[str, str] = {}

    def sets_for(self, problem: Problem, mode: str) -> int:
        """Input sets that a mode needs: one."""
        return 1

    def single_us(self, subject: Subject) -> float:
        """Time of one call, microseconds; also the warm-up."""
        started = time.perf_counter()
        subject.launch(0)
        return (time.perf_counter() - started) * 1e6

    def samples(self, subjects: list[Subject], mode: str, problem: Problem, inputs: Inputs, single_us: float, renew: Renew) -> Iterator[Sample]:
        """Samples of all subjects, interleaved; the inputs are renewed before each round but the first, as on a GPU."""
        for subject in subjects:
            self.launches[subject.name] = launches_for(self.single_us(subject), self._task["replay_us"])
            subject.poison()  # only timed launches can make the outputs right
        for number in range(self._task["samples"]):
            if number:
                renew(number)
                for subject in subjects:
                    if subject.reads_in_place:
                        subject.poison()
            for subject in self._random.sample(subjects, len(subjects)):
                calls = self.launches[subject.name]
                started = time.perf_counter()
                for _ in range(calls):
                    subject.launch(0)
                yield subject.name, number, (time.perf_counter() - started) * 1e6 / calls


class ClockReader:
    """Clocks, power, temperature, throttle reasons and other processes of the GPU; the load average on a CPU.

    NVML may be missing or refuse a field; what cannot be read is left out, not guessed.
    """

    EVERY_S = 0.02

    def __init__(self, device: str) -> None:
        self._read: dict[str, Callable[[], Any]] = {}
        self._during: list[dict[str, Any]] = []
        self._last = 0.0
        if device == "cpu":
            self._read = {"load_1min": lambda: round(os.getloadavg()[0], 2)}
            return
        try:
            import pynvml

            pynvml.nvmlInit()
            uuid = "GPU-" + str(torch.cuda.get_device_properties(0).uuid).removeprefix("GPU-")
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except Exception as error:  # NVML raises its own classes; any of them means the same here
            message = f"NVML: {error}"
            self._read = {"unavailable": lambda: message}
            return
        self._read = {
            "sm_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            "throttle_reasons": lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
            "memory_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
            "power_w": lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "temperature_c": lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
            "pstate": lambda: pynvml.nvmlDeviceGetPerformanceState(handle),
            "processes": lambda: len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle)),
        }

    def _values(self, names: tuple[str, ...]) -> dict[str, Any]:
        values = {}
        for name in names:
            with contextlib.suppress(Exception):  # NVML raises its own classes; a field that cannot be read is left out
                values[name] = self._read[name]()
        return values

    def all(self) -> dict[str, Any]:
        """Everything that can be read now."""
        return self._values(tuple(self._read))

    def glance(self) -> None:
        """Between samples: note clock and throttle reasons, at most every EVERY_S seconds."""
        if time.monotonic() - self._last >= self.EVERY_S and "sm_mhz" in self._read:
            self._last = time.monotonic()
            self._during.append(self._values(("sm_mhz", "throttle_reasons")))

    def during(self) -> dict[str, Any]:
        """What was noted since the last call: the SM clock's median, minimum and maximum, and the throttle bits that were ever set."""
        noted, self._during = self._during, []
        clocks = sorted(one["sm_mhz"] for one in noted if "sm_mhz" in one)
        bits = 0
        for one in noted:
            bits |= one.get("throttle_reasons", 0)
        if not clocks:
            return {}
        return {"sm_mhz": clocks[len(clocks) // 2], "sm_mhz_min": clocks[0], "sm_mhz_max": clocks[-1], "throttle_reasons": bits, "readings": len(noted)}
