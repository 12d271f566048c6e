"""The losses of what judges steps, written out, and that a learner's settings arrive in them."""

import copy
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from demonstrations_made import counted
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from tiny_environments import Colours, Line, Sides, Signs, demonstrate
from torch import nn

from apps.imitation.learners import AIRL, GAIL, InfoGAIL
from apps.imitation.networks.discriminator import Discriminator, gradient_penalty, logistic_loss, penalty_between

DRAWS = 5
"""Seed of what a learner draws while it judges."""


def judged(kind, env=Line, **more):
    """Returns a learner that judged a rollout without a policy step, its networks before, the rollout, the rewards."""
    learner = kind(make_vec_env(env, n_envs=1, seed=0), demonstrate(env()), steps=60, hidden=(8,), **more)
    before, own, kept = copy.deepcopy(learner.reward_network), learner.judge, []

    def judge(rollout):
        torch.manual_seed(DRAWS)
        kept.append((rollout, own(rollout)))
        return kept[0][1]

    learner.judge = judge
    algorithm = learner.generator
    _, callback = algorithm._setup_learn(60, None)
    algorithm.collect_rollouts(algorithm.env, callback, algorithm.rollout_buffer, algorithm.n_steps)
    return learner, before, *kept[0]


def halves(expert, learner):
    """Returns minus the mean log-likelihood of telling both kinds, each weighing half."""
    d_e, d_l = torch.sigmoid(expert.double()), torch.sigmoid(learner.double())
    return -(torch.log(d_e).mean() + torch.log(1 - d_l).mean()) / 2


def test_the_loss_is_the_likelihood_of_both_kinds_each_weighing_half():
    expert, learner = torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.1, -0.5])
    plain = halves(expert, learner)
    assert float(logistic_loss(expert, learner)) == pytest.approx(float(plain), rel=1e-6)
    both = torch.sigmoid(torch.cat([expert, learner]).double())
    entropy = -(both * torch.log(both) + (1 - both) * torch.log(1 - both)).mean()
    assert float(logistic_loss(expert, learner, 0.25)) == pytest.approx(float(plain - 0.25 * entropy), rel=1e-6)


def test_the_penalty_is_on_the_length_of_the_gradient():
    env = Line()
    network = Discriminator(env.observation_space, env.action_space, ())
    with torch.no_grad():
        network.head[0].weight.copy_(torch.tensor([[3.0, 4.0, 0.0]]))
    a, b = torch.randn(8, 3), torch.randn(8, 3)
    assert float(gradient_penalty(network, a, b).detach()) == pytest.approx(16.0, rel=1e-5)
    assert float(gradient_penalty(network, a, b, target=0.0).detach()) == pytest.approx(25.0, rel=1e-5)


