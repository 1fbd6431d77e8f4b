"""One line of progress at a time on the terminal: variant, step, k of n, time left."""

from __future__ import annotations

import sys
import time


class Progress:
    """Prints at most one line a second, and always the last one."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._started = self._last = time.monotonic()

    def step(self, done: int, detail: str = "") -> None:
        """Say that `done` of the total are done."""
        now = time.monotonic()
        if now - self._last < 1 and done < self._total:
            return
        self._last = now
        elapsed = now - self._started
        left = f", about {elapsed / done * (self._total - done):.0f} s left" if 0 < done < self._total else ""
        print(f"{self._what}: {done} of {self._total}{left}{f' ({detail})' if detail else ''}", file=sys.stderr, flush=True)
