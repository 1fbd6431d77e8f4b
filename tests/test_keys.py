"""What ages evidence: for each kind of change exactly which evidence goes stale, what it says changed, and that the rest stays current."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from evosdpa import benchmarking, verification
from evosdpa.config import Config
from evosdpa.evidence import Build
from workspace import CONFIG, PROJECT, Workspace

CHILD = "v0_reference@BLOCK_KV=32"
NAMES = ("v0_reference", CHILD, "v1_scalar")

CPU = {f"cpu/{name}/{step}" for name in ("v0_reference", CHILD) for step in ("verify", "bench")}
GPU = {f"nvidia-h200/v1_scalar/{step}" for step in ("verify", "sanitize", "bench", "profile")}
RIVALS = {"cpu/rivals/bench", "nvidia-h200/rivals/bench"}
BUILDS = {"cpu/v0_reference/build", f"cpu/{CHILD}/build", "nvidia-h200/v1_scalar/build", "nvidia-h200/v1_scalar/static"}
EVERYTHING = CPU | GPU | RIVALS


def of(step: str) -> set[str]:
    """All evidence of one step."""
    return {one for one in EVERYTHING if one.endswith(f"/{step}")}


def variant(name: str) -> set[str]:
    """All evidence that was measured of one variant."""
    return {one for one in EVERYTHING if one.split("/")[1] == name}


SEAL = """
import shutil, sys
from pathlib import Path
import yaml
from evosdpa import benchmarking, build, evidence, keys, profiling, sanitizing, variants, verification
from evosdpa.config import check
from evosdpa.evidence import Build

origin = sys.argv[1]
config = check(yaml.safe_load(open("config.yaml")))

def as_of_today(path, name, device):
    record = evidence.read(path, evidence.KINDS[path.stem])
    for timing in getattr(record, "timings", ()):
        timing.name = name if timing.name == record.variant else timing.name
    record.variant, record.origin = name, origin
    if name == "rivals":
        record.key_parts = benchmarking.bench_parts(None, config, device == "cpu")
    else:
        variant = variants.resolve(name)
        arch = "host" if variant.on_cpu else "sm_90a"
        built = Build(variant=name, key_parts=build.build_parts(variant, config, arch), library_sha256="0123456789abcdef")
        binary = Path("results/build") / arch / name / "build.json"
        if origin == "measured":
            built.library_sha256 = evidence.read(binary, Build).library_sha256
        record.key_parts = {
            "build": lambda: built.key_parts, "static": lambda: built.key_parts,
            "verify": lambda: verification.verify_parts(built, config), "sanitize": lambda: sanitizing.sanitize_parts(built, config),
            "bench": lambda: benchmarking.bench_parts(built, config, variant.on_cpu), "profile": lambda: profiling.profile_parts(built, config, "sm_90a"),
        }[path.stem]()
    record.key = keys.combine(record.key_parts)
    evidence.write(path, record)

for path in sorted(Path(sys.argv[2]).glob("*/*/*.json")):
    device, name = path.parts[-3:-1]
    if device in ("cpu", "nvidia-h200"):
        as_of_today(path, name, device)
"""
"""Gives evidence the key that it would have had if it had been measured today: these tests ask what a change does to it."""


def prepare(built: Workspace, folder: Path, origin: str) -> Workspace:
    """A workspace with evidence of a child and of a GPU beside v0's: recorded elsewhere, or measured here."""
    made = built.copy(folder)
    made.configure(BASE)
    root = made.folder / "results" / ("recorded" if origin == "recorded" else "")
    root.mkdir(exist_ok=True)
    if origin == "recorded":
        shutil.move(made.folder / "results/cpu", root / "cpu")
        shutil.copy2(made.folder / "results/build/host/v0_reference/build.json", root / "cpu/v0_reference")
    shutil.copytree(root / "cpu/v0_reference", root / "cpu" / CHILD)
    for name in ("v1_scalar", "rivals"):
        shutil.copytree(PROJECT / "results/recorded/nvidia-h200" / name, root / "nvidia-h200" / name)
    if origin == "measured":
        for name in ("build.json", "static.json"):
            (root / "nvidia-h200/v1_scalar" / name).unlink()
        builds = made.folder / "results/build/host"
        shutil.copytree(builds / "v0_reference", builds / CHILD)
        run(made, "import sys; from evosdpa import build, variants; from evosdpa.config import Config; from pathlib import Path\n"
                  f"build.compile_variant(variants.resolve({CHILD!r}), Config(), 'host', Path('results/build/host') / {CHILD!r})")
    run(made, SEAL, origin, str(root))
    return made


