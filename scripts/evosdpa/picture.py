"""README's picture of the page: the page of the recorded evidence alone, as headless Chromium shows its top."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path
from typing import Any

from evosdpa import evidence, gap, gap_document, keys, ladder, machine
from evosdpa.config import Config
from evosdpa.evidence import EvidenceError
from evosdpa.page import render

PICTURE = Path("results/recorded/report.png")
WIDTH, HEIGHT = 1280, 1400
"""Of the picture, pixels."""
NAME = "evidence"
"""Keyword of the picture's text that holds the digest of what it was made of."""

BROWSER = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=8000")
"""Options with which Chromium shows a local page without a window and without a network."""
PATIENCE_S = 50


def document(config: Config) -> dict[str, Any]:
    """gap.json of the recorded evidence alone, the same on every machine. Raises EvidenceError when any of it cannot be used."""
    found = gap_document.document(gap.Gap(config, ladder.Ladder(config).names, None, machine.DEFAULT_ARCH, origins=("recorded",)))
    if found["errors"]:
        raise EvidenceError("\n".join(found["errors"]))
    return found


def digest(found: dict[str, Any]) -> str:
    """Digest of what the picture shows: the goal and the leading device's times with what makes them stale."""
    rows = [row for row in found["rows"] if row["device"] == found["leading_device"]]
    return keys.digest(json.dumps([found["goal"], rows], sort_keys=True))


def make(config: Config, output: Path) -> None:
    """Write the picture. Raises EvidenceError in one line where there is no Chromium or it shows nothing."""
    program = shutil.which("chromium")
    if program is None:
        raise EvidenceError("chromium was not found, and it makes README's picture (Debian: apt-get install chromium)")
    found = document(config)
    with tempfile.TemporaryDirectory(prefix="evosdpa-") as folder:
        gap_json, report, shot = (Path(folder) / name for name in ("gap.json", "report.html", "report.png"))
        evidence.write_text(gap_json, gap_document.dumps(found))
        render.build(gap_json, report)
        try:
            subprocess.run([program, *BROWSER, f"--user-data-dir={folder}/profile", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}",
                            report.as_uri()], capture_output=True, timeout=PATIENCE_S, check=True)
            evidence.write_bytes(output, with_text(shot.read_bytes(), NAME, digest(found)))
        except (subprocess.SubprocessError, FileNotFoundError) as error:
            raise EvidenceError(f"chromium made no picture of the page: {error}") from None


# PNG: a signature, then chunks of length, kind, data and checksum; the last is IEND.

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and data of each chunk of a PNG. Raises EvidenceError for what is none."""
    if not data.startswith(SIGNATURE):
        raise EvidenceError("not a PNG")
    found, at = [], len(SIGNATURE)
    while at < len(data):
        length = int.from_bytes(data[at:at + 4], "big")
        kind, body, check = data[at + 4:at + 8], data[at + 8:at + 8 + length], data[at + 8 + length:at + 12 + length]
        if zlib.crc32(kind + body) != int.from_bytes(check, "big"):
            raise EvidenceError("a PNG that was cut short or changed")
        found.append((kind, body))
        at += 12 + length
    return found


def with_text(data: bytes, name: str, text: str) -> bytes:
    """A PNG with a text of this name before its end."""
    whole = chunks(data)
    whole.insert(len(whole) - 1, (b"tEXt", name.encode() + b"\0" + text.encode()))
    return SIGNATURE + b"".join(len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in whole)


def text_of(data: bytes, name: str) -> str:
    """The text of this name in a PNG; empty where there is none."""
    start = name.encode() + b"\0"
    return next((body[len(start):].decode() for kind, body in chunks(data) if kind == b"tEXt" and body.startswith(start)), "")


def size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG, pixels."""
    header = chunks(data)[0][1]
    return int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
