"""The history of recorded evidence: one line a version of a variant, problem and mode, in results/recorded/<device>/history.csv.

`record` replaces evidence; what it said of a time is kept here. Each line holds the digests of what the time depends on, so that a
reader can tell another kernel from another way to measure, and a seal of its own, so that lines can be added and merged but not changed.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from evosdpa import between_runs, evidence, keys, standing, stats
from evosdpa.evidence import Bench, EvidenceError, Sanitize, Status, Timing, Verify
from evosdpa.gap import Chain, Piece

KERNEL = ("source", "headers", "levers", "flags", "compiler", "binary")
"""Parts of a bench's key that are the kernel; `flags` as a digest, the others as they stand in the evidence."""
MEASURING = ("protocol", "floors", "harness", "judging", "machine")
"""What a time depends on beside the kernel; `machine` names device, driver and PyTorch."""
VERSION = ("variant", "recorded_on", "key")
"""What tells one version from another: a bench that ended at another time is another version, whatever its key."""
PLACE = (*VERSION, "problem", "mode")
NUMBERS = ("time_us", "ci_low_us", "ci_high_us", "vs_anchor", "vs_anchor_low", "vs_anchor_high")
COUNTS = ("cases_passed", "cases", "processes")
COLUMNS = (*VERSION, *KERNEL, *MEASURING, "commit", "cases_passed", "cases", "problem", "mode", "status", "time_us", "ci_low_us", "ci_high_us", "processes",
           "vs_anchor", "vs_anchor_low", "vs_anchor_high", "seal")

REMEDY = "restore it from git"

Line = dict[str, str]


# The file

def _seal(line: Line) -> str:
    """Digest of everything else in a line."""
    return keys.digest("\n".join(line[name] for name in COLUMNS if name != "seal"))


def read(path: Path) -> list[Line]:
    """The lines of a history; none where there is no file. Raises EvidenceError, one line, when any of it is not as it was written."""
    if not path.exists():
        return []
    try:
        found = list(csv.reader(io.StringIO(path.read_text()), strict=True))
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, csv.Error) as error:
        raise EvidenceError(f"{path}: not a table ({error}); {REMEDY}") from None
    if not found or tuple(found[0]) != COLUMNS:
        raise EvidenceError(f"{path}: does not begin with the columns of a history; {REMEDY}")
    lines = []
    for number, cells in enumerate(found[1:], 2):
        line = dict(zip(COLUMNS, cells))
        if len(cells) != len(COLUMNS) or line["seal"] != _seal(line):
            raise EvidenceError(f"{path}: line {number} is cut short or was changed after it was written; {REMEDY}")
        lines.append(line)
    return lines


def text(lines: list[Line]) -> str:
    """A history as text, sorted: the same lines give the same bytes."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(lines, key=lambda line: [line[name] for name in PLACE]))
    return out.getvalue()


def with_new(lines: list[Line], new: list[Line]) -> list[Line]:
    """The lines and those of the new ones that are not there yet."""
    known = {tuple(line[name] for name in PLACE) for line in lines}
    return lines + [line for line in new if tuple(line[name] for name in PLACE) not in known]


# From evidence to lines

def lines_of(chain: Chain, goal: str, mode: str) -> list[Line]:
    """One line for each problem and mode of a variant's bench; one without a time, on the goal's problem, for a variant that was not timed.

    Verdicts of verify and sanitize count where they are about the binary that was timed.
    """
    bench: Bench | None = chain.get("bench")
    if bench is None:
        return []
    same = Chain(chain.name, chain.device, {kind: piece for kind, piece in chain.pieces.items()
                                            if piece.record.key_parts.get("binary") == bench.key_parts.get("binary")})
    status, _ = standing.of_steps({kind: piece.record for kind, piece in same.pieces.items()})
    verify: Verify | None = same.get("verify")
    counts = verify.counts if verify else {}
    common = {
        "variant": chain.name, "recorded_on": bench.ended, "key": bench.key, **{name: bench.key_parts.get(name, "") for name in (*KERNEL, *MEASURING)},
        "flags": keys.digest(flags) if (flags := bench.key_parts.get("flags")) else "", "machine": _machine(bench), "commit": str(bench.git.get("commit") or ""),
        "cases_passed": str(counts.get(Status.OK.value, 0)) if counts else "",
        "cases": str(sum(counts.values()) - counts.get(Status.UNSUPPORTED.value, 0)) if counts else ""}
    timings = bench.timings or [Timing(name=chain.name, problem=goal, mode=mode, status=status)]
    lines = []
    for timing in timings:
        judged = status if timing.status is Status.OK else timing.status  # a time without a right answer is not a time
        line = {**common, **_time(timing, bench), "status": judged.value}
        lines.append({**line, "seal": _seal(line)})
    return lines


def _machine(bench: Bench) -> str:
    """Device, driver and PyTorch of a bench in words."""
    info = bench.device_info
    parts = [str(info.get("name") or ""), f"driver {info['driver']}" if info.get("driver") else "",
             f"torch {bench.tools['torch']}" if bench.tools.get("torch") else ""]
    return ", ".join(part for part in parts if part)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _time(timing: Timing, bench: Bench) -> Line:
    """The cells of one time; over the anchor's of the same processes where there is one, not in mode eager (see gap_document)."""
    anchor = standing.anchor_beside(timing, bench.anchors) if timing.time_us and timing.mode != "eager" else None
    ratio = stats.ratio_within(timing.process_medians_us, anchor.process_medians_us) if anchor else None
    low, high = (ratio.interval() if ratio else None) or (None, None)
    return {"problem": timing.problem, "mode": timing.mode, "time_us": _number(timing.time_us), "ci_low_us": _number(timing.ci_low_us),
            "ci_high_us": _number(timing.ci_high_us), "processes": str(len(timing.process_medians_us)), "vs_anchor": _number(ratio.value if ratio else None),
            "vs_anchor_low": _number(low), "vs_anchor_high": _number(high)}


