"""What holds a variant back: waterfalls, roofline, pipes and stalls as figures with one sentence each, from gap.json."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from evosdpa import peaks, waiting, waterfall
from evosdpa import problem as problems
from evosdpa.page import ladders, words
from evosdpa.peaks import Peaks
from evosdpa.problem import Problem
from evosdpa.waterfall import Waterfall

MOST_CHOICES = 30
"""Variants to choose from: those with a rank first, the fastest leading."""

PIPES = (
    # start of the metric's name, unit in words, in one word
    ("sm__pipe_tensor_cycles_active", "tensor cores", "tensor"),
    ("sm__pipe_fma_cycles_active", "FMA pipe", "fma"),
    ("sm__pipe_alu_cycles_active", "ALU pipe", "alu"),
    ("sm__inst_executed_pipe_xu.", "special functions (exp)", "xu"),
    ("smsp__issue_active", "issue slots", "issue"),
)
NEAR, BOUND = 60.0, 80.0
"""Percent of a unit's peak: below NEAR latency decides, from BOUND on the unit does (Nsight Compute's rules for its speed-of-light section)."""
MOST_STALLS = 9
"""States of a warp in one picture; the rest is one bar."""
NO_WAIT = {"selected": "nothing: it issues", "not_selected": "its turn: another warp issues"}
L2_BYTES = "lts__t_bytes.sum"
CLOSE = 0.03
"""Two ceilings within this share of each other are one line to the eye."""

MODEL = (
    "The model is the time line of one average warp. It begins with an empty launch. Then moving the bytes, the products and the exponentials can all go "
    "on at once, so only the longest is added: the bound. SMs without work, or a last wave that is not full, stretch it. A warp lives for its instructions "
    "times the cycles between two of them, both counted by the profile; what of that life exceeds the bound is split by what warps do in it. Bank conflicts "
    "are part of the waits for shared memory and taken out of them. The rest is unexplained. A step is no promise: take one wait away and warps may wait for "
    "the next thing. Kernels whose launches overlap, or that compute exponentials on other units, can beat launch and bound. The profile is of one launch "
    "with flushed caches, so its waits for memory can be longer than those of the timing, and the model may explain more than there is."
)


@dataclass(frozen=True)
class Subject:
    """A variant with a right time on the goal's problem on the leading device."""

    name: str
    fact: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    """Its rows by mode."""
    ranked: bool

    @property
    def state(self) -> str:
        """` (stale)` where it is."""
        return "" if self.ranked else " (stale)"

    def kernels(self, problem: str) -> list[dict[str, Any]]:
        """The profile's kernels on a problem; none unless the profile is ok."""
        step = (self.fact.get("steps") or {}).get("profile") or {}
        if step.get("status", "ok") != "ok":
            return []
        return [one for one in self.fact.get("profile") or [] if one.get("problem") == problem and one.get("metrics")]

    @property
    def profile_state(self) -> str:
        """Why there is no profile, or that it is out of date; empty for a current one."""
        step = (self.fact.get("steps") or {}).get("profile")
        if not step:
            return "not profiled"
        if step.get("status") != "ok":
            mark, reason = words.mark(step.get("status")).text, str(step.get("reason") or "")
            return f"profile: {mark}" + (f", {reason}" if reason else "")
        return "the profile is stale" if step.get("stale") else ""


@dataclass(frozen=True)
class Setting:
    """What all figures of the page's leading device share."""

    document: dict[str, Any]
    device: str
    device_words: str
    problem: Problem | None
    modes: tuple[str, ...]
    peaks: Peaks | None
    subjects: tuple[Subject, ...]
    left_out: int

    @property
    def nothing(self) -> str:
        """Why there is no gap to take apart; empty when there is one."""
        if self.device == "cpu":
            return f"{self.device_words}: a CPU’s time is not taken apart, the model is one of GPUs."
        if self.problem is None:
            return "The evidence names no problem."
        if not self.subjects:
            return f"No variant has a right time on the goal’s problem on {self.device_words}, so there is no gap to take apart."
        return ""


