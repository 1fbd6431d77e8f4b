"""Worker: ask a library which launches it would make. Task: library, sha256, problems (names). Needs neither GPU nor PyTorch."""

from evosdpa import problem as problems
from evosdpa.harness import report
from evosdpa.harness.abi import Library, struct_for


def main() -> None:
    """Report one entry a problem and kernel: problem, grid, block, dynamic_shared_bytes, kernel; or problem and reason."""
    task = report.read_task()
    library = Library(task["library"], task["sha256"])
    for name in task["problems"]:
        launches = library.describe(struct_for(problems.parse(name)))
        if not launches:
            reason = "the variant does not export sdpa_describe" if launches is None else "no launch described for this problem"
            report.send(problem=name, reason=reason)
        for launch in launches or []:
            report.send(problem=name, **launch)


if __name__ == "__main__":
    report.run(main)
