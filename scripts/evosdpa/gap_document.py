"""gap.json: what the page, the summary and whoever proposes the next variant need to know, from evidence that gap.py has judged."""

from __future__ import annotations

import json
from typing import Any

from evosdpa import evidence, history, neighbour, parents, process_times, standing, stats, sweep, variants
from evosdpa import problem as problems
from evosdpa.evidence import Bench, Build, EvidenceError, Profile, Sanitize, Static, Status, Verify
from evosdpa.evolve import screening
from evosdpa.gap import ORIGINS, Chain, Gap
from evosdpa.rival_names import ANCHOR
from evosdpa.variants import Variant


def correctness(gap: Gap) -> list[dict[str, Any]]:
    """Cases counted along three axes (kind of problem, input family, setting) per variant and device."""
    cells: dict[tuple[str, ...], dict[str, Any]] = {}
    for (device, name), chain in sorted(gap.chains.items()):
        verify: Verify | None = chain.get("verify")
        for case in verify.cases if verify else []:
            kind, problem_name, family = case.name.split("/")
            problem = problems.parse(problem_name)
            setting = f"D{problem.head_dim} {problem.dtype}{' causal' if problem.causal else ''}"
            for axis, label in (("problem", kind), ("family", family), ("setting", setting)):
                cell = cells.setdefault((name, device, axis, label), dict(
                    variant=name, device=device, axis=axis, label=label, ok=0, failed=0, unsupported=0, worst_ratio=None, reason=""))
                cell[case.status.value] = cell.get(case.status.value, 0) + 1
                if case.ratio is not None:
                    cell["worst_ratio"] = max(cell["worst_ratio"] or 0.0, case.ratio)
                if case.reason and not cell["reason"]:
                    cell["reason"] = f"{case.name}: {case.reason}"
    return list(cells.values())


