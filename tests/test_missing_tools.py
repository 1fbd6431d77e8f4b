"""A tool that is missing is a status with what to do about it, and everything else goes on."""

from __future__ import annotations

import pytest

from evosdpa import build, config as configuration, device, inspection, machine, profiling, sanitizing, variants, verification
from evosdpa.evidence import Build, Status, Verify
from workspace import PROJECT

CONFIG = configuration.Config()
GPU = machine.Gpu(0, "NVIDIA H200", "GPU-1", "sm_90a", "580")


@pytest.fixture(autouse=True)
def in_project(monkeypatch, tmp_path):
    """Kernels are found relative to the project; the pretended GPU's lock is the test's own."""
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(device, "lock_file", lambda gpu: tmp_path / "gpu.lock")
    variants.sources.cache_clear()


@pytest.fixture
def without_tools(monkeypatch):
    """A machine with a GPU's name and none of CUDA's tools."""
    monkeypatch.setattr(machine, "tool", lambda name: None)
    monkeypatch.setattr(machine, "gpus", lambda: (GPU,))
    monkeypatch.setattr(machine, "describe", lambda gpu: {})


def test_without_nvcc_a_cuda_variant_is_not_run_and_says_how(without_tools, tmp_path):
    record = build.compile_variant(variants.resolve("v1_scalar"), CONFIG, "sm_90a", tmp_path)
    assert record.status is Status.NOT_RUN and "pip install -r envs/nvcc.txt" in record.reason
    assert (tmp_path / "kernel.so").read_bytes() == b""
    static = inspection.inspect_variant(variants.resolve("v1_scalar"), CONFIG, "sm_90a", record, tmp_path / "kernel.so", tmp_path / "kernel.cubin")
    assert static.status is Status.NOT_RUN and "not built" in static.reason


def test_without_cuobjdump_static_facts_are_not_run(without_tools, tmp_path):
    static = inspection.inspect_variant(variants.resolve("v1_scalar"), CONFIG, "sm_90a", Build(variant="v1_scalar"), tmp_path, tmp_path)
    assert static.status is Status.NOT_RUN and "cuobjdump was not found" in static.reason


def test_without_ncu_and_sanitizer_the_steps_say_so(without_tools, tmp_path):
    variant, built, right = variants.resolve("v1_scalar"), Build(variant="v1_scalar"), Verify(variant="v1_scalar")
    profile = profiling.profile_variant(variant, CONFIG, "nvidia-h200", built, right, tmp_path, tmp_path / "profile.json")
    assert profile.status is Status.NOT_RUN and "ncu was not found" in profile.reason
    sanitize = sanitizing.sanitize_variant(variant, CONFIG, "nvidia-h200", built, right, tmp_path)
    assert sanitize.status is Status.NOT_RUN and "compute-sanitizer was not found" in sanitize.reason


def fake_tool(folder, name: str, body: str):
    """An executable that behaves as the body says."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_without_counter_rights_the_three_remedies_are_given(monkeypatch, tmp_path):
    ncu = fake_tool(tmp_path, "ncu", "echo '==ERROR== ERR_NVGPUCTRPERM - The user does not have permission'; exit 1")
    monkeypatch.setattr(machine, "tool", lambda name: ncu)
    monkeypatch.setattr(machine, "gpus", lambda: (GPU,))
    monkeypatch.setattr(machine, "describe", lambda gpu: {})
    record = profiling.profile_variant(variants.resolve("v1_scalar"), CONFIG, "nvidia-h200", Build(variant="v1_scalar"), Verify(variant="v1_scalar"),
                                       tmp_path / "kernel.so", tmp_path / "profile.json")
    assert record.status is Status.NOT_PERMITTED
    assert all(word in record.reason for word in ("CAP_PERFMON", "NVreg_RestrictProfilingToAdminUsers=0", "--cap-add=SYS_ADMIN"))


@pytest.mark.parametrize("arch", ["sm_90", ""])
def test_sanitizers_findings_make_a_variant_fail_and_name_the_line(monkeypatch, tmp_path, arch):
    real = machine.tool
    # Names a line only when the library that it is given was built for that: as the real one, which reads it from the binary.
    body = """grep -q lineinfo "$0.build" 2>/dev/null && at=' in /some/where/v1_scalar.cu:107'
printf '========= Race reported between Write access at sdpa+0x20%s\n========= RACECHECK SUMMARY: 2 hazards displayed\n' "$at"
exit 86"""
    tool = fake_tool(tmp_path, "compute-sanitizer", body)
    compiled = []

    def compile_variant(variant, config, arch, folder, extra_flags=()):
        compiled.append((arch, extra_flags))
        (tmp_path / "compute-sanitizer.build").write_text(" ".join(extra_flags))
        return Build(variant=variant.name, library_sha256="0")

    monkeypatch.setattr(build, "compile_variant", compile_variant)
    monkeypatch.setattr(machine, "tool", lambda name: tool if name == "compute-sanitizer" else real(name))
    monkeypatch.setattr(machine, "gpus", lambda: (GPU,))
    monkeypatch.setattr(machine, "describe", lambda gpu: {})
    monkeypatch.setattr(device, "_sick", lambda gpu, mark: "")
    config = CONFIG.model_copy(update={"sanitize": CONFIG.sanitize.model_copy(update={"tools": ["racecheck"]})})
    record = sanitizing.sanitize_variant(variants.resolve("v1_scalar"), config, "nvidia-h200", Build(variant="v1_scalar", arch=arch), Verify(variant="v1_scalar"),
                                         tmp_path / "kernel.so")
    assert compiled == [(arch or GPU.arch, ("-lineinfo",))], "what is sanitized is what is timed; the lines come from a build of their own"
    assert record.status is Status.FAILED and "2 found" in record.reason and "kernels/v1_scalar.cu:107" in record.reason
    assert record.results[0]["where"] == "kernels/v1_scalar.cu:107"


def test_a_line_of_somebody_elses_source_is_not_ours():
    log = "=====     at foo in torch/csrc/thing.cu:12\n=====     at bar in /x/kernels/include/sdpa_async.cuh:14\n"
    sources = [PROJECT / "kernels/v2_wmma.cu", PROJECT / "kernels/include/sdpa_async.cuh"]
    assert sanitizing.offending_line(log, sources) == f"{PROJECT}/kernels/include/sdpa_async.cuh:14"
    assert sanitizing.offending_line(log, sources[:1]) == ""


def test_verify_of_something_not_built_says_so(tmp_path):
    built = Build(variant="v1_scalar", status=Status.FAILED, reason="does not compile: x")
    record = verification.verify_variant(variants.resolve("v1_scalar"), CONFIG, "cpu", built, tmp_path)
    assert record.status is Status.NOT_RUN and record.reason == "not built: does not compile: x"
