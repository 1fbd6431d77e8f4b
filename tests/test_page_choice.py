"""Device, problem, mode and variant are chosen in the page, in a real browser; the address keeps the choice, and every sentence follows it."""

from __future__ import annotations

import html
import json
import re

import page_data
import pytest
from page_data import CAUSAL, GOAL, H200, on_h200, row
from page_tools import chromium, planted, section, whole

from evosdpa.page import charts, ladder_choice, ladders, render

LARGE = "b4h16s4096d128-fp16"


def choice(document):
    return ladder_choice.view(whole(document))


# What is packed

def test_every_combination_has_the_sentence_and_the_table_of_its_ladder():
    document = page_data.realistic()
    data = choice(document)["data"]
    seen = 0
    for device, problems in data["of"].items():
        for problem, modes in problems.items():
            for mode, one in ({} if isinstance(modes, str) else modes).items():
                if isinstance(one, str):
                    continue
                made = ladders.ladder(whole(document), device, problem, mode)
                assert one["answer"] == made.answer and made.device_words in one["question"] and problem in one["question"]
                assert [data["texts"][cells[2]] for cells in one["table"]] == [entry.name for entry in made.shown]
                assert [data["texts"][cells[4]] for cells in one["table"]] == [entry.cells[0] for entry in made.shown]
                seen += 1
    assert seen == 3, "two more problems on the H200, and the CPU's"
    assert data["of"]["cpu"][CAUSAL] == f"Nothing was timed on CPU (planted CPU) for {CAUSAL}."
    assert data["of"][H200][CAUSAL]["cold"] == f"Nothing was timed on NVIDIA H200 for {CAUSAL} in cold mode."


def test_what_the_page_shows_by_itself_is_not_packed_again():
    assert choice(page_data.realistic())["data"]["of"][H200][GOAL] == {}


@pytest.mark.parametrize("rows, said", [
    ([row("v1", 9.0, problem=CAUSAL), row("sdpa-default", 8.0, "rival", problem=CAUSAL)], "v1 is the only variant with a rank: 9.00 µs"),
    ([row("v1", 4.00, problem=CAUSAL), row("v2", 4.01, problem=CAUSAL)], "v2’s overlaps: their order is undecided."),
    ([row("v1", 4.0, problem=CAUSAL, stale=True, changed="source")], "No variant has a right and current time here (1 stale)."),
    ([row("v1", None, problem=CAUSAL, status="failed", reason="wrong")], "No variant has a right and current time here (1 failed)."),
    ([row("v1", 6.2, problem=CAUSAL, ratio=1.1, best="sdpa-cudnn", verdict="slower")], "slower than the best rival sdpa-cudnn"),
])
def test_a_chosen_ladders_sentence_follows_from_the_data(rows, said):
    document = on_h200(rows=[row("v1", 4.5), *rows])
    assert said in choice(document)["data"]["of"][H200][CAUSAL]["warm"]["answer"]


@pytest.mark.parametrize("name", ["nothing_at_all", "only_stale"])
def test_with_one_ladder_there_is_nothing_to_choose(name, pages):
    assert (choice(planted(name)) is None) == (name == "nothing_at_all") and ("data-ladders" in section(pages(name), "latency")) == (name != "nothing_at_all")


def test_the_picture_to_fill_is_the_ladders_own():
    """With a ladder's values, ends, ticks and band in their places it is what the page draws for that ladder, but for the goal."""
    document = whole(page_data.realistic())
    made = ladders.ladder(document, H200, LARGE, "warm")
    data = choice(page_data.realistic())["data"]
    one = data["of"][H200][LARGE]["warm"]
    values = [{field: value if field in data["numbers"] else data["texts"][value] for field, value in zip(data["fields"], rung)} for rung in one["rungs"]]
    slots = {"$values": values, "$domain": one["domain"], "$ticks": one["ticks"]}
    filled = json.loads(json.dumps(data["spec"]), object_hook=lambda part: {key: slots.get(value, value) if isinstance(value, str) else value for key, value in part.items()})
    spec = charts.ladder(made)
    assert filled["layer"][1:] == spec["layer"] and filled["height"] * len(values) == spec["height"], "the first layer is the floors' band; none was timed there"
    for mine, theirs in zip(filled["data"]["values"], spec["data"]["values"], strict=True):
        assert all(mine[field] == (pytest.approx(theirs[field], rel=1e-5) if isinstance(theirs[field], float) else theirs[field]) for field in data["fields"])


# In the page

def test_without_scripts_the_goals_ladders_and_every_table_stay(pages):
    text = re.sub(r"<script.*?</script>", "", pages("realistic"), flags=re.DOTALL)
    shown = section(text, "latency")
    assert re.search(r'<p class="choose ladders" data-ladders hidden>', shown) and shown.count('class="marks"') == 7
    assert all(f'data-mode="{mode}"' in shown for mode in page_data.MODES) and f"{CAUSAL}</code> v2_wmma is the fastest" in section(text, "problems").replace("only variant with a rank", "fastest")


AFTER = """<script>
const tell = () => { document.documentElement.dataset.hash = location.hash; };
(function wait() {
  const root = document.documentElement;
  if (root.dataset.charts === undefined || document.querySelector("[data-ladders]").hidden) return void setTimeout(wait, 30);
  setTimeout(() => {
    for (const [name, value] of CHOSEN) {
      const select = document.querySelector(`[data-ladders] select[name=${name}]`);
      select.value = value;
      select.dispatchEvent(new Event("change"));
    }
    setTimeout(tell, 1500);
  }, 300);
})();
</script>"""
"""Chooses as a reader does, then notes the address."""


