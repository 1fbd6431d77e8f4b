"""What a binary tells without a GPU: registers, spills, shared memory, occupancy, waves, instruction mix."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from evosdpa import evidence, isolate, machine
from evosdpa.config import Config
from evosdpa.evidence import Build, Static, Status
from evosdpa.variants import Variant

_RESOURCE = re.compile(r"Function (\S+):\s*\n?\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
_SASS_FUNCTION = re.compile(r"Function : (\S+)")
_SASS_LINE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)

LIMITERS = {1: "warps", 2: "registers", 4: "shared memory", 8: "blocks", 16: "barriers"}
"""Bits of cuda_occupancy.h's limitingFactors."""

RESERVED_SHARED = {"sm_80": 1024, "sm_86": 1024, "sm_89": 1024, "sm_90": 1024}
"""Shared memory that the system keeps of each block (CUDA C++ Programming Guide); cuobjdump counts it in."""


def parse_resources(text: str, reserved: int) -> list[dict[str, Any]]:
    """Registers and memory of each kernel, from `cuobjdump --dump-resource-usage`."""
    return [
        dict(name=name, registers=int(registers), stack_bytes=int(stack), local_bytes=int(local),
             static_shared_bytes=max(0, int(shared) - reserved))
        for name, registers, stack, shared, local in _RESOURCE.findall(text)
    ]


def parse_sass(text: str) -> dict[str, Counter[str]]:
    """Counts of opcodes (with their modifiers) per kernel, from `cuobjdump --dump-sass`."""
    counts: dict[str, Counter[str]] = {}
    pieces = _SASS_FUNCTION.split(text)
    for name, body in zip(pieces[1::2], pieces[2::2]):
        counts[name] = Counter(_SASS_LINE.findall(body))
    return counts


def families(opcodes: Counter[str]) -> dict[str, int]:
    """Opcodes without modifiers, except where the modifier is the point (MUFU.EX2, LDGSTS); sorted by count."""
    merged: Counter[str] = Counter()
    for opcode, count in opcodes.items():
        base, *modifiers = opcode.split(".")
        merged[f"MUFU.{modifiers[0]}" if base == "MUFU" and modifiers else base] += count
    return dict(sorted(merged.items(), key=lambda pair: (-pair[1], pair[0])))


def _occupancy_program(folder: Path) -> tuple[Path | None, str]:
    """Build the small program around cuda_occupancy.h; returns its path or the reason why not."""
    include, compiler = machine.cuda_include(), machine.host_compiler()
    if include is None or compiler is None:
        return None, "cuda_occupancy.h or a C++ compiler is missing"
    program = folder / "occupancy"
    source = Path(__file__).with_name("occupancy.cpp")
    done = subprocess.run([compiler, "-O1", "-w", f"-I{include}", str(source), "-o", str(program)], capture_output=True, text=True)
    return (program, "") if done.returncode == 0 else (None, f"occupancy.cpp does not compile: {done.stderr[:200]}")


