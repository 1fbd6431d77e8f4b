"""This machine: its GPU, its compilers and tools, and what to do about those that are missing."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evosdpa.keys import digest

DEFAULT_ARCH = "sm_90a"
"""Architecture compiled for when no GPU is here: the H200's, with the instructions that wgmma and setmaxnreg need."""

OLDEST_NVCC = (12, 3)
"""Oldest nvcc that is fit: the first with everything PTX ISA 8.3 has for sm_90a."""

ARCHITECTURES = {
    # threads, registers, shared memory per SM, largest shared memory of a block, SMs of the named card
    "sm_80": dict(threads=2048, blocks=32, registers=65536, shared=167936, shared_block=166912, sms=108, card="A100"),
    "sm_86": dict(threads=1536, blocks=16, registers=65536, shared=102400, shared_block=101376, sms=84, card="A40"),
    "sm_89": dict(threads=1536, blocks=24, registers=65536, shared=102400, shared_block=101376, sms=142, card="L40S"),
    "sm_90": dict(threads=2048, blocks=32, registers=65536, shared=233472, shared_block=232448, sms=132, card="H100/H200 SXM"),
}
"""Limits per multiprocessor, from the CUDA C++ Programming Guide's table of compute capabilities, and the number of
multiprocessors of one common card, for occupancy and waves on a machine without that GPU."""


class MachineError(Exception):
    """A device is asked for that is not here; one line."""


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine, as nvidia-smi tells it."""

    index: int
    name: str
    uuid: str
    arch: str
    driver: str

    @property
    def slug(self) -> str:
        """The name in paths and tables: `NVIDIA H200` -> `nvidia-h200`."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


def output(command: list[str], timeout: float = 20) -> str | None:
    """Standard output of a command, or None when it is missing, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """GPUs that a program started here would see (CUDA_VISIBLE_DEVICES respected); empty without a driver."""
    query = "--query-gpu=index,name,uuid,compute_cap,driver_version"
    text = output(["nvidia-smi", query, "--format=csv,noheader"]) if shutil.which("nvidia-smi") else None
    found = []
    for line in (text or "").splitlines():
        index, name, uuid, capability, driver = (part.strip() for part in line.split(","))
        arch = "sm_" + capability.replace(".", "")
        found.append(Gpu(int(index), name, uuid, "sm_90a" if arch == "sm_90" else arch, driver))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        wanted = [one.strip() for one in visible.split(",") if one.strip()]
        found = [gpu for one in wanted for gpu in found if one in (str(gpu.index), gpu.uuid)]
    return tuple(found)


def gpu_for(device: str) -> Gpu | None:
    """The GPU that config.yaml's `device` or a job's means; None for no GPU.

    Raises MachineError when a GPU is named that is not here.
    """
    if device == "cpu":
        return None
    found = gpus()
    if device == "auto":
        return found[0] if found else None
    for gpu in found:
        if gpu.slug == device:
            return gpu
    here = ", ".join(f"{gpu.name} ({gpu.slug})" for gpu in found) or "no GPU"
    raise MachineError(f"{device} is asked for, and here is {here}")


def gpus_for(device: str) -> tuple[Gpu, ...]:
    """Every GPU of this machine of that kind (slug): evidence from one of them stands for all. Empty for the CPU.

    Raises MachineError when none is here.
    """
    first = gpu_for(device)
    return tuple(gpu for gpu in gpus() if gpu.slug == first.slug) or (first,) if first else ()


def _wheel_bin() -> Path:
    """Where NVIDIA's Python packages put their programs."""
    return Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "bin"


@functools.cache
def tool(name: str) -> str | None:
    """Path of a CUDA tool: on PATH, under CUDA_HOME or /usr/local/cuda, or from the Python packages; else None."""
    places = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    candidates = [shutil.which(name)]
    candidates += [str(Path(place) / "bin" / name) for place in places if place]
    candidates.append(str(_wheel_bin() / name))
    for path in candidates:
        if path and os.access(path, os.X_OK) and (name != "nvcc" or fit_nvcc(path)):
            return os.path.realpath(path)
    return None


