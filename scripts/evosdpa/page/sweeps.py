"""One variant over many problems, as the page shows it: where it keeps its limits beside the variants that it chooses from and the rivals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evosdpa.page import facts, words
from evosdpa.page.ratios import Ratio

COMMAND = "snakemake --cores 1 sweep"


MOST_SWEEPS = 4
"""Sweeps on the page; gap.json has all."""
MOST_LINES = 120
"""Problems in a table and in its picture."""

KEPT = words.Mark("✓", "kept", "good")
OVER = words.Mark("✗", "over", "bad")
OPEN = words.Mark("·", "not judged", "mute")


@dataclass(frozen=True)
class Line:
    """One problem: the variant's time, what it is held against, and how each variant beside it fares."""

    problem: str
    time: str
    interval: str
    tflops: str
    right: bool
    beside: tuple[str, Ratio]
    rival: tuple[str, Ratio]
    mark: words.Mark
    why: str
    rungs: list[tuple[str, Ratio, Ratio, str]]
    """Each one's name, its ratios to the best rival and to sdpa-cudnn, and its status where it has no right time; the swept variant first."""


@dataclass(frozen=True)
class Sweep:
    """One variant's sweep on one device."""

    id: str
    variant: str
    device_words: str
    answer: str
    mark: words.Mark
    stale: bool
    rival_limit: float | None
    about: str
    lines: list[Line]

    @property
    def drawn(self) -> list[Line]:
        """What the picture shows, the slowest beside its rival first."""
        return sorted((line for line in self.lines if line.rival[1].value), key=lambda line: -(line.rival[1].value or 0.0))


def _against(found: Any) -> tuple[str, Ratio]:
    """What a time is held against: its name and the ratio."""
    return str(found.get("name") or "") if isinstance(found, dict) else "", Ratio.of("", found)  # all of a sweep's times are of one mode


def _rung(name: str, entry: dict[str, Any], rival: Any, cudnn: Any) -> tuple[str, Ratio, Ratio, str]:
    status = str(entry.get("status") or "not_run")
    return name, _against(rival)[1], _against(cudnn)[1], "" if status == "ok" else words.mark(status).text


def _line(variant: str, left_out: Any, entry: dict[str, Any]) -> Line:
    """One problem's entry with its texts. Why a variant was left out everywhere is said once, above."""
    status, right = entry.get("status"), entry.get("status") == "ok"
    met = (entry.get("met_beside"), entry.get("met_rival"))
    mark = words.mark(status) if not right else OVER if False in met else KEPT if met == (True, True) else OPEN
    tflops = words.finite(entry.get("tflops"))
    untimed = "; ".join(f"{name}: {reason}" for name, reason in sorted((entry.get("untimed") or {}).items()))
    lost = "; ".join(f"{rung.get('name')}: {rung.get('reason')}" for rung in entry.get("rungs") or [] if rung.get("reason") and rung.get("name") not in left_out)
    return Line(
        problem=str(entry.get("problem") or ""), time=words.time_us(entry), interval=words.time_interval(entry), tflops=words.number(tflops) if right else words.NOTHING,
        right=right, beside=_against(entry.get("beside")), rival=_against(entry.get("rival")), mark=mark,
        why="; ".join(filter(None, (str(entry.get("reason") or ""), lost, untimed))),
        rungs=[_rung(str(one.get("name") or ""), one, one.get("rival"), one.get("cudnn")) for one in [{**entry, "name": variant}, *(entry.get("rungs") or [])]])


def _counts(results: list[dict[str, Any]], kind: str) -> tuple[int, int]:
    """On how many problems a limit is kept, and of how many."""
    judged = [one[f"met_{kind}"] for one in results if one.get(f"met_{kind}") is not None]
    return sum(judged), len(judged)


def _worst(results: list[dict[str, Any]], limits: dict[str, float | None]) -> str:
    """The problem that is furthest over a limit, in words; empty where none is."""
    over = []
    for one in results:
        for kind, limit in limits.items():
            name, ratio = _against(one.get(kind))
            if one.get(f"met_{kind}") is False and limit and ratio.value:
                over.append((ratio.value / limit, f"{one.get('problem')}, {ratio.text} the time of {name}"))
    return f" Furthest over a limit: {max(over)[1]}." if over else ""


def _told(entry: dict[str, Any], results: list[dict[str, Any]], device: str) -> str:
    """Whether the limits are kept, and where not."""
    name, status = str(entry.get("variant") or "it"), str(entry.get("status") or "not_run")
    (near, near_of), (fast, fast_of) = _counts(results, "beside"), _counts(results, "rival")
    if not near_of and not fast_of:
        reason = words.clip(entry.get("reason"), 400)
        return f"not known for {name} on {device}: {words.mark(status).text if status != 'ok' else 'no time could be compared'}{f', {reason}' if reason else ''}."
    limits = {kind: words.finite(entry.get(f"{kind}_limit")) for kind in ("beside", "rival")}
    near_limit, fast_limit = (words.NOTHING if limit is None else f"{limit:g}{words.TIMES}" for limit in limits.values())
    everywhere, over = len(results), near < near_of or fast < fast_of
    begins = "not everywhere" if over else "yes" if near == fast == everywhere else "wherever it could be judged"
    lost = sum(one.get("status") != "ok" for one in results)
    return (f"{begins}: {name} on {device} takes at most {near_limit} the time of the best variant beside it on {near} of {words.plural(near_of, 'problem')}, "
            f"and at most {fast_limit} that of the best rival on {fast} of {fast_of}{'' if near_of == fast_of == everywhere else f', of {everywhere} in all'}."
            f"{_worst(results, limits)}"
            + (f" No right time on {words.plural(lost, 'problem')}." if lost else ""))


def _sweep(document: dict[str, Any], entry: dict[str, Any]) -> Sweep:
    device, variant = str(entry.get("device") or ""), str(entry.get("variant") or "")
    name, results = facts.device_named(document, device), entry.get("results") or []
    processes, rivals = words.finite(entry.get("processes")), [str(one) for one in entry.get("rivals") or []]
    left_out = "; ".join(f"left out: {one}, {words.clip(reason, 200)}" for one, reason in sorted((entry.get("left_out") or {}).items()))
    reason = words.clip(entry.get("reason"), 400) if results else ""  # without results the answer says it
    about = "; ".join(filter(None, (reason, f"{entry.get('mode') or 'one'} mode", f"at least {processes:.0f} processes each" if processes else "",
                                    f"rivals: {words.listed(rivals, 12)}" if rivals else "", str(entry.get("origin") or ""), words.date(entry.get("ended")), left_out)))
    return Sweep(id=facts.slug("sweep", variant, "on", device), variant=variant, device_words=name, answer=facts.dated(entry, _told(entry, results, name)),
                 mark=words.mark(entry.get("status"), entry.get("stale")), stale=bool(entry.get("stale")), rival_limit=words.finite(entry.get("rival_limit")),
                 about=about, lines=[_line(variant, entry.get("left_out") or {}, one) for one in results[:MOST_LINES]])


def of(document: dict[str, Any]) -> list[Sweep]:
    """Every sweep, those of the leading device first."""
    return [_sweep(document, one) for one in facts.leading_first(document, document["sweeps"])[:MOST_SWEEPS]]


def nothing(document: dict[str, Any]) -> str:
    """What the page says without a sweep."""
    return (f"Not measured on {facts.device_named(document, document['leading_device'])}: no variant was timed there over many problems. Name one in config.yaml, sweep.variant, "
            f"and run {COMMAND}.")


def values(sweep: Sweep) -> list[dict[str, Any]]:
    """What charts.ratios draws: the variant's time over the best rival's, problem by problem."""
    found = []
    for place, line in enumerate(sweep.drawn):
        name, ratio = line.rival
        over = sweep.rival_limit and ratio.value and ratio.value > sweep.rival_limit
        found.append(dict(place=place, kind="variant", ranked=not sweep.stale, time=ratio.value, low=ratio.low, high=ratio.high, label=line.problem,
                          value=f"{ratio.text}{f' {OVER.glyph}' if over else ''}", name=f"{sweep.variant} over {name}", interval=ratio.interval or "none",
                          status=words.MARKS["stale"].text if sweep.stale else line.mark.text, why=words.clip(line.why, 160)))
    return found
