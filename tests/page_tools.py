"""What the tests of the page share: planted documents, the page's parts, and a real browser."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import page_data
import pytest

from evosdpa import picture
from evosdpa.page import render

WIDTHS = (390, 1280)


def planted(name):
    """A planted document as a file would give it."""
    return json.loads(json.dumps(getattr(page_data, name, dict)()))


def whole(document):
    return render.whole(json.loads(json.dumps(document)))


def with_blocks(text):
    """A page with the data for its scripts back in their elements, as a browser has it after it has unpacked them."""
    packed = re.search(r'blocksReady = unpack\("([^"]*)"\)', text)[1]
    texts = json.loads(zlib.decompress(base64.b64decode(packed)))
    return re.sub(r'(<script type="application/json"[^>]* data-block="(\d+)">)(?=</script>)', lambda match: match[1] + texts[int(match[2])], text.replace(packed, ""))


def without_bundle(text, cache):
    return with_blocks(text.replace(render.bundle(cache), ""))


def section(text, name):
    return re.search(f'<section id="{name}">(.*?)</section>', text, re.DOTALL)[1]


def chromium(page: Path, profile: Path, fragment: str = "") -> tuple[str, str]:
    """The DOM of a local page, opened at a fragment (`#...`), after its scripts ran in headless Chromium without a network, and the browser's log."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("chromium was not found; the page is tested in a real browser (Debian: apt-get install chromium)")
    done = subprocess.run(
        [program, *picture.BROWSER, f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0", "--window-size=1400,1000", "--dump-dom", page.as_uri() + fragment],
        capture_output=True, text=True, timeout=50, check=True)
    return done.stdout, done.stderr


def loads(text):
    """What the elements of a page would load or link to."""
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.extend(value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "action", "data", "background", "poster"))

    Reader().feed(text)
    return found


def stands(text, cache):
    """What every page must be: whole, on its own, with every link leading somewhere."""
    rest = without_bundle(text, cache)
    assert [loaded for loaded in loads(rest) if not loaded.startswith("#")] == []
    assert not re.search(r"url\((?!#)|@import", re.search("<style>(.*?)</style>", rest, re.DOTALL)[1])
    assert "http:" not in rest.replace("http://www.w3.org/", "") and "https:" not in rest
    assert text.count(render.bundle(cache)) == 1 and text.count("default-src 'none'") == 1
    for svg in re.findall(r"<svg.*?</svg>", rest, re.DOTALL):
        ElementTree.fromstring(svg)
    anchors = re.findall(r'\bid="([^"]+)"', rest)
    assert len(anchors) == len(set(anchors))
    assert {html.unescape(target) for target in re.findall(r'href="#([^"]+)"', rest)} <= {html.unescape(one) for one in anchors}
    assert "NaN" not in rest and "None" not in rest and "undefined" not in rest


PROBE = """<script>
window.troubles = [];
addEventListener("error", event => window.troubles.push(String(event.message)));
addEventListener("securitypolicyviolation", event => window.troubles.push("policy " + event.violatedDirective));
(function wait() {
  const root = document.documentElement;
  if (root.dataset.charts === undefined) return void setTimeout(wait, 50);
  const wide = [...document.querySelectorAll("figure, .plot svg, section, header, dl, details, p, .scroll")].filter(one => !one.parentElement.closest(".scroll") && one.getBoundingClientRect().right > innerWidth + 1);
  parent.postMessage({name: window.name, inner: innerWidth, charts: root.dataset.charts, failed: root.dataset.failed, drawn: document.querySelectorAll(".plot svg.marks").length,
    overflow: root.scrollWidth - innerWidth, wide: wide.map(one => one.tagName + "." + one.className + "#" + one.id), images: document.images.length, blocks: [...document.querySelectorAll("script[data-block]")].map(one => one.textContent.length), troubles: window.troubles}, "*");
})();
</script>"""
"""Put into a copy of the page: once its charts are there, it tells the frame around it what it sees."""


def browse(text: str, folder: Path) -> None:
    """Show a page in a real browser in both widths: every chart is drawn, nothing overflows, nothing is complained of."""
    expected = text.count("<script type=\"application/json\" data-chart=")
    blocks = [len(one.encode("utf-16-le")) // 2 for one in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', with_blocks(text), re.DOTALL)]
    (folder / "page.html").write_text(text.replace("<body>", "<body>" + PROBE, 1))
    frames = "".join(f'<iframe name="w{width}" src="page.html" style="width:{width}px;height:900px;border:0"></iframe>' for width in WIDTHS)
    (folder / "frames.html").write_text(
        "<!doctype html><body><script>addEventListener('message', event => document.body.append(Object.assign(document.createElement('output'), "
        f"{{textContent: JSON.stringify(event.data)}})))</script>{frames}</body>")
    dom, log = chromium(folder / "frames.html", folder / "profile")
    seen = [json.loads(html.unescape(one)) for one in re.findall(r"<output>(.*?)</output>", dom)]
    assert sorted(one["inner"] for one in seen) == sorted(WIDTHS), "the page did not finish drawing in both widths"
    for one in seen:
        assert int(one["charts"]) == one["drawn"] == expected and one["failed"] == "" and one["troubles"] == []
        assert one["overflow"] <= 0 and one["wide"] == [], f"too wide at {one['inner']}"
        assert one["images"] == 0 and one["blocks"] == blocks
    assert not [line for line in log.splitlines() if "CONSOLE" in line]
