"""Evidence: the JSON files that rules write, one class a kind, and the words for how a step ended.

Files are written whole or not at all, with a seal over everything in them. Reading checks the schema version, the seal and
every field, so that a truncated or hand-edited file is one clear line instead of a wrong number.
"""

from __future__ import annotations

import datetime
import json
import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from evosdpa import keys

SCHEMA_VERSION = 2

LOG_LIMIT = 20_000
"""Characters of a tool's output kept in evidence: head and tail."""

SAMPLES = "samples.csv.gz"
"""Name of the file with every sample, beside bench.json."""

SWEEP_SAMPLES = "sweep.csv.gz"
"""The same beside sweep.json."""

HISTORY = "history.csv"
"""Name of the file with every recorded version of a device's variants (history.py), beside their folders."""

REMEDY = "restore it from git if it is recorded, or delete it to have it made again"


class Status(StrEnum):
    """How a step ended. Failed and missing are never the same thing."""

    OK = "ok"
    FAILED = "failed"  # the evidence says no
    ERROR = "error"  # the step itself broke; the log is attached
    TIMEOUT = "timeout"
    UNSUPPORTED = "unsupported"  # the variant refused, with its reason
    NOT_RUN = "not_run"  # nothing here that could run it
    NOT_PERMITTED = "not_permitted"  # hardware counters without the right to read them
    UNSTABLE = "unstable"
    SUSPECT = "suspect"  # faster than its floor


class EvidenceError(Exception):
    """An evidence file that cannot be used; the message is one line naming file and cause."""


class Model(BaseModel):
    """Base of every record: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Head(Model):
    """What every evidence file begins with."""

    schema_version: int = SCHEMA_VERSION
    seal: str = ""
    """Digest of everything else in the file. `write` puts it there and `read` compares: a changed number is not evidence."""
    kind: str
    variant: str
    """Name of the variant, or `rivals`."""
    status: Status = Status.OK
    reason: str = ""
    """One line for the user; empty when the status is ok."""
    log: str = ""
    """Output of the tool that failed or warned, at most LOG_LIMIT characters."""
    origin: Literal["measured", "recorded", "static"] = "measured"
    device: str = ""
    """Slug of the device (`nvidia-h200`, `cpu`), or the architecture for build and static."""
    device_info: dict[str, Any] = {}
    """Name, driver, power limit and whatever else identifies the device."""
    key: str = ""
    """The content key: a hash over key_parts."""
    key_parts: dict[str, str] = {}
    """What the key is made of, part by part, so that stale evidence can say what changed."""
    started: str = ""
    ended: str = ""
    tools: dict[str, str] = {}
    """Versions of the tools that took part."""
    git: dict[str, Any] = {}
    """Commit of the pipeline and whether the tree had changes (`dirty`; None: $EVOSDPA_COMMIT told the commit, nobody looked)."""


class Build(Head):
    """What `compile` found: flags, compiler, headers really included, the compiler's report."""

    kind: Literal["build"] = "build"
    arch: str = ""
    title: str = ""
    idea: str = ""
    parent: str | None = None
    expects: str = ""
    levers: dict[str, int | str] = {}
    """Lever values that this variant sets; the file's own defaults are not listed."""
    declared_levers: dict[str, list[int | str]] = {}
    command: str = ""
    headers: list[str] = []
    """Headers of this project that the compiler read, from its dependency file."""
    library_sha256: str = ""
    cubin_sha256: str = ""
    seconds: float = 0.0
    """Wall time of the compiler, seconds."""
    ptxas: list[dict[str, Any]] = []
    """One entry a kernel: name, registers, spill_stores and spill_loads (bytes), stack and static shared bytes."""
    warnings: list[str] = []


class Static(Head):
    """What the binary tells without a GPU."""

    kind: Literal["static"] = "static"
    arch: str = ""
    kernels: list[dict[str, Any]] = []
    """One entry a kernel in the cubin: name, registers, stack_bytes, static_shared_bytes, local_bytes, instructions
    (SASS opcode family -> count), total instructions."""
    launches: list[dict[str, Any]] = []
    """One entry a problem and kernel: problem, kernel, grid, block, dynamic_shared_bytes, blocks_per_sm, limiter,
    occupancy (0..1), waves, tail (share of the last wave that is idle), reason when it could not be computed."""


