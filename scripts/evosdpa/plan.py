"""What the Snakefile asks: which variants there are, which device they run on, what each job reads, what to build.

Everything that is wrong with config.yaml, a kernel's header or a variant's name is found here, before any job starts.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evosdpa import config as configuration, evidence, keys, machine, variants
from evosdpa.evolve import lineage
from evosdpa.evolve.planning import Evolution
from evosdpa.invocation import EVOLVE, RECORDED, RESULTS, by_file, stop
from evosdpa.rival_names import RIVALS
from evosdpa.sharing import Sharing
from evosdpa.variants import Variant

SCRIPTS = Path("scripts")

CPU_STEPS = ("verify", "bench")
GPU_STEPS = ("verify", "sanitize", "bench", "profile")


class Plan:
    """The checked configuration, the variants and the device; methods are the Snakefile's input and params functions."""

    def __init__(self, raw_config: dict[str, Any], requested: Iterable[str] = (), sends_jobs: bool = True) -> None:
        self._sends_jobs = sends_jobs
        try:
            self.config = configuration.check(raw_config)
            self.archs = self._archs()
            """Architectures of the GPUs that are measured, by slug; the one that leads the page first."""
            self.device = next(iter(self.archs), None)
            self.names = self._names(requested)
            for name in (*self.config.repeatability.variants, *self.config.operator.variants, *self.config.evolve.start):
                variants.resolve(name)
            self._check_sweep(SWEEP in requested)
            self._check_operator(OPERATOR in requested)
            asked = EVOLVE in requested or any(f"/{lineage.FOLDER}/" in name for name in requested)
            self.evolution = Evolution(self) if asked else None
            self._variants = {name: variants.resolve(name) for name in [*self.names, *variants.floors(), *self._tools()]}
            for planted in (*variants.planted(True), *variants.planted(False)):
                variants.includes(planted.source)
            for variant in self._variants.values():
                variants.header(variant.source)
                variants.includes(variant.source)
        except (configuration.ConfigError, variants.VariantError) as error:
            stop(str(error))
        self.gpus = sum(gpu.slug in self.archs for gpu in machine.gpus()) if self.archs else 0
        self.sharing = Sharing(self.config.cluster, self.gpus, sends_jobs)
        if self.config.arch != "auto":
            self.arch = self.config.arch
        else:
            self.arch = self.archs.get(self.device, machine.DEFAULT_ARCH)

    def _archs(self) -> dict[str, str]:
        """Architectures of the GPUs that are measured: of this machine's, or of a cluster's, which is told and not asked since none is where the
        plan is made. Raises ConfigError."""
        wanted, cluster = self.config.device, self.config.cluster
        if cluster:
            told = {slug: entry.arch for slug, entry in cluster.items() if entry.arch and wanted in ("auto", slug)}
            for gpu in machine.gpus():  # in a job, those that it was given
                if gpu.slug in told and gpu.arch != told[gpu.slug]:
                    raise configuration.ConfigError(f"config.yaml: cluster.{gpu.slug}.arch: is {told[gpu.slug]}, and the {gpu.name} here is {gpu.arch}")
            return told
        try:
            gpu = machine.gpu_for(wanted)
        except machine.MachineError as error:
            raise configuration.ConfigError(f"config.yaml: device: {error}; use auto or cpu, or describe the cluster that has it under cluster") from None
        return {gpu.slug: gpu.arch if self.config.arch == "auto" else self.config.arch} if gpu else {}

    def _names(self, requested: Iterable[str]) -> list[str]:
        """Every source in kernels/, the variants in config.yaml and those asked for by name."""
        found = [stem for stem, path in variants.sources().items() if path.parent == variants.KERNELS]
        for name in [*self.config.variants, *self.config.only]:
            variants.resolve(name)  # a variant in config.yaml must exist: old results would be served as new
        extra = [name for name in self.config.variants if name not in found]
        for name in requested:
            if name in RULES:
                continue
            if "/" in name:
                self._check_file(name)
                continue
            variants.resolve(name)
            if name not in found and name not in extra:
                extra.append(name)
        every = [*found, *extra]
        for name in self.config.only:
            if name not in every:
                every.append(name)
        return [name for name in every if not self.config.only or name in self.config.only or name in requested]

    def _check_sweep(self, asked: bool) -> None:
        """Whether the sweep's variants exist and run on one kind of device; when it is `asked` for by name, also whether there is one and a device
        for it. Raises ConfigError and VariantError."""
        sweep = self.config.sweep
        if sweep.variant is None:
            if asked:
                raise configuration.ConfigError(f"config.yaml: sweep.variant: is not given, so `{SWEEP}` has nothing to do")
            return
        on_cpu = variants.resolve(sweep.variant).on_cpu
        for name in sweep.beside:
            if variants.resolve(name).on_cpu != on_cpu:
                raise configuration.ConfigError(f"config.yaml: sweep.beside: {name} runs on {'GPUs' if on_cpu else 'the CPU'}, and {sweep.variant} does not; "
                                                "they are timed in the same processes")
        if asked and not on_cpu and not self.archs:
            raise configuration.ConfigError(f"config.yaml: sweep.variant: {sweep.variant} runs on a GPU, and none is measured (see device and cluster)")

    def _check_operator(self, asked: bool) -> None:
        """Whether there is anything to do when the operators are `asked` for by name. Raises ConfigError."""
        names = self.config.operator.variants
        if asked and not names:
            raise configuration.ConfigError(f"config.yaml: operator.variants: is empty, so `{OPERATOR}` has nothing to do")
        if asked and not self.archs and not any(variants.resolve(name).on_cpu for name in names):
            raise configuration.ConfigError("config.yaml: operator.variants: all of them run on a GPU, and none is measured (see device and cluster)")

    @staticmethod
    def _tools() -> list[str]:
        """Kernels of the harness itself that are there to be built."""
        return [variants.FILL_SHARED.stem] if variants.FILL_SHARED.is_file() else []

    @staticmethod
    def _check_file(path: str) -> None:
        """Whether a file that was asked for may be one of the workflow's; which ones it can make Snakemake knows."""
        parts = path.split("/")
        if parts[0] != RESULTS.name or not all(parts) or {".", ".."} & set(parts):
            raise variants.VariantError(f"{path!r} is no variant, and no file under {RESULTS}/, which is all that the workflow writes")
        name = parts[-2]
        if len(parts) == (5 if parts[1] == "build" else 4) and parts[1] not in ("logs", "recorded") and name not in ("rivals", "selftest"):
            variants.resolve(name)

    def variant(self, name: str) -> Variant:
        """The variant of a wildcard."""
        if name not in self._variants:
            try:
                self._variants[name] = variants.resolve(name)
            except variants.VariantError as error:
                stop(str(error))
        return self._variants[name]

    # What files there are

    def build_folder(self, name: str, device: str | None = None) -> Path:
        """Where a variant's library for a device is; without one, for the device that leads."""
        return RESULTS / "build" / ("host" if self.variant(name).on_cpu else self.archs.get(device, self.arch)) / name

    def library(self, name: str, device: str | None = None) -> str:
        """Path of a variant's library for a device."""
        return str(self.build_folder(name, device) / "kernel.so")

    @functools.cache
    def floors(self, on_cpu: bool) -> list[str]:
        """Names of the floors for a kind of device."""
        return [name for name in variants.floors() if self.variant(name).on_cpu == on_cpu]

    def build_files(self, name: str, device: str | None = None) -> list[str]:
        """Everything that compile and inspect make of a variant for a device."""
        names = ["kernel.so", "build.json"] if self.variant(name).on_cpu else ["kernel.so", "build.json", "static.json"]
        return [str(self.build_folder(name, device) / one) for one in names]

    def devices_of(self, name: str) -> list[str]:
        """The devices on which a variant is measured."""
        return ["cpu"] if self.variant(name).on_cpu else list(self.archs)

    def chain(self, name: str) -> list[str]:
        """Everything that is worth keeping of one variant, on every device that is measured."""
        files = [path for device in self.devices_of(name) or [None] for path in self.build_files(name, device)]
        for device in self.devices_of(name):
            files += self.measured_files(name, device)
        return list(dict.fromkeys(files))

    def measured_files(self, name: str, device: str) -> list[str]:
        """What the steps on a device leave of a variant."""
        folder = RESULTS / device / name
        files = [str(folder / f"{step}.json") for step in (CPU_STEPS if device == "cpu" else GPU_STEPS)]
        return [*files, str(folder / evidence.SAMPLES), *(path for path in self.repeatability_files() if path.startswith(f"{folder}/"))]

    def devices_here(self) -> list[str]:
        """Devices on which variants are measured, those of a cluster included."""
        return [*self.archs, *(["cpu"] if any(self.variant(name).on_cpu for name in self.names) else [])]

    def repeatability_files(self) -> list[str]:
        """Evidence of variants against themselves, on every device of their kind that is measured."""
        return [str(RESULTS / device / name / "repeatability.json") for name in self.config.repeatability.variants if name in self.names
                for device in self.devices_of(name)]

    def sweep_files(self) -> list[str]:
        """What the sweep makes on every device of its variant's kind that is measured."""
        name = self.config.sweep.variant
        return [str(RESULTS / device / name / one) for device in (self.devices_of(name) if name else ()) for one in ("sweep.json", evidence.SWEEP_SAMPLES)]

    def operator_files(self) -> list[str]:
        """Evidence of variants as PyTorch operators, on every device of their kind that is measured."""
        return [str(RESULTS / device / name / "operator.json") for name in self.config.operator.variants for device in self.devices_of(name)]

    def selftest_files(self) -> list[str]:
        """The gate's own evidence on every device here for which there are planted kernels."""
        return [str(RESULTS / device / "selftest" / "selftest.json") for device in self.devices_here() if variants.planted(device == "cpu")]

    def rival_files(self) -> list[str]:
        """Rivals' evidence on every device that has variants here."""
        return [str(RESULTS / device / "rivals" / one) for device in self.devices_here() for one in ("bench.json", evidence.SAMPLES)]

    def rival_runs(self, wildcards: Any) -> list[str]:
        """The runs of every rival on a device."""
        names = RIVALS["cpu" if wildcards.device == "cpu" else "cuda"]
        return [str(RESULTS / wildcards.device / "rivals" / name / "bench.json") for name in names]

    def evidence(self) -> list[str]:
        """All evidence of this machine."""
        return [path for name in self.names for path in self.chain(name)] + self.rival_files() + self.selftest_files()

    def evidence_files(self) -> list[str]:
        """The evidence of this machine that the gap reads: all but the libraries."""
        return [path for path in self.evidence() if not path.endswith(".so")]

    def only_asked_for(self) -> str:
        """What is on file of the steps that run only when they are asked for, and their code, both as digests: a parameter of the gap and no input, which
        would make them run. Nothing else tells the gap that such code has changed and their evidence is stale."""
        found = [path for kind in ASKED_FOR for path in sorted(RESULTS.glob(f"*/*/{kind}.json")) if path.parts[1] != RECORDED.name]
        return json.dumps({**{str(path): keys.digest_file(path) for path in found}, **{kind: self.code(f"measure_{kind}") for kind in ASKED_FOR}})

    def evolution_files(self) -> list[str]:
        """What evolutions on this machine left so far; also what one leaves that was asked for."""
        found = sorted(str(path) for path in RESULTS.glob(f"*/{lineage.FOLDER}/gen*/**/*.json") if path.parts[1] != RECORDED.name)
        return list(dict.fromkeys([*found, *(self.evolution.ends() if self.evolution else [])]))

    def recorded(self) -> list[str]:
        """All recorded evidence, histories too."""
        return sorted(str(path) for pattern in ("*.json", evidence.SAMPLES, evidence.SWEEP_SAMPLES, evidence.HISTORY) for path in RECORDED.glob(f"**/{pattern}"))

    # What jobs read

    @functools.cache
    def code(self, script: str) -> str:
        """Digest of a rule's script, of what it imports of this project and of the worker that it starts.

        A parameter instead of a list of inputs: a reworded comment costs nothing, and a plan over a thousand variants does not
        look at the same twenty files for each job.
        """
        entry = SCRIPTS / f"{script}.py"
        found = {entry, *keys.imports(entry)}
        for worker in WORKERS.get(script, ()):
            module = keys.PACKAGE / "harness" / f"{worker}.py"
            found |= {module, *keys.imports(module)}
        texts = [f"{path.name}\n{keys.stripped_python(path)}" for path in sorted(found)]
        texts += [path.read_text() for path in sorted(path for name in DATA.get(script, ()) for path in keys.PACKAGE.glob(name))]
        return keys.digest("\n".join(texts))

    def named_targets(self, requested: Iterable[str]) -> list[str]:
        """Variants that can be asked for by name: all, or beyond MANY those on the command line (a rule each takes time)."""
        asked = set(requested)
        return [name for name in self.names if len(self.names) <= MANY or name in asked]

    def all_sources(self) -> list[str]:
        """Every source and header that decides whether evidence is stale."""
        every = [*self._variants.values(), *variants.planted(False)]
        found = {path for variant in every for path in (variant.source, *variants.includes(variant.source))}
        return sorted(map(str, found))

    def sources(self, wildcards: Any) -> list[str]:
        """A variant's source and the headers that it includes."""
        variant = self.variant(wildcards.variant)
        if variant.on_cpu != (wildcards.arch == "host"):
            stop(f"{variant.name} cannot be compiled for {wildcards.arch}: {variant.source} is for {'the host' if variant.on_cpu else 'GPUs'}")
        return [str(variant.source), *map(str, variants.includes(variant.source))]

    def library_input(self, wildcards: Any) -> str:
        """The library that a device's step of a variant uses; a variant cannot run on the other kind of device."""
        expected = self.devices_of(wildcards.variant)
        if wildcards.device not in expected:
            stop(f"{wildcards.variant} runs on {' or '.join(expected) or 'a GPU, and none is here'}, not on {wildcards.device}")
        self._check_reach(wildcards.device)
        return self.library(wildcards.variant, wildcards.device)

    def swept_input(self, wildcards: Any) -> str:
        """The library of the variant that is swept: the one that config.yaml names, since what is beside it was chosen for that one."""
        if wildcards.variant != self.config.sweep.variant:
            stop(f"config.yaml: sweep.variant: is {self.config.sweep.variant or 'not given'}, so there is no sweep of {wildcards.variant}")
        return self.library_input(wildcards)

    def beside_libraries(self, wildcards: Any) -> list[str]:
        """The libraries of the variants beside the swept one."""
        return [self.library(name, wildcards.device) for name in self.config.sweep.beside]

    def beside_verdicts(self, wildcards: Any) -> list[str]:
        """What verify says of them."""
        return [str(RESULTS / wildcards.device / name / "verify.json") for name in self.config.sweep.beside]

    def _check_reach(self, device: str) -> None:
        """End with one line when a job for a cluster's device would start here."""
        if self._sends_jobs or device not in self.config.cluster or device == "cpu" or any(gpu.slug == device for gpu in machine.gpus()):
            return
        stop(f"{device} is on the cluster that config.yaml describes, not here: add --profile profiles/slurm; or measure nothing on GPUs with "
             "--config device=cpu")

    def floor_inputs(self, wildcards: Any) -> list[str]:
        """Libraries of the floors that a bench interleaves."""
        self._check_reach(wildcards.device)
        return [self.library(name, wildcards.device) for name in self.floors(wildcards.device == "cpu")]

    def fill_shared_input(self, wildcards: Any) -> list[str]:
        """The library that fills shared memory before each checked launch, on a GPU."""
        return [] if wildcards.device == "cpu" else [self.library(name, wildcards.device) for name in self._tools()]

    # What parameters decide a job

    @functools.cache
    def _sections(self, step: str) -> dict[str, Any]:
        """What of config.yaml decides a step, the variant's own entry apart."""
        config = self.config
        return {
            "compile": lambda: {"compile": config.compile.model_dump()},
            "verify": lambda: {"verify": config.verify.model_dump()},
            "sanitize": lambda: {"sanitize": config.sanitize.model_dump(), "compile": config.compile.model_dump()},
            "bench": lambda: {"bench": config.bench.model_dump(), "verify": {"tolerance": config.verify.tolerance},
                              "problems": config.problems, "goal": {"problem": config.goal.problem}},
            "profile": lambda: {"profile": config.profile.model_dump()},
            "selftest": lambda: {"selftest": config.selftest.model_dump(), "compile": config.compile.model_dump(), "verify": config.verify.model_dump(),
                                 "sanitize": config.sanitize.model_dump()},
            "repeatability": lambda: {**self._sections("bench"), "goal": config.goal.model_dump(exclude={"time_us"}),
                                      "repeatability": config.repeatability.model_dump(exclude={"variants"})},
            "sweep": lambda: {"bench": config.bench.model_dump(), "verify": {"tolerance": config.verify.tolerance}, "sweep": config.sweep.model_dump()},
            "operator": lambda: {**self._sections("bench"), "verify": config.verify.model_dump(include={"tolerance", "seed"}),
                                 "operator": config.operator.model_dump(exclude={"variants"})},
        }[step]()

    @functools.cache
    def _settings(self, step: str, name: str | None) -> str:
        sections = self._sections(step)
        if name is not None:
            sections = {**sections, "variants": {name: self.config.variants[name].model_dump(exclude={"required"})}}
        return json.dumps(sections, sort_keys=True)

    def _settings_for(self, step: str, wildcards: Any) -> str:
        """A step's settings; a variant without an entry of its own shares them with all the others."""
        name = getattr(wildcards, "variant", None)
        return self._settings(step, name if name in self.config.variants else None)

    def compile_settings(self, wildcards: Any) -> str:
        """Settings that decide a binary."""
        return self._settings_for("compile", wildcards)

    def compiler(self, wildcards: Any) -> str:
        """The compiler that a variant gets: another version means another binary."""
        return machine.compiler_identity(cuda=not self.variant(wildcards.variant).on_cpu)

    def inspect_settings(self) -> str:
        """Settings that decide static facts."""
        return json.dumps({"problems": self.config.problems, "goal": {"problem": self.config.goal.problem}}, sort_keys=True)

    def verify_settings(self, wildcards: Any) -> str:
        """Settings that decide a verdict."""
        return self._settings_for("verify", wildcards)

    def sanitize_settings(self, wildcards: Any) -> str:
        """Settings of the sanitizer."""
        return self._settings_for("sanitize", wildcards)

    def bench_settings(self, wildcards: Any) -> str:
        """Settings that decide times."""
        return self._settings_for("bench", wildcards)

    def planted_sources(self, wildcards: Any) -> str:
        """Digest of the planted kernels of a kind of device and their headers, comments apart."""
        every = variants.planted(wildcards.device == "cpu")
        files = {path for variant in every for path in (variant.source, *variants.includes(variant.source))}
        return keys.sources(sorted(files)) + " ".join(variant.name for variant in every)

    def selftest_settings(self, wildcards: Any) -> str:
        """Settings of the gate as it proves itself."""
        return self._settings("selftest", None)

    def repeatability_settings(self, wildcards: Any) -> str:
        """Settings that decide how a binary compares with itself."""
        return self._settings_for("repeatability", wildcards)

    def sweep_settings(self, wildcards: Any) -> str:
        """Settings that decide a sweep."""
        return self._settings("sweep", None)

    def operator_settings(self, wildcards: Any) -> str:
        """Settings that decide how an operator is checked and timed."""
        return self._settings_for("operator", wildcards)

    def device_compiler(self, wildcards: Any) -> str:
        """The compiler for a kind of device."""
        return machine.compiler_identity(cuda=wildcards.device != "cpu")

    def device_arch(self, wildcards: Any) -> str:
        """What kernels for a device are compiled for."""
        return "host" if wildcards.device == "cpu" else self.archs.get(wildcards.device, self.arch)

    def profile_settings(self, wildcards: Any) -> str:
        """Settings of the profiler."""
        return self._settings_for("profile", wildcards)

    def gap_settings(self) -> str:
        """The configuration, which variants there are and which devices are measured."""
        config = self.config.model_dump(exclude={"cluster"})
        return by_file({"config": config, "names": self.names, "device": self.device, "arch": self.arch, "archs": self.archs})

    def device_identity(self, wildcards: Any) -> str:
        """What a measurement depends on beside the code: the device and its driver; on a cluster its slug, since nobody here can ask it."""
        if wildcards.device in self.config.cluster:
            return wildcards.device
        if wildcards.device == "cpu":
            return machine.cpu_name()
        return next((f"{gpu.name} {gpu.driver}" for gpu in machine.gpus() if gpu.slug == wildcards.device), "")


