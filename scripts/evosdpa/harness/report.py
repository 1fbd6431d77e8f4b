"""The worker's side of isolate.run: the task comes on stdin, reports leave as JSON lines on their own pipe.

Not stdout: a kernel's printf must not be able to write a result.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1


def read_task() -> dict[str, Any]:
    """The task as the parent sent it. From here on this process dies when its parent does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return json.load(sys.stdin)


def send(**fields: Any) -> None:
    """Report one JSON object to the parent at once."""
    data = json.dumps(fields, allow_nan=False).encode() + b"\n"
    fd = int(os.environ["EVOSDPA_REPORT_FD"])
    while data:
        data = data[os.write(fd, data):]


def first_line(error: BaseException) -> str:
    """The first line of an error's message, with its class when that says more than the message."""
    lines = str(error).strip().splitlines()
    plain = type(error).__module__.startswith("evosdpa") or type(error) in (RuntimeError, ValueError)
    if not lines:
        return type(error).__name__
    return lines[0][:300] if plain else f"{type(error).__name__}: {lines[0][:300]}"


def run(main: Callable[[], None]) -> None:
    """Call a worker's main. What breaks it is reported in one line (event `broken`) before the process ends with status 3; the
    traceback goes to the log. No orderly exit then: after a CUDA error every further CUDA call would fail too."""
    try:
        main()
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        send(event="broken", reason=first_line(error))
        os._exit(3)
