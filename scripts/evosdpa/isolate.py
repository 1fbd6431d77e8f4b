"""Run one measuring process: its own process group, a time limit, a report pipe, and an account of how it ended."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evosdpa.evidence import Status, clip

GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL."""

OUTPUT_LIMIT = 16 * 1024 * 1024
"""Bytes of head and of tail of a process's output that are held in memory: a runaway process must not fill it."""

_running: set[int] = set()
"""Process groups that run() has started and not yet ended, in any thread."""

PACKAGE_PARENT = Path(__file__).resolve().parent.parent


@dataclass
class Outcome:
    """How a process ended and what it reported until then."""

    status: Status
    reason: str = ""
    log: str = ""
    """Head and tail of the output, as evidence keeps it."""
    output: str = ""
    """The output, up to OUTPUT_LIMIT bytes of head and of tail."""
    reports: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    code: int | None = None
    """Exit status, negative for a signal; None when it could not be started."""


def python_worker(worker: str) -> list[str]:
    """The command that starts harness/<worker>.py as a fresh Python process."""
    return [sys.executable, "-m", f"evosdpa.harness.{worker}"]


def run(
    command: list[str], timeout_s: float, task: dict[str, Any] | None = None,
    on_report: Callable[[dict[str, Any]], None] | None = None, env: dict[str, str] | None = None,
) -> Outcome:
    """Run a command to its end or its time limit.

    A worker that breaks says why in a report (harness/report.py); any other bad end is told from the exit status.

    `task` goes to its stdin as JSON. Lines of JSON that it writes to the pipe whose number is in EVOSDPA_REPORT_FD are
    collected (and given to `on_report` as they come), so that a crash leaves everything reported before it. stdout and
    stderr become the log. At the limit the whole process group gets SIGTERM, then SIGKILL.
    """
    read_end, write_end = os.pipe()
    environment = {**os.environ, **(env or {}), "EVOSDPA_REPORT_FD": str(write_end), "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(PACKAGE_PARENT), *filter(None, [environment.get("PYTHONPATH")])])
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=[write_end],
            env=environment, start_new_session=True)
    except OSError as error:
        os.close(read_end)
        os.close(write_end)
        return Outcome(Status.ERROR, f"{command[0]} could not be started: {error.strerror}")
    os.close(write_end)
    _running.add(process.pid)
    chunks: dict[int, bytearray] = {process.stdout.fileno(): bytearray(), read_end: bytearray()}
    reports: list[dict[str, Any]] = []
    parsed = 0
    timed_out = False
    try:
        try:
            process.stdin.write(json.dumps(task or {}).encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # it died before reading; its exit status says how
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(read_end, selectors.EVENT_READ)
            while selector.get_map():
                left = started + timeout_s - time.monotonic()
                if left <= 0:
                    timed_out = True
                    break
                for key, _ in selector.select(left):
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                        continue
                    buffer = chunks[key.fd]
                    buffer += data
                    if key.fd != read_end and len(buffer) > 3 * OUTPUT_LIMIT:
                        buffer[OUTPUT_LIMIT:-OUTPUT_LIMIT] = b"\n... left out ...\n"
                    if key.fd == read_end:
                        *lines, rest = bytes(buffer[parsed:]).split(b"\n")
                        parsed = len(buffer) - len(rest)
                        for line in lines:
                            report = _report(line)
                            if report is not None:
                                reports.append(report)
                                if on_report:
                                    on_report(report)
        if not timed_out:
            try:
                process.wait(max(0.1, started + timeout_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                timed_out = True
    finally:
        _end_group(process)
        _running.discard(process.pid)
        os.close(read_end)
        process.stdout.close()
    seconds = time.monotonic() - started
    output = bytes(chunks[next(iter(chunks))]).decode(errors="replace")
    code = process.returncode
    outcome = Outcome(Status.OK, "", clip(output), output, reports, seconds, code)
    broken = next((one["reason"] for one in reports if one.get("event") == "broken"), None)
    if timed_out:
        outcome.status, outcome.reason = Status.TIMEOUT, f"did not end within {timeout_s:g} s"
    elif code > 0 and broken:
        outcome.status, outcome.reason = Status.ERROR, broken
    elif code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        outcome.status, outcome.reason = Status.ERROR, f"crashed with {name}"
    elif code:
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
        outcome.status, outcome.reason = Status.ERROR, f"ended with exit status {code}: {last.strip()[:300]}"
    return outcome


def _report(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _end_group(process: subprocess.Popen) -> None:
    """End what is left of the process group: ask, wait, then kill."""
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            pass
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def end_running() -> None:
    """End whatever run() has under way in other threads: an interrupt reaches the main one alone."""
    for group in tuple(_running):
        _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass
