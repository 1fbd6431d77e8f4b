"""The history of recorded evidence: what `record` adds, what it refuses, and what the versions say. No number below was measured."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest

from evosdpa import evidence, history, keys
from evosdpa.evidence import Bench, EvidenceError, Sanitize, Timing, Verify
from workspace import PROJECT, aggregate

GOAL = "b1h8s512d64-fp16"
NOISE = (0.999, 1.0, 1.001, 0.9995, 1.0005)
PARTS = {"source": "s1", "headers": "h1", "levers": "", "flags": "-O3", "compiler": "nvcc 1", "binary": "b1", "protocol": "p1", "floors": "f1", "harness": "a1",
         "judging": "j1"}


def timing(time_us: float, name: str = "v1", mode: str = "warm", **more) -> Timing:
    return Timing(name=name, problem=GOAL, mode=mode, time_us=time_us, ci_low_us=0.999 * time_us, ci_high_us=1.001 * time_us,
                  process_medians_us=[one * time_us for one in NOISE], **more)


def recorded(folder, *, ended: str = "2031-01-02T03:04:05Z", warm_us: float = 4.0, verify: dict | None = None, sanitize: str = "ok", timings: list | None = None,
             **parts: str):
    """A planted variant's evidence in a folder, as a chain."""
    key_parts = {**PARTS, **parts}
    common = dict(variant="v1", device="planted-gpu", origin="recorded", ended=ended, key_parts=key_parts, key=keys.combine(key_parts),
                  device_info={"name": "Planted", "driver": "1"}, tools={"torch": "2"}, git={"commit": "c" * 40})
    target = folder / "planted-gpu" / "v1"
    evidence.write(target / "verify.json", Verify(**{**common, "counts": {"ok": 10, "unsupported": 3}, **(verify or {})}))
    times = [timing(warm_us), timing(1.1 * warm_us, mode="stream"), timing(3 * warm_us, mode="eager")] if timings is None else timings
    anchors = [timing(8.0, "sdpa-default", mode) for mode in ("warm", "stream", "eager")]
    evidence.write(target / "bench.json", Bench(**common, timings=times, anchors=anchors))
    evidence.write(target / "sanitize.json", Sanitize(**common, status=sanitize, reason="" if sanitize == "ok" else "racecheck: 2 found"))
    return history.folder_chain(target)


def lines(folder, **more):
    return history.lines_of(recorded(folder, **more), GOAL, "warm")


def changes(*all_lines):
    return history.versions([line for some in all_lines for line in some], "planted-gpu", GOAL)


def warm(version):
    return next(one for one in version["times"] if one["mode"] == "warm")


def test_each_problem_and_mode_is_a_line_with_what_the_time_depends_on(tmp_path):
    found = lines(tmp_path)
    assert [(line["problem"], line["mode"], line["time_us"]) for line in found] == [(GOAL, "warm", "4"), (GOAL, "stream", "4.4"), (GOAL, "eager", "12")]
    first = found[0]
    assert (first["variant"], first["cases_passed"], first["cases"], first["commit"], first["binary"]) == ("v1", "10", "10", "c" * 40, "b1")
    assert float(first["vs_anchor"]) == pytest.approx(0.5) and first["machine"] == "Planted, driver 1, torch 2"
    assert found[2]["vs_anchor"] == "", "in mode eager the anchor also allocates its output"


@pytest.mark.parametrize("more, status", [
    (dict(sanitize="failed"), "failed"), (dict(verify=dict(status="failed", reason="wrong")), "failed"),
    (dict(timings=[timing(4.0, status="unstable", reason="planted")]), "unstable")])
def test_a_time_without_a_right_answer_is_no_time(tmp_path, more, status):
    assert {line["status"] for line in lines(tmp_path, **more)} == {status}


def test_a_variant_that_was_not_timed_has_a_line_that_says_so(tmp_path):
    [line] = lines(tmp_path, timings=[], verify=dict(status="failed", reason="wrong"))
    assert (line["problem"], line["mode"], line["status"], line["time_us"]) == (GOAL, "warm", "failed", "")


def test_the_verdict_about_another_binary_does_not_count(tmp_path):
    chain = recorded(tmp_path)
    chain.pieces["verify"].record.key_parts["binary"] = "another"
    assert {(line["status"], line["cases"]) for line in history.lines_of(chain, GOAL, "warm")} == {("not_run", "")}


def test_the_text_is_sorted_whole_and_read_back_as_it_was(tmp_path):
    new = lines(tmp_path)
    assert history.text(new) == history.text(new[::-1])
    path = tmp_path / evidence.HISTORY
    path.write_text(history.text(new))
    assert history.text(history.read(path)) == path.read_text()
    assert history.with_new(history.read(path), new) == history.read(path), "the same evidence adds nothing"
    assert history.read(tmp_path / "absent.csv") == []


@pytest.mark.parametrize("damage", [lambda text: text[:-30], lambda text: text.replace(",4.4,", ",2.2,"), lambda text: text.split("\n", 1)[1], lambda text: "",
                                    lambda text: text.replace(GOAL, '"' + GOAL), lambda text: text.replace("variant,", "name,"), lambda text: text + "v9,2031\n"])
def test_a_damaged_history_is_one_clear_line(tmp_path, damage):
    path = tmp_path / evidence.HISTORY
    path.write_text(damage(history.text(lines(tmp_path))))
    with pytest.raises(EvidenceError) as caught:
        history.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and "restore it from git" in str(caught.value)


