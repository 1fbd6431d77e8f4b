"""What the Snakefile asks about an evolution: which children a generation has is known only when it was proposed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evosdpa import evidence, variants
from evosdpa.evolve import lineage
from evosdpa.invocation import by_file, stop

if TYPE_CHECKING:
    from evosdpa.plan import Plan


class Evolution:
    """The files of an evolution; methods are the input and params functions of its rules.

    Raises VariantError when it cannot begin.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.settings = plan, plan.config.evolve
        self.device = self._device()

    def _device(self) -> str:
        """Where it runs: the device of the variants that it begins with."""
        start = [variants.resolve(name) for name in self.settings.start]
        if not start:
            raise variants.VariantError("evolve.start names no variant to begin with; set it in config.yaml, for example evolve: {start: [v3_mma]}")
        if len({variant.on_cpu for variant in start}) > 1:
            raise variants.VariantError("evolve.start mixes variants for GPUs and for the CPU; an evolution runs on one of them")
        if not start[0].on_cpu and not self.plan.device:
            raise variants.VariantError(f"evolve.start: {start[0].name} runs on a GPU, and none is here; begin with variants for the CPU (a .cpp), "
                                        "for example --config 'evolve={start: [v0_reference]}'")
        return "cpu" if start[0].on_cpu else str(self.plan.device)

    def _folder(self, generation: int | str) -> Path:
        return lineage.folder(self.device, int(generation))

    def last_population(self) -> str:
        """What its last generation left."""
        return str(self._folder(self.settings.generations) / "population.json")

    def closing(self) -> str:
        """The evidence of its last elites beside what it began with."""
        return str(self._folder(self.settings.generations) / lineage.CLOSING / "bench.json")

    def ends(self) -> list[str]:
        """What it ends with."""
        return [self.last_population(), self.closing()]

    def populations_before(self, wildcards: Any) -> list[str]:
        """What all earlier generations left."""
        if wildcards.device != self.device:
            stop(f"the evolution of evolve.start is on {self.device}, not on {wildcards.device}")
        return [str(self._folder(number) / "population.json") for number in range(int(wildcards.generation))]

    def population(self, wildcards: Any) -> str:
        """What a generation left."""
        return str(self._folder(wildcards.generation) / "population.json")

    def binaries(self, path: Any) -> list[str]:
        """What is compiled and inspected before a proposal is screened."""
        proposal = _read(path, "proposal")
        lineage.restore_sources(proposal)
        return [one for child in proposal.children if not child.dropped for one in self.plan.build_files(child.name, self.device)]

    def taking_part(self, path: Any) -> list[str]:
        """The children that passed a screening, with the elites of the generation before and of the beginning."""
        screening = _read(path, "screening")
        names = [child.name for child in screening.children if not child.dropped]
        for place in ([0, screening.generation - 1] if screening.generation else []):
            names += _read(self._folder(place) / "population.json", "population").elites
        return list(dict.fromkeys(names))

    def decisive(self, path: Any) -> list[str]:
        """What the finals go by: libraries, and the evidence that says who is right and how fast."""
        names = self.taking_part(path)
        measured = [one for name in names for one in self.plan.measured_files(name, self.device) if Path(one).stem in lineage.DECISIVE]
        return [*(self.plan.library(name, self.device) for name in names), *measured]

    def measured(self, path: Any) -> list[str]:
        """Everything that is measured of those that take part."""
        return [one for name in self.taking_part(path)
                for one in (*self.plan.build_files(name, self.device), *self.plan.measured_files(name, self.device))]

    def search(self) -> str:
        """What makes an evolution another one: its seed, what it began with and what it is about."""
        return json.dumps([self.settings.seed, self.settings.start, *lineage.problem_and_modes(self.plan.config, self.device == "cpu")])

    def whole_settings(self) -> str:
        """The whole configuration, for its steps."""
        return by_file(self.plan.config.model_dump())


def _read(path: Any, kind: str) -> Any:
    """A file of a generation. Ends with one line when it cannot be used."""
    try:
        return evidence.read(str(path), lineage.STEPS[kind])
    except evidence.EvidenceError as error:
        stop(str(error))