def setting(document: dict[str, Any]) -> Setting:
    """The leading device's variants with right times, the fastest first."""
    device, goal = str(document["leading_device"]), document["goal"]
    entry = next((one for one in document["devices"] if one.get("slug") == device), {"slug": device})
    modes = tuple(str(mode) for mode in goal.get("modes") or ["warm"])
    try:
        problem = problems.parse(str(goal.get("problem") or ""))
    except ValueError:
        problem = None
    facts = {str(fact.get("name")): fact for fact in document["variants"] if fact.get("device") == device}
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for row in document["rows"]:
        if (row.get("kind"), row.get("device"), row.get("problem")) == ("variant", device, goal.get("problem")) and _right(row):
            rows.setdefault(str(row.get("name")), {})[str(row.get("mode"))] = row
    found = [Subject(name, facts.get(name, {}), by_mode, any(ladders.is_ranked(row) for row in by_mode.values())) for name, by_mode in rows.items()
             if any(mode in by_mode for mode in modes)]
    found.sort(key=lambda one: (not one.ranked, [one.rows[mode]["time_us"] if mode in one.rows else math.inf for mode in modes], one.name))
    if device == "cpu":
        found = []
    return Setting(document, device, words.device_words(entry), problem, modes, peaks.DEVICES.get(device), tuple(found[:MOST_CHOICES]),
                   max(0, len(found) - MOST_CHOICES))


def _right(row: dict[str, Any]) -> bool:
    """A right time, perhaps out of date."""
    time = words.finite(row.get("time_us"))
    return row.get("status") == "ok" and time is not None and time > 0


# Waterfall

def waterfall_of(where: Setting, subject: Subject, mode: str) -> Waterfall | None:
    """A variant's waterfall in a mode; None where it was not timed."""
    row, fact = subject.rows.get(mode), subject.fact
    if row is None or where.problem is None:
        return None
    floors = (fact.get("floors") or {}).get(mode) or {}
    launch, kernels = fact.get("launch") or {}, subject.kernels(where.problem.name)
    blocks = words.finite(launch.get("blocks"))
    if blocks is None and len(kernels) == 1:
        blocks = float(math.prod(kernels[0].get("grid") or [0])) or None
    return waterfall.waterfall(
        row["time_us"], where.problem, empty_us=words.finite(floors.get("floor_empty")), bytes_us=words.finite(floors.get("floor_bytes")), peaks=where.peaks,
        mhz=words.finite((fact.get("sm_mhz") or {}).get(mode)), blocks=blocks, sms=where.peaks.sms if where.peaks else None,
        kernels=kernels)


def micros(value: float, total: float) -> str:
    """A step's microseconds with the decimals that three digits of the whole time have: steps can be added by eye."""
    decimals = max(0, 2 - math.floor(math.log10(total)))
    text = f"{abs(value):,.{decimals}f}"
    return f"−{text}" if value < 0 and float(text.replace(",", "")) else text


def _share(value: float, total: float) -> str:
    return f"{abs(value) / total:.0%}".replace("%", words.PERCENT)


def waterfall_answer(subject: Subject, found: Waterfall) -> str:
    """Where a variant's time goes, in the order of the picture."""
    total, name = found.measured_us, f"{subject.name}{subject.state}"
    said, bound = [], found.bound
    if launch := found.step("launch"):
        said.append(f"{micros(launch.us, total)} µs are an empty launch")
    if bound:
        said.append(f"{micros(bound.us, total)} µs {'its' if said else 'are its'} bound, {bound.label}")
    text = f"Of the {micros(total, total)} µs of {name}, {' and '.join(said)}." if said else f"{name} takes {micros(total, total)} µs; no floor or limit is known."
    idle = found.step("idle")
    if idle and idle.us >= 0.05 * total:
        text += f" Idle SMs or a last wave that is not full add {micros(idle.us, total)} µs ({idle.note})."
    waits = [step for step in found.steps if step.key in waterfall.STATES and step.us > 0]
    if waits:
        largest = max(waits, key=lambda step: step.us)
        takes = "takes" if largest.key == "issue" else "take"
        text += f" Of what its warps do beyond that, {largest.label} {takes} most: {micros(largest.us, total)} µs ({largest.note})."
    elif found.profiled:
        text += " By the profile its warps live no longer than that."
    rest = found.unexplained_us
    if rest < 0:
        text += f" The model over-explains by {micros(-rest, total)} µs" + ("; its waits are from a launch with flushed caches." if waits else ".")
    else:
        text += f" {micros(rest, total)} µs ({_share(rest, total)}) stay unexplained"
        text += "." if found.profiled else f": {subject.profile_state or 'the profile cannot be used'}."
    return text + (_out_of_date(subject) if found.profiled else "")


