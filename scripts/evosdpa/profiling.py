"""Nsight Compute over one variant: which metrics on which chip, and how its report becomes evidence."""

from __future__ import annotations

import csv
import io
import re
import subprocess
from pathlib import Path
from typing import Any

from evosdpa import device as devices, evidence, isolate, keys, machine
from evosdpa.config import Config
from evosdpa.device import Held
from evosdpa.evidence import Build, Profile, Status, Verify
from evosdpa.harness.nvtx_names import RANGE
from evosdpa.progress import Progress
from evosdpa.variants import Variant

CORE = (
    "gpu__time_duration.sum",
    "sm__cycles_elapsed.avg.per_second",
    "dram__bytes_read.sum",
    "dram__bytes_write.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "lts__t_bytes.sum",
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    "sm__inst_executed_pipe_tensor.sum",
    "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active",
    "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active",
    "sm__pipe_alu_cycles_active.avg.pct_of_peak_sustained_active",
    "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "smsp__inst_executed.sum",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
    "smsp__sass_inst_executed_op_local_ld.sum",
    "smsp__sass_inst_executed_op_local_st.sum",
    "launch__registers_per_thread",
    "launch__occupancy_limit_registers",
    "launch__occupancy_limit_shared_mem",
    "launch__waves_per_multiprocessor",
)
"""4 passes on GH100 and AD102 (checked with CUPTI's host API); the launch__ ones cost none."""

STALL_REASONS = (
    "long_scoreboard", "short_scoreboard", "math_pipe_throttle", "mio_throttle", "lg_throttle", "barrier", "membar", "wait",
    "sleeping", "no_instruction", "branch_resolving", "dispatch_stall", "drain", "imc_miss", "not_selected", "selected",
)
STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
"""Warps stalled for a reason per issued instruction: they stack to the cycles between issues."""

HOPPER = (
    STALL.format("gmma"),
    "sm__inst_executed_pipe_tensor_op_gmma.sum",
    "l1tex__m_xbar2l1tex_read_bytes_pipe_tma.sum",
)

DEPRECATED_ON_ADA = {
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed": "sm__pipe_tensor_cycles_active_v2.avg.pct_of_peak_sustained_elapsed",
    "sm__inst_executed_pipe_tensor.sum": "sm__inst_executed_pipe_tensor_v2.sum",
}

NOT_PERMITTED = (
    "ncu may not read hardware counters here. Remedies: run as root or with CAP_PERFMON; or set the driver's option "
    "NVreg_RestrictProfilingToAdminUsers=0; or start the container with --cap-add=SYS_ADMIN"
)
"""NVIDIA's page on ERR_NVGPUCTRPERM names these three."""


def metrics_for(arch: str) -> list[str]:
    """Metric names that exist on an architecture."""
    names = [*CORE, *(STALL.format(reason) for reason in STALL_REASONS)]
    if arch.startswith("sm_90"):
        names += HOPPER
    if arch.startswith("sm_89"):
        names = [DEPRECATED_ON_ADA.get(name, name) for name in names]
    return names


def profile_parts(build: Build, config: Config, arch: str) -> dict[str, str]:
    """The parts of the content key as they are today."""
    settings = {"problems": config.profile.problems, "metrics": metrics_for(arch)}
    return {**build.key_parts, "binary": build.library_sha256, "protocol": keys.protocol(settings), "harness": keys.harness("profile")}


def parse_raw_page(text: str, wanted: list[str]) -> list[dict[str, Any]]:
    """Kernels of `ncu --import x.ncu-rep --page raw --csv`: kernel, grid, block, metrics, units.

    The page holds hundreds of columns (device attributes, minima, maxima); only the wanted metrics are kept.
    """
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.reader(io.StringIO("\n".join(lines))))
    if len(rows) < 3:
        return []
    names, units = rows[0], rows[1]
    kernels = []
    for row in rows[2:]:
        values = dict(zip(names, row))
        metrics: dict[str, float] = {}
        for name in wanted:
            try:
                metrics[name] = float(values.get(name, "").replace(",", ""))
            except ValueError:
                continue
        kernels.append(dict(
            kernel=values.get("Kernel Name", ""), grid=_triple(values.get("Grid Size", "")), block=_triple(values.get("Block Size", "")),
            metrics=metrics, units={name: unit for name, unit in zip(names, units) if name in metrics}))
    return kernels


