"""Drop the proposed children that their binaries already exclude: screening.json."""

from pathlib import Path

from evosdpa import command_line, evidence
from evosdpa.evolve import screening
from evosdpa.evolve.lineage import Proposal


def main() -> None:
    """Parse arguments, screen."""
    parser = command_line.parser(__doc__, variant=False, device=True, arch=True)
    parser.add_argument("--proposal", type=command_line.existing, required=True, help="proposal.json")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    record = screening.screening(given.settings, given.device, given.arch, evidence.read(given.proposal, Proposal))
    evidence.write(given.output, record)
    for child in record.children:
        print(f"{child.name}: {f'dropped, {child.dropped}' if child.dropped else 'to be measured'}")


if __name__ == "__main__":
    command_line.run(main)
