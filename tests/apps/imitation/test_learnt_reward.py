"""The learnt reward as an environment: what the learner itself is given, and something that SB3 trains on."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv
from tiny_environments import STEPS, Colours, Line, Sides, Signs, demonstrate

from apps.imitation.codes import one_hot, with_code
from apps.imitation.learners import AIRL, BC, DAC, FEM, GAIL, GTAL, InfoGAIL
from apps.imitation.rewards import LearntReward, LearntRewardVecEnv, RewardOf
from core_models.errors import UserError

SMALL = {"steps": 80, "hidden": (8,), "seed": 3}
FEW = {"judge_hidden": (8,), "critic_steps": 2, "posterior_steps": 2, "judge_batch": 20, "cloning_epochs": 1}
LEARNERS = [
    (GAIL, Line, {}),
    (GAIL, Signs, {"reward": "negative", "algorithm": "ppo"}),
    (GAIL, Line, {"spectral_norm": True, "reward": "logit"}),
    (GAIL, Colours, {"steps": 20}),
    (AIRL, Line, {}),
    (AIRL, Signs, {"shaping": False, "reward": "positive"}),
    (FEM, Line, {}),
    (GTAL, Signs, {"reward": "negative"}),
    (InfoGAIL, Sides, {**FEW, "augmentation": 0.5, "entropy": 0.1, "survival": 0.7}),
    (InfoGAIL, Sides, {**FEW, "critic": "gan"}),
]


def made(kind, env=Line, **more):
    trajectories = 2 if env is Colours else 4
    if kind is DAC:
        return DAC(env(), demonstrate(env(), trajectories), hidden=(8,), learning_starts=20, seed=3, **more)
    return kind(make_vec_env(env, n_envs=2, seed=3), demonstrate(env(), trajectories), **{**SMALL, **more})


def numpy_of(observations):
    return observations.numpy() if isinstance(observations, torch.Tensor) else None


@pytest.mark.parametrize(("kind", "env", "more"), LEARNERS)
def test_it_is_what_the_learner_is_given_while_it_learns(kind, env, more):
    learner = made(kind, env, **more)
    whole, seen = learner.generator.judge, []

    def judged(rollout):
        given = whole(rollout)
        following = rollout.next_observations()
        ended = (rollout.dones & ~rollout.truncated).numpy()
        found = RewardOf(learner)(
            numpy_of(rollout.observations), rollout.actions.numpy(), numpy_of(following), ended,
            rollout.true_rewards.numpy(),
        )  # fmt: skip
        seen.append((found, given.numpy().copy()))
        return given

    learner.generator.judge = judged
    learner.learn(2 * learner.steps)
    assert len(seen) == 2
    for found, given in seen:
        np.testing.assert_allclose(found, given, atol=1e-6, rtol=1e-5)
        assert found.std() > 0


def test_a_reopened_reward_with_spectral_norms_stands_still(tmp_path):
    learner = made(GAIL, spectral_norm=True)
    learner.learn(2 * learner.steps)
    learner.save(tmp_path / "policy.zip")
    rows = demonstrate(Line(), 1)
    steps = (rows.observations, rows.actions, rows.next_observations(), np.zeros(len(rows), bool), rows.rewards)
    reopened = RewardOf(tmp_path / "policy.zip")
    first = reopened(*steps)
    np.testing.assert_array_equal(reopened(*steps), first)
    np.testing.assert_array_equal(RewardOf(learner)(*steps), first)
    assert first.std() > 0


def test_a_saved_wasserstein_critic_keeps_its_zero(tmp_path):
    learner = made(InfoGAIL, Sides, **FEW)
    learner.learn(2 * learner.steps)
    learner.save(tmp_path / "policy.zip")
    space = learner.observation_space
    seen = np.stack([space.sample() for _ in range(20)])
    seen[:, -2:] = one_hot(1, 2)
    steps = (seen, learner.expert_actions[:20].numpy(), seen, np.zeros(20, bool), np.zeros(20, np.float32))
    inside, reopened = RewardOf(learner)(*steps), RewardOf(tmp_path / "policy.zip")(*steps)
    np.testing.assert_array_equal(inside, reopened)
    other = RewardOf(tmp_path / "policy.zip", demonstrations=demonstrate(Sides(), 2))(*steps)
    assert float(np.ptp(other - inside)) < 1e-5 < abs(float((other - inside).mean()))  # another zero, nothing else


@pytest.mark.parametrize("distance", [1.0, 7.0])
def test_of_dac_it_is_what_the_critics_are_taught(distance):
    learner = made(DAC, absorbing_distance=distance)
    learner.learn(60)
    batch = learner.replay.sample(32, learner.generator)
    size = learner.policy.observation_space.shape[0]
    pairs = batch.pairs.numpy()
    observations = pairs[:, :size] * learner.policy.normaliser.scale + learner.policy.normaliser.mean
    taught = learner.discriminator.logits(batch.pairs).numpy()  # the reward is the logit
    never = np.zeros(32, bool)
    found = RewardOf(learner)(observations, pairs[:, size + 1 :], observations, never, np.zeros(32))
    np.testing.assert_allclose(found, taught, atol=1e-5)
    ended = RewardOf(learner)(observations, pairs[:, size + 1 :], observations, ~never, np.zeros(32))
    absorbing = np.zeros((1, pairs.shape[1]), np.float32)
    absorbing[0, size] = distance
    worth = float(learner.discriminator.logits(torch.as_tensor(absorbing)))
    later = sum(0.99**i * worth for i in range(1, 5000))
    np.testing.assert_allclose(ended - found, np.full(32, later), rtol=1e-3)


@pytest.mark.parametrize(("kind", "env", "code"), [(GAIL, Line, None), (InfoGAIL, Sides, 1), (DAC, Line, None)])
def test_the_wrapper_passes_the_checker_and_keeps_the_true_reward(kind, env, code, tmp_path):
    learner = made(kind, env, **(FEW if kind is InfoGAIL else {}))
    learner.save(tmp_path / "policy.zip")
    options = {"demonstrations": demonstrate(env(), 4)} if kind is InfoGAIL else {}
    wrapped = LearntReward(env(), tmp_path / "policy.zip", code=code, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is different from the unwrapped version")
        check_env(wrapped, skip_render_check=True)
    plain = env()
    plain.reset(seed=5)
    before, _ = wrapped.reset(seed=5)
    before = np.array(before)
    wrapped.action_space.seed(5)
    for _ in range(STEPS):
        action = wrapped.action_space.sample()
        after, learnt, terminated, truncated, info = wrapped.step(action)
        _, true, *_ = plain.step(action)
        assert info["true_reward"] == pytest.approx(true)
        shown = [x[None] if code is None else with_code(x, one_hot(code, 2))[None] for x in (before, after)]
        ended = np.array([terminated])
        (expected,) = RewardOf(learner)(shown[0], action[None], shown[1], ended, np.array([true]))
        assert learnt == pytest.approx(float(expected), abs=1e-5)
        before = np.array(after)
    assert truncated


def test_side_by_side_it_is_the_same_also_where_episodes_end():
    learner = made(AIRL)
    one = LearntReward(Line(), learner)
    both = LearntRewardVecEnv(DummyVecEnv([Line, Line]), learner)
    both.seed(7)
    both.reset()
    one.reset(seed=7)
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        actions = rng.uniform(-1, 1, (2, 1)).astype(np.float32)
        _, learnt, dones, infos = both.step(actions)
        _, expected, _, _, info = one.step(actions[0])
        assert learnt[0] == pytest.approx(expected, abs=1e-5)
        assert infos[0]["true_reward"] == pytest.approx(info["true_reward"])
        assert dones.all() == (step == STEPS - 1)


def test_what_airl_means_for_other_policies_is_g_alone():
    learner = made(AIRL).learn(80)
    rows = demonstrate(Line(), 1)
    ended = np.zeros(len(rows), bool)
    given = (rows.observations, rows.actions, rows.next_observations(), ended, rows.rewards)
    whole, g = RewardOf(learner)(*given), RewardOf(learner, transfer=True)(*given)
    with torch.no_grad():
        network = learner.reward_network
        seen, after, taken = (torch.as_tensor(x) for x in (rows.observations, rows.next_observations(), rows.actions))
        h = [network.h(network.states(x)).squeeze(1) for x in (seen, after)]
        log_prob = learner.policy.get_distribution(seen).log_prob(taken)
        shaped = torch.as_tensor(g) + learner.gamma * h[1] - h[0] - log_prob
    np.testing.assert_allclose(whole, shaped.numpy(), atol=1e-5)


def test_plain_ppo_trains_on_it(tmp_path):
    made(GAIL).save(tmp_path / "policy.zip")
    env = LearntRewardVecEnv(make_vec_env(Line, n_envs=2, seed=3), tmp_path / "policy.zip")
    PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1, seed=0, device="cpu").learn(64)
    single = LearntReward(Line(), tmp_path / "policy.zip")
    model = PPO("MlpPolicy", single, n_steps=40, batch_size=40, n_epochs=1, seed=0, device="cpu").learn(40)
    assert model.rollout_buffer.rewards.min() > 0  # -log(1 - D); the true ones are never above 0


def test_mistakes_are_one_line(tmp_path):
    made(GAIL).save(tmp_path / "gail.zip")
    with pytest.raises(UserError, match=r"with a learnt reward \(GAIL.*got BC"):
        LearntReward(Line(), BC(Line(), demonstrate(Line(), 1)))
    with pytest.raises(UserError, match=r"a reward of GAIL: expected a policy for the observations"):
        LearntReward(gymnasium.make("CartPole-v1"), tmp_path / "gail.zip")
    with pytest.raises(UserError, match="found nothing at"):
        LearntReward(Line(), tmp_path / "none.zip")
    PPO("MlpPolicy", Line(), n_steps=8, batch_size=8, device="cpu").save(tmp_path / "plain.zip")
    with pytest.raises(UserError, match="saved by stable-baselines3 alone"):
        LearntReward(Line(), tmp_path / "plain.zip")
    with pytest.raises(UserError, match="an AIRL"):
        LearntReward(Line(), tmp_path / "gail.zip", transfer=True)
    with pytest.raises(UserError, match="GAIL has no codes"):
        LearntReward(Line(), tmp_path / "gail.zip", code=0)
    learner = made(InfoGAIL, Sides, **FEW)
    learner._saved = learner._weights  # as older versions saved it
    learner.save(tmp_path / "info_gail.zip")
    with pytest.raises(UserError, match="demonstrations: expected those that the InfoGAIL learnt from"):
        LearntReward(Sides(), tmp_path / "info_gail.zip", code=0)
    for code in (None, 2):
        with pytest.raises(UserError, match=f"0 to 1, got {code}"):
            LearntReward(Sides(), learner, code=code)
    assert isinstance(LearntReward(Sides(), learner, code=1).observation_space, spaces.Box)
