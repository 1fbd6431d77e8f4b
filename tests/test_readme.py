"""README.md says what is true: its tables are those of the sources and the recorded evidence, its commands exist."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from evosdpa import benchmarking, build, config as configuration, evidence, gap, gap_document, keys, picture, profiling, readme, variants, verification
from evosdpa.evidence import Bench, Build, Profile, Timing, Verify
from evosdpa.harness.cases import all_cases
from workspace import PROJECT

TEXT = (PROJECT / "README.md").read_text()


def test_generated_tables_are_up_to_date(monkeypatch):
    monkeypatch.chdir(PROJECT)
    assert readme.filled(TEXT) == TEXT, "run `make readme`"


def test_its_picture_is_of_todays_evidence(monkeypatch):
    monkeypatch.chdir(PROJECT)
    [(words, path)] = re.findall(r"^!\[(.+)\]\((.+)\)$", TEXT, re.MULTILINE)
    assert Path(path) == picture.PICTURE and len(words) > 40 and TEXT.index(path) < TEXT.index("## Start")
    data = (PROJECT / path).read_bytes()
    assert picture.size(data) == (picture.WIDTH, picture.HEIGHT) and len(data) < 300_000
    assert picture.text_of(data, picture.NAME) == picture.digest(picture.document(configuration.load())), \
        f"{path} shows other evidence than is recorded, or what is stale has changed: run `make readme`"


def test_a_picture_carries_its_text_and_damage_is_seen():
    data = (PROJECT / picture.PICTURE).read_bytes()
    again = picture.with_text(data, "planted", "words")
    assert picture.text_of(again, "planted") == "words" and picture.text_of(data, "planted") == "" and picture.size(again) == picture.size(data)
    for damaged in (data[:-20], b"GIF" + data, data[:100] + b"x" + data[101:]):
        with pytest.raises(evidence.EvidenceError):
            picture.chunks(damaged)


def test_the_picture_is_of_the_leading_devices_times(monkeypatch):
    monkeypatch.chdir(PROJECT)
    found = picture.document(configuration.load())
    first, before = found["rows"][0], picture.digest(found)
    assert first["device"] == found["leading_device"]
    found["rows"].append({**first, "device": "another"})
    assert picture.digest(found) == before
    first["stale"] = not first["stale"]
    assert picture.digest(found) != before


def test_without_chromium_the_picture_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(evidence.EvidenceError, match="chromium was not found.*apt-get install chromium"):
        picture.make(configuration.load(PROJECT / "config.yaml"), tmp_path / "report.png")


def test_every_generated_block_is_there():
    assert set(re.findall(r"<!-- (\w+): generated", TEXT)) == set(readme.BLOCKS)


def test_the_number_of_cases_is_the_real_one():
    assert f"on {len(all_cases())} cases" in TEXT


def test_every_file_it_names_exists():
    for name in re.findall(r"`((?:kernels|scripts|envs)/[\w./]+)`", TEXT):
        assert (PROJECT / name).exists(), name


# ---- The ladder, on planted evidence: no number below was measured

DEVICE, GOAL = "planted-gpu", "b1h8s512d64-fp16"
SETTINGS = {"show_device": DEVICE, "problems": [GOAL, "b1h8s1024d64-fp16"], "variants": {name: {} for name in (
    "l5_missing", "l1_right", "l4_bare", "l3_stale", "l2_wrong", "l1_right@STAGES=3")}}
SOURCE = """/* evo-sdpa
title: planted
parent: {parent}
idea: what {name} tries | and "why"
expects: 1-2 us, says {name}
levers: {{STAGES: [2, 3]}}
*/
#include "sdpa.h"
"""
NOISE = (0.999, 1.0, 1.001, 0.9995, 1.0005)
STATES = {"long_scoreboard": 1.0, "barrier": 0.5, "wait": 0.1, "selected": 1.0, "not_selected": 1.4}


def timings(name: str, warm_us: float, **more) -> list[Timing]:
    """Times in three modes, stream and cold 10 % and 20 % above warm."""
    return [Timing(name=name, problem=GOAL, mode=mode, time_us=time, ci_low_us=0.998 * time, ci_high_us=1.002 * time,
                   process_medians_us=[one * time for one in NOISE], **more)
            for mode, time in (("warm", warm_us), ("stream", 1.1 * warm_us), ("cold", 1.2 * warm_us))]


def profile(**kernels: float) -> list[dict]:
    """A profile's kernels with their durations."""
    return [{"problem": GOAL, "kernel": name, "metrics": {
        "gpu__time_duration.sum": time, "smsp__issue_active.avg.pct_of_peak_sustained_active": 25.0,
        **{f"smsp__average_warps_issue_stalled_{state}_per_issue_active.ratio": value for state, value in STATES.items()}}} for name, time in kernels.items()]


