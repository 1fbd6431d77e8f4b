"""Put the planted wrong kernels through the gate: selftest.json."""

from pathlib import Path

from evosdpa import command_line, evidence, selftest


def main() -> None:
    """Parse arguments, prove the gate."""
    parser = command_line.parser(__doc__, variant=False, device=True, arch=True)
    parser.add_argument("--fill-shared", type=command_line.existing, nargs="*", default=[], help="library that fills shared memory before each launch; a GPU needs it")
    parser.add_argument("--jobs", type=int, default=1, help="planted kernels at a time")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    record = selftest.prove(given.settings, given.device, given.arch, next(iter(given.fill_shared), None), given.jobs)
    evidence.write(given.output, record)
    print(f"selftest on {record.device}: {record.status.value} {record.reason}")


if __name__ == "__main__":
    command_line.run(main)
