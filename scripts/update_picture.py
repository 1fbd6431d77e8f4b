"""Make README.md's picture of the page from the recorded evidence; needs Chromium."""

import argparse
from pathlib import Path

from evosdpa import command_line, config, picture


def main() -> None:
    """Parse arguments, make the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=picture.PICTURE)
    given = parser.parse_args()
    picture.make(config.load("config.yaml"), given.output)


if __name__ == "__main__":
    command_line.run(main)
