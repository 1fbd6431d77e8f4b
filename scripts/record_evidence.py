"""Copy this machine's current evidence into results/recorded/<device>/, for git."""

import argparse
import json
from pathlib import Path

from evosdpa import command_line, recording
from evosdpa.evolve import recording as evolution


def main() -> None:
    """Parse arguments, copy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gap", type=command_line.existing, required=True, help="gap.json, which says what is current")
    given = parser.parse_args()
    results = Path("results")
    document = json.loads(given.gap.read_text())
    print("\n".join([*recording.record(document, results), *evolution.record(document, results)]))


if __name__ == "__main__":
    command_line.run(main)