class Case(Model):
    """One correctness case: a problem and an input family."""

    name: str
    problem: str
    family: str
    status: Status
    check: str = ""
    """The check that says no (harness/checks.py); empty when none does."""
    reason: str = ""
    ratio: float | None = None
    """Worst row's relative L2 error over what this precision allows; the limit is 1 (see harness/compare.py)."""
    error: float | None = None
    """Worst row's relative L2 error against the float64 reference."""
    max_abs: float | None = None
    worst: dict[str, int] = {}
    """Where the worst row is: batch, head, row, its worst column, and the key whose weight is wrong where one key explains it."""


class Verify(Head):
    """The verdict on correctness and every case behind it."""

    kind: Literal["verify"] = "verify"
    seed: int = 0
    cases: list[Case] = []
    counts: dict[str, int] = {}
    """Number of cases by status."""
    checks: dict[str, int] = {}
    """Checks that say no (harness/checks.py) and the number of cases in which each does."""
    worst_ratio: float | None = None


class Sanitize(Head):
    """compute-sanitizer's findings, tool by tool."""

    kind: Literal["sanitize"] = "sanitize"
    results: list[dict[str, Any]] = []
    """One entry a tool: tool, status, reason, errors, findings (first lines), seconds, launches; on findings `where`, the
    offending line as file:line."""


class Timing(Model):
    """One time: what was timed, on which problem, in which mode, and how sure we are."""

    name: str
    problem: str
    mode: str
    status: Status = Status.OK
    reason: str = ""
    time_us: float | None = None
    """Geometric mean of the process medians, microseconds for the whole problem."""
    ci_low_us: float | None = None
    ci_high_us: float | None = None
    """95 % t interval on the logarithm of the process medians."""
    process_medians_us: list[float] = []
    min_us: float | None = None
    p10_us: float | None = None
    p90_us: float | None = None
    samples: int = 0
    launches_per_sample: int = 0
    outputs_checked: bool | None = None
    """Whether outputs of timed launches were right, also on renewed inputs; None when there is nothing to compare (floors)."""
    rejected: list[str] = []
    """Processes whose samples do not count, each as `process N: why`."""
    span: dict[str, Any] = {}
    """Mode warm on a GPU, one process: launches, event_us around all of them, span_us from the first kernel's start to the last one's
    end, kernels, names; or reason when there is no such record."""
    beside: str = ""
    """For an anchor or floor of the rivals' run: the rival in whose processes it was timed."""
    note: str = ""


class Bench(Head):
    """Times of one variant with the anchors that were interleaved with it, or of all rivals, each with its own."""

    kind: Literal["bench"] = "bench"
    timings: list[Timing] = []
    anchors: list[Timing] = []
    """The rival and the floors timed in the same processes, interleaved."""
    clocks: list[dict[str, Any]] = []
    """Per process, problem and mode: SM and memory MHz, power W, temperature C, throttle reasons and compute processes before and
    after; the SM clock's median and range while it ran; samples, and those dropped because the host was late."""
    libraries: dict[str, str] = {}
    """Hash of the library that the processes really loaded, by name."""
    seeds: dict[str, int] = {}
    """Of the inputs and of every shuffled order, by what was timed; drawn at run time."""
    processes: int = 0
    process_kind: Literal["", "spawned", "forked"] = ""
    """spawned: each process started anew. forked: copies of one that had imported PyTorch (CPU only)."""
    samples_file: str = ""
    """Name of the file beside this one with every sample: process, name, problem, mode, round, time_us, accepted."""
    samples_sha256: str = ""


class Repeatability(Head):
    """The same binary measured against itself: what a difference must exceed to mean anything."""

    kind: Literal["repeatability"] = "repeatability"
    problem: str = ""
    copies: int = 0
    """Copies of the binary in each process."""
    runs: int = 0
    medians_us: dict[str, list[list[list[float]]]] = {}
    """Process medians by mode: [run][copy][process], microseconds."""
    tries: list[dict[str, Any]] = []
    """One entry a try: kind (within: two copies in the same processes; between: a copy in two runs, through the anchor), mode, runs,
    copies, ratio, low, high (95 % interval), verdict."""
    counts: list[dict[str, Any]] = []
    """By kind and mode: tries, and how many had the verdict same, undecided, faster, slower."""


