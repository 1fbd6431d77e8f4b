"""README.md says what is true: its tables are those of the sources and the recorded evidence, its commands exist."""

from __future__ import annotations

import re

from evosdpa import readme
from evosdpa.harness.cases import all_cases
from workspace import PROJECT

TEXT = (PROJECT / "README.md").read_text()


def test_generated_tables_are_up_to_date(monkeypatch):
    monkeypatch.chdir(PROJECT)
    assert readme.filled(TEXT) == TEXT, "run `make readme`"


def test_every_generated_block_is_there():
    assert set(re.findall(r"<!-- (\w+): generated", TEXT)) == set(readme.BLOCKS)


def test_the_number_of_cases_is_the_real_one():
    assert f"on {len(all_cases())} cases" in TEXT


def test_every_file_it_names_exists():
    for name in re.findall(r"`((?:kernels|scripts|envs)/[\w./]+)`", TEXT):
        assert (PROJECT / name).exists(), name
