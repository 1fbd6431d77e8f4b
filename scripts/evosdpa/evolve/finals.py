"""The finals of a generation, and the closing comparison of the last one with what the evolution began with: everybody in the same
processes, interleaved, with the anchor and the floors."""

from __future__ import annotations

from pathlib import Path

from evosdpa import benchmarking, device as devices, evidence, keys, machine
from evosdpa.benchmarking import Library
from evosdpa.config import Config
from evosdpa.evidence import Bench, Build, EvidenceError, Status
from evosdpa.evolve import lineage, selecting
from evosdpa.evolve.lineage import History, Screening
from evosdpa.evolve.selecting import Steps

def evidence_of(device: str, names: list[str]) -> dict[str, Steps]:
    """The decisive evidence of variants on this machine, by name and kind; a kind that a device has not is left out. Raises EvidenceError."""
    found: dict[str, Steps] = {}
    for name in dict.fromkeys(names):
        place = Path("results", device, name)
        found[name] = {kind: evidence.read(path, evidence.KINDS[kind]) for kind in lineage.DECISIVE if (path := place / f"{kind}.json").is_file()}
    return found


def time_finalists(config: Config, device: str, arch: str, screened: Screening, floors: dict[str, Library], samples: Path) -> Bench:
    """Time the elites and the best children of a generation together. Raises EvidenceError."""
    history = lineage.read(Path("results"), device, screened.generation)
    children = [child.name for child in screened.children if not child.dropped]
    problem, modes = lineage.problem_and_modes(config, device == "cpu")
    stands = {name: selecting.stand(steps, problem, modes) for name, steps in evidence_of(device, [*history.elites, *children]).items()}
    names = selecting.finalists(history.elites, stands, screened.top_k)
    return measure(config, device, arch, names, floors, f"{lineage.FINALS} of generation {screened.generation}", samples)


def close(config: Config, device: str, arch: str, history: History, floors: dict[str, Library], samples: Path) -> Bench:
    """Time the last elites once more, together with the variants that the evolution began with: the run that chose an elite flatters it, this
    one chooses nothing. Raises EvidenceError."""
    names = list(dict.fromkeys([*history.elites, *history.begun_with]))
    return measure(config, device, arch, names, floors, lineage.CLOSING, samples)


def measure(config: Config, device: str, arch: str, names: list[str], floors: dict[str, Library], label: str, samples: Path) -> Bench:
    """Time variants together; writes every sample to `samples`. With fewer than two there is nothing to compare: `not_run`.

    Raises EvidenceError when a measuring process broke: a job that ends so writes nothing, and the next run tries again.
    """
    on_cpu = device == "cpu"
    problem, modes = lineage.problem_and_modes(config, on_cpu)
    place = Path("results", "build", "host" if on_cpu else arch)
    builds = {name: evidence.read(place / name / "build.json", Build) for name in names}
    parts = {**benchmarking.bench_parts(None, config, on_cpu), "binaries": keys.digest(" ".join(build.library_sha256 for build in builds.values()))}
    record = Bench(variant=label.partition(" ")[0], device=device, started=evidence.now(), key_parts=parts, key=keys.combine(parts), git=machine.git_state(),
                   samples_file=samples.name)
    rows: list[tuple] = []
    if len(names) < 2:
        record.status, record.reason = Status.NOT_RUN, "nobody to compare: " + (f"{names[0]} is alone" if names else "no child is right")
    else:
        loaded = {name: benchmarking.loadable(place / name / "kernel.so", build) for name, build in builds.items()}
        with devices.hold(None if on_cpu else machine.gpus_for(device)) as held:
            record.started = evidence.now()
            benchmarking.measure(record, held, config, {**loaded, **floors}, list(floors), [benchmarking.ANCHOR], [problem], rows, label, modes=modes)
        if record.status in (Status.ERROR, Status.TIMEOUT):
            raise EvidenceError(f"{label}: {record.reason}; run again\n{record.log}".rstrip())
        record.anchors = [timing for timing in record.timings if timing.name not in names]
        record.timings = [timing for timing in record.timings if timing.name in names]
    benchmarking.finish(record, rows, samples)
    return record
