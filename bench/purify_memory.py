"""Peak memory of `genapps pixeldefend purify`, measured by the process itself: SOURCE DENSITY EPS."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

from apps.pixeldefend.purifying import purify_images

from .peak import peak_bytes


def main() -> None:
    """Purifies a .npz and prints the peak [GiB]."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        purify_images(Path(sys.argv[1]), sys.argv[2], Path(folder) / "out", eps=int(sys.argv[3]))
    print(json.dumps({"gib": peak_bytes() / 2**30}))


if __name__ == "__main__":
    main()