def _raw_page(ncu: str, report: Path) -> str:
    """A report's raw page as CSV; empty when ncu cannot read it."""
    command = [ncu, "--import", str(report), "--page", "raw", "--csv", "--print-units", "base"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout if done.returncode == 0 else ""


def _triple(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def profile_variant(variant: Variant, config: Config, device: str, build: Build, verify: Verify, library: Path, report: Path) -> Profile:
    """Profile one launch per configured problem. Writes the .ncu-rep of each problem next to `report`.

    Without ncu: `not_run`. Without counter rights: `not_permitted` with the remedies. Neither stops anything else.
    """
    gpu = machine.gpu_for(device)
    parts = profile_parts(build, config, gpu.arch)
    record = Profile(variant=variant.name, device=device, started=evidence.now(), key_parts=parts, key=keys.combine(parts),
                     git=machine.git_state())
    ncu = machine.tool("ncu")
    if build.status is not Status.OK:
        record.status, record.reason = Status.NOT_RUN, f"not built: {build.reason}"
    elif verify.status is not Status.OK:
        record.status, record.reason = Status.NOT_RUN, f"not profiled because verify says {verify.status.value}"
    elif ncu is None:
        record.status, record.reason = Status.NOT_RUN, "ncu was not found; Nsight Compute comes with the CUDA toolkit"
    else:
        record.tools = {"ncu": machine.version(ncu)}
        progress = Progress(f"{variant.name} profile", len(config.profile.problems))
        with devices.hold(machine.gpus_for(device)) as held:
            record.started, record.device_info = evidence.now(), machine.describe(held.gpu)
            for number, problem in enumerate(config.profile.problems, 1):
                target = report.with_name(f"{report.stem}-{problem}.ncu-rep")
                _profile_problem(record, ncu, held, problem, library, build.library_sha256, target, config.profile.timeout_s)
                progress.step(number, problem)
                if record.status is not Status.OK:
                    break
    record.ended = evidence.now()
    return record


def _profile_problem(record: Profile, ncu: str, held: Held, problem: str, library: Path, sha256: str, target: Path,
                     timeout_s: float) -> None:
    """Profile one problem and add its kernels to the record, or set the record's status and reason."""
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [ncu, "--target-processes", "all", "--nvtx", "--nvtx-include", f"{RANGE}/", "--replay-mode", "kernel", "--cache-control",
               "all", "--clock-control", "none", "--metrics", ",".join(metrics_for(held.gpu.arch)), "--force-overwrite",
               "--export", str(target), *isolate.python_worker("profile")]
    task = {"library": str(library.resolve()), "sha256": sha256, "variant": record.variant, "problem": problem}
    outcome = held.run(command, timeout_s, task)
    refused = [one["reason"] for one in outcome.reports if one.get("event") == "refused"]
    if "ERR_NVGPUCTRPERM" in outcome.log:
        record.status, record.reason, record.log = Status.NOT_PERMITTED, NOT_PERMITTED, outcome.log
    elif refused:
        record.results.append({"problem": problem, "reason": refused[0]})
    elif outcome.status is not Status.OK:
        record.status, record.reason, record.log = outcome.status, f"{problem}: {outcome.reason}", outcome.log
    else:
        kernels = parse_raw_page(_raw_page(ncu, target), metrics_for(held.gpu.arch))
        if not kernels:
            record.status, record.reason, record.log = Status.ERROR, f"{problem}: ncu's report holds no kernel", outcome.log
        for kernel in kernels:
            record.results.append({"problem": problem, "cache_control": "all", "clock_control": "none", **kernel})
