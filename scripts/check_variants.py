"""Exit 1, with a line each, unless every variant that config.yaml requires is ok and current."""

import argparse
import json
import sys
from pathlib import Path

from evosdpa import command_line, requirements


def main() -> None:
    """Parse arguments, check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gap", type=command_line.existing, required=True, help="gap.json")
    given = parser.parse_args()
    complaints = requirements.complaints(json.loads(Path(given.gap).read_text()))
    for line in complaints:
        print(f"evo-sdpa: {line}", file=sys.stderr)
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    command_line.run(main)
