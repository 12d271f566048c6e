"""DAC imitates from few pairs, needs them, saves what plain SAC opens, and goes on where it was killed."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import SAC as PlainSAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from tiny_control import demonstrate, linear_expert, mean_return, point
from torch.nn.functional import softplus

from apps.imitation.learners.off_policy.absorbing import with_indicator
from apps.imitation.learners.off_policy.dac import DAC
from apps.imitation.learners.off_policy.dac_discriminator import DACDiscriminator
from apps.imitation.learners.off_policy.plain_sac import plain_sac
from apps.imitation.learners.off_policy.sac import SAC
from apps.imitation.learners.off_policy.sac_reference import plain
from apps.imitation.networks import learnt_reward
from core_models.errors import UserError

SMALL = {"hidden": (32, 32), "discriminator_hidden": (32, 32), "batch_size": 64, "learning_starts": 100}


@pytest.fixture(scope="module")
def demonstrations():
    """Four trajectories of the linear expert, every fourth step."""
    return demonstrate(point(size=2), 4, linear_expert).subsampled(4, seed=0)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("hidden", [(32, 32), (20, 12, 8)])
def test_the_discriminators_update_is_that_of_automatic_differentiation(activation, hidden):
    generator = torch.Generator().manual_seed(0)
    fast = DACDiscriminator(6, hidden=hidden, activation=activation, learning_rate=3e-3, generator=generator)
    slow = plain(fast.network, 0)
    optimizer = torch.optim.Adam(slow.parameters(), 3e-3)
    for _ in range(6):
        expert, policy = torch.randn(2, 64, 6, generator=generator) + torch.tensor([1.0, 0.0])[:, None, None]
        mix = torch.rand(64, 1, generator=generator)
        between = (mix * expert + (1 - mix) * policy).requires_grad_()
        (slopes,) = torch.autograd.grad(slow(between).sum(), between, create_graph=True)
        penalty = (slopes.norm(dim=1) - 1).square().mean()
        loss = softplus(-slow(expert)).mean() + softplus(slow(policy)).mean() + 10 * penalty
        logits = slow(policy)[:, 0].detach()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        told = fast(expert, policy, mix)
        assert torch.allclose(told.policy_logits, logits, atol=1e-5)
        assert told.loss.item() == pytest.approx(loss.item(), rel=1e-5)
        assert told.gradient_norm.item() == pytest.approx(slopes.norm(dim=1).mean().item(), rel=1e-5)
    for ours, theirs in zip(plain(fast.network, 0).parameters(), slow.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)


def test_rewards_by_name():
    logits = torch.tensor([-3.0, 0.0, 2.0])
    d = torch.sigmoid(logits)
    assert torch.allclose(learnt_reward(logits, "logit"), d.log() - (1 - d).log(), atol=1e-6)
    assert torch.allclose(learnt_reward(logits, "positive"), -(1 - d).log(), atol=1e-6)
    assert torch.allclose(learnt_reward(logits, "negative"), d.log(), atol=1e-6)


def test_it_imitates_from_a_few_pairs_and_random_pairs_do_not_do(demonstrations):
    env, rng = point(size=2), np.random.default_rng(0)
    expert = float(demonstrations.returns.mean())
    nothing = demonstrate(env, 4, lambda _: rng.uniform(-2, 2, 2).astype(np.float32)).subsampled(4, seed=0)
    settings = {**SMALL, "learning_rate": 2e-3, "discriminator_learning_rate": 1e-3}
    found = [mean_return(DAC(env, some, **settings).learn(1200), env) for some in (demonstrations, nothing)]
    assert found[0] > 1.3 * expert  # returns are negative: within 30 % of the expert's
    assert found[1] < 3 * expert


@pytest.mark.parametrize("reward", ["logit", "positive", "negative"])
def test_the_learned_reward_is_the_discriminators_of_a_normalised_pair(demonstrations, reward):
    learner = DAC(point(size=2), demonstrations, reward=reward, **SMALL).learn(150)
    seen, done = np.random.default_rng(0).normal(size=(2, 30, 2))
    normal = (seen - demonstrations.observations.mean(0)) / demonstrations.observations.std(0)
    pairs = torch.as_tensor(np.concatenate((normal, np.zeros((30, 1)), np.clip(done / 2, -1, 1)), 1)).float()
    with torch.no_grad():
        expected = learnt_reward(plain(learner.discriminator.network, 0)(pairs)[:, 0], reward)
    assert np.allclose(learner.learned_reward(seen, done), expected, atol=1e-4)


def test_a_saved_zip_opens_in_plain_stable_baselines3_with_the_same_actions(demonstrations, tmp_path):
    learner = DAC(point(size=2), demonstrations, **SMALL).learn(300)
    assert (learner.policy.normaliser.scale < 0.7).all() and learner.update_networks.actor.sizes[0] == 3
    learner.save(tmp_path / "dac.zip")
    seen = np.random.default_rng(0).normal(size=(50, 2))
    for opened in (PlainSAC.load(tmp_path / "dac.zip"), DAC.load(tmp_path / "dac.zip")):
        for deterministic in (True, False):
            torch.manual_seed(0)
            expected = learner.predict(seen, deterministic=deterministic)[0]
            torch.manual_seed(0)
            assert np.abs(opened.predict(seen, deterministic=deterministic)[0] - expected).max() < 1e-5
            one = opened.predict(seen[0], deterministic=True)[0]
            assert np.abs(one - learner.predict(seen[0], deterministic=True)[0]).max() < 1e-5
    again = DAC.load(tmp_path / "dac.zip")
    rewards = [some.learned_reward(seen, np.zeros((50, 2))) for some in (learner, again)]
    assert (rewards[0] == rewards[1]).all() and again.num_timesteps == 300


def test_the_critics_in_the_zip_are_ours_without_the_indicator(demonstrations):
    learner = DAC(point(size=2), demonstrations, **SMALL).learn(200)
    peer = plain_sac(learner.policy, learner.update_networks)
    seen, done = torch.randn(2, 20, 2).numpy()
    inside = np.concatenate((with_indicator(learner.policy.normaliser(seen)), done), 1)
    with torch.no_grad():
        theirs = torch.stack(peer.critic(torch.as_tensor(seen), torch.as_tensor(done)))
    ours = learner.update_networks.critics.forward(torch.as_tensor(inside))[-1]
    assert torch.allclose(theirs, ours, atol=1e-5)


class Killed(Exception):
    """What ends a run in the middle."""


class Kill(BaseCallback):
    """Ends a run at a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self):
        if self.num_timesteps == self.step:
            raise Killed
        return True