@functools.cache
def version(path: str) -> str:
    """Version that a tool prints of itself: the last dotted number; `unknown` when it prints none."""
    text = output([path, "--version"]) or ""
    numbers = re.findall(r"\bV?(\d+(?:\.\d+)+)", text)
    return numbers[-1] if numbers else "unknown"


def fit_nvcc(path: str) -> bool:
    """Whether an nvcc is new enough."""
    parts = version(path).split(".")
    return parts[0].isdigit() and tuple(int(part) for part in parts[:2]) >= OLDEST_NVCC


def host_compiler() -> str | None:
    """Path of the C++ compiler: $CXX if set, else g++."""
    return shutil.which(os.environ.get("CXX") or "g++")


@functools.cache
def compiler_identity(cuda: bool) -> str:
    """What the build key says of the compiler: `nvcc 13.0.88` or `g++ 12.2.0`; `missing` when there is none."""
    path = tool("nvcc") if cuda else host_compiler()
    if not path:
        return "missing"
    if cuda:
        return f"nvcc {version(path)}"
    text = output([path, "-dumpfullversion"])
    return f"{Path(path).name} {text.strip() if text else version(path)}"


def cuda_include() -> Path | None:
    """A folder with cuda_occupancy.h: the toolkit's that nvcc belongs to, or the Python packages'."""
    nvcc = tool("nvcc")
    roots = [Path(nvcc).parent.parent] if nvcc else []
    roots += [Path(place) for place in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if place]
    for folder in [*(root / "include" for root in roots), _wheel_bin().parent / "include"]:
        if (folder / "cuda_occupancy.h").is_file():
            return folder
    return None


@functools.cache
def cpu_name() -> str:
    """Model of the CPU, as the kernel tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def visible(gpu: Gpu | None) -> dict[str, str]:
    """Environment that shows a process this GPU only, as device 0; no change without one."""
    return {"CUDA_VISIBLE_DEVICES": gpu.uuid} if gpu else {}


def cluster_job() -> dict[str, str]:
    """The SLURM job that this process runs in and the GPUs that it was given, by SLURM's numbers; empty outside one."""
    job = os.environ.get("SLURM_JOB_ID")
    return {"slurm_job": job, "slurm_gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")} if job else {}


def describe(gpu: Gpu | None) -> dict[str, Any]:
    """What identifies the device in evidence. The UUID is hashed: evidence is published."""
    info: dict[str, Any] = {"host_cpu": cpu_name(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.release()}", **cluster_job()}
    if gpu is None:
        return {"name": cpu_name(), **info}
    fields = "power.limit,clocks.max.sm,clocks.max.memory,memory.total,vbios_version,ecc.mode.current,persistence_mode,mig.mode.current"
    text = output(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "-i", str(gpu.index)]) or ""
    values = [value.strip() for value in text.strip().split(",")]
    if len(values) == len(fields.split(",")):
        info.update({name.replace(".", "_"): value for name, value in zip(fields.split(","), values)})
    return {"name": gpu.name, "arch": gpu.arch, "driver": gpu.driver, "uuid_digest": digest(gpu.uuid), **info}


def git_state() -> dict[str, Any]:
    """Commit of the working tree and whether tracked files have changes; empty outside git.

    For a copy on a machine without git or without the history, $EVOSDPA_COMMIT says which commit was copied there; whether it was
    changed since nobody looked, so `dirty` is None.
    """
    told = os.environ.get("EVOSDPA_COMMIT", "").strip()
    if re.fullmatch(r"[0-9a-f]{40}", told):
        return {"commit": told, "dirty": None, "told_by": "EVOSDPA_COMMIT"}
    commit = output(["git", "rev-parse", "HEAD"])
    if not commit:
        return {}
    return {"commit": commit.strip(), "dirty": bool(output(["git", "status", "--porcelain", "--untracked-files=no"]))}
