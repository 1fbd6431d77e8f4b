"""results/summary.md: goal, candidates, state of the search, gap analysis and next actions as text for people who write things up.

Made from gap.json alone, by the page's own rules of rank, rounding and verdict; the same document gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evosdpa import cards, evidence, insights, next_actions
from evosdpa.candidates import ELITES, TIMED, Candidate, Search
from evosdpa.insight_rules import MATRIX_OPCODES
from evosdpa.next_actions import MOST_NAMES, SNAKEMAKE
from evosdpa.page import evolution, facts, ladders, render, words
from evosdpa.peaks import FMA_FLOPS, MATRIX_FLOPS
from evosdpa.variant_evidence import CLOCK
from evosdpa.writeup_words import amount, code, gain, marked, prose, reading, sentence, stopped, table, threshold

MOST_CARDS = 12
"""Cards; a long search's other candidates are in the table and in gap.csv."""
MOST_ROWS = ladders.MOST_ROWS
LACKING = {"static": "static facts of its launch", "profile": "a profile", "times": "times in both modes", "floors": "floors timed beside it"}
"""What rules miss (insights.unknown)."""


def build(gap: Path, output: Path) -> None:
    """Write the summary that gap.json describes. Raises EvidenceError when it cannot be read."""
    evidence.write_text(output, markdown(render.read(gap)))


def markdown(document: dict[str, Any]) -> str:
    """The summary as Markdown."""
    return Summary(render.whole(document)).text()