def test_the_penalty_is_taken_between_expert_and_learner_and_teaches_the_network():
    """Of logits w . x^2 / 2 the gradient at x is w x."""

    class Quadratic(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))

        def logits(self, x):
            return (x.square() * self.w).sum(1) / 2

    network, expert, learner = Quadratic(), torch.randn(8, 3), torch.randn(8, 3)
    torch.manual_seed(DRAWS)
    found = gradient_penalty(network, expert, learner)
    (taught,) = torch.autograd.grad(found, network.w)
    torch.manual_seed(DRAWS)
    share = torch.rand(8, 1)
    w = network.w.detach().requires_grad_()
    expected = (((share * expert + (1 - share) * learner) * w).norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(taught, torch.autograd.grad(expected, w)[0])


def test_gail_gives_its_loss_the_entropy_and_the_penalty_that_are_asked_for():
    learner, before, rollout, _ = judged(GAIL, entropy=0.3, gradient_penalty=0.7)
    with torch.no_grad():
        expert = before.encoder(learner.expert_observations, learner.expert_actions)
        own = before.encoder(rollout.observations, rollout.actions)
        logits = before.logits(expert), before.logits(own)
    both = torch.sigmoid(torch.cat(logits).double())
    entropy = -(both * torch.log(both) + (1 - both) * torch.log(1 - both)).mean()
    torch.manual_seed(DRAWS)
    i, j = torch.randperm(len(expert))[:60], torch.randperm(60)
    penalty = gradient_penalty(before, expert[i], own[j]).detach()
    expected = float(halves(*logits) - 0.3 * entropy + 0.7 * penalty)
    assert learner._told["discriminator_loss"] == pytest.approx(expected, rel=1e-5)


def test_gail_divides_every_matrix_of_its_discriminator_by_its_norm():
    learner, *_ = judged(GAIL, spectral_norm=True, discriminator_hidden=(6,), discriminator_steps=3)
    network = learner.discriminator.train()
    with torch.no_grad():
        for _ in range(100):  # the norm is found by power iteration, a step in each call
            network(learner.expert_observations, learner.expert_actions)
        norms = [float(torch.linalg.matrix_norm(own.weight, 2)) for own in network.head if isinstance(own, nn.Linear)]
    assert norms == pytest.approx([1.0, 1.0], abs=1e-3)


@pytest.mark.parametrize("env", [Line, partial(Signs, 2)])
def test_airl_tells_expert_from_learner_by_f_less_the_log_density(env):
    learner, before, rollout, rewards = judged(AIRL, env, reward_hidden=(8,), reward_steps=1, reward_batch=64)
    ended = rollout.dones & ~rollout.truncated
    assert bool(ended.any()) == (env is not Line)
    expert = learner.expert_observations, learner.expert_actions, learner.expert_following, learner.expert_ended
    own = rollout.observations, rollout.actions, rollout.next_observations(), ended
    torch.manual_seed(DRAWS)
    i, j = (torch.randint(len(actions), (64,)) for actions in (expert[1], own[1]))
    with torch.no_grad():
        density = learner.policy.get_distribution(learner.expert_observations)
        log_pi = density.log_prob(expert[1] if env is Line else expert[1].long().flatten())
        expected = halves((before(*expert) - log_pi)[i], (before(*own) - rollout.log_probs)[j])
        after = learner.reward_network(*own)
    assert learner._told["discriminator_loss"] == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(rewards, after - rollout.log_probs)


@pytest.mark.parametrize("more", [{}, {"spectral_norm": True}, {"discriminator_batch": 50}, {"gradient_penalty": 2.0}])
def test_images_are_passed_in_parts_and_the_gradient_is_that_of_all_at_once(more, monkeypatch):
    given = demonstrate(Colours(), 2)
    learner = GAIL(make_vec_env(Colours, n_envs=1, seed=0), given, steps=30, hidden=(4,), entropy=0.1, **more)
    seen = learner.expert_observations[torch.arange(30) % 40].flip(3)
    rollout = SimpleNamespace(observations=seen, actions=1 - learner.expert_actions[:30])
    network, found, largest = learner.discriminator, [], []
    network.encoder.register_forward_pre_hook(lambda _, given: largest.append(len(given[0])))
    weights = copy.deepcopy(network.state_dict())
    for at_a_time in (1000, 7):
        monkeypatch.setattr("apps.imitation.learners.on_policy.gail.AT_A_TIME", at_a_time)
        network.load_state_dict(weights)
        network.zero_grad()
        torch.manual_seed(DRAWS)
        loss = learner._in_parts(rollout)
        found.append((loss, *(p.grad.clone() for p in network.parameters())))
    assert max(largest[2:]) == 7
    if not more.get("gradient_penalty"):
        network.load_state_dict(weights)
        network.zero_grad()
        torch.manual_seed(DRAWS)
        found.append((learner._at_once(rollout), *(p.grad for p in network.parameters())))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-6)
    assert all(float(part.abs().max()) > 0 for part in found[0])


def test_airl_takes_all_rows_where_it_is_asked_for():
    learner, before, rollout, _ = judged(AIRL, shaping=False, reward_hidden=(8,), reward_steps=1, reward_batch=0)
    density = learner.policy.get_distribution(learner.expert_observations).log_prob(learner.expert_actions)
    with torch.no_grad():
        told = before(learner.expert_observations, learner.expert_judged, None, None) - density
        own = before(rollout.observations, rollout.actions, None, None) - rollout.log_probs
    assert learner._told["discriminator_loss"] == pytest.approx(float(halves(told, own).detach()), rel=1e-5)


