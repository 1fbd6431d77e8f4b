"""Run compute-sanitizer's tools over one variant: sanitize.json."""

from pathlib import Path

from evosdpa import command_line, evidence, sanitizing, variants
from evosdpa.evidence import Build, Verify


def main() -> None:
    """Parse arguments, sanitize."""
    parser = command_line.parser(__doc__, device=True)
    parser.add_argument("--library", type=command_line.existing, required=True, help="kernel.so, with build.json beside it")
    parser.add_argument("--verify", type=command_line.existing, required=True, help="verify.json")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    record = sanitizing.sanitize_variant(
        variants.resolve(given.variant), given.settings, given.device, evidence.read(given.library.with_name("build.json"), Build),
        evidence.read(given.verify, Verify), given.library)
    evidence.write(given.output, record)
    print(f"{record.variant} on {record.device}: {record.status.value} {record.reason}")


if __name__ == "__main__":
    command_line.run(main)
