"""The device under measurement: one holder at a time, probed before anything else runs on it after something there did not end well."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

from evosdpa import isolate
from evosdpa.evidence import EvidenceError, Status
from evosdpa.machine import Gpu, visible

PROBE = "import torch; x = torch.ones(1024, device='cuda'); assert float((x + x).sum()) == 2048"
PROBE_TIMEOUT_S = 60.0

POLL_S = 0.1
"""How often it is looked which of several devices is free, seconds."""

KILLED = "a process on the device was killed or crashed"

_DEVICE_ERROR = re.compile(r"AcceleratorError|CUDA error")
"""In the reason of a process that ended by itself because the device answered with an error."""


class Held:
    """A device that this process holds. Processes on it are run through `run`, also from several threads."""

    def __init__(self, gpu: Gpu | None, doubt: str = "") -> None:
        self.gpu = gpu
        self.doubt = doubt
        """What happened on the device so that it must be probed before anything else runs there; empty when nothing did."""
        self._lost = ""
        self._lock = threading.Lock()

    def run(self, command: list[str], timeout_s: float, task: dict[str, Any] | None = None, on_report: Callable[[dict[str, Any]], None] | None = None,
            env: dict[str, str] | None = None, finding: int | None = None) -> isolate.Outcome:
        """isolate.run() with this device as the only visible one; `finding` is the exit status by which a tool says that it found
        something, which is no reason to doubt the device, whatever the worker under it saw.

        Raises EvidenceError, one line, when something did not end well here before and the device does not answer any more.
        """
        self.settle()
        doubt = True  # also when this process is interrupted, which ends the other
        try:
            outcome = isolate.run(command, timeout_s, task, on_report, {**visible(self.gpu), **(env or {})})
            doubt = _raises_doubt(outcome, finding)
        finally:
            if doubt:
                with self._lock:
                    self.doubt = KILLED
        return outcome

    def settle(self) -> None:
        """Probe the device if there is a doubt about it. Raises EvidenceError, one line, when it does not answer."""
        with self._lock:
            if self.doubt and self.gpu and not self._lost:
                self._lost = _sick(self.gpu, self.doubt)
                if not self._lost:
                    self.doubt = ""
            if self._lost:
                raise EvidenceError(self._lost)


def side_by_side(held: Held, work: Callable[[Any], Any], items: Sequence[Any], workers: int) -> Iterator[Any]:
    """work(item) of every item, at most `workers` at a time, in the order of the items; each runs its processes on the held device.

    When this is interrupted, or one of them raises, the processes of all are ended. Raises EvidenceError, one line, when one of them
    was killed or crashed and the device does not answer any more: what the others then said is not about them.
    """
    with ThreadPoolExecutor(max(1, min(workers, len(items)))) as pool:
        try:
            yield from pool.map(work, items)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            isolate.end_running()
            raise
    held.settle()


def _raises_doubt(outcome: isolate.Outcome, finding: int | None) -> bool:
    """Whether a process ended in a way that may leave the device unusable: killed, crashed, or told by the device of an error. One
    that ended by itself for any other reason says nothing about the device."""
    if outcome.status is Status.TIMEOUT or (outcome.code is not None and outcome.code < 0):
        return True
    return outcome.status is not Status.OK and outcome.code != finding and bool(_DEVICE_ERROR.search(outcome.reason))


def lock_file(gpu: Gpu | None) -> Path:
    """The file whose lock means the device: machine-wide, one a user and device."""
    name = re.sub(r"[^A-Za-z0-9-]+", "_", gpu.uuid if gpu else "cpu")
    return Path(tempfile.gettempdir()) / f"evo-sdpa-{os.getuid()}-{name}.lock"


@contextlib.contextmanager
def hold(gpu: Gpu | Sequence[Gpu] | None, alone: bool = True) -> Iterator[Held]:
    """Hold a GPU (None or nothing in the sequence: the CPU; several: the first that is free), so that nothing is timed on it beside something
    else, also from a second snakemake: `alone`, or beside others that do not hold it alone either, as checks do whose answers do not
    depend on time.

    The kernel releases the lock when this process ends, however it ends. The mark that each holder makes tells the next one whether
    to trust the device: a holder that was killed, or under which a process was killed or crashed, leaves it there, and the next one
    runs a small kernel in a fresh process before anything else; one that does not hold it alone also after its own, since a device
    that was lost beside it makes its own processes fail. Raises EvidenceError, one line, when the device does not answer: a job that ends so
    writes no evidence, the mark stays, and the next run tries again.
    """
    choices: list[Gpu | None] = [gpu] if gpu is None or isinstance(gpu, Gpu) else list(gpu) or [None]
    with _locked(choices, fcntl.LOCK_EX if alone else fcntl.LOCK_SH) as gpu:
        path = lock_file(gpu)
        with _mark(path) as (mark, own):
            left = _left_behind(path, own)
            held = Held(gpu, next(iter(left.values()), ""))
            try:
                held.settle()
                for one in left:
                    one.unlink(missing_ok=True)
                yield held
                if not alone:
                    held.settle()
            finally:
                if gpu and held.doubt:
                    _write(mark, held.doubt)
                else:
                    own.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(choices: list[Gpu | None], wanted: int) -> Iterator[Gpu | None]:
    """Lock one of several devices: the first that is free, beginning at any of them so that what shares devices spreads."""
    with contextlib.ExitStack() as stack:
        files = {one: stack.enter_context(open(lock_file(one), "a+")) for one in random.sample(choices, len(choices))}
        free = _free(files, wanted)
        if not free:
            print(f"waiting for {', '.join(one.uuid if one else 'cpu' for one in choices)}: another measurement holds "
                  f"{', '.join(str(lock_file(one)) for one in choices)}", flush=True)
        while not free:
            if len(files) == 1:
                fcntl.flock(files[choices[0]], wanted)  # in the system's own order of waiting
            else:
                time.sleep(POLL_S)
            free = _free(files, wanted)
        for one, file in files.items():
            if one != free[0]:
                file.close()
        yield free[0]


def _free(files: dict[Gpu | None, TextIO], wanted: int) -> list[Gpu | None]:
    """The first device whose lock is free, which is then held; nothing when there is none."""
    for one, file in files.items():
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, wanted | fcntl.LOCK_NB)
            return [one]
    return []


@contextlib.contextmanager
def _mark(path: Path) -> Iterator[tuple[TextIO, Path]]:
    """This holder's own mark beside the lock: a file, locked while the holder lives."""
    own = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    with open(own, "a+") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        _write(mark, f"in use by process {os.getpid()}")
        yield mark, own


def _left_behind(path: Path, own: Path) -> dict[Path, str]:
    """The marks of holders that are no more, and what they say."""
    left = {}
    for one in sorted(path.parent.glob(f"{path.name}.*")):
        if one == own:
            continue
        with contextlib.suppress(OSError), open(one, "r+") as mark:  # one that lives has it locked; one that just ended has removed it
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left[one] = mark.read().strip() or "a holder that left no word"
    return left


def _write(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def _sick(gpu: Gpu, mark: str) -> str:
    """Why the device cannot be used since what the mark says happened; empty when it answers."""
    outcome = isolate.run([sys.executable, "-c", PROBE], PROBE_TIMEOUT_S, env=visible(gpu))
    if outcome.status is Status.OK:
        return ""
    return (f"{gpu.name} did not answer a small kernel ({outcome.reason}) after what was there last ({mark}); no evidence was written; "
            "see nvidia-smi, and run again when the GPU is free or the driver is restarted")
