"""What an evolution leaves behind, generation by generation, and the history that it makes.

The files name nothing that changes by itself (no time, no commit): the same seed and evidence give the same bytes, so Snakemake
sees that nothing changed and measures nothing again. When and by what something was measured stands in the evidence of the
variants and of the finals. Each generation names the one before by its content, so files of two evolutions never make one history.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from evosdpa import evidence, keys, variants
from evosdpa.config import Config
from evosdpa.evidence import Build, EvidenceError, Head, Model, Status

FOLDER = "evolve"
"""Under a device's folder: gen<N>/ for every generation, sources/ for what a generator wrote, answers/ for all that it said; recorded ones have
builds/ too."""

FINALS, CLOSING = "finals", "closing"
"""Folders in a generation's, and subjects of their evidence: its finals, and the last generation's comparison with the beginning."""

BUILDS = "builds"
"""Beside the generations of a recorded evolution: of what its elites were compiled."""

DECISIVE = ("verify", "sanitize", "bench")
"""Evidence that decides whether a variant is right and how fast it is."""

Operator = Literal["start", "guided", "explore", "crossover", "generator"]
"""How a child was made: given; by insights and credit; drawn blindly; two levers taken from another elite; written by a program."""

_WRITTEN = re.compile(r"_g\d+c\d+(?:_[0-9a-f]+)?$")


class Change(Model):
    """One lever that a child has otherwise than its parent."""

    lever: str
    before: str
    after: str


class Child(Model):
    """One proposed variant and why it was proposed."""

    name: str
    operator: Operator
    parent: str | None = None
    other: str | None = None
    """The elite that the levers are taken from, in a crossover."""
    changes: list[Change] = []
    """Exactly two, but for the start and for a generator's child, whose source is another."""
    rules: list[str] = []
    """Rules about the parent (I3) that point at one of these changes."""
    at_most: float | None = None
    """The largest share of the parent's time (0 to 1) that one of these rules allows to gain; None without a rule."""
    expected: float | None = None
    """Time over the parent's that the credit of the same changes in earlier children leads one to expect; None where one has none."""
    prompt: str = ""
    """File with the prompt that a generator got, relative to the project."""
    text: str = ""
    """The source that a generator wrote, so that a lost file can be written again."""
    dropped: str = ""
    """Why the child was not measured; empty while nothing speaks against it."""


class Proposal(Head):
    """The children that a generation may have, best first: more than it takes, because some are dropped."""

    kind: Literal["proposal"] = "proposal"
    generation: int = 0
    settings: dict[str, Any] = {}
    """config.yaml's section evolve as it was when this was proposed, how many generations apart: a later change is for later generations."""
    children: list[Child] = []
    notes: list[str] = []
    """Why there are fewer children than asked for, a line each."""


class Screening(Head):
    """The children of a generation after a look at their binaries: those to measure, and those that were dropped, with the reason."""

    kind: Literal["screening"] = "screening"
    generation: int = 0
    top_k: int = 1
    """Elites that the generation leaves."""
    children: list[Child] = []


class Result(Model):
    """How one child did."""

    name: str
    status: Status
    reason: str = ""
    times_us: dict[str, float] = {}
    """By mode, on the problem that the evolution is about."""
    against: dict[str, dict[str, Any]] = {}
    """Against its parent, by mode: ratio of times, low and high of its 95 % interval, error (standard error of the ratio's logarithm),
    verdict, and how: `within` processes of the finals, or `between` two runs through the anchor."""
    entered: bool = False
    """Whether it is an elite of this generation."""
    measured_s: float = 0.0
    """Time its steps took, seconds."""


class Population(Head):
    """What a generation leaves: the elites in their order, and how its children did."""

    kind: Literal["population"] = "population"
    generation: int = 0
    problem: str = ""
    modes: list[str] = []
    elites: list[str] = []
    times_us: dict[str, dict[str, float]] = {}
    """Of the elites, by mode, as the last finals in which each took part measured them."""
    left: dict[str, str] = {}
    """Elites of the generation before that are none any more because something is wrong with them, and what."""
    results: list[Result] = []
    finals_s: float = 0.0
    """Time the finals took, seconds."""

    @property
    def identity(self) -> str:
        """What this generation found, as a digest: the next one names it. Where the file lies does not count."""
        found = self.model_dump(include={"key", "generation", "elites", "times_us", "left", "results", "status"})
        return keys.digest(json.dumps(found, sort_keys=True))


STEPS: dict[str, type[Head]] = {"proposal": Proposal, "screening": Screening, "population": Population}
"""The files of a generation, in their order."""


@dataclass(frozen=True)
class Pair:
    """A child that was measured, with its parent."""

    generation: int
    child: Child
    result: Result


