"""Time the elites and the best children of a generation together, interleaved: bench.json and samples.csv.gz."""

from pathlib import Path

from evosdpa import benchmarking, command_line, evidence
from evosdpa.evolve import generation
from evosdpa.evolve.lineage import Screening


def main() -> None:
    """Parse arguments, time."""
    parser = command_line.parser(__doc__, variant=False, device=True, arch=True)
    parser.add_argument("--screening", type=command_line.existing, required=True, help="screening.json")
    parser.add_argument("--floors", type=command_line.existing, nargs="*", default=[], help="libraries of the floors")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--samples", type=Path, required=True)
    given = parser.parse_args()
    record = generation.time_finalists(given.settings, given.device, given.arch, evidence.read(given.screening, Screening),
                                       benchmarking.built_floors(given.floors), given.samples)
    evidence.write(given.output, record)
    print(f"finals on {record.device}: {record.status.value} {record.reason}")


if __name__ == "__main__":
    command_line.run(main)