def test_a_run_killed_and_resumed_ends_with_the_numbers_of_one_that_never_was(demonstrations, tmp_path):
    def learner(seed: int = 3) -> DAC:
        return DAC(point(size=2, noise=0.1, edge=1.6), demonstrations, seed=seed, checkpoint_every=150, **SMALL)

    file = tmp_path / "run" / "checkpoint.safetensors"
    never = learner().learn(600)
    for step in (120, 333, 480):  # before the first checkpoint, and between others
        with pytest.raises(Killed):
            learner().learn(600, Kill(step), checkpoint=file, resume=True)
    resumed = learner().learn(600, checkpoint=file, resume=True)
    assert resumed.num_timesteps == never.num_timesteps == 600
    for name, tensor in never._tensors().items():
        assert torch.equal(tensor, resumed._tensors()[name]), name
    assert torch.equal(never.replay.rows[: len(never.replay)], resumed.replay.rows[: len(resumed.replay)])
    assert list(never._finished) == list(resumed._finished)

    with pytest.raises(UserError, match="already holds a run: resume it"):
        learner().learn(600, checkpoint=file)
    with pytest.raises(UserError, match=r"is of other settings: seed .3 there, 4 here."):
        learner(seed=4).learn(600, checkpoint=file, resume=True)
    with pytest.raises(UserError, match="is of other data: pairs"):
        DAC(point(size=2), demonstrations.take(2), seed=3, checkpoint_every=150, **SMALL).learn(
            600, checkpoint=file, resume=True
        )