def _out_of_date(subject: Subject) -> str:
    """A sentence for a profile that is not today's; empty for a current one."""
    return f" {subject.profile_state[0].upper()}{subject.profile_state[1:]}." if subject.profile_state else ""


def waterfall_values(found: Waterfall) -> list[dict[str, Any]]:
    """Bars of a waterfall: where each step begins and ends, in microseconds."""
    total, at, values = found.measured_us, 0.0, []
    for step in found.steps:
        values.append(_bar(step.label, f"{micros(step.us, total)} µs · {step.basis}", at, at + step.us, step.basis, step.note))
        at += step.us
    rest = found.unexplained_us
    values.append(_bar("over-explained" if rest < 0 else "unexplained", f"{micros(rest, total)} µs", at, total, "unexplained", "; ".join(found.missing)))
    values.append(_bar("measured", f"{micros(total, total)} µs · measured", 0.0, total, "total", ""))
    return values


def _bar(label: str, value: str, low: float, high: float, basis: str, note: str) -> dict[str, Any]:
    return dict(label=label, value=value, low=float(f"{min(low, high):.4g}"), high=float(f"{max(low, high):.4g}"), basis=basis, note=note)


def waterfall_line(subject: Subject, found: Waterfall) -> dict[str, Any]:
    """One line of the table under the pictures: every step of a variant."""
    total, bound = found.measured_us, found.bound

    def cell(key: str) -> str:
        step = found.step(key)
        return micros(step.us, total) if step else words.NOTHING

    notes = ["" if subject.ranked else "stale", subject.profile_state, f"lacks {words.listed(found.missing, 6)}" if found.missing else ""]
    return dict(
        name=subject.name, ranked=subject.ranked, measured=micros(total, total), launch=cell("launch"), bound=micros(bound.us, total) if bound else words.NOTHING,
        bound_note=f"{bound.label}, {bound.basis}" if bound else "", steps=[cell(key) for key in ("idle", *waterfall.STATES)],
        unexplained=micros(found.unexplained_us, total), share=_share(found.unexplained_us, total),
        over=found.unexplained_us < 0, note="; ".join(filter(None, notes)))


# Roofline

@dataclass(frozen=True)
class Point:
    """One time under the ceilings."""

    name: str
    kind: str
    ranked: bool
    time: str
    tflops: float
    intensity: float
    """Operations per byte that must move."""
    l2_intensity: float | None
    """Operations per byte that passed through L2 in the profile; None where it was not profiled."""


@dataclass(frozen=True)
class Ceilings:
    """What the device can do at the clock of the times, 1e12 operations a second and 1e12 bytes a second."""

    mhz: float
    tensor: float | None
    exps: float
    dram: float
    read: bool
    """Whether the clock was read while timing; else it is the datasheet's."""

    @property
    def ridge(self) -> float | None:
        """Operations per byte from which the tensor cores and no longer DRAM are the ceiling."""
        return self.tensor / self.dram if self.tensor else None


def ceilings(where: Setting, mode: str) -> Ceilings | None:
    """The ceilings of the leading device for the goal's problem; None where no peak is on file."""
    if where.peaks is None or where.problem is None:
        return None
    read = next((mhz for one in where.subjects if (mhz := words.finite((one.fact.get("sm_mhz") or {}).get(mode)))), None)
    mhz = read or where.peaks.boost_mhz
    return Ceilings(mhz, where.peaks.tensor_tflops(mhz) if where.problem.dtype != "fp32" else None,
                    where.peaks.exp_tflops(where.problem.flops / where.problem.pairs, mhz), where.peaks.dram_tb_s, read is not None)


