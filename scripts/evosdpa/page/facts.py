"""What is known of each variant, its correctness and where every number comes from: gap.json as tables and sentences."""

from __future__ import annotations

from typing import Any

from evosdpa.evidence import clip
from evosdpa.page import words
from evosdpa.page.ladders import is_ranked, with_interval

LOG_BUDGET = 120_000
"""Characters of all logs together; many logs are each cut shorter, head and tail kept."""
MOST_LINES = 36
"""Entries of one table; beyond that the page names gap.json, which has all."""

AXES = {
    "problem": "kind of problem",
    "family": "input family",
    "setting": "head dimension, type and mask",
}

STEPS = ("verify", "sanitize", "bench", "profile")
"""Steps on a device in the order in which they run."""

HEADLINES = (
    # start of the metric's name, label, unit
    ("sm__pipe_tensor_cycles_active", "tensor pipe", "%"),
    ("sm__inst_executed_pipe_xu.", "exp/special pipe", "%"),
    ("sm__pipe_fma_cycles_active", "FMA pipe", "%"),
    ("smsp__issue_active", "issue slots used", "%"),
    ("sm__warps_active", "warps active", "%"),
    ("dram__throughput", "DRAM throughput", "%"),
    ("l1tex__data_bank_conflicts_pipe_lsu_mem_shared", "shared-memory bank conflicts", ""),
    ("smsp__sass_inst_executed_op_local_ld", "local loads (spills)", ""),
    ("launch__registers_per_thread", "registers per thread", ""),
)
STALL = ("smsp__average_warps_issue_stalled_", "_per_issue_active.ratio")


def slug(*parts: Any) -> str:
    """An id for an anchor: letters, digits and what names of variants have besides."""
    return "-".join("".join(char if char.isalnum() or char in "._=@" else "-" for char in str(part)) for part in parts if part)


def variant_key(fact: dict[str, Any]) -> str:
    """The anchor of a variant's card."""
    return slug("variant", fact.get("name"), fact.get("device"))


# Correctness

def _counts(cell: dict[str, Any]) -> dict[str, int]:
    return {status: int(cell[status]) for status in words.MARKS if words.finite(cell.get(status))}


def verdict(counts: dict[str, int]) -> tuple[words.Mark, str]:
    """The mark of some cases, and `ok n/N` where N leaves out what the variant does not support."""
    passed, refused = counts.get("ok", 0), counts.get("unsupported", 0)
    tried = sum(counts.values()) - refused
    if not tried:
        return words.mark("unsupported" if refused else "not_run"), str(refused or "")
    wrong = next((status for status in ("failed", "error", "timeout", "suspect", "unstable") if counts.get(status)), None)
    if wrong is None and passed < tried:
        wrong = next(status for status in counts if status not in ("ok", "unsupported") and counts[status])
    return words.mark(wrong or "ok"), f"{passed}/{tried}" + (f" +{refused}⊘" if refused else "")


def matrices(document: dict[str, Any]) -> list[dict[str, Any]]:
    """One table an axis: a line per variant and device, a column per label."""
    tables = []
    for axis, title in AXES.items():
        cells = [cell for cell in document["correctness"] if cell.get("axis") == axis]
        if not cells:
            continue
        labels = list(dict.fromkeys(str(cell.get("label")) for cell in cells))
        lines: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for cell in cells:
            lines.setdefault((str(cell.get("variant")), str(cell.get("device"))), {})[str(cell.get("label"))] = cell
        shown = []
        for (name, device), found in list(lines.items())[:MOST_LINES]:
            row = []
            for label in labels:
                cell = found.get(label)
                mark, text = verdict(_counts(cell)) if cell else (words.mark("not_run"), "")
                ratio = words.finite(cell.get("worst_ratio")) if cell else None
                row.append(dict(mark=mark, text=text, ratio=words.allowance(ratio) if ratio is not None else "",
                                reason=str(cell.get("reason") or "") if cell else ""))
            shown.append(dict(name=name, device=device, cells=row))
        tables.append(dict(axis=axis, title=title, labels=labels, lines=shown, left_out=len(lines) - len(shown)))
    return tables


def failures(document: dict[str, Any], status_wanted: str) -> list[dict[str, str]]:
    """First reasons of cells with failed (or only with unsupported) cases, each once."""
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for cell in document["correctness"]:
        counts = _counts(cell)
        bad = any(count for status, count in counts.items() if status not in ("ok", "unsupported"))
        if not cell.get("reason") or bad != (status_wanted == "failed"):
            continue
        name, device, reason = str(cell.get("variant")), str(cell.get("device")), str(cell["reason"])
        said = reason if bad else reason.rsplit(": ", 1)[-1]
        found.setdefault((name, device, said), dict(variant=name, device=device, reason=said))
    return list(found.values())


