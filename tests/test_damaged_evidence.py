"""Evidence that was cut short or changed by hand, samples that are not those of the times, half a library: one line, never a number."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys

import pytest
import yaml

from evosdpa import evidence
from evosdpa.evidence import Bench, EvidenceError, Timing, Verify
from workspace import Workspace, aggregate, complaints

BENCH = "results/cpu/v0_reference/bench.json"
VERIFY = "results/cpu/v0_reference/verify.json"
LIBRARY = "results/build/host/v0_reference/kernel.so"


def faster(text: str) -> str:
    """Evidence with a better time, as a text editor would leave it."""
    data = json.loads(text)
    for timing in data.get("timings", ()):
        timing["time_us"] /= 2
    data["ended"] = "2020-01-01T00:00:00Z"
    return json.dumps(data, indent=1) + "\n"


DAMAGE = {
    "truncated": (lambda text: text[: len(text) // 2], "not valid JSON"),
    "empty": (lambda text: "", "not valid JSON"),
    "nested without end": (lambda text: "[" * 100_000, "not valid JSON"),
    "a time changed": (faster, "was changed after it was written; restore it from git if it is recorded, or delete it to have it made again"),
    "a key changed": (lambda text: text.replace('"harness": "', '"harness": "0', 1), "was changed after it was written"),
    "a field renamed": (lambda text: text.replace('"status"', '"sttaus"'), "was changed after it was written"),
    "its seal taken off": (lambda text: text.replace('"seal"', '"tag"', 1), "was changed after it was written"),
    "an older schema": (lambda text: text.replace('"schema_version": 2', '"schema_version": 1'), "schema version 1, this program reads 2; delete it to have it made again"),
    "a newer schema": (lambda text: text.replace('"schema_version": 2', '"schema_version": 99'), "schema version 99, this program reads 2"),
    "another thing": (lambda text: "[1, 2]", "not an evidence file"),
}


@pytest.fixture(scope="module")
def recorded(built, tmp_path_factory) -> Workspace:
    """A workspace whose evidence was recorded and whose own measurements are gone; tests put back what they change."""
    made = built.copy(tmp_path_factory.mktemp("recorded") / "project")
    made.run("record")
    shutil.move(made.folder / "results/cpu", made.folder / "measured")
    return made


@pytest.fixture
def restored(recorded):
    """That workspace, put back afterwards."""
    kept = {path: path.read_bytes() for path in (recorded.folder / "results/recorded").glob("*/*/*")}
    yield recorded
    for path, data in kept.items():
        path.write_bytes(data)
    shutil.rmtree(recorded.folder / "results/cpu", ignore_errors=True)


@pytest.mark.parametrize("origin, name", [*(("recorded", name) for name in DAMAGE), ("measured", "truncated"), ("measured", "a time changed")])
def test_damaged_evidence_is_left_out_with_one_line(restored, origin, name):
    damage, words = DAMAGE[name]
    place = "results/recorded/cpu"
    if origin == "measured":
        place = "results/cpu"
        shutil.copytree(restored.folder / "measured", restored.folder / place)
        shutil.rmtree(restored.folder / "results/recorded/cpu/v0_reference")
    path = restored.folder / place / "v0_reference/bench.json"
    path.write_text(damage(path.read_text()))
    [row] = aggregate(restored)
    if origin == "measured":
        shutil.copytree(restored.folder / "measured/v0_reference", restored.folder / "results/recorded/cpu/v0_reference")
    assert (row["status"], row["time_us"], row["verdict"]) == ("not_run", "", "")
    [error] = restored.json("results/gap.json")["errors"]
    assert error.startswith(f"{place}/v0_reference/bench.json: ") and words in error and "\n" not in error
    assert f"left out: {error}" in restored.said.splitlines()


def test_samples_that_are_not_those_of_the_times_are_noticed(restored):
    samples = restored.folder / "results/recorded/cpu/v0_reference/samples.csv.gz"
    samples.write_bytes(gzip.compress(gzip.decompress(samples.read_bytes()).replace(b"\n1,", b"\n2,")))
    [row] = aggregate(restored)
    assert (row["status"], row["time_us"]) == ("not_run", "")
    assert restored.json("results/gap.json")["errors"] == [
        "results/recorded/cpu/v0_reference/samples.csv.gz: is not the file that bench.json describes; "
        "restore it from git if it is recorded, or delete it to have it made again"]
    samples.unlink()
    [row] = aggregate(restored)
    assert row["time_us"] == "" and "samples.csv.gz: is missing" in restored.said


@pytest.mark.parametrize("target", ["cpu/v1_scalar", "nvidia-h100/v0_reference"])
def test_evidence_in_anothers_folder_is_not_its_own(restored, target):
    shutil.copytree(restored.folder / "results/recorded/cpu/v0_reference", restored.folder / "results/recorded" / target)
    aggregate(restored)
    shutil.rmtree(restored.folder / "results/recorded" / target)
    assert f"results/recorded/{target}/bench.json: is evidence about 'v0_reference' on 'cpu'; it does not belong here" in restored.said


def test_the_page_shows_the_line(restored):
    path = restored.folder / "results/recorded/cpu/v0_reference/bench.json"
    path.write_text(faster(path.read_text()))
    aggregate(restored)
    subprocess.run([sys.executable, "scripts/build_report.py", "--gap", "results/gap.json", "--output", "results/report.html"],
                   cwd=restored.folder, check=True, capture_output=True)
    assert "results/recorded/cpu/v0_reference/bench.json: was changed after it was written" in (restored.folder / "results/report.html").read_text()


def test_a_seal_survives_reading_and_writing_and_a_change_of_origin_gets_a_new_one(tmp_path):
    record = Bench(variant="v", device_info={"watts": 700, "share": 0.1, "name": "µ"},
                   timings=[Timing(name="v", problem="b1h8s512d64-fp16", mode="warm", time_us=4.0)])
    evidence.write(tmp_path / "first.json", record)
    again = evidence.read(tmp_path / "first.json", Bench)
    evidence.write(tmp_path / "second.json", again)
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    again.origin = "recorded"
    evidence.write(tmp_path / "third.json", again)
    assert evidence.read(tmp_path / "third.json", Bench).seal != record.seal


def test_a_whole_file_of_another_kind_is_refused(tmp_path):
    evidence.write(tmp_path / "bench.json", Verify(variant="v"))
    with pytest.raises(EvidenceError, match="kind: ") as caught:
        evidence.read(tmp_path / "bench.json", Bench)
    assert "\n" not in str(caught.value)


# ---- Through Snakemake: evidence measured here that a later step reads

def settings(workspace: Workspace) -> str:
    """The settings of a step as the Snakefile would give them."""
    return json.dumps({name: part for name, part in yaml.safe_load((workspace.folder / "config.yaml").read_text()).items() if name in ("verify", "bench", "problems", "goal")})


@pytest.mark.parametrize("name", ["truncated", "a time changed", "an older schema"])
def test_a_step_that_reads_damaged_evidence_is_one_line_and_writes_nothing(restored, name):
    shutil.copytree(restored.folder / "measured", restored.folder / "results/cpu")
    verify = restored.folder / VERIFY
    verify.write_text(DAMAGE[name][0](verify.read_text()))
    before = (restored.folder / BENCH).read_bytes()
    done = subprocess.run(
        [sys.executable, "scripts/bench_variant.py", "v0_reference", "--device", "cpu", "--settings", settings(restored), "--library", LIBRARY,
         "--verify", VERIFY, "--floors", "--output", BENCH, "--samples", BENCH.replace("bench.json", "samples.csv.gz")],
        cwd=restored.folder, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith(f"evo-sdpa: {VERIFY}: ") and DAMAGE[name][1] in line
    assert (restored.folder / BENCH).read_bytes() == before


def test_a_job_on_hand_edited_evidence_fails_with_one_line_and_deleting_the_file_heals(workspace):
    path = workspace.folder / VERIFY
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))
    done = workspace.snakemake(BENCH)
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    [line] = complaints(done)
    assert line.startswith(f"evo-sdpa: {VERIFY}: was changed after it was written")
    path.unlink()
    workspace.run(BENCH)
    assert (workspace.json(VERIFY)["status"], workspace.json(BENCH)["status"]) == ("ok", "ok")


def test_a_damaged_build_is_one_line_and_deleting_it_heals(workspace):
    path = workspace.folder / "results/build/host/v0_reference/build.json"
    path.write_text(path.read_text().replace('"library_sha256": "', '"library_sha256": "0', 1))
    (workspace.folder / VERIFY).unlink()
    done = workspace.snakemake(VERIFY)
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    [line] = complaints(done)
    assert line.startswith("evo-sdpa: results/build/host/v0_reference/build.json: was changed after it was written")
    path.unlink()
    assert "compile:v0_reference" in workspace.planned("v0_reference")


def test_half_a_library_is_an_error_that_names_it_and_deleting_it_heals(workspace):
    library = workspace.folder / LIBRARY
    whole = library.read_bytes()
    library.write_bytes(whole[: len(whole) // 2])
    (workspace.folder / VERIFY).unlink()
    (workspace.folder / BENCH).unlink()
    workspace.run("v0_reference")
    for path in (VERIFY, BENCH):
        record = workspace.json(path)
        assert record["status"] in ("error", "not_run") and "kernel.so" in record["reason"] and "\n" not in record["reason"], path
    assert workspace.json(VERIFY)["status"] == "error"
    library.unlink()
    workspace.run("v0_reference")
    assert library.read_bytes() == whole
    assert (workspace.json(VERIFY)["status"], workspace.json(BENCH)["status"]) == ("ok", "ok")

