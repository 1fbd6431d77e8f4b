"""Join the rivals' runs: bench.json and samples.csv.gz of all of them."""

import argparse
from pathlib import Path

from evosdpa import benchmarking, command_line, evidence


def main() -> None:
    """Parse arguments, join."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=command_line.existing, nargs="+", help="bench.json of each rival, samples.csv.gz beside it")
    parser.add_argument("--device", required=True, help="slug of the device: cpu or a GPU's")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--samples", type=Path, required=True)
    given = parser.parse_args()
    evidence.write(given.output, benchmarking.join_rivals(given.device, given.runs, given.samples))


if __name__ == "__main__":
    command_line.run(main)
