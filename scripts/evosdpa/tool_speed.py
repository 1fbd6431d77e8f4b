"""How fast the tool itself is. Each benchmark compares two things of one run, so that a slow machine does not decide it."""

from __future__ import annotations

import json
import math
import os
import re
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


SIZES = (200, 1000, 5000)
"""Numbers of children that are planned and shown."""

_CHILD = """/* evo-sdpa
title: a child that returns at once
idea: it shows what a child costs the tool
expects: nothing
levers: {{A: [{values}], B: [{values}]}}
*/
#include "sdpa.h"
#ifndef A
#define A 0
#endif
#ifndef B
#define B 0
#endif
SDPA_API const char *sdpa_supports(const sdpa_problem *) {{ return nullptr; }}
SDPA_API size_t sdpa_workspace_bytes(const sdpa_problem *) {{ return 0; }}
SDPA_API int sdpa_launch(const sdpa_problem *, void *) {{ return 0; }}
"""
"""A wrong kernel, so that what it costs is the tool's: verify ends as soon as enough cases are wrong, and nothing is timed."""


def children(root: Path, folder: Path) -> dict[str, Any]:
    """What hundreds and thousands of children of one source cost: a dry run over all their jobs, then the gap and the page over evidence of all
    of them. One child is really measured; the others' evidence is a copy of its, under their names."""
    side = math.isqrt(max(SIZES) - 1) + 1
    names = [f"child@A={first},B={second}" for first in range(side) for second in range(side)]
    nothing_else = {section: {} for section in ("variants", "repeatability", "sweep", "operator", "evolve")}  # the others' variants are not there
    project = _project(root, folder, {**nothing_else, "device": "cpu", "bench": {"processes": 2, "cpu_samples": 3}})
    for source in [*(project / "kernels").glob("*.c*"), *(project / "kernels" / "planted").iterdir()]:
        source.unlink()
    (project / "kernels" / "child.cpp").write_text(_CHILD.format(values=", ".join(map(str, range(side)))))
    settings = yaml.safe_load((project / "config.yaml").read_text())

    def configure(count: int) -> None:
        (project / "config.yaml").write_text(yaml.safe_dump({**settings, "only": names[:count]}))

    sizes = []
    for count in SIZES:
        configure(count)
        seconds, megabytes, said = _cost(_snakemake("-n", "--quiet", "rules", "all"), project)
        sizes.append({"children": count, "jobs": _jobs(said), "plan_s": seconds, "plan_mb": megabytes})
    configure(1)
    _seconds(_snakemake("--cores", "2", "all"), project)
    made = sorted(path for path in (project / "results").rglob("*") if path.is_file() and names[0] in path.parts)
    for size in sizes:
        count = size["children"]
        configure(count)
        for name in names[1:count]:
            _as(project, names[0], name)
        plan = json.dumps({"config": yaml.safe_load((project / "config.yaml").read_text()), "names": names[:count], "device": None, "arch": machine.DEFAULT_ARCH,
                           "archs": {}})
        (project / "plan.json").write_text(plan)
        table, document, page = (project / "results" / name for name in ("gap.csv", "gap.json", "report.html"))
        size["gap_s"], size["gap_mb"], said = _cost([sys.executable, "scripts/build_gap.py", "--plan", "@plan.json", "--table", str(table), "--json", str(document)], project)
        if "left out" in said or ",True," in table.read_text():
            raise RuntimeError(f"evidence that should be good is left out or stale: {said[:300]}")
        size["page_s"], size["page_mb"], _ = _cost([sys.executable, "scripts/build_report.py", "--gap", str(document), "--output", str(page)], project)
        size.update(files=count * len(made), gap_csv_kb=_kilobytes(table), gap_json_kb=_kilobytes(document), page_kb=_kilobytes(page))
    growth = sizes[-1]["plan_s"] / sizes[-2]["plan_s"]
    times = SIZES[-1] / SIZES[-2]
    return {"status": "ok", "growth": round(growth, 1), "wanted": f"{times:g} times the children are planned in at most {1.2 * times:g} times the time",
            "met": growth <= 1.2 * times, "sizes": sizes}


def _cost(command: list[str], folder: Path) -> tuple[float, int, str]:
    """Seconds, largest memory (MB) and output of a command that must succeed."""
    with tempfile.TemporaryFile("w+") as said:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, text=True)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:6])}: {text[-500:]}")
    return round(seconds, 1), round(usage.ru_maxrss / 1024), text


def _jobs(said: str) -> int:
    """Jobs of a dry run, from its table."""
    return int(re.search(r"^total\s+(\d+)", said, re.MULTILINE)[1])


def _kilobytes(path: Path) -> int:
    return round(path.stat().st_size / 1000)


def _as(project: Path, measured: str, name: str) -> None:
    """One child's evidence as another one's; what is there already stays."""
    levers = dict(pair.split("=") for pair in name.split("@")[1].split(","))
    for folder in (project / "results" / "build" / "host", project / "results" / "cpu"):
        if (folder / name).exists():
            continue
        shutil.copytree(folder / measured, folder / name)
        for path in (folder / name).glob("*.json"):
            record = evidence.read(path, evidence.KINDS[path.stem])
            record.variant = name
            record.key_parts["levers"] = ",".join("=".join(pair) for pair in levers.items())
            record.key_parts["flags"] = record.key_parts["flags"].replace("-DA=0 -DB=0", " ".join(f"-D{lever}={value}" for lever, value in levers.items()))
            evidence.write(path, record)


BENCHMARKS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "compile_against_torch": compile_against_torch, "nothing_to_do": nothing_to_do, "plan_a_thousand": plan_a_thousand, "edit_to_page": edit_to_page,
    "children": children,
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
