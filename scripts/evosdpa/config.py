"""config.yaml: its schema, its defaults and the errors a user sees. The models below are the schema."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from evosdpa import problem as problems
from evosdpa.rival_names import RIVALS


SLUG = r"^[a-z0-9-]+$"
"""What the slug of a device looks like."""

CPU = "cpu"
"""The slug of the device that is no GPU."""


class ConfigError(Exception):
    """Something in config.yaml that cannot be used; one line naming the key and what to do."""


def _problem_name(value: str) -> str:
    problems.parse(value)
    return value


ProblemName = Annotated[str, AfterValidator(_problem_name)]
Mode = Literal["warm", "stream", "cold", "eager"]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, numbers are not made of strings. A default is checked like a given value, so
    that 400 and 400.0 are one value and one key."""

    model_config = ConfigDict(extra="forbid", strict=True, validate_default=True)


class Goal(Section):
    """What the search is for: met when every listed mode is below the time."""

    problem: ProblemName = Field("b1h8s512d64-fp16", description="the problem that is ranked")
    time_us: float = Field(5.0, gt=0, description="the time to get under, microseconds for the whole problem")
    modes: list[Mode] = Field(["warm", "stream"], min_length=1, description="modes that must all be under it")


class Compile(Section):
    """How variants are compiled."""

    nvcc_flags: list[str] = Field(["-O3", "-std=c++17"], description="flags for every .cu")
    host_flags: list[str] = Field(["-O3", "-std=c++17"], description="flags for every .cpp")
    timeout_s: float = Field(300, gt=0, description="time limit of one compilation, seconds")


class VerifySection(Section):
    """How correctness is decided."""

    repeats: int = Field(20, ge=2, description="launches that must give the same bits")
    tolerance: float = Field(2.0, gt=0, description="allowed multiple of PyTorch's own row error at that precision")
    seed: int | None = Field(None, ge=0, description="seed of the inputs; null draws one per run and records it")
    timeout_s: float = Field(300, gt=0, description="time limit of one variant's verification, seconds")


class SanitizeSection(Section):
    """Which of compute-sanitizer's tools run."""

    tools: list[Literal["memcheck", "racecheck", "initcheck", "synccheck"]] = Field(
        ["memcheck", "racecheck", "initcheck", "synccheck"], min_length=1, description="tools to run")
    timeout_s: float = Field(180, gt=0, description="time limit of one tool, seconds")


class BenchSection(Section):
    """The timing protocol."""

    processes: int = Field(5, ge=2, description="fresh processes; the unit of replication of every interval")
    samples: int = Field(40, ge=5, description="samples per process, problem and mode on a GPU")
    replay_us: float = Field(400, ge=200, description="shortest CUDA graph replay, microseconds")
    gpu_modes: list[Mode] = Field(["warm", "stream", "cold", "eager"], description="modes timed on a GPU")
    cpu_problems: list[ProblemName] = Field(
        ["b1h8s512d64-fp16"], description="problems timed on a CPU, which is a thousand times slower")
    cpu_samples: int = Field(3, ge=3, description="samples per process and problem on a CPU, in mode warm")
    mode_budget_s: float = Field(0.5, gt=0, description="slow calls get fewer samples, at least 5, to fit in this")
    max_call_s: float = Field(1.0, gt=0, description="a problem whose single call takes longer is not timed")
    timeout_s: float = Field(420, gt=0, description="time limit of one process, seconds")


class ProfileSection(Section):
    """What Nsight Compute looks at."""

    problems: list[ProblemName] = Field(["b1h8s512d64-fp16"], min_length=1, description="problems to profile")
    timeout_s: float = Field(240, gt=0, description="time limit of one variant, seconds")


class SelftestSection(Section):
    """How the gate proves itself on planted wrong kernels."""

    stop_after: int = Field(6, ge=1, description="wrong cases after which a planted kernel's verification ends")
    timeout_s: float = Field(90, gt=0, description="time limit of one planted kernel's verification, seconds")


class RepeatabilitySection(Section):
    """The same binary measured against itself."""

    variants: list[str] = Field([], description="variants to measure against themselves, each on its kind of device")
    runs: int = Field(5, ge=2, description="runs of bench.processes processes each")
    copies: int = Field(8, ge=2, description="copies of the binary in each process")


class SweepSection(Section):
    """One variant over many problems, beside the variants that it chooses from and the rivals."""

    variant: str | None = Field(None, description="variant that is judged over many problems; null: none, and there is no sweep")
    beside: list[str] = Field([], description="variants timed with it, as the rungs that it chooses from; all for its kind of device")
    rivals: list[str] = Field(["sdpa-default", "sdpa-cudnn", "sdpa-flash", "triton-fa2", "flex-attention"], min_length=1,
                              description="rivals timed with it; on a CPU those of them that run there, else sdpa-default")
    problems: list[ProblemName] = Field([], description="problems to time, in mode warm")
    processes: int = Field(3, ge=2, description="fresh processes; in each everything is timed, interleaved")
    samples: int = Field(20, ge=5, description="samples per process and problem on a GPU; on a CPU bench.cpu_samples")
    mode_budget_s: float = Field(0.1, gt=0, description="as bench.mode_budget_s")
    timeout_s: float = Field(900, gt=0, description="time limit of one process, seconds")
    beside_limit: float = Field(1.05, gt=0, description="most that the variant's time may be over that of the best of sweep.beside")
    rival_limit: float = Field(1.1, gt=0, description="most that the variant's time may be over the best rival's")