def variant_facts(gap: Gap, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a variant and device: what it is, how it stands, what its binary costs, how it compares with its parent."""
    facts = []
    times: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if row["kind"] == "variant" and row["problem"] == gap.config.goal.problem:
            times.setdefault((row["name"], row["device"]), {})[row["mode"]] = row
    for name in gap.names:
        variant = variants.resolve(name)
        about = variants.header(variant.source)
        shown = ["cpu"] if variant.on_cpu else [device for device in gap.devices() if device != "cpu"] or [""]
        for device in shown:
            facts.append({**_facts(gap, variant, about, device), "vs_parent": parents.beside(gap, times, name, device)})
    return facts


def _facts(gap: Gap, variant: Variant, about: variants.Header, device: str) -> dict[str, Any]:
    chain = gap.chains.get((device, variant.name)) or Chain(variant.name, device)
    status, reason = gap.status(variant.name, device)
    built: Build | None = gap.build_of(variant.name, device) or chain.get("build")
    static: Static | None = gap.static_of(variant.name, device) or chain.get("static")
    static_stale = not gap.static_of(variant.name, device) and "static" in chain.pieces and chain.pieces["static"].stale
    bench: Bench | None = chain.get("bench")
    verify: Verify | None = chain.get("verify")
    sanitize: Sanitize | None = chain.get("sanitize")
    profile: Profile | None = chain.get("profile")
    goal = gap.config.goal.problem
    launch = next(iter(screening.launches_of(static, goal)), None)
    spills = screening.spill_bytes(built, launch)
    return dict(
        name=variant.name, device=device, source=str(variant.source), on_cpu=variant.on_cpu, title=about.title, idea=about.idea,
        parent=parents.parent_of(variant.name),
        expects=about.expects, levers=dict(variant.levers), declared_levers={lever: list(values) for lever, values in about.levers.items()},
        default_levers=variants.defaults(variant.source), vs_anchor=_versus_anchor(gap, bench) if bench else {},
        status=status.value, reason=reason, stale=bool(chain.changed), changed=chain.changed,
        origins=sorted({piece.origin for piece in chain.pieces.values() if piece.record.kind in ("verify", "bench")}),
        steps={kind: dict(status=piece.record.status.value, reason=piece.record.reason, stale=piece.stale, changed=piece.changed, origin=piece.origin,
                          log=evidence.clip(piece.record.log, 4000))
               for kind, piece in sorted(chain.pieces.items()) if kind not in ("build", "static")},
        build=dict(status=built.status.value, reason=built.reason, compiler=built.tools.get("compiler", ""), seconds=built.seconds, arch=built.arch,
                   warnings=built.warnings, log=evidence.clip(built.log, 4000) if built.status is not Status.OK else "") if built else None,
        static=dict(status=static.status.value, reason=static.reason, stale=static_stale) if static else None, launch=launch, spill_bytes=spills,
        instructions=next((kernel["instructions"] for kernel in static.kernels if launch and kernel["name"] == launch.get("kernel")), {}) if static else {},
        correctness=dict(counts=verify.counts, worst_ratio=verify.worst_ratio, seed=verify.seed) if verify else None,
        sanitize=[dict(tool=one["tool"], status=one["status"], reason=one.get("reason", "")) for one in sanitize.results] if sanitize else [],
        profile=[dict(problem=one["problem"], kernel=one.get("kernel", ""), metrics=one.get("metrics", {}), reason=one.get("reason", ""),
                      grid=one.get("grid", []), block=one.get("block", []))
                 for one in profile.results] if profile else [],
        floors=own_floors(bench, goal) if bench else {}, sm_mhz=sm_mhz(bench, goal) if bench else {},
    )


def _versus_anchor(gap: Gap, bench: Bench) -> dict[str, dict[str, Any]]:
    """A variant's times on the goal's problem over the anchor's of the same processes, by mode; not in mode eager, where the anchor also
    allocates its output. It stands also where no rival's own run does."""
    found = {}
    for timing in bench.timings:
        if timing.problem != gap.config.goal.problem or timing.mode == "eager" or timing.status is not Status.OK or not timing.time_us:
            continue
        anchor = standing.anchor_beside(timing, bench.anchors)
        if anchor is not None:
            ratio = stats.ratio_within(timing.process_medians_us, anchor.process_medians_us)
            low, high = ratio.interval() or (None, None)
            found[timing.mode] = dict(name=ANCHOR, ratio=ratio.value, low=low, high=high, verdict=stats.verdict(ratio))
    return found


def own_floors(bench: Bench, problem: str) -> dict[str, dict[str, float]]:
    """Times of the floors in a variant's own processes, microseconds, by mode and name; only those that are ok."""
    found: dict[str, dict[str, float]] = {}
    for one in bench.anchors:
        if one.name in variants.floors() and one.problem == problem and one.status is Status.OK and one.time_us:
            found.setdefault(one.mode, {})[one.name] = one.time_us
    return found


def sm_mhz(bench: Bench, problem: str) -> dict[str, float]:
    """SM clock while each mode was timed on a problem, MHz: the median over the processes."""
    clocks: dict[str, list[float]] = {}
    for one in bench.clocks:
        if one.get("problem") == problem:
            read = [one.get("during", {}).get("sm_mhz")]
            read = [mhz for mhz in read if mhz] or [mhz for when in ("before", "after") if (mhz := one.get(when, {}).get("sm_mhz"))]
            clocks.setdefault(str(one.get("mode")), []).extend(read)
    return {mode: stats.quantile(read, 0.5) for mode, read in sorted(clocks.items()) if read}


def selftests(gap: Gap) -> list[dict[str, Any]]:
    """What the gate says of the planted kernels, device by device."""
    return [dict(device=device, origin=piece.origin, status=piece.record.status.value, reason=piece.record.reason, stale=piece.stale,
                 changed=piece.changed, ended=piece.record.ended, results=piece.record.results)
            for (device, name), chain in sorted(gap.chains.items()) if name == "selftest" for piece in chain.pieces.values()]


def repeatability(gap: Gap) -> list[dict[str, Any]]:
    """Variants against themselves; medians are left in the evidence."""
    return [dict(device=device, variant=name, origin=piece.origin, status=piece.record.status.value, reason=piece.record.reason, stale=piece.stale,
                 changed=piece.changed, ended=piece.record.ended, problem=piece.record.problem, runs=piece.record.runs, copies=piece.record.copies,
                 counts=piece.record.counts, tries=piece.record.tries, spread=_spread(piece.record.medians_us))
            for (device, name), chain in sorted(gap.chains.items()) if (piece := chain.pieces.get("repeatability"))]


def _spread(medians_us: dict[str, list[list[list[float]]]]) -> list[dict[str, Any]]:
    """Median, minimum and maximum of one binary's process medians, microseconds, by mode."""
    spread = []
    for mode, runs in sorted(medians_us.items()):
        every = [value for run in runs for copy in run for value in copy]
        spread.append(dict(mode=mode, median_us=stats.quantile(every, 0.5), min_us=min(every), max_us=max(every), count=len(every)))
    return spread


def neighbours(gap: Gap) -> list[dict[str, Any]]:
    """Variants timed alone and beside a busy GPU, device by device; medians are left in the evidence."""
    return [dict(device=device, variant=name, origin=piece.origin, status=piece.record.status.value, reason=piece.record.reason, stale=piece.stale,
                 changed=piece.changed, ended=piece.record.ended, problem=piece.record.problem, turns=piece.record.turns, results=piece.record.results,
                 neighbour=piece.record.neighbour_info.get("name", ""), load=neighbour.LOAD)
            for (device, name), chain in sorted(gap.chains.items()) if (piece := chain.pieces.get("neighbour"))]


def sweeps(gap: Gap) -> list[dict[str, Any]]:
    """Variants over many problems, device by device; the times of each process are left in the evidence."""
    return [dict(device=device, variant=name, origin=piece.origin, status=piece.record.status.value, reason=piece.record.reason, stale=piece.stale,
                 changed=piece.changed, ended=piece.record.ended, mode=sweep.MODE, processes=_processes_each(piece.record), rivals=piece.record.rivals,
                 left_out=piece.record.left_out,
                 beside_limit=piece.record.beside_limit, rival_limit=piece.record.rival_limit, results=piece.record.results)
            for (device, name), chain in sorted(gap.chains.items()) if (piece := chain.pieces.get("sweep"))]


def _processes_each(record: evidence.Sweep) -> int:
    """Processes that each of the variant's times rests on, at least; a process that was rejected is made up for where it was."""
    return min((len(one.process_medians_us) for one in record.timings if one.name == record.variant and one.process_medians_us), default=0)


def operators(gap: Gap) -> list[dict[str, Any]]:
    """Variants as PyTorch operators, device by device."""
    return [dict(device=device, variant=name, origin=piece.origin, status=piece.record.status.value, reason=piece.record.reason, stale=piece.stale,
                 changed=piece.changed, ended=piece.record.ended, problem=piece.record.problem, processes=piece.record.processes, torch=piece.record.tools.get("torch", ""),
                 checks=[one.model_dump() for one in piece.record.checks], costs=[one.model_dump() for one in piece.record.costs], over=piece.record.over)
            for (device, name), chain in sorted(gap.chains.items()) if (piece := chain.pieces.get("operator"))]


MOST_OPENED = 4
"""Variants whose bench is shown process by process: the best of the leading device whose answers are right."""


def processes(gap: Gap, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Times and clocks of every process of the leading device's best variants on the goal's problem; none of a CPU, which has no clocks.

    Samples that cannot be read are left out, with a line in the gap's errors.
    """
    goal, device, found = gap.config.goal, gap.leading_device(), []
    timed = [row for row in rows if (row["kind"], row["device"], row["problem"], row["mode"]) == ("variant", device, goal.problem, goal.modes[0])
             and row["time_us"] and row["status"] in (Status.OK, Status.UNSTABLE)]
    timed.sort(key=lambda row: (row["status"] != Status.OK, row["stale"], row["time_us"], row["name"]))
    for row in timed[:MOST_OPENED]:
        piece = gap.chains[device, row["name"]].pieces["bench"]
        try:
            each = process_times.process_times(piece.path, piece.record, goal.problem, list(goal.modes))
        except EvidenceError as error:
            gap.errors.append(str(error))
            continue
        spans = {one.mode: one.span for one in piece.record.timings if one.problem == goal.problem and one.mode in goal.modes and one.span}
        if each:
            found.append(dict(variant=row["name"], device=device, stale=row["stale"], processes=each, spans=spans))
    return found


def provenance(gap: Gap) -> list[dict[str, Any]]:
    """Every evidence file in use, with what it depends on."""
    entries = []
    for (device, name), chain in sorted(gap.chains.items()):
        for kind, piece in sorted(chain.pieces.items()):
            record = piece.record
            entries.append(dict(
                path=str(piece.path), variant=name, device=device, kind=kind, origin=piece.origin, status=record.status.value, stale=piece.stale,
                changed=piece.changed, started=record.started, ended=record.ended, key=record.key, key_parts=record.key_parts, tools=record.tools,
                git=record.git, device_info=record.device_info))
    return entries


def document(gap: Gap, evolutions: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """gap.json: everything the page shows. No time of its own: the same evidence gives the same bytes.

    `evolutions` as evolve/document.py makes them.
    """
    goal = problems.parse(gap.config.goal.problem)
    rows = gap.rows()
    opened = processes(gap, rows)
    versions, unread = history.all_versions(ORIGINS["recorded"], goal.name)
    return dict(
        goal=dict(problem=goal.name, time_us=gap.config.goal.time_us, modes=list(gap.config.goal.modes), flops=goal.flops, bytes=goal.bytes, pairs=goal.pairs),
        this_device=gap.device, leading_device=gap.leading_device(), devices=_device_entries(gap), problems=gap.config.problems,
        rows=rows, variants=variant_facts(gap, rows), correctness=correctness(gap), provenance=provenance(gap), errors=sorted({*gap.errors, *unread}),
        history=versions, processes=opened, selftests=selftests(gap), repeatability=repeatability(gap), neighbours=neighbours(gap),
        sweeps=sweeps(gap), operators=operators(gap), planted=len(variants.planted(False)),
        required=sorted(name for name, entry in gap.config.variants.items() if entry.required),
        repeatability_wanted=list(gap.config.repeatability.variants),
        evolution=evolutions or [],
        protocol=dict(bench=gap.config.bench.model_dump(), verify=gap.config.verify.model_dump()))


def _device_entries(gap: Gap) -> list[dict[str, Any]]:
    entries = []
    for device in gap.devices():
        pieces = [piece for (one, _), chain in sorted(gap.chains.items()) if one == device for piece in chain.pieces.values()]
        info = next((piece.record.device_info for piece in pieces if piece.record.device_info), {})
        ended = [piece.record.ended for piece in pieces if piece.record.kind in ("verify", "bench", "profile", "sanitize")]
        entries.append(dict(slug=device, info=info, origins=sorted({piece.origin for piece in pieces if piece.record.kind in ("verify", "bench")}),
                            newest=max(ended, default=""), oldest=min(ended, default="")))
    return entries


def dumps(document: dict[str, Any]) -> str:
    """gap.json as text; NaN and infinity are refused."""
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"
