"""Ratios between two runs. A run is a bench's processes one after the other: what they share shows in no spread among them."""

from __future__ import annotations

import math

from evosdpa import stats
from evosdpa.stats import Estimate

RUN_EFFECT = 0.0065
"""Standard deviation, from run to run, of the logarithm of a binary's ratio to the anchor: v2_wmma in mode stream in five runs on an H200,
2026-11-24 (recorded in commit 85bd55a), where intervals without it told the binary apart from itself in 2 of 20 tries. PyTorch's default there has two
speeds, 1.5 % apart, and keeps to one of them for several processes."""

RUN_FREEDOM = 4
"""Degrees of freedom of RUN_EFFECT: it comes from five runs."""


def quotient(above: Estimate, below: Estimate) -> Estimate:
    """Ratio of two estimates from two runs, each with the effect of its run."""
    return stats.quotient(_of_a_run(above), _of_a_run(below))


def _of_a_run(estimate: Estimate) -> Estimate:
    """An estimate with the effect of its run added to its error; Welch-Satterthwaite degrees of freedom."""
    variances = estimate.log_error**2, RUN_EFFECT**2
    weight = sum(variance**2 / freedom for variance, freedom in zip(variances, (estimate.freedom, RUN_FREEDOM)) if freedom > 0)
    return Estimate(estimate.log_mean, math.sqrt(sum(variances)), sum(variances) ** 2 / weight)
