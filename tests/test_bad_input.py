"""What a user gets wrong is one clear line and exit status 1, before any job starts."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from evosdpa import config as configuration, variants
from workspace import CONFIG, PROJECT, complaints

HEADER = "/* evo-sdpa\ntitle: t\nidea: i\nexpects: e\nlevers: {A: [1]}\n*/\n"


@pytest.mark.parametrize("change, expected", [
    ({"bnech": {}}, "config.yaml: bnech: unknown key; did you mean 'bench'?"),
    ({"bench": {"proceses": 5}}, "config.yaml: bench.proceses: unknown key; did you mean 'processes'?"),
    ({"bench": {"processes": "five"}}, "config.yaml: bench.processes: input should be a valid integer (got 'five')"),
    ({"bench": {"processes": 1}}, "config.yaml: bench.processes: input should be greater than or equal to 2 (got 1)"),
    ({"goal": {"problem": "b1h8s512-fp16"}}, "config.yaml: goal.problem: 'b1h8s512-fp16' is not a problem name"),
    ({"problems": ["b1h8s64d64-fp16-hkv3"]}, "config.yaml: problems.0: problem 'b1h8s64d64-fp16-hkv3': heads_kv=3 does not divide heads_q=8"),
    ({"problems": ["b1h2s64d64-fp16-kv64"]}, "is written 'b1h2s64d64-fp16'"),
    ({"goal": {**CONFIG["goal"], "problem": "b1h2s32d64-fp16"}}, "config.yaml: goal.problem: b1h2s32d64-fp16 is not listed under problems"),
    ({"variants": {"v0_refrence": {}}}, "variant 'v0_refrence': there is no kernels/v0_refrence.cu or kernels/v0_refrence.cpp; did you mean"),
    ({"variants": {"v0_reference": {"flag": []}}}, "config.yaml: variants.v0_reference.flag: unknown key; did you mean 'flags'?"),
    ({"only": ["v7"]}, "variant 'v7': there is no kernels/v7.cu"),
    ({"variants": {"v0_reference@BLOCK_KV=33": {}}}, "BLOCK_KV=33 is not one of 16, 32, 64, 128"),
    ({"variants": {"v0_reference@TILES=3": {}}}, "declares no lever TILES (it has: BLOCK_Q, BLOCK_KV, LANES)"),
    ({"variants": {"v0_reference@LANES=8,BLOCK_KV=32": {}}}, "levers are written once and sorted: v0_reference@BLOCK_KV=32,LANES=8"),
    ({"arch": "sm_90"}, "config.yaml: arch: write sm_90a: sm_90 has no wgmma, so Hopper's kernels would compile to nothing"),
    ({"bench": None}, "config.yaml: bench: must be a mapping of keys (got None)"),
    ({"sanitize": {"tools": []}}, "config.yaml: sanitize.tools: list should have at least 1 item"),
    ({"device": "nvidia-b300"}, "config.yaml: device: nvidia-b300 is asked for, and here is no GPU; use auto or cpu, or describe the cluster that has it under cluster"),
])
def test_config_errors(workspace, change, expected):
    workspace.configure({**CONFIG, **change})
    done = workspace.snakemake("-n", "all")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("evo-sdpa: ")]
    assert len(lines) == 1 and expected in lines[0], done.stderr
    assert "Traceback" not in done.stderr


def test_yaml_that_is_not_yaml_names_the_line(workspace):
    (workspace.folder / "config.yaml").write_text("goal:\n  problem: [unclosed\n")
    done = workspace.snakemake("-n", "all")
    assert done.returncode == 1 and "config.yaml:3: not valid YAML" in done.stderr


def test_an_empty_config_is_one_line(workspace):
    (workspace.folder / "config.yaml").write_text("# nothing\n")
    done = workspace.snakemake("-n", "all")
    assert done.returncode == 1 and "evo-sdpa: config.yaml: is empty" in done.stderr


@pytest.mark.parametrize("text, expected", [
    ("int main() {}\n", ":1: no '/* evo-sdpa ... */' block"),
    (HEADER.replace("title: t", "title: [t"), ": the evo-sdpa block is not valid YAML"),
    (HEADER.replace("idea", "ideas"), ":3: unknown key 'ideas'; known: title, parent, idea, expects, levers"),
    (HEADER.replace("title: t\n", ""), "needs a title"),
    (HEADER.replace("{A: [1]}", "[A]"), ":5: levers must map each lever to its list of values"),
    (HEADER.replace("{A: [1]}", "{A: 1}"), "lever A needs a list of numbers or words"),
    (HEADER.replace("{A: [1]}", "{a: [1]}"), "lever 'a' must be an upper-case macro name"),
    (HEADER.replace("{A: [1]}", "{A: [';rm -rf /']}"), "lever A needs a list of numbers or words"),
    (HEADER.replace("expects: e", "parent: ../v0"), "parent must be a variant's name"),
    (HEADER + '#include "nowhere.h"\n', ':7: #include "nowhere.h" is neither beside it nor in kernels/include'),
])
def test_header_errors(workspace, text, expected):
    (workspace.folder / "kernels" / "broken.cpp").write_text(text)
    done = workspace.snakemake("-n", "all")
    assert done.returncode == 1
    assert "kernels/broken.cpp" in done.stderr and expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["1st.cpp", "a-b.cpp", "rivals.cpp", "rival.cpp", "x@A=1.cpp"])
def test_file_names_that_cannot_be_variants(workspace, name):
    (workspace.folder / "kernels" / name).write_text(HEADER)
    done = workspace.snakemake("-n", "all")
    assert done.returncode == 1 and f"kernels/{name}: a kernel's file name must be" in done.stderr


def test_no_rules_name_can_be_a_variants():
    rules = re.findall(r"^(?:rule|checkpoint) (\w+):", (PROJECT / "Snakefile").read_text(), re.MULTILINE)
    assert {"compile", "rival", "rivals", "planted", "all"} <= set(rules)
    assert [name for name in rules if re.fullmatch(variants.STEM, name)] == []
    assert all(re.fullmatch(variants.STEM, f"{name}_2") for name in rules)


def test_a_selftest_with_nothing_to_test_is_one_line(workspace):
    workspace.configure({**CONFIG, "only": ["v1_scalar"]})
    done = workspace.snakemake("selftest")
    assert done.returncode == 1 and complaints(done) == ["evo-sdpa: no device here has planted kernels to try"]
    assert "usage:" not in done.stdout + done.stderr


def test_two_sources_of_one_name(workspace):
    (workspace.folder / "kernels" / "v0_reference.cu").write_text(HEADER)
    done = workspace.snakemake("-n", "all")
    assert done.returncode == 1 and "has the same stem" in done.stderr


@pytest.mark.parametrize("name", ["../v0_reference", "v0_reference@", "v0_reference@A=1;ls", "v0 reference", "v0_reference@BLOCK_KV=../x"])
def test_names_with_path_or_shell_characters_are_refused(name):
    with pytest.raises(variants.VariantError, match="is not a variant name"):
        variants.resolve(name)


@pytest.mark.parametrize("target, expected", [
    ("v1_scalr", "variant 'v1_scalr': there is no kernels/v1_scalr.cu or kernels/v1_scalr.cpp; did you mean 'v1_scalar'?"),
    ("v0_reference@BLOCK_KV=33", "BLOCK_KV=33 is not one of 16, 32, 64, 128"),
    ("v0_reference@", "'v0_reference@' is not a variant name"),
])
def test_a_variant_asked_for_that_does_not_exist(workspace, target, expected):
    done = workspace.snakemake(target)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("evo-sdpa: ")]
    assert len(lines) == 1 and expected in lines[0]


def test_a_cuda_variant_cannot_be_asked_for_on_the_cpu(workspace):
    done = workspace.snakemake("-n", "results/cpu/v1_scalar/verify.json")
    assert done.returncode == 1 and "v1_scalar runs on a GPU, and none is here, not on cpu" in done.stderr


def test_every_complaint_of_a_config_is_a_line_of_its_own():
    with pytest.raises(configuration.ConfigError) as caught:
        configuration.check({"bench": {"processes": "x", "samples": 1}, "gaol": 1})
    assert len(str(caught.value).splitlines()) == 3


# ---- Header blocks that are not YAML

@pytest.mark.parametrize("block, expected", [
    (b"title: [t\nidea: i\n", ":3: the evo-sdpa block is not valid YAML"),
    (b"title: t\n\tidea: i\n", ":3: the evo-sdpa block is not valid YAML: found a tab character"),
    (b"title: *nowhere\n", "the evo-sdpa block is not valid YAML: found undefined alias"),
    (b"title: t\nidea: 2020-13-45\n", "the evo-sdpa block is not valid YAML: month must be in 1..12"),
    (b"title: t\x00\n", "the evo-sdpa block is not valid YAML: unacceptable character"),
    (b"title: !!python/object/apply:os.system [id]\n", "the evo-sdpa block is not valid YAML: could not determine a constructor"),
    (b"? [a]\n: b\n", "the evo-sdpa block "),
    (b"title: " + b"[" * 100_000 + b"\n", ":2: the evo-sdpa block is longer than 8192 characters"),
    (b"just a sentence\n", ":2: the evo-sdpa block must be 'key: value' lines"),
    (b"- a\n- b\n", ":2: the evo-sdpa block must be 'key: value' lines"),
    (b"", "the evo-sdpa block must be 'key: value' lines"),
    (b"title: t\xff\xfe\n", "cannot be read"),
])
def test_a_header_block_that_is_not_yaml_is_one_line_with_file_and_line(tmp_path, block, expected):
    source = tmp_path / "broken.cpp"
    source.write_bytes(b"/* evo-sdpa\n" + block + b"*/\n")
    with pytest.raises(variants.VariantError) as caught:
        variants.header(source)
    assert str(caught.value).startswith(str(source)) and expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text, expected", [
    (b"goal: {time_us: 2020-13-45}\n", "config.yaml: not valid YAML: month must be in 1..12"),
    (b"goal: \xff\xfe\n", "config.yaml: not valid YAML: 'utf-8' codec"),
    (b"goal: \x00\n", "config.yaml: not valid YAML: unacceptable character"),
    (b"goal: " + b"[" * 100_000, "config.yaml: not valid YAML: "),
])
def test_a_config_that_is_not_yaml_is_one_line(tmp_path, monkeypatch, text, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_bytes(text)
    with pytest.raises(configuration.ConfigError) as caught:
        configuration.load("config.yaml")
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)


# ---- Names with path characters

def everything(folder) -> set[str]:
    """Every file around a workspace but Snakemake's own."""
    return {str(path.relative_to(folder.parent)) for path in folder.parent.rglob("*") if ".snakemake" not in path.parts and "__pycache__" not in path.parts}


