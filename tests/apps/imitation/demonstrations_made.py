"""Small demonstrations whose numbers say where they come from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from apps.imitation.demonstrations import Demonstrations


def counted(lengths: Sequence[int], /, **change: Any) -> Demonstrations:
    """Rows numbered 0, 1, ... in their first observation; final observations numbered 100, 101, ..."""
    rows, trajectories = sum(lengths), len(lengths)
    fields: dict[str, Any] = {
        "observations": np.stack([np.arange(rows), -np.arange(rows)], 1).astype(np.float32),
        "actions": np.arange(rows) % 2,
        "rewards": np.ones(rows),
        "lengths": np.array(lengths),
        "returns": np.array(lengths, float),
        "terminated": np.arange(trajectories) % 2 == 0,
        "final_observations": np.stack([np.arange(trajectories) + 100] * 2, 1).astype(np.float32),
        "environment": "Counted-v0",
        "codes": np.arange(trajectories),
    }
    return Demonstrations(**{**fields, **change})


def pictured(lengths: Sequence[int]) -> Demonstrations:
    """The same with an image and a state of one number."""
    made = counted(lengths)

    def split(seen: np.ndarray) -> dict[str, np.ndarray]:
        image = np.broadcast_to(seen[:, :1, None, None].astype(np.uint8), (len(seen), 4, 4, 3))
        return {"image": image.copy(), "state": seen[:, :1]}

    given = {**vars(made), "observations": split(made.observations)}
    return Demonstrations(**{**given, "final_observations": split(made.final_observations)})