def points(where: Setting, mode: str) -> list[Point]:
    """Every right time on the goal's problem in a mode: variants and rivals, those with a rank first, the fastest leading."""
    if where.problem is None or where.device == "cpu":
        return []
    subjects = {one.name: one for one in where.subjects}
    found = []
    for entry in ladders.ladder(where.document, where.device, where.problem.name, mode).entries:
        if entry.kind == "floor" or not _right(entry.row):
            continue
        kernels = subjects[entry.name].kernels(where.problem.name) if entry.kind == "variant" and entry.name in subjects else []
        moved = math.fsum(words.finite(one["metrics"].get(L2_BYTES)) or 0.0 for one in kernels)
        found.append(Point(entry.name, entry.kind, entry.ranked, words.time_us(entry.row), where.problem.flops / entry.row["time_us"] / 1e6,
                           where.problem.flops / where.problem.bytes, where.problem.flops / moved if moved else None))
    return found


def roofline_answer(where: Setting, found: list[Point], top: Ceilings | None, mode: str) -> str:
    """How far the best is below which ceiling."""
    if not found:
        return where.nothing or f"No right time in {mode} mode on the goal’s problem."
    best = next((one for one in found if one.kind == "variant" and one.ranked), None) or next((one for one in found if one.ranked), found[0])
    text = f"{best.name}{'' if best.ranked else ' (stale)'} reaches {words.number(best.tflops)} TFLOP/s in {mode} mode"
    if top is None:
        return f"{text}. No peak rates of {where.device_words} are on file, so no ceiling is drawn."
    clock = f"at {top.mhz:,.0f} MHz" + ("" if top.read else ", the datasheet’s clock, since none was read")
    if top.tensor is None:
        return f"{text}. The exp unit is saturated at {top.exps:,.0f} TFLOP/s ({clock}); no tensor peak on file is for this type."
    if abs(top.exps / top.tensor - 1) <= CLOSE:
        text += f": {_share(best.tflops, top.tensor)} of the {top.tensor:,.0f} at which tensor cores and exp unit are saturated both ({clock})."
    else:
        text += (f": {_share(best.tflops, top.tensor)} of the tensor cores’ {top.tensor:,.0f} and {_share(best.tflops, top.exps)} of the {top.exps:,.0f} at which "
                 f"the exp unit is saturated ({clock}).")
    side = "compute, not DRAM, is the ceiling" if top.ridge and best.intensity >= top.ridge else "DRAM is the ceiling"
    return f"{text} With {best.intensity:,.3g} operations per byte that must move, and a ridge at {top.ridge:,.3g}, {side} of this problem."


def roofline_line(point: Point, top: Ceilings | None) -> dict[str, Any]:
    """One line of the table under the roofline."""
    return dict(name=point.name, kind=point.kind, ranked=point.ranked, time=point.time, tflops=words.number(point.tflops), intensity=words.number(point.intensity),
                l2=words.number(point.l2_intensity), tensor=_share(point.tflops, top.tensor) if top and top.tensor else words.NOTHING,
                exps=_share(point.tflops, top.exps) if top else words.NOTHING)


# Pipes and stalls

@dataclass(frozen=True)
class Busy:
    """What a profile says of a variant's longest kernel."""

    pipes: list[tuple[str, str, float]]
    """Unit in words, in one word, percent of its peak."""
    stalls: list[tuple[str, float]]
    """State of a warp, cycles between two instructions; the largest first."""

    @property
    def cycles(self) -> float:
        """Cycles between two instructions of a warp."""
        return math.fsum(value for _, value in self.stalls)


def busy(kernels: list[dict[str, Any]]) -> Busy | None:
    """Pipes and stalls of the longest of some kernels; None without any."""
    if not kernels:
        return None
    metrics = max((one["metrics"] for one in kernels), key=lambda metrics: words.finite(metrics.get(waiting.DURATION)) or 0.0)
    pipes = [(label, short, value) for start, label, short in PIPES for name in sorted(metrics) if name.startswith(start)
             and (value := words.finite(metrics[name])) is not None]
    states = sorted(((reason, value) for reason, value in waiting.states(metrics).items() if value > 0), key=lambda pair: (-pair[1], pair[0]))
    return Busy(pipes, states) if pipes or states else None


