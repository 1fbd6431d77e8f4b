"""The prompt for whoever writes the next kernel, a person or a program: the task (I1), what is there (I2), what holds it back (I3)."""

from __future__ import annotations

from typing import Any

from evosdpa import insights as rules, machine, problem as problems, variants
from evosdpa.config import Config
from evosdpa.evolve.lineage import History
from evosdpa.evolve.proposing import Elite
from evosdpa.finite import finite

CONTRACT = variants.INCLUDE / "sdpa.h"


def prompt(config: Config, device: str, arch: str, elites: list[Elite], parent: Elite, facts: dict[str, dict[str, Any]], history: History, number: int) -> str:
    """The whole prompt for one child of `parent`; `facts` are gap.json's of the elites by name, `number` tells children of one
    generation apart."""
    parts = [task(config, device, arch), there(elites, parent, facts, history), held_back(parent),
             asked(parent, number, config.evolve.generated)]
    return "\n\n".join(parts) + "\n"


def task(config: Config, device: str, arch: str) -> str:
    """I1: the goal, the device and the contract."""
    goal = problems.parse(config.goal.problem)
    lines = [
        "# Task", "",
        f"Write a faster {'CUDA kernel' if device != 'cpu' else 'C++ kernel for one CPU core'} for scaled-dot-product attention, forward, on {device} "
        f"({arch if device != 'cpu' else machine.cpu_name()}).",
        f"Goal: under {config.goal.time_us:g} us for the whole problem {goal.name} (batch {goal.batch}, {goal.heads_q} query heads, {goal.heads_kv} key heads, {goal.seq_q} "
        f"queries, {goal.seq_kv} keys, head_dim {goal.head_dim}, {goal.dtype}{', causal' if goal.causal else ''}), in "
        f"{' and '.join(config.goal.modes)} mode: warm has the inputs in L2, stream has new inputs and outputs for every launch.",
        f"The problem is {goal.flops / 1e9:.3g} GFLOP, {goal.bytes / 1e6:.3g} MB that must move and {goal.pairs / 1e6:.3g} million exponentials.",
    ]
    limits = machine.ARCHITECTURES.get(arch.rstrip("a")) if device != "cpu" else None
    if limits:
        lines.append(f"{arch} has, an SM: {limits['threads']} threads, {limits['registers']} registers, {limits['shared']} bytes of shared memory "
                     f"(a CTA at most {limits['shared_block']}).")
    lines += ["", "Compiled with: " + " ".join(config.compile.host_flags if device == "cpu" else [*config.compile.nvcc_flags, f"-arch={arch}"]) + f", includes from {variants.INCLUDE}/.",
              "A wrong answer is never timed: every row's error is held against PyTorch's own at that precision, on hundreds of problems that the kernel supports, with guard zones, "
              "different fillings of memory, changed inputs behind the same pointers, and compute-sanitizer. What a kernel does not support it refuses by "
              "sdpa_supports with a reason.",
              "", f"The contract, {CONTRACT}:", "", "```c", CONTRACT.read_text().rstrip(), "```", "",
              "The source begins with a block of YAML, and its levers are macros with defaults under #ifndef:", "",
              "```", "/* evo-sdpa", "title: what it is, a few words", "parent: the variant it was made from", "idea: what is different from the parent",
              "expects: your prediction, for example 3-4 us on the goal problem", "levers: {BLOCK_Q: [32, 64], STAGES: [2, 3]}", "*/", "```"]
    return "\n".join(lines)


