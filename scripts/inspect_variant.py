"""Inspect one built variant without a GPU: static.json."""

from pathlib import Path

from evosdpa import command_line, evidence, inspection, variants
from evosdpa.evidence import Build


def main() -> None:
    """Parse arguments, inspect."""
    parser = command_line.parser(__doc__, arch=True)
    parser.add_argument("--folder", type=Path, required=True, help="folder with kernel.so, kernel.cubin and build.json")
    given = parser.parse_args()
    record = inspection.inspect_variant(
        variants.resolve(given.variant), given.settings, given.arch, evidence.read(given.folder / "build.json", Build),
        given.folder / "kernel.so", given.folder / "kernel.cubin")
    evidence.write(given.folder / "static.json", record)


if __name__ == "__main__":
    command_line.run(main)
