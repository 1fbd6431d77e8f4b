"""Rewrite the generated tables of README.md from the sources and the recorded evidence."""

import argparse
from pathlib import Path

from evosdpa import command_line, evidence, readme


def main() -> None:
    """Parse arguments, rewrite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    given = parser.parse_args()
    evidence.write_text(given.readme, readme.filled(given.readme.read_text()))


if __name__ == "__main__":
    command_line.run(main)
