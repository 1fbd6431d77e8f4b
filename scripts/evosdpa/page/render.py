"""The page as one file: views and pictures into the template, the charting library inlined once."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from pathlib import Path
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup, escape

from evosdpa import evidence, stats
from evosdpa.candidates import Search
from evosdpa.page import (analysis, analysis_charts, cards, charts, clock_charts, clocks, evolution, evolution_charts, facts, gate, history, history_charts,
                          ladder_choice, ladders, neighbours, operators, step_table, sweeps, tiles, words)

FOLDER = Path(__file__).parent
VEGA_LITE = "6.4"
SNIPPET = "window.vegaEmbed=vegaEmbed;"
UNPACK = """window.unpack = async packed => {
  const bytes = Uint8Array.from(atob(packed), one => one.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
};
window.libraryReady = unpack("PACKED").then(text =>
  document.head.append(Object.assign(document.createElement("script"), {textContent: text})));
window.libraryReady.catch(() => {});  // the script that waits for it says what went wrong
"""
"""Browsers that cannot unpack (before 2023) keep the still pictures and tables, and are shown nothing to choose from."""

BLOCK = re.compile(r'(<script type="application/json"[^>]*)>(.*?)(?=</script>)', re.DOTALL)
"""Data for a script of the page."""

PLACE = "PACKED_BLOCKS"
"""Where report.html.jinja has the data of all of them."""

EMPTY: dict[str, Any] = dict(
    goal={}, this_device=None, leading_device="", devices=[], problems=[], rows=[], variants=[], correctness=[], provenance=[], errors=[], required=[],
    protocol={}, selftests=[], repeatability=[], repeatability_wanted=[], neighbours=[], sweeps=[], operators=[], planted=0, evolution=[], history=[], processes=[])
"""What a gap document without some part stands for."""


def read(path: Path) -> dict[str, Any]:
    """gap.json with every part there. NaN and infinity read as nothing. Raises EvidenceError in one line."""
    try:
        document = json.loads(path.read_text(), parse_constant=lambda _: None)
    except OSError as error:
        raise evidence.EvidenceError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise evidence.EvidenceError(f"{path}: not valid JSON ({error}); delete it to have it made again") from None
    if not isinstance(document, dict):
        raise evidence.EvidenceError(f"{path}: not a gap document; delete it to have it made again")
    return document


def whole(document: dict[str, Any]) -> dict[str, Any]:
    """The document with every part there, so that nothing else needs to ask."""
    return {name: default if document.get(name) is None else document[name] for name, default in EMPTY.items()}


def bundle(cache: Path) -> str:
    """The charting library as one script that unpacks it: packed it has less than half of its size, and is a third of the page.

    Making it takes seconds, so it is kept in a folder, named by what went into it.
    """
    digest = hashlib.sha256(f"{vl_convert.__version__} {VEGA_LITE} {SNIPPET} {UNPACK}".encode()).hexdigest()[:16]
    path = cache / f"vega-{digest}.js"
    if path.is_file():
        return path.read_text()
    script = vl_convert.javascript_bundle(SNIPPET, vl_version=VEGA_LITE)
    evidence.write_text(path, UNPACK.replace("PACKED", packed(script)))
    return path.read_text()


def packed(text: str) -> str:
    """Text as the page's `unpack` reads it: zlib's format, which names no system, in base64, no letter of which can end a script element."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def with_packed_blocks(text: str) -> str:
    """The page with the data for its scripts moved out of their elements, which keep a number, and packed together: a fifth of its size."""
    texts: list[str] = []

    def moved(match: re.Match[str]) -> str:
        texts.append(match[2])
        return f'{match[1]} data-block="{len(texts) - 1}">'

    before, place, after = BLOCK.sub(moved, text).rpartition(PLACE)
    assert place, "report.html.jinja has no place for the packed data"
    return before + packed(json.dumps(texts, ensure_ascii=False)) + after


def json_block(value: Any) -> Markup:
    """JSON that is safe inside a script element: nothing in it can end the element or a line."""
    text = json.dumps(value, allow_nan=False, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def still(spec: dict[str, Any], name: str) -> Markup:
    """The picture as SVG, for readers without scripts and for paper; its ids are its own."""
    svg = vl_convert.vegalite_to_svg(charts.static(spec), vl_version=VEGA_LITE)
    svg = re.sub(r' (?:font-family="[^"]*"|pointer-events="none"|aria-[a-z]+="[^"]*"|role="[^"]*"|aria-roledescription="[^"]*")', "", svg)
    # What draws nothing: frames without a line, names of layers, the values that SVG takes anyway.
    svg = re.sub(r'<path class="(?:background|foreground)"(?: d="[^"]*")?(?: display="none")?/>', "", svg)
    svg = re.sub(r' class="(?:mark-|role-|background|foreground)[^"]*"| xmlns:xlink="[^"]*"', "", svg)
    svg = re.sub(r' (?:stroke-width|opacity)="1"(?=[ />])| font-weight="normal"', "", svg)
    while (shorter := re.sub(r"<g>(?:</g>|(<(?:path|line|text|g [^>]*)[^<>]*/>)</g>)", r"\1", svg)) != svg:
        svg = shorter
    # A hundredth of a pixel is more than anyone sees.
    svg = re.sub(r'(?<=[ ,(MLHVChvlc"-])\d+\.\d{3,}(?=[^<>]*>)', lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', lambda match: f"{match[1]}{name}-", svg)
    return Markup(svg)


def figure(name: str, question: str, answer: str, spec: dict[str, Any] | None, ladder: ladders.Ladder | None = None,
           tries: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A chart for the template: question, answer, specification, picture and the rungs or tries of the table under it."""
    name = facts.slug(name)
    return dict(id=name, question=question, answer=answer, spec=spec and json_block(spec), still=spec and still(spec, name), ladder=ladder,
                drawn=len(charts.rungs(ladder.entries)) if ladder else 0, tries=tries or [])


def goal_figures(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Ladders of the leading device on the goal's problem, one a mode; the goal's modes share their axis."""
    device, goal = document["leading_device"], document["goal"]
    views = [ladders.ladder(document, device, goal.get("problem"), mode) for mode in ladders.modes(document, device, goal.get("problem"))]
    shared = [view for view in views if view.mode in (goal.get("modes") or []) and view.drawable]
    limits = charts.span(shared) if shared else None
    return [figure(f"ladder-{view.id}", view.question, view.answer,
                   charts.ladder(view, limits if view in shared else None) if view.drawable else None, view) for view in views]


def zoom_figures(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Linear pictures around the best rival, for the goal's modes."""
    device, goal = document["leading_device"], document["goal"]
    found = []
    for mode in goal.get("modes") or []:
        view = ladders.ladder(document, device, goal.get("problem"), mode)
        near = charts.zoomed(view)
        if near:
            best = view.ranked("variant")[0]
            found.append(figure(f"zoom-{view.id}", f"{mode.capitalize()}: how far from the best rival?",
                                f"{best.name} is {ladders.against_rival(best.row) or 'not compared with a rival'}.", charts.zoom(near, stats.SAME_BAND)))
    return found


def other_figures(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The goal's problem on every other device, each a ladder of its own."""
    goal, found = document["goal"].get("problem"), []
    for entry in document["devices"]:
        device = entry.get("slug")
        if device == document["leading_device"]:
            continue
        for mode in ladders.modes(document, device, goal)[:2]:
            view = ladders.ladder(document, device, goal, mode)
            found.append(figure(f"ladder-{view.id}", f"{view.device_words}, {mode}: how fast is each?", view.answer,
                                charts.ladder(view) if view.drawable else None, view))
    return found


def other_problems(document: dict[str, Any]) -> list[ladders.Ladder]:
    """Ladders of the leading device on every other problem, in the goal's first mode."""
    goal, device = document["goal"], document["leading_device"]
    mode = (goal.get("modes") or ["warm"])[0]
    names = dict.fromkeys([*document["problems"], *(row.get("problem") for row in document["rows"] if row.get("device") == device)])
    views = [ladders.ladder(document, device, name, mode) for name in names if name and name != goal.get("problem")]
    return [view for view in views if view.entries]


def sweep_figures(found: list[sweeps.Sweep]) -> list[tuple[sweeps.Sweep, dict[str, Any]]]:
    """Every sweep with its picture: the variant over the best rival on each problem."""
    return [(one, figure(one.id, f"{one.variant} on {one.device_words}: how far from the best rival on each problem?", one.answer,
                         charts.ratios(drawn, stats.SAME_BAND, "time over the best rival’s (left of 1 is faster)", "var(--rival)", one.rival_limit)
                         if (drawn := sweeps.values(one)) else None)) for one in found]


def commands(text: str) -> Markup:
    """A sentence, escaped, with the command that it may name set as code."""
    shown = str(escape(text))
    for command in (gate.COMMAND, sweeps.COMMAND, operators.COMMAND):
        shown = shown.replace(command, f'<code class="command">{command}</code>')
    return Markup(shown)


def tries_figures(found: list[gate.Against]) -> dict[str, list[dict[str, Any]]]:
    """Pictures of tries by variant and device, one a mode and kind; those of a binary share their axis."""
    figures = {}
    for one in found[:gate.MOST_CHARTED]:
        groups = one.groups()
        limits = charts.tries_span([line for _, _, lines in groups for line in lines], stats.SAME_BAND)
        figures[one.key] = [
            figure(f"itself-{one.key}-{mode}-{kind}", f"{mode.capitalize()}, {gate.kind_words(kind)}: is it the same as itself?",
                   gate.group_answer(lines, len(charts.drawn_tries(lines))), charts.tries(lines, stats.SAME_BAND, limits), tries=lines)
            for mode, kind, lines in groups]
    return figures


def chosen(name: str, question: str, choices: dict[str, dict[str, Any]], spec: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """A chart for the template whose variant can be chosen; `{}` in the question is its name.

    The first choice is drawn; of the others the page keeps answer and bars.
    """
    first = next(iter(choices))
    return dict(id=name, question=question.replace("{}", first), answer=choices[first]["answer"], spec=spec and json_block(spec), still=spec and still(spec, name),
                choices=json_block(analysis_charts.packed(question, choices)) if len(choices) > 1 else None, **more)


def analyses(document: dict[str, Any]) -> dict[str, Any]:
    """Waterfalls, roofline, pipes and stalls of the leading device on the goal's problem."""
    where = analysis.setting(document)
    waterfalls = []
    for mode in where.modes if not where.nothing else ():
        found = {one.name: (one, analysis.waterfall_of(where, one, mode)) for one in where.subjects}
        choices = {name: dict(bars=analysis.waterfall_values(steps) if steps else [],
                              answer=analysis.waterfall_answer(one, steps) if steps else f"{name} has no right time in {mode} mode.")
                   for name, (one, steps) in found.items()}
        lines = [analysis.waterfall_line(one, steps) for one, steps in found.values() if steps]
        if lines:
            spec = _bars(choices, "µs for the whole problem")
            waterfalls.append(chosen(facts.slug(f"gap-{mode}"), f"{mode.capitalize()}: where does the time of {{}} go?", choices, spec, mode=mode, lines=lines))
    mode = where.modes[0]
    top, points = analysis.ceilings(where, mode), analysis.points(where, mode)
    drawn = points[:analysis_charts.MOST_POINTS]
    answer = analysis.roofline_answer(where, points, top, mode)
    roof = chosen("roofline-goal", f"{mode.capitalize()}: under which ceiling is each?", {"": dict(answer=answer, bars=[])},
                  analysis_charts.roofline(drawn, top) if drawn else None, mode=mode,
                  lines=[analysis.roofline_line(one, top) for one in points[:ladders.MOST_ROWS]], source=_ceilings_source(where, top, len(points) - len(drawn)))
    busy = {one.name: (one, analysis.busy(one.kernels(where.problem.name))) for one in where.subjects} if where.problem else {}
    profiled = dict(sorted(busy.items(), key=lambda item: item[1][1] is None))
    pipes = []
    if any(found for _, found in busy.values()):
        for name, question, say, values, title, limit in (
                ("pipes-use", "How busy is each unit of {}?", analysis.pipes_answer, analysis.pipe_values, "% of peak", 100.0),
                ("pipes-stalls", "What do the warps of {} wait for?", analysis.stalls_answer, analysis.stall_values, "cycles between two instructions of a warp", None)):
            choices = {key: dict(answer=say(one, found), bars=values(found)) for key, (one, found) in profiled.items()}
            pipes.append(chosen(name, question, choices, _bars(choices, title, limit)))
    return dict(nothing=where.nothing, model=analysis.MODEL, names=[(one.name, f"{one.name}{one.state}") for one in where.subjects], left_out=where.left_out,
                waterfalls=waterfalls, roofline=roof, pipes=pipes, pipe_names=analysis.PIPES, pipe_lines=[analysis.busy_line(one, found) for one, found in busy.values()],
                pipes_nothing="" if pipes else where.nothing or analysis.no_profile(where))


def evolutions(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Every evolution with its pictures."""
    found = []
    for view in evolution.of(document):
        name = facts.slug("evolution", "on", view.device)
        pictures = (("lineage", "Who came from whom, and how fast is each?", view.lineage_answer, evolution_charts.lineage(view)),
                    ("best", "Did it get faster?", view.best_answer, evolution_charts.best(view)),
                    ("credit", "Which levers paid?", view.credit_answer, evolution_charts.credit(view)),
                    ("rules", "Were the rules right?", view.rules_answer, None),
                    ("promised", "Did children keep what was promised?", view.promised_answer, evolution_charts.promised(view)))
        times = evolution_charts.drawn_times(view)
        found.append(dict(
            {part: figure(f"{name}-{part}", question, answer, spec) for part, question, answer, spec in pictures}, id=name, view=view,
            most_changes=evolution.MOST_CHANGES, undrawn=sum(child["right"] for child in view.children) - len(times),
            far=view.goal_beside(times)[1], best_far=view.goal_beside(view.best_times)[1], most_levers=charts.MOST_RUNGS, most=evolution.MOST_ROWS,
            silent=view.silent))
    return found


def _bars(choices: dict[str, dict[str, Any]], title: str, limit: float | None = None) -> dict[str, Any] | None:
    """The first choice's picture; None when it has no bars."""
    values = next(iter(choices.values()))["bars"]
    return analysis_charts.bars(values, title, limit) if values else None


def _ceilings_source(where: analysis.Setting, top: analysis.Ceilings | None, more: int) -> str:
    """Where the ceilings are from, and what the picture leaves out."""
    text = ""
    if top and where.peaks:
        text = (f"Ceilings: {where.peaks.half_tflops:g} TFLOP/s dense at {where.peaks.boost_mhz:,.0f} MHz, scaled to {top.mhz:,.0f} MHz; {where.peaks.dram_tb_s:g} TB/s; "
                f"{where.peaks.exps_per_clock_sm:g} exponentials per clock on each of {where.peaks.sms} SMs. {where.peaks.source}. "
                "DRAM bounds only inputs that are not in a cache; no rate of L2 is on file, so none is drawn.")
    return text + (f" {words.plural(more, 'more time')} in the table or in gap.csv." if more > 0 else "")


def histories(document: dict[str, Any]) -> dict[str, Any]:
    """The history of the leading device, a figure for each of the goal's modes that was recorded."""
    views = [history.history(document, str(mode)) for mode in document["goal"].get("modes") or ["warm"]]
    figures = [dict(figure(f"history-{view.mode}", f"{view.mode.capitalize()}: what became of each variant?", history.answer(view), history_charts.trend(view)),
                    view=view, lines=history.lines(view)) for view in views if view.tracks]
    return dict(nothing="" if figures else history.nothing(document), figures=figures, most=history.MOST_ROWS)


def clock_figures(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Times of processes over their clocks, a figure for each of the goal's modes that has clocks."""
    views = [clocks.spread(document, str(mode)) for mode in document["goal"].get("modes") or ["warm"]]
    return [dict(figure(f"clocks-{view.mode}", f"{view.mode.capitalize()}: does the clock explain the spread?", clocks.answer(view),
                        clock_charts.lanes(view)), view=view, lines=clocks.lines(view), spans=clocks.spans(view)) for view in views if view.subjects]


def headline(document: dict[str, Any]) -> dict[str, Any]:
    """The top of the page: the task, the verdict, where the numbers are from, what is stale or unreadable."""
    goal, device = document["goal"], document["leading_device"]
    entry = next((one for one in document["devices"] if one.get("slug") == device), {"slug": device})
    name, origins = words.device_words(entry), entry.get("origins") or []
    state, sentence = ladders.goal_verdict(document)
    recorded = f"GPU results are recorded on {name} on {words.date(entry.get('newest'))}." if device != "cpu" and "recorded" in origins else ""
    notice = ""
    if document["this_device"]:
        if "measured" not in origins:
            notice = f"Nothing is measured on this machine’s {name} yet. {recorded}".strip()
    elif recorded:
        notice = f"No GPU is measured on this machine. {recorded}"
    elif device == "cpu":
        notice = "No GPU is measured on this machine and none is recorded. Every time on this page is a CPU’s; variants for GPUs are compiled and inspected."
    else:
        notice = "Nothing is measured on this machine and nothing is recorded."
    waiting = [fact for fact in document["variants"] if not fact.get("on_cpu") and fact.get("status") == "not_run"]
    if notice and waiting:
        notice += f" Not run: {words.listed((fact.get('name') for fact in waiting), 6)}."
    limit = words.finite(goal.get("time_us"))
    return dict(problem=str(goal.get("problem") or "no problem"), words=words.problem_words(str(goal.get("problem") or "")),
                limit=f"{limit:,.4g}" if limit is not None else words.NOTHING, modes=words.listed(goal.get("modes") or []), device=name, state=state,
                mark={"met": "✓", "missed": "✗", "undecided": "≈"}.get(state, "·"), sentence=sentence, notice=notice,
                stale=sum(bool(row.get("stale")) for row in document["rows"]), rows=len(document["rows"]), errors=[str(one) for one in document["errors"]])


def build(gap: Path, output: Path) -> None:
    """Write the page that gap.json describes. The same document gives the same bytes."""
    evidence.write_text(output, page(read(gap), output.parent / ".cache"))


def page(document: dict[str, Any], cache: Path) -> str:
    """The page as text; `cache` is where the charting library is kept between runs."""
    document = whole(document)
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    environment.globals.update(words=words, NOTHING=words.NOTHING, MARKS=words.MARKS, MODES=ladders.MODES, rung_titles=ladder_choice.TITLES)
    environment.filters.update(slug=facts.slug, commands=commands, marked=cards.marked, zip=zip, json_block=json_block)
    gates, itself = gate.proofs(document), gate.against_itself(document)
    search = Search(document)
    shown = [one.view for one in search.candidates[:cards.MOST_CARDS]]
    lines, more_lines = facts.provenance(document)
    figures = dict(goal=goal_figures(document), zoom=zoom_figures(document), others=other_figures(document))
    return with_packed_blocks(environment.get_template("report.html.jinja").render(
        css=Markup((FOLDER / "style.css").read_text()), embed=Markup((FOLDER / "embed.js").read_text()), choices=Markup((FOLDER / "choices.js").read_text()),
        bundle=Markup(bundle(cache)), choice=ladder_choice.view(document),
        head=headline(document), devices=facts.devices(document), modes=[str(mode) for mode in document["goal"].get("modes") or ["warm"]],
        tiles=tiles.tiles(document, gates[0]), health=tiles.health(document), figures=figures, analysis=analyses(document), evolution=evolutions(document),
        other_problems=other_problems(document),
        sweeps=sweep_figures(sweeps.of(document)), no_sweep=sweeps.nothing(document),
        operators=operators.of(document), no_operator=operators.nothing(document), matrices=facts.matrices(document),
        correctness_answer=facts.correctness_answer(document), failed=facts.failures(document, "failed")[:facts.MOST_LINES],
        refused=facts.failures(document, "unsupported")[:facts.MOST_LINES], variants=shown, cards=cards.sections(search), steps=step_table.view(search, [one["id"] for one in shown]),
        neighbours=neighbours.of(document), gates=gates, checks=gate.legend(gates), itself=itself[:facts.MOST_LINES], itself_answer=gate.itself_answer(document, itself),
        history=histories(document), clocks=clock_figures(document), itself_figures=tries_figures(itself), itself_kinds=gate.KINDS,
        variants_answer=facts.variants_answer(document), provenance=lines, provenance_left_out=more_lines, protocol=facts.protocol(document),
        band=f"{100 * stats.SAME_BAND:g}", confidence=f"{100 * stats.CONFIDENCE:g}",
        tolerance=(document["protocol"].get("verify") or {}).get("tolerance")))
