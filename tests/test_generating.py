"""A child's source from a program: what becomes a source, what is refused with a reason, and that nothing outlives the run that asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evosdpa.evolve import generating, lineage
from evosdpa.evolve.lineage import Child
from workspace import PROJECT

GOOD_SOURCE = "/* evo-sdpa\ntitle: written\nidea: i\nexpects: e\nlevers: {A: [1, 2]}\n*/\nint x;\n"


def answered(command, tmp_path, prompt="the prompt", timeout_s=10.0):
    answer = generating.ask(command, prompt, timeout_s, tmp_path / "answers")
    return generating.keep(answer, tmp_path / "sources" / "k_g1c1.cu")[1], tmp_path / "sources" / "k_g1c1.cu"


def test_an_answer_becomes_a_source_also_between_fences(tmp_path):
    (tmp_path / "plain.cu").write_text(GOOD_SOURCE)
    reason, path = answered(f"cat {tmp_path}/plain.cu", tmp_path)
    assert reason == "" and path.read_text() == GOOD_SOURCE
    (tmp_path / "fenced.md").write_text(f"Here it is:\n```\nno\n```\nand\n```cuda\n{GOOD_SOURCE}```\nGood luck!\n")
    reason, path = answered(f"cat {tmp_path}/fenced.md", tmp_path)
    assert reason == "" and path.read_text() == GOOD_SOURCE


def test_the_generator_gets_the_whole_prompt(tmp_path):
    prompt = GOOD_SOURCE + "x" * 300_000
    reason, path = answered("cat", tmp_path, prompt=prompt)
    assert reason == "" and path.read_text() == prompt


@pytest.mark.parametrize("command, reason", [
    ("exit 3", "the generator ended with status 3: nothing on stderr"),
    ("echo no key >&2; exit 1", "the generator ended with status 1: no key"),
    ("no-such-program", "no-such-program"),
    ("true", "the generator wrote nothing"),
    ("echo 'int x;'", ":1: no '/* evo-sdpa ... */' block"),
    ("printf '/* evo-sdpa\\ntitle: [x\\n*/'", "is not valid YAML"),
    ("printf '\\377\\376'", ":1: no '/* evo-sdpa ... */' block"),
    ("yes", "the generator wrote more than 2000000 bytes and was killed"),
    ("printf '/* evo-sdpa\\ntitle: x\\n*/\\n#include \"/etc/passwd\"\\n'", '#include "/etc/passwd" is outside the project'),
    ("head -c 3000000 /dev/zero | tr '\\0' x", "the generator wrote more than 2000000 bytes and was killed"),
])
def test_a_broken_answer_is_a_reason_and_is_kept(command, reason, tmp_path):
    said, path = answered(command, tmp_path)
    assert reason in said and not path.exists() and path.with_name("k_g1c1.cu.txt").is_file()


def test_a_generator_that_hangs_is_killed_with_what_it_started(tmp_path):
    begun = time.monotonic()
    said, _ = answered(f"sh -c 'sleep 300; touch {tmp_path}/late' & sleep 300", tmp_path, timeout_s=0.5)
    assert said == "the generator gave no answer in 0.5 s and was killed" and time.monotonic() - begun < 20


def test_an_answer_is_not_asked_for_twice(tmp_path):
    (tmp_path / "source.cu").write_text(GOOD_SOURCE)
    command = f"echo asked >> {tmp_path}/count; cat {tmp_path}/source.cu"
    for prompt in ("one", "one", "two"):
        answered(command, tmp_path, prompt=prompt)
    assert (tmp_path / "count").read_text().count("asked") == 2
    (tmp_path / "source.cu").write_text(GOOD_SOURCE.replace("written", "edited"))
    assert "edited" in answered(command, tmp_path, prompt="one")[1].read_text(), "an edited file is another answer"


def test_a_generator_ends_with_the_run_that_asked_it(tmp_path):
    program = ("import sys; from pathlib import Path; from evosdpa.evolve import generating\n"
               "generating.ask('echo $$ > pid; sleep 300', 'x', 600, Path('answers'))")
    for number, how in ((1, signal.SIGTERM), (2, signal.SIGKILL)):
        place = tmp_path / str(number)
        place.mkdir()
        process = subprocess.Popen([sys.executable, "-c", program], cwd=place, env={**os.environ, "PYTHONPATH": str(PROJECT / "scripts")}, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not ((place / "pid").is_file() and (place / "pid").read_text().strip()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(how)
        process.wait(30)
        asked = int((place / "pid").read_text())
        while Path(f"/proc/{asked}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{asked}").exists(), f"alive after {how.name}"


@pytest.mark.parametrize("parent", ["v3_mma@STAGES=3", "v3_mma_g1c4_0a1b", "v3_mma_g1c4_0a1b@A=2"])
def test_a_written_child_is_named_after_its_first_ancestor_and_what_it_says(parent):
    name = generating.name(parent, 2, 1, generating.Answer("int x;"))
    assert name.startswith("v3_mma_g2c1_") and lineage.root_of(name) == "v3_mma" == lineage.root_of(f"{name}@B=3")
    assert name != generating.name(parent, 2, 1, generating.Answer("int y;"))


def test_a_lost_source_is_written_again_from_its_proposal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    child = Child(name="k_g1c1_12ab", operator="generator", parent="k", text=GOOD_SOURCE)
    lineage.restore_sources(lineage.Proposal(variant="evolve", device="nvidia-h200", children=[child, child.model_copy(update={"name": "j", "dropped": "no"})]))
    assert [path.name for path in (tmp_path / "results/nvidia-h200/evolve/sources").iterdir()] == ["k_g1c1_12ab.cu"]
