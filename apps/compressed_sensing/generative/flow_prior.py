r"""Flow prior: the latents of an invertible model, searched by L-BFGS from zero.

.. math:: \hat z = \arg\min_z \frac1m \|y - A G(z)\|^2 + \gamma \|z\|^2, \qquad z_0 = 0

Every signal is in the range of an invertible G, so that there is no representation error; without a penalty the start
and the path of the search regularise, and more measurements always help.

Source: Asim, Daniels, Leong, Ahmed and Hand, "Invertible generative models for inverse problems: mitigating
representation error and dataset bias", 2020, section 3.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..operators import LinearOperator
from .csgm import CSGM, starts


class FlowPrior(CSGM):
    """CSGM as it is done with a flow.

    Args:
        operator: what made the measurements.
        noise: standard deviation of each measurement's noise; only `acquire` asks for it.
        prior: a flow; any model that decodes will do.
        penalty: gamma.
        steps: iterations of L-BFGS.
        restarts: starts; the first is 0, the others come from the prior.
        batch: signals searched at once.
        random_state: seed of the other starts.
    """

    default_penalties: ClassVar = {"penalty": 0.0}

    def __init__(
        self, operator: LinearOperator | None = None, prior: Any = None, *, noise: float = 0.0, penalty: float = 0.0,
        steps: int = 100, restarts: int = 1, batch: int = 100, random_state: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(
            operator, prior, noise=noise, penalty=penalty, steps=steps, restarts=restarts, optimiser="lbfgs",
            batch=batch, random_state=random_state,
        )  # fmt: skip

    def _starts(self, batch: int, first: int) -> Tensor:
        drawn = starts(self.prior, batch, self.restarts, self.random_state, first)
        return torch.cat([torch.zeros_like(drawn[:, :1]), drawn[:, 1:]], 1)