def no_profile(where: Setting) -> str:
    """Why no variant has pipes and stalls to show."""
    states = dict.fromkeys(one.profile_state for one in where.subjects)
    reasons = [state for state in states if state and state != "not profiled"]
    return "No variant with a right time has a profile of the goal’s problem" + (f" ({reasons[0]})." if reasons else ".")


def pipes_answer(subject: Subject, found: Busy | None) -> str:
    """Which unit is busiest, and whether that says anything."""
    if found is None or not found.pipes:
        return f"Not known for {subject.name}: {subject.profile_state or 'the profile holds no pipe'}."
    label, _, value = max(found.pipes, key=lambda pipe: pipe[2])
    text = f"Busiest in {subject.name}: the {label}, at {words.number(value)}{words.PERCENT} of peak"
    if value >= BOUND:
        text += ". That is a unit at its limit: it bounds the kernel."
    else:
        text += ". That is near a limit." if value >= NEAR else ". No unit is near its limit: waiting decides."
    return text + _out_of_date(subject)


def stalls_answer(subject: Subject, found: Busy | None) -> str:
    """What warps wait for most."""
    if found is None or not found.stalls:
        return f"Not known for {subject.name}: {subject.profile_state or 'the profile holds no stall'}."
    waits = [pair for pair in found.stalls if pair[0] not in waiting.NO_WAIT]
    issues = next((value for reason, value in found.stalls if reason == "selected"), 0.0)
    if not waits:
        return f"Warps of {subject.name} do not wait."
    reason, value = waits[0]
    text = (f"Warps of {subject.name} wait most for {waiting.MEANING.get(reason, reason)} ({reason.replace('_', ' ')}): "
            f"{words.number(value)} of the {words.number(found.cycles)} cycles between two instructions, {_share(value, found.cycles)}")
    return text + (f"; they issue in {words.number(issues)}." if issues else ".") + _out_of_date(subject)


def busy_line(subject: Subject, found: Busy | None) -> dict[str, Any]:
    """One line of the table of pipes and stalls."""
    by_pipe = {short: f"{words.number(value)}{words.PERCENT}" for _, short, value in found.pipes} if found else {}
    waits = [(reason, value) for reason, value in found.stalls if reason not in waiting.NO_WAIT][:3] if found else []
    return dict(name=subject.name, ranked=subject.ranked, pipes=[by_pipe.get(short, words.NOTHING) for _, _, short in PIPES],
                cycles=words.number(found.cycles) if found and found.stalls else words.NOTHING,
                waits=", ".join(f"{reason.replace('_', ' ')} {value:.2f}" for reason, value in waits) or words.NOTHING, note=subject.profile_state)


def pipe_values(found: Busy | None) -> list[dict[str, Any]]:
    """Bars of pipe use."""
    return [dict(label=label, value=f"{words.number(value)}{words.PERCENT}", low=0.0, high=value, basis="near" if value >= NEAR else "pipe", note="")
            for label, _, value in found.pipes] if found else []


def stall_values(found: Busy | None) -> list[dict[str, Any]]:
    """Bars of what warps do between two instructions."""
    if found is None:
        return []
    values = [dict(label=reason.replace("_", " "), value=f"{value:.2f}", low=0.0, high=value, basis="issue" if reason in waiting.NO_WAIT else "wait",
                   note=waiting.MEANING.get(reason) or NO_WAIT.get(reason, "")) for reason, value in found.stalls[:MOST_STALLS]]
    rest = found.stalls[MOST_STALLS:]
    if rest:
        total = math.fsum(value for _, value in rest)
        values.append(dict(label=f"{len(rest)} others", value=f"{total:.2f}", low=0.0, high=total, basis="wait",
                           note=", ".join(reason.replace("_", " ") for reason, _ in rest)))
    return values
