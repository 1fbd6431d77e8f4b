"""What `check` demands of the gap, and `selftest` of the gate's own evidence."""

from __future__ import annotations

from typing import Any

from evosdpa.evidence import Head, Repeatability, Selftest, Status


def complaints(document: dict[str, Any]) -> list[str]:
    """One line for every required variant that is not ok and current on its device or lacks an `ok` time there on the goal's problem in
    one of the goal's modes, for every device on which one was judged by a gate that has not proved itself there, and for every
    unreadable evidence file.

    A CUDA variant counts on the leading device: this machine's GPU, or the recorded one on a machine without. On a CPU the goal is
    the first of bench.cpu_problems, in the only mode that there is, warm.
    """
    lines = [f"evidence left out: {error}" for error in document["errors"]]
    devices = []
    for name in document["required"]:
        facts = [one for one in document["variants"] if one["name"] == name]
        if not facts:
            lines.append(f"{name}: required by config.yaml, but left out by `only`")
            continue
        fact = next((one for one in facts if one["device"] == document["leading_device"]), facts[0])
        where = f"{name} on {fact['device'] or 'any GPU'}"
        if fact["device"] and fact["device"] not in devices:
            devices.append(fact["device"])
        if fact["status"] != "ok":
            lines.append(f"{where}: {fact['status']}: {fact['reason']}")
        elif fact["stale"]:
            lines.append(f"{where}: the evidence is stale; changed since: {', '.join(fact['changed'])}")
        else:
            lines += _goal(document, fact, where)
    return lines + [line for device in devices for line in _gate(document, device)]


def gate_lines(document: dict[str, Any]) -> list[str]:
    """What is wrong with the gate's own evidence on every device on which a variant was judged."""
    devices = dict.fromkeys(str(fact.get("device")) for fact in document["variants"] if fact.get("correctness") and fact.get("device"))
    return [line for device in devices for line in _gate(document, device)]


def _goal(document: dict[str, Any], fact: dict[str, Any], where: str) -> list[str]:
    """The goal's modes in which a variant that is ok has no time, or none that counts."""
    if fact["on_cpu"]:
        problem, modes = document["protocol"]["bench"]["cpu_problems"][0], ["warm"]
    else:
        problem, modes = document["goal"]["problem"], document["goal"]["modes"]
    lines = []
    for mode in modes:
        row = next((one for one in document["rows"] if one["kind"] == "variant" and (one["name"], one["device"], one["problem"], one["mode"])
                    == (fact["name"], fact["device"], problem, mode)), None)
        if row is None:
            lines.append(f"{where}: {problem} {mode}: no time")
        elif row["status"] != "ok":
            lines.append(f"{where}: {problem} {mode}: {row['status']}: {row['reason']}")
    return lines


def _gate(document: dict[str, Any], device: str) -> list[str]:
    """What is wrong with the gate's own evidence on a device."""
    found = next((one for one in document["selftests"] if one["device"] == device), None)
    lines = []
    if found is None:
        if document["planted"]:
            lines.append(f"selftest on {device}: the gate has not proved itself there; run `snakemake --cores 1 selftest`")
    elif found["status"] != "ok":
        lines.append(f"selftest on {device}: {found['reason']}")
    elif found["stale"]:
        lines.append(f"selftest on {device}: the evidence is stale; changed since: {', '.join(found['changed'])}")
    repeated = {one["variant"]: one for one in document["repeatability"] if one["device"] == device}
    wanted = _repeated_on(document, device)
    for name in sorted({*repeated, *wanted}):
        one, where = repeated.get(name), f"{name} against itself on {device}"
        if one is None:
            lines.append(f"{where}: not measured; run `snakemake --cores 1 selftest`")
        elif one["status"] != "ok":
            lines.append(f"{where}: {one['status']}: {one['reason']}")
        elif one.get("stale") and name in wanted:  # what is no longer asked for may age
            lines.append(f"{where}: the evidence is stale; changed since: {', '.join(one['changed'])}")
    return lines


def _repeated_on(document: dict[str, Any], device: str) -> list[str]:
    """Variants of repeatability.variants whose kind of device this is; those that `only` leaves out do not count."""
    on_cpu = {one["name"]: one["on_cpu"] for one in document["variants"]}
    return [name for name in document["repeatability_wanted"] if name in on_cpu and on_cpu[name] == (device == "cpu")]


def told(record: Head) -> list[str]:
    """The gate's own evidence as lines for a terminal."""
    if isinstance(record, Selftest):
        return [_told_of(one) for one in record.results]
    if isinstance(record, Repeatability):
        return [f"{record.variant} against itself on {record.device}, {one['kind']} processes, {one['mode']}: {one['tries']} tries, "
                + ", ".join(f"{one[name]} {name}" for name in ("same", "undecided", "faster", "slower")) for one in record.counts]
    return []


def _told_of(planted: dict[str, Any]) -> str:
    """One planted kernel's line: what was expected, and what the gate says."""
    said = planted["missed"] or planted["reason"]
    if not said and planted["ratio"] is not None:
        said = f"worst error {planted['ratio']:.2f} of the allowance"
    mark = "ok    " if planted["status"] == "ok" else "MISSED"
    return f"{mark} {planted['name']:24} {', '.join(planted['expected']) or 'accepted'}: {said}"


def gate_complaints(record: Head) -> list[str]:
    """One line for everything that the gate's own evidence says against it."""
    if record.status is Status.OK:
        return []
    if isinstance(record, Selftest):
        wrong = [f"selftest on {record.device}: {one['name']}: {one['missed']}" for one in record.results if one["missed"]]
        return wrong or [f"selftest on {record.device}: {record.status.value}: {record.reason}"]
    return [f"{record.variant} against itself on {record.device}: {record.status.value}: {record.reason}"]
