"""Worker under Nsight Compute: launch one variant on one problem inside the NVTX range. Task: library, sha256, variant, problem."""

import torch

from evosdpa import problem as problems
from evosdpa.harness import report
from evosdpa.harness.nvtx import launch_range
from evosdpa.harness.subjects import Inputs, LibrarySubject, Refused

WARM_UP = 2


def main() -> None:
    """Two launches outside the range, one inside it: that one is profiled."""
    task = report.read_task()
    problem = problems.parse(task["problem"])
    inputs = Inputs(problem, "cuda")
    inputs.grow(1, 1)
    try:
        subject = LibrarySubject(task["variant"], task["library"], task["sha256"], inputs, checked=True)
    except Refused as reason:
        report.send(event="refused", reason=str(reason))
        return
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            subject.launch(0)
        stream.synchronize()
        with launch_range(task["variant"], problem.name, "profile"):
            subject.launch(0)
        stream.synchronize()
    report.send(event="launched")


if __name__ == "__main__":
    report.run(main)
