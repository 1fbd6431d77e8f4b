"""From evidence to the gap: what is current, what is stale, how far everything is from the goal, the rivals and the floor."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas

from evosdpa import benchmarking, between_runs, build, evidence, keys, machine, neighbour, operator, profiling, repeatability, sanitizing, selftest, standing, stats
from evosdpa import sweep, variants, verification
from evosdpa import problem as problems
from evosdpa.config import Config
from evosdpa.evidence import Bench, Build, EvidenceError, Head, Static, Status, Timing
from evosdpa.rival_names import ANCHOR
from evosdpa.variants import Variant

RESULTS = Path("results")
NO_DEVICE = ("build", "logs", "recorded")
"""Folders under results/ that are not devices."""
ORIGINS = {"measured": RESULTS, "recorded": RESULTS / "recorded"}
"""Where evidence lies, by where it came from."""

COLUMNS = {
    "kind": "variant, rival or floor",
    "name": "name of the variant, rival or floor",
    "device": "slug of the device, for example nvidia-h200 or cpu",
    "origin": "measured: on this machine; recorded: on another one, kept in git",
    "recorded_on": "UTC time at which the measurement ended; empty when there is none",
    "stale": "True when source, flags, protocol or harness changed since; never ranked",
    "problem": "for example b1h8s512d64-fp16-causal",
    "mode": "warm, stream, cold or eager; times of different modes are not comparable",
    "status": "ok, failed, error, timeout, unsupported, not_run, not_permitted, unstable or suspect",
    "reason": "one line for every status but ok",
    "time_us": "microseconds for the whole problem: geometric mean of the process medians",
    "ci_low_us": "lower end of the 95 % t interval over processes",
    "ci_high_us": "upper end of it",
    "tflops": "useful operations (4 x head_dim per query-key pair) over time, in 1e12 per second",
    "vs_goal": "time over the goal's time; only on the goal's problem",
    "vs_best_rival": "time over the best rival's, through what was timed in both runs (of the anchor's and the floors' ratios the middle one), empty without the "
                     "anchor; not in mode eager, where a rival also allocates its output",
    "vs_best_rival_low": "lower end of its 95 % interval",
    "vs_best_rival_high": "upper end of it",
    "best_rival": "the fastest rival that is ok, same device, problem and mode",
    "vs_floor": "time over the slowest floor's, formed within each process",
    "verdict": "against the best rival: faster, slower, same or undecided",
    "processes": "processes that gave samples",
    "samples": "samples in all",
    "changed": "for stale rows: what changed",
}
"""Every column of gap.csv and what it means; README.md carries this table and a test compares the two."""

MEASURED_BY_BINARY = ("source", "headers", "levers", "flags", "compiler")
"""Not compared for evidence of this machine: there the binary's hash says it all, and a reworded comment says nothing."""
RECORDED_ELSEWHERE = ("compiler", "binary")
"""Not compared for recorded evidence: another machine's compiler made that binary, and the evidence names it."""


@dataclass
class Piece:
    """One evidence file with what today's sources say about it."""

    path: Path
    record: Head
    origin: str
    changed: list[str] = field(default_factory=list)

    @property
    def stale(self) -> bool:
        """Whether what it depends on has changed."""
        return bool(self.changed)


@dataclass
class Chain:
    """The evidence about one variant (or the rivals) on one device, by kind."""

    name: str
    device: str
    pieces: dict[str, Piece] = field(default_factory=dict)

    def get(self, kind: str) -> Any:
        """The record of a kind, or None."""
        piece = self.pieces.get(kind)
        return piece.record if piece else None

    @property
    def changed(self) -> list[str]:
        """What makes any of the steps that decide a rank stale."""
        return sorted({part for kind in ("verify", "bench") if kind in self.pieces for part in self.pieces[kind].changed})


