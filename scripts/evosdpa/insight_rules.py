"""The rules about what holds a variant back: when each speaks, on which readings, what to do, and the most that can gain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from evosdpa.between_runs import RUN_EFFECT
from evosdpa.peaks import FMA_FLOPS, MATRIX_FLOPS
from evosdpa.variant_evidence import CLOCK, Evidence
from evosdpa.waiting import ISSUE, MEANING, NO_WAIT
from evosdpa.waterfall import CONFLICTS, INSTRUCTIONS

PROFILE = "profile"
"""What a bound is a share of, beside the modes: the launch that Nsight Compute profiled. It began with flushed caches, so that its
shares stand for a warm launch only by and large."""

OURS = "this project's choice"
NCU_ISSUE = "Nsight Compute's rule IssueSlotUtilization: it speaks below 0.6 instructions a cycle and scheduler"
LEAST_SHARE = 3 * RUN_EFFECT
"""A gain below this share of the time could not be told from what one run differs from the next."""
LEAST_SOURCE = "three times the standard deviation from run to run (between_runs.RUN_EFFECT)"

WAVEFRONTS = "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum"
EXP = "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active"
TENSOR = "sm__pipe_tensor_cycles_active"
"""How the metric's name begins; sm_89 has it with `_v2`."""
LOCAL = ("smsp__sass_inst_executed_op_local_ld.sum", "smsp__sass_inst_executed_op_local_st.sum")
DRAM = "dram__throughput.avg.pct_of_peak_sustained_elapsed"
DRAM_BYTES = ("dram__bytes_read.sum", "dram__bytes_write.sum")

MATRIX_OPCODES = ("HGMMA", "HMMA", "IMMA")
EMPTY = "floor_empty"


@dataclass(frozen=True)
class Reading:
    """One number that a rule looked at."""

    metric: str
    value: float
    unit: str = ""
    """`%`, `us`, or what is counted."""


@dataclass(frozen=True)
class Bound:
    """The most that mending one thing can gain, everything else left as it is."""

    share: float
    """Of the time, 0 to 1."""
    of: str
    """A mode, or PROFILE."""
    basis: str
    """Why it cannot be more."""


@dataclass(frozen=True)
class Found:
    """What a rule's function saw: readings, the sentence, and the bound."""

    readings: tuple[Reading, ...]
    meaning: str
    bound: Bound


@dataclass(frozen=True)
class Rule:
    """A rule as data, and the function that looks."""

    name: str
    needs: tuple[str, ...]
    """Kinds of evidence (NEEDS) without which the rule is silent."""
    threshold: float
    unit: str
    source: str
    technique: str
    levers: tuple[tuple[str, int], ...]
    """Levers that it may point at, each with the direction: 1 for more, -1 for less."""
    look: Callable[[Evidence, float], Found | None]
    """Given the evidence and the threshold; None when all is well or a single metric is missing."""


NEEDS: dict[str, Callable[[Evidence], bool]] = {
    "static": lambda evidence: bool(evidence.busy_sms),
    "instructions": lambda evidence: bool(evidence.instructions),
    "profile": lambda evidence: bool(evidence.metrics),
    "warm": lambda evidence: "warm" in evidence.times_us,
    "stream": lambda evidence: "stream" in evidence.times_us,
    "floors": lambda evidence: bool(evidence.vs_floor.get("warm")),
    "empty": lambda evidence: bool(_empty(evidence)),
}
"""When each kind of evidence is there."""

STEP = {"static": "static", "instructions": "static", "profile": "profile", "warm": "times", "stream": "times", "floors": "floors", "empty": "floors"}
"""Where each kind of evidence is from: `inspect`, `profile`, or `bench` (times, and floors beside them)."""


def _empty(evidence: Evidence) -> float | None:
    """An empty launch in mode warm, microseconds."""
    return next((times["warm"] for name, times in sorted(evidence.floors_us.items()) if name.startswith(EMPTY) and times.get("warm")), None)


