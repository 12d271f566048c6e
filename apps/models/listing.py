"""`genapps model list`: what can be trained."""

from __future__ import annotations

import json as json_format

from apps.common.presets import preset_names
from core_models import registry
from core_models.data import names

TRAINED_BY = {"wgan-gp": "genapps compressed-sensing train"}
"""What trains models that `genapps model train` doesn't: they have no likelihood."""


def list_models(json: bool = False) -> None:
    """Lists the registered models, the presets that train them and the data sets known by name.

    Args:
        json: Prints the models as a JSON list of name, class_path, summary and trained_by, a command.
    """
    entries = registry.entries()
    if json:
        records = [
            {
                "name": e.name,
                "class_path": e.class_path,
                "summary": e.summary,
                "trained_by": TRAINED_BY.get(e.name, "genapps model train"),
            }
            for e in entries
        ]
        print(json_format.dumps(records, indent=2))
        return
    width = max(len(entry.name) for entry in entries)
    print("models (--model), or the class path of your own GenerativeModel:")
    for entry in entries:
        elsewhere = f"; trained by {TRAINED_BY[entry.name]}" if entry.name in TRAINED_BY else ""
        print(f"  {entry.name:<{width}}  {entry.summary}{elsewhere}")
    print("presets (--config):")
    for name in preset_names():
        if name.startswith("core_models/"):
            print(f"  {name}")
    print(f"data (--data): {', '.join(names())}, or the path of your own .npz or folder of images")
