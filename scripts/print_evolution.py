"""Print what an evolution found: its elites, and how each generation did; exit 1 when there is no elite."""

import argparse
import sys
from pathlib import Path

from evosdpa import command_line, evidence
from evosdpa.evidence import Bench
from evosdpa.evolve import lineage, telling


def main() -> None:
    """Parse arguments, read, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, help="slug of the device")
    parser.add_argument("--closing", type=command_line.existing, required=True, help="bench.json of the closing comparison")
    given = parser.parse_args()
    history = lineage.read(Path("results"), given.device)
    print(telling.told(history, evidence.read(given.closing, Bench)))
    if not history.elites:
        sys.exit(f"evo-sdpa: {next((population.reason for _, population in history.generations if not population.elites), 'nothing was measured')}")


if __name__ == "__main__":
    command_line.run(main)