def _idle_sms(evidence: Evidence, threshold: float) -> Found | None:
    blocks, sms = evidence.launch["blocks"], evidence.launch["sms"]
    idle = 100 * (1 - blocks / sms)
    if idle < threshold:
        return None
    return Found((Reading("idle SMs", idle, "%"), Reading("CTAs", blocks), Reading("SMs", sms)),
                 f"{blocks:.0f} CTAs leave {sms - blocks:.0f} of {sms:.0f} SMs without work",
                 Bound(1 - blocks / sms, "warm", "the same work spread evenly over all SMs, each as fast as the busy ones are now"))


def _tail(evidence: Evidence, threshold: float) -> Found | None:
    blocks, sms, waves = evidence.launch["blocks"], evidence.launch["sms"], evidence.launch.get("waves")
    if blocks <= sms or not waves:
        return None
    if waves > 1:
        even, taken, what = waves, math.ceil(waves), "waves"
    else:  # all CTAs run at once, but some SMs have one more than others
        even, taken, what = blocks / sms, math.ceil(blocks / sms), "CTAs on the busiest SM"
    lost = 100 * (1 - even / taken)
    if lost < threshold:
        return None
    return Found((Reading("uneven share", lost, "%"), Reading(f"{what}, on average", even), Reading(what, taken)),
                 f"the work fills {even:.3g} and takes the time of {taken} {what}",
                 Bound(1 - even / taken, "warm", "the same CTAs spread evenly, without a part-filled end"))


def _issue(evidence: Evidence, threshold: float) -> Found | None:
    issue = evidence.metrics.get(ISSUE)
    if issue is None or issue >= threshold:
        return None
    readings = [Reading("issue slots used", issue, "%")]
    active = evidence.metric("sm__warps_active")
    if active is not None:
        readings.append(Reading("warps active", active, "%"))
    limiter, waves = str(evidence.launch.get("limiter") or ""), evidence.launch.get("waves")
    limits = "limit" if " and " in limiter or limiter.endswith("s") else "limits"
    why = ""
    if waves and waves <= 1:
        why = f"; the grid fills {100 * waves:.0f} % of the places for CTAs" + (f", which {limiter} {limits}" if limiter else "")
    elif limiter:
        why = f"; {limiter} {limits} the warps on an SM"
    return Found(tuple(readings), f"in {100 - issue:.0f} % of the cycles no warp of a scheduler can issue: latency, not a busy unit{why}",
                 Bound(1 - issue / 100, PROFILE, "the same instructions, one issued in every cycle"))


def _stall(reason: str) -> Callable[[Evidence, float], Found | None]:
    def look(evidence: Evidence, threshold: float) -> Found | None:
        states = evidence.states
        cycles, stalled = sum(states.values()), states.get(reason)
        if not stalled or cycles <= 0 or 100 * stalled / cycles < threshold:
            return None
        share, issue = stalled / cycles, evidence.metrics.get(ISSUE)
        bound, basis = share, "a warp that never waits for it, on the longest path of the kernel"
        if issue is not None and 1 - issue / 100 < share:
            bound, basis = 1 - issue / 100, "the same instructions, one issued in every cycle"
        return Found((Reading(f"stalled: {reason.replace('_', ' ')}", 100 * share, "%"), Reading("cycles between a warp's instructions", cycles)),
                     f"{100 * share:.0f} % of a warp's time it waits for {MEANING.get(reason, reason)}", Bound(bound, PROFILE, basis))
    return look


def _spills(evidence: Evidence, threshold: float) -> Found | None:
    local, every = sum(evidence.metrics.get(name, 0.0) for name in LOCAL), evidence.metrics.get(INSTRUCTIONS)
    if not every or local <= threshold:
        return None
    readings = [Reading("local loads and stores executed", local), Reading("of all instructions", 100 * local / every, "%")]
    if evidence.spill_bytes is not None:
        readings.append(Reading("spilled", evidence.spill_bytes, "bytes"))
    return Found(tuple(readings), f"registers are spilled: {100 * local / every:.2g} % of the instructions load or store them",
                 Bound(min(1.0, local / every + evidence.waits("long_scoreboard")), PROFILE,
                       "those instructions gone, and with them every wait for memory (long scoreboard)"))


