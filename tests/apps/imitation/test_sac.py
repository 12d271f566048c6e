"""The fast update is the plain one, the plain one is stable-baselines3's, and it learns."""

import json
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import SAC as PlainSAC
from stable_baselines3.common.buffers import ReplayBufferSamples
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tiny_control import Point, mean_return, point

from apps.imitation.learners.off_policy.learner import Diverged
from apps.imitation.learners.off_policy.plain_sac import plain_sac
from apps.imitation.learners.off_policy.policy import Normaliser, SquashedPolicy
from apps.imitation.learners.off_policy.products import as_exact, fast_products
from apps.imitation.learners.off_policy.replay import Replay
from apps.imitation.learners.off_policy.sac import SAC
from apps.imitation.learners.off_policy.sac_reference import ReferenceSAC, plain
from apps.imitation.learners.off_policy.sac_update import SACUpdate
from apps.imitation.learners.off_policy.stacked_mlp import StackedMLP
from core_models.errors import UserError


def filled(observation: int, action: int, absorbing: bool, n: int = 500) -> Replay:
    """A replay of random transitions, some of them from or into the absorbing state."""
    rng = np.random.default_rng(0)
    replay = Replay(n, observation, action)
    here, there = rng.normal(size=(2, n, observation))
    if absorbing:
        here[:, -1], there[:, -1] = rng.random((2, n)) < 0.2
    going_on = 1.0 if absorbing else rng.random(n) < 0.8
    replay.add(here, rng.uniform(-1, 1, (n, action)), there, rng.normal(size=n), going_on)
    return replay


def same(fast: StackedMLP, slow: list) -> bool:
    """Whether copies of a network have the weights of torch's own networks, to 1e-5."""
    for number, network in enumerate(slow):
        pairs = zip(plain(fast, number).parameters(), network.parameters(), strict=True)
        if not all(torch.allclose(a, b, rtol=0, atol=1e-5) for a, b in pairs):
            return False
    return True


@pytest.mark.parametrize("absorbing", [False, True])
@pytest.mark.parametrize("hidden", [(64, 64), (16, 24, 8)])
def test_the_fast_update_gives_the_plain_ones_numbers(absorbing, hidden):
    generator = torch.Generator().manual_seed(1)
    fast = SACUpdate(7, 3, hidden=hidden, absorbing=absorbing, learning_rate=3e-3, generator=generator)
    fast.actor.weights[-1].mul_(20)  # some deviations beyond their bounds, some actions near the edge
    fast.targets.flat.mul_(0.9)
    slow, before = ReferenceSAC(fast, 3e-3), fast.actor.flat.clone()
    replay = filled(7, 3, absorbing)
    with fast_products():
        for _ in range(6):
            batch, noise = replay.sample(128, generator), torch.randn(2, 128, 3, generator=generator)
            fast(batch, batch.rewards, noise)
            slow(batch, batch.rewards, noise)
    assert same(fast.actor, [slow.actor]) and same(fast.critics, slow.critics) and same(fast.targets, slow.targets)
    assert torch.allclose(fast.log_alpha, slow.log_alpha, rtol=0, atol=1e-6)
    assert (fast.actor.flat - before).abs().median() > 1e-3


def test_an_absorbing_state_is_one_however_far_away_it_lies():
    """Ten times the indicator through a tenth of its weights is the same state, so that nothing else may change."""
    told = []
    for size in (1.0, 10.0):
        generator = torch.Generator().manual_seed(1)
        update = SACUpdate(7, 3, hidden=(16, 16), absorbing=True, generator=generator)
        for network in (update.actor, update.critics, update.targets):
            network.weights[0][:, 6] /= size
        replay = filled(7, 3, absorbing=True)
        batch, noise = replay.sample(128, generator), torch.randn(2, 128, 3, generator=generator)
        for seen in (batch.observations, batch.next_observations, batch.pairs):
            seen[:, 6] *= size if seen[:, 6].max() == 1 else 1  # pairs may share the memory of observations
        told.append(update(batch, batch.rewards, noise))
    for one, ten in zip(*told, strict=True):
        torch.testing.assert_close(ten, one, rtol=1e-4, atol=1e-5)


