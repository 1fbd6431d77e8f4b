"""What a compiler says: kept whole in the job's log, clipped in evidence, and never more than text on the page."""

from __future__ import annotations

import html
import time
from html.parser import HTMLParser

import pytest

from evosdpa import build, evidence
from test_page import chromium
from workspace import CONFIG, Workspace, double

MARKUP = "</script></style></pre><script>document.title='broken out'</script><img src=x onerror=alert(1)>"
WARNINGS = 10_000

SOURCES = {
    "hostile": double("a message with markup", f'static_assert(sizeof(p) == 1, "{MARKUP}"); return 0;'),
    "noisy": double("many warnings", "return 1;") + "".join(f"#warning number {number} of many\n" for number in range(WARNINGS)),
    "noisy_and_wrong": double("many warnings, then a mistake", "return 1;") + "".join(f"#warning number {number} of many\n" for number in range(WARNINGS // 2))
    + "int mistake = no_such_name;\n" + "".join(f"#warning number {number} of many\n" for number in range(WARNINGS // 2, WARNINGS)),
}


@pytest.fixture(scope="module")
def loud(built, tmp_path_factory) -> Workspace:
    """The built workspace with these sources compiled and shown on the page; the CPU's own times stay."""
    made = built.copy(tmp_path_factory.mktemp("loud") / "project")
    for name, text in SOURCES.items():
        (made.folder / "kernels" / f"{name}.cpp").write_text(text)
    made.configure({**CONFIG, "only": ["hostile", "noisy_and_wrong"]})
    started = time.monotonic()
    made.run("results/report.html", "results/build/host/noisy/build.json")
    made.seconds = time.monotonic() - started
    return made


class Elements(HTMLParser):
    """The elements of a page: (tag, attributes), and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.title = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside == "title" and not self.title:
            self.title = data


def test_markup_in_a_compilers_message_stays_text_in_a_browser(loud, tmp_path):
    assert MARKUP in loud.json("results/build/host/hostile/build.json")["log"]
    page = loud.folder / "results/report.html"
    dom, said = chromium(page, tmp_path / "profile")
    elements = Elements(dom)
    assert "img" not in {tag for tag, _ in elements.found} and not [tag for tag, attributes in elements.found if "onerror" in attributes]
    assert elements.title == Elements(page.read_text()).title and "broken out" not in elements.title
    assert not [script for script in elements.scripts if script.lstrip().startswith("document.title")]
    assert html.escape(MARKUP, quote=False) in dom, "the message is shown, as text"
    assert 'data-failed=""' in dom[:400], "the page's own scripts ran to their end"
    assert not [line for line in said.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("name, status", [("noisy", "ok"), ("noisy_and_wrong", "failed")])
def test_ten_thousand_lines_are_clipped_in_evidence_and_whole_in_the_log(loud, name, status):
    record = loud.json(f"results/build/host/{name}/build.json")
    assert record["status"] == status
    assert len(record["log"]) < evidence.LOG_LIMIT + 100 and "characters left out" in record["log"]
    assert len(record["warnings"]) <= 20
    said = (loud.folder / f"results/logs/host/{name}/compiler.log").read_text()
    assert all(f"number {number}" in said for number in range(WARNINGS))
    terminal = (loud.folder / f"results/logs/host/{name}/compile.log").read_text()
    assert len(terminal.splitlines()) == 1, "the terminal gets one line"


def test_a_mistake_among_ten_thousand_warnings_is_still_the_reason(loud):
    [row] = [row for row in loud.gap() if row["name"] == "noisy_and_wrong"]
    assert "error:" in row["reason"] and "no_such_name" in row["reason"] and len(row["reason"]) < 400


def test_the_page_stays_small_and_the_run_short(loud):
    assert (loud.folder / "results/report.html").stat().st_size < 1_500_000
    assert (loud.folder / "results/gap.json").stat().st_size < 1_000_000
    assert loud.seconds < 60


def test_kernels_are_counted_also_where_evidence_leaves_the_report_out():
    lines = "ptxas info    : Compiling entry function 'f{0}' for 'sm_90a'\nptxas info    : Used {0} registers, used 0 barriers\n"
    assert len(build.parse_ptxas("".join(lines.format(number) for number in range(1, 1001)))) == 1000
