"""A child's source from a program: the prompt on its stdin, a .cu on its stdout. A broken answer is kept with its reason, never a crash."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import selectors
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from evosdpa import evidence, keys, variants
from evosdpa.evolve import lineage

MOST_BYTES = 2_000_000
"""Longest answer that is read; a program that writes more is killed."""

_FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)

PR_SET_PDEATHSIG = 1
"""Of prctl(2): the signal that a process gets when its parent dies."""


@dataclass(frozen=True)
class Answer:
    """What a program wrote, or why it is no source."""

    text: str
    reason: str = ""


def ask(command: str, prompt: str, timeout_s: float, kept: Path) -> Answer:
    """The answer to a prompt, from a program that runs in a shell, in a process group of its own that is killed at the time limit, at MOST_BYTES,
    and when this process is told to end.

    An answer is kept under `kept` by the digest of prompt, command and the files that the command names, so that a search that goes on does
    not ask, or pay, twice; one that came to nothing is not kept.
    """
    path = kept / f"{keys.digest('|'.join([prompt, command, *_files_in(command)]))}.txt"
    if path.is_file():
        return Answer(path.read_text(errors="replace"))
    process = subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                               preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        out, err, why = _exchange(process, prompt.encode(), timeout_s)
    finally:
        signal.signal(signal.SIGTERM, before)
        with contextlib.suppress(ProcessLookupError):  # whatever it left in its group
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                stream.close()
        process.wait()
    text = out.decode(errors="replace")
    if why:
        return Answer(text, why)
    if process.returncode:
        last = (err.decode(errors="replace").strip().splitlines() or ["nothing on stderr"])[-1]
        return Answer(text, f"the generator ended with status {process.returncode}: {last[:300]}")
    if not text.strip():
        return Answer(text, "the generator wrote nothing")
    evidence.write_text(path, text)
    return Answer(text)


def _interrupt(*_: object) -> None:
    """End as on Ctrl-C, so that the program is ended too."""
    raise KeyboardInterrupt


def _files_in(command: str) -> list[str]:
    """Digests of the files that a command names: an edited file is another command."""
    try:
        words = shlex.split(command)
    except ValueError:  # the shell will say what is wrong with it
        words = command.split()
    return [keys.digest_file(word) for word in words if Path(word).is_file()]


def _exchange(process: subprocess.Popen[bytes], data: bytes, timeout_s: float) -> tuple[bytes, bytes, str]:
    """Write to a process and read what it says, until it closes its output or breaks a limit; also which one."""
    deadline, sent = time.monotonic() + timeout_s, 0
    heard = {process.stdout: bytearray(), process.stderr: bytearray()}
    os.set_blocking(process.stdin.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdin, selectors.EVENT_WRITE)
        for stream in heard:
            selector.register(stream, selectors.EVENT_READ)
        while any(key.fileobj in heard for key in selector.get_map().values()):
            left = deadline - time.monotonic()
            if left <= 0:
                return *map(bytes, heard.values()), f"the generator gave no answer in {timeout_s:g} s and was killed"
            for key, _ in selector.select(left):
                if key.fileobj is process.stdin:
                    with contextlib.suppress(BlockingIOError):
                        try:
                            sent += os.write(key.fd, data[sent:sent + 65536])
                        except BrokenPipeError:
                            sent = len(data)  # it does not want to hear more
                    if sent == len(data):
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                chunk = os.read(key.fd, 65536)
                heard[key.fileobj] += chunk
                if not chunk:
                    selector.unregister(key.fileobj)
                if len(heard[key.fileobj]) > MOST_BYTES:
                    return b"", b"", f"the generator wrote more than {MOST_BYTES} bytes and was killed"
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return *map(bytes, heard.values()), f"the generator gave no answer in {timeout_s:g} s and was killed"
    return *map(bytes, heard.values()), ""


def source_in(text: str) -> str:
    """The source in an answer: the longest block between fences, as models write them, else all of it."""
    blocks = _FENCED.findall(text)
    return max(blocks, key=len) if blocks else text


def keep(answer: Answer, path: Path) -> tuple[str, str]:
    """Write an answer as a source, whole or not at all; returns the source, and why it cannot be a variant, or nothing. What is refused
    stays there, with another suffix, to be looked at."""
    refused = path.with_name(f"{path.name}.txt")
    text, reason = source_in(answer.text), answer.reason
    if not reason:
        evidence.write_text(path, text)
        try:
            variants.header.cache_clear()
            variants.includes.cache_clear()
            variants.header(path)
            variants.includes(path)
        except variants.VariantError as error:
            reason = str(error)
            path.unlink()
    if reason:
        evidence.write_text(refused, answer.text)
        return "", reason
    refused.unlink(missing_ok=True)
    return text, ""


def name(parent: str, generation: int, number: int, answer: Answer) -> str:
    """The stem of a written child: the source that its ancestors come from, the generation, its number there, and a digest of what was written,
    so that no two sources share a name."""
    return f"{lineage.root_of(parent)}_g{generation}c{number}_{keys.digest(source_in(answer.text))[:4]}"
