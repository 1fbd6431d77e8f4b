"""Time the elites and the best children of a generation together, or the last elites with the beginning: bench.json and samples.csv.gz."""

from pathlib import Path

from evosdpa import benchmarking, command_line, evidence
from evosdpa.evolve import finals, lineage
from evosdpa.evolve.lineage import Screening


def main() -> None:
    """Parse arguments, time."""
    parser = command_line.parser(__doc__, variant=False, device=True, arch=True)
    parser.add_argument("--screening", type=command_line.existing, help="screening.json; without it: the closing comparison of --generation")
    parser.add_argument("--generation", type=int, help="the last generation")
    parser.add_argument("--floors", type=command_line.existing, nargs="*", default=[], help="libraries of the floors")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--samples", type=Path, required=True)
    given = parser.parse_args()
    where, floors = (given.settings, given.device, given.arch), benchmarking.built_floors(given.floors)
    if given.screening:
        record = finals.time_finalists(*where, evidence.read(given.screening, Screening), floors, given.samples)
    else:
        record = finals.close(*where, lineage.read(Path("results"), given.device, given.generation + 1), floors, given.samples)
    evidence.write(given.output, record)
    print(f"{record.variant} on {record.device}: {record.status.value} {record.reason}")


if __name__ == "__main__":
    command_line.run(main)
