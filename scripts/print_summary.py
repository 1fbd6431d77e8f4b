"""Print the ladder to the terminal, from gap.json."""

import argparse
import sys
from pathlib import Path

from evosdpa import command_line, terminal
from evosdpa.page import render


def main() -> None:
    """Parse arguments, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gap", type=Path, required=True, help="gap.json to read")
    parser.add_argument("--page", type=Path, default=Path("results/report.html"), help="where the page is, or will be")
    parser.add_argument("--summary", type=Path, default=Path("results/summary.md"), help="where summary.md is, or will be")
    given = parser.parse_args()
    places = [str(path) if path.is_file() else f"{path} (not there yet: snakemake --cores 1 {path})" for path in (given.page, given.summary)]
    sys.stdout.write(terminal.ladder(render.read(given.gap), *places, colour=terminal.wants_colour(sys.stdout)))


if __name__ == "__main__":
    command_line.run(main)
