"""The checks of the gate, by name. One home for the words that evidence, the heads of planted kernels and the page use."""

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
    CHAINED = "chained"
    FINITE = "finite"
    NAN = "nan"
    ACCURACY = "accuracy"
    CRASH = "crash"
    TIMEOUT = "timeout"
    TIMED_OUTPUT = "timed_output"
    SPAN = "span"
    MEMCHECK = "memcheck"
    RACECHECK = "racecheck"
    INITCHECK = "initcheck"
    SYNCCHECK = "synccheck"


SANITIZERS = (Check.MEMCHECK, Check.RACECHECK, Check.INITCHECK, Check.SYNCCHECK)
"""Checks that are compute-sanitizer's tools."""
