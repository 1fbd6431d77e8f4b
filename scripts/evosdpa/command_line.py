"""What the scripts' command lines have in common."""

from __future__ import annotations

import argparse
import errno
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evosdpa.config import Config
from evosdpa.evidence import EvidenceError
from evosdpa.machine import MachineError
from evosdpa.variants import VariantError


REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
"""Errors of a disk or a folder that the user can mend."""


def parser(about: str | None, *, variant: bool = True, device: bool = False, arch: bool = False) -> argparse.ArgumentParser:
    """A parser with the arguments that most steps share."""
    made = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    if variant:
        made.add_argument("variant", help="name of the variant, for example v2_wmma@STAGES=3")
    if device:
        made.add_argument("--device", required=True, help="slug of the device: cpu or a GPU's")
    if arch:
        made.add_argument("--arch", required=True, help="architecture to compile for, for example sm_90a")
    made.add_argument("--settings", type=settings, required=True, help="the sections of config.yaml that decide this step, as JSON")
    return made


def settings(text: str) -> Config:
    """The configuration from a rule's JSON; sections that the step does not need keep their defaults."""
    return Config.model_validate(document(text))


def document(text: str) -> Any:
    """JSON, or the JSON in the file that stands behind an @."""
    return json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)


def existing(text: str) -> Path:
    """A path that must exist."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text} does not exist")
    return path


def run(main: Callable[[], None]) -> None:
    """Call a script's main; what a user can mend is one line and exit status 1, not a traceback."""
    try:
        main()
    except (EvidenceError, VariantError) as error:
        sys.exit(f"evo-sdpa: {error}")
    except MachineError as error:
        sys.exit(f"evo-sdpa: this job is on the wrong machine: {error}; on a cluster, `cluster` in config.yaml says which model and partition it asks for")
    except OSError as error:  # no space, no permission: also for temporary files
        if error.errno not in REFUSALS:
            raise
        sys.exit(f"evo-sdpa: {error.filename or tempfile.gettempdir()}: {error.strerror}; mend that and run again")
