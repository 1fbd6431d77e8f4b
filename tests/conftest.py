"""Workspaces that several tests start from; each is built once and copied."""

from __future__ import annotations

import pytest

from workspace import Workspace


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Workspace:
    """A workspace with v0 (host) and v1 (CUDA, compiled and inspected only) in which `all` has run. Copy before changing it."""
    made = Workspace.create(tmp_path_factory.mktemp("built") / "project", ("v0_reference.cpp", "v1_scalar.cu"))
    made.run("all")
    return made


@pytest.fixture
def workspace(built, tmp_path) -> Workspace:
    """A copy of the built workspace, to be changed at will."""
    return built.copy(tmp_path / "project")