@pytest.mark.parametrize("target, expected", [
    ("../v0_reference", "'../v0_reference' is no variant, and no file under results/"),
    ("v0_reference/../../x", "'v0_reference/../../x' is no variant, and no file under results/"),
    ("..", "'..' is not a variant name"),
    ("results/cpu/../../../x/verify.json", "is no variant, and no file under results/"),
    ("results/cpu/..%2f/verify.json", "'..%2f' is not a variant name"),
    ("results/cpu/v0_reference@BLOCK_KV=../verify.json", "'v0_reference@BLOCK_KV=..' is not a variant name"),
    ("results/build/host/$(id)/kernel.so", "'$(id)' is not a variant name"),
])
def test_a_target_with_path_characters_is_one_line_and_nothing_is_written(workspace, target, expected):
    before = everything(workspace.folder)
    done = workspace.snakemake(target)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    [line] = complaints(done)
    assert expected in line
    assert everything(workspace.folder) == before


@pytest.mark.parametrize("change, expected", [
    ({"variants": {"../x": {}}}, "'../x' is not a variant name"),
    ({"device": "../cpu"}, "config.yaml: device: string should match pattern"),
    ({"show_device": "../.."}, "config.yaml: show_device: string should match pattern"),
])
def test_a_config_with_path_characters_is_one_line(workspace, change, expected):
    before = everything(workspace.folder)
    workspace.configure({**CONFIG, **change})
    done = workspace.snakemake("all")
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    [line] = complaints(done)
    assert expected in line
    assert everything(workspace.folder) == before