def run(workspace: Workspace, code: str, *arguments: str) -> str:
    """What Python code prints, run with the workspace's own package."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=workspace.folder, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(workspace.folder / "scripts")})
    assert done.returncode == 0, done.stderr
    return done.stdout


BASE = {**CONFIG, "variants": {"v0_reference": {"required": True}, CHILD: {}}}


@pytest.fixture(scope="module")
def prepared(built, tmp_path_factory) -> dict[str, Workspace]:
    """One workspace an origin; copy before changing it."""
    return {origin: prepare(built, tmp_path_factory.mktemp(origin) / "project", origin) for origin in ("recorded", "measured")}


JUDGE = """
import json, os, sys
import yaml
from evosdpa.config import check
from evosdpa.gap import Gap
from evosdpa.gap_document import document

documents = []
for folder in sys.argv[2:]:
    os.chdir(folder)
    documents.append(document(Gap(check(yaml.safe_load(open("config.yaml"))), json.loads(sys.argv[1]), "nvidia-h200", "sm_90a")))
print(json.dumps(documents))
"""
"""The gap of several workspaces with the same sources, by the first one's code."""


def stale(*workspaces: Workspace) -> list[dict[str, str]]:
    """What is stale now, and what changed, in each workspace; every piece must have been found."""
    documents = json.loads(run(workspaces[0], JUDGE, json.dumps(NAMES), *(str(one.folder) for one in workspaces)))
    return [_stale(document) for document in documents]


def _stale(document: dict) -> dict[str, str]:
    assert document["errors"] == []
    found = {f"{one['device']}/{one['variant']}/{one['kind']}": one for one in document["provenance"]}
    assert set(found) - BUILDS == EVERYTHING
    for row in document["rows"]:  # what is stale is never ranked
        of_variant = row["kind"] == "variant"
        pieces = [found[f"{row['device']}/{row['name'] if of_variant else 'rivals'}/{step}"] for step in (("verify", "bench") if of_variant else ("bench",))]
        assert row["stale"] == any(one["stale"] for one in pieces), row
        assert not (of_variant and row["stale"] and (row["verdict"] or row["vs_best_rival"])), row
    return {name: ", ".join(sorted(one["changed"])) for name, one in found.items() if one["stale"]}


# ---- Changes

def edit(path: str, old: str, new: str) -> Callable[[Workspace], None]:
    return lambda workspace: workspace.edit(path, old, new)


def append(path: str, text: str) -> Callable[[Workspace], None]:
    def change(workspace: Workspace) -> None:
        file = workspace.folder / path
        file.write_text(file.read_text() + text)
    return change


def section(name: str, **keys: object) -> Callable[[Workspace], None]:
    def change(workspace: Workspace) -> None:
        config = yaml.safe_load((workspace.folder / "config.yaml").read_text())
        config[name] = {**config.get(name, {}), **keys}
        workspace.configure(config)
    return change


def expect(names: set[str], changed: str) -> dict[str, str]:
    return dict.fromkeys(names, changed)


def on_cpu_floors(changed: str = "") -> dict[str, str]:
    """What a change to the CPU's floors ages: everything that was timed beside them. `changed`: what else is not what it was, but for the rivals."""
    return {one: "floors" if not changed or one == "cpu/rivals/bench" else f"floors, {changed}" for one in of("bench") if one.startswith("cpu/")}


HARNESS = "scripts/evosdpa/harness"
CODE = "\n_EDITED = 1\n"
V0, V1 = variant("v0_reference") | variant(CHILD), variant("v1_scalar")