class Summary(Search):
    """A gap document in sections, each a list of lines."""

    def text(self) -> str:
        """The whole file."""
        problem = str(self.goal.get("problem") or "no problem")
        sections = [self._head(problem), self._goal(), self._overview(), self._cards(), self._state(), self._evolution(), self._gap(), self._next()]
        return "\n".join(line for section in sections if section for line in (*section, "")).rstrip("\n") + "\n"

    # Goal

    def _head(self, problem: str) -> list[str]:
        return [f"# {problem}: summary", "", f"<!-- generated from results/gap.json by `{SNAKEMAKE} results/summary.md`; do not edit -->", "",
                f"{sentence(words.problem_words(problem))} Times are microseconds for the whole problem, with 95{words.PERCENT} intervals; "
                f"modes: {', '.join(f'{mode} ({ladders.MODES[mode]})' if mode in ladders.MODES else prose(mode) for mode in self.modes)}."]

    def _goal(self) -> list[str]:
        limit = words.finite(self.goal.get("time_us"))
        _, said = ladders.goal_verdict(self.document)
        head = render.headline(self.document)
        wanted = f"Under {limit:,.4g} µs" if limit is not None else "No time is named"
        lines = ["## Goal", "", f"{wanted} on {self.where}, by one variant, right and current, in mode{'s' if len(self.modes) > 1 else ''} "
                 f"{words.listed(self.modes)}. **{prose(said)}**"]
        name, rows = ladders.closest(self.document)
        if rows:
            lines += ["", *table(["mode", "variant", "time, µs", "95 % interval", "time over goal", "processes", "origin", "date"],
                                 [[mode, code(name), words.time_us(row), words.time_interval(row) or "none", words.versus_goal(row),
                                   str(row.get("processes") or words.NOTHING),
                                   f"{row.get('origin') or 'unknown'}, {self.where}", words.date(row.get("recorded_on")) or words.NOTHING]
                                  for mode in self.modes if (row := rows.get(mode))], (2, 3, 4, 5))]
        if head["notice"]:
            lines += ["", prose(head["notice"]).replace("on this page", "here")]
        return lines

    # Candidates

    def _time(self, row: dict[str, Any] | None) -> str:
        if row is None or words.finite(row.get("time_us")) is None or row.get("status") not in TIMED:
            return words.NOTHING
        ends = words.time_interval(row)
        marked = "" if row.get("status") == "ok" else f" {words.mark(row.get('status')).text}"
        return f"{words.time_us(row)}{f' ({ends})' if ends else ''}{marked}"

    def _overview(self) -> list[str]:
        lines = ["## Candidates", ""]
        if not self.candidates:
            return [*lines, "There is no variant."]
        shown = self.candidates[:MOST_ROWS]
        lines.append(f"In the order of the ladder: the elites first (up to {ELITES}, the fastest that are right and current in mode {self.modes[0]}: "
                     "what the search builds on), then the others with a rank, then those without: stale, broken, not measured. Other devices come last.")
        rows = []
        for place, one in enumerate(shown, 1):
            elite = one in self.ranked[:ELITES]
            rows.append([str(place) if one in self.ranked else "", code(one.name) + (" (elite)" if elite else ""), one.view["device"] or words.NOTHING,
                         f"{one.view['mark'].glyph} {one.status}", *(self._time(row) for row in one.rows),
                         cards.over_sdpa(one, self.modes[0]) or words.NOTHING,
                         cards.correct(one) or words.NOTHING])
        lines += ["", *table(["", "variant", "device", "status", *self.modes, f"vs SDPA, {self.modes[0]}", "correct"], rows,
                              tuple(range(4, 5 + len(self.modes))))]
        if len(self.candidates) > len(shown):
            lines += ["", f"{len(self.candidates) - len(shown)} more are in `results/gap.csv`."]
        if any(cards.over_sdpa(one, self.modes[0]) for one in shown):
            lines += ["", "vs SDPA: the time over that of PyTorch's default `scaled_dot_product_attention`, taken in the same processes."]
        return lines

    def _cards(self) -> list[str]:
        shown = self.candidates[:MOST_CARDS]
        lines = [line for one in shown for line in (*self._card(one), "")]
        if len(self.candidates) > len(shown):
            lines.append(f"Cards of the other {len(self.candidates) - len(shown)} are left out; `results/gap.json` holds what they would say.")
        return lines[:-1] if lines and not lines[-1] else lines

    def _card(self, one: Candidate) -> list[str]:
        made = cards.card(self, one)
        lines = [f"### {code(one.name)}" + ("" if one.view["device"] == self.device else f" on {one.view['device'] or 'any GPU'}"), "",
                 *([marked(made.about), ""] if made.about else []), f"- **Status:** {marked(made.status)}"]
        steps = list(map(str, made.steps))
        if made.bare:
            return lines + self._points("Next", steps, "")
        lines.append(f"- **Metrics:** {marked(stopped('; '.join(f'{metric.name} {metric.value}' for metric in made.metrics)))}")
        lines += self._points("What works", made.works, "Nothing that the evidence shows yet.")
        holds = [*made.troubles, *(sentence(str(hold)) for hold in made.holds)]
        holds += [f"Less: {', '.join(map(code, made.less))}."] if made.less else []
        lines += self._points("What holds it back", holds, made.silent)
        return lines + self._points("Next", steps, "Nothing that the evidence points at.")

    @staticmethod
    def _points(title: str, points: Sequence[str], otherwise: str) -> list[str]:
        return [f"- **{title}:** {marked(otherwise)}"] if not points else [f"- **{title}:**", *(f"  - {marked(point)}" for point in points)]

    # State of the search

    def _state(self) -> list[str]:
        lines = ["## State of the search", "", f"- {prose(facts.variants_answer(self.document))}"]
        for mode in self.modes:
            view = ladders.ladder(self.document, self.device, self.goal.get("problem"), mode)
            lines.append(f"- **{mode.capitalize()}:** {prose(view.answer, 1200)}{self._rival(view)}")
        lines += [f"- **Stale:** {stopped(self._stale())}"] if self._stale() else []
        lines += [f"- **Evolution on {prose(view.device_words)}{' (stale)' if view.stale else ''}:** {prose(view.best_answer, 1200)}"
                  for view in evolution.of(self.document)]
        broken = [one for one in self.candidates if one.broken]
        lines += [f"- **{one.status.capitalize()}:** {code(one.name)}: {stopped(prose(one.view['reason']) or 'no reason given')}"
                  for one in broken[:MOST_NAMES]]
        if len(broken) > MOST_NAMES:
            lines.append(f"- {len(broken) - MOST_NAMES} more are broken; `results/gap.csv` has their reasons.")
        lines += [f"- **Left out, cannot be read:** {stopped(prose(error))}" for error in self.document["errors"][:MOST_NAMES]]
        if len(self.document["errors"]) > MOST_NAMES:
            lines.append(f"- {len(self.document['errors']) - MOST_NAMES} more evidence files cannot be read.")
        return lines

    def _rival(self, view: ladders.Ladder) -> str:
        """Which rival is the best, and why there is no verdict against it where there is none."""
        rows, best = self.rivals(view.mode), view.fastest("rival")
        first = view.fastest("variant")
        if best is None:
            if not rows:
                return " No verdict against a rival: none was timed."
            changed = next((str(row.get("changed") or "") for row in rows if row.get("stale")), "")
            why = f"the evidence about them is stale (changed since: {prose(changed)})" if changed else "none has a time that is ok"
            return f" No verdict against a rival: {why}."
        if first is None:
            return ""  # the answer names the fastest rival itself
        if ladders.against_rival(first.row):
            return ""
        return f" The best rival is {prose(best.name)} at {ladders.with_interval(best.row)}; " \
               "there is no verdict, since the two were not timed beside one anchor."

    def _stale(self) -> str:
        """Stale variants, those with the same changes together, then stale rivals."""
        groups: dict[str, list[str]] = {}
        for one in self.candidates:
            if one.view["stale"]:
                groups.setdefault(one.view["changed"] or "unknown", []).append(one.name)
        found = [f"{words.listed(map(code, names), MOST_NAMES)} (changed since: {prose(changed)})" for changed, names in groups.items()]
        rivals = sorted({str(row.get("changed") or "unknown") for row in self.document["rows"]
                         if row.get("kind") in ("rival", "floor") and row.get("stale") and row.get("device") == self.device})
        return "; ".join(found + [f"rivals and floors (changed since: {prose(changed)})" for changed in rivals])

    # Evolution

    def _evolution(self) -> list[str]:
        views = evolution.of(self.document)
        lines = [line for view in views for line in (*self._evolved(view), "")]
        return ["## Evolution", "", *lines[:-1]] if views else []

    def _evolved(self, view: evolution.Evolution) -> list[str]:
        """One device's evolution: what it found, what it teaches, what was dropped."""
        lines = [f"**{sentence(prose(view.badge[1]))}**{f' On {code(view.problem)}.' if view.problem else ''} "
                 f"{prose(view.lineage_answer, 1200)} {prose(view.best_answer, 1200)}", ""]
        lines += [f"- **Stale:** {prose(view.stale)}"] if view.stale else []
        lines += [f"- **Elite {place}:** {code(one['name'])}: {prose(one['times'])}; {stopped(prose(one['made']))}" for place, one in enumerate(view.elites[:MOST_NAMES], 1)]
        lines += [f"- **Generation {one['generation']}:** {one['mark'].text}: {stopped(prose(one['reason']) or 'no reason given')}"
                  for one in view.generations if not one["ok"]]
        credit = f"{view.credit_answer} {view.shared}" if view.levers else view.credit_answer
        answers = (("Levers", credit), ("Rules", view.rules_answer), ("Promises", view.promised_answer))
        lines += [f"- **{title}:** {prose(answer, 1200)}" for title, answer in answers]
        out = [f"{code(child['name'])} ({child['mark'].text}: {prose(child['why'], 120) or 'no reason given'})" for child in view.out]
        lines += [f"- **Dropped or not right:** {stopped(words.listed(out, MOST_NAMES))}"] if out else []
        if view.levers:
            lines += ["", *table(["lever", "source", "time over the parent's", "95 % interval", "pairs", "verdict"],
                                 [[prose(one["lever"]), code(one["source"]), one["ratio"].text, one["ratio"].interval or "none", str(one["pairs"]), one["verdict"]]
                                  for one in view.levers[:MOST_ROWS]], (2, 3, 4))]
        if view.rules:
            lines += ["", *table(["rule", "children", *evolution.VERDICTS, "dropped, wrong or not timed", "beyond its bound"],
                                 [[code(one["rule"]), *(str(one[key]) for key in ("children", *evolution.COUNTS))]
                                  for one in view.rules[:MOST_ROWS]],
                                 tuple(range(1, 2 + len(evolution.COUNTS))))]
        return lines

    # Gap analysis

    def _gap(self) -> list[str]:
        lines = ["## Gap analysis", ""]
        one, caveat = self.subject()
        if one is None:
            return [*lines, "No variant has a right time on the goal's problem, so there is no gap to explain."]
        lines += [f"Of {code(one.name)}, from its time down to the floor.{f' {caveat}' if caveat else ''}", ""]
        lines += table(["what", *(f"{mode}, µs" for mode in self.modes), "from"], self._way_down(one), tuple(range(1, 1 + len(self.modes))))
        known = one.evidence
        over = known.vs_floor.get(self.modes[0])
        if over:
            lines += ["", f"Between time and slowest floor lie {amount(known.times_us[self.modes[0]] * (1 - 1 / over))} µs {self.modes[0]}, "
                          f"{words.percent(float(f'{1 - 1 / over:.3g}'))} of the time."]
        if one.fact.get("on_cpu"):
            return [*lines, "", "The rules about what holds a variant back are about GPUs."]
        if one.insights:
            lines += ["", "What the evidence says of that distance. Each bound is the most that mending this one thing can gain, all else as it is. Bounds overlap "
                      "and do not add up; those of the profile are shares of a launch that began with flushed caches.", ""]
            lines += table(["what holds it back", "evidence", "threshold", "gains at most", "because it is then"],
                           [[prose(insight.meaning) + (" (out of date)" if insight.stale else ""), prose("; ".join(map(reading, insight.readings))),
                             f"{threshold(insight)} ({prose(insight.source)})", gain(insight, known), prose(insight.bound.basis)] for insight in one.insights])
        else:
            lines += ["", "No rule speaks."]
        missing = insights.unknown(known)
        for step, rules in missing.items():
            lines += ["", f"Without {LACKING[step]}: {words.plural(len(rules), 'rule')} could not look ({words.listed(map(code, rules), 5)})."]
        return lines

    def _way_down(self, one: Candidate) -> list[list[str]]:
        known = one.evidence
        lines = [[f"{code(one.name)}, measured",
                  *(words.time_us(row) if row and words.finite(row.get("time_us")) is not None else words.NOTHING for row in one.rows),
                  f"bench, {words.date(next((row.get('recorded_on') for row in one.rows if row and row.get('recorded_on')), ''))}".rstrip(", ")]]
        limit = words.finite(self.goal.get("time_us"))
        if limit is not None and one.view["device"] == self.device:
            lines.append(["the goal", *(f"{limit:,.4g}" for _ in self.modes), "config.yaml"])
        floors = sorted(known.floors_us.items(), key=lambda item: (-max(item[1].values(), default=0.0), item[0]))
        for floor, times in floors:
            lines.append([f"{code(floor)}: no kernel is faster", *(words.number(times.get(mode)) for mode in self.modes), "the same processes"])
        if not floors and known.vs_floor:
            slowest = [words.number(known.times_us[mode] / known.vs_floor[mode]) if known.vs_floor.get(mode) else words.NOTHING for mode in self.modes]
            lines.append(["the slowest floor", *slowest, "the same processes"])
        arch, sms, clock = known.arch.rstrip("a"), known.launch.get("sms"), known.metrics.get(CLOCK)
        if known.problem and known.problem.dtype != "fp32" and arch in MATRIX_FLOPS and sms and clock:
            for peaks, unit in ((MATRIX_FLOPS, "tensor cores"), (FMA_FLOPS, "CUDA cores")):
                if unit == "CUDA cores" and any(known.instructions.get(name) for name in MATRIX_OPCODES):
                    continue
                lines.append([f"both products at the peak of the {unit}",
                              *(words.number(1e6 * known.problem.flops / (peaks[arch] * sms * clock)) for _ in self.modes),
                              f"computed for {sms:.0f} SMs at {clock / 1e6:,.0f} MHz, as profiled"])
        return lines

    # Next actions

    def _next(self) -> list[str]:
        faster, more = next_actions.actions(self)
        best, _ = self.subject()
        lines = ["## Next actions", ""]
        for title, found in ((f"To get faster than {code(best.name)}, by the most that each can gain:" if best else "", faster), ("To know more:", more)):
            if found:
                lines += [title, "", *(f"{number}. {marked(str(action))}" for number, action in enumerate(found, 1)), ""]
        if not faster and not more:
            return [*lines, "Nothing: all evidence is there and current, and no rule speaks."]
        if any(self.elsewhere(one.view["device"]) for one in self.candidates):
            lines += [f"What was measured elsewhere comes back by {code(f'{SNAKEMAKE} record')} there and a commit of `results/recorded/`.", ""]
        return lines[:-1]
