"""Numbers out of documents that may hold anything."""

from __future__ import annotations

import math
from typing import Any


def finite(value: Any) -> float | None:
    """A number that can be reckoned with and shown, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
