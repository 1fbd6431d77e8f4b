"""Choose the elites of a generation: population.json."""

from pathlib import Path

from evosdpa import command_line, evidence
from evosdpa.evidence import Bench
from evosdpa.evolve import finals, lineage, selecting
from evosdpa.evolve.lineage import Screening


def main() -> None:
    """Parse arguments, select."""
    parser = command_line.parser(__doc__, variant=False, device=True)
    parser.add_argument("--screening", type=command_line.existing, required=True, help="screening.json")
    parser.add_argument("--finals", type=command_line.existing, required=True, help="bench.json of the finals")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    screened, timed = evidence.read(given.screening, Screening), evidence.read(given.finals, Bench)
    evidence.check_samples(given.finals, timed)
    history = lineage.read(Path("results"), given.device, screened.generation)
    children = [child for child in screened.children if not child.dropped]
    names = [*history.elites, *(name for child in children for name in (child.name, child.parent) if name)]
    record = selecting.select(given.settings, given.device, history, screened, finals.evidence_of(given.device, names), timed)
    evidence.write(given.output, record)
    print(f"generation {record.generation}: {record.status.value} {record.reason}; elites: {', '.join(record.elites) or 'none'}")


if __name__ == "__main__":
    command_line.run(main)