def there(elites: list[Elite], parent: Elite, facts: dict[str, dict[str, Any]], history: History) -> str:
    """I2: the elites with their resources, what was tried and what came of it, and the parent's source."""
    lines = ["# What is there", "", "Elites, best first:", ""]
    for elite in elites:
        fact = facts.get(elite.name) or {}
        lines += [f"- {elite.name}: {fact.get('title') or ''}; {_times(elite)}", f"  {_resources(fact)}"]
    tried = [pair for pair in history.pairs]
    dropped = [child for screening, _ in history.generations for child in screening.children if child.dropped]
    wrong = [(screening.generation, one) for screening, population in history.generations for one in population.results if one.status != "ok"]
    if tried or dropped or wrong:
        lines += ["", "Tried so far (time over the parent's, below 1 is faster):", ""]
    for pair in tried:
        ratios = ", ".join(f"{one['ratio']:.3f} {mode} ({one['verdict']})" for mode, one in pair.result.against.items())
        lines.append(f"- {pair.child.name} from {pair.child.parent}: {ratios}")
    lines += [f"- {one.name}: {one.status.value}, {_line(one.reason)}" for _, one in wrong]
    lines += [f"- {child.name}: not measured, {_line(child.dropped)}" for child in dropped]
    source = variants.resolve(parent.name).source
    headers = [f"{path}" for path in variants.includes(source)]
    lines += ["", f"The parent is {parent.name}, {source}, with " + (", ".join(f"{lever}={value}" for lever, value in sorted(parent.evidence.levers.items())) or "no levers")
              + f". It includes {', '.join(headers) or 'nothing of this project'}, which you may include too.", "", "```c++", source.read_text().rstrip(), "```"]
    for header in variants.includes(source):
        if header != CONTRACT:
            lines += ["", f"{header}:", "", "```c++", header.read_text().rstrip(), "```"]
    return "\n".join(lines)


def held_back(parent: Elite) -> str:
    """I3: what the rules say about the parent."""
    lines = ["# What holds the parent back", ""]
    for one in parent.insights:
        readings = "; ".join(f"{reading.metric} {reading.value:.4g}{f' {reading.unit}' if reading.unit else ''}" for reading in one.readings)
        gain = rules.gain_us(one, parent.evidence)
        bound = f"at most {gain[1]:.2f} us of {gain[0]} ({one.bound.basis})" if gain else f"at most {100 * one.bound.share:.0f} % ({one.bound.basis})"
        lines.append(f"- {one.meaning}. Measured: {readings}. What to do: {one.technique}"
                     + (f"; levers {', '.join(one.levers)}" if one.levers else "") + f". It can gain {bound}.")
    if not parent.insights:
        lines.append("No rule speaks" + (": there is no profile of it." if not parent.evidence.metrics else "."))
    return "\n".join(lines)


def asked(parent: Elite, number: int, of: int) -> str:
    """What to answer."""
    return "\n".join([
        "# Answer", "",
        f"Answer with one complete {variants.resolve(parent.name).source.suffix} file and nothing else: the block of YAML, then the code. Change what the evidence points at and leave the rest. "
        f"This is child {number} of {of} in this generation: take another idea than the other children would."])


def _times(elite: Elite) -> str:
    times = elite.evidence.times_us
    return ", ".join(f"{mode} {time_us:.4g} us" for mode, time_us in sorted(times.items())) or "no time"


def _resources(fact: dict[str, Any]) -> str:
    """Registers, shared memory, occupancy, waves: what is known without a GPU."""
    launch = fact.get("launch") or {}
    words = []
    for key, text in (("registers", "{:.0f} registers a thread"), ("threads", "{:.0f} threads a CTA"), ("blocks", "{:.0f} CTAs"), ("blocks_per_sm", "{:.0f} CTAs fit on an SM")):
        if finite(launch.get(key)) is not None:
            words.append(text.format(launch[key]))
    shared = [finite(launch.get(key)) for key in ("static_shared_bytes", "dynamic_shared_bytes")]
    if any(one is not None for one in shared):
        words.append(f"{sum(one or 0 for one in shared):.0f} bytes of shared memory a CTA")
    if launch.get("limiter"):
        words.append(f"limited by {launch['limiter']}")
    return ", ".join(words) or "no static facts"


def _line(text: str) -> str:
    """The first line, at most 200 characters."""
    return text.partition("\n")[0][:200]