def _no_matrix(evidence: Evidence, threshold: float) -> Found | None:
    found = sum(evidence.instructions.get(name, 0) for name in MATRIX_OPCODES)
    if found >= threshold or evidence.problem is None or evidence.problem.dtype == "fp32":
        return None  # in fp32 a matrix instruction would round to TF32
    readings, products = [Reading("matrix instructions in the code", found)], ""
    arch, sms, clock = evidence.arch.rstrip("a"), evidence.launch.get("sms"), evidence.metrics.get(CLOCK)
    if arch in FMA_FLOPS and sms and clock:
        scalar, matrix = (1e6 * evidence.problem.flops / (table[arch] * sms * clock) for table in (FMA_FLOPS, MATRIX_FLOPS))
        readings += [Reading("both products on CUDA cores, at least", scalar, "us"), Reading("both products on tensor cores, at least", matrix, "us")]
        products = f": at least {scalar:.2g} us there, {matrix:.2g} us on tensor cores"
    return Found(tuple(readings), f"both products run on CUDA cores{products}",
                 Bound(1 - 1 / evidence.vs_floor["warm"], "warm", "down to the slowest floor"))


def _shared(evidence: Evidence, threshold: float) -> Found | None:
    wavefronts, cycles = evidence.metrics.get(WAVEFRONTS), evidence.cycles
    if wavefronts is None or not cycles or 100 * wavefronts / evidence.busy_sms / cycles < threshold:
        return None
    share = wavefronts / evidence.busy_sms / cycles
    return Found((Reading("shared memory busy", 100 * share, "%"), Reading("wavefronts", wavefronts)),
                 f"shared memory is busy with loads and stores of warps for {100 * share:.0f} % of the cycles",
                 Bound(min(1.0, share + evidence.waits("short_scoreboard", "mio_throttle")), PROFILE,
                       "no such load or store left, a cycle of an SM each, nor any wait for one (short scoreboard, MIO throttle)"))


def _conflicts(evidence: Evidence, threshold: float) -> Found | None:
    conflicts, cycles, wavefronts = evidence.metrics.get(CONFLICTS), evidence.cycles, evidence.metrics.get(WAVEFRONTS)
    if conflicts is None or not cycles or 100 * conflicts / evidence.busy_sms / cycles < threshold:
        return None
    share = conflicts / evidence.busy_sms / cycles
    readings = [Reading("cycles lost to bank conflicts", 100 * share, "%"), Reading("bank conflicts", conflicts)]
    if wavefronts:
        readings.append(Reading("of the wavefronts", 100 * conflicts / wavefronts, "%"))
    return Found(tuple(readings), f"bank conflicts take {100 * share:.2g} % of the cycles of a busy SM",
                 Bound(min(1.0, share), PROFILE, "each conflict costs one cycle of an SM, all of them on the longest path"))


def _exp(evidence: Evidence, threshold: float) -> Found | None:
    busy = evidence.metrics.get(EXP)
    if busy is None or busy < threshold:
        return None
    return Found((Reading("exp and conversion unit busy", busy, "%"),), f"the unit for exponentials and conversions is busy {busy:.0f} % of the time",
                 Bound(min(1.0, busy / 100 + evidence.waits("short_scoreboard", "mio_throttle")), PROFILE,
                       "all of it hidden or moved to another pipe, and with it every wait for it (short scoreboard, MIO throttle)"))


def _pipe(start: str, words: str) -> Callable[[Evidence, float], Found | None]:
    def look(evidence: Evidence, threshold: float) -> Found | None:
        busy = evidence.metric(start)
        if busy is None or busy < threshold:
            return None
        return Found((Reading(f"{words} busy", busy, "%"),), f"the {words} is busy {busy:.0f} % of the time: what remains is at most the rest",
                     Bound(1 - busy / 100, PROFILE, "the same instructions on that pipe, without a gap"))
    return look


