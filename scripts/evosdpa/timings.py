"""From the reports of measuring processes to times: which processes count, what the estimate is, what makes a time no time.

All that judges samples lies here, in stats.py and in steadiness.py; their code is part of every bench's key.
"""

from __future__ import annotations

from typing import Any

from evosdpa import stats, steadiness
from evosdpa.evidence import Bench, Status, Timing

REFERENCE_FLOOR = "floor_bytes"
"""The kernel whose time must be the same in every process of a run (steadiness.REFERENCE_BAND)."""

MIN_PROCESSES = 2

SPAN_SLACK_US, SPAN_SLACK = 5.0, 0.05
"""How far CUDA events and the kernels' own record may be apart over the same launches: the larger of both. While kernels are recorded,
two events around any number of them say 2 to 3 us more than the record (seen on an H200; the evidence holds both numbers)."""

SPAN_FIELDS = ("launches", "event_us", "span_us", "kernels", "single", "overlapped", "names", "reason")

OVERLAP_SHARE = 0.02
"""Share of launches that may begin before the one before has ended, by the resolution of the record."""


def rejections(reports: list[dict[str, Any]]) -> dict[steadiness.Chunk, str]:
    """Chunks of a GPU's run that do not count, with the reason."""
    clocks = [one for one in reports if one.get("event") == "clocks"]
    reference = {(one["process"], one["problem"], one["mode"]): stats.quantile(one["times_us"], 0.5)
                 for one in reports if one.get("event") == "samples" and one["name"] == REFERENCE_FLOOR}
    return steadiness.rejections(clocks, reference)


def short_of_processes(reports: list[dict[str, Any]], wanted: int) -> list[tuple[str, str]]:
    """Problems and modes that have fewer accepted processes than wanted because some were rejected."""
    rejected = rejections(reports)
    accepted: dict[tuple[str, str], int] = {}
    for one in reports:
        if one.get("event") == "clocks":
            chunk = (one["process"], one["problem"], one["mode"])
            accepted[chunk[1:]] = accepted.get(chunk[1:], 0) + (chunk not in rejected)
    lacking = {chunk[1:] for chunk in rejected}
    return [group for group, count in accepted.items() if count < wanted and group in lacking]


def summarise(record: Bench, reports: list[dict[str, Any]], rows: list[tuple], names: list[str], problems: list[str], modes: list[str],
              processes: int, on_cpu: bool) -> None:
    """Turn the workers' reports into timings (every name x problem x mode gets one, with or without a time)."""
    samples: dict[tuple[str, str, str], dict[int, list[float]]] = {}
    launches: dict[tuple[str, str, str], int] = {}
    outputs: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    skips: dict[tuple[str, str, str], dict[int, dict[str, Any]]] = {}
    spans: dict[tuple[str, str], dict[str, Any]] = {}
    notes: dict[tuple[str, str], str] = {}
    rejected = {} if on_cpu else rejections(reports)
    for report in reports:
        event, problem = report.get("event"), report.get("problem", "")
        if event == "samples":
            key = (report["name"], problem, report["mode"])
            samples.setdefault(key, {})[report["process"]] = report["times_us"]
            launches[key] = report["launches"]
            accepted = int((report["process"], *key[1:]) not in rejected)
            rows += [(report["process"], *key, number, time_us, accepted) for number, time_us in enumerate(report["times_us"])]
        elif event == "output":
            outputs.setdefault((report["name"], problem, report["mode"]), []).append(report)
        elif event == "skip":
            skips.setdefault((report["name"], problem, report.get("mode", "")), {})[report["process"]] = report
        elif event == "span":
            spans[(report["name"], problem)] = {name: value for name, value in report.items() if name in SPAN_FIELDS}
        elif event == "note":
            notes[(report["name"], problem)] = report["note"]
        elif event == "loaded":
            record.libraries[report["name"]] = report["sha256"]
        elif event == "clocks":
            record.clocks.append({name: report.get(name) for name in ("process", "problem", "mode", "before", "during", "after", "late", "samples")})
    record.processes = len({report["process"] for report in reports if "process" in report})
    for name in names:
        for problem in problems:
            for mode in modes:
                key = (name, problem, mode)
                timing = Timing(name=name, problem=problem, mode=mode, note=notes.get((name, problem), ""))
                if key in samples:
                    why = {chunk[0]: reason for chunk, reason in rejected.items() if chunk[1:] == key[1:]}
                    _estimate(timing, samples[key], outputs.get(key, []), why, processes)
                    timing.launches_per_sample = launches[key]
                    if mode == "warm" and (span := spans.get((name, problem))):
                        _compare_clocks(timing, span, name in record.libraries)
                    _note_failures(timing, {**skips.get((name, problem, ""), {}), **skips.get(key, {})}, len(samples[key]))
                elif found := skips.get(key) or skips.get((name, problem, "")):
                    skip = next(iter(found.values()))
                    timing.status, timing.reason = Status(skip["status"]), skip["reason"]
                else:
                    timing.status, timing.reason = Status.NOT_RUN, "no sample was taken"
                record.timings.append(timing)


