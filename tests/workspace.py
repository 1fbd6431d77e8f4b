"""A small copy of the project in which tests run the real Snakefile on the CPU."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from evosdpa.config import check

PROJECT = Path(__file__).resolve().parent.parent

CONFIG = {
    "goal": {"problem": "b1h2s64d64-fp16", "time_us": 5.0, "modes": ["warm"]},
    "problems": ["b1h2s64d64-fp16"],
    "device": "cpu",
    "bench": {"processes": 2, "cpu_samples": 3, "cpu_problems": ["b1h2s64d64-fp16"]},
    "verify": {"repeats": 2, "seed": 7},
    "variants": {"v0_reference": {"required": True}},
}
"""One small problem, few samples: what these tests ask is what runs, not how fast it is."""

HEADER = """/* evo-sdpa
title: {title}
parent: v0_reference
idea: a double for tests
expects: nothing
levers: {{}}
*/
#include "sdpa.h"
SDPA_API const char *sdpa_supports(const sdpa_problem *) {{ return nullptr; }}
SDPA_API size_t sdpa_workspace_bytes(const sdpa_problem *) {{ return 0; }}
"""


def double(title: str, body: str) -> str:
    """A host variant whose sdpa_launch has the given body."""
    return HEADER.format(title=title) + f"SDPA_API int sdpa_launch(const sdpa_problem *p, void *) {{ (void)p; {body} }}\n"


class Workspace:
    """A folder with Snakefile, scripts, profiles and chosen kernels."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, kernels: tuple[str, ...] = ("v0_reference.cpp",), config: dict | None = None) -> Workspace:
        """A fresh workspace with the project's code and these kernels."""
        folder.mkdir(parents=True)
        for name in ("Snakefile", "scripts", "profiles"):
            source = PROJECT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / name)
        shutil.copytree(PROJECT / "kernels" / "include", folder / "kernels" / "include")
        (folder / "kernels" / "floors").mkdir()
        for name in ("floor_empty_cpu.cpp", "floor_bytes_cpu.cpp"):
            shutil.copy2(PROJECT / "kernels" / "floors" / name, folder / "kernels" / "floors" / name)
        for name in kernels:
            shutil.copy2(PROJECT / "kernels" / name, folder / "kernels" / name)
        made = cls(folder)
        made.configure(config or CONFIG)
        return made

    def copy(self, folder: Path) -> Workspace:
        """A copy with everything that was made, Snakemake's records included."""
        shutil.copytree(self.folder, folder)
        return Workspace(folder)

    def configure(self, config: dict) -> None:
        """Write config.yaml."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace text in a file; the text must be there."""
        text = (self.folder / path).read_text()
        assert old in text, f"{path} does not contain {old!r}"
        (self.folder / path).write_text(text.replace(old, new, 1))

    def command(self, *arguments: str) -> list[str]:
        """Snakemake's command line."""
        return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]

    def snakemake(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run Snakemake to its end."""
        return subprocess.run(self.command(*arguments), cwd=self.folder, capture_output=True, text=True, timeout=timeout,
                              env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})

    def run(self, *arguments: str) -> str:
        """Run Snakemake; it must succeed. Returns its output."""
        done = self.snakemake(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def planned(self, *targets: str) -> set[str]:
        """What a dry run would do: `rule` or `rule:variant` for each job, without the target rule."""
        return self._jobs(self.run("-n", *(targets or ("all",))))

    def ran(self, *targets: str) -> set[str]:
        """What a real run did, written as for planned()."""
        return self._jobs(self.run(*(targets or ("all",))))

    @staticmethod
    def _jobs(output: str) -> set[str]:
        found = set()
        for block in re.split(r"\n(?=(?:local)?(?:rule|checkpoint) )", output):
            rule = re.match(r"(?:local)?(?:rule|checkpoint) ([^\s:]+(?::[^\s]+)*):", block)
            if rule and rule[1] not in ("all",) and "output:" in block:
                variant = re.search(r"wildcards: .*?variant=(\S+?),?\s", block)
                found.add(f"{rule[1]}:{variant[1]}" if variant else rule[1])
        return found

    def json(self, path: str) -> dict:
        """A JSON file of the workspace."""
        return json.loads((self.folder / path).read_text())

    def gap(self) -> list[dict[str, str]]:
        """The rows of gap.csv."""
        with open(self.folder / "results" / "gap.csv") as file:
            return list(csv.DictReader(file))


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines in which a run says what is wrong, each once (a failed job's log repeats its own)."""
    return list(dict.fromkeys(line for line in (done.stdout + "\n" + done.stderr).splitlines() if line.startswith("evo-sdpa: ")))


def aggregate(workspace: Workspace, names: tuple[str, ...] = ("v0_reference", "v1_scalar"), device: str | None = None) -> list[dict[str, str]]:
    """Run the gap step alone over what is there, as on a machine that measures nothing; v0's rows."""
    config = check(yaml.safe_load((workspace.folder / "config.yaml").read_text()))
    plan = {"config": config.model_dump(), "names": names, "device": device, "arch": "sm_90a", "archs": {}}
    done = subprocess.run([sys.executable, "scripts/build_gap.py", "--plan", json.dumps(plan), "--table", "results/gap.csv", "--json",
                           "results/gap.json"], cwd=workspace.folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    workspace.said = done.stdout
    return [row for row in workspace.gap() if row["name"] == "v0_reference"]
