"""Build the report, one HTML file, from gap.json."""

import argparse
from pathlib import Path

from evosdpa import command_line
from evosdpa.page import render


def main() -> None:
    """Parse arguments, build the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gap", type=Path, required=True, help="gap.json to read")
    parser.add_argument("--output", type=Path, required=True, help="report.html to write")
    given = parser.parse_args()
    render.build(given.gap, given.output)


if __name__ == "__main__":
    command_line.run(main)