def occupancy(program: Path, arch: str, registers: int, static_shared: int, dynamic_shared: int, threads: int) -> dict[str, Any]:
    """Blocks per SM, what limits them, and the share of the SM's warps they fill (0..1)."""
    base = arch.rstrip("a")
    limits = machine.ARCHITECTURES[base]
    number = base.removeprefix("sm_")
    values = [number[:-1], number[-1], limits["threads"], limits["registers"], limits["shared"], limits["shared_block"],
              limits["sms"], registers, static_shared, dynamic_shared, threads]
    done = subprocess.run([str(program), *map(str, values)], capture_output=True, text=True)
    if done.returncode:
        return {"reason": f"cuda_occupancy.h refuses {threads} threads with {static_shared + dynamic_shared} bytes of shared memory"}
    blocks, mask = map(int, done.stdout.split())
    limiter = " and ".join(name for bit, name in LIMITERS.items() if mask & bit)
    warps = -(-threads // 32)
    return {"blocks_per_sm": blocks, "limiter": limiter, "occupancy": round(blocks * warps * 32 / limits["threads"], 4)}


def waves(blocks: int, blocks_per_sm: int, sms: int) -> dict[str, float]:
    """How often the grid fills the chip, and the share of the last wave's block slots that stay idle."""
    slots = blocks_per_sm * sms
    if not slots:
        return {}
    count = blocks / slots
    last = blocks % slots
    return {"waves": round(count, 4), "tail": round(1 - last / slots, 4) if last else 0.0}


def inspect_variant(variant: Variant, config: Config, arch: str, build: Build, library: Path, cubin: Path) -> Static:
    """Static facts of a built CUDA variant; every problem of the config whose launch the variant describes."""
    record = Static(variant=variant.name, device=arch, arch=arch, origin="static", started=evidence.now(),
                    key_parts=build.key_parts, key=build.key, git=machine.git_state())
    if build.status is not Status.OK:
        record.status, record.reason = Status.NOT_RUN, f"not built: {build.reason}"
    elif (cuobjdump := machine.tool("cuobjdump")) is None:
        record.status, record.reason = Status.NOT_RUN, "cuobjdump was not found; pip install -r envs/requirements.txt"
    else:
        record.tools = {"cuobjdump": machine.version(cuobjdump)}
        _dump(record, cuobjdump, arch, cubin)
        if record.status is Status.OK:
            _launches(record, variant, config, arch, library, build.library_sha256)
    record.ended = evidence.now()
    return record


def _dump(record: Static, cuobjdump: str, arch: str, cubin: Path) -> None:
    """Fill in the kernels of a cubin."""
    try:
        resources, sass = (
            subprocess.run([cuobjdump, option, str(cubin)], capture_output=True, text=True, timeout=120, check=True).stdout
            for option in ("--dump-resource-usage", "--dump-sass"))
    except (OSError, subprocess.SubprocessError) as error:
        record.status, record.reason = Status.ERROR, f"cuobjdump: {error}"
        record.log = evidence.clip(str(getattr(error, "stderr", "") or ""))
        return
    opcodes = parse_sass(sass)
    for kernel in parse_resources(resources, RESERVED_SHARED.get(arch.rstrip("a"), 0)):
        counts = opcodes.get(kernel["name"], Counter())
        record.kernels.append({**kernel, "instructions": families(counts), "total_instructions": sum(counts.values())})


def _launches(record: Static, variant: Variant, config: Config, arch: str, library: Path, sha256: str) -> None:
    """Fill in occupancy and waves of each problem, as far as the variant describes its launches."""
    limits = machine.ARCHITECTURES.get(arch.rstrip("a"))
    task = {"library": str(library.resolve()), "sha256": sha256, "problems": config.problems}
    outcome = isolate.run(isolate.python_worker("describe"), 60, task)
    if outcome.status is not Status.OK:
        record.launches = [{"problem": name, "reason": f"sdpa_describe: {outcome.reason}"} for name in config.problems]
        return
    with tempfile.TemporaryDirectory(prefix="evosdpa-") as scratch:
        program, why_not = _occupancy_program(Path(scratch))
        for entry in outcome.reports:
            if entry.get("reason"):
                record.launches.append(entry)
                continue
            matches = [kernel for kernel in record.kernels if entry["kernel"] and entry["kernel"] in kernel["name"]]
            threads = entry["block"][0] * entry["block"][1] * entry["block"][2]
            blocks = entry["grid"][0] * entry["grid"][1] * entry["grid"][2]
            entry = {**entry, "threads": threads, "blocks": blocks}
            if len(matches) != 1:
                entry["reason"] = f"sdpa_describe names kernel {entry['kernel']!r}, which is {len(matches)} of the cubin's kernels"
            elif program is None or limits is None:
                entry["reason"] = why_not or f"no table of limits for {arch}"
            else:
                kernel = matches[0]
                entry.update(kernel=kernel["name"], registers=kernel["registers"], static_shared_bytes=kernel["static_shared_bytes"])
                entry.update(occupancy(program, arch, kernel["registers"], kernel["static_shared_bytes"], entry["dynamic_shared_bytes"], threads))
                if entry.get("blocks_per_sm"):
                    entry.update(waves(blocks, entry["blocks_per_sm"], limits["sms"]), sms=limits["sms"])
            record.launches.append(entry)