def test_callbacks_see_what_stable_baselines3_shows_and_environments_can_be_others(demonstrations):
    class Look(BaseCallback):
        def _on_step(self):
            told.append({name: np.array(self.locals[name]) for name in ("actions", "new_obs", "rewards", "dones")})
            episodes.append(list(self.model.ep_info_buffer))
            return True

    told, episodes = [], []
    learner = DAC(point(size=2), demonstrations, **SMALL).learn(41, Look())
    assert {name: value.shape for name, value in told[0].items()} == {
        "actions": (1, 2), "new_obs": (1, 2), "rewards": (1,), "dones": (1,)
    }  # fmt: skip
    for before, after in itertools.pairwise(told):  # actions are those that moved the point
        if not after["dones"][0]:
            np.testing.assert_allclose(after["new_obs"], before["new_obs"] + 0.5 * after["actions"], atol=1e-6)
    assert not episodes[19] and len(episodes[20]) == 1 and len(episodes[40]) == 2
    first = episodes[40][0]
    assert (first["l"], first["r"]) == (20, pytest.approx(sum(float(step["rewards"][0]) for step in told[:20]), 1e-5))
    learner.set_env(make_vec_env(lambda: point(size=2), n_envs=3))
    assert learner.learn(30).num_timesteps == 30 and learner.get_env().num_envs == 3
    with pytest.raises(UserError, match="the DAC has observations of"):
        learner.set_env(point(size=1))


def test_the_policys_learning_rate_is_halved_by_the_steps_alone(demonstrations, tmp_path):
    def learner(halving: int) -> DAC:
        return DAC(point(size=2), demonstrations, seed=3, halving=halving, checkpoint_every=150, **SMALL)

    def rates(made: DAC) -> list[float]:
        nets = made.update_networks
        return [o.param_groups[0]["lr"] / made.learning_rate for o in (nets.actor_optimizer, nets.critic_optimizer)]

    file = tmp_path / "run" / "checkpoint.safetensors"
    never = learner(200).learn(500)
    assert rates(never) == [0.25, 1.0] and rates(learner(0).learn(300)) == [1.0, 1.0]
    with pytest.raises(Killed):
        learner(200).learn(500, Kill(333), checkpoint=file, resume=True)
    resumed = learner(200).learn(500, checkpoint=file, resume=True)
    assert torch.equal(never.update_networks.actor.flat, resumed.update_networks.actor.flat)
    assert not torch.equal(never.update_networks.actor.flat, learner(0).learn(500).update_networks.actor.flat)
    # a run without it has the settings that it always had
    assert "halving" not in learner(0).settings and learner(200).settings["halving"] == 200
    never.save(tmp_path / "dac.zip")
    assert DAC.load(tmp_path / "dac.zip").halving == 200


def test_mistakes_are_one_line(demonstrations, tmp_path):
    with pytest.raises(UserError, match="expected a number of steps for halving, 0 for none, got -1"):
        DAC(point(size=2), demonstrations, halving=-1)
    with pytest.raises(UserError, match=r"DAC expects continuous actions \(Box\), got Discrete\(2\): use GAIL"):
        DAC(gym.make("CartPole-v1"), demonstrations)
    with pytest.raises(UserError, match=r"observations of shape \(3,\), the demonstrations of Point have \(2,\)"):
        DAC(point(size=3), demonstrations)
    with pytest.raises(UserError, match="expected a reward among logit, positive, negative, got 'log'"):
        DAC(point(size=2), demonstrations, reward="log")
    with pytest.raises(UserError, match="expected an activation among relu, tanh, got 'gelu'"):
        DAC(point(size=2), demonstrations, discriminator_activation="gelu")
    DAC(point(size=2), demonstrations, **SMALL).save(tmp_path / "dac.zip")
    with pytest.raises(UserError, match="holds a DAC, expected a SAC"):
        SAC.load(tmp_path / "dac.zip")
    with pytest.raises(UserError, match="expected demonstrations to learn from"):
        DAC.load(tmp_path / "dac.zip", env=point(size=2)).learn(10)
    DAC.load(tmp_path / "dac.zip", env=point(size=2), demonstrations=demonstrations).learn(150)