# From lines to versions

def versions(lines: list[Line], device: str, problem: str) -> list[dict[str, Any]]:
    """Versions by variant and date, each with its times on one problem and with what changed since the version before.

    `kernel` and `measuring` name the parts that differ from those of the version before; the kernel is another one when its binary is. `first` is
    true where there is none before. A time that is ok has `ratio`, itself over that of the version before, where that was ok too,
    and a `verdict` where nothing but the kernel changed.
    """
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    before: dict[str, tuple[Line, dict[str, Any]]] = {}
    for line in sorted(lines, key=lambda line: [line[name] for name in PLACE]):
        place = tuple(line[name] for name in VERSION)
        if place not in found:
            earlier = before.get(line["variant"])
            kernel = _changed(earlier[0], line, KERNEL) if earlier else []
            found[place] = version = dict(
                variant=line["variant"], device=device, recorded_on=line["recorded_on"], key=line["key"], commit=line["commit"], machine=line["machine"],
                binary=line["binary"], first=earlier is None, kernel=kernel if "binary" in kernel else [],
                measuring=_changed(earlier[0], line, MEASURING) if earlier else [], cases_passed=_count(line["cases_passed"]), cases=_count(line["cases"]),
                times=[], before=earlier[1] if earlier else None)
            before[line["variant"]] = line, version
        if line["problem"] == problem:
            found[place]["times"].append(_timed(line, found[place]))
    for version in found.values():
        del version["before"]
    return list(found.values())


def _changed(earlier: Line, line: Line, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if earlier[name] != line[name]]


def _count(cell: str) -> int | None:
    return int(cell) if cell else None


def _timed(line: Line, version: dict[str, Any]) -> dict[str, Any]:
    """A time as numbers, beside that of the version before."""
    time = dict(mode=line["mode"], status=line["status"], processes=_count(line["processes"]), ratio=None, verdict="",
                **{name: float(line[name]) if line[name] else None for name in NUMBERS})
    earlier = next((one for one in (version["before"] or {}).get("times", ()) if one["mode"] == time["mode"]), None)
    if earlier and all(one["status"] == Status.OK and one["time_us"] for one in (earlier, time)):
        time["ratio"] = time["time_us"] / earlier["time_us"]
        above, below = _estimate(time), _estimate(earlier)
        if above and below and not version["measuring"]:
            time["verdict"] = stats.verdict(between_runs.quotient(above, below))
    return time


def _estimate(time: dict[str, Any]) -> stats.Estimate | None:
    """The estimate that a time and its interval stand for; None without an interval."""
    freedom = (time["processes"] or 0) - 1
    if freedom < 1 or not time["ci_low_us"] or not time["ci_high_us"]:
        return None
    half = math.log(time["ci_high_us"] / time["ci_low_us"]) / 2
    return stats.Estimate(math.log(time["time_us"]), half / float(stdtrit(freedom, 0.5 + stats.CONFIDENCE / 2)), freedom)


def all_versions(recorded: Path, problem: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The versions of every device under a folder of recorded evidence, and one line for each history that cannot be used."""
    found, errors = [], []
    for path in sorted(recorded.glob(f"*/{evidence.HISTORY}")):
        try:
            found += versions(read(path), path.parent.name, problem)
        except EvidenceError as error:
            errors.append(str(error))
    return found, errors


def folder_chain(folder: Path) -> Chain:
    """What is recorded in a variant's folder about its times. Raises EvidenceError when any of it cannot be used."""
    kinds = {"verify": Verify, "bench": Bench, "sanitize": Sanitize}
    return Chain(folder.name, folder.parent.name, {
        kind: Piece(path, evidence.read(path, model), "recorded") for kind, model in kinds.items() if (path := folder / f"{kind}.json").is_file()})
