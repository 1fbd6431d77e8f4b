"""The steps of a generation on their files: propose, screen, time the finalists, select."""

from __future__ import annotations

from pathlib import Path

from evosdpa import benchmarking, evidence, gap, gap_document, variant_evidence
from evosdpa.config import Config
from evosdpa.evidence import Bench, Build, Static
from evosdpa.evolve import generating, lineage, prompting, proposing, screening, selecting
from evosdpa.evolve.lineage import Child, History, Population, Proposal, Screening
from evosdpa.evolve.proposing import Elite, Proposer
from evosdpa.gap import Gap

RESULTS = Path("results")


def spares(children: int) -> int:
    """Children proposed beyond those wanted, for those that a look at their binary drops."""
    return max(1, children // 2)


def propose(config: Config, device: str, arch: str, generation: int) -> Proposal:
    """The proposal of a generation; writes prompts and what a generator answers beside it. Raises EvidenceError."""
    history = lineage.read(RESULTS, device, generation)
    record = Proposal(**lineage.head(config, device, generation))
    settings = config.evolve
    if generation == 0:
        record.children = [Child(name=name, operator="start") for name in settings.start]
        return record
    if settings.budget_s is not None and history.measured_s >= settings.budget_s:
        record.notes = [f"the budget is spent: {history.measured_s:.0f} of {settings.budget_s:g} s"]
        return record
    gap_now = _gap(config, device, arch, history.elites)
    document = gap_document.document(gap_now)
    facts = {fact["name"]: fact for fact in document["variants"] if fact["device"] == device}
    elites = [proposing.elite_of(variant_evidence.of(document, facts[name])) for name in history.elites]
    record.children = _written(config, device, arch, generation, elites, facts, history)
    wanted = settings.children - sum(not child.dropped for child in record.children)
    drawn = list(Proposer(settings, generation, elites, history).children(wanted + spares(wanted))) if wanted > 0 else []
    record.children += drawn
    record.notes = proposing.too_few(elites, wanted, len(drawn))
    return record


def _written(config: Config, device: str, arch: str, generation: int, elites: list[Elite], facts: dict[str, dict], history: History) -> list[Child]:
    """The children that the generator writes; without one, the prompt alone, for a person."""
    settings, place, children = config.evolve, lineage.folder(device, generation), []
    for number in range(1, 1 + (min(settings.generated, settings.children) if settings.generator else 1) if elites else 1):
        parent = elites[(number - 1) % len(elites)]
        text = prompting.prompt(config, device, arch, elites, parent, facts, history, number)
        path = place / f"prompt-{number}.md"
        evidence.write_text(path, text)
        if settings.generator:
            name = generating.name(parent.name, generation, number)
            print(f"asking the generator for {name}", flush=True)
            answer = generating.ask(settings.generator, text, settings.generator_timeout_s, place.parent / "answers")
            suffix = ".cpp" if device == "cpu" else ".cu"
            reason = generating.keep(answer, place.parent / "sources" / f"{name}{suffix}")
            children.append(Child(name=name, operator="generator", parent=parent.name, prompt=str(path), dropped=reason))
    return children


def screen(config: Config, device: str, arch: str, proposal: Proposal) -> Screening:
    """The children of a proposal that are worth measuring, by their binaries. Raises EvidenceError."""
    history = lineage.read(RESULTS, device, proposal.generation)
    places = RESULTS / "build" / ("host" if device == "cpu" else arch)
    names = {name for child in proposal.children if not child.dropped for name in (child.name, child.parent or child.name)}
    builds = {name: evidence.read(places / name / "build.json", Build) for name in sorted(names)}
    statics = {name: evidence.read(path, Static) for name in sorted(names) if (path := places / name / "static.json").is_file()}
    known = {name: evidence.read(path, Build) for name in history.names if (path := places / name / "build.json").is_file()}
    record = Screening(**lineage.head(config, device, proposal.generation))
    problem = lineage.problem_and_modes(config, device == "cpu")[0]
    wanted = len(proposal.children) if proposal.generation == 0 else config.evolve.children
    record.children = screening.screen(proposal.children, wanted, builds, statics, problem, known)
    return record


def time_finalists(config: Config, device: str, arch: str, screened: Screening, floors: dict[str, benchmarking.Library], samples: Path) -> Bench:
    """Time the elites and the best children of a generation together. Raises EvidenceError."""
    history = lineage.read(RESULTS, device, screened.generation)
    children = [child.name for child in screened.children if not child.dropped]
    problem, modes = lineage.problem_and_modes(config, device == "cpu")
    found = _gap(config, device, arch, [*history.elites, *children])
    names = selecting.finalists(history.elites, selecting.standings(found, device, children, problem, modes), config.evolve.top_k)
    place = RESULTS / "build" / ("host" if device == "cpu" else arch)
    libraries = {name: (place / name / "kernel.so", evidence.read(place / name / "build.json", Build)) for name in names}
    return selecting.measure(config, device, names, libraries, floors, screened.generation, samples)


def select(config: Config, device: str, arch: str, screened: Screening, finals: Bench) -> Population:
    """What a generation leaves. Raises EvidenceError."""
    history = lineage.read(RESULTS, device, screened.generation)
    children = [child for child in screened.children if not child.dropped]
    names = [*history.elites, *(child.name for child in children), *(child.parent for child in children if child.parent)]
    return selecting.select(config, device, screened.generation, history, screened.children, _gap(config, device, arch, names), finals)


def _gap(config: Config, device: str, arch: str, names: list[str]) -> Gap:
    """What this machine's own evidence says about some variants."""
    return gap.Gap(config, list(dict.fromkeys(names)), None if device == "cpu" else device, arch, origins=("measured",))