def _estimate(timing: Timing, by_process: dict[int, list[float]], outputs: list[dict[str, Any]], rejected: dict[int, str], wanted: int) -> None:
    """Fill a timing from its samples, process by process. Rejected processes do not count; when too few are left, all are shown
    with their spread, as unstable."""
    good = {process: times for process, times in by_process.items() if process not in rejected}
    timing.rejected = [f"process {process}: {reason}" for process, reason in sorted(rejected.items())]
    unstable = bool(rejected) and len(good) < wanted
    used = by_process if unstable else good
    medians = [stats.quantile(times, 0.5) for _, times in sorted(used.items())]
    pooled = [time_us for times in used.values() for time_us in times]
    estimate = stats.of_medians(medians)
    timing.time_us = round(estimate.value, 5)
    timing.process_medians_us = [round(median, 5) for median in medians]
    timing.min_us, timing.samples = min(pooled), len(pooled)
    timing.p10_us, timing.p90_us = round(stats.quantile(pooled, 0.1), 5), round(stats.quantile(pooled, 0.9), 5)
    interval = estimate.interval()
    if interval:
        timing.ci_low_us, timing.ci_high_us = round(interval[0], 5), round(interval[1], 5)
    if outputs:
        wrong = [one for one in outputs if not one["ok"]]
        timing.outputs_checked = not wrong
        if wrong:
            timing.status, timing.reason = Status.FAILED, f"output of a timed launch: {wrong[0]['reason']}"
    if timing.status is Status.OK and unstable:
        timing.status = Status.UNSTABLE
        timing.reason = f"{len(good)} of {wanted} processes were steady, also after {steadiness.RETRIES} more; {timing.rejected[0]}"
    if timing.status is Status.OK and len(medians) < MIN_PROCESSES:
        timing.status, timing.reason = Status.UNSTABLE, "only one process gave samples"


def _note_failures(timing: Timing, skips: dict[int, dict[str, Any]], timed: int) -> None:
    """What broke in some processes has no time, whatever the others measured."""
    broken = [skip for skip in skips.values() if skip["status"] != Status.UNSUPPORTED]
    if broken and timing.status is Status.OK:
        timing.status, timing.reason = Status.ERROR, f"failed in {len(broken)} of {len(broken) + timed} processes: {broken[0]['reason']}"


def _compare_clocks(timing: Timing, span: dict[str, Any], is_library: bool) -> None:
    """Set what two clocks say of the timed graph beside each other; a time that they do not agree on is suspect. A rival whose launches
    overlap is only noted: it is what its users get."""
    timing.span = span
    if "reason" in span:
        return
    apart = abs(span["event_us"] - span["span_us"])
    reason = ""
    if span["kernels"] != span["single"] * span["launches"]:
        reason = (f"{span['kernels']} kernels ran for {span['launches']} launches, where one launch by itself runs {span['single']}: some launches do the "
                  "work of others, or do less when captured")
    elif span["overlapped"] > OVERLAP_SHARE * span["launches"]:
        reason = (f"{span['overlapped']} of {span['launches']} launches begin before the one before has ended (programmatic dependent launch): "
                  "time over launches is no launch's time")
        if not is_library:
            timing.note, reason = "; ".join(filter(None, [timing.note, reason])), ""
    elif apart > max(SPAN_SLACK_US, SPAN_SLACK * span["span_us"]):
        reason = (f"events around {span['launches']} launches say {span['event_us']:.1f} us, their kernels' own record {span['span_us']:.1f} us: "
                  "work is done outside the interval that is timed")
    if reason and timing.status is Status.OK:
        timing.status, timing.reason = Status.SUSPECT, reason
