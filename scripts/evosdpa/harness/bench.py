"""Worker: time subjects on problems in every mode.

Task: device, libraries {name: {path, sha256}}, floors [names among them], rivals [names], problems, modes, processes [indexes], seed,
samples, replay_us, mode_budget_s, max_call_s, tolerance; spans (whether to compare events with the kernels' record). On a GPU each process index is a worker of its own; on a CPU this
worker forks one child an index, which saves importing PyTorch each time.
"""

from __future__ import annotations

import os
import random
import sys
from functools import partial
from typing import Any

import torch

from evosdpa import problem as problems
from evosdpa.harness import report
from evosdpa.harness.compare import compare, pytorch, reference
from evosdpa.harness.rivals import default_backend, rivals_for
from evosdpa.harness.subjects import Inputs, LibrarySubject, Refused, RivalSubject, Subject
from evosdpa.harness.report import first_line
from evosdpa.harness.timing import ClockReader, CpuTimer, GpuTimer
from evosdpa.problem import Problem

RENEWED = 15_485_863
"""Added to the seed, times the round's number, for the inputs of each round: values that no earlier launch has seen."""


def _subjects(task: dict[str, Any], inputs: Inputs, order: random.Random, send: Any) -> list[Subject]:
    """Everything that takes the problem; what refuses is reported with its reason.

    Made in an order drawn anew in each process: where an output lies in memory is worth a percent, and a fixed order would give
    the same subject the better place in all of them.
    """
    available = {rival.name: rival for rival in rivals_for(task["device"])}
    makers = [
        *((name, lambda name=name, file=file: LibrarySubject(name, file["path"], file["sha256"], inputs, checked=name not in task["floors"]))
          for name, file in task["libraries"].items()),
        *((name, lambda name=name: RivalSubject(available[name], inputs)) for name in task["rivals"]),
    ]
    subjects = []
    for name, make in order.sample(makers, len(makers)):
        try:
            subject = make()
            subjects.append(subject)
            if name in task["libraries"]:
                send(event="loaded", name=name, sha256=subject.sha256)
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
    in full.
    """

    DRAWN = 2

    def __init__(self, inputs: Inputs, tolerance: float, seed: int) -> None:
        self._inputs, self._tolerance = inputs, tolerance
        self._random = random.Random(seed)
        self._references: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def _fault(self, subject: Subject, sets: int, compared: list[int], references: dict[int, tuple[torch.Tensor, torch.Tensor]]) -> str:
        problem = self._inputs.problem
        for index in range(sets):
            if not bool(torch.isfinite(subject.output(index)).all()):
                return f"input set {index} of {sets}: the timed launches left values that are not finite"
        for index in compared:
            if index not in references:
                tensors = self._inputs.sets[index]
                references[index] = reference(problem, *tensors), pytorch(problem, *tensors)
            judged = compare(problem, subject.output(index), *references[index], self._tolerance)
            if judged.reason:
                return f"input set {index} of {sets}: {judged.reason}"
        return ""

    def check(self, subjects: list[Subject], sets: int, send: Any, renewed: bool) -> None:
        """Report each subject's outputs of `sets` input sets as right or wrong, for the inputs as they are now: the first ones,
        whose references are kept for the next mode, or renewed ones."""
        compared = [0, *self._random.sample(range(1, sets), min(self.DRAWN, sets - 1))]
        references = {} if renewed else self._references
        for subject in subjects:
            if subject.checked:
                fault = self._fault(subject, sets, compared, references)
                send(event="output", name=subject.name, ok=not fault, reason=fault)


def _time_mode(timer: Any, mode: str, subjects: list[Subject], inputs: Inputs, judge: _Judge, longest_us: float, seed: int,
               clocks: ClockReader, send: Any) -> None:
    """Time all subjects in one mode, judge what the timed launches left behind, report everything."""
    sets = timer.sets_for(inputs.problem, mode)
    rows: dict[str, list[float]] = {}
    first = True

    def renew(number: int) -> None:
        nonlocal first
        if first:  # a rival may have copied the first inputs into a layout of its own: only for those its output can be judged
            judge.check([subject for subject in subjects if subject.name in rows and not subject.reads_in_place], sets, send, False)
            first = False
        inputs.renew(seed + RENEWED * number)

    before, late = clocks.all(), timer.late
    for name, _, time_us in timer.samples(subjects, mode, inputs.problem, inputs, longest_us, renew):
        rows.setdefault(name, []).append(round(time_us, 4))
        clocks.glance()
    for name, times in rows.items():
        send(event="samples", name=name, times_us=times, launches=timer.launches[name])
    send(event="clocks", before=before, during=clocks.during(), after=clocks.all(), late=timer.late - late, samples=sum(map(len, rows.values())))
    for name, reason in timer.failures.items():
        send(event="skip", name=name, status="error", reason=reason)
    judge.check([subject for subject in subjects if subject.name in rows and subject.reads_in_place], sets, send, True)
    inputs.renew(seed)


def _spans(timer: GpuTimer, subjects: list[Subject], send: Any) -> None:
    """Report events against the kernels' own record, of every subject that is checked and was timed in mode warm."""
    for subject in subjects:
        if subject.checked and subject.name in timer.warm_graphs:
            try:
                send(event="span", name=subject.name, **timer.span(subject))
            except Exception as error:  # the activity record needs CUPTI, which may be missing or taken
                send(event="span", name=subject.name, reason=first_line(error))


def measure(task: dict[str, Any], process: int) -> None:
    """Time everything once, as process number `process`, and report every sample."""
    torch.manual_seed(task["seed"] + process)
    if task["device"] == "cpu":
        torch.set_num_threads(1)
    task = {**task, "seed": task["seed"] + 7919 * process}
    timer = GpuTimer(task) if task["device"] == "cuda" else CpuTimer(task)
    clocks = ClockReader(task["device"])
    order = random.Random(task["seed"])
    rates: dict[str, float] = {}
    for name in task["problems"]:
        problem = problems.parse(name)
        inputs = Inputs(problem, task["device"])
        inputs.grow(1, task["seed"])
        send = partial(report.send, process=process, problem=name)
        subjects = _subjects(task, inputs, order, send)
        rough = _affordable(subjects, timer, task, problem, rates, send)
        subjects = [subject for subject in subjects if subject.name in rough]
        wanted = set(task["libraries"]) - set(task["floors"])
        if wanted and not wanted & set(rough):
            continue  # the anchors alone are not worth the time
        judge = _Judge(inputs, task["tolerance"], task["seed"])
        for mode in task["modes"]:
            _time_mode(timer, mode, subjects, inputs, judge, max(rough.values()), task["seed"], clocks, partial(send, mode=mode))
        if task.get("spans"):
            _spans(timer, subjects, send)
        del subjects, inputs, judge
        if task["device"] == "cuda":
            timer.warm_graphs = {}
            torch.cuda.empty_cache()
    report.send(event="measured", process=process)


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
            report.run(partial(measure, task, process))
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            os.kill(os.getpid(), os.WTERMSIG(status))  # end the way it ended
        if status:
            sys.exit(1)


if __name__ == "__main__":
    report.run(main)
