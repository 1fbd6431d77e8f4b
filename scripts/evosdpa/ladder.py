"""The ladder: the variants of the configured device, each beside its parent, as the recorded evidence has them today."""

from __future__ import annotations

from typing import Any

from evosdpa import config as configuration, gap, machine, parents, table_cells as cells, variants, waiting
from evosdpa.evidence import EvidenceError, Profile, Status, Verify
from evosdpa.evolve import document as evolution
from evosdpa.waiting import Waiting

RATIO_DIGITS = 3
"""Decimals of a ratio, at most: near 1 the verdict hangs on half a percent."""
COLD = "cold"
"""Shown beside the goal's modes, where it is timed."""


class Ladder:
    """Recorded evidence about the variants of config.show_device, judged by gap's rules; what lies under results/ besides is not read."""

    def __init__(self, config: configuration.Config) -> None:
        """Raises EvidenceError when any file cannot be used, VariantError for a variant in the configuration without a source."""
        self.config, self.device = config, config.show_device
        self.names = in_order(_named(config))
        self.gap = gap.Gap(config, self.names, self.device, machine.DEFAULT_ARCH, origins=("recorded",))
        if self.gap.errors:
            raise EvidenceError("\n".join(sorted(set(self.gap.errors))))
        every = [row for row in self.gap.rows() if row["device"] == self.device]
        self.rivals = [row for row in every if row["kind"] == "rival"]
        self._rows = {(row["name"], row["problem"], row["mode"]): row for row in every if row["kind"] == "variant"}

    # One variant

    def chain(self, name: str) -> gap.Chain:
        """The evidence about a variant, perhaps none."""
        return self.gap.chains.get((self.device, name)) or gap.Chain(name, self.device)

    def label(self, name: str) -> str:
        """A variant's name as its row begins."""
        return f"**{name}**" + (" (stale)" if self.chain(name).changed else "")

    def row(self, name: str, mode: str, problem: str | None = None) -> dict[str, Any] | None:
        """Gap's row for a variant in a mode, by default on the goal's problem."""
        return self._rows.get((name, problem or self.config.goal.problem, mode))

    def standing(self, name: str) -> tuple[str, str]:
        """How a variant stands, in a word, and why: `ok`, `wrong` where its answers are, `not recorded yet`, or the status of the step that says no."""
        status, reason = self.gap.status(name, self.device)
        chain = self.chain(name)
        if status is Status.NOT_RUN and chain.get("verify") is None:
            return "not recorded yet", ""
        wrong = any(record is not None and record.status is Status.FAILED for record in (chain.get("verify"), chain.get("bench")))
        return ("wrong" if wrong else status.value), reason

    def is_timed(self, name: str) -> bool:
        """Whether a variant's times may be shown: a time without a right answer is none."""
        return self.standing(name)[0] in cells.TIMED

    def time(self, name: str, mode: str, problem: str | None = None) -> str:
        """A variant's time, or in a word why there is none; empty where it was not asked for."""
        if not self.is_timed(name):
            return self.standing(name)[0]
        row = self.row(name, mode, problem)
        return cells.time(row["status"], row["time_us"], row["ci_low_us"], row["ci_high_us"]) if row else ""

    def correct(self, name: str) -> str:
        """Right cases out of those that the variant supports."""
        verify: Verify | None = self.chain(name).get("verify")
        if verify is None or not verify.counts:
            return ""
        return f"{verify.counts.get('ok', 0)}/{sum(verify.counts.values()) - verify.counts.get('unsupported', 0)}"

    def versus_rival(self, name: str, mode: str) -> str:
        """Gap's ratio to the best rival, with its verdict where that is no clear one; `no anchor` where there is a rival, but no way to it."""
        row = self.row(name, mode)
        if not row or not row["best_rival"] or not self.is_timed(name):
            return ""
        if row["vs_best_rival"] is None:
            return "no anchor"
        ratio = cells.rounded(row["vs_best_rival"], cells.half_width(row["vs_best_rival_low"], row["vs_best_rival_high"]), RATIO_DIGITS)
        return ratio + (f" ({row['verdict']})" if row["verdict"] in ("same", "undecided") else "")

    def versus_floor(self, name: str, mode: str) -> str:
        """Gap's ratio to the slowest floor."""
        row = self.row(name, mode)
        return cells.rounded(row["vs_floor"], None) if row and row["vs_floor"] is not None and self.is_timed(name) else ""

    def gain(self, name: str, mode: str) -> str:
        """The parent and its time over this variant's; without a number unless both are ok and of one protocol."""
        parent = parents.parent_of(name)
        if parent is None:
            return ""
        ratio = parents.gain(self.gap, self.row(parent, mode), self.row(name, mode))
        if ratio is None:
            return parent
        return f"{parent}: {cells.rounded(ratio.value, cells.half_width(*(ratio.interval() or (None, None))), RATIO_DIGITS)}"

    def waiting(self, name: str) -> Waiting | str:
        """What the profile says that the variant waits for, or in a word why it says nothing."""
        profile: Profile | None = self.chain(name).get("profile")
        if not self.is_timed(name):
            return ""
        if profile is None:
            return "not profiled"
        return waiting.waits(profile, self.config.goal.problem) or (profile.status.value if profile.status is not Status.OK else "not profiled")

    # The table

    def table(self) -> str:
        """The ladder on the goal's problem as Markdown, with what its reader must know below it."""
        goal = self.config.goal
        modes = [*goal.modes, *(mode for mode in self.config.bench.gpu_modes if mode == COLD and mode not in goal.modes)]
        first = goal.modes[0]
        ratios = [*(f"vs best rival, {mode}" for mode in goal.modes), f"vs floor, {first}", f"gain over its parent, {first}"]
        lines = cells.head(["variant", "idea", "predicted", "correct"], [*modes, *ratios], ["waits for, says the profile"])
        reasons: dict[str, None] = {}
        for name in self.names:
            about, waits = variants.header(variants.resolve(name).source), self.waiting(name)
            if isinstance(waits, Waiting):
                reasons |= dict.fromkeys(reason for reason, _ in waits.reasons)
                waits = f"{waits}{' (stale)' if self.chain(name).pieces['profile'].stale else ''}"
            stem, _, levers = name.partition("@")
            above = levers and stem in self.names  # its header is the one of the row above
            lines.append(cells.row([
                self.label(name), f"as {stem}, with {levers.replace(',', ', ')}" if above else cells.text(about.idea),
                f"as {stem}" if above else cells.text(about.expects), self.correct(name), *(self.time(name, mode) for mode in modes),
                *(self.versus_rival(name, mode) for mode in goal.modes), self.versus_floor(name, first), self.gain(name, first), waits]))
        notes = [self._provenance(), self._best_rivals()]
        notes += [f"Stale: {text}. A stale variant has no rank and no ratio to a rival until it is measured again." for text in [self._stale()] if text]
        notes += [f"`{name}`: {cells.text(said).rstrip('.')}." for name in self.names for said in self._complaints(name, modes)]
        notes += [f"Warps wait for: {waiting.meaning(reasons)}."] if reasons else []
        return "\n".join([*lines, *(line for note in notes if note for line in ("", note))]) + "\n"

    def _provenance(self) -> str:
        """Device and dates of the times."""
        benches = [bench for name in self.names if (bench := self.chain(name).get("bench"))]
        info = next((bench.device_info for bench in benches if bench.device_info), {})
        days = " and ".join(sorted({bench.ended[:10] for bench in benches}))
        cards = len({digest for bench in benches if (digest := bench.device_info.get("uuid_digest"))})
        where = (f"Recorded on {cards if cards > 1 else 'one'} {info.get('name') or self.device}, {days}; " if benches
                 else f"Nothing is recorded on {self.device} yet; ")
        return f"{where}`{self.config.goal.problem}`, microseconds for the whole problem; the goal is under {self.config.goal.time_us:g}."

    def _best_rivals(self) -> str:
        """Which rival the ratios are to, mode by mode, or why there is no ratio."""
        best = {row["mode"]: row["best_rival"] for row in self.rivals if row["best_rival"] and row["problem"] == self.config.goal.problem}
        if best:
            return "Best rival: " + ", ".join(f"{best[mode]} in {mode}" for mode in self.config.goal.modes if mode in best) + "."
        stale = next((row["changed"] for row in self.rivals if row["stale"]), "")
        why = f"the evidence about them is stale (changed since: {stale})" if stale else "none has a time that is ok" if self.rivals else "none is recorded"
        return f"No ratio to a rival: {why}."

    def _stale(self) -> str:
        """Stale variants, those with the same changes together."""
        groups: dict[str, list[str]] = {}
        for name in self.names:
            if changed := self.chain(name).changed:
                groups.setdefault(", ".join(changed), []).append(name)
        return "; ".join(f"{', '.join(names)} (changed since: {changed})" for changed, names in groups.items())

    def _complaints(self, name: str, modes: list[str]) -> list[str]:
        """Why a variant or one of its times is not ok."""
        word, reason = self.standing(name)
        if not self.is_timed(name):
            return [f"{word}, {reason}"] if reason else []
        found: dict[tuple[str, str], list[str]] = {}
        for mode in modes:
            row = self.row(name, mode)
            if row and row["status"] != Status.OK:
                found.setdefault((row["status"], row["reason"]), []).append(mode)
        return [f"{', '.join(where)} {status}, {reason}" for (status, reason), where in found.items()]