def opened(tmp_path, text, fragment="", chosen=()):
    """The page's DOM after a choice, checked for complaints."""
    (tmp_path / "page.html").write_text(text.replace("<body>", "<body>" + AFTER.replace("CHOSEN", json.dumps(list(chosen))), 1))
    dom, log = chromium(tmp_path / "page.html", tmp_path / "profile", fragment)
    assert not [line for line in log.splitlines() if "CONSOLE" in line]
    return dom


def drawn(dom):
    """What stands in the place of the chosen ladders."""
    return html.unescape(re.search(r"<div class=\"figures\" data-chosen-ladders=\"\".*?(?=<script)", dom, re.DOTALL)[0])


def hidden(dom):
    """Modes of the goal's ladders that are hidden."""
    return re.findall(r'<figure id="[^"]*" data-mode="(\w+)" hidden=', dom)


def test_a_problem_is_chosen_and_the_address_says_so(tmp_path, pages):
    dom = opened(tmp_path, pages("realistic"), chosen=[("problem", CAUSAL)])
    assert f'data-shown="{H200} {CAUSAL} "' in dom[:900] and f'data-hash="#problem={CAUSAL}"' in dom[:900]
    shown = drawn(dom)
    assert hidden(dom) == list(page_data.MODES) and shown.count("<figure") == shown.count('class="marks"') == 1
    answer = ladders.ladder(whole(page_data.realistic()), H200, CAUSAL, "warm").answer
    assert f"<h3>Warm on NVIDIA H200, {CAUSAL}: how fast is each?</h3><p class=\"answer\">{answer}</p>" in shown
    assert 'aria-label="Warm on NVIDIA H200' in shown and "Vega vis" not in shown and shown.count("<tr") == 1 + 7 and "v1_scalar" in shown and "⊘ unsupported" in shown


def test_a_link_shows_the_same_again(tmp_path, pages):
    dom = opened(tmp_path, pages("realistic"), f"#device=cpu&problem={GOAL}&mode=warm&variant=v2_wmma%40STAGES%3D3")
    assert 'data-shown="cpu ' in dom[:900] and 'data-chosen="v2_wmma@STAGES=3"' in dom[:900]
    assert "Warm on CPU (planted CPU)" in drawn(dom) and drawn(dom).count('class="marks"') == 1
    assert "where does the time of v2_wmma@STAGES=3 go?" in section(dom, "gap")


def test_a_mode_of_the_goals_ladders_leaves_only_that(tmp_path, pages):
    dom = opened(tmp_path, pages("realistic"), chosen=[("mode", "stream")])
    assert hidden(dom) == ["warm", "cold", "eager"] and "<figure" not in drawn(dom) and 'data-hash="#mode=stream"' in dom[:900]


def test_what_was_not_timed_is_said_and_not_drawn(tmp_path, pages):
    dom = opened(tmp_path, pages("realistic"), f"#device=cpu&problem={CAUSAL}")
    assert f"Nothing was timed on CPU (planted CPU) for {CAUSAL}." in drawn(dom) and "<figure" not in drawn(dom) and len(hidden(dom)) == 4


@pytest.mark.parametrize("fragment", ["#gap", "#device=x&problem=%3Cb%3E&variant=nobody", "#mode=warm&mode=%"])
def test_another_address_changes_nothing_that_it_does_not_name(fragment, tmp_path, pages):
    dom = opened(tmp_path, pages("realistic"), fragment)
    assert "<figure" not in drawn(dom) and "data-chosen" not in dom[:900] and hidden(dom) == (["stream", "cold", "eager"] if "mode" in fragment else [])


def test_names_from_outside_cannot_break_out(cache):
    document = page_data.realistic()
    document["problems"].append(page_data.HOSTILE)
    document["rows"].append(row(page_data.HOSTILE, 4.0, problem=page_data.HOSTILE, mode=page_data.HOSTILE))
    text = render.page(document, cache)
    assert "<img" not in section(text, "latency")


NARROW = """<script>
(function wait() {
  if (!document.documentElement.dataset.shown) return void setTimeout(wait, 30);
  const wide = [...document.querySelectorAll("[data-chosen-ladders] *, .choose, .choose select, #steps > *, #variants .card, .metrics div, .points li")].filter(one =>
    !one.parentElement.closest(".scroll, svg") && one.getBoundingClientRect().right > innerWidth + 1);
  parent.postMessage({inner: innerWidth, wide: wide.map(one => one.tagName + "." + one.className), over: document.documentElement.scrollWidth - innerWidth}, "*");
})();
</script>"""


def test_chosen_ladders_cards_and_steps_fit_both_widths(tmp_path, pages):
    (tmp_path / "page.html").write_text(pages("realistic").replace("<body>", "<body>" + NARROW, 1).replace('<details class="card"', '<details open class="card"'))
    frames = "".join(f'<iframe src="page.html#problem={CAUSAL}" style="width:{width}px;height:900px;border:0"></iframe>' for width in (390, 1280))
    (tmp_path / "frames.html").write_text("<!doctype html><body><script>addEventListener('message', event => document.body.append(Object.assign("
                                          f"document.createElement('output'), {{textContent: JSON.stringify(event.data)}})))</script>{frames}</body>")
    dom, _ = chromium(tmp_path / "frames.html", tmp_path / "profile")
    seen = [json.loads(html.unescape(one)) for one in re.findall(r"<output>(.*?)</output>", dom)]
    assert sorted(one["inner"] for one in seen) == [390, 1280]
    assert all(one["wide"] == [] and one["over"] <= 0 for one in seen), seen
