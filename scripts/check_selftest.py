"""Say how the gate did on the planted kernels and on a binary against itself; exit 1 when it was wrong about one."""

import argparse
import sys
from pathlib import Path

from evosdpa import command_line, evidence, requirements
from evosdpa.evidence import KINDS


def main() -> None:
    """Parse arguments, read, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evidence", type=command_line.existing, nargs="*", help="selftest.json and repeatability.json files")
    given = parser.parse_args()
    if not given.evidence:
        sys.exit("evo-sdpa: no device here has planted kernels to try")
    records = [evidence.read(path, KINDS[Path(path).stem]) for path in given.evidence]
    for record in records:
        print("\n".join(requirements.told(record)))
    wrong = [line for record in records for line in requirements.gate_complaints(record)]
    for line in wrong:
        print(f"evo-sdpa: {line}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    command_line.run(main)
