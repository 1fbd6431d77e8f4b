"""Whether the gate can be trusted: planted wrong kernels that it must reject, and one binary measured against itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evosdpa import stats
from evosdpa.harness.checks import Check
from evosdpa.page import words

COMMAND = "snakemake --cores 1 selftest"

REASON_SHOWN = 96
"""Characters of the gate's words in a table's cell; the rest is a click away."""
REASON_KEPT = 700
"""Characters of the gate's words on the page; the evidence has all."""
MEANING = {
    Check.LAUNCH: "sdpa_launch returns 0 for a problem that sdpa_supports takes",
    Check.BOUNDS: "nothing is written outside o and workspace: guard zones and the gaps between strided rows",
    Check.POISON: "the answer does not depend on what o, workspace and shared memory held before",
    Check.REPEATABLE: "the same inputs give the same bits again and again",
    Check.INPUTS: "q, k and v are what they were",
    Check.STREAM: "all work is on the given stream",
    Check.CAPTURE: "a launch can be captured in a CUDA graph, which forbids allocating and synchronising, and replays to the same answer",
    Check.CHAINED: "launches queued one behind the other, each taking the output of the one before as its q, its k or its v, give what they give one at a time",
    Check.FRESH: "inputs are read anew: -v behind the same pointers gives exactly the negated output, and entirely other q, k, v the answer to those",
    Check.FINITE: "everything is finite that should be",
    Check.NAN: "a NaN in a key reaches the rows that see it",
    Check.ACCURACY: "each row's relative L2 error is within the allowance",
    Check.CRASH: "the process comes to its end: it does not crash, and it does not stop before all cases ran",
    Check.TIMEOUT: "the process ends in time",
    Check.TIMED_OUTPUT: "outputs of timed launches are right, also for inputs that were renewed behind the same pointers",
    Check.SPAN: "events and the kernels' own record agree on the timed graph; launches do not overlap, and each does its own work",
    Check.MEMCHECK: "compute-sanitizer memcheck finds nothing",
    Check.RACECHECK: "compute-sanitizer racecheck finds nothing",
    Check.INITCHECK: "compute-sanitizer initcheck finds nothing",
    Check.SYNCCHECK: "compute-sanitizer synccheck finds nothing",
}
"""What each check asks, as the page says it."""

MOST_DEVICES = 6
"""Devices with a table of their own; gap.json has all."""
MOST_CHARTED = 2
"""Binaries whose tries are drawn; the others have their tables."""

VERDICTS = ("same", "undecided", "faster", "slower")
FALSE = ("faster", "slower")
"""Verdicts that tell a binary apart from itself."""

KINDS = {
    "within": ("in the same processes", "two copies of the binary timed in turns in the same processes, as a variant and its floor are"),
    "between": ("in two runs", "one copy in two runs of fresh processes, each over the anchor timed beside it"),
}
"""Kinds of tries: in a few words, and what was compared."""


# Planted kernels

@dataclass(frozen=True)
class Outcome:
    """How one planted kernel fared: its mark, and whether the gate was right about it."""

    mark: words.Mark
    right: bool


REJECTED = Outcome(words.Mark("✓", "rejected", "good"), True)
MISSED = Outcome(words.Mark("✗", "MISSED", "bad"), False)
ASTRAY = Outcome(words.Mark("≠", "rejected, not as meant", "warn"), False)
ACCEPTED = Outcome(words.Mark("✓", "accepted", "good"), True)
REFUSED = Outcome(words.Mark("✗", "WRONGLY REJECTED", "bad"), False)
NO_ROOM = Outcome(words.Mark("≈", "accepted, without room", "warn"), False)
NOT_TRIED = Outcome(words.Mark("!", "error: not tried", "bad"), False)
ORDER = (MISSED, REFUSED, NOT_TRIED, NO_ROOM, ASTRAY, REJECTED, ACCEPTED)
"""What a reader must see first stands first."""


def is_honest(result: dict[str, Any]) -> bool:
    """Whether a planted kernel is the control that no check may reject."""
    return not result.get("expected")


