"""The discriminator of DAC, the gradient penalty that keeps it smooth, and the reward that it gives.

    minimise  E_expert softplus(-f) + E_policy softplus(f) + lambda E (|grad f(x)| - 1)^2,     D = sigmoid(f)

with x drawn on the lines between expert's and policy's pairs (s, a), and gradients with respect to all of x.
Sources: Kostrikov et al., "Discriminator-actor-critic", ICLR 2019, section 4 (lambda = 10, as Gulrajani et al.,
"Improved training of Wasserstein GANs", 2017, section 4). The gradient of the penalty, a derivative of a derivative, is
written out: with p_l the gradient of f with respect to the layer h_l and g_l = p_l f'(h_l) that before its activation,

    p_{l-1} = g_l W_l^T,    and back:    dp_l = dg_l f'(h_l),   dh_l = dg_l p_l f''(h_l),   dg_{l+1} = dp_l W_{l+1}
"""

from __future__ import annotations

from typing import NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn.functional import softplus

from core_models.errors import UserError

from .stacked_mlp import Activation, StackedMLP


class Judgement(NamedTuple):
    """What a discriminator's update tells."""

    policy_logits: Float[Tensor, " rows"]
    """Of the policy's pairs, before the update."""
    loss: Tensor
    gradient_norm: Tensor
    """Mean over the pairs between expert and policy."""
    expert_accuracy: Tensor
    """Share of the expert's pairs that are taken for the expert's."""
    policy_accuracy: Tensor


class DACDiscriminator:
    """The network and the step that trains it.

    Args:
        inputs: values of a pair (s, a).
        hidden: units of each hidden layer.
        activation: of the hidden layers.
        learning_rate: of Adam.
        penalty: lambda.
        generator: draws first weights.
    """

    def __init__(
        self,
        inputs: int,
        *,
        hidden: tuple[int, ...] = (100, 100),
        activation: Activation = "tanh",
        learning_rate: float = 3e-4,
        penalty: float = 10.0,
        generator: Generator,
    ) -> None:
        if activation not in get_args(Activation):
            raise UserError(f"expected an activation among {', '.join(get_args(Activation))}, got {activation!r}")
        self.penalty = penalty
        self.network = StackedMLP(1, (inputs, *hidden, 1), activation, generator=generator)
        self.optimizer = torch.optim.Adam([self.network.flat], learning_rate, fused=True)

    def logits(self, pairs: Float[Tensor, "rows values"]) -> Float[Tensor, " rows"]:
        """Returns log D - log(1 - D) of pairs."""
        return self.network.forward(pairs)[-1][0, :, 0].clone()

    @torch.no_grad()
    def __call__(
        self,
        expert: Float[Tensor, "rows values"],
        policy: Float[Tensor, "rows values"],
        mix: Float[Tensor, "rows 1"],
    ) -> Judgement:
        """Updates the network.

        Args:
            expert: the expert's pairs.
            policy: as many of the policy's.
            mix: uniform on [0, 1]: how much of the expert's pair a pair between both has.
        """
        n = len(expert)
        layers = self.network.forward(torch.cat((expert, policy, torch.lerp(policy, expert, mix))))
        logits = layers[-1][0, : 2 * n, 0].clone()
        signs = torch.ones(2 * n)
        signs[:n] = -1
        grad = signs * torch.sigmoid(signs * logits) / n
        self.network.backward([layer[:, : 2 * n] for layer in layers], grad[None, :, None])
        norms = self._penalise([layer[:, 2 * n :] for layer in layers])
        self.optimizer.step()
        loss = softplus(signs * logits).sum() / n + self.penalty * (norms - 1).square().mean()
        right = (signs * logits < 0).view(2, n).float().mean(1)
        return Judgement(logits[n:], loss, norms.mean(), *right)

    def _penalise(self, layers: list[Tensor]) -> Tensor:
        """Adds the penalty's gradient to that of the parameters; returns the norms."""
        net = self.network
        hidden, rows = layers[1:-1], layers[0].shape[1]
        smooth = net.activation == "tanh"
        slopes = [1 - h.square() if smooth else (h > 0).float() for h in hidden]
        at_top = net.weights[-1].transpose(1, 2)  # f is linear in the last hidden layer
        before: list[Tensor] = []  # g_l
        after: list[Tensor] = []  # p_l
        grad = at_top.expand(-1, rows, -1)
        for slope, w in zip(reversed(slopes), reversed(net.weights[:-1]), strict=True):
            after.insert(0, grad)
            before.insert(0, grad * slope)
            grad = torch.bmm(before[0], w.transpose(1, 2))
        norms = grad.norm(dim=2, keepdim=True)
        back = grad * ((2 * self.penalty / rows) * (norms - 1) / norms.clamp(min=1e-12))

        through_hidden = []
        for level, slope in enumerate(slopes):
            net.weight_grads[level].baddbmm_(back.transpose(1, 2), before[level])
            back = torch.bmm(back, net.weights[level])
            if smooth:  # f'' = -2 h f'
                through_hidden.append(back * after[level] * hidden[level] * slope * -2)
            back *= slope
        net.weight_grads[-1] += back.sum(1).unsqueeze(2)

        if smooth:
            grad = torch.zeros_like(hidden[-1])
            for level in reversed(range(len(hidden))):
                grad = grad + through_hidden[level]
                net.weight_grads[level].baddbmm_(layers[level].transpose(1, 2), grad)
                net.bias_grads[level] += grad.sum(1, keepdim=True)
                if level:
                    grad = torch.bmm(grad, net.weights[level].transpose(1, 2)).mul_(slopes[level - 1])
        return norms[0, :, 0]
