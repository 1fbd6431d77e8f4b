"""The prompt for whoever writes the next kernel, a person or a program: the task (I1), what is there (I2), what holds it back (I3)."""

from __future__ import annotations

from typing import Any

from evosdpa import insights as rules, machine, problem as problems, variants
from evosdpa.config import Config
from evosdpa.evolve.lineage import History
from evosdpa.evolve.proposing import Elite
from evosdpa.finite import finite

CONTRACT = variants.INCLUDE / "sdpa.h"

GATE = ("A wrong answer is never timed: every row's error is held against PyTorch's own at that precision, on hundreds of problems that the kernel supports, "
        "with guard zones, different fillings of memory, changed inputs behind the same pointers, and compute-sanitizer. What a kernel does not support it "
        "refuses by sdpa_supports with a reason.")

HEAD = """/* evo-sdpa
title: what it is, a few words
parent: the variant it was made from
idea: what is different from the parent
expects: your prediction, for example 3-4 us on the goal problem
levers: {BLOCK_Q: [32, 64], STAGES: [2, 3]}
*/"""

RESOURCES = (("registers", "registers a thread"), ("threads", "threads a CTA"), ("blocks", "CTAs"), ("blocks_per_sm", "CTAs fit on an SM"))
"""Static facts of a launch, and their words."""

Facts = dict[str, dict[str, Any]]
"""gap.json's entries about variants, by name."""


def prompt(config: Config, device: str, arch: str, elites: list[Elite], parent: Elite, facts: Facts, history: History, number: int) -> str:
    """The whole prompt for one child of `parent`; `number` tells the children of one generation apart."""
    parts = [
        "# Task", *task(config, device, arch, parent, facts.get(parent.name) or {}),
        "# What is there", *there(elites, facts), *tried(history), *source(parent),
        "# What holds the parent back", held_back(parent),
        "# Answer", asked(parent, number, config.evolve.generated)]
    return "\n\n".join(parts) + "\n"


def _code(text: str) -> str:
    return f"```c++\n{text.rstrip()}\n```"


def task(config: Config, device: str, arch: str, parent: Elite, fact: dict[str, Any]) -> list[str]:
    """I1: the goal, the device, what bounds the time there (floors and PyTorch's time, as measured beside the parent), and the contract."""
    goal, on_cpu = problems.parse(config.goal.problem), device == "cpu"
    what = f"C++ kernel for one CPU core ({machine.cpu_name()})" if on_cpu else f"CUDA kernel for {device} ({arch})"
    lines = [
        f"Write a faster {what}: scaled-dot-product attention, forward.",
        f"Goal: under {config.goal.time_us:g} us for the whole problem {goal.name}: batch {goal.batch}, {goal.heads_q} query heads, {goal.heads_kv} key heads, "
        f"{goal.seq_q} queries, {goal.seq_kv} keys, head_dim {goal.head_dim}, {goal.dtype}{', causal' if goal.causal else ''}; in "
        f"{' and '.join(config.goal.modes)} mode. Warm has the inputs in L2, stream has new inputs and outputs for every launch.",
        f"It is {goal.flops / 1e9:.3g} GFLOP, {goal.bytes / 1e6:.3g} MB that must move and {goal.pairs / 1e6:.3g} million exponentials."]
    if not on_cpu and (limits := machine.ARCHITECTURES.get(arch.rstrip("a"))):
        lines.append(f"An SM has {limits['threads']} threads, {limits['registers']} registers and {limits['shared']} bytes of shared memory; a CTA may have "
                     f"{limits['shared_block']} of them.")
    floors = [f"{name} {times['warm']:.3g} us" for name, times in sorted(parent.evidence.floors_us.items()) if "warm" in times]
    if floors:
        lines.append(f"No kernel can be faster than the floors (an empty launch; every byte read and written once), warm: {', '.join(floors)}.")
    lines += [f"The parent takes {one['ratio']:.3g} times as long as PyTorch ({one['name']}) in {mode} mode."
              for mode, one in sorted((fact.get("vs_anchor") or {}).items())]
    flags = config.compile.host_flags if on_cpu else [*config.compile.nvcc_flags, f"-arch={arch}"]
    return ["\n".join(lines), f"Compiled with {' '.join(flags)}, includes from {variants.INCLUDE}/. {GATE}", f"The contract, {CONTRACT}:",
            _code(CONTRACT.read_text()), "The source begins with a block of YAML; its levers are macros with defaults under #ifndef:", _code(HEAD)]


