"""What holds a variant back, by the rules of insight_rules.py over its evidence, and what is done well.

Nothing here is formatted for a reader: the summary, the page and whatever proposes the next variant use the same insights. A rule
whose evidence is missing says nothing, and `unknown` names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evosdpa import problem as problems, variants
from evosdpa.insight_rules import DRAM_BYTES, LEAST_SHARE, LOCAL, NEEDS, PROFILE, RULES, STEP, WAVEFRONTS, Bound, Reading, Rule
from evosdpa.variant_evidence import Evidence
from evosdpa.waterfall import CONFLICTS


@dataclass(frozen=True)
class Move:
    """A lever and the value next to its own in the direction that a rule points to."""

    lever: str
    now: int | str
    then: int | str
    child: str
    """Name of the variant with that value."""


@dataclass(frozen=True)
class Insight:
    """One thing that holds a variant back."""

    rule: str
    readings: tuple[Reading, ...]
    threshold: float
    unit: str
    """Of the threshold, which the first reading crosses."""
    source: str
    """Where the threshold comes from."""
    meaning: str
    technique: str
    levers: tuple[str, ...]
    """Levers of the variant that it points at."""
    moves: tuple[Move, ...]
    bound: Bound
    stale: bool
    """Whether it rests on evidence that is out of date."""


@dataclass(frozen=True)
class Strength:
    """One thing that the evidence says is done well."""

    name: str
    meaning: str
    stale: bool


def insights(evidence: Evidence) -> list[Insight]:
    """What holds a variant back, that with the largest bound first."""
    found = []
    for rule in RULES:
        if not all(NEEDS[need](evidence) for need in rule.needs):
            continue
        seen = rule.look(evidence, rule.threshold)
        if seen is None:
            continue
        found.append(Insight(rule.name, seen.readings, rule.threshold, rule.unit, rule.source, seen.meaning, rule.technique,
                             tuple(lever for lever, _ in rule.levers if lever in evidence.declared), _moves(evidence, rule), seen.bound,
                             any(STEP[need] in evidence.stale for need in rule.needs)))
    return sorted(found, key=lambda one: -one.bound.share)


def unknown(evidence: Evidence) -> dict[str, list[str]]:
    """Rules that are silent for want of evidence, by what is missing: static, profile, times or floors."""
    missing: dict[str, list[str]] = {}
    for rule in RULES:
        for step in dict.fromkeys(STEP[need] for need in rule.needs if not NEEDS[need](evidence)):
            missing.setdefault(step, []).append(rule.name)
    return missing


def gain_us(insight: Insight, evidence: Evidence) -> tuple[str, float] | None:
    """The mode and the most that an insight can gain there, microseconds: never more than what lies above the slowest floor. None
    without a time. A share of the profiled launch is taken of a warm one."""
    mode = "warm" if insight.bound.of == PROFILE else insight.bound.of
    time = evidence.times_us.get(mode)
    if time is None:
        return None
    floor = evidence.vs_floor.get(mode)
    return mode, time * min(insight.bound.share, 1 - 1 / floor if floor and floor > 1 else 1.0)


def _moves(evidence: Evidence, rule: Rule) -> tuple[Move, ...]:
    """The next values of the levers that a rule points at; only levers whose value is known."""
    found = []
    for lever, direction in rule.levers:
        now = evidence.levers.get(lever)
        if not _is_whole(now):
            continue
        values = sorted((value for value in evidence.declared.get(lever, ()) if _is_whole(value) and (int(value) - int(now)) * direction > 0),
                        key=lambda value: abs(int(value) - int(now)))
        if values:
            found.append(Move(lever, now, values[0], _child(evidence, lever, values[0])))
    return tuple(found)


def _child(evidence: Evidence, lever: str, value: int | str) -> str:
    """Name of the variant with another value of one lever."""
    return variants.child(evidence.name.partition("@")[0], {**evidence.levers, lever: value}, evidence.defaults)


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and (isinstance(value, int) or isinstance(value, str) and value.isdigit())


# What is done well

def strengths(evidence: Evidence) -> list[Strength]:
    """What the evidence says is done well; nothing where it is silent."""
    found: list[tuple[str, str, str]] = []
    codes = evidence.instructions
    if codes.get("HGMMA"):
        found.append(("matrix_instructions", "both products on tensor cores, by wgmma", "static"))
    elif codes.get("HMMA"):
        found.append(("matrix_instructions", "both products on tensor cores, by mma.sync", "static"))
    if codes.get("UTMALDG"):
        found.append(("asynchronous_copies", "inputs fetched by TMA", "static"))
    elif codes.get("LDGSTS"):
        found.append(("asynchronous_copies", "inputs fetched by cp.async", "static"))
    busy, sms = evidence.busy_sms, evidence.launch.get("sms")
    if busy and 1 - busy / sms < LEAST_SHARE:
        found.append(("all_sms", f"{busy:.0f} of {sms:.0f} SMs have work", "static"))
    local = [evidence.metrics[name] for name in LOCAL if name in evidence.metrics]
    if evidence.spill_bytes == 0 and not any(local):
        found.append(("no_spills", "no register is spilled", "static"))
    conflicts, wavefronts = evidence.metrics.get(CONFLICTS), evidence.metrics.get(WAVEFRONTS)
    if conflicts is not None and wavefronts and conflicts / wavefronts < 0.01:
        found.append(("no_bank_conflicts", f"bank conflicts are {100 * conflicts / wavefronts:.2g} % of the shared-memory wavefronts", "profile"))
    read, problem = evidence.metrics.get(DRAM_BYTES[0]), evidence.problem
    if read and problem is not None:
        elements = problem.heads_q * problem.seq_q + 2 * problem.heads_kv * problem.seq_kv
        needed = elements * problem.batch * problem.head_dim * problems.ELEMENT_BYTES[problem.dtype]
        if 0.9 <= read / needed <= 1.1:
            found.append(("inputs_once", f"each input is read once from memory ({read / needed:.2f} times the bytes of q, k and v)", "profile"))
    return [Strength(name, meaning, step in evidence.stale) for name, meaning, step in found]