def _dram(evidence: Evidence, threshold: float) -> Found | None:
    busy, moved = evidence.metrics.get(DRAM), sum(evidence.metrics.get(name, 0.0) for name in DRAM_BYTES)
    if busy is None or busy < threshold or evidence.problem is None or not moved:
        return None
    extra = max(0.0, 1 - evidence.problem.bytes / moved)
    return Found((Reading("DRAM throughput, of its peak", busy, "%"), Reading("moved, over what must move", moved / evidence.problem.bytes, "x")),
                 f"DRAM moves {moved / evidence.problem.bytes:.2g} times the bytes that must move, at {busy:.0f} % of its peak",
                 Bound(extra + (1 - extra) * (1 - busy / 100), PROFILE, "only the bytes that must move, at DRAM's peak"))


def _launch(evidence: Evidence, threshold: float) -> Found | None:
    empty, time = _empty(evidence), evidence.times_us["warm"]
    share = 100 * empty / time
    if share < threshold:
        return None
    readings, more = (Reading("an empty launch", share, "%"), Reading("an empty launch", empty, "us")), evidence.kernels - 1
    if more > 0:
        return Found((*readings, Reading("kernels a launch", evidence.kernels)), f"an empty launch is {share:.0f} % of the time, and {more + 1} kernels run",
                     Bound(min(1.0, more * empty / time), "warm", "one kernel instead: an empty launch saved for each of the others"))
    return Found(readings, f"an empty launch alone is {share:.0f} % of the time; no change inside the kernel gains it",
                 Bound(0.0, "warm", "the empty launch is a floor; all that a kernel can change is the rest"))


def _cold_inputs(evidence: Evidence, threshold: float) -> Found | None:
    warm, stream = evidence.times_us["warm"], evidence.times_us["stream"]
    share = 100 * (1 - warm / stream)
    if share < threshold:
        return None
    return Found((Reading("slower with inputs from memory", share, "%"), Reading("warm", warm, "us"), Reading("stream", stream, "us")),
                 f"{share:.0f} % of the time in mode stream is the wait for inputs that are not in L2",
                 Bound(1 - warm / stream, "stream", "as fast as with the inputs in L2"))


STALLS: dict[str, tuple[str, tuple[tuple[str, int], ...]]] = {
    "long_scoreboard": ("start loads earlier: more tiles in flight (cp.async, TMA), the first ones before anything else; a warp that only fetches "
                        "waits on purpose",
                        (("STAGES", 1), ("PANEL", 1))),
    "short_scoreboard": ("fewer trips through shared memory and fewer special functions in a row: keep S and P in registers, reduce by shuffles late",
                         (("LANES_PER_ROW", -1),)),
    "math_pipe_throttle": ("another mix of instructions: move work off the busy pipe", ()),
    "mio_throttle": ("wider shared-memory instructions and fewer of them (ldmatrix, 16-byte accesses), shuffles and exponentials spread out", ()),
    "lg_throttle": ("wider global accesses and fewer of them (16 bytes a lane, TMA)", ()),
    "barrier": ("fewer or narrower barriers: mbarriers or named barriers between the warps that need them, work of even length between",
                (("NUM_WARPS", -1),)),
    "membar": ("fewer or narrower fences", ()),
    "wait": ("more independent instructions between dependent ones, or more warps to issue from", (("NUM_WARPS", 1),)),
    "no_instruction": ("shorter code: less unrolling, one path instead of several, so that it fits the instruction cache", ()),
    "branch_resolving": ("fewer branches in the loop: predicates or full unrolling", ()),
    "dispatch_stall": ("another order of instructions; seldom the kernel's own fault", ()),
    "drain": ("write the output wider and earlier, or by TMA", ()),
    "imc_miss": ("fewer kernel parameters and constants, or read them before the loop", ()),
    "sleeping": ("no nanosleep on the way", ()),
    "gmma": ("another warpgroup or tile whose softmax runs during this one's products", (("STAGES", 1),)),
}
"""What to do about each of Nsight Compute's stall reasons, and the levers that do it."""
assert not set(STALLS) & set(NO_WAIT)