def there(elites: list[Elite], facts: Facts) -> list[str]:
    """I2: the elites with their times and what they cost."""
    lines = []
    for elite in elites:
        fact = facts.get(elite.name) or {}
        times = ", ".join(f"{mode} {time_us:.4g} us" for mode, time_us in sorted(elite.evidence.times_us.items())) or "no time"
        lines.append(f"- {elite.name}: {fact.get('title') or ''}; {times}\n  {_resources(fact.get('launch') or {})}")
    return ["Elites, best first:", "\n".join(lines)]


def tried(history: History) -> list[str]:
    """I2: what came of the children so far; nothing before there are some."""
    lines = []
    for pair in history.pairs:
        ratios = ", ".join(f"{one['ratio']:.3f} {mode} ({one['verdict']})" for mode, one in pair.result.against.items())
        lines.append(f"- {pair.child.name} from {pair.child.parent}: {ratios}")
    for screening, population in history.generations:
        lines += [f"- {one.name}: {one.status.value}, {_line(one.reason)}" for one in population.results if one.status != "ok"]
        lines += [f"- {child.name}: not measured, {_line(child.dropped)}" for child in screening.children if child.dropped]
    return ["Tried so far (time over the parent's, below 1 is faster):", "\n".join(lines)] if lines else []


def source(parent: Elite) -> list[str]:
    """I2: the parent's source, its levers, and the headers that it includes."""
    path, evidence = variants.resolve(parent.name).source, parent.evidence
    headers = variants.includes(path)
    now = ", ".join(f"{lever}={value}" for lever, value in sorted(evidence.levers.items())) or "no levers"
    may = "; ".join(f"{lever} {', '.join(map(str, values))}" for lever, values in sorted(evidence.declared.items())) or "none"
    parts = [f"The parent is {parent.name}, {path}, with {now}. Its levers may be: {may}. It includes {', '.join(map(str, headers)) or 'nothing of this project'}, "
             "which you may include too.", _code(path.read_text())]
    for header in headers:
        if header != CONTRACT:
            parts += [f"{header}:", _code(header.read_text())]
    return parts


def held_back(parent: Elite) -> str:
    """I3: what the rules say about the parent, each with its readings, what to do and the bound on what that can gain."""
    lines = []
    for one in parent.insights:
        readings = "; ".join(f"{reading.metric} {reading.value:.4g} {reading.unit}".strip() for reading in one.readings)
        gain = rules.gain_us(one, parent.evidence)
        bound = f"{gain[1]:.2f} us of {gain[0]}" if gain else f"{100 * one.bound.share:.0f} % of the time"
        levers = f"; levers {', '.join(one.levers)}" if one.levers else ""
        lines.append(f"- {one.meaning}. Measured: {readings}. What to do: {one.technique}{levers}. It can gain at most {bound} ({one.bound.basis}).")
    if not lines:
        return "No rule speaks." if parent.evidence.metrics else "No rule speaks; there is no profile of it."
    return "\n".join(lines)


def asked(parent: Elite, number: int, of: int) -> str:
    """What to answer."""
    suffix = variants.resolve(parent.name).source.suffix
    return (f"Answer with one complete {suffix} file and nothing else: the block of YAML, then the code. Change what the evidence points at and leave the "
            f"rest. This is child {number} of {of} in this generation: take another idea than the other children would.")


def _resources(launch: dict[str, Any]) -> str:
    """What a launch costs, as far as it is known without a GPU."""
    words = [f"{launch[key]:.0f} {text}" for key, text in RESOURCES if finite(launch.get(key)) is not None]
    shared = [one for key in ("static_shared_bytes", "dynamic_shared_bytes") if (one := finite(launch.get(key))) is not None]
    words += [f"{sum(shared):.0f} bytes of shared memory a CTA"] if shared else []
    words += [f"limited by {launch['limiter']}"] if launch.get("limiter") else []
    return ", ".join(words) or "no static facts"


def _line(text: str) -> str:
    """The first line, at most 200 characters."""
    return text.partition("\n")[0][:200]