CHANGES: dict[str, tuple[Callable[[Workspace], None], dict[str, str]]] = {
    # sources and headers
    "a source for the CPU": (append("kernels/v0_reference.cpp", "struct Edited;\n"), expect(V0, "source")),
    "a source for the GPU": (append("kernels/v1_scalar.cu", "struct Edited;\n"), expect(V1, "source")),
    "a header of the CPU's": (append("kernels/include/sdpa_host.h", "struct Edited;\n"), {**expect(V0, "headers"), **on_cpu_floors("headers")}),
    "a header of the GPU's": (append("kernels/include/sdpa_dtype.cuh", "struct Edited;\n"), expect(V1, "headers")),
    "the contract": (append("kernels/include/sdpa.h", "struct sdpa_edited;\n"), {**expect(V0 | V1, "headers"), **on_cpu_floors("headers")}),
    "a floor": (append("kernels/floors/floor_bytes_cpu.cpp", "struct Edited;\n"), on_cpu_floors()),
    # levers
    "a lever's default": (edit("kernels/v0_reference.cpp", "#define BLOCK_KV 64", "#define BLOCK_KV 128"), expect(V0, "source")),
    # flags
    "flags of the CPU": (section("compile", host_flags=["-O2", "-std=c++17"]), expect(V0, "flags")),
    "flags of the GPU": (section("compile", nvcc_flags=["-O2", "-std=c++17"]), expect(V1, "flags")),
    "flags of one variant": (section("variants", v0_reference={"flags": ["-DEDITED"]}), expect(variant("v0_reference"), "flags")),
    "flags of a child": (section("variants", **{CHILD: {"flags": ["-DEDITED"]}}), expect(variant(CHILD), "flags")),
    # protocol
    "repeats": (section("verify", repeats=3), expect(of("verify"), "protocol")),
    "the tolerance": (section("verify", tolerance=3.0), expect(of("verify") | of("bench"), "protocol")),
    "processes": (section("bench", processes=3), expect(of("bench"), "protocol")),
    "samples on the CPU": (section("bench", cpu_samples=4), expect({one for one in of("bench") if one.startswith("cpu/")}, "protocol")),
    "samples on the GPU": (section("bench", samples=50), expect({one for one in of("bench") if one.startswith("nvidia")}, "protocol")),
    "the sanitizer's tools": (section("sanitize", tools=["memcheck"]), expect(of("sanitize"), "protocol")),
    "profiled problems": (section("profile", problems=["b1h2s64d64-fp16"]), expect(of("profile"), "protocol")),
    # harness
    "the judge": (append(f"{HARNESS}/verify.py", CODE), expect(of("verify"), "harness")),
    "the timer": (append(f"{HARNESS}/timing.py", CODE), expect(of("bench"), "harness")),
    "the bench": (append(f"{HARNESS}/bench.py", CODE), expect(of("bench"), "harness")),
    "the comparison": (append(f"{HARNESS}/compare.py", CODE), expect(of("verify") | of("bench"), "harness")),
    "the sanitizer's worker": (append(f"{HARNESS}/sanitize.py", CODE), expect(of("sanitize"), "harness")),
    "the profiler's worker": (append(f"{HARNESS}/profile.py", CODE), expect(of("profile"), "harness")),
    "what a problem is": (append("scripts/evosdpa/problem.py", CODE), expect(EVERYTHING, "harness")),
}


HARMLESS: list[Callable[[Workspace], None]] = [
    append("kernels/v0_reference.cpp", "// reworded\n\n"),
    append("kernels/include/sdpa.h", "/* reworded */\n"),
    append("kernels/include/sdpa_async.cuh", "struct Edited;\n"),  # no variant here includes it
    edit("kernels/v0_reference.cpp", "BLOCK_KV: [16, 32,", "BLOCK_KV: [8, 16, 32,"),  # one value more to choose from
    *(section(name, timeout_s=77) for name in ("compile", "verify", "sanitize", "bench", "profile")),
    section("goal", time_us=6.0),
    lambda workspace: workspace.edit("config.yaml", "problems:\n- b1h2s64d64-fp16", "problems:\n- b1h2s64d64-fp16\n- b1h2s128d64-fp16"),
    append(f"{HARNESS}/compare.py", "# reworded\n"),
    append("scripts/evosdpa/page/words.py", CODE),
    append("scripts/evosdpa/gap.py", CODE),
]
"""Changes that no number depends on."""


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_ages_what_depends_on_it_and_nothing_else(prepared, tmp_path, name):
    """The same for evidence recorded elsewhere and for evidence measured here."""
    change, expected = CHANGES[name]
    both = [prepared[origin].copy(tmp_path / origin) for origin in ("recorded", "measured")]
    for workspace in both:
        change(workspace)
    recorded, measured = stale(*both)
    assert measured == expected
    # A build and static facts lie beside recorded evidence only, and are of the same source, headers, levers and flags.
    built = {one: part for one in BUILDS if (part := expected.get(f"{one.rpartition('/')[0]}/verify")) in ("source", "headers", "flags")}
    assert recorded == {**expected, **built}