def correctness_answer(document: dict[str, Any]) -> str:
    """Who passes everything, and the first thing that is wrong otherwise."""
    checked = [fact for fact in document["variants"] if (fact.get("correctness") or {}).get("counts")]
    if not checked:
        return "No variant’s correctness has been checked."
    right, wrong, refused = [], [], []
    for fact in checked:
        counts = _counts(fact["correctness"]["counts"])
        bad = sum(count for status, count in counts.items() if status not in ("ok", "unsupported"))
        (wrong if bad else right if counts.get("ok") else refused).append((fact, counts, bad))
    if len(right) == 1 and not wrong:
        fact, counts, _ = right[0]
        text = f"{fact.get('name')} passes all {words.plural(counts['ok'], 'case')} that it supports."
    elif not wrong:
        text = f"All {len(right)} checked variants pass every case that they support." if right else "No case was passed."
    else:
        fact, counts, bad = wrong[0]
        tried = sum(counts.values()) - counts.get("unsupported", 0)
        text = f"{len(right)} of {words.plural(len(checked), 'checked variant')} pass every case that they support; {fact.get('name')} fails {bad} of {tried}"
        text += f", and cases fail too in {words.listed(one.get('name') for one, *_ in wrong[1:])}." if len(wrong) > 1 else "."
    if refused:
        text += f" No case is supported by {words.listed(one.get('name') for one, *_ in refused)}."
    worst = max((ratio for one, *_ in right if (ratio := words.finite(one["correctness"].get("worst_ratio"))) is not None), default=None)
    if worst is not None:
        text += f" The largest error of those that pass is {words.allowance(worst)} of what is allowed."
    return text


# Variants

