"""Copy this machine's current evidence into results/recorded/<device>/, for git."""

import argparse
import json
from pathlib import Path

from evosdpa import command_line, recording


def main() -> None:
    """Parse arguments, copy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gap", type=command_line.existing, required=True, help="gap.json, which says what is current")
    given = parser.parse_args()
    for line in recording.record(json.loads(Path(given.gap).read_text()), Path("results")):
        print(line)


if __name__ == "__main__":
    command_line.run(main)
