"""What goes into the policy step is what SB3's own collection would have put there; the step keeps to its bound."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from tiny_environments import Line, Signs, demonstrate
from torch.distributions import kl_divergence

from apps.imitation.learners.on_policy.gail import GAIL
from apps.imitation.learners.on_policy.rollouts import sampler


def collected(kind, seed=0, envs=2, steps=60, **more):
    """Returns a learner after an iteration without its policy step, and the rollout that it judged."""
    env = make_vec_env(kind, n_envs=envs, seed=seed)
    learner = GAIL(env, demonstrate(kind()), steps=steps, seed=seed, hidden=(16,), **more)
    kept = []
    judged = learner.generator.judge

    def judge(rollout):
        kept.append((rollout, judged(rollout)))
        return kept[-1][1]

    learner.generator.judge = judge
    algorithm = learner.generator
    _, callback = algorithm._setup_learn(steps, None)
    algorithm.collect_rollouts(algorithm.env, callback, algorithm.rollout_buffer, algorithm.n_steps)
    return learner, *kept[0]


@pytest.mark.parametrize("kind", [Signs, Line])
@torch.no_grad()
def test_the_buffer_holds_what_one_pass_a_step_would_have_put_there(kind):
    learner, rollout, rewards = collected(kind)
    algorithm, buffer, policy = learner.generator, learner.generator.rollout_buffer, learner.policy
    steps = algorithm.n_steps
    for i in range(2):
        for t in range(steps):
            row = i * steps + t
            observation = torch.as_tensor(buffer.observations[t, i])[None]
            action = torch.as_tensor(buffer.actions[t, i])[None]
            value, log_prob, _ = policy.evaluate_actions(observation, action.long()[:, 0] if kind is Signs else action)
            assert buffer.values[t, i] == pytest.approx(float(value), abs=1e-5)
            assert buffer.log_probs[t, i] == pytest.approx(float(log_prob), abs=1e-5)
            expected = float(rewards[row])
            if rollout.truncated[row]:
                last = rollout.after[1][(rollout.after[0] == row).nonzero()[0, 0]]
                expected += algorithm.gamma * float(policy.predict_values(last[None]))
                assert not torch.equal(last, rollout.observations[min(row + 1, len(rollout) - 1)])
            assert buffer.rewards[t, i] == pytest.approx(expected, abs=1e-5)
    assert rollout.truncated.sum() == 2 * (steps // 20)
    assert buffer.episode_starts[0].all() and buffer.episode_starts[20].all() and buffer.episode_starts.sum() == 4


def test_the_observation_after_an_episode_is_its_own_last_one():
    _, rollout, _ = collected(Line, envs=1, steps=50)
    after = rollout.next_observations()
    for t in range(49):
        if not rollout.dones[t]:
            assert torch.equal(after[t], rollout.observations[t + 1])
        else:
            assert not torch.equal(after[t], rollout.observations[t + 1])


@torch.no_grad()
def test_advantages_are_those_of_the_definition():
    learner, _, _ = collected(Signs, envs=1, steps=50)
    buffer, g, lam = learner.generator.rollout_buffer, learner.gamma, learner.gae_lambda
    last = learner.generator._last_obs
    values = [*buffer.values[:, 0], float(learner.policy.predict_values(torch.as_tensor(last)))]
    ends = [*buffer.episode_starts[1:, 0].astype(bool), False]
    expected, running = np.zeros(50), 0.0
    for t in reversed(range(50)):
        following = 0.0 if ends[t] else values[t + 1]
        delta = buffer.rewards[t, 0] + g * following - values[t]
        running = delta + (0.0 if ends[t] else g * lam * running)
        expected[t] = running
    np.testing.assert_allclose(buffer.advantages[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize("kind", [Signs, Line])
def test_actions_are_drawn_from_the_policy(kind):
    learner, rollout, _ = collected(kind)
    observation = rollout.observations[:1].repeat(20000, 1)
    with torch.no_grad():
        torch.manual_seed(0)
        drawn = sampler(learner.policy)(observation)
        told = learner.policy.get_distribution(observation[:1]).distribution
    if kind is Signs:
        share = float((drawn == 1).float().mean())
        assert share == pytest.approx(float(told.probs[0, 1]), abs=0.015)
    else:
        assert float(drawn.mean()) == pytest.approx(float(told.mean), abs=0.03)
        assert float(drawn.std()) == pytest.approx(float(told.stddev), rel=0.03)


def test_log_density_of_a_continuous_action():
    learner, rollout, _ = collected(Line)
    with torch.no_grad():
        told = learner.policy.get_distribution(rollout.observations)
    mean, spread = told.distribution.mean[:, 0], told.distribution.stddev[:, 0]
    density = -((rollout.actions[:, 0] - mean) ** 2) / (2 * spread**2) - spread.log() - math.log(2 * math.pi) / 2
    torch.testing.assert_close(rollout.log_probs, density, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [Signs, Line])
def test_a_policy_step_keeps_to_the_bound_on_the_divergence(kind):
    learner, rollout, _ = collected(kind, steps=400)
    with torch.no_grad():
        before = copy.deepcopy(learner.policy).get_distribution(rollout.observations).distribution
    learner._rollout = rollout
    learner.generator.train()
    with torch.no_grad():
        after = learner.policy.get_distribution(rollout.observations).distribution
    divergence = kl_divergence(before, after).mean()
    assert 1e-4 < float(divergence) <= 0.0105


class Wide(Line):
    """Line whose action has three numbers more, which do nothing."""

    def __init__(self):
        super().__init__()
        self.action_space = spaces.Box(-1, 1, (4,), np.float32)


def test_the_bound_of_the_papers_is_had_by_settings():
    """The bound is on the mean over the numbers of an action, and theirs on the sum."""
    rows, found = demonstrate(Line()), []
    rows = replace(rows, actions=np.repeat(rows.actions, 4, 1))
    for given in ({}, {"target_kl": 0.01 / 4, "cg_damping": 0.1 / 4}):
        learner = GAIL(make_vec_env(Wide, seed=0), rows, steps=400, hidden=(16,), generator_settings=given)
        assert learner.generator.cg_damping == given.get("cg_damping", 0.1)
        kept, own = [], learner.judge
        learner.judge = lambda rollout, own=own, kept=kept: kept.append(rollout) or own(rollout)
        before = copy.deepcopy(learner.policy)
        learner.learn(400)
        seen, after = kept[0].observations, copy.deepcopy(before)
        moved = {name: value for name, value in learner.policy.state_dict().items() if "normaliser" not in name}
        after.load_state_dict(moved, strict=False)
        with torch.no_grad():
            two = [policy.get_distribution(seen).distribution for policy in (before, after)]
        found.append(float(kl_divergence(*two).sum(1).mean()))
    assert found[0] > 0.011 and found[1] <= 0.0105
