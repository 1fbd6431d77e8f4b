"""Estimates, intervals and verdicts. The unit of replication is the process: pooling the samples of one process claims a
precision that is right one time in four (the samples of a process share its layout, clock and temperature)."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95
SAME_BAND = 0.005
"""Two times within +-0.5 % of each other count as the same (nvbench-compare's threshold)."""


@dataclass(frozen=True)
class Estimate:
    """A positive quantity with a 95 % interval, kept as mean and standard error of its logarithm."""

    log_mean: float
    log_error: float
    """Standard error of log_mean; NaN with a single process."""
    freedom: float
    """Degrees of freedom of the t interval."""

    @property
    def value(self) -> float:
        """Geometric mean."""
        return math.exp(self.log_mean)

    def interval(self, comparisons: int = 1) -> tuple[float, float] | None:
        """95 % t interval, or wider: such that of so many of them one in twenty would err (Bonferroni). None when one process cannot tell its own
        spread."""
        if not math.isfinite(self.log_error) or self.freedom <= 0:
            return None
        half = float(stdtrit(self.freedom, 1 - (1 - CONFIDENCE) / 2 / comparisons)) * self.log_error
        return math.exp(self.log_mean - half), math.exp(self.log_mean + half)


def of_logs(logs: list[float]) -> Estimate:
    """Estimate from the logarithms of independent processes' values."""
    count = len(logs)
    error = statistics.stdev(logs) / math.sqrt(count) if count > 1 else math.nan
    return Estimate(statistics.fmean(logs), error, count - 1)


def of_medians(medians: list[float]) -> Estimate:
    """Estimate from the process medians, any unit; a t interval on the logarithm."""
    return of_logs([math.log(median) for median in medians])


def ratio_within(numerators: list[float], denominators: list[float]) -> Estimate:
    """Ratio of two things timed in the same processes: formed within each process, so that drift cancels."""
    return of_logs([math.log(above / below) for above, below in zip(numerators, denominators)])


def quotient(above: Estimate, below: Estimate) -> Estimate:
    """Ratio of two independent estimates; Welch's degrees of freedom."""
    variances = above.log_error**2, below.log_error**2
    error = math.sqrt(sum(variances))
    weight = sum(variance**2 / estimate.freedom for variance, estimate in zip(variances, (above, below)) if estimate.freedom > 0)
    freedom = sum(variances) ** 2 / weight if weight else above.freedom + below.freedom
    return Estimate(above.log_mean - below.log_mean, error, freedom)


def verdict(ratio: Estimate, comparisons: int = 1) -> str:
    """`faster`, `slower`, `same` or `undecided`, from a ratio of times: its whole interval must say so; of several comparisons, at a level for all."""
    interval = ratio.interval(comparisons)
    if interval is None:
        return "undecided"
    low, high = interval
    if high < 1 - SAME_BAND:
        return "faster"
    if low > 1 + SAME_BAND:
        return "slower"
    if low >= 1 - SAME_BAND and high <= 1 + SAME_BAND:
        return "same"
    return "undecided"


def quantile(values: list[float], share: float) -> float:
    """Linear quantile of a non-empty list."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
