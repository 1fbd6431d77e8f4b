"""The worker's side of isolate.run: the task comes on stdin, reports leave as JSON lines on their own pipe.

Not stdout: a kernel's printf must not be able to write a result.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
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