@dataclass
class History:
    """All generations so far, as far as they are whole."""

    device: str
    generations: list[tuple[Screening, Population]] = field(default_factory=list)

    @property
    def elites(self) -> list[str]:
        """The newest elites, best first; none before the start was measured."""
        return self.generations[-1][1].elites if self.generations else []

    @property
    def begun_with(self) -> list[str]:
        """The variants that it began with and that were right, best first."""
        return self.generations[0][1].elites if self.generations else []

    @property
    def names(self) -> list[str]:
        """Every child that was measured or dropped; a spare that nobody needed may be proposed again."""
        return list(dict.fromkeys(child.name for screening, _ in self.generations for child in screening.children))

    @property
    def pairs(self) -> list[Pair]:
        """Every child with a parent against which it could be compared."""
        return [pair for pair in self.tried if pair.result.against]

    @property
    def tried(self) -> list[Pair]:
        """Every child with a parent, measured or not; one that was dropped before has `not_run` as its status."""
        found = []
        for screening, population in self.generations:
            results = {one.name: one for one in population.results}
            found += [Pair(screening.generation, child, results.get(child.name) or Result(name=child.name, status=Status.NOT_RUN, reason=child.dropped))
                      for child in screening.children if child.parent]
        return found

    @property
    def measured_s(self) -> float:
        """Measuring time that all generations took together, seconds."""
        return sum(population.finals_s + sum(one.measured_s for one in population.results) for _, population in self.generations)

    @property
    def identity(self) -> str:
        """What the newest generation found, as a digest; empty before the first."""
        return self.generations[-1][1].identity if self.generations else ""


def source_of(name: str) -> str:
    """The stem of a variant's name: variants of one source share it, and its levers."""
    return name.partition("@")[0]


def root_of(name: str) -> str:
    """The source in kernels/ that a variant comes from: a generator's child belongs to that of its ancestors."""
    return _WRITTEN.sub("", source_of(name))


def folder(device: str, generation: int) -> Path:
    """Where the files of a generation are."""
    return Path("results", device, FOLDER, f"gen{generation}")


def read(root: Path, device: str, before: int | None = None) -> History:
    """The whole generations under results/ or results/recorded/, up to `before`, or to the first that is missing or does not follow from the
    one before it: what lies behind is left from another evolution.

    Raises EvidenceError, one line, for a file that cannot be used.
    """
    history = History(device)
    while before is None or len(history.generations) < before:
        number = len(history.generations)
        files = [root / device / FOLDER / f"gen{number}" / f"{step}.json" for step in ("screening", "population")]
        if not all(path.is_file() for path in files):
            break
        screening, population = evidence.read(files[0], Screening), evidence.read(files[1], Population)
        for path, record in zip(files, (screening, population)):
            if (record.device, record.generation) != (device, number):
                raise EvidenceError(f"{path}: is of generation {record.generation} on {record.device!r}; it does not belong here; {evidence.REMEDY}")
        if {screening.key_parts.get("before"), population.key_parts.get("before")} != {history.identity} or screening.key != population.key:
            break
        history.generations.append((screening, population))
    return history


def built(root: Path, device: str, name: str, library: str) -> Build | None:
    """The build record of a variant's library with this digest, from results/ or results/recorded/; None where it is not there (any more)."""
    kept = root / device / FOLDER / BUILDS / f"{name}.json"
    for path in [kept, *sorted(root.glob(f"build/*/{name}/build.json"))]:
        try:
            record = evidence.read(path, Build) if path.is_file() else None
        except EvidenceError:
            continue
        if record and (record.variant, record.library_sha256) == (name, library):
            return record
    return None


def problem_and_modes(config: Config, on_cpu: bool) -> tuple[str, list[str]]:
    """What an evolution is about: the goal's problem and modes, on a CPU what is timed there."""
    return (config.bench.cpu_problems[0], ["warm"]) if on_cpu else (config.goal.problem, list(config.goal.modes))


def head(config: Config, device: str, generation: int, before: str) -> dict[str, Any]:
    """The fields that all files of a generation have in common; `before` is the identity of the generation before."""
    problem, modes = problem_and_modes(config, device == "cpu")
    parts = {"seed": str(config.evolve.seed), "start": " ".join(config.evolve.start), "task": keys.protocol([problem, modes]), "before": before}
    return dict(variant=FOLDER, device=device, generation=generation, key_parts=parts, key=keys.combine(parts))


def restore_sources(proposal: Proposal) -> None:
    """Write again the sources of a generator's children that are not there any more."""
    for child in proposal.children:
        if child.text and not child.dropped and variants.sources().get(child.name) is None and variants.generated(child.name, proposal.device) is None:
            evidence.write_text(written_path(proposal.device, child.name), child.text)


def written_path(device: str, name: str) -> Path:
    """Where a generator's source goes."""
    return Path("results", device, FOLDER, "sources", f"{name}{'.cpp' if device == 'cpu' else '.cu'}")
