"""Peak memory of `genapps compressed-sensing recover`, measured by the process itself: SOURCE and options."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from apps.compressed_sensing.__main__ import main as compressed_sensing

from .peak import peak_bytes


def main() -> int:
    """Recovers the measurements of a .npz and prints the peak [GiB]."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--input", sys.argv[1], "--out", str(Path(folder) / "out"), "--threads", "1", *sys.argv[2:]]
        status = compressed_sensing(["recover", *options])
    print(json.dumps({"gib": peak_bytes() / 2**30}))
    return status


if __name__ == "__main__":
    sys.exit(main())