def test_what_decides_no_number_ages_nothing(prepared, tmp_path):
    both = [prepared[origin].copy(tmp_path / origin) for origin in ("recorded", "measured")]
    for workspace in both:
        for change in HARMLESS:
            change(workspace)
    assert stale(*both) == [{}, {}]


@pytest.fixture
def other_compilers(tmp_path, monkeypatch):
    """g++ and nvcc that say another version of themselves."""
    def put(name: str, says: str) -> None:
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho '{says}'\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return put


@pytest.mark.parametrize("name, says, aged", [("g++", "99.1.0", V0), ("nvcc", "Cuda compilation tools, release 99.1, V99.1.7", V1)])
def test_another_compiler_ages_what_it_compiled_here_and_nothing_recorded(prepared, other_compilers, name, says, aged):
    other_compilers(name, says)
    assert stale(prepared["measured"], prepared["recorded"]) == [expect(aged, "compiler"), {}]


REBUILT = """
from pathlib import Path
from evosdpa import evidence
from evosdpa.evidence import Build
path = Path("results/build/host/v0_reference/build.json")
record = evidence.read(path, Build)
record.library_sha256 = "fedcba9876543210"
evidence.write(path, record)
"""


def test_measured_here_is_matched_by_the_binary(prepared, tmp_path):
    workspace = prepared["measured"].copy(tmp_path / "project")
    run(workspace, REBUILT)
    assert stale(workspace) == [expect(variant("v0_reference"), "binary")]
    recorded = prepared["recorded"].copy(tmp_path / "recorded")
    run(recorded, REBUILT)
    assert stale(recorded) == [{}], "another machine's compiler made the recorded binary"


def test_a_rebuild_with_the_same_binary_ages_nothing(prepared, tmp_path):
    """A reworded header block, compiled again: another text, the same bytes."""
    workspace = prepared["measured"].copy(tmp_path / "project")
    workspace.edit("kernels/v0_reference.cpp", "title: streaming softmax", "title: a streaming softmax")
    run(workspace, "from evosdpa import build, variants; from evosdpa.config import Config; from pathlib import Path\n"
                   "build.compile_variant(variants.resolve('v0_reference'), Config(), 'host', Path('results/build/host/v0_reference'))")
    assert stale(workspace) == [{}]


def test_a_childs_evidence_is_not_its_parents(prepared, tmp_path):
    """The same file under the child's name with the parent's key: the levers tell."""
    workspace = prepared["recorded"].copy(tmp_path / "project")
    run(workspace, "from pathlib import Path; from evosdpa import evidence\nfrom evosdpa.evidence import Bench\n"
                   "root = Path('results/recorded/cpu'); record = evidence.read(root / 'v0_reference/bench.json', Bench)\n"
                   f"record.variant = record.timings[0].name = {CHILD!r}; evidence.write(root / {CHILD!r} / 'bench.json', record)")
    assert stale(workspace) == [{f"cpu/{CHILD}/bench": "levers"}]


def test_a_value_that_is_left_out_and_the_same_value_written_are_one_key():
    left_out = Config()
    written = Config.model_validate(json.loads(json.dumps(left_out.model_dump())))
    for on_cpu in (True, False):
        assert benchmarking.bench_parts(None, left_out, on_cpu) == benchmarking.bench_parts(None, written, on_cpu)
    assert verification.verify_parts(Build(variant="v"), left_out) == verification.verify_parts(Build(variant="v"), written)