class OperatorSection(Section):
    """Variants as PyTorch operators."""

    variants: list[str] = Field([], description="variants whose operator is checked and timed when `operator` is asked for, each on its kind of device")
    timeout_s: float = Field(240, gt=0, description="time limit of one process, seconds")


class EvolveSection(Section):
    """The search for faster children."""

    start: list[str] = Field([], description="variants to begin with, all of one kind of device; none: there is nothing to evolve")
    generations: int = Field(4, ge=1, description="generations after the start; more of them go on where the last run ended")
    children: int = Field(5, ge=1, description="children of a generation")
    top_k: int = Field(3, ge=1, description="elites that a generation leaves")
    seed: int = Field(1, ge=0, description="seed of every random choice; another one starts anew")
    explore: float = Field(0.25, ge=0, le=1, description="least share of children whose levers are drawn blindly; more where no rule and no credit speaks for a change")
    crossover: float = Field(0.25, ge=0, le=1, description="share of children that take two levers from another elite of their source, where there is one")
    budget_s: float | None = Field(None, gt=0, description="measuring time after which no generation proposes any more, seconds; null: no limit")
    generator: str | None = Field(None, description="shell command that reads a prompt on stdin and writes a .cu to stdout; null: levers only")
    generated: int = Field(1, ge=0, description="children of a generation that the generator writes")
    generator_timeout_s: float = Field(900, gt=0, description="time limit of one answer, seconds")


class ClusterEntry(Section):
    """What jobs on one kind of device ask a cluster for."""

    arch: str | None = Field(None, pattern=r"^sm_\d+a?$", description="architecture to compile for; every GPU needs it, `cpu` has none")
    model: str | None = Field(None, min_length=1, description="GPU model to ask for, as the cluster names it (SLURM: the type in Gres); null: any GPU, and none for `cpu`")
    partition: str | None = Field(None, min_length=1, description="partition; null: the cluster's own choice")
    time_min: int = Field(60, ge=1, description="time limit of a job, minutes")
    mem_mb: int = Field(16000, ge=1, description="memory of a job, MB")
    cores: int = Field(4, ge=1, description="cores of a job that times; checks get one")


class VariantEntry(Section):
    """What config.yaml may say about one variant; a variant needs no entry."""

    required: bool = Field(False, description="`check` fails unless this variant is ok")
    flags: list[str] = Field([], description="extra compiler flags for this variant")
    problems: list[ProblemName] | None = Field(None, description="time only these; null: all")


class Config(Section):
    """The whole of config.yaml."""

    goal: Goal = Goal()
    problems: list[ProblemName] = Field(
        ["b1h8s512d64-fp16"], min_length=1, description="problems to time, the goal's first")
    device: str = Field("auto", pattern=SLUG,
                        description="auto: the GPU found here, with `cluster` all of its GPUs; cpu: use no GPU; or the slug of the GPU that must be here or there")
    arch: str = Field("auto", pattern=r"^(auto|sm_\d+a?)$",
                      description="auto: the GPU's, sm_90a without one")
    show_device: str = Field("nvidia-h200", pattern=SLUG, description="whose recorded evidence leads the page when no GPU is here")
    only: list[str] = Field([], description="work on these variants only; empty: all")
    variants: dict[str, VariantEntry] = Field({}, description="entries for single variants, and children to build")
    compile: Compile = Compile()
    verify: VerifySection = VerifySection()
    sanitize: SanitizeSection = SanitizeSection()
    bench: BenchSection = BenchSection()
    profile: ProfileSection = ProfileSection()
    selftest: SelftestSection = SelftestSection()
    repeatability: RepeatabilitySection = RepeatabilitySection()
    sweep: SweepSection = SweepSection()
    operator: OperatorSection = OperatorSection()
    evolve: EvolveSection = EvolveSection()
    cluster: dict[str, ClusterEntry] = Field({}, description="devices of a cluster by slug, the one that leads the page first; empty: jobs run on this machine")


ENTRIES: dict[Any, type[Section]] = {"variants": VariantEntry, "cluster": ClusterEntry}
"""What the values of the mappings are: their keys are names."""


