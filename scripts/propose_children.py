"""Propose the children of a generation: proposal.json, and the prompt for whoever writes kernels."""

from pathlib import Path

from evosdpa import command_line, evidence
from evosdpa.evolve import proposal


def main() -> None:
    """Parse arguments, propose."""
    parser = command_line.parser(__doc__, variant=False, device=True, arch=True)
    parser.add_argument("--generation", type=int, required=True, help="0 for the variants to begin with")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    record = proposal.propose(given.settings, given.device, given.arch, given.generation)
    evidence.write(given.output, record)
    print(f"generation {record.generation}: {', '.join(child.name for child in record.children) or 'no children'}")
    for line in (*record.notes, *(f"{child.name}: {child.dropped}" for child in record.children if child.dropped)):
        print(line)


if __name__ == "__main__":
    command_line.run(main)
