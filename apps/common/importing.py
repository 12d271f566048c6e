"""Modules in the working folder: where a user's own models and methods are looked for, too."""

from __future__ import annotations

import sys
from pathlib import Path


def working_folder_importable() -> None:
    """Lets a class path name a module in the working folder, as `python -m` does and a console script doesn't."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