# What changed

def test_another_kernel_under_the_same_measurement_has_a_verdict(tmp_path):
    first, second = changes(lines(tmp_path), lines(tmp_path, ended="2031-01-03T00:00:00Z", warm_us=3.0, source="s2", binary="b2"))
    assert first["first"] and not second["first"]
    assert (second["kernel"], second["measuring"]) == (["source", "binary"], [])
    assert warm(second)["ratio"] == pytest.approx(0.75) and warm(second)["verdict"] == "faster"


def test_a_change_of_the_measurement_has_no_verdict(tmp_path):
    _, second = changes(lines(tmp_path), lines(tmp_path, ended="2031-01-03T00:00:00Z", warm_us=3.0, source="s2", binary="b2", harness="a2"))
    assert second["measuring"] == ["harness"] and warm(second)["verdict"] == "" and warm(second)["ratio"] == pytest.approx(0.75)


def test_another_source_with_the_same_binary_is_the_same_kernel(tmp_path):
    _, second = changes(lines(tmp_path), lines(tmp_path, ended="2031-01-03T00:00:00Z", warm_us=4.001, source="s2"))
    assert (second["kernel"], second["measuring"]) == ([], []) and warm(second)["verdict"] in ("same", "undecided")


def test_a_version_that_failed_is_compared_with_nothing(tmp_path):
    _, second = changes(lines(tmp_path), lines(tmp_path, ended="2031-01-03T00:00:00Z", binary="b2", sanitize="failed"))
    assert warm(second)["ratio"] is None and warm(second)["status"] == "failed"


def test_versions_stand_by_date_whatever_the_order_of_the_lines(tmp_path):
    old, new = lines(tmp_path), lines(tmp_path, ended="2031-01-03T00:00:00Z", binary="b2")
    assert changes(new, old) == changes(old, new)


# What record does

def test_record_adds_each_measurement_once(workspace):
    path = workspace.folder / "results/recorded/cpu" / evidence.HISTORY
    workspace.run("record")
    first = path.read_text()
    [line] = history.read(path)
    bench = workspace.json("results/cpu/v0_reference/bench.json")
    assert (line["variant"], line["recorded_on"], line["key"]) == ("v0_reference", bench["ended"], bench["key"])
    assert float(line["time_us"]) == pytest.approx(bench["timings"][0]["time_us"], rel=1e-5) and line["cases_passed"] == line["cases"] != ""
    workspace.run("record")
    assert path.read_text() == first
    again = evidence.read(workspace.folder / "results/cpu/v0_reference/bench.json", Bench)
    again.ended = "2031-01-02T03:04:05Z"
    evidence.write(workspace.folder / "results/cpu/v0_reference/bench.json", again)
    record(workspace)
    assert [one["recorded_on"] for one in history.read(path)] == sorted([bench["ended"], again.ended])
    assert path.read_text().splitlines()[1] == first.splitlines()[1], "what was there stays as it was"


def record(workspace):
    return subprocess.run([sys.executable, "scripts/record_evidence.py", "--gap", "results/gap.json"], cwd=workspace.folder, capture_output=True, text=True)


def test_record_over_a_damaged_history_changes_nothing(workspace):
    path = workspace.folder / "results/recorded/cpu" / evidence.HISTORY
    path.parent.mkdir(parents=True)
    path.write_text("variant,time\nv1,4.0\n")
    done = record(workspace)
    assert done.returncode == 1 and done.stderr == f"evo-sdpa: {path.relative_to(workspace.folder)}: does not begin with the columns of a history; restore it from git\n"
    assert path.read_text() == "variant,time\nv1,4.0\n" and [one.name for one in path.parent.iterdir()] == [evidence.HISTORY]


def test_gap_json_carries_the_history_and_names_a_damaged_one(workspace):
    workspace.run("record")
    (workspace.folder / "results/recorded/report.png").write_bytes(b"no evidence")  # README's picture lies beside the devices
    aggregate(workspace)
    [version] = workspace.json("results/gap.json")["history"]
    assert (version["variant"], version["device"], version["first"]) == ("v0_reference", "cpu", True) and [one["mode"] for one in version["times"]] == ["warm"]
    path = workspace.folder / "results/recorded/cpu" / evidence.HISTORY
    path.write_text(path.read_text().replace("v0_reference", "v1_scalar"))
    aggregate(workspace)
    document = workspace.json("results/gap.json")
    assert document["history"] == [] and [error for error in document["errors"] if "history.csv: line 2" in error]


# What this repository keeps

def test_the_history_of_this_repository_is_whole_and_has_every_recorded_bench():
    for path in (PROJECT / "results/recorded").glob(f"*/{evidence.HISTORY}"):
        kept = history.read(path)
        assert path.read_text() == history.text(kept)
        known = {(line["variant"], line["recorded_on"], line["key"]) for line in kept}
        for bench in path.parent.glob("*/bench.json"):
            record = json.loads(bench.read_text())
            assert bench.parent.name == "rivals" or (record["variant"], record["ended"], record["key"]) in known, f"{bench}: run `snakemake --cores 1 record`"


def test_the_history_opens_in_any_reader_of_tables():
    path = PROJECT / "results/recorded/nvidia-h200" / evidence.HISTORY
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert {"v1_scalar", "v2_wmma"} <= {row["variant"] for row in rows} and all(None not in row and None not in row.values() for row in rows)
