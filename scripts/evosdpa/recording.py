"""Keep this machine's evidence in git: current files only, raw samples compressed, Nsight's reports left out; times also in a history."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from evosdpa import evidence, history
from evosdpa.evidence import Bench, EvidenceError


NO_VARIANTS = ("rivals", "selftest")
"""Evidence under a device that is about no variant."""


def record(document: dict[str, Any], results: Path) -> list[str]:
    """Copy every measured, current evidence file and what was built for it to results/recorded/<device>/<name>/, and add the times of
    every new bench to results/recorded/<device>/history.csv.

    Returns one line per variant and device for the user. Raises EvidenceError when there is nothing to record, and before anything is
    copied when a history cannot be used. What is recorded already and was not measured here stays as it is.
    """
    lines: list[str] = []
    current = [entry for entry in document["provenance"] if entry["origin"] == "measured" and not entry["stale"]]
    stale = [entry for entry in document["provenance"] if entry["origin"] == "measured" and entry["stale"]]
    for entry in stale:
        lines.append(f"not recorded: {entry['path']} is stale ({', '.join(entry['changed'])})")
    if not current:
        raise EvidenceError("nothing was measured on this machine: run `snakemake --cores 1 all` first")
    folders: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in current:
        folders.setdefault((entry["device"], entry["variant"]), []).append(entry)
    histories = {device: history.read(results / "recorded" / device / evidence.HISTORY) for device, _ in folders}
    for (device, name), entries in sorted(folders.items()):
        target = results / "recorded" / device / name
        target.mkdir(parents=True, exist_ok=True)
        for entry in entries:
            source = Path(entry["path"])
            piece = evidence.read(source, evidence.KINDS[entry["kind"]])
            evidence.keep(piece, target / source.name)
            if isinstance(piece, Bench) and (samples := evidence.samples_beside(source, piece)).is_file():
                shutil.copyfile(samples, target / samples.name)
        for folder in sorted((results / "build").glob(f"*/{name}")):
            for kind in ("build", "static"):
                if (folder / f"{kind}.json").is_file() and _belongs(folder.parent.name, device):
                    evidence.keep(evidence.read(folder / f"{kind}.json", evidence.KINDS[kind]), target / f"{kind}.json")
        lines.append(f"recorded: {device}/{name}: {', '.join(sorted(entry['kind'] for entry in entries))}")
        if name not in NO_VARIANTS and any(entry["kind"] == "bench" for entry in entries):
            goal = document["goal"]
            new = history.lines_of(history.folder_chain(target), goal["problem"], goal["modes"][0])
            histories[device] = history.with_new(histories[device], new)
    # Last, and again complete by the next `record` if this run ends before: a version is known by its bench, not by when it was added.
    for device, kept in sorted(histories.items()):
        if kept:
            evidence.write_text(results / "recorded" / device / evidence.HISTORY, history.text(kept))
    return lines


def _belongs(arch: str, device: str) -> bool:
    return (arch == "host") == (device == "cpu")
