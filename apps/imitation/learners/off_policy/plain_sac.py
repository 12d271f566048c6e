"""The plain stable-baselines3 SAC that is the same policy: what a saved SAC or DAC is for who opens it without us.

The normalisation of observations goes into the weights of each first layer, and an absorbing state's indicator, 0 in
every real state, out of them:

    ((s - mean) / scale) W + b  =  s (W / scale) + (b - (mean / scale) W)
"""

from __future__ import annotations

import torch
from stable_baselines3 import SAC as PlainSAC
from torch import Tensor, nn

from .policy import SquashedPolicy
from .sac_update import SACUpdate
from .stacked_mlp import StackedMLP


def plain_sac(policy: SquashedPolicy, networks: SACUpdate, steps: int = 0) -> PlainSAC:
    """Returns stable-baselines3's SAC with these weights, without an environment."""
    hidden = list(networks.actor.sizes[1:-1])
    model = PlainSAC(
        "MlpPolicy",
        None,  # type: ignore[arg-type]
        buffer_size=1,
        target_entropy=networks.target_entropy,
        gamma=networks.gamma,
        tau=networks.tau,
        learning_rate=networks.actor_optimizer.param_groups[0]["lr"],
        policy_kwargs={"net_arch": hidden},
        device="cpu",
        _init_setup_model=False,
    )
    model.observation_space, model.action_space, model.n_envs = policy.observation_space, policy.action_space, 1
    with torch.random.fork_rng(devices=[]):
        model._setup_model()
    model.buffer_size, model.replay_buffer, model.num_timesteps = 1_000_000, None, steps
    with torch.no_grad():
        model.log_ent_coef.copy_(networks.log_alpha)  # type: ignore[union-attr]
        actor = model.actor
        weights, biases = folded(policy.network, 0, policy)
        for layer, w, b in zip(_linears(actor.latent_pi), weights, biases, strict=False):
            _put(layer, w, b)
        for half, head in enumerate((actor.mu, actor.log_std)):
            assert isinstance(head, nn.Linear)
            _put(head, weights[-1].chunk(2, 1)[half], biases[-1].chunk(2)[half])
        for critics, mlp in ((model.critic, networks.critics), (model.critic_target, networks.targets)):
            for number, critic in enumerate(critics.q_networks):
                for layer, w, b in zip(_linears(critic), *folded(mlp, number, policy), strict=True):
                    _put(layer, w, b)
    return model


def folded(mlp: StackedMLP, copy: int, policy: SquashedPolicy) -> tuple[list[Tensor], list[Tensor]]:
    """Returns weights and biases that take observations as they come (a critic's actions behind them)."""
    weights, biases = [w[copy] for w in mlp.weights], [b[copy, 0] for b in mlp.biases]
    values = policy.observation_space.shape[0]
    mean, scale = (torch.as_tensor(x, dtype=torch.float64) for x in (policy.normaliser.mean, policy.normaliser.scale))
    first = weights[0].double()
    real = first[:values] / scale[:, None]
    actions = first[values + policy.indicator :]
    weights[0] = torch.cat((real, actions)).float()
    biases[0] = (biases[0].double() - mean @ real).float()
    return weights, biases


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _put(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight.T)
    layer.bias.copy_(bias)