@pytest.mark.parametrize("arguments", [
    ["compile_variant.py", "../x", "--arch", "host", "--settings", "{}", "--folder", "out"],
    ["inspect_variant.py", "../x", "--arch", "sm_90a", "--settings", "{}", "--folder", "out"],
    ["verify_variant.py", "../x", "--device", "cpu", "--settings", "{}", "--library", "kernels", "--output", "out/verify.json"],
    ["sanitize_variant.py", "../x", "--device", "cpu", "--settings", "{}", "--library", "kernels", "--verify", "kernels", "--output", "out/sanitize.json"],
    ["bench_variant.py", "../x", "--device", "cpu", "--settings", "{}", "--library", "kernels", "--verify", "kernels", "--output", "out/bench.json",
     "--samples", "out/samples.csv.gz"],
    ["profile_variant.py", "../x", "--device", "cpu", "--settings", "{}", "--library", "kernels", "--verify", "kernels", "--output", "out/profile.json"],
], ids=lambda arguments: arguments[0])
def test_a_script_called_with_a_bad_name_is_one_line_and_writes_nothing(built, tmp_path, arguments):
    before = everything(built.folder)
    done = subprocess.run([sys.executable, f"scripts/{arguments[0]}", *arguments[1:]], cwd=built.folder, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "evo-sdpa: '../x' is not a variant name; the form is stem or stem@LEVER=value,LEVER=value\n"
    assert everything(built.folder) == before
