"""Which proposed children are not worth GPU time, from their binaries alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evosdpa import evidence
from evosdpa.config import Config
from evosdpa.evidence import Build, Static, Status
from evosdpa.evolve import lineage
from evosdpa.evolve.lineage import Child, Proposal, Screening


def screening(config: Config, device: str, arch: str, proposal: Proposal) -> Screening:
    """The children of a proposal that are worth measuring, by their binaries on this machine. Raises EvidenceError."""
    history = lineage.read(Path("results"), device, proposal.generation)
    places = Path("results", "build", "host" if device == "cpu" else arch)
    names = {name for child in proposal.children if not child.dropped for name in (child.name, child.parent or child.name)}
    builds = {name: evidence.read(places / name / "build.json", Build) for name in sorted(names)}
    statics = {name: evidence.read(path, Static) for name in sorted(names) if (path := places / name / "static.json").is_file()}
    known = {name: evidence.read(path, Build) for name in history.names if (path := places / name / "build.json").is_file()}
    record = Screening(**lineage.head(config, device, proposal.generation, history.identity))
    record.top_k = int(proposal.settings["top_k"])
    wanted = len(proposal.children) if proposal.generation == 0 else int(proposal.settings["children"])
    record.children = screen(proposal.children, wanted, builds, statics, lineage.problem_and_modes(config, device == "cpu")[0], known)
    return record


def screen(children: list[Child], wanted: int, builds: dict[str, Build], statics: dict[str, Static], problem: str, known: dict[str, Build]) -> list[Child]:
    """The first `wanted` children against which nothing speaks, and the dropped ones before them, each with its reason; the rest is left
    for later generations.

    `builds` and `statics` by name, of the children and their parents (a CPU has no static facts); `known`: binaries of
    earlier generations.
    """
    taken: list[Child] = []
    twins = {key: name for name, build in known.items() for key in _identities(build)}
    passed = 0
    for child in children:
        if passed == wanted:
            break
        reason = child.dropped or why_not(child, builds, statics, problem, twins)
        if not reason:
            twins.update({key: child.name for key in _identities(builds[child.name])})
            passed += 1
        taken.append(child.model_copy(update={"dropped": reason}))
    return taken


def _identities(build: Build) -> list[str]:
    """What two variants must not share: the binary, or the code that it was made of (a binary may name its source's file)."""
    code = [build.key_parts.get(part, "") for part in ("source", "headers", "levers", "flags")]
    return [identity for identity in (build.library_sha256, " ".join(code) if code[0] else "") if identity]


def why_not(child: Child, builds: dict[str, Build], statics: dict[str, Static], problem: str, twins: dict[str, str]) -> str:
    """Why a child need not be measured; empty when it may be good. `twins`: names of variants by what they must not share with it."""
    build = builds[child.name]
    if build.status is not Status.OK:
        return build.reason or build.status.value
    if twin := next((twins[one] for one in _identities(build) if one in twins), None):
        return f"is the same code as {twin}"
    launches = launches_of(statics.get(child.name), problem)
    for launch in launches:
        if launch.get("blocks_per_sm") == 0:
            return f"no CTA fits on an SM: {launch.get('limiter') or 'registers or shared memory'}"
        if "cuda_occupancy.h refuses" in (launch.get("reason") or ""):
            return str(launch["reason"])
    before = sum(spill_bytes(builds.get(child.parent or ""), launch) or 0 for launch in launches_of(statics.get(child.parent or ""), problem))
    spilled = sum(spill_bytes(build, launch) or 0 for launch in launches)
    if spilled > before:
        return f"spills {spilled} bytes of registers" + (f", its parent {before}" if before else "")
    return ""


def launches_of(static: Static | None, problem: str) -> list[dict[str, Any]]:
    """The kernels that a launch starts on a problem, as static facts have them."""
    return [one for one in static.launches if one["problem"] == problem] if static else []


def spill_bytes(build: Build | None, launch: dict[str, Any] | None) -> int | None:
    """Bytes that the kernel of a launch stores and loads for want of registers; None when it is not known."""
    if not build or not launch:
        return None
    return next((one["spill_stores"] + one["spill_loads"] for one in build.ptxas if one["name"] == launch.get("kernel")), None)
