"""Check one variant against PyTorch and a float64 reference: verify.json."""

from pathlib import Path

from evosdpa import command_line, evidence, variants, verification
from evosdpa.evidence import Build


def main() -> None:
    """Parse arguments, verify."""
    parser = command_line.parser(__doc__, device=True)
    parser.add_argument("--library", type=command_line.existing, required=True, help="kernel.so, with build.json beside it")
    parser.add_argument("--fill-shared", type=command_line.existing, nargs="*", default=[], help="library that fills shared memory before each launch; a GPU needs it")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    record = verification.verify_variant(
        variants.resolve(given.variant), given.settings, given.device, evidence.read(given.library.with_name("build.json"), Build),
        given.library, next(iter(given.fill_shared), None))
    evidence.write(given.output, record)
    print(f"{record.variant} on {record.device}: {record.status.value} {record.counts} {record.reason}")


if __name__ == "__main__":
    command_line.run(main)
