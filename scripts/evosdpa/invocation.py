"""How Snakemake was called, and whether this run may start: what was asked for, who else is at work in this folder, whether it can be
written to. What is wrong is one clear line before any job."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from evosdpa import evidence, keys, machine

RESULTS = Path("results")
RECORDED = RESULTS / "recorded"
SNAKEMAKE = Path(".snakemake")

HERE = (None, "local", "dryrun", "touch")
"""Snakemake's executors that run jobs on this machine, or none."""

STARTS_NO_JOBS = (
    "dryrun", "nolock", "unlock", "lint", "dag", "rulegraph", "filegraph", "d3dag", "summary", "detailed_summary", "list_rules", "list_target_rules",
    "list_changes", "list_input_changes", "list_params_changes", "list_untracked", "print_compilation", "cleanup_metadata", "archive", "report",
)
"""Snakemake's options with which it looks, or with which the user took the locks upon himself."""

EVOLVE = "evolve"
"""The target that starts or goes on with an evolution."""

EVOLUTION = ("propose", "screen", "finals", "select", "closing")
"""The rules of a generation's steps; they exist only when an evolution is asked for."""

WILDCARDS = ("variant", "device", "arch", "rival", "generation")
"""Every wildcard of the Snakefile."""

LOCK_WAIT_S = 1.0

FREE_BYTES = 32 * 1000 * 1000
"""Least free space to start a run with: a few libraries and some hundred files of evidence."""

_held: list[Any] = []


def stop(message: str) -> NoReturn:
    """End with one clear line per problem and exit status 1."""
    for line in message.splitlines():
        print(f"evo-sdpa: {line}", file=sys.stderr)
    sys.stderr.flush()
    raise SystemExit(1)


def options(arguments: list[str]) -> Any:
    """Snakemake's command line, by its own parser: while it reads the Snakefile it does not know its targets yet."""
    from snakemake.cli import parse_args

    return parse_args(arguments)[1]


def requested(given: Any) -> list[str]:
    """What was asked for by name: the targets; where one job runs alone, on a node of a cluster, the evolution if the job is one of its steps."""
    alone = {target.rulename for target in getattr(given, "target_jobs", None) or ()}
    return [*(given.targets or ()), *([EVOLVE] if alone & set(EVOLUTION) else [])]


def mend_target_jobs(given: Any) -> None:
    """Put together again the variant of a job that runs alone on a node of a cluster.

    Snakemake names such a job as `rule:wildcard=value,...` and splits that at every comma, also between the levers of a child; the node then finds
    nothing to do and the job seems done without its files. What it parsed is out of a Snakefile's reach until it is too late, so the parsed names are
    looked up among Python's objects. test_slurm.py measures a child with two levers: it fails when this no longer works.
    """
    from snakemake_interface_executor_plugins.utils import TargetSpec

    if given.mode.name == "DEFAULT":
        return
    for spec in [one for one in gc.get_objects() if type(one) is TargetSpec]:  # isinstance would wake what is lazy
        levers = [name for name in spec.wildcards_dict if name not in WILDCARDS]
        for name in levers:
            spec.wildcards_dict["variant"] += f",{name}={spec.wildcards_dict.pop(name)}"


def starts_jobs(given: Any) -> bool:
    """Whether Snakemake will start jobs: neither a dry run or a summary does, nor one that runs a single job for another."""
    return given.mode.name == "DEFAULT" and not any(getattr(given, name, None) for name in STARTS_NO_JOBS)


