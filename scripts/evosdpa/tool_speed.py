"""How fast the tool itself is. Each benchmark compares two things of one run, so that a slow machine does not decide it."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from evosdpa import evidence, machine
from evosdpa.evidence import Status, ToolSpeed

REPEATS = 3
"""Runs of each command; the median counts."""

KERNEL = "v2_wmma"
"""The variant whose compilation is compared."""

_BINDING = """#include <torch/extension.h>
#include "{source}"
bool supports(int64_t seq) {{ sdpa_problem p = {{}}; p.seq_q = p.seq_kv = seq; return sdpa_supports(&p) == nullptr; }}
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {{ m.def("supports", &supports); }}
"""

_LOAD = """import sys, time, torch.utils.cpp_extension as extension
started = time.monotonic()
extension.load("evosdpa_benchmark", [sys.argv[1]], extra_include_paths=[sys.argv[2]], build_directory=sys.argv[3],
               extra_cuda_cflags=["-O3", "-gencode", "arch=compute_90a,code=sm_90a"])
print(time.monotonic() - started)
"""


def _seconds(command: list[str], folder: Path) -> float:
    """Wall time of a command that must succeed."""
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])}: {(done.stderr or done.stdout)[-500:]}")
    return time.monotonic() - started


def _snakemake(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", *arguments]


def _project(root: Path, folder: Path, config: dict[str, Any] | None = None) -> Path:
    """A copy of the project's code and kernels without its results."""
    target = folder / "project"
    target.mkdir()
    for name in ("kernels", "profiles", "scripts"):
        shutil.copytree(root / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "config.yaml"):
        shutil.copy2(root / name, target / name)
    if config is not None:
        (target / "config.yaml").write_text(yaml.safe_dump({**yaml.safe_load((root / "config.yaml").read_text()), **config}))
    return target


def compile_against_torch(root: Path, folder: Path) -> dict[str, Any]:
    """One variant by the workflow's compile script against torch.utils.cpp_extension.load of the same source, cold both."""
    project = _project(root, folder)
    ours = statistics.median(
        _seconds([sys.executable, "scripts/compile_variant.py", KERNEL, "--arch", "sm_90a", "--settings", "{}", "--folder", f"out{number}"], project)
        for number in range(REPEATS))
    source = folder / "binding.cu"
    source.write_text(_BINDING.format(source=project / "kernels" / f"{KERNEL}.cu"))
    (folder / "torch").mkdir()
    done = subprocess.run([sys.executable, "-c", _LOAD, str(source), str(project / "kernels" / "include"), str(folder / "torch")],
                          capture_output=True, text=True)
    if done.returncode:
        return {"status": Status.NOT_RUN.value, "reason": f"torch.utils.cpp_extension.load cannot build CUDA here: {done.stderr.strip().splitlines()[-1][:200]}",
                "ours_s": round(ours, 2)}
    theirs = float(done.stdout.split()[-1])
    return {"status": "ok", "ours_s": round(ours, 2), "torch_s": round(theirs, 2), "ratio": round(theirs / ours, 1), "wanted": "ratio >= 10",
            "met": theirs / ours >= 10}


def nothing_to_do(root: Path, folder: Path) -> dict[str, Any]:
    """`snakemake all` with everything up to date, against `snakemake --version`."""
    project = _project(root, folder, {"device": "cpu", "only": ["v0_reference"], "bench": {"processes": 2, "cpu_samples": 3}})
    _seconds(_snakemake("--cores", "1", "all"), project)
    version = statistics.median(_seconds(_snakemake("--version"), project) for _ in range(REPEATS))
    nothing = statistics.median(_seconds(_snakemake("--cores", "1", "all"), project) for _ in range(REPEATS))
    return {"status": "ok", "all_s": round(nothing, 2), "version_s": round(version, 2), "difference_s": round(nothing - version, 2),
            "wanted": "difference <= 3 s", "met": nothing - version <= 3}


def plan_a_thousand(root: Path, folder: Path) -> dict[str, Any]:
    """A dry run over 1,000 more variants, each a source of its own, every step that this machine has."""
    project = _project(root, folder)
    text = (project / "kernels" / "v1_scalar.cu").read_text()
    for number in range(1000):
        (project / "kernels" / f"copy{number}.cu").write_text(text)
    taken = statistics.median(_seconds(_snakemake("-n", "--quiet", "all"), project) for _ in range(REPEATS))
    return {"status": "ok", "variants": 1000, "seconds": round(taken, 2), "gpu": bool(machine.gpus()), "wanted": "seconds <= 10", "met": taken <= 10}


def edit_to_page(root: Path, folder: Path) -> dict[str, Any]:
    """Edit v0, then the time until the page shows its new verdict, with two cores."""
    project = _project(root, folder, {"device": "cpu"})
    _seconds(_snakemake("--cores", "2", "all"), project)
    source = project / "kernels" / "v0_reference.cpp"
    times = []
    for number in range(REPEATS):
        source.write_text(source.read_text() + f"\nextern const int edited{number};\nconst int edited{number} = {number};\n")
        before = (project / "results/cpu/v0_reference/verify.json").read_text()
        times.append(_seconds(_snakemake("--cores", "2", "results/report.html"), project))
        if (project / "results/cpu/v0_reference/verify.json").read_text() == before:
            raise RuntimeError("the edit did not lead to a new verdict")
    taken = statistics.median(times)
    return {"status": "ok", "seconds": round(taken, 2), "cores": 2, "wanted": "seconds <= 15", "met": taken <= 15}


BENCHMARKS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "compile_against_torch": compile_against_torch, "nothing_to_do": nothing_to_do, "plan_a_thousand": plan_a_thousand, "edit_to_page": edit_to_page,
}


def measure(root: Path, names: list[str], say: Callable[[str], None]) -> ToolSpeed:
    """Run benchmarks, each in a fresh copy; one that cannot run here says why and the others go on."""
    gpu = machine.gpus()[0] if machine.gpus() else None
    record = ToolSpeed(variant="tool", device=gpu.slug if gpu else "cpu", started=evidence.now(), git=machine.git_state(),
                       device_info=machine.describe(gpu), tools={"python": sys.version.split()[0], "cores": str(os.cpu_count())})
    for name in names:
        with tempfile.TemporaryDirectory(prefix="evosdpa-speed-") as folder:
            try:
                record.results[name] = BENCHMARKS[name](root, Path(folder))
            except (RuntimeError, OSError) as error:
                record.results[name] = {"status": Status.ERROR.value, "reason": str(error)}
        say(f"{name}: {record.results[name]}")
    record.ended = evidence.now()
    return record
