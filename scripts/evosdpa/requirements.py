"""What `check` demands of the gap."""

from __future__ import annotations

from typing import Any


def complaints(document: dict[str, Any]) -> list[str]:
    """One line for every required variant that is not ok and current on its device, and for every unreadable evidence file.

    A CUDA variant counts on the leading device: this machine's GPU, or the recorded one on a machine without.
    """
    lines = [f"evidence left out: {error}" for error in document["errors"]]
    for name in document["required"]:
        facts = [one for one in document["variants"] if one["name"] == name]
        if not facts:
            lines.append(f"{name}: required by config.yaml, but left out by `only`")
            continue
        fact = next((one for one in facts if one["device"] == document["leading_device"]), facts[0])
        where = f"{name} on {fact['device'] or 'any GPU'}"
        if fact["status"] != "ok":
            lines.append(f"{where}: {fact['status']}: {fact['reason']}")
        elif fact["stale"]:
            lines.append(f"{where}: the evidence is stale; changed since: {', '.join(fact['changed'])}")
    return lines