def claim_folder(given: Any) -> None:
    """Make sure that no other run is alive in this folder and that it can be written to; else end with one clear line.

    A killed run (SIGKILL, power) leaves Snakemake's own lock behind, and Snakemake then refuses to start. The kernel drops our
    lock however a run ends, so holding it proves that no other run is alive, and what is left of Snakemake's is removed.
    """
    starting = starts_jobs(given)
    check_writable(starting)
    if given.mode.name != "DEFAULT":
        return  # runs one job for a run that holds the lock, perhaps on another node, where a lock may not be seen
    try:
        SNAKEMAKE.mkdir(exist_ok=True)
        file = open(SNAKEMAKE / "evosdpa.lock", "a+")
    except OSError as error:
        stop(f"{error.filename}: cannot be written: {error.strerror}")
    deadline = time.monotonic() + LOCK_WAIT_S  # one that only looks holds it for a moment
    while not _locked(file):
        if not starting:
            return
        if time.monotonic() > deadline:
            file.seek(0)
            stop(f"another snakemake (process {file.read().strip() or 'unknown'}) is at work in {Path.cwd()}; start again when it has ended, "
                 "or work in a copy of the folder (a dry run, -n, may go on beside it)")
        time.sleep(0.05)
    stale = list((SNAKEMAKE / "locks").glob("*.lock"))
    for lock in stale:
        lock.unlink()
    if not starting:
        file.close()
        return
    _held.append(file)  # held until this process ends
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    if stale:
        print("evo-sdpa: the last run was killed; its lock is removed and what it left unfinished runs again", file=sys.stderr)


def sends_jobs(given: Any) -> bool:
    """Whether jobs run elsewhere, or none is started: then a device need not be here."""
    return getattr(given, "executor", None) not in HERE or not starts_jobs(given)


def check_queue(given: Any) -> None:
    """End with one clear line when SLURM still has jobs of an earlier run in this folder.

    A run that ends, also by Ctrl-C, cancels its jobs; one that was killed cannot, and what they measure would be measured twice.
    """
    if getattr(given, "executor", None) != "slurm" or not starts_jobs(given):
        return
    listed = machine.output(["squeue", "--me", "--noheader", "--format=%A %Z"])
    if listed is None:
        stop("squeue does not answer; is this a node of a SLURM cluster? Without --profile profiles/slurm jobs run on this machine")
    left = [line.split(" ", 1)[0] for line in listed.splitlines() if line.split(" ", 1)[1] == str(Path.cwd())]
    if left:
        stop(f"SLURM still has jobs of an earlier run in {Path.cwd()}: {' '.join(left)}; let them end or cancel them (scancel {' '.join(left)}), "
             "then start again")


def _locked(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check_writable(starting: bool) -> None:
    """End with one line when a folder that Snakemake or a run writes to refuses, or the disk is all but full.

    Before any job, because Snakemake deletes what a job made before it starts that job again.
    """
    folders = [SNAKEMAKE, *SNAKEMAKE.glob("*/")] if SNAKEMAKE.is_dir() else [Path(".")]  # a dry run writes there too
    if starting:
        folders += [] if RESULTS.is_dir() else [Path(".")]
        for folder, below, _ in os.walk(RESULTS):
            folders.append(Path(folder))
            if Path(folder) == RESULTS and RECORDED.name in below:
                below.remove(RECORDED.name)
    for folder in folders:
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            stop(f"{folder.resolve()}: no permission to write there; change it (chown or chmod) or work in a copy of the project")
    for folder in (folders[0], folders[-1]) if starting else ():
        free = shutil.disk_usage(folder).free
        if free < FREE_BYTES:
            stop(f"{folder.resolve()}: its disk is full: {free / 1e6:.1f} MB left, a run needs {FREE_BYTES / 1e6:.0f} MB; free some and start again, "
                 "nothing is lost")


def by_file(settings: dict[str, Any]) -> str:
    """Settings as a script's command line names them: @ and a file, because a thousand variants are more than a command line holds (128 KiB).

    The file's name is its content's digest, so that other settings are another parameter.
    """
    text = json.dumps(settings, sort_keys=True)
    path = SNAKEMAKE / "evosdpa" / f"{keys.digest(text)}.json"
    if not path.is_file():
        evidence.write_text(path, text)
    return f"@{path}"