SWEEP = "sweep"
"""The target that times one variant over many problems."""

OPERATOR = "operator"
"""The target that checks and times variants as PyTorch operators."""

ASKED_FOR = ("neighbour", SWEEP, OPERATOR)
"""Kinds of evidence of the steps that run only when they are asked for."""

RULES = ("all", EVOLVE, "gap", "report", "writeup", "summary", "record", "check", "selftest", SWEEP, OPERATOR)
"""Rules that can be asked for by name; every other name on the command line is meant to be a variant's."""

MANY = 100
"""Variants up to which each has a rule of its name."""

DATA = {"inspect_variant": ("occupancy.cpp",), "build_report": ("page/*.jinja", "page/*.css", "page/*.js")}
"""Files other than Python that a script reads, relative to the package."""

WORKERS = {
    "inspect_variant": ("describe",), "verify_variant": ("verify",), "sanitize_variant": ("sanitize",), "bench_variant": ("bench",),
    "bench_rival": ("bench",), "profile_variant": ("profile",), "selftest_gate": ("verify", "bench", "sanitize"),
    "measure_repeatability": ("bench",), "measure_neighbour": ("bench",), "measure_sweep": ("bench",), "measure_operator": ("operator",),
}
"""The harness modules that a script starts as processes of their own."""
