"""A variant as a PyTorch operator, as the page shows it: is it right where it is used, and what does a Python caller pay for a call?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evosdpa.harness.operator_names import LIBRARY, OPERATOR, PYTORCH
from evosdpa.page import facts, words
from evosdpa.page.ratios import Ratio

COMMAND = "snakemake --cores 1 operator"

MOST_OPERATORS = 6
"""Operators on the page; gap.json has all."""
MOST_LINES = 60
"""Checks in a table."""

CALLED = {OPERATOR: "the operator", PYTORCH: "PyTorch’s default", LIBRARY: "the library’s launch alone, all prepared, nothing checked or allocated"}
"""What is called, in words."""


@dataclass(frozen=True)
class Check:
    """One check with its texts."""

    name: str
    mark: words.Mark
    ratio: str
    error: str
    why: str


@dataclass(frozen=True)
class Cost:
    """What one call of something costs."""

    name: str
    what: str
    time: str
    interval: str
    between: str
    over: Ratio
    """The operator's cost over this one's; without a value for the operator itself."""


@dataclass(frozen=True)
class Operator:
    """One variant's operator on one device."""

    id: str
    variant: str
    device_words: str
    answer: str
    mark: words.Mark
    stale: bool
    about: str
    checks: list[Check]
    costs: list[Cost]

    @property
    def on_gpu(self) -> bool:
        """Whether calls were also timed between events."""
        return any(one.between != words.NOTHING for one in self.costs)


def _check(entry: dict[str, Any]) -> Check:
    return Check(name=str(entry.get("name") or ""), mark=words.mark(entry.get("status")), ratio=words.allowance(entry.get("ratio")),
                 error=words.number(entry.get("error")), why=words.clip(entry.get("reason"), 300))


def _cost(entry: dict[str, Any], over: dict[str, Any]) -> Cost:
    name = str(entry.get("name") or "")
    return Cost(name=name, what=CALLED.get(name, ""), time=words.time_us(entry), interval=words.time_interval(entry),
                between=words.number(entry.get("event_us")), over=Ratio.of("eager", over.get(name)))


def _told(entry: dict[str, Any], checks: list[Check], costs: list[Cost], device: str) -> str:
    """Whether the operator is right and what a call costs, in one sentence."""
    variant, status = str(entry.get("variant") or "it"), str(entry.get("status") or "not_run")
    right, refused = (sum(one.mark == words.MARKS[state] for one in checks) for state in ("ok", "unsupported"))
    if status != "ok":
        reason = words.clip(entry.get("reason"), 400)
        begins = "wrong" if status == "failed" else words.mark(status).text
        return f"{begins}: {variant} on {device}{f': {reason}' if reason else ''}."
    text = f"right: {variant} on {device} passes {right} of {words.plural(len(checks) - refused, 'check')}{f' and refuses {refused}' if refused else ''}"
    by_name = {one.name: one for one in costs}
    if OPERATOR not in by_name:
        return f"{text}; what a call costs is not known."
    beside = [f"{by_name[name].over.text} {what}" for name, what in ((PYTORCH, f"the cost of {PYTORCH}"), (LIBRARY, "that of the launch alone"))
              if name in by_name and by_name[name].over.value]
    return f"{text}, and a call costs a Python caller {by_name[OPERATOR].time} µs{f', {words.listed(beside)}' if beside else ''}."


def _operator(document: dict[str, Any], entry: dict[str, Any]) -> Operator:
    device, variant = str(entry.get("device") or ""), str(entry.get("variant") or "")
    name = facts.device_named(document, device)
    checks = [_check(one) for one in (entry.get("checks") or [])[:MOST_LINES]]
    costs = [_cost(one, entry.get("over") or {}) for one in entry.get("costs") or []]
    processes = words.finite(entry.get("processes"))
    about = "; ".join(filter(None, (f"cost of {entry['problem']}" if costs and entry.get("problem") else "", f"{processes:.0f} processes" if processes else "",
                                    f"torch {entry['torch']}" if entry.get("torch") else "", str(entry.get("origin") or ""), words.date(entry.get("ended")))))
    return Operator(id=facts.slug("operator", variant, "on", device), variant=variant, device_words=name, answer=facts.dated(entry, _told(entry, checks, costs, name)),
                    mark=words.mark(entry.get("status"), entry.get("stale")), stale=bool(entry.get("stale")), about=about, checks=checks, costs=costs)


def of(document: dict[str, Any]) -> list[Operator]:
    """Every operator, those of the leading device first."""
    return [_operator(document, one) for one in facts.leading_first(document, document["operators"])[:MOST_OPERATORS]]


def nothing(document: dict[str, Any]) -> str:
    """What the page says where the leading device has no operator; empty where it has one."""
    leading = document["leading_device"]
    if any(one.get("device") == leading for one in document["operators"]):
        return ""
    return (f"Not known on {facts.device_named(document, leading)}: no variant was tried there as a PyTorch operator. Name one in config.yaml, "
            f"operator.variants, and run {COMMAND}.")