@pytest.mark.parametrize("parts", [False, True])
def test_the_penalty_between_images_is_of_the_gradient_in_the_images(parts):
    """Which is found by differences here, not by derivatives."""
    image = spaces.Box(0, 255, (3, 8, 8), np.uint8)
    space = spaces.Dict({"image": image, "state": spaces.Box(-1, 1, (2,)), "kind": spaces.Discrete(3)})
    torch.manual_seed(0)
    network = Discriminator(space if parts else image, spaces.Discrete(2), (6,)).double()

    def pairs():
        seen = {"image": torch.randint(256, (5, 3, 8, 8), dtype=torch.uint8)}
        seen |= {"state": torch.randn(5, 2), "kind": torch.randint(3, (5, 1))}
        return seen if parts else seen["image"], torch.randint(2, (5, 1)).float()

    for encoder in network.encoder.parts.values():  # the rest of the test is in double precision
        encoder.floats = lambda x, own=encoder.floats: own(x).double()
    expert, learner = pairs(), pairs()
    torch.manual_seed(DRAWS)
    found = penalty_between(network, expert, learner)
    found.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.encoder.parameters() if p.ndim > 1)
    torch.manual_seed(DRAWS)
    share = torch.rand(5)
    lengths = []
    for i in range(5):
        ends = [network.encoder.inputs(*side) for side in (expert, learner)]
        point = [share[i] * a[i : i + 1] + (1 - share[i]) * b[i : i + 1] for a, b in zip(*ends, strict=True)]
        flat = torch.cat([x.flatten() for x in point])

        def logit(x, like=point):
            cut = x.split([own.numel() for own in like], 1)
            given = [part.reshape(-1, *own.shape[1:]) for part, own in zip(cut, like, strict=True)]
            return network.logits(network.encoder.of_inputs(given))

        steps = torch.eye(len(flat), dtype=torch.float64) * 1e-6
        with torch.no_grad():
            lengths.append(((logit(flat + steps) - logit(flat - steps)) / 2e-6).norm())
    torch.testing.assert_close(found.detach(), (torch.stack(lengths) - 1).square().mean(), rtol=1e-4, atol=1e-6)


def test_the_penalty_of_a_critic_of_images_reaches_the_layers_that_see_them():
    more = {"critic_steps": 1, "judge_batch": 8, "posterior_steps": 1, "judge_hidden": (4,), "cloning_epochs": 0}
    found = []
    for penalty in (0.0, 100.0):
        learner, *_ = judged(InfoGAIL, Colours, penalty=penalty, **more)
        found.append(learner.judges.discriminator.encoder.state_dict())
    assert any(not torch.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])


def test_airl_knows_after_which_steps_of_the_expert_no_state_follows():
    given = counted([3, 2, 4])  # the first and the last were ended by the environment
    learner = AIRL(make_vec_env(Signs, n_envs=1, seed=0), given, steps=20, hidden=(4,), reward_hidden=(4,))
    assert learner.expert_ended.nonzero().flatten().tolist() == [2, 8]
    assert learner.expert_following[[2, 4, 8], 0].tolist() == [100, 101, 102]


def test_a_critic_that_is_clipped_keeps_to_its_bound():
    learner, *_ = judged(
        InfoGAIL, Sides, critic="wasserstein-clip", clip=0.02, critic_steps=10, critic_learning_rate=1e-2,
        posterior_steps=1, judge_hidden=(8,), cloning_epochs=0,
    )  # fmt: skip
    assert max(float(p.detach().abs().max()) for p in learner.judges.discriminator.parameters()) == pytest.approx(0.02)


def test_a_posterior_is_taught_as_much_of_the_code_as_is_asked_for():
    learner = InfoGAIL(
        Sides(), demonstrate(Sides(), 2), steps=20, hidden=(4,), judge_hidden=(8,), cloning_epochs=0, target=0.9,
        posterior_steps=200, posterior_learning_rate=0.05, judge_batch=32,
    )  # fmt: skip
    codes = torch.arange(40) % 2
    places, actions = (2.0 * codes - 1)[:, None], torch.zeros(40, 1)
    learner._teach_posterior(places, actions, codes)
    with torch.no_grad():
        found = learner.judges.posterior.log_prob(places, actions, codes).exp()
    torch.testing.assert_close(found, torch.full((40,), 0.95), atol=0.01, rtol=0)  # a half of what is left is its own