def outcome(result: dict[str, Any]) -> Outcome:
    """What became of a planted kernel. One that no check has seen, as when it did not build, was not tried: that is no verdict."""
    honest, said = is_honest(result), bool(result.get("said"))
    if result.get("status") == "ok":
        return ACCEPTED if honest else REJECTED
    if result.get("status") == "error" or not (result.get("cases") or said or result.get("reason")):
        return NOT_TRIED
    if honest:
        return REFUSED if said or result.get("reason") else NO_ROOM
    return ASTRAY if said else MISSED


def _checks(names: Any) -> list[dict[str, str]]:
    """Checks with what each asks."""
    return [dict(name=str(name), meaning=MEANING.get(name, "")) for name in names or []]


def _line(result: dict[str, Any]) -> dict[str, Any]:
    """One planted kernel's row."""
    expected, said = [str(name) for name in result.get("expected") or []], [str(name) for name in result.get("said") or {}]
    missed, reason = str(result.get("missed") or ""), str(result.get("reason") or "")
    if is_honest(result) and not missed and not reason and words.finite(result.get("ratio")) is not None:
        reason = f"the worst error is {words.allowance(result.get('ratio'))} of the allowance"
    # What the gate got wrong quotes the reason where there is one.
    text = words.clip(missed if reason in missed else " — ".join(filter(None, (missed, reason))), REASON_KEPT)
    found = outcome(result)
    return dict(name=str(result.get("name") or ""), title=str(result.get("title") or ""), idea=str(result.get("idea") or ""), outcome=found,
                expected=_checks(expected), also=_checks(name for name in said if expected and name not in expected),
                where=words.listed((f"“{one}”" for one in result.get("where") or []), 6), short=words.clip(text, REASON_SHOWN), full=text,
                ratio=words.finite(result.get("ratio")), honest=is_honest(result))


@dataclass(frozen=True)
class Proof:
    """The gate's self-test on one device."""

    device: str
    device_words: str
    lines: list[dict[str, Any]]
    state: str
    """proven, wrong, unfinished, stale or absent."""
    answer: str
    origin: str = ""
    ended: str = ""

    @property
    def mark(self) -> words.Mark:
        """The whole of it as a mark."""
        if self.named(MISSED):
            return words.Mark("✗", "fooled", "bad")
        return {"proven": words.Mark("✓", "proven", "good"), "stale": words.MARKS["stale"], "absent": words.Mark("·", "not proven", "mute")}.get(
            self.state, words.Mark("✗", "not proven", "bad"))

    def named(self, *outcomes: Outcome) -> list[str]:
        """Planted kernels that ended in one of these ways."""
        return [line["name"] for line in self.lines if line["outcome"] in outcomes]

    @property
    def wrong_kernels(self) -> int:
        """How many planted kernels have a flaw."""
        return sum(not line["honest"] for line in self.lines)

    @property
    def badge(self) -> tuple[str, str]:
        """Its place in the health strip: kind of badge and text."""
        others = len(self.named(ASTRAY, NOT_TRIED))
        if missed := self.named(MISSED):
            return "bad", f"gate missed {words.plural(len(missed), 'planted kernel')}"
        if self.named(REFUSED):
            return "bad", "gate rejects the honest kernel"
        if self.named(NO_ROOM):
            return "bad", "gate leaves the honest kernel no room"
        if others:
            return "bad", f"gate: {words.plural(others, 'planted kernel')} not rejected as meant"
        if self.state not in ("proven", "stale"):
            return "open", "gate: not proven here"
        counted = f"gate: {len(self.named(REJECTED))} of {words.plural(self.wrong_kernels, 'planted kernel')} rejected"
        return ("warn", f"{counted}, stale") if self.state == "stale" else ("good", counted)


def _changed(entry: dict[str, Any]) -> str:
    """What makes an entry stale, as the beginning of a sentence; empty when it is current."""
    if not entry.get("stale"):
        return ""
    return f"Out of date (changed since: {words.listed(entry.get('changed') or ['unknown'], 8)}): "


def _count(number: int, whole: int) -> str:
    """`All 37`, or `35 of 37`."""
    return f"all {whole}" if number == whole else f"{number} of {whole}"