class Selftest(Head):
    """The gate against planted wrong kernels, and an honest one."""

    kind: Literal["selftest"] = "selftest"
    results: list[dict[str, Any]] = []
    """One entry a planted kernel: name, seed of its inputs, title, idea, expected (checks that must say no), where, status (ok: rejected by these; failed:
    missed), said (check -> cases or findings), reason (the gate's own words), missed (what the gate got wrong), cases, ratio (worst
    error over the allowance), seconds; where a sanitizer's tool could not be run, not_run (check -> why)."""


class Profile(Head):
    """Nsight Compute's metrics, one entry a problem and kernel."""

    kind: Literal["profile"] = "profile"
    results: list[dict[str, Any]] = []
    """problem, kernel, grid, block, metrics (name -> value), units (name -> unit)."""


class Neighbour(Head):
    """One variant timed by turns alone and beside a busy GPU of the same machine."""

    kind: Literal["neighbour"] = "neighbour"
    problem: str = ""
    neighbour_info: dict[str, Any] = {}
    """What identifies the busy GPU."""
    turns: list[int] = []
    """Turns that the busy GPU did, pair by pair: that it was busy."""
    medians_us: dict[str, dict[str, list[list[float]]]] = {}
    """Process medians by mode: alone and beside, [pair][process], microseconds."""
    results: list[dict[str, Any]] = []
    """One entry a mode: ratio of the time beside the neighbour to the time alone, low, high (95 % interval over pairs), verdict."""


class Sweep(Bench):
    """One variant over many problems, timed in the same processes as the variants that it chooses from, the rivals and the floors.

    `timings` holds them all. Where two clocks agree about a time its `span` is left out, which keeps the file small enough for git.
    """

    kind: Literal["sweep"] = "sweep"
    problems: list[str] = []
    rivals: list[str] = []
    left_out: dict[str, str] = {}
    """Variants of sweep.beside that were not timed, each with the reason."""
    beside_limit: float = 0.0
    rival_limit: float = 0.0
    """What the variant's time may be, over the best of the variants beside it and over the best rival."""
    results: list[dict[str, Any]] = []
    """One entry a problem: problem; status, reason, time_us, ci_low_us, ci_high_us and tflops of the variant; beside, rival and cudnn: the best of the
    variants beside it, the best rival and sdpa-cudnn, each with name, time_us and the variant's ratio to it (low, high, verdict), or None;
    met_beside and met_rival (whether the ratio is within its limit, None without one); rungs: one entry a variant beside it with name, status,
    reason, time_us and its own ratios (ratio, low, high, verdict) to the best `rival` and to `cudnn`; untimed: rivals without a right time
    and why."""


class OperatorCheck(Model):
    """One thing that the operator must do."""

    name: str
    status: Status
    reason: str = ""
    ratio: float | None = None
    """Worst row's relative L2 error over what this precision allows; the limit is 1 (harness/compare.py). None where nothing is compared."""
    error: float | None = None
    """That row's relative L2 error against float64."""


class CallCost(Model):
    """What one call from Python costs."""

    name: str
    """harness/operator_names.py says what is called."""
    time_us: float
    """Geometric mean of the process medians, microseconds: calls in a row by the host's clock, with the wait for the last one's work, over their number."""
    ci_low_us: float | None = None
    ci_high_us: float | None = None
    """95 % t interval on the logarithm of the process medians."""
    process_medians_us: list[float] = []
    event_us: float | None = None
    """The same between two CUDA events; None on a CPU."""
    calls: list[int] = []
    """Calls in a row of one sample, process by process."""


