"""The updates of policies against SB3's own, from the same rollout and the same draws."""

import gymnasium
import numpy as np
import pytest
import torch
from sb3_contrib import TRPO
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from apps.imitation.learners.on_policy.ppo import FastPPO
from apps.imitation.learners.on_policy.trpo import FastTRPO, FisherProducts, layers_of
from apps.imitation.policies import NormalisedVector

DISCRETE, CONTINUOUS = "CartPole-v1", "Pendulum-v1"


def updated(kind, env_id, **options):
    """Returns an algorithm after one iteration; everything is drawn from the same seed."""
    settings = {"n_steps": 64, "batch_size": 32, "seed": 3, "device": "cpu", **options}
    policy = {"net_arch": [8, 6], "activation_fn": torch.nn.Tanh, **settings.pop("policy_kwargs", {})}
    algorithm = kind("MlpPolicy", DummyVecEnv([lambda: gymnasium.make(env_id)] * 2), policy_kwargs=policy, **settings)
    before = {name: value.clone() for name, value in algorithm.policy.state_dict().items()}
    algorithm.learn(128)
    return algorithm, before


def compare(fast, plain, before, least):
    moved = 0.0
    for name, value in plain.policy.state_dict().items():
        torch.testing.assert_close(fast.policy.state_dict()[name], value, rtol=1e-3, atol=2e-5)
        moved = max(moved, float((value - before[name]).abs().max()))
    assert moved > least  # and there was an update to compare
    for name, value in plain.logger.name_to_value.items():
        if name.startswith("train/"):
            assert fast.logger.name_to_value[name] == pytest.approx(value, rel=2e-3, abs=1e-5), name


@pytest.mark.parametrize("env_id", [DISCRETE, CONTINUOUS])
@pytest.mark.parametrize("options", [{}, {"ent_coef": 0.1, "vf_coef": 0.3}, {"target_kl": 1e-4}])
def test_an_update_of_ppo_is_that_of_sb3(env_id, options):
    options = {"n_epochs": 3, "learning_rate": 3e-3, **options}
    (fast, _), (plain, before) = updated(FastPPO, env_id, **options), updated(PPO, env_id, **options)
    compare(fast, plain, before, 1e-3)
    assert fast._n_updates == plain._n_updates


@pytest.mark.parametrize("env_id", [DISCRETE, CONTINUOUS])
def test_an_update_of_trpo_is_that_of_sb3(env_id, monkeypatch):
    calls = []
    made = FisherProducts.__call__
    monkeypatch.setattr(FisherProducts, "__call__", lambda self, v: calls.append(1) or made(self, v))
    (fast, _), (plain, before) = updated(FastTRPO, env_id), updated(TRPO, env_id)
    assert calls
    compare(fast, plain, before, 1e-3)


@pytest.mark.parametrize("env_id", [DISCRETE, CONTINUOUS])
@pytest.mark.parametrize("extractor", [{}, {"features_extractor_class": NormalisedVector}])
def test_products_with_the_fisher_matrix_are_the_second_derivatives_of_the_divergence(env_id, extractor):
    algorithm, _ = updated(PPO, env_id, n_epochs=1, policy_kwargs=extractor)
    policy = algorithm.policy
    if extractor:
        policy.features_extractor.normaliser.update(torch.randn(9, policy.observation_space.shape[0]) * 2 + 1)
    observations = torch.randn(20, policy.observation_space.shape[0], generator=torch.Generator().manual_seed(0))
    products = FisherProducts(policy, observations, damping=0.3)
    now = policy.get_distribution(observations).distribution
    with torch.no_grad():
        old = policy.get_distribution(observations).distribution
    divergence = torch.distributions.kl_divergence(now, old).mean()
    first = torch.cat([g.flatten() for g in torch.autograd.grad(divergence, products.parameters, create_graph=True)])
    vector = torch.randn(len(first), generator=torch.Generator().manual_seed(1))
    wanted = torch.autograd.grad((first * vector).sum(), products.parameters)
    wanted = torch.cat([g.flatten() for g in wanted]) + 0.3 * vector
    torch.testing.assert_close(products(vector), wanted, rtol=1e-4, atol=1e-6)


def test_policies_of_another_kind_are_updated_by_sb3_itself(monkeypatch):
    fallback = []
    monkeypatch.setattr(PPO, "train", lambda self: fallback.append("ppo"))
    updated(FastPPO, DISCRETE, clip_range_vf=0.2)
    assert fallback == ["ppo"]
    relu, _ = updated(FastTRPO, DISCRETE, policy_kwargs={"activation_fn": torch.nn.ReLU})
    assert layers_of(relu.policy) is None and relu._fisher is None
    assert all(np.isfinite(value.numpy()).all() for value in relu.policy.state_dict().values())
    with pytest.raises(ValueError, match="linear and tanh"):
        FisherProducts(relu.policy, torch.zeros(2, 4), 0.1)
