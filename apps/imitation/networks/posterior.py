r"""The posterior Q(c | s, a): which code was behind a step.

.. math:: L_I(\pi, Q) = E[\log Q(c | s, a)] + H(c) \le I(c; \tau)

Source: Li, Song and Ermon, "InfoGAIL: interpretable imitation learning from visual demonstrations", NIPS 2017,
equation 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from gymnasium import spaces
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .discriminator import perceptron
from .encoder import Encoder, Observed
from .normaliser import Normaliser


class Posterior(nn.Module):
    """Logits of Q(c | s, a) for a code of so many values.

    Args:
        observation_space: of the environment, without the code.
        action_space: of the environment; None for a Q that doesn't look at the action.
        codes: how many values the code takes.
        hidden: sizes of the hidden layers.
        normaliser: of vector observations.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space | None,
        codes: int,
        hidden: Sequence[int] = (100, 100),
        *,
        normaliser: Normaliser | None = None,
    ) -> None:
        super().__init__()
        self.codes = codes
        self.encoder = Encoder(observation_space, action_space, normaliser)
        self.head = perceptron(self.encoder.size, hidden, codes)

    def forward(self, observations: Observed, actions: Tensor) -> Float[Tensor, "n codes"]:
        """Returns the logits (n, codes)."""
        return self.head(self.encoder(observations, actions))

    def log_prob(self, observations: Observed, actions: Tensor, codes: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Returns log Q(c | s, a) of given codes (n,) [nats]."""
        return -cross_entropy(self(observations, actions), codes, reduction="none")
