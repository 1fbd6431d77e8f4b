"""Which proposed children are not worth GPU time, from their binaries alone."""

from __future__ import annotations

from typing import Any

from evosdpa.evidence import Build, Static, Status
from evosdpa.evolve.lineage import Child


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
        return f"does not compile: {build.reason}"
    if twin := next((twins[one] for one in _identities(build) if one in twins), None):
        return f"is the same code as {twin}"
    static = statics.get(child.name)
    launch = launch_of(static, problem)
    if launch is None:
        return ""
    if launch.get("blocks_per_sm") == 0:
        return f"no CTA fits on an SM: {launch.get('limiter') or 'registers or shared memory'}"
    if launch.get("reason") and "cuda_occupancy.h refuses" in launch["reason"]:
        return str(launch["reason"])
    before = spill_bytes(builds.get(child.parent or ""), launch_of(statics.get(child.parent or ""), problem)) or 0
    spilled = spill_bytes(build, launch) or 0
    if spilled > before:
        return f"spills {spilled} bytes of registers" + (f", its parent {before}" if before else "")
    return ""


def launch_of(static: Static | None, problem: str) -> dict[str, Any] | None:
    """The first launch on a problem, as static facts have it."""
    return next((one for one in static.launches if one["problem"] == problem), None) if static else None


def spill_bytes(build: Build | None, launch: dict[str, Any] | None) -> int | None:
    """Bytes that the kernel of a launch stores and loads for want of registers; None when it is not known."""
    if not build or not launch:
        return None
    return next((one["spill_stores"] + one["spill_loads"] for one in build.ptxas if one["name"] == launch.get("kernel")), None)