def test_the_fast_update_gives_stable_baselines3s_numbers(monkeypatch):
    generator = torch.Generator().manual_seed(2)
    fast = SACUpdate(5, 2, hidden=(32, 32), generator=generator)
    space = [gym.spaces.Box(-1, 1, (n,), np.float32) for n in (5, 2)]
    peer = plain_sac(SquashedPolicy(fast.actor, Normaliser.none(5), *space, False), fast)
    peer.set_logger(configure(None, [""]))
    replay, noises = filled(5, 2, False), []

    class Stub:
        def sample(self, n, env=None):
            one = [t[:, None] for t in (1 - self.batch.going_on, self.batch.rewards)]
            return ReplayBufferSamples(
                self.batch.observations, self.batch.actions, self.batch.next_observations, *one, None
            )

    peer.replay_buffer = Stub()
    monkeypatch.setattr("torch.distributions.normal._standard_normal", lambda *_, **__: noises.pop(0))
    for _ in range(5):
        batch, noise = replay.sample(64, generator), torch.randn(2, 64, 2, generator=generator)
        peer.replay_buffer.batch = batch
        noises += noise
        fast(batch, batch.rewards, noise)
        peer.train(1, 64)
    expected = plain_sac(SquashedPolicy(fast.actor, Normaliser.none(5), *space, False), fast)
    for ours, theirs in zip(expected.actor.parameters(), peer.actor.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)
    assert same(fast.critics, peer.critic.q_networks) and same(fast.targets, peer.critic_target.q_networks)
    assert float(fast.log_alpha) == pytest.approx(float(peer.log_ent_coef.detach()), abs=1e-6)


def test_products_of_single_precision_stay_exact_and_the_setting_is_put_back():
    before = torch.get_float32_matmul_precision()
    with fast_products():
        assert as_exact()
    assert torch.get_float32_matmul_precision() == before


def test_it_learns_to_go_to_the_origin():
    env = point(size=1)
    learner = SAC(env, seed=1, hidden=(32, 32), batch_size=64, learning_rate=3e-3, gamma=0.9)
    before = mean_return(learner, env)
    learner.learn(1500)
    assert mean_return(learner, env) > -0.15 > 5 * -0.15 > before


def test_same_seed_same_actions_and_another_seed_others():
    found = []
    for seed in (0, 0, 1):
        learner = SAC(point(size=1), seed=seed, hidden=(16, 16), batch_size=32).learn(200)
        found.append(learner.predict(np.linspace(-1, 1, 7)[:, None], deterministic=True)[0])
    assert (found[0] == found[1]).all() and (found[0] != found[2]).any()


def test_a_saved_zip_opens_in_plain_stable_baselines3_with_the_same_actions(tmp_path):
    learner = SAC(point(size=2), hidden=(16, 16), batch_size=32).learn(200)
    learner.save(tmp_path / "sac")
    seen = np.random.default_rng(0).normal(size=(50, 2))
    expected = learner.predict(seen, deterministic=True)[0]
    for opened in (PlainSAC.load(tmp_path / "sac.zip"), SAC.load(tmp_path / "sac")):
        assert np.abs(opened.predict(seen, deterministic=True)[0] - expected).max() < 1e-5
        assert opened.num_timesteps == 200
    with zipfile.ZipFile(tmp_path / "sac.zip") as archive:
        assert b"genapps" not in archive.read("data") and b"apps.imitation" not in archive.read("data")
        assert json.loads(archive.read("genapps/learner.json"))["learner"] == "SAC"


def test_what_was_loaded_goes_on_learning_here_and_in_stable_baselines3(tmp_path):
    SAC(point(size=2), hidden=(16, 16), batch_size=32).learn(200).save(tmp_path / "sac.zip")
    learner = SAC.load(tmp_path / "sac.zip", env=point(size=2))
    learner.learn(300, reset_num_timesteps=False)
    assert learner.num_timesteps == 500
    PlainSAC.load(tmp_path / "sac.zip", env=point(size=2)).learn(150)


def test_callbacks_of_stable_baselines3_work(tmp_path):
    class Count(BaseCallback):
        def _on_step(self):
            return self.n_calls < 120

    seen = []
    evaluation = make_vec_env(lambda: point(size=1), 1)
    callbacks = [EvalCallback(evaluation, eval_freq=50, best_model_save_path=str(tmp_path), verbose=0), Count()]
    learner = SAC(point(size=1), hidden=(16, 16), batch_size=32, tensorboard_log=tmp_path / "board")
    learner.learn(1000, callbacks)
    assert learner.num_timesteps == 120 and (tmp_path / "best_model.zip").exists()
    learner.learn(30, lambda local, _: seen.append(local["rewards"]) or True)
    assert len(seen) == 30 and learner.num_timesteps == 30
    assert list((tmp_path / "board").glob("SAC_*/events*"))
    assert np.isfinite(evaluate_policy(learner, evaluation, 3)[0])


def test_evaluation_between_does_not_change_what_is_learnt():
    class Evaluate(BaseCallback):
        def _on_step(self):
            self.model.predict(np.zeros((3, 1)))
            return True

    plainly, watched = (SAC(point(size=1), hidden=(16, 16), batch_size=32) for _ in range(2))
    plainly.learn(200)
    watched.learn(200, Evaluate())
    assert torch.equal(plainly.update_networks.actor.flat, watched.update_networks.actor.flat)


