"""The most memory that a process has held. Imports no app: what it imports would count as another's memory."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """Returns the largest memory that this process has held [bytes]."""
    try:
        # ru_maxrss won't do on Linux: a process inherits that of the one which started it
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
