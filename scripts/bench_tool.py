"""Time the tool itself: compiling against torch's extension builder, doing nothing, planning a thousand variants, edit to page.

Works in a temporary copy of the project and touches nothing in it. Ratios and differences are taken within this one run.
"""

import argparse
from pathlib import Path

from evosdpa import command_line, evidence, tool_speed


def main() -> None:
    """Parse arguments, time, write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results/tool_speed.json"), help="evidence to write; results/recorded/tool/<machine>/tool_speed.json keeps it")
    parser.add_argument("--only", nargs="*", choices=list(tool_speed.BENCHMARKS), help="run only these")
    given = parser.parse_args()
    record = tool_speed.measure(Path.cwd(), given.only or list(tool_speed.BENCHMARKS), print)
    if "recorded" in given.output.parts:
        record.origin = "recorded"
    evidence.write(given.output, record)


if __name__ == "__main__":
    command_line.run(main)
