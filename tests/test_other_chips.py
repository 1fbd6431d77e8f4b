"""Every kernel compiles for chips that it does not run on, so that there it can say so."""

from __future__ import annotations

import pytest

from workspace import PROJECT, Workspace

KERNELS = sorted(path.stem for path in (PROJECT / "kernels").glob("*.cu"))


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    sources = ("v0_reference.cpp", *(f"{name}.cu" for name in KERNELS))
    made = Workspace.create(tmp_path_factory.mktemp("chips") / "project", sources, {"arch": "sm_80", "variants": {name: {} for name in KERNELS}})
    made.run(*(f"results/build/sm_80/{name}/static.json" for name in KERNELS))
    return {name: made.json(f"results/build/sm_80/{name}/build.json") for name in KERNELS}


@pytest.mark.parametrize("name", KERNELS)
def test_it_compiles_for_a_chip_without_hoppers_instructions(builds, name):
    assert (builds[name]["status"], builds[name]["reason"]) == ("ok", "")