STALL_SOURCE = OURS + "; Nsight Compute's CPIStall speaks from 30 %, which on a kernel of a few microseconds no single reason reaches"

RULES: tuple[Rule, ...] = (
    Rule("idle_sms", ("static",), 100 * LEAST_SHARE, "%", LEAST_SOURCE,
         "more CTAs: fewer query rows each, or keys split among CTAs (a cluster, or a second pass)",
         (("BLOCK_Q", -1), ("SPLIT", 1)), _idle_sms),
    Rule("tail", ("static",), 100 * LEAST_SHARE, "%", LEAST_SOURCE,
         "a grid that fills the SMs evenly: other tile sizes, or persistent CTAs that share the work out",
         (("BLOCK_Q", -1),), _tail),
    Rule("no_matrix_instructions", ("instructions", "floors"), 1, "matrix instructions", OURS,
         "matrix instructions for Q K^T and P V: mma.sync, on sm_90a wgmma", (), _no_matrix),
    Rule("issue_slots", ("profile",), 60, "%", NCU_ISSUE, "more to issue from: more warps on an SM, or independent work in each (two tiles interleaved)",
         (("NUM_WARPS", 1),), _issue),
    *(Rule(f"stall_{reason}", ("profile",), 10, "%", STALL_SOURCE, technique, levers, _stall(reason)) for reason, (technique, levers) in STALLS.items()),
    Rule("spills", ("profile",), 0, "local instructions", "any at all",
         "fewer live values: smaller tiles a warp, fewer unrolled steps, more warps with less each",
         (("BLOCK_KV", -1), ("NUM_WARPS", 1)), _spills),
    Rule("shared_memory_busy", ("static", "profile"), 25, "%", OURS,
         "more work for each byte read: more rows a lane in registers, ldmatrix, operands straight from shared memory (wgmma)",
         (("LANES_PER_ROW", -1), ("WARP_ROWS", 1)), _shared),
    Rule("bank_conflicts", ("static", "profile"), 100 * LEAST_SHARE, "%", LEAST_SOURCE,
         "a swizzle or padding so that the lanes of an access meet different banks", (), _conflicts),
    Rule("exponentials", ("profile",), 15, "%", OURS,
         "exponentials during products, some of them as a polynomial on the FMA pipe, or two at once in half precision", (), _exp),
    Rule("tensor_pipe_busy", ("profile",), 60, "%", OURS, "less redundant multiplication; otherwise it is close to its limit", (),
         _pipe(TENSOR, "tensor pipe")),
    Rule("fma_pipe_busy", ("profile",), 60, "%", OURS, "fewer multiply-adds: matrix instructions, a cheaper softmax", (),
         _pipe("sm__pipe_fma_cycles_active", "FMA pipe")),
    Rule("alu_pipe_busy", ("profile",), 60, "%", OURS, "fewer integer and comparison instructions: addresses outside the loop, three-way maxima",
         (), _pipe("sm__pipe_alu_cycles_active", "ALU pipe")),
    Rule("dram_busy", ("profile",), 60, "%", OURS, "each input read once: more reuse from L2 and shared memory", (), _dram),
    Rule("cold_inputs", ("warm", "stream"), 10, "%", OURS, "ask for the inputs earlier and all at once, before anything waits",
         (("STAGES", 1), ("PANEL", 1)), _cold_inputs),
    Rule("launch", ("warm", "empty"), 10, "%", OURS, "one kernel a launch, few parameters; beyond the kernel, more work a launch", (), _launch),
)
"""Every rule. A threshold is where the rule begins to speak; what it can gain is the bound's to say."""
