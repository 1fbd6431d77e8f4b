"""Worker: time subjects on problems in every mode.

Task: device, libraries {name: path}, floors [names among them], rivals [names], problems, modes, processes [indexes], seed,
samples, replay_us, mode_budget_s, max_call_s, tolerance. On a GPU each process index is a worker of its own; on a CPU this
worker forks one child an index, which saves importing PyTorch each time.
"""

from __future__ import annotations

import os
import random
import sys
import traceback
from functools import partial
from typing import Any

import torch

from evosdpa import problem as problems
from evosdpa.harness import report
from evosdpa.harness.compare import compare, pytorch, reference
from evosdpa.harness.rivals import default_backend, rivals_for
from evosdpa.harness.subjects import Inputs, LibrarySubject, Refused, RivalSubject, Subject
from evosdpa.harness.timing import CpuTimer, GpuTimer, clocks_reader, first_line
from evosdpa.problem import Problem


def _subjects(task: dict[str, Any], inputs: Inputs, send: Any) -> list[Subject]:
    """Everything that takes the problem; what refuses is reported with its reason."""
    available = {rival.name: rival for rival in rivals_for(task["device"])}
    makers = [
        *((name, lambda name=name, path=path: LibrarySubject(name, path, inputs, checked=name not in task["floors"]))
          for name, path in task["libraries"].items()),
        *((name, lambda name=name: RivalSubject(available[name], inputs)) for name in task["rivals"]),
    ]
    subjects = []
    for name, make in makers:
        try:
            subjects.append(make())
        except Refused as reason:
            send(event="skip", name=name, status="unsupported", reason=str(reason))
        except Exception as error:  # one that breaks must not end the others
            send(event="skip", name=name, status="error", reason=first_line(error))
    if "sdpa-default" in task["rivals"]:
        send(event="note", name="sdpa-default", note=f"PyTorch picks {default_backend(inputs.problem, *inputs.sets[0])}")
    return subjects


def _affordable(subjects: list[Subject], timer: Any, task: dict[str, Any], problem: Problem,
                rates: dict[str, float], send: Any) -> dict[str, float]:
    """Rough microseconds per launch of each subject; those over the limit are reported and left out.

    `rates` holds microseconds per operation from earlier problems: a call that would clearly take too long is not even tried.
    """
    rough: dict[str, float] = {}
    limit_us = task["max_call_s"] * 1e6
    for subject in subjects:
        expected = rates.get(subject.name, 0.0) * problem.flops
        try:
            took = expected if expected > 2 * limit_us else timer.single_us(subject)
        except Exception as error:  # one that breaks must not end the others
            send(event="skip", name=subject.name, status="error", reason=first_line(error))
            continue
        if took > limit_us:
            how = "would take about" if took == expected else "took"
            send(event="skip", name=subject.name, status="not_run",
                 reason=f"one call {how} {took / 1e6:.2g} s, over bench.max_call_s = {task['max_call_s']:g}")
            continue
        rates[subject.name] = took / problem.flops
        rough[subject.name] = took
    return rough


class _Judge:
    """Compares what timed launches left behind with the float64 reference of their input set.

    Outputs were poisoned just before the clock ran, so all of them must be finite; set 0 and some drawn at random are compared
    in full. References are kept: every mode asks for set 0.
    """

    DRAWN = 2

    def __init__(self, inputs: Inputs, tolerance: float, seed: int) -> None:
        self._inputs, self._tolerance = inputs, tolerance
        self._random = random.Random(seed)
        self._references: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def _reference(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index not in self._references:
            problem, tensors = self._inputs.problem, self._inputs.sets[index]
            self._references[index] = reference(problem, *tensors), pytorch(problem, *tensors)
        return self._references[index]

    def _fault(self, subject: Subject, sets: int, compared: list[int]) -> str:
        for index in range(sets):
            if not bool(torch.isfinite(subject.output(index)).all()):
                return f"input set {index} of {sets}: the timed launches left values that are not finite"
        for index in compared:
            judged = compare(self._inputs.problem, subject.output(index), *self._reference(index), self._tolerance)
            if judged.reason:
                return f"input set {index} of {sets}: {judged.reason}"
        return ""

    def check(self, subjects: list[Subject], sets: int, send: Any) -> None:
        """Report each subject's outputs of `sets` input sets as right or wrong."""
        compared = [0, *self._random.sample(range(1, sets), min(self.DRAWN, sets - 1))]
        for subject in subjects:
            if subject.checked:
                fault = self._fault(subject, sets, compared)
                send(event="output", name=subject.name, ok=not fault, reason=fault)


def measure(task: dict[str, Any], process: int) -> None:
    """Time everything once, as process number `process`, and report every sample."""
    torch.manual_seed(task["seed"] + process)
    if task["device"] == "cpu":
        torch.set_num_threads(1)
    task = {**task, "seed": task["seed"] + 7919 * process}
    timer = GpuTimer(task) if task["device"] == "cuda" else CpuTimer(task)
    read_clocks = clocks_reader(task["device"])
    rates: dict[str, float] = {}
    for name in task["problems"]:
        problem = problems.parse(name)
        inputs = Inputs(problem, task["device"])
        inputs.grow(1, task["seed"])

        def send(**fields: Any) -> None:
            report.send(process=process, problem=name, **fields)

        subjects = _subjects(task, inputs, send)
        rough = _affordable(subjects, timer, task, problem, rates, send)
        subjects = [subject for subject in subjects if subject.name in rough]
        wanted = set(task["libraries"]) - set(task["floors"])
        if wanted and not wanted & set(rough):
            continue  # the anchors alone are not worth the time
        judge = _Judge(inputs, task["tolerance"], task["seed"])
        for mode in task["modes"]:
            before = read_clocks()
            late = timer.late
            rows: dict[str, list[float]] = {}
            for subject_name, _, time_us in timer.samples(subjects, mode, problem, inputs, max(rough.values())):
                rows.setdefault(subject_name, []).append(round(time_us, 4))
            for subject_name, times in rows.items():
                send(event="samples", mode=mode, name=subject_name, times_us=times, launches=timer.launches[subject_name])
            send(event="clocks", mode=mode, before=before, after=read_clocks(), late=timer.late - late)
            for subject_name, reason in timer.failures.items():
                send(event="skip", mode=mode, name=subject_name, status="error", reason=reason)
            judge.check([subject for subject in subjects if subject.name in rows], timer.sets_for(problem, mode), partial(send, mode=mode))
        del subjects, inputs, judge
        if task["device"] == "cuda":
            torch.cuda.empty_cache()


def main() -> None:
    """Measure as every process index of the task."""
    task = report.read_task()
    report.send(event="start", torch=torch.__version__, rivals={rival.name: rival.version() for rival in rivals_for(task["device"])
                                                               if rival.name in task["rivals"]})
    if task["device"] == "cuda":
        for process in task["processes"]:
            measure(task, process)
        return
    for process in task["processes"]:
        child = os.fork()
        if child == 0:
            try:
                measure(task, process)
                sys.stdout.flush()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            os.kill(os.getpid(), os.WTERMSIG(status))  # end the way it ended
        if status:
            sys.exit(1)


if __name__ == "__main__":
    main()