def _honest(lines: list[dict[str, Any]]) -> str:
    """What became of the honest kernel, as the end of a sentence."""
    line = next((one for one in lines if one["honest"]), None)
    if line is None:
        return "no honest kernel was tried, so a gate that rejects everything would pass"
    if line["outcome"] == ACCEPTED:
        return f"the honest one passes at {words.allowance(line['ratio'])} of the allowance"
    if line["outcome"] == NO_ROOM:
        return f"the honest one passes WITHOUT ROOM, at {words.allowance(line['ratio'])} of the allowance"
    return "the honest one is WRONGLY REJECTED" if line["outcome"] == REFUSED else "the honest one was not tried"


def _sentence(device: str, lines: list[dict[str, Any]]) -> str:
    """How the gate did: what it missed first."""
    def names(*outcomes: Outcome) -> list[str]:
        return [line["name"] for line in lines if line["outcome"] in outcomes and not line["honest"]]

    wrong = sum(not line["honest"] for line in lines)
    missed, astray, untried, rejected = names(MISSED), names(ASTRAY), names(NOT_TRIED), names(REJECTED)
    honest = _honest(lines)
    if not wrong:
        return f"on {device} no planted wrong kernel was tried; {honest}."
    if len(rejected) == wrong:
        return f"on {device} all {words.plural(wrong, 'planted wrong kernel')} are rejected, each by the check meant for it, and {honest}."
    parts = []
    if missed:
        parts.append(f"on {device} the gate MISSES {len(missed)} of {words.plural(wrong, 'planted wrong kernel')}: {words.listed(missed, 8)}")
    if astray:
        parts.append(f"{'' if parts else f'on {device} '}{words.listed(astray, 8)} {'is' if len(astray) == 1 else 'are'} rejected, but not as meant")
    if untried:
        parts.append(f"{'' if parts else f'on {device} '}{words.listed(untried, 8)} could not be tried")
    return "; ".join(parts) + f". The gate rejects {_count(len(rejected), wrong)} by the check meant for it, and {honest}."


def _run(document: dict[str, Any], device: str) -> str:
    """The command, and where to run it when the device is not in this machine."""
    return COMMAND if device in ("cpu", document["this_device"]) else f"{COMMAND} on a machine with this GPU"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def proof(document: dict[str, Any], device: str) -> Proof:
    """The self-test of the gate on a device, also where there is none."""
    known = next((one for one in document["devices"] if one.get("slug") == device), {"slug": device})
    name = words.device_words(known) or "this device"
    entry = next((one for one in document["selftests"] if one.get("device") == device), None)
    if entry is None:
        count = words.finite(document["planted"])
        which = f"none of the {count:.0f} planted kernels" if count and device != "cpu" else "no planted kernel"
        return Proof(device, name, [], "absent", f"On {name} {which} was put through the gate. Run {_run(document, device)} to have it done.")
    lines = sorted((_line(result) for result in entry.get("results") or []), key=lambda line: (ORDER.index(line["outcome"]), line["name"]))
    about = dict(origin=str(entry.get("origin") or ""), ended=words.moment(entry.get("ended")) if entry.get("ended") else "")
    if not lines:
        reason = words.clip(entry.get("reason"), 400) or "the evidence names no planted kernel"
        text = f"{_changed(entry)}on {name} the planted kernels could not be tried: {reason}. Run {_run(document, device)} to try again."
        return Proof(device, name, [], "unfinished", _capital(text), **about)
    # Without a flawed kernel or without the control nothing is proven, however well it went.
    right = all(line["outcome"].right for line in lines) and len({line["honest"] for line in lines}) == 2
    state = "wrong" if not right or entry.get("status") != "ok" else "stale" if entry.get("stale") else "proven"
    text = _changed(entry) + _sentence(name, lines)
    if right and state == "wrong":
        text += f" Yet the self-test ended with {words.mark(entry.get('status')).text}: {words.clip(entry.get('reason'), 400)}"
    return Proof(device, name, lines, state, _capital(text), **about)


def proofs(document: dict[str, Any]) -> list[Proof]:
    """The self-tests by device: the leading one first, then every other that has evidence."""
    leading = document["leading_device"]
    others = sorted({str(one["device"]) for one in document["selftests"] if one.get("device")} - {leading})
    return [proof(document, device) for device in [leading, *others][:MOST_DEVICES]]