class Planted:
    """A folder with variants and what is recorded about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("include", "floors"):
            shutil.copytree(PROJECT / "kernels" / name, folder / "kernels" / name)
        (folder / "config.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False))
        for stem in ("l1_right", "l2_wrong", "l3_stale", "l4_bare", "l5_missing"):
            (folder / f"kernels/{stem}.cu").write_text(SOURCE.format(name=stem, parent="l0_elsewhere" if stem == "l1_right" else "l1_right"))

    def record(self, name: str, record: evidence.Head, parts: dict[str, str], changed: str = "") -> None:
        """Write evidence with today's key, or that of a time before `changed` did."""
        record.key_parts = {**parts, **({changed: "earlier"} if changed else {})}
        record.variant, record.device, record.origin, record.ended = name, DEVICE, "recorded", "2031-01-02T03:04:05Z"
        record.device_info = {"name": "Planted GPU", "arch": "sm_90a", "driver": "1"}
        if isinstance(record, Bench):
            samples = self.folder / "results/recorded" / DEVICE / name / evidence.SAMPLES
            evidence.write_bytes(samples, b"planted")
            record.samples_file, record.samples_sha256, record.tools = samples.name, keys.digest_file(samples), {"torch": "2"}
        evidence.write(self.folder / "results/recorded" / DEVICE / name / f"{record.kind}.json", record)

    def variant(self, name: str, warm_us: float, failed: int = 0, profiled: list[dict] | None = None, changed: str = "", **more) -> None:
        """Record a variant's whole chain."""
        config = configuration.load()
        built = Build(variant=name, key_parts=build.build_parts(variants.resolve(name), config, "sm_90a"))
        verify = Verify(variant=name, counts={"ok": 10 - failed, "failed": failed, "unsupported": 3},
                        **(dict(status="failed", reason=f"{failed} of 10 cases are wrong") if failed else {}))
        self.record(name, verify, verification.verify_parts(built, config), changed)
        company = [*timings("sdpa-default", 10.0), *timings("floor_bytes", 2.0), *timings("floor_empty", 1.0)]
        self.record(name, Bench(variant=name, timings=timings(name, warm_us, **more), anchors=company), benchmarking.bench_parts(built, config, False), changed)
        if profiled is not None:
            self.record(name, Profile(variant=name, results=profiled), profiling.profile_parts(built, config, "sm_90a"), changed)

    def rivals(self, changed: str = "", beside: str = "triton-fa2") -> None:
        """Record the rivals: the best at 5 us in processes that were a fifth faster than the variants', as the anchor beside it shows."""
        record = Bench(variant="rivals", timings=[*timings("sdpa-default", 8.0), *timings("triton-fa2", 5.0), *timings("floor_bytes", 2.0)],
                       anchors=timings("sdpa-default", 8.0, beside=beside))
        self.record("rivals", record, benchmarking.bench_parts(None, configuration.load(), False), changed)

    @staticmethod
    def block(name: str = "ladder") -> str:
        """What README says between the marks."""
        return readme.filled(f"<!-- {name}: generated by `make readme` -->\n<!-- end -->")

    def rows(self) -> dict[str, dict[str, str]]:
        """The ladder's rows by the variant's name without its mark, each by column."""
        lines = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in self.block().splitlines() if line.startswith("|")]
        return {re.match(r"\*\*(.+)\*\*", line[0])[1]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


@contextlib.contextmanager
def planted_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Planted]:
    """Work in a folder with planted variants; what is cached about sources is of that folder only."""
    monkeypatch.chdir(folder)
    variants.sources.cache_clear(), variants.floors.cache_clear()
    made = Planted(folder)
    variants.sources.cache_clear(), variants.floors.cache_clear()
    yield made
    variants.sources.cache_clear(), variants.floors.cache_clear()


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A right variant, a wrong one, a stale one, one without a profile and with a suspect time, one missing, and another lever value of the right one."""
    with planted_in(tmp_path, monkeypatch) as made:
        made.rivals()
        made.variant("l1_right", 20.0, profiled=profile(combine=5.0, main=30.0))
        made.variant("l1_right@STAGES=3", 16.0, profiled=profile(main=30.0))
        made.variant("l2_wrong", 3.33, failed=2, profiled=profile(main=30.0))
        made.variant("l3_stale", 12.0, profiled=profile(main=30.0), changed="source")
        made.variant("l4_bare", 4.0, status="suspect", reason="59 of 60 launches begin before the one before has ended")
        yield made


def test_rungs_stand_in_the_configurations_order_behind_their_parents(planted):
    assert list(planted.rows()) == ["l1_right", "l1_right@STAGES=3", "l5_missing", "l4_bare", "l3_stale", "l2_wrong"]


def test_a_right_variant_has_every_number_and_what_it_waits_for(planted):
    row = planted.rows()["l1_right"]
    assert row["variant"] == "**l1_right**" and row["idea"] == 'what l1_right tries \\| and "why"' and row["predicted"] == "1-2 us, says l1_right"
    assert row["correct"] == "10/10" and [row[mode] for mode in ("warm", "stream", "cold")] == ["20.00", "22.00", "24.00"]
    # 20 us where the anchor took 10; the rival 5 where it took 8: at the variant's speed 6.25 us.
    assert row["vs best rival, warm"].startswith("3.2") and row["vs best rival, stream"].startswith("3.2") and "triton-fa2 in warm" in planted.block()
    assert float(row["vs floor, warm"]) == pytest.approx(10)
    assert row["gain over its parent, warm"] == "l0_elsewhere", "a parent of another device is named, its time is no other's measure"
    waits = row["waits for, says the profile"]
    assert waits == "long scoreboard 25%, barrier 12% of 4.0 cycles an instruction; issue slots 25% used (longest of 2 kernels)"
    assert "*long scoreboard*: data from global or local memory" in planted.block()


def test_the_ratios_are_those_of_gap_csv(planted):
    found = {row["mode"]: row for row in gap.Gap(configuration.load(), ["l1_right"], DEVICE, "sm_90a").rows() if row["name"] == "l1_right"}
    row = planted.rows()["l1_right"]
    for column, mode, name in (("vs best rival, warm", "warm", "vs_best_rival"), ("vs best rival, stream", "stream", "vs_best_rival"),
                               ("vs floor, warm", "warm", "vs_floor")):
        assert float(row[column]) == pytest.approx(found[mode][name], rel=0.005)


def test_another_lever_value_is_compared_with_the_sources_own(planted):
    row = planted.rows()["l1_right@STAGES=3"]
    assert row["gain over its parent, warm"].startswith("l1_right: 1.25") and row["idea"] == "as l1_right, with STAGES=3"


def test_a_wrong_variant_is_wrong_and_has_no_time(planted):
    row = planted.rows()["l2_wrong"]
    assert row["correct"] == "8/10" and [row[mode] for mode in ("warm", "stream", "cold")] == ["wrong"] * 3
    assert not row["vs best rival, warm"] and not row["vs floor, warm"] and row["gain over its parent, warm"] == "l1_right"
    assert "`l2_wrong`: wrong, 2 of 10 cases are wrong." in planted.block()
    assert all("3.33" not in planted.block(name) for name in ("ladder", "results"))


def test_a_stale_variant_is_marked_and_not_ranked(planted):
    row = planted.rows()["l3_stale"]
    assert row["variant"] == "**l3_stale** (stale)" and row["warm"] == "12.00" and row["waits for, says the profile"].endswith("(stale)")
    assert not row["vs best rival, warm"] and not row["vs best rival, stream"]
    assert "Stale: l3_stale (changed since: source)." in planted.block()
    assert "**l3_stale** (stale)" in planted.block("results")


def test_a_suspect_time_is_called_so_and_compared_with_nothing(planted):
    row = planted.rows()["l4_bare"]
    assert row["warm"] == "4.00 (suspect)" and row["waits for, says the profile"] == "not profiled"
    assert not row["vs best rival, warm"] and row["gain over its parent, warm"] == "l1_right"
    assert "`l4_bare`: warm, stream, cold suspect, 59 of 60 launches begin before the one before has ended." in planted.block()


def test_a_variant_that_is_not_recorded_says_so(planted):
    row = planted.rows()["l5_missing"]
    assert row["warm"] == "not recorded yet" and row["predicted"] == "1-2 us, says l5_missing" and not row["correct"] and not row["vs floor, warm"]
    assert "l5_missing" not in planted.block("results")


def test_no_gain_across_protocols(planted):
    planted.variant("l1_right", 20.0, changed="protocol")
    assert planted.rows()["l1_right@STAGES=3"]["gain over its parent, warm"] == "l1_right"


def test_gap_json_holds_the_same_gain_with_its_verdict(planted):
    """And it says which of two that were compared are stale, and nothing where they cannot be compared."""
    found = {fact["name"]: fact for fact in gap_document.document(gap.Gap(configuration.load(), list(planted.rows()), DEVICE, "sm_90a"))["variants"]}
    above = found["l1_right@STAGES=3"]["vs_parent"]
    assert above["name"] == found["l1_right@STAGES=3"]["parent"] == "l1_right" and not above["stale"]
    assert set(above["modes"]) == {"warm", "stream", "cold"} and above["modes"]["warm"]["verdict"] == "faster"
    assert above["modes"]["warm"]["gain"] == pytest.approx(1.25) and above["modes"]["warm"]["low"] < 1.25 < above["modes"]["warm"]["high"]
    assert found["l3_stale"]["vs_parent"]["stale"] and found["l3_stale"]["vs_parent"]["modes"]["warm"]["gain"] == pytest.approx(20 / 12)
    for name in ("l1_right", "l2_wrong", "l4_bare", "l5_missing"):
        assert found[name]["vs_parent"]["modes"] == {}, name


def test_a_regression_is_slower_than_its_parent(planted):
    planted.variant("l1_right@STAGES=3", 25.0)
    [fact] = [one for one in gap_document.document(gap.Gap(configuration.load(), ["l1_right", "l1_right@STAGES=3"], DEVICE, "sm_90a"))["variants"]
              if "@" in one["name"]]
    assert fact["vs_parent"]["modes"]["warm"]["gain"] == pytest.approx(0.8) and fact["vs_parent"]["modes"]["warm"]["verdict"] == "slower"


def test_stale_rivals_are_no_measure(planted):
    planted.rivals(changed="harness")
    assert not planted.rows()["l1_right"]["vs best rival, warm"] and "stale (changed since: harness)" in planted.block()


def test_without_an_anchor_beside_the_rival_there_is_no_ratio(planted):
    planted.rivals(beside="another")
    row = planted.rows()["l1_right"]
    assert row["vs best rival, warm"] == row["vs best rival, stream"] == "no anchor"


def test_what_was_measured_here_is_no_part_of_it(planted):
    before = planted.block()
    shutil.copytree(f"results/recorded/{DEVICE}", f"results/{DEVICE}")
    path = f"results/{DEVICE}/l1_right/bench.json"
    measured = evidence.read(path, Bench)
    measured.timings, measured.origin = timings("l1_right", 7.0), "measured"
    evidence.write(path, measured)
    assert planted.block() == before


def test_evidence_that_was_changed_stops_the_tables(planted):
    path = planted.folder / "results/recorded" / DEVICE / "l1_right/bench.json"
    path.write_text(path.read_text().replace("20.0", "10.0", 1))
    with pytest.raises(evidence.EvidenceError, match="was changed after it was written"):
        planted.block()