def _explain(error: dict[str, Any], source: str) -> str:
    """One line for one of pydantic's errors."""
    path = ".".join(str(part) for part in error["loc"]) or "the file"
    if error["type"] == "extra_forbidden":
        model: Any = Config
        for part in error["loc"][:-1]:
            if not (isinstance(model, type) and issubclass(model, BaseModel)):
                model = ENTRIES[error["loc"][0]]
                break
            annotation = model.model_fields.get(str(part))
            model = annotation.annotation if annotation else None
            if model is not None and getattr(model, "__origin__", None) is dict:
                model = dict
        known = list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else list(ENTRIES[error["loc"][0]].model_fields)
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{source}: {path}: unknown key; {hint}"
    if error["type"] == "model_type":
        return f"{source}: {path}: must be a mapping of keys (got {error.get('input')!r})"
    message = error["msg"].removeprefix("Value error, ")
    shown = repr(error.get("input"))
    got = "" if error["type"] == "value_error" or len(shown) > 60 else f" (got {shown})"
    return f"{source}: {path}: {message[0].lower()}{message[1:]}{got}"


def check(data: Any, source: str = "config.yaml") -> Config:
    """The checked configuration of parsed YAML.

    Raises ConfigError with one line per problem found.
    """
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: must be a mapping of sections, not {type(data).__name__}")
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(one, source) for one in error.errors())) from None
    if config.goal.problem not in config.problems:
        raise ConfigError(f"{source}: goal.problem: {config.goal.problem} is not listed under problems")
    for mode in config.goal.modes:
        if mode not in config.bench.gpu_modes:
            raise ConfigError(f"{source}: goal.modes: {mode} is not listed under bench.gpu_modes")
    _check_sweep(config.sweep, source)
    _check_arch(config, source)
    _check_cluster(config, source)
    return config


def _check_sweep(sweep: SweepSection, source: str) -> None:
    """Raises ConfigError, one line, for a sweep that compares with nothing or the same twice. Whether its variants exist only `plan` can tell."""
    known = list(dict.fromkeys(name for names in RIVALS.values() for name in names))
    for name in sweep.rivals:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(f"{source}: sweep.rivals: {name!r} is no rival; {f'did you mean {close[0]!r}?' if close else 'known: ' + ', '.join(known)}")
    for key in ("beside", "rivals", "problems"):
        names = getattr(sweep, key)
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"{source}: sweep.{key}: {twice[0]} is listed twice")
        if sweep.variant and not names:
            raise ConfigError(f"{source}: sweep.{key}: is empty, and sweep.variant is {sweep.variant}; list at least one, or leave sweep.variant out")
    if sweep.variant in sweep.beside:
        raise ConfigError(f"{source}: sweep.beside: {sweep.variant} is sweep.variant itself; list the variants that it is compared with")


def _check_arch(config: Config, source: str) -> None:
    """Raises ConfigError, one line, for sm_90: without the a there is no wgmma, and the kernels that use it would compile to nothing."""
    for key, arch in [("arch", config.arch), *((f"cluster.{slug}.arch", entry.arch) for slug, entry in config.cluster.items())]:
        if arch == "sm_90":
            raise ConfigError(f"{source}: {key}: write sm_90a: sm_90 has no wgmma, so Hopper's kernels would compile to nothing")


def _check_cluster(config: Config, source: str) -> None:
    """Raises ConfigError, one line, where a cluster's entries do not fit each other or the rest."""
    for slug, entry in config.cluster.items():
        if not re.fullmatch(SLUG, slug) or slug == "auto":
            raise ConfigError(f"{source}: cluster: {slug!r} is no slug of a device, for example nvidia-h200 or cpu")
        if slug == CPU and entry.arch:
            raise ConfigError(f"{source}: cluster.cpu.arch: the CPU has none; leave it out")
        if slug != CPU and not entry.arch:
            raise ConfigError(f"{source}: cluster.{slug}.arch: is needed, for example sm_90a; the GPU is not here to be asked")
    if config.cluster and config.arch != "auto":
        raise ConfigError(f"{source}: arch: with cluster each device has its own; leave it at auto")
    if config.cluster and config.device not in ("auto", CPU, *config.cluster):
        raise ConfigError(f"{source}: device: {config.device} is not one of cluster's ({', '.join(config.cluster)})")


def load(path: Path | str = "config.yaml") -> Config:
    """Read and check a configuration file. Raises ConfigError with one line per problem found."""
    try:
        data = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none, bytes that are not UTF-8
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ConfigError(f"{path}{where}: not valid YAML: {problem}") from None
    if data is None:
        raise ConfigError(f"{path}: is empty; it needs at least one key, for example goal")
    return check(data, str(path))


def table() -> str:
    """The schema as a Markdown table: key, default, meaning. README.md carries it and a test compares the two."""
    rows = ["| key | default | meaning |", "|---|---|---|"]

    def walk(model: type[BaseModel], prefix: str) -> None:
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                walk(field.annotation, f"{prefix}{name}.")
            else:
                default = yaml.safe_dump(field.default, default_flow_style=True).splitlines()[0]
                rows.append(f"| `{prefix}{name}` | `{default}` | {field.description} |")

    walk(Config, "")
    walk(VariantEntry, "variants.<name>.")
    walk(ClusterEntry, "cluster.<device>.")
    return "\n".join(rows) + "\n"