def test_several_environments_at_once():
    learner = SAC(make_vec_env(lambda: point(size=1), 3), hidden=(16, 16), batch_size=32, learning_starts=60).learn(300)
    assert learner.num_timesteps == len(learner.replay) == 300
    assert learner.update_networks.critic_optimizer.state[learner.update_networks.critics.flat]["step"] == 240


def test_only_an_episode_that_the_environment_ended_goes_on_no_more():
    env = point(size=1, edge=1.5, limit=6, noise=0.3)
    learner = SAC(env, learning_starts=1000).learn(300)
    rows = learner.replay.batch(learner.replay.rows[:300])
    beyond = rows.next_observations[:, 0].abs() > 1.5
    assert torch.equal(rows.going_on, (~beyond).float()) and 0 < beyond.sum() < 50


def test_environments_start_anew_by_another_seed_each_time():
    seeds = []

    class Noted(Point):
        def reset(self, *, seed=None, options=None):
            seeds.append(seed)
            return super().reset(seed=seed)

    env = gym.wrappers.TimeLimit(Noted(), 20)
    SAC(env, learning_starts=1000, checkpoint_every=50).learn(200)
    given = [seed for seed in seeds if seed is not None]
    assert len(set(given)) == len(given) == 5  # at steps 0, 60, 100, 160 and 200, where episodes end


def test_the_oldest_rows_make_room():
    replay = Replay(5, 1, 1)
    for k in range(4):
        row = np.full((2, 1), k, np.float32)
        replay.add(row, row, row, row[:, 0], 1.0)
    assert len(replay) == 5 and sorted(replay.rows[:, 0].tolist()) == [1, 2, 2, 3, 3]


def test_a_run_that_becomes_nan_stops_with_the_last_good_policy():
    class Poison(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == 1500:
                self.model.update_networks.critics.flat.fill_(np.nan)
            return True

    learner = SAC(point(size=1), hidden=(16, 16), batch_size=32)
    with pytest.raises(Diverged, match=r"NaN or infinite at step .* policy of step 1,000 is kept.*learning_rate"):
        learner.learn(2200, Poison())
    expected = SAC(point(size=1), hidden=(16, 16), batch_size=32).learn(1000)
    assert torch.equal(learner.update_networks.actor.flat, expected.update_networks.actor.flat)
    assert np.isfinite(learner.predict(np.zeros(1))[0]).all()
    learner.learn(200)  # and it can go on


def test_other_spaces_are_refused_by_name():
    for env, words in (
        (gym.make("CartPole-v1"), "SAC expects continuous actions .Box., got Discrete.2.: use GAIL"),
        (gym.wrappers.TransformAction(Point(), lambda a: a, gym.spaces.Box(-np.inf, np.inf, (1,))), "finite bounds"),
        (gym.wrappers.AddRenderObservation(gym.make("Pendulum-v1", render_mode="rgb_array")), "vector of observations"),
        (VecNormalize(DummyVecEnv([point])), "without VecNormalize"),
        ("Pendulum-v1", "expected a gymnasium environment or a VecEnv, got str: use gymnasium.make"),
    ):
        with pytest.raises(UserError, match=words):
            SAC(env)


def test_mistakes_are_one_line(tmp_path):
    learner = SAC(point(size=2), hidden=(16, 16), batch_size=32)
    with pytest.raises(UserError, match=r"expected an observation of shape .2,., or rows of them, got shape .3,."):
        learner.predict(np.zeros(3))
    with pytest.raises(UserError, match="learning_rate: expected a number above 0, got 0"):
        SAC(point(), learning_rate=0.0)
    learner.save(tmp_path / "sac.zip")
    with pytest.raises(UserError, match=r"has observations of Box.* the environment Box.*: give the one it had"):
        SAC.load(tmp_path / "sac.zip", env=point(size=1))
    with pytest.raises(UserError, match=r"expected an environment to learn in: SAC.load\(path, env="):
        SAC.load(tmp_path / "sac.zip").learn(10)
    with pytest.raises(UserError, match=r"expected a saved SAC .*other.zip, found none"):
        SAC.load(tmp_path / "other")
    (tmp_path / "short.zip").write_bytes((tmp_path / "sac.zip").read_bytes()[:2000])
    with pytest.raises(UserError, match=r"short.zip is no saved SAC, or is cut short"):
        SAC.load(tmp_path / "short.zip")
    plain_sac(learner.policy, learner.update_networks).save(tmp_path / "plain.zip")
    with pytest.raises(UserError, match="saved by stable-baselines3 alone"):
        SAC.load(tmp_path / "plain.zip")
