"""Time one rival: bench.json and samples.csv.gz."""

from pathlib import Path

from evosdpa import benchmarking, command_line, evidence
from evosdpa.rival_names import RIVALS


def main() -> None:
    """Parse arguments, time."""
    parser = command_line.parser(__doc__, variant=False, device=True)
    parser.add_argument("rival", choices=sorted({name for names in RIVALS.values() for name in names}), help="name of the rival")
    parser.add_argument("--floors", type=command_line.existing, nargs="*", default=[], help="libraries of the floors")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--samples", type=Path, required=True)
    given = parser.parse_args()
    record = benchmarking.bench_rival(given.rival, given.settings, given.device, benchmarking.built_floors(given.floors), given.samples)
    evidence.write(given.output, record)
    print(f"{record.variant} on {record.device}: {record.status.value} {record.reason}")


if __name__ == "__main__":
    command_line.run(main)
