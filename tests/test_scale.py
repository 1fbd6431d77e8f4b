"""Many children: what they cost the tool is measured, and no number of them is too much for a command line."""

from __future__ import annotations

import json
import shutil

from evosdpa import command_line, plan, tool_speed, variants
from evosdpa.evolve.planning import Evolution
from workspace import CONFIG, PROJECT

LONGEST = 128 * 1024
"""The longest argument that Linux gives a program, bytes; a job's whole shell command is one."""

MANY = tuple(f"child@A={first},B={second}" for first in range(60) for second in range(50))


def test_the_cost_of_children_is_measured_on_real_evidence_under_their_names(monkeypatch, tmp_path):
    monkeypatch.setattr(tool_speed, "SIZES", (2, 4))
    result = tool_speed.children(PROJECT, tmp_path)
    two, four = result["sizes"]
    assert result["status"] == "ok" and (two["children"], four["children"]) == (2, 4)
    assert four["jobs"] - two["jobs"] == 2 * 3, "compile, verify and bench of two more"
    assert four["files"] == 2 * two["files"] > 0 and four["gap_json_kb"] > two["gap_json_kb"]
    assert all(size[name] > 0 for size in (two, four) for name in ("plan_s", "plan_mb", "gap_s", "gap_mb", "page_s", "page_mb", "page_kb"))
    with open(tmp_path / "project" / "results" / "gap.csv") as table:
        assert sum("child@A=" in line for line in table) >= 4


def test_three_thousand_children_fit_on_every_command_line(monkeypatch, tmp_path):
    (tmp_path / "kernels").mkdir()
    values = ", ".join(map(str, range(60)))
    (tmp_path / "kernels" / "child.cpp").write_text(tool_speed._CHILD.format(values=values))
    shutil.copytree(PROJECT / "kernels" / "include", tmp_path / "kernels" / "include")
    monkeypatch.chdir(tmp_path)
    variants.sources.cache_clear(), variants.floors.cache_clear()
    try:
        config = {**CONFIG, "variants": {name: {} for name in MANY}, "evolve": {"start": [MANY[0]]}}
        made = plan.Plan(config)
        for settings in (made.gap_settings(), Evolution(made).whole_settings()):
            assert len(settings) < LONGEST and settings == settings.strip()
            assert len(json.dumps(command_line.document(settings))) > LONGEST
        assert set(MANY) <= set(command_line.document(made.gap_settings())["names"])
        fewer = plan.Plan({**config, "variants": {name: {} for name in MANY[:-1]}})
        assert fewer.gap_settings() != made.gap_settings() == plan.Plan(config).gap_settings()
    finally:
        variants.sources.cache_clear(), variants.floors.cache_clear()