class Gap:
    """All evidence, judged against today's sources and configuration. Of `recorded` evidence alone every machine makes the same."""

    def __init__(self, config: Config, names: list[str], device: str | None, arch: str, origins: tuple[str, ...] = tuple(ORIGINS),
                 archs: dict[str, str] | None = None) -> None:
        """`archs` are the architectures of measured devices by slug, where they are not all `arch`."""
        self.config, self.names, self.device, self.arch, self.origins, self.archs = config, names, device, arch, origins, archs or {}
        self.errors: list[str] = []
        self._builds: dict[tuple[str, str], Build] = {}
        self._statics: dict[tuple[str, str], Static] = {}
        self.chains: dict[tuple[str, str], Chain] = {}
        self._load()

    # Loading

    def _read(self, path: Path, model: type[Head]) -> Any:
        """A record that can be used, or None and one line about it in `errors`."""
        try:
            record = evidence.read(path, model)
            device, name = path.parts[-3:-1]
            if record.variant != name or (record.kind not in ("build", "static") and record.device != device):
                raise EvidenceError(f"{path}: is evidence about {record.variant!r} on {record.device!r}; it does not belong here; {evidence.REMEDY}")
            if isinstance(record, Bench):
                evidence.check_samples(path, record)
        except EvidenceError as error:
            self.errors.append(str(error))
            return None
        return record

    def _load(self) -> None:
        beside = self.config.sweep.beside if self.config.sweep.variant in self.names else []
        for name in dict.fromkeys([*self.names, *beside]) if "measured" in self.origins else ():
            for arch in ["host"] if variants.resolve(name).on_cpu else dict.fromkeys([self.arch, *self.archs.values()]):
                for kind, model, target in (("build", Build, self._builds), ("static", Static, self._statics)):
                    path = RESULTS / "build" / arch / name / f"{kind}.json"
                    if path.is_file() and (record := self._read(path, model)):
                        target[arch, name] = record
        for origin in self.origins:
            for path in sorted(ORIGINS[origin].glob("*/*/*.json")):
                device, name, kind = path.parts[-3], path.parts[-2], path.stem
                if (origin == "measured" and device in NO_DEVICE) or kind not in evidence.KINDS:
                    continue
                if name not in ("rivals", "selftest", *self.names):
                    continue
                record = self._read(path, evidence.KINDS[kind])
                if record is None:
                    continue
                piece = Piece(path, record, origin)
                piece.changed = self._changed(piece, name, device)
                chain = self.chains.setdefault((device, name), Chain(name, device))
                other = chain.pieces.get(kind)
                # Measured here wins over recorded elsewhere, unless only the latter is current.
                if other is None or (other.stale and not piece.stale):
                    chain.pieces[kind] = piece

    def _changed(self, piece: Piece, name: str, device: str) -> list[str]:
        """The key's parts that are not what they were."""
        record, kind = piece.record, piece.record.kind
        here = piece.origin == "measured"
        if name == "rivals":
            return keys.changed(record.key_parts, benchmarking.bench_parts(None, self.config, device == "cpu"))
        if name == "selftest":
            parts = self._selftest_parts(device == "cpu")
            return keys.changed(record.key_parts, parts, () if here else RECORDED_ELSEWHERE)
        if kind in ("build", "static"):  # those of this machine lie with its binaries; this one came with recorded evidence
            return keys.changed(record.key_parts, self._build_parts(name, record.arch), RECORDED_ELSEWHERE)
        variant = variants.resolve(name)
        if here:
            built = self.build_of(name, device) or Build(variant=name)
        else:
            arch = record.device_info.get("arch") or self.arch
            parts = self._build_parts(name, "host" if variant.on_cpu else arch)
            built = Build(variant=name, key_parts=parts)
        if kind == "sweep":
            return self._sweep_changed(record, variant, built, here, device)
        today = {
            "verify": lambda: verification.verify_parts(built, self.config),
            "sanitize": lambda: sanitizing.sanitize_parts(built, self.config),
            "bench": lambda: benchmarking.bench_parts(built, self.config, variant.on_cpu),
            "profile": lambda: profiling.profile_parts(built, self.config, record.device_info.get("arch") or self.arch_of(device)),
            "repeatability": lambda: repeatability.repeatability_parts(built, self.config, variant.on_cpu),
            "neighbour": lambda: neighbour.neighbour_parts(built, self.config),
            "operator": lambda: operator.operator_parts(built, self.config, variant.on_cpu),
        }[kind]()
        changed = keys.changed(record.key_parts, today, MEASURED_BY_BINARY if here else RECORDED_ELSEWHERE)
        if here and (own := self.build_of(name, device)):
            # The build itself may be older than its source, when only a part of the plan was run.
            changed += keys.changed(own.key_parts, self._build_parts(name, self.arch_of(device)))
        return changed

    def _sweep_changed(self, record: Head, variant: Variant, built: Build, here: bool, device: str) -> list[str]:
        """The key's parts that are not what they were, of the variant that was swept and of each beside it."""
        names = self.config.sweep.beside
        arch = self.arch_of(device) if here else "host" if variant.on_cpu else record.device_info.get("arch") or self.arch
        now = {name: self._build_parts(name, arch) for name in (variant.name, *names)}
        beside = [self.build_of(name, device) or Build(variant=name) for name in names] if here else [Build(variant=name, key_parts=now[name]) for name in names]
        today = sweep.sweep_parts(built, beside, self.config, variant.on_cpu)
        never = MEASURED_BY_BINARY if here else RECORDED_ELSEWHERE
        changed = keys.changed(record.key_parts, today, (*never, *sweep.ignored({**record.key_parts, **today}, here)))
        if here:  # a build may be older than its source, when only a part of the plan was run
            changed += [name + sweep.SOURCE for name in names if (own := self.build_of(name, device)) and keys.changed(own.key_parts, now[name])]
            changed += keys.changed(built.key_parts, now[variant.name]) if built.key_parts else []
        return list(dict.fromkeys(changed))

    @functools.cache
    def _build_parts(self, name: str, arch: str) -> dict[str, str]:
        return build.build_parts(variants.resolve(name), self.config, arch)

    @functools.cache
    def _selftest_parts(self, on_cpu: bool) -> dict[str, str]:
        return selftest.selftest_parts(self.config, on_cpu, machine.compiler_identity(cuda=not on_cpu))

    # Judging

    def arch_of(self, device: str) -> str:
        """What variants are compiled for that run on a device."""
        return "host" if device == "cpu" else self.archs.get(device, self.arch)

    def build_of(self, name: str, device: str) -> Build | None:
        """What compiling a variant for a device gave here."""
        return self._builds.get((self.arch_of(device), name))

    def static_of(self, name: str, device: str) -> Static | None:
        """What a variant's binary for a device says."""
        return self._statics.get((self.arch_of(device), name))

    def leading_device(self) -> str:
        """The device that the page is about: this machine's GPU, else the recorded one of the config, else the CPU."""
        if self.device:
            return self.device
        recorded = {device for device, _ in self.chains}
        if self.config.show_device in recorded:
            return self.config.show_device
        gpus = sorted(recorded - {"cpu"})
        return gpus[0] if gpus else "cpu"

    def devices(self) -> list[str]:
        """Every device with evidence, the leading one first."""
        found = {device for device, _ in self.chains} | {self.leading_device()}
        return sorted(found, key=lambda device: (device != self.leading_device(), device))

    def status(self, name: str, device: str) -> tuple[Status, str]:
        """How a variant stands on a device: the first step that is not ok decides, with its reason."""
        chain = self.chains.get((device, name))
        built = self.build_of(name, device) or (chain.get("build") if chain else None)
        measured = chain is not None and "verify" in chain.pieces
        if built is not None and built.status in (Status.FAILED, Status.ERROR, Status.TIMEOUT):
            return built.status, built.reason
        if not measured:
            if built is not None and built.status is not Status.OK:
                return built.status, built.reason
            return Status.NOT_RUN, f"nothing measured on {device} here and nothing recorded"
        return standing.of_steps({kind: piece.record for kind, piece in chain.pieces.items()})

    def rows(self) -> list[dict[str, Any]]:
        """The rows of gap.csv."""
        rows: list[dict[str, Any]] = []
        for device in self.devices():
            rivals = self.chains.get((device, "rivals"))
            rows += self._rival_rows(device, rivals)
            for name in self.names:
                if variants.resolve(name).on_cpu == (device == "cpu"):
                    rows += self._variant_rows(name, device, rivals)
        return rows

    def _row(self, kind: str, device: str, piece: Piece | None, timing: Timing) -> dict[str, Any]:
        problem = problems.parse(timing.problem)
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row.update(
            kind=kind, name=timing.name, device=device, origin=piece.origin if piece else "", recorded_on=piece.record.ended if piece else "",
            stale=piece.stale if piece else False, changed=", ".join(piece.changed) if piece else "", problem=timing.problem, mode=timing.mode,
            status=timing.status.value, reason=timing.reason, time_us=timing.time_us, ci_low_us=timing.ci_low_us, ci_high_us=timing.ci_high_us,
            processes=len(timing.process_medians_us), samples=timing.samples)
        if timing.time_us:
            if kind != "floor":
                row["tflops"] = problem.flops / timing.time_us / 1e6
            if timing.problem == self.config.goal.problem:
                row["vs_goal"] = timing.time_us / self.config.goal.time_us
        return row

    def _rival_rows(self, device: str, rivals: Chain | None) -> list[dict[str, Any]]:
        if rivals is None or "bench" not in rivals.pieces:
            return []
        piece = rivals.pieces["bench"]
        rows = []
        for timing in piece.record.timings:
            kind = "floor" if timing.name in variants.floors() else "rival"
            row = self._row(kind, device, piece, timing)
            if kind == "rival" and timing.time_us:
                company = self._company(piece.record, timing.name)
                self._floor(row, timing, company)
                best = self._best_rival(rivals, timing.problem, timing.mode)
                if best is not None and row["status"] == Status.OK:
                    self._compare(row, timing, company, best, self._company(piece.record, best.name))
            rows.append(row)
        return rows

    @staticmethod
    def _company(rivals: Bench, name: str) -> list[Timing]:
        """The anchor and the floors that were timed in the same processes as a rival."""
        return rivals.timings if name == ANCHOR else [one for one in rivals.anchors if one.beside == name]

    @staticmethod
    def _ratio(above: Timing, above_company: list[Timing], below: Timing, below_company: list[Timing]) -> stats.Estimate | None:
        """The ratio of two times from different processes, through what was timed in both; None where one lacks a good anchor.

        The anchor and each floor give a ratio, and of three the middle one counts. One alone is no measure of how fast a run was: on an H200 of
        another machine (2026-11-28) PyTorch's default took 5 to 8 % longer on problems of a few microseconds while floors and kernels did not, and
        of 32 ratios through it alone 11 contradicted those that a sweep formed within processes; of the middle ones none does
        (tests/test_recorded.py).
        """
        here, there = Gap._beside(above, above_company), Gap._beside(below, below_company)
        if below.name == ANCHOR and ANCHOR in here:
            return stats.ratio_within(above.process_medians_us, here[ANCHOR].process_medians_us)
        if above.name == ANCHOR and ANCHOR in there:
            return stats.ratio_within(there[ANCHOR].process_medians_us, below.process_medians_us)
        common = [name for name in (ANCHOR, *variants.floors()) if name in here and name in there]
        if ANCHOR not in common:
            return None
        ratios = [between_runs.quotient(stats.ratio_within(above.process_medians_us, here[name].process_medians_us),
                                        stats.ratio_within(below.process_medians_us, there[name].process_medians_us)) for name in common]
        return sorted(ratios, key=lambda ratio: ratio.log_mean)[len(ratios) // 2] if len(ratios) > 2 else ratios[0]

    @staticmethod
    def _beside(timing: Timing, company: list[Timing]) -> dict[str, Timing]:
        """By name, what has a good time of the same processes, problem and mode."""
        return {one.name: one for one in company if one.status is Status.OK and (one.problem, one.mode) == (timing.problem, timing.mode)
                and len(one.process_medians_us) == len(timing.process_medians_us)}

    def _variant_rows(self, name: str, device: str, rivals: Chain | None) -> list[dict[str, Any]]:
        chain = self.chains.get((device, name))
        status, reason = self.status(name, device)
        piece = chain.pieces.get("bench") if chain else None
        if piece is None or not piece.record.timings:
            timing = Timing(name=name, problem=self.config.goal.problem, mode=self.config.goal.modes[0], status=status, reason=reason)
            shown = piece or (chain.pieces.get("verify") if chain else None)
            return [self._row("variant", device, shown, timing)]
        rows, overlapping = [], standing.overlapping(piece.record.timings)
        for timing in piece.record.timings:
            row = self._row("variant", device, piece, timing)
            row["stale"] = bool(chain.changed)
            row["changed"] = ", ".join(chain.changed)
            if timing.status is Status.OK and status is not Status.OK:
                row["status"], row["reason"] = status.value, reason  # a time without a right answer is not a time
            elif timing.status is Status.OK and timing.mode == "stream" and timing.problem in overlapping:
                row["status"], row["reason"] = Status.SUSPECT.value, overlapping[timing.problem]
            if timing.time_us and row["status"] == Status.OK:
                self._floor(row, timing, [timing, *piece.record.anchors])
                self._against_rivals(row, timing, piece.record, rivals)
            rows.append(row)
        return rows

    def _best_rival(self, rivals: Chain | None, problem: str, mode: str) -> Timing | None:
        """The fastest current rival that is ok on a problem and mode."""
        if rivals is None or rivals.pieces["bench"].stale:
            return None
        floors = variants.floors()
        found = [timing for timing in rivals.get("bench").timings
                 if (timing.problem, timing.mode) == (problem, mode) and timing.status is Status.OK and timing.time_us and timing.name not in floors]
        return min(found, key=lambda timing: timing.time_us, default=None)

    def _against_rivals(self, row: dict[str, Any], timing: Timing, bench: Bench, rivals: Chain | None) -> None:
        """Ratio to the best rival: (variant / anchor) of this run times (anchor / rival) of the rivals' run. None for a time that is no time."""
        best = self._best_rival(rivals, timing.problem, timing.mode)
        if best is None or row["stale"] or row["status"] != Status.OK or timing.mode == "eager":
            return  # eager: a variant writes into a given output, a rival allocates its own; the times stand, a verdict would not
        self._compare(row, timing, bench.anchors, best, self._company(rivals.get("bench"), best.name))

    def _compare(self, row: dict[str, Any], timing: Timing, company: list[Timing], best: Timing, best_company: list[Timing]) -> None:
        """Name the best rival; give ratio and verdict where they can be formed."""
        row["best_rival"] = best.name
        if best is timing:
            row["vs_best_rival"], row["verdict"] = 1.0, "same"
            return
        ratio = self._ratio(timing, company, best, best_company)
        if ratio is None:
            return
        row["vs_best_rival"] = ratio.value
        interval = ratio.interval()
        if interval:
            row["vs_best_rival_low"], row["vs_best_rival_high"] = interval
        row["verdict"] = stats.verdict(ratio)

    def _floor(self, row: dict[str, Any], timing: Timing, timings: list[Timing]) -> None:
        """Time over the slowest floor of the same processes; faster than a floor is suspect."""
        found = standing.over_floor(timing, timings)
        if found is None:
            return
        floor, ratio = found
        row["vs_floor"] = ratio.value
        if row["kind"] == "variant" and (reason := standing.suspicion(floor, ratio)):
            row["status"], row["reason"] = Status.SUSPECT.value, reason


def table(rows: list[dict[str, Any]]) -> str:
    """gap.csv as text: one row per name x device x problem x mode."""
    frame = pandas.DataFrame(rows, columns=list(COLUMNS))
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def column_table() -> str:
    """COLUMNS as a Markdown table."""
    return "\n".join(["| column | meaning |", "|---|---|", *(f"| `{name}` | {meaning} |" for name, meaning in COLUMNS.items())]) + "\n"