class Operator(Head):
    """A built variant as a PyTorch operator: is it right where it is used, and what does a call cost?"""

    kind: Literal["operator"] = "operator"
    seed: int = 0
    checks: list[OperatorCheck] = []
    problem: str = ""
    """What the cost is of."""
    processes: int = 0
    """Fresh processes that timed calls."""
    costs: list[CallCost] = []
    """The operator's cost first; none where a check says no."""
    over: dict[str, dict[str, Any]] = {}
    """The operator's cost over each other one, formed within processes: ratio, low, high (95 % interval), verdict."""


class ToolSpeed(Head):
    """How fast the tool itself is: one entry a benchmark, with what was wanted and whether it was met."""

    kind: Literal["tool_speed"] = "tool_speed"
    results: dict[str, dict[str, Any]] = {}


KINDS: dict[str, type[Head]] = {
    "build": Build, "static": Static, "verify": Verify, "sanitize": Sanitize, "bench": Bench, "profile": Profile,
    "repeatability": Repeatability, "selftest": Selftest, "neighbour": Neighbour, "sweep": Sweep, "operator": Operator,
}

T = TypeVar("T", bound=Head)


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(record: Head) -> float:
    """How long a step took, seconds; 0 when it was not run."""
    if not record.started or not record.ended:
        return 0.0
    return (datetime.datetime.fromisoformat(record.ended) - datetime.datetime.fromisoformat(record.started)).total_seconds()


def clip(text: str, limit: int = LOG_LIMIT) -> str:
    """Head and tail of a long tool output, with a line that says how much was left out."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def write_text(path: Path | str, text: str) -> None:
    """Write a file whole or not at all: to a temporary neighbour first, then renamed."""
    write_bytes(path, text.encode())


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file whole or not at all. Raises EvidenceError in one line when the disk or a permission refuses."""
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise EvidenceError(f"{path}: cannot be written: {error.strerror}; mend that and run again") from None


def sealed(data: dict[str, Any]) -> str:
    """The seal of evidence: the digest of its canonical JSON without the seal itself."""
    return keys.digest(json.dumps({name: value for name, value in data.items() if name != "seal"}, sort_keys=True))


def write(path: Path | str, record: Head) -> None:
    """Seal a record and write it as JSON; NaN and infinity are refused because JSON has no word for them."""
    data = json.loads(json.dumps(record.model_dump(), allow_nan=False))  # as `read` will see it
    data["seal"] = record.seal = sealed(data)
    write_text(path, json.dumps(data, indent=1) + "\n")


def keep(record: Head, path: Path) -> None:
    """Write evidence of this machine as recorded evidence for others."""
    if record.origin == "measured":
        record.origin = "recorded"
    write(path, record)


def read(path: Path | str, model: type[T]) -> T:
    """Read and check one evidence file.

    Raises EvidenceError, one line, when the file is missing, not JSON, of another schema version or kind, changed after it
    was written, or has fields that do not belong.
    """
    try:
        data = json.loads(Path(path).read_text())
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"{path}: not valid JSON ({error}); {REMEDY}") from None
    if not isinstance(data, dict):
        raise EvidenceError(f"{path}: not an evidence file; {REMEDY}")
    version = data.get("schema_version")
    if version != SCHEMA_VERSION:
        raise EvidenceError(f"{path}: schema version {version!r}, this program reads {SCHEMA_VERSION}; delete it to have it made again")
    if data.get("seal") != sealed(data):
        raise EvidenceError(f"{path}: was changed after it was written; {REMEDY}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise EvidenceError(f"{path}: {where}: {first['msg']}; {REMEDY}") from None


def samples_beside(path: Path, record: Bench) -> Path:
    """The file with the samples of a bench.json or sweep.json."""
    return path.with_name(record.samples_file or SAMPLES)


def check_samples(path: Path, record: Bench) -> None:
    """Raises EvidenceError, one line, when the samples beside a bench.json or sweep.json are not those that its times were made of."""
    samples = samples_beside(path, record)
    if not samples.is_file():
        raise EvidenceError(f"{samples}: is missing, and {path.name} beside it is not used without it; {REMEDY}")
    if keys.digest_file(samples) != record.samples_sha256:
        raise EvidenceError(f"{samples}: is not the file that {path.name} describes; {REMEDY}")
