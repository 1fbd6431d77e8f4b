"""Keep an evolution of this machine in git, beside the evidence of its children."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from evosdpa import evidence
from evosdpa.evidence import Bench
from evosdpa.evolve import lineage

SOURCES = ("sources/*.cu", "sources/*.cpp")
"""What a generator wrote."""

PROMPTS = "prompt-*.md"
"""In a generation's folder."""


def record(document: dict[str, Any], results: Path) -> list[str]:
    """Copy the whole generations of every evolution of this machine that gap.json tells of to results/recorded/<device>/evolve/, in place of those
    there.

    Returns one line a device for the user. One whose elites' code or whose protocol has changed since is not copied. Raises EvidenceError
    for a file that cannot be used.
    """
    lines = []
    for entry in document["evolution"]:
        if entry["origin"] != "measured":
            continue
        device, generations = entry["device"], len(entry["generations"])
        if entry["changed"]:
            lines.append(f"not recorded: the evolution on {device} is stale ({', '.join(entry['changed'])})")
            continue
        source, target = results / device / lineage.FOLDER, results / "recorded" / device / lineage.FOLDER
        fresh = target.with_name(f".{target.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        for generation in range(generations):
            _keep(source / f"gen{generation}", fresh / f"gen{generation}")
        for pattern in (*(f"gen{generation}/{PROMPTS}" for generation in range(generations)), *SOURCES):
            for path in sorted(source.glob(pattern)):
                place = fresh / path.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
        _keep_builds(entry, fresh / lineage.BUILDS, results)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
        lines.append(f"recorded: {device}/{lineage.FOLDER}: {generations - 1} generations after the start, {len(entry['children'])} variants")
    return lines


def _keep_builds(entry: dict[str, Any], target: Path, results: Path) -> None:
    """What compiling gave of the variants that were timed last, as far as their binaries are still those."""
    libraries = entry["finals"].get("libraries", {})
    for name in {*entry["elites"], *entry["begun_with"]} & set(libraries):
        if record := lineage.built(results, entry["device"], name, libraries[name]):
            evidence.keep(record, target / f"{name}.json")


def _keep(source: Path, target: Path) -> None:
    """One generation's files, each read and sealed again as recorded."""
    for step, model in lineage.STEPS.items():
        evidence.keep(evidence.read(source / f"{step}.json", model), target / f"{step}.json")
    for folder in (lineage.FINALS, lineage.CLOSING):
        path = source / folder / "bench.json"
        if folder == lineage.CLOSING and not path.is_file():
            continue  # only the last generation has one
        record = evidence.read(path, Bench)
        evidence.check_samples(path, record)
        evidence.keep(record, target / folder / "bench.json")
        shutil.copyfile(path.with_name(evidence.SAMPLES), target / folder / evidence.SAMPLES)
