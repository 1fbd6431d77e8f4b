"""The device under measurement: one holder at a time on this machine, probed first when the one before did not end well."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from evosdpa import isolate
from evosdpa.evidence import Status
from evosdpa.machine import Gpu, visible

PROBE = "import torch; x = torch.ones(1024, device='cuda'); assert float((x + x).sum()) == 2048"
PROBE_TIMEOUT_S = 60.0


class Held:
    """A device that this process holds. Processes on it are run through `run`."""

    def __init__(self, gpu: Gpu | None, sick: str = "") -> None:
        self.gpu, self.sick = gpu, sick
        self.doubt = bool(sick)
        """Whether something on the device was killed or crashed, so that whoever comes next must probe it."""

    def run(self, command: list[str], timeout_s: float, task: dict[str, Any] | None = None,
            on_report: Callable[[dict[str, Any]], None] | None = None, env: dict[str, str] | None = None) -> isolate.Outcome:
        """isolate.run() with this device as the only visible one. On a sick device nothing is run: the outcome is an error."""
        if self.sick:
            return isolate.Outcome(Status.ERROR, self.sick)
        outcome = isolate.run(command, timeout_s, task, on_report, {**visible(self.gpu), **(env or {})})
        if outcome.status is not Status.OK:
            self.doubt = True
        return outcome


def lock_file(gpu: Gpu | None) -> Path:
    """The file whose lock means the device: machine-wide, one a user and device."""
    name = re.sub(r"[^A-Za-z0-9-]+", "_", gpu.uuid if gpu else "cpu")
    return Path(tempfile.gettempdir()) / f"evo-sdpa-{os.getuid()}-{name}.lock"


@contextlib.contextmanager
def hold(gpu: Gpu | None) -> Iterator[Held]:
    """Hold a GPU (None: the CPU), so that nothing else measures on it, also from a second snakemake.

    The kernel releases the lock when this process ends, however it ends. What the file then says tells the next holder whether
    to trust the device: a holder that was killed, or under which a process was killed or crashed, leaves its mark there, and
    the next one runs a small kernel in a fresh process before anything else. A device that fails this is sick: Held.run refuses.
    """
    path = lock_file(gpu)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for {gpu.uuid if gpu else 'cpu'}: another measurement holds {path}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        mark = file.read().strip()
        _write(file, f"in use by process {os.getpid()}")
        held = Held(gpu, _sick(gpu, mark) if mark and gpu else "")
        try:
            yield held
        finally:
            _write(file, "a process on the device was killed or crashed" if held.doubt else "")


def _write(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def _sick(gpu: Gpu, mark: str) -> str:
    """Why the device cannot be used after its last holder left this mark; empty when it answers."""
    outcome = isolate.run([sys.executable, "-c", PROBE], PROBE_TIMEOUT_S, env=visible(gpu))
    if outcome.status is Status.OK:
        return ""
    return (f"nothing was run: after the last holder ({mark}) {gpu.name} did not answer a small kernel ({outcome.reason}); "
            "see nvidia-smi, and run again when the GPU is free or the driver is restarted")
