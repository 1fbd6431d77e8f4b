"""Print what an evolution found: its elites, and how each generation did."""

import argparse
from pathlib import Path

from evosdpa import command_line
from evosdpa.evolve import lineage, telling


def main() -> None:
    """Parse arguments, read, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the device")
    given = parser.parse_args()
    print(telling.told(lineage.read(Path("results"), given.device)))


if __name__ == "__main__":
    command_line.run(main)