def legend(found: list[Proof]) -> list[dict[str, str]]:
    """The checks that the tables name, in the gate's order."""
    used = {check["name"] for one in found for line in one.lines for check in line["expected"] + line["also"]}
    return [dict(name=check.value, meaning=MEANING[check]) for check in Check if check in used]


# A binary against itself

@dataclass(frozen=True)
class Against:
    """One variant measured against itself on one device."""

    variant: str
    device: str
    device_words: str
    answer: str
    counts: list[dict[str, Any]]
    spread: list[dict[str, str]]
    tries: list[dict[str, Any]]
    mark: words.Mark
    about: str

    @property
    def key(self) -> str:
        """What tells it apart from the others on the page."""
        return f"{self.variant}-{self.device}"

    def groups(self) -> list[tuple[str, str, list[dict[str, Any]]]]:
        """Tries that have a ratio, by mode and kind."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for one in self.tries:
            if one["ratio"] is not None:
                found.setdefault((one["mode"], one["kind"]), []).append(one)
        return [(mode, kind, tries) for (mode, kind), tries in found.items()]


def kind_words(kind: str) -> str:
    """A kind of tries in a few words."""
    return KINDS[kind][0] if kind in KINDS else kind


def _count_line(one: dict[str, Any]) -> dict[str, Any]:
    """Verdicts of one kind and mode, with a mark for whether there are too many false ones."""
    numbers = {name: int(words.finite(one.get(name)) or 0) for name in ("tries", *VERDICTS)}
    wrong = sum(numbers[name] for name in FALSE)
    too_many = wrong > (1 - stats.CONFIDENCE) * numbers["tries"]
    mark = words.Mark("✗", "too many", "bad") if too_many else words.Mark("✓", "few enough" if wrong else "none", "good")
    if not numbers["tries"]:
        mark = words.MARKS["not_run"]
    return dict(kind=str(one.get("kind") or ""), mode=str(one.get("mode") or ""), wrong=wrong, mark=mark, **numbers)


def _spread_line(one: dict[str, Any]) -> dict[str, str]:
    """How far process medians lie apart, around their median."""
    median, low, high = (words.finite(one.get(key)) for key in ("median_us", "min_us", "max_us"))
    known = bool(median) and low is not None and high is not None

    def share(value: float | None) -> str:
        return f"{100 * (value / median - 1):+.2f}{words.PERCENT}".replace("-", "−") if known else words.NOTHING

    count = words.finite(one.get("count"))
    return dict(mode=str(one.get("mode") or ""), median=words.number(median, (high - low) / 2 if known and high > low else None), low=share(low),
                high=share(high), count=f"{count:,.0f}" if count is not None else words.NOTHING)


def _try_line(one: dict[str, Any]) -> dict[str, Any]:
    """One try with its texts."""
    ratio, low, high = (words.finite(one.get(key)) for key in ("ratio", "low", "high"))
    verdict = str(one.get("verdict") or "undecided")
    runs = [run for run in map(words.finite, one.get("runs") or []) if run is not None]  # counted from 0 in evidence
    return dict(kind=str(one.get("kind") or ""), mode=str(one.get("mode") or ""), runs=" and ".join(f"{run + 1:.0f}" for run in runs),
                copies=" and ".join(str(copy) for copy in one.get("copies") or []), ratio=ratio, low=low, high=high, verdict=verdict,
                shown=words.number(ratio, words.half_width(low, high)), interval=words.interval(ratio, low, high), mark=verdict_mark(verdict))


def verdict_mark(verdict: str) -> words.Mark:
    """A verdict about a binary against itself: only faster and slower are wrong."""
    glyph, tone = {"same": ("=", "good"), "undecided": ("◇", "mute"), "faster": ("◀", "bad"), "slower": ("▶", "bad")}.get(verdict, ("·", "mute"))
    return words.Mark(glyph, verdict, tone)


def _told(entry: dict[str, Any], counts: list[dict[str, Any]], device: str) -> str:
    """Whether copies of one binary are told apart, and how often."""
    name, status = str(entry.get("variant") or ""), str(entry.get("status") or "not_run")
    tries, wrong = sum(one["tries"] for one in counts), sum(one["wrong"] for one in counts)
    reason = words.clip(entry.get("reason"), 400)
    if not tries:
        return f"not known for {name} on {device}: {words.mark(status).text}{f', {reason}' if reason else ''}."
    judged = words.listed(f"{number} {verdict}" for verdict in VERDICTS if (number := sum(one[verdict] for one in counts)))
    compared = f"{words.plural(tries, 'comparison')} of {name} with itself on {device}"
    allowed = f"a {100 * stats.CONFIDENCE:g}{words.PERCENT} interval allows 1 in {1 / (1 - stats.CONFIDENCE):.0f}"
    worst = max(counts, key=lambda one: (one["wrong"] / one["tries"] if one["tries"] else 0.0, one["wrong"]))
    if not wrong:
        return f"no: of {compared} none ends in a false verdict ({judged})."
    where = f"{worst['wrong']} of {worst['tries']} {kind_words(worst['kind'])}, {worst['mode']}"
    if any(one["mark"].tone == "bad" for one in counts):
        return f"YES, TOO OFTEN: {wrong} of {compared} {'ends' if wrong == 1 else 'end'} in a false verdict; {where}, where {allowed}."
    return f"seldom: {wrong} of {compared} {'ends' if wrong == 1 else 'end'} in a false verdict ({judged}); {allowed}."


def _against(document: dict[str, Any], entry: dict[str, Any]) -> Against:
    device = str(entry.get("device") or "")
    known = next((one for one in document["devices"] if one.get("slug") == device), {"slug": device})
    counts = [_count_line(one) for one in entry.get("counts") or []]
    runs, copies = words.finite(entry.get("runs")), words.finite(entry.get("copies"))
    measured = " of ".join(filter(None, (words.plural(int(runs), "run") if runs else "", f"{copies:.0f} copies" if copies else "")))
    about = "; ".join(filter(None, (str(entry.get("problem") or ""), measured, str(entry.get("origin") or ""))))
    name = words.device_words(known) or "this device"
    return Against(
        variant=str(entry.get("variant") or ""), device=device, device_words=name, answer=_capital(_changed(entry) + _told(entry, counts, name)),
        counts=counts, spread=[_spread_line(one) for one in entry.get("spread") or []], tries=[_try_line(one) for one in entry.get("tries") or []],
        mark=words.mark(entry.get("status"), entry.get("stale")), about=about)


def against_itself(document: dict[str, Any]) -> list[Against]:
    """Every variant that was measured against itself, those of the leading device first."""
    leading = document["leading_device"]
    entries = sorted(document["repeatability"], key=lambda one: (one.get("device") != leading, str(one.get("device")), str(one.get("variant"))))
    return [_against(document, entry) for entry in entries]


def itself_answer(document: dict[str, Any], found: list[Against]) -> str:
    """Whether a binary is told apart from itself on the leading device."""
    leading = document["leading_device"]
    here = [one for one in found if one.device == leading]
    if here:
        return " ".join(one.answer for one in sorted(here, key=lambda one: one.mark.tone != "bad"))
    known = next((one for one in document["devices"] if one.get("slug") == leading), {"slug": leading})
    return (f"Not measured on {words.device_words(known) or 'this device'}: no variant was timed against itself there. Name one in config.yaml, "
            f"repeatability.variants, and run {_run(document, leading)}.")


def group_answer(tries: list[dict[str, Any]], drawn: int) -> str:
    """What one picture of tries shows, and how many of them it draws."""
    judged = words.listed(f"{number} {verdict}" for verdict in VERDICTS if (number := sum(one["verdict"] == verdict for one in tries)))
    first, last = min(one["ratio"] for one in tries), max(one["ratio"] for one in tries)
    half = min((half for one in tries if (half := words.half_width(one["low"], one["high"]))), default=None)
    text = f"Of {words.plural(len(tries), 'comparison')}: {judged}; ratios from {words.number(first, half)} to {words.number(last, half)}."
    return text + (f" Drawn: the {drawn} furthest from 1." if drawn < len(tries) else "")
