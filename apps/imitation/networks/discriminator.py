r"""The discriminator, D(s, a) = P(expert | s, a), its loss, and the rewards that it can be made into.

.. math:: \max_D\; E_{\pi_E}[\log D(s,a)] + E_{\pi}[\log(1 - D(s,a))]

Source: Ho and Ermon, "Generative adversarial imitation learning", NIPS 2016, equation 15, with the expert as the
positive class. The penalty on the gradient, (||grad D(x)|| - 1)^2 at points between expert and learner, is that of
Gulrajani et al., "Improved training of Wasserstein GANs", NIPS 2017, equation 3, taken on the logit.
Points between images are images, and the gradient is with respect to these, through the layers that see them: held
to its length in what they make of images alone, D could change as fast as it likes in the images themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus
from torch.nn.utils.parametrizations import spectral_norm as with_spectral_norm

from core_models.errors import UserError

from .encoder import Encoder, Observed
from .normaliser import Normaliser

RewardForm = Literal["positive", "negative", "logit"]
"""positive: -log(1 - D), never below 0, so that every step more is worth something: for tasks where to survive is good.
negative: log D, never above 0, so that an early end is worth something: for tasks where to finish is good. logit: log D
- log(1 - D), of either sign, as in AIRL and DAC. The wrong one can decide more than the demonstrations do."""


class Discriminator(nn.Module):
    """Logits of P(expert | s, a).

    Args:
        observation_space: of the policy.
        action_space: of the policy.
        hidden: sizes of the hidden layers.
        spectral_norm: divides each weight matrix by its largest singular value (Miyato et al. 2018).
        normaliser: of vector observations, shared with the policy.
        action_normaliser: of actions that are vectors.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        hidden: Sequence[int] = (100, 100),
        *,
        spectral_norm: bool = False,
        normaliser: Normaliser | None = None,
        action_normaliser: Normaliser | None = None,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(observation_space, action_space, normaliser, action_normaliser)
        self.head = perceptron(self.encoder.size, hidden, 1, spectral_norm=spectral_norm)

    def logits(self, encoded: Float[Tensor, "n size"]) -> Float[Tensor, " n"]:
        """Returns the logits of vectors that are encoded already."""
        return self.head(encoded).squeeze(1)

    def forward(self, observations: Observed, actions: Tensor) -> Float[Tensor, " n"]:
        """Returns the logits (n,) [nats]: positive where the expert is likelier."""
        return self.logits(self.encoder(observations, actions))


def perceptron(inputs: int, hidden: Sequence[int], outputs: int, *, spectral_norm: bool = False) -> nn.Sequential:
    """Returns fully connected layers with tanh between them."""
    layers: list[nn.Module] = []
    for size in hidden:
        linear = nn.Linear(inputs, size)
        layers += [with_spectral_norm(linear) if spectral_norm else linear, nn.Tanh()]
        inputs = size
    last = nn.Linear(inputs, outputs)
    return nn.Sequential(*layers, with_spectral_norm(last) if spectral_norm else last)


def learnt_reward(logits: Float[Tensor, " n"], form: RewardForm) -> Float[Tensor, " n"]:
    """Returns the rewards [nats] that logits of P(expert | s, a) stand for; the forms are those of `RewardForm`."""
    if form == "positive":
        return softplus(logits)
    if form == "negative":
        return logsigmoid(logits)
    return logits


def check_form(form: str) -> RewardForm:
    """Returns the form of a reward.

    Raises:
        UserError: when there is no such form.
    """
    for known in get_args(RewardForm):
        if form == known:
            return known
    raise UserError(f"reward: expected one of {', '.join(get_args(RewardForm))}, got {form!r}")


def logistic_loss(expert: Float[Tensor, " n"], learner: Float[Tensor, " m"], entropy: float = 0.0) -> Tensor:
    """Returns minus the log-likelihood of telling expert from learner, each weighing half, less an entropy bonus.

    Args:
        expert: logits of the expert's pairs.
        learner: logits of the learner's.
        entropy: weight of the entropy of D's answers, which keeps it from being sure (1e-3 in the authors' code).
    """
    loss = binary_cross_entropy_with_logits(expert, torch.ones_like(expert))
    loss = loss + binary_cross_entropy_with_logits(learner, torch.zeros_like(learner))
    if entropy:
        both = torch.cat([expert, learner])
        uncertain = softplus(both) - torch.sigmoid(both) * both
        loss = loss - 2 * entropy * uncertain.mean()
    return loss / 2


def logistic_part(
    logits: Float[Tensor, " n"], *, of_expert: bool, rows: int, all_rows: int, entropy: float = 0.0
) -> Tensor:
    """Returns what some rows add to `logistic_loss`: over all of both kinds it is the same loss, and gradient.

    Args:
        logits: of some pairs of one kind.
        of_expert: which kind.
        rows: how many there are of the kind.
        all_rows: how many there are of both.
        entropy: as in `logistic_loss`.
    """
    wanted = torch.full_like(logits, float(of_expert))
    part = binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / (2 * rows)
    if entropy:
        uncertain = softplus(logits) - torch.sigmoid(logits) * logits
        part = part - entropy * uncertain.sum() / all_rows
    return part


def penalty_between(
    network: Discriminator, expert: tuple[Observed, Tensor], learner: tuple[Observed, Tensor], *, target: float = 1.0
) -> Tensor:
    """Returns `gradient_penalty` of pairs of observations and actions, through what of the encoder has weights.

    Lengths are those of gradients with respect to observations and actions: images from 0 to 1, actions
    normalised, vectors too but for those in a Dict, what is discrete one-hot.

    Args:
        network: whose logits.
        expert: observations and actions (n, ...).
        learner: as many.
        target: as in `gradient_penalty`.
    """
    encoder = network.encoder
    if not encoder.learns:
        return gradient_penalty(network, encoder(*expert), encoder(*learner), target=target)
    a, b = encoder.inputs(*expert), encoder.inputs(*learner)
    share = torch.rand(len(expert[1]), device=expert[1].device)
    points = []
    for one, other in zip(a, b, strict=True):
        s = share.reshape(-1, *[1] * (one.ndim - 1))
        points.append((s * one + (1 - s) * other).detach().requires_grad_())
    gradients = torch.autograd.grad(network.logits(encoder.of_inputs(points)).sum(), points, create_graph=True)
    lengths = torch.cat([gradient.flatten(1) for gradient in gradients], 1).norm(dim=1)
    return ((lengths - target) ** 2).mean()


def gradient_penalty(
    network: Discriminator,
    expert: Float[Tensor, "n size"],
    learner: Float[Tensor, "n size"],
    *,
    target: float = 1.0,
) -> Tensor:
    """Returns the mean of (||gradient of the logit|| - target)^2 at points drawn between pairs of encoded vectors.

    Args:
        network: whose logits.
        expert: encoded vectors.
        learner: as many.
        target: the length that gradients are to have; 0 penalises any.
    """
    between = torch.rand(len(expert), 1, device=expert.device, dtype=expert.dtype)
    point = (between * expert + (1 - between) * learner).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network.logits(point).sum(), point, create_graph=True)
    return ((gradient.norm(dim=1) - target) ** 2).mean()