def in_order(names: list[str]) -> list[str]:
    """Names in the given order, but nothing before its parent, and other lever values of a source right after it."""
    found: dict[str, None] = {}
    begun: set[str] = set()

    def place(name: str) -> None:
        if name in begun:  # done, or a circle of parents
            return
        begun.add(name)
        if (parent := parents.parent_of(name)) in names:
            place(parent)
        found[name] = None
        for other in names:
            if other.startswith(f"{name}@"):
                place(other)

    for name in names:
        place(name)
    return list(found)


def _named(config: configuration.Config) -> list[str]:
    """The configuration's variants of the device's kind, then what else is recorded about one of today's sources; the children of an
    evolution have a table of their own."""
    names = list(config.variants)
    children = evolution.children(evolution.found(("recorded",))[0])
    for path in sorted((gap.ORIGINS["recorded"] / config.show_device).glob("*/")):
        try:
            variants.resolve(path.name)
        except variants.VariantError:
            continue  # the rivals, the self-test, or a variant that is gone
        if path.name not in children:
            names.append(path.name)
    return [name for name in dict.fromkeys(names) if variants.resolve(name).on_cpu == (config.show_device == "cpu")]


def table() -> str:
    """README's ladder. Raises EvidenceError for evidence that cannot be read."""
    return Ladder(configuration.load("config.yaml")).table()
