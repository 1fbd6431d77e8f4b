"""The command line of the steps that time one variant, and what they read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from evosdpa import benchmarking, command_line, evidence, variants
from evosdpa.evidence import Build, Verify


def parser(about: str | None) -> argparse.ArgumentParser:
    """A parser with the arguments that they share."""
    made = command_line.parser(about, device=True)
    made.add_argument("--library", type=command_line.existing, required=True, help="kernel.so, with build.json beside it")
    made.add_argument("--verify", type=command_line.existing, required=True, help="verify.json")
    made.add_argument("--floors", type=command_line.existing, nargs="*", default=[], help="libraries of the floors")
    made.add_argument("--output", type=Path, required=True)
    return made


def subject(given: argparse.Namespace) -> tuple[Any, ...]:
    """Variant, configuration, device, build, verdict, library and floors, as every measure function takes them. Raises EvidenceError and
    VariantError."""
    return (variants.resolve(given.variant), given.settings, given.device, evidence.read(given.library.with_name("build.json"), Build),
            evidence.read(given.verify, Verify), given.library, benchmarking.built_floors(given.floors))
