"""What the tests of the page share: planted documents, the page's parts, and a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import page_data
import pytest

from evosdpa.page import render


def planted(name):
    """A planted document as a file would give it."""
    return json.loads(json.dumps(getattr(page_data, name, dict)()))


def whole(document):
    return render.whole(json.loads(json.dumps(document)))


def without_bundle(text, cache):
    return text.replace(render.bundle(cache), "")


def section(text, name):
    return re.search(f'<section id="{name}">(.*?)</section>', text, re.DOTALL)[1]


def chromium(page: Path, profile: Path, fragment: str = "") -> tuple[str, str]:
    """The DOM of a local page, opened at a fragment (`#...`), after its scripts ran in headless Chromium without a network, and the browser's log."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("chromium was not found; the page is tested in a real browser (Debian: apt-get install chromium)")
    done = subprocess.run(
        [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "--enable-logging=stderr",
         "--v=0", "--window-size=1400,1000", "--virtual-time-budget=8000", "--dump-dom", page.as_uri() + fragment],
        capture_output=True, text=True, timeout=50, check=True)
    return done.stdout, done.stderr
