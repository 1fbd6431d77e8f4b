"""Profile one variant with Nsight Compute: profile.json and the .ncu-rep files."""

from pathlib import Path

from evosdpa import command_line, evidence, profiling, variants
from evosdpa.evidence import Build, Verify


def main() -> None:
    """Parse arguments, profile."""
    parser = command_line.parser(__doc__, device=True)
    parser.add_argument("--library", type=command_line.existing, required=True, help="kernel.so, with build.json beside it")
    parser.add_argument("--verify", type=command_line.existing, required=True, help="verify.json")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    record = profiling.profile_variant(
        variants.resolve(given.variant), given.settings, given.device, evidence.read(given.library.with_name("build.json"), Build),
        evidence.read(given.verify, Verify), given.library, given.output)
    evidence.write(given.output, record)
    print(f"{record.variant} on {record.device}: {record.status.value} {record.reason}")


if __name__ == "__main__":
    command_line.run(main)
