"""Time one variant alone and beside a busy GPU of this machine: neighbour.json."""

from pathlib import Path

from evosdpa import benchmarking, command_line, evidence, neighbour, variants
from evosdpa.evidence import Build, Verify


def main() -> None:
    """Parse arguments, time."""
    parser = command_line.parser(__doc__, device=True)
    parser.add_argument("--library", type=command_line.existing, required=True, help="kernel.so, with build.json beside it")
    parser.add_argument("--verify", type=command_line.existing, required=True, help="verify.json")
    parser.add_argument("--floors", type=command_line.existing, nargs="*", default=[], help="libraries of the floors")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    record = neighbour.measure(
        variants.resolve(given.variant), given.settings, given.device, evidence.read(given.library.with_name("build.json"), Build),
        evidence.read(given.verify, Verify), given.library, benchmarking.built_floors(given.floors))
    evidence.write(given.output, record)
    verdicts = ", ".join(f"{one['mode']} {one['ratio']:.4f} {one['verdict']}" for one in record.results)
    print(f"{record.variant} beside a busy GPU on {record.device}: {record.status.value} {verdicts} {record.reason}")


if __name__ == "__main__":
    command_line.run(main)
