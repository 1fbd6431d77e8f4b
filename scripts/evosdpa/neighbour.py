"""What a busy GPU beside it does to a timing: one variant timed alone and beside it by turns, with a verdict."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from evosdpa import benchmarking, device as devices, evidence, keys, machine, stats
from evosdpa.config import Config
from evosdpa.evidence import Bench, Build, EvidenceError, Neighbour, Status, Verify
from evosdpa.rival_names import ANCHOR
from evosdpa.variants import Variant

ORDER, COPY_MIB, PRODUCTS = 8192, 64, 20

LOAD = f"{PRODUCTS} times a product of two fp16 matrices of order {ORDER:,} and a copy of {COPY_MIB} MiB from the host"
"""What BUSY does in each turn, in words."""

BUSY = f"""import itertools, torch
square = torch.randn({ORDER}, {ORDER}, device='cuda', dtype=torch.float16)
host = torch.empty(2**{(COPY_MIB << 20).bit_length() - 1}, dtype=torch.uint8).pin_memory()
there = torch.empty_like(host, device='cuda')
for turn in itertools.count(1):
    for _ in range({PRODUCTS}):
        square @ square
        there.copy_(host, non_blocking=True)
    torch.cuda.synchronize()
    print(turn, flush=True)
"""
"""Keeps a GPU, its memory, the way to it and one core of the host busy until it is ended, and counts its turns."""

START_S = 120.0
END_S = 10.0
POLL_S = 0.1


def neighbour_parts(build: Build, config: Config) -> dict[str, str]:
    """The parts of the content key as they are today."""
    parts = benchmarking.bench_parts(build, config, on_cpu=False)
    settings = [parts["protocol"], config.repeatability.runs, config.goal.problem, config.goal.modes, BUSY]
    return {**parts, "protocol": keys.protocol(settings)}


@contextlib.contextmanager
def busy(command: list[str], environment: dict[str, str], turns: list[int]) -> Iterator[None]:
    """Run a command beside the block, from the first line that it prints; it prints one a turn. `turns` gets how many it did.

    Raises EvidenceError, one line, when it does not get to work, or was no longer at work at the end of the block.
    """
    with tempfile.TemporaryFile("w+") as said:  # a pipe that nobody reads would stop it when it is full
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=said, stderr=said, text=True)
        try:
            deadline = time.monotonic() + START_S
            while not os.fstat(said.fileno()).st_size and process.poll() is None and time.monotonic() < deadline:
                time.sleep(POLL_S)
            if process.poll() is None and os.fstat(said.fileno()).st_size:
                yield
            ended = process.poll()
        finally:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        said.seek(0)
        lines = said.read().splitlines()
    done = sum(line.isdigit() for line in lines)
    if ended is not None or not done:
        raise EvidenceError(f"the busy neighbour {'ended by itself' if done else 'did not start'}: {lines[-1] if lines else 'it said nothing'}")
    turns.append(done)


def measure(variant: Variant, config: Config, device: str, build: Build, verify: Verify, library: Path,
            floors: dict[str, benchmarking.Library]) -> Neighbour:
    """Time a variant on the goal's problem by turns alone and beside a busy GPU of the same machine; `not_run` where there is none.

    Each pair of runs gives one ratio. `failed` when their interval says that the neighbour makes it slower or faster.
    """
    parts = neighbour_parts(build, config)
    record = Neighbour(variant=variant.name, device=device, started=evidence.now(), key_parts=parts, key=keys.combine(parts), git=machine.git_state(),
                       problem=config.goal.problem)
    gpus = () if variant.on_cpu else machine.gpus_for(device)
    if variant.on_cpu or len(gpus) < 2:
        record.status = Status.NOT_RUN
        record.reason = f"a neighbour needs two GPUs of one kind, and here {'is no GPU' if not gpus else 'is one'}"
    elif reason := benchmarking.untimed(build, verify):
        record.status, record.reason = Status.NOT_RUN, reason
    else:
        libraries = {variant.name: benchmarking.loadable(library, build), **floors}
        with devices.hold(gpus) as held, devices.hold([gpu for gpu in gpus if gpu is not held.gpu]) as other:
            record.neighbour_info = machine.describe(other.gpu)
            runs = _runs(record, held, other, config, libraries, list(floors))
        record.device_info, record.tools = runs[0][0].device_info, runs[0][0].tools
        judge(record, runs, list(config.goal.modes))
    record.ended = evidence.now()
    return record


def _runs(record: Neighbour, held: devices.Held, other: devices.Held, config: Config, libraries: dict[str, benchmarking.Library],
          floors: list[str]) -> list[tuple[Bench, Bench]]:
    """Pairs of runs, alone and beside the neighbour; which comes first alternates, so that a drift falls on both."""
    pairs = []
    for number in range(config.repeatability.runs):
        done: dict[bool, Bench] = {}
        for beside in (False, True) if number % 2 == 0 else (True, False):
            bench = Bench(variant=record.variant, device=record.device)
            label = f"{record.variant} {'beside a busy GPU' if beside else 'alone'}, pair {number + 1} of {config.repeatability.runs}"
            with busy([sys.executable, "-c", BUSY], machine.visible(other.gpu), record.turns) if beside else contextlib.nullcontext():
                benchmarking.measure(bench, held, config, libraries, floors, [ANCHOR], [record.problem], [], label, modes=list(config.goal.modes))
            done[beside] = bench
        pairs.append((done[False], done[True]))
        if any(bench.status is not Status.OK for bench in done.values()):
            break
    return pairs


def judge(record: Neighbour, pairs: list[tuple[Bench, Bench]], modes: list[str]) -> None:
    """Fill in medians and, for each mode, the ratio of the time beside the neighbour to the time alone, with its verdict."""
    bad = next((bench for pair in pairs for bench in pair if bench.status is not Status.OK), None)
    if bad:
        record.status, record.reason, record.log = bad.status, bad.reason, bad.log
        return
    for mode in modes:
        times = [[next(one for one in bench.timings if (one.name, one.mode) == (record.variant, mode)) for bench in pair] for pair in pairs]
        lost = next((one for pair in times for one in pair if one.status is not Status.OK), None)
        if lost:
            record.status, record.reason = lost.status, f"{mode}: {lost.reason}"
            return
        alone, beside = ([pair[index].process_medians_us for pair in times] for index in (0, 1))
        record.medians_us[mode] = {"alone": alone, "beside": beside}
        ratio = stats.ratio_within([stats.of_medians(one).value for one in beside], [stats.of_medians(one).value for one in alone])
        low, high = ratio.interval() or (None, None)
        record.results.append(dict(mode=mode, ratio=ratio.value, low=low, high=high, verdict=stats.verdict(ratio)))
    told = [one for one in record.results if one["verdict"] in ("slower", "faster")]
    if told:
        record.status = Status.FAILED
        record.reason = "; ".join(f"{one['mode']}: {one['verdict']} beside a busy GPU, ratio {one['ratio']:.4f} ({one['low']:.4f} to {one['high']:.4f})" for one in told)
