"""A child's source from a program: the prompt on its stdin, a .cu on its stdout. A broken answer is kept with its reason, never a crash."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from evosdpa import evidence, keys, variants

MOST_BYTES = 2_000_000
"""Longest answer that is read as a source."""

_FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """What a program wrote, or why it is no source."""

    text: str
    reason: str = ""


def ask(command: str, prompt: str, timeout_s: float, kept: Path) -> Answer:
    """The answer to a prompt. Answers are kept under `kept` by the prompt's and the command's digest, so that a search that goes on does not ask
    the same again; one that came to nothing is not kept.

    The program runs in a shell, in a process group of its own, which is killed at the time limit.
    """
    path = kept / f"{keys.digest('|'.join((command, prompt)))}.txt"
    if path.is_file():
        return Answer(path.read_text(errors="replace"))
    process = subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        out, err = process.communicate(prompt.encode(), timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return Answer("", f"the generator gave no answer in {timeout_s:g} s and was killed")
    finally:
        with contextlib.suppress(ProcessLookupError):  # whatever it left in its group
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    text = out.decode(errors="replace")
    if process.returncode:
        last = (err.decode(errors="replace").strip().splitlines() or ["nothing on stderr"])[-1]
        return Answer(text, f"the generator ended with status {process.returncode}: {last[:300]}")
    if not text.strip():
        return Answer(text, "the generator wrote nothing")
    evidence.write_text(path, text)
    return Answer(text)


def source_in(text: str) -> str:
    """The source in an answer: the longest block between fences, as models write them, else all of it."""
    blocks = _FENCED.findall(text)
    return max(blocks, key=len) if blocks else text


def keep(answer: Answer, path: Path) -> str:
    """Write an answer as a source, whole or not at all; returns why it cannot be a variant, or nothing. A source that is refused stays
    there, with another suffix, to be looked at."""
    refused = path.with_name(f"{path.name}.txt")
    path.unlink(missing_ok=True)
    refused.unlink(missing_ok=True)
    reason = answer.reason
    text = source_in(answer.text)
    if not reason and len(text.encode()) > MOST_BYTES:
        reason = f"the answer has {len(text.encode())} bytes; at most {MOST_BYTES} are read as a source"
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
    return reason


def name(parent: str, generation: int, number: int) -> str:
    """The stem of a written child: its first written ancestor's source, the generation and its number there."""
    root = re.sub(r"_g\d+c\d+$", "", parent.partition("@")[0])
    return f"{root}_g{generation}c{number}"