def _goal_rows(document: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    goal = document["goal"].get("problem")
    return {(str(row.get("name")), str(row.get("device")), str(row.get("mode"))): row for row in document["rows"]
            if row.get("kind") == "variant" and row.get("problem") == goal}


def _time_cell(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None or words.finite(row.get("time_us")) is None:
        return dict(text=words.NOTHING, interval="", ranked=False, mark=None, mode="")
    mark = words.mark(row["status"], row.get("stale")) if row.get("status") not in (None, "ok") else None
    return dict(text=words.time_us(row), interval=words.time_interval(row), ranked=is_ranked(row), mark=mark,
                mode=str(row.get("mode") or ""))


def _troubles(rows: list[dict[str, Any] | None], said: str) -> list[dict[str, Any]]:
    """What keeps single modes from a rank, where the variant's own reason does not say it."""
    return [dict(mode=str(row.get("mode") or ""), mark=words.mark(row["status"]), reason=str(row.get("reason") or "")) for row in rows
            if row and row.get("status") not in (None, "ok") and row.get("reason") != said]


def _launch(fact: dict[str, Any]) -> dict[str, str]:
    launch = fact.get("launch") or {}
    static, dynamic = words.finite(launch.get("static_shared_bytes")), words.finite(launch.get("dynamic_shared_bytes"))
    waves, tail = words.finite(launch.get("waves")), words.finite(launch.get("tail"))
    return dict(
        registers=f"{launch['registers']:.0f}" if words.finite(launch.get("registers")) is not None else words.NOTHING,
        shared=f"{words.size(static)} + {words.size(dynamic)}" if static is not None or dynamic is not None else words.NOTHING,
        occupancy=words.percent(launch.get("occupancy")), limiter=str(launch.get("limiter") or ""),
        waves=words.number(waves, waves / 50 if waves else None), tail=f"{words.percent(tail)} of the last wave idle" if tail else "",
        spills=words.size(fact.get("spill_bytes")), kernel=str(launch.get("kernel") or ""), reason=str(launch.get("reason") or ""),
        grid=" × ".join(str(size) for size in launch.get("grid") or []), block=" × ".join(str(size) for size in launch.get("block") or []))


def _sanitizer(fact: dict[str, Any]) -> list[dict[str, Any]]:
    tools = [dict(tool=str(one.get("tool")), mark=words.mark(one.get("status")), reason=str(one.get("reason") or "")) for one in fact.get("sanitize") or []]
    step = (fact.get("steps") or {}).get("sanitize")
    if not tools and step:
        tools = [dict(tool="compute-sanitizer", mark=words.mark(step.get("status"), step.get("stale")), reason=str(step.get("reason") or ""))]
    return tools


def _profiles(fact: dict[str, Any]) -> list[dict[str, Any]]:
    """Headline metrics and the three largest stall reasons, per profiled problem."""
    found = []
    for one in fact.get("profile") or []:
        metrics = {name: value for name, value in sorted((one.get("metrics") or {}).items()) if words.finite(value) is not None}
        shown = [(label, words.number(value) + (words.PERCENT if unit else ""))
                 for start, label, unit in HEADLINES for name, value in metrics.items() if name.startswith(start)]
        start, end = STALL
        stalls = sorted(((value, name[len(start):-len(end)]) for name, value in metrics.items()
                         if name.startswith(start) and name.endswith(end) and "selected" not in name), key=lambda pair: (-pair[0], pair[1]))
        found.append(dict(problem=str(one.get("problem") or ""), kernel=str(one.get("kernel") or ""), metrics=shown, reason=str(one.get("reason") or ""),
                          stalls=[(name.replace("_", " "), words.number(value)) for value, name in stalls[:3]]))
    return found


def _steps(fact: dict[str, Any]) -> list[dict[str, Any]]:
    build = fact.get("build")
    steps = []
    if build:
        steps.append(dict(kind="compile", mark=words.mark(build.get("status")), reason=str(build.get("reason") or ""), log=str(build.get("log") or ""),
                          changed=""))
    if fact.get("static"):
        steps.append(dict(kind="inspect", mark=words.mark(fact["static"].get("status")), reason=str(fact["static"].get("reason") or ""), log="", changed=""))
    for kind, step in sorted((fact.get("steps") or {}).items(), key=lambda item: (STEPS.index(item[0]) if item[0] in STEPS else len(STEPS), item[0])):
        steps.append(dict(kind=kind, mark=words.mark(step.get("status"), step.get("stale")), reason=str(step.get("reason") or ""),
                          log=str(step.get("log") or "") if step.get("status") != "ok" else "", changed=", ".join(map(str, step.get("changed") or []))))
    return steps


def _levers(fact: dict[str, Any]) -> str:
    given, declared = fact.get("levers") or {}, fact.get("declared_levers") or {}
    parts = [f"{name} = {given[name]}" for name in sorted(given)]
    parts += [f"{name} ∈ {{{', '.join(map(str, values))}}}" for name, values in sorted(declared.items()) if name not in given]
    return "; ".join(parts)


def variants(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Views of the variants, those with a rank first and the fastest leading."""
    rows, modes = _goal_rows(document), [str(mode) for mode in document["goal"].get("modes") or ["warm"]]
    views = []
    for fact in document["variants"]:
        name, device = str(fact.get("name") or ""), str(fact.get("device") or "")
        times = [rows.get((name, device, mode)) for mode in modes]
        first = times[0]
        measured = next((f"{with_interval(row)} {row.get('mode')}" for row in times if row and words.finite(row.get("time_us"))), "not measured")
        checked = fact.get("correctness") or {}
        mark, count = verdict(_counts(checked.get("counts") or {}))
        # The gap's row may know better than the chain: suspect is only seen against the floors.
        status, reason = fact.get("status"), str(fact.get("reason") or "")
        if status == "ok" and first and first.get("status") not in (None, "ok"):
            status, reason = first["status"], str(first.get("reason") or "")
        profile_step = (fact.get("steps") or {}).get("profile") or {}
        build = fact.get("build") or {}
        views.append(dict(
            id=variant_key(fact), name=name, device=device, mark=words.mark(status, fact.get("stale")), reason=reason, stale=bool(fact.get("stale")),
            changed=", ".join(map(str, fact.get("changed") or [])), origins=fact.get("origins") or (["static"] if fact.get("build") else []),
            times=[_time_cell(row) for row in times], troubles=_troubles(times, reason), verdict=str((first or {}).get("verdict") or ""), versus=words.versus_rival(first or {}),
            versus_interval=words.interval(*((first or {}).get(key) for key in ("vs_best_rival", "vs_best_rival_low", "vs_best_rival_high"))),
            best_rival=str((first or {}).get("best_rival") or ""), launch=_launch(fact), correct=dict(mark=mark, text=count),
            worst=words.allowance(checked.get("worst_ratio")), seed=str(checked.get("seed") if checked.get("seed") is not None else words.NOTHING),
            sanitizer=_sanitizer(fact), profile_mark=words.mark(profile_step.get("status"), profile_step.get("stale")),
            profile_reason=str(profile_step.get("reason") or ""), profiles=_profiles(fact), steps=_steps(fact), title=str(fact.get("title") or ""),
            idea=str(fact.get("idea") or ""), parent=str(fact.get("parent") or ""), expects=str(fact.get("expects") or ""), measured=measured,
            levers=_levers(fact), source=str(fact.get("source") or ""), compiler=str(build.get("compiler") or ""), arch=str(build.get("arch") or ""),
            warnings=[str(one) for one in build.get("warnings") or []],
            order=(device != document["leading_device"], not (first and is_ranked(first)), (first or {}).get("time_us") or 0.0, name)))
    return sorted(views, key=lambda view: view["order"])


def logs(views: list[dict[str, Any]]) -> list[list[tuple[str, str]]]:
    """Of each view the steps that left a log, with that log, cut so that all together stay within the budget."""
    found = [[(step["kind"], step["log"]) for step in view["steps"] if step["log"]] for view in views]
    limit = min(4200, LOG_BUDGET // max(1, sum(map(len, found))))
    return [[(kind, clip(log, limit)) for kind, log in one] for one in found]


def variants_answer(document: dict[str, Any]) -> str:
    """How many variants stand how."""
    counts: dict[str, int] = {}
    for fact in document["variants"]:
        text = words.mark(fact.get("status"), fact.get("stale")).text
        counts[text] = counts.get(text, 0) + 1
    if not counts:
        return "There is no variant."
    return f"{words.plural(sum(counts.values()), 'variant')}: " + ", ".join(f"{count} {text}" for text, count in sorted(counts.items())) + "."


# Provenance

def provenance(document: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """Every evidence file, and how many were left out of the page."""
    lines = []
    for one in document["provenance"][: 2 * MOST_LINES]:
        git = one.get("git") or {}
        lines.append(dict(
            path=str(one.get("path") or ""), variant=str(one.get("variant") or ""), kind=str(one.get("kind") or ""), device=str(one.get("device") or ""),
            origin=str(one.get("origin") or ""), mark=words.mark(one.get("status"), one.get("stale")), changed=", ".join(map(str, one.get("changed") or [])),
            ended=words.moment(one.get("ended")), key=str(one.get("key") or "")[:16], commit=_commit(git),
            tools=", ".join(f"{name} {version}" if not str(version).startswith(name) else str(version)
                            for name, version in sorted((one.get("tools") or {}).items()) if name != "library")))
    return lines, max(0, len(document["provenance"]) - len(lines))


def _commit(git: dict[str, Any]) -> str:
    """The commit, with what is known of changes to it."""
    commit = str(git.get("commit") or "")[:12]
    if not commit:
        return ""
    if git.get("told_by"):
        return f"{commit}, as told by {git['told_by']}"
    return f"{commit}+" if git.get("dirty") else commit


def devices(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Each device with its origin badge and what is known of it."""
    views = []
    for entry in document["devices"]:
        slug_, origins = str(entry.get("slug") or ""), [str(one) for one in entry.get("origins") or []]
        name = words.device_words(entry)
        newest, oldest = words.date(entry.get("newest")), words.date(entry.get("oldest"))
        days = newest if newest == oldest or not oldest else f"{oldest} to {newest}"
        badges = []
        if "measured" in origins:
            badges.append(("measured", f"measured on this machine: {name}"))
        if "recorded" in origins:
            badges.append(("recorded", f"recorded: {name}" + (f", {days}" if days else "")))
        if not origins:
            badges.append(("static", f"nothing measured: {name}"))
        info = [(key.replace("_", " "), _plain(value)) for key, value in sorted((entry.get("info") or {}).items())]
        views.append(dict(slug=slug_, name=name, badges=badges, info=info, days=days, leading=slug_ == document["leading_device"], origins=origins))
    return views


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(one)}" for key, one in sorted(value.items()))
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)


def protocol(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Settings of the measurement and of the check, name by name."""
    return [(f"{section}.{name}", words.NOTHING if value is None else _plain(value))
            for section, settings in sorted(document["protocol"].items()) for name, value in sorted((settings or {}).items())]


# Steps that run only when they are asked for: their entries name a device and a variant, and whether they are stale.

def device_named(document: dict[str, Any], slug: str) -> str:
    """A device in words, by its slug."""
    known = next((one for one in document["devices"] if one.get("slug") == slug), {"slug": slug})
    return words.device_words(known) or "this device"


def leading_first(document: dict[str, Any], entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries by device, those of the leading one first, and by variant."""
    return sorted(entries, key=lambda one: (one.get("device") != document["leading_device"], str(one.get("device")), str(one.get("variant"))))


def dated(entry: dict[str, Any], told: str) -> str:
    """What an entry tells, as a sentence; a stale one says first what has changed since."""
    stale = f"Out of date (changed since: {words.listed(entry.get('changed') or ['unknown'], 8)}): " if entry.get("stale") else ""
    return f"{stale}{told}"[:1].upper() + f"{stale}{told}"[1:]
