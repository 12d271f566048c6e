r"""SB3's TRPO, its products with the Fisher matrix taken without differentiating twice.

The Hessian of the mean KL divergence at the policy itself is

.. math:: F = \frac1N \sum_n J_n^T M_n J_n

with J_n the Jacobian of what parametrises the distribution (logits; mean) at observation n, and M_n its Fisher matrix
there: diag(p) - p p^T of logits, 1 / sigma^2 of means. J v goes forwards through the layers, J^T back, with the
activations that were kept. SB3 differentiates the gradient of the divergence once more for each product, which gives
the same numbers in about three times the time.

Source: Schulman, Levine, Moritz, Jordan and Abbeel, "Trust region policy optimization", 2015, appendix C.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from sb3_contrib import TRPO
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor, nn

from ...policies import is_plain


def layers_of(policy: ActorCriticPolicy) -> list[tuple[nn.Linear, bool]] | None:
    """Returns the linear layers from features to the distribution, each with whether tanh follows.

    None where the policy is of another kind: features that are learnt, other activations or distributions.
    """
    if not is_plain(policy):
        return None
    if any(True for _ in policy.pi_features_extractor.parameters()) or not isinstance(policy.action_net, nn.Linear):
        return None
    found: list[tuple[nn.Linear, bool]] = []
    for layer in policy.mlp_extractor.policy_net:
        if isinstance(layer, nn.Linear):
            found.append((layer, False))
        elif isinstance(layer, nn.Tanh) and found and not found[-1][1]:
            found[-1] = (found[-1][0], True)
        else:
            return None
    return [*found, (policy.action_net, False)]


class FisherProducts:
    """Products with the Fisher matrix of a policy as it now is.

    Args:
        policy: for which `layers_of` finds layers.
        observations: (n, ...) as the policy takes them.
        damping: added to the diagonal.
    """

    @torch.no_grad()
    def __init__(self, policy: ActorCriticPolicy, observations: Tensor, damping: float) -> None:
        layers = layers_of(policy)
        if layers is None:
            raise ValueError("expected a policy of linear and tanh layers")
        self.layers, self.damping = layers, damping
        features = policy.extract_features(observations, policy.pi_features_extractor)
        assert isinstance(features, Tensor)
        self.inputs, self.slopes = [features], []
        for layer, bent in layers:
            h = layer(self.inputs[-1])
            h = h.tanh_() if bent else h
            self.slopes.append(1 - h.square() if bent else None)
            self.inputs.append(h)
        output = self.inputs.pop()
        n = len(output)
        discrete = isinstance(policy.action_dist, CategoricalDistribution)
        self.log_std = None if discrete else policy.log_std
        # SB3's divergence of a Gaussian is the mean over rows and dimensions, of a categorical one over rows
        self.weight = 1 / n if discrete else 1 / output.numel()
        self.p = output.softmax(1) if discrete else None
        self.precision = None if discrete else (-2 * policy.log_std.detach()).exp()
        self.parameters = [p for layer, _ in layers for p in (layer.weight, layer.bias)]
        if self.log_std is not None:
            self.parameters.insert(0, self.log_std)

    @torch.no_grad()
    def __call__(self, vector: Float[Tensor, " parameters"]) -> Float[Tensor, " parameters"]:
        """Returns (F + damping) v; entries in the order of `parameters`."""
        parts = [part.view_as(p) for part, p in zip(vector.split([p.numel() for p in self.parameters]), self.parameters,
                                                    strict=True)]  # fmt: skip
        found: list[Tensor] = []
        if self.log_std is not None:
            # d^2 KL / d log sigma^2 = 2 in each dimension, and none mixed with the means
            found.append(2 / self.log_std.numel() * parts.pop(0))
        moved: Tensor | None = None
        for i, ((layer, _), x, slope) in enumerate(zip(self.layers, self.inputs, self.slopes, strict=True)):
            own = torch.nn.functional.linear(x, parts[2 * i], parts[2 * i + 1])
            moved = own if moved is None else own.addmm_(moved, layer.weight.T)
            moved = moved if slope is None else moved.mul_(slope)
        assert moved is not None
        if self.p is not None:
            back = self.p * (moved - (self.p * moved).sum(1, keepdim=True)) * self.weight
        else:
            assert self.precision is not None
            back = moved * (self.precision * self.weight)
        turned: list[Tensor] = []
        for i in range(len(self.layers) - 1, -1, -1):
            layer, slope = self.layers[i][0], self.slopes[i]
            back = back if slope is None else back.mul_(slope)
            turned += [back.sum(0), back.T @ self.inputs[i]]
            if i:
                back = back @ layer.weight
        flat = torch.cat([t.flatten() for t in [*found, *reversed(turned)]])
        return flat.add_(vector, alpha=self.damping)


class FastTRPO(TRPO):
    """SB3's TRPO, with `FisherProducts` where the policy's layers allow them."""

    _fisher: FisherProducts | None = None

    def train(self) -> None:
        """Takes a policy step."""
        super().train()
        self._fisher = None

    def _compute_actor_grad(self, kl_div: Tensor, policy_objective: Tensor) -> Any:
        if layers_of(self.policy) is None or self.sub_sampling_factor > 1:
            return super()._compute_actor_grad(kl_div, policy_objective)
        # the buffer is flat by now, in another order than the batch, which a mean does not mind
        seen = torch.as_tensor(self.rollout_buffer.observations, device=self.device)
        self._fisher = FisherProducts(self.policy, seen, self.cg_damping)
        parameters: Any = self._fisher.parameters
        gradients = torch.autograd.grad(policy_objective, parameters)
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        return parameters, flat, torch.zeros_like(flat), [gradient.shape for gradient in gradients]

    def hessian_vector_product(
        self, params: list[nn.Parameter], grad_kl: Tensor, vector: Tensor, retain_graph: bool = True
    ) -> Tensor:
        """Returns (F + damping) v."""
        if self._fisher is None:
            return super().hessian_vector_product(params, grad_kl, vector, retain_graph)
        return self._fisher(vector)
