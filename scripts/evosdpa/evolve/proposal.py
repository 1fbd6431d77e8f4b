"""What is proposed for a generation: a generator's children, then children of other lever values, from the evidence of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evosdpa import evidence, gap, gap_document, variant_evidence
from evosdpa.config import Config
from evosdpa.evolve import generating, lineage, prompting, proposing
from evosdpa.evolve.lineage import Child, History, Proposal
from evosdpa.evolve.proposing import Elite, Proposer


def spares(children: int) -> int:
    """Children proposed beyond those wanted, for those that a look at their binary drops."""
    return max(1, children // 2)


def propose(config: Config, device: str, arch: str, generation: int) -> Proposal:
    """The proposal of a generation; writes prompts and what a generator answers beside it. Raises EvidenceError."""
    history = lineage.read(Path("results"), device, generation)
    settings = config.evolve
    record = Proposal(**lineage.head(config, device, generation, history.identity), settings=settings.model_dump(exclude={"generations"}))
    if generation == 0:
        record.children = [Child(name=name, operator="start") for name in settings.start]
        return record
    if settings.budget_s is not None and history.measured_s >= settings.budget_s:
        record.notes = [f"the budget is spent: {history.measured_s:.0f} of {settings.budget_s:g} s"]
        return record
    found = gap.Gap(config, history.elites, None if device == "cpu" else device, arch, origins=("measured",))
    document = gap_document.document(found)
    facts = {fact["name"]: fact for fact in document["variants"] if fact["device"] == device}
    elites = [proposing.elite_of(variant_evidence.of(document, facts[name])) for name in history.elites]
    if elites:
        record.children = _written(config, device, arch, generation, elites, facts, history)
    wanted = settings.children - sum(not child.dropped for child in record.children)
    drawn = list(Proposer(settings, generation, elites, history).children(wanted + spares(wanted))) if wanted > 0 else []
    record.children += drawn
    record.notes = proposing.too_few(elites, wanted, len(drawn))
    return record


def _written(config: Config, device: str, arch: str, generation: int, elites: list[Elite], facts: dict[str, dict[str, Any]], history: History) -> list[Child]:
    """The children that the generator writes; without one, the first prompt alone, for a person."""
    settings, place, children = config.evolve, lineage.folder(device, generation), []
    asked = min(settings.generated, settings.children) if settings.generator else 0
    for number in range(1, max(asked, 1) + 1):
        parent = elites[(number - 1) % len(elites)]
        text = prompting.prompt(config, device, arch, elites, parent, facts, history, number)
        path = place / f"prompt-{number}.md"
        evidence.write_text(path, text)
        if number <= asked:
            print(f"generation {generation}: asking the generator for child {number} of {asked}", flush=True)
            answer = generating.ask(settings.generator, text, settings.generator_timeout_s, place.parent / "answers")
            name = generating.name(parent.name, generation, number, answer)
            source, reason = generating.keep(answer, lineage.written_path(device, name))
            children.append(Child(name=name, operator="generator", parent=parent.name, prompt=str(path), text=source, dropped=reason))
    return children
