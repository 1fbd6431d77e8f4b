"""The checks of the gate, by name: what each of them refuses. One home for the words that evidence, tests and page use."""

from enum import StrEnum


class Check(StrEnum):
    """One check of the gate. The value stands in evidence and in the heads of planted kernels."""

    LAUNCH = "launch"
    BOUNDS = "bounds"
    POISON = "poison"
    REPEATABLE = "repeatable"
    INPUTS = "inputs"
    STREAM = "stream"
    CAPTURE = "capture"
    FRESH = "fresh"
    FINITE = "finite"
    NAN = "nan"
    ACCURACY = "accuracy"
    CRASH = "crash"
    TIMEOUT = "timeout"
    TIMED_OUTPUT = "timed_output"
    MEMCHECK = "memcheck"
    RACECHECK = "racecheck"
    INITCHECK = "initcheck"
    SYNCCHECK = "synccheck"


MEANING = {
    Check.LAUNCH: "sdpa_launch returns 0 for a problem that sdpa_supports takes",
    Check.BOUNDS: "nothing is written outside o and workspace: guard zones and the gaps between strided rows",
    Check.POISON: "the answer does not depend on what o, workspace and shared memory held before",
    Check.REPEATABLE: "the same inputs give the same bits on every launch",
    Check.INPUTS: "q, k and v are what they were",
    Check.STREAM: "all work is on the given stream",
    Check.CAPTURE: "a launch can be captured in a CUDA graph, which forbids allocating and synchronising, and replays to the same answer",
    Check.FRESH: "inputs are read anew on every launch: -v behind the same pointers gives exactly the negated output",
    Check.FINITE: "everything is finite that should be",
    Check.NAN: "a NaN in the inputs reaches the rows that see it",
    Check.ACCURACY: "each row's relative L2 error is within the allowance",
    Check.CRASH: "the process ends by itself",
    Check.TIMEOUT: "the process ends in time",
    Check.TIMED_OUTPUT: "outputs of timed launches are right, also for inputs that were renewed behind the same pointers",
    Check.MEMCHECK: "compute-sanitizer memcheck finds nothing",
    Check.RACECHECK: "compute-sanitizer racecheck finds nothing",
    Check.INITCHECK: "compute-sanitizer initcheck finds nothing",
    Check.SYNCCHECK: "compute-sanitizer synccheck finds nothing",
}
"""What each check asks, as the page says it."""

SANITIZERS = (Check.MEMCHECK, Check.RACECHECK, Check.INITCHECK, Check.SYNCCHECK)
"""Checks that are compute-sanitizer's tools."""
