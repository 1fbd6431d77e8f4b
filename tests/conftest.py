"""Workspaces and pages that several tests start from; each is built once."""

from __future__ import annotations

import functools

import pytest

from evosdpa.page import render
from page_tools import planted
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


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A folder where the charting library is kept, as beside a real page."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def pages(cache):
    """Pages of planted documents by name, each made once."""
    return functools.cache(lambda name: render.page(planted(name), cache))
