"""Aggregate all evidence: gap.csv and gap.json."""

import argparse
from pathlib import Path

from evosdpa import command_line, evidence, gap, gap_document
from evosdpa.config import Config
from evosdpa.evolve import document as evolution


def main() -> None:
    """Parse arguments, aggregate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", type=command_line.document, required=True, help="JSON with config, names, device, arch and archs; or @ and a file with it")
    parser.add_argument("--table", type=Path, required=True, help="gap.csv to write")
    parser.add_argument("--json", type=Path, required=True, help="gap.json to write")
    given = parser.parse_args()
    plan = given.plan
    config = Config.model_validate(plan["config"])
    histories, errors = evolution.found()
    names = [*plan["names"], *(evolution.measured(histories) if not config.only else [])]
    found = gap.Gap(config, list(dict.fromkeys(names)), plan["device"], plan["arch"], archs=plan["archs"])
    found.errors += errors
    document = gap_document.document(found, evolution.evolutions(found, histories))
    for error in document["errors"]:
        print(f"left out: {error}")
    evidence.write_text(given.table, gap.table(document["rows"]))
    evidence.write_text(given.json, gap_document.dumps(document))


if __name__ == "__main__":
    command_line.run(main)
