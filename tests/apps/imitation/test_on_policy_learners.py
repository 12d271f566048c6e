"""Each on-policy learner learns a trivial task, and does not without demonstrations of it."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecTransposeImage
from tiny_environments import Colours, Line, Sides, Signs, demonstrate, score

from apps.imitation.codes import Coded
from apps.imitation.demonstrations import Demonstrations
from apps.imitation.learners import AIRL, BC, FEM, GAIL, GTAL, InfoGAIL
from apps.imitation.networks.discriminator import Discriminator, learnt_reward, logistic_loss
from apps.imitation.policies import sees_images
from apps.imitation.spaces_as_json import Spaces
from core_models.errors import UserError

QUICK = {"steps": 400, "hidden": (32,), "gamma": 0.5, "generator_settings": {"target_kl": 0.03, "learning_rate": 1e-2}}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(kind, env, steps=8000, envs=4, demonstrations=None, **more):
    given = demonstrate(env()) if demonstrations is None else demonstrations
    learner = kind(make_vec_env(env, n_envs=envs, seed=0), given, **{**QUICK, **more})
    return learner.learn(steps)


@pytest.mark.parametrize("algorithm", ["trpo", "ppo"])
def test_gail_learns_to_tell_signs(algorithm):
    more = {"generator_settings": {"learning_rate": 3e-3}} if algorithm == "ppo" else {}
    learner = trained(GAIL, Signs, algorithm=algorithm, discriminator_steps=5, **more)
    assert learner.history[0]["true_return"] < 0.7 * 20
    assert score(learner, Signs()) > 0.95


def test_gail_learns_nothing_from_demonstrations_of_nothing():
    learner = trained(GAIL, Signs, demonstrations=demonstrate(Signs(), at_random=True))
    assert 0.2 < score(learner, Signs()) < 0.8


@pytest.mark.parametrize("more", [{}, {"shaping": False, "reward": "positive"}])
def test_airl_learns_it_too(more):
    assert score(trained(AIRL, Signs, **more), Signs()) > 0.9


@pytest.mark.parametrize("kind", [FEM, GTAL])
def test_linear_rewards_lead_to_the_expert_s_side(kind):
    both = demonstrate(Sides())
    given = both.select(np.flatnonzero(both.codes == 1))
    learner = trained(kind, Sides, steps=6000, demonstrations=given)
    env = Sides()
    place, _ = env.reset(seed=0)
    for _ in range(20):
        place, *_ = env.step(learner.predict(place, deterministic=True)[0])
    assert 0.4 < float(place[0]) <= 2.0  # the expert's is 1.4


@pytest.mark.parametrize("more", [{"gradient_penalty": 0.1}, {"spectral_norm": True}, {"discriminator_batch": 64}])
def test_gail_learns_with_a_discriminator_held_back(more):
    learner = trained(GAIL, Signs, discriminator_steps=10, reward="logit", **more)
    assert score(learner, Signs()) > 0.8


def test_gail_learns_a_line():
    assert score(trained(GAIL, Line, steps=12000, discriminator_steps=3), Line()) > -0.2
    assert score(trained(GAIL, Line, steps=400), Line()) < -0.25


def test_pictures_with_channels_last_are_turned_as_sb3_turns_them():
    given = demonstrate(Colours(), trajectories=2)
    env = make_vec_env(Colours, n_envs=1, seed=0)
    learner = GAIL(env, given, steps=40, hidden=(16,), discriminator_steps=30, discriminator_learning_rate=1e-3)
    assert learner.observation_space.shape == (3, 36, 36)
    shown = VecTransposeImage.transpose_image(given.observations[0])
    np.testing.assert_array_equal(learner.expert_observations[0].numpy(), shown)
    learner.learn(40)
    assert learner.history[-1]["accuracy_expert"] > 90
    cloned = BC(Colours(), given, learning_rate=1e-3, hidden=(16,)).learn(epochs=20)
    assert score(cloned, Colours()) > 0.9


def test_behavioural_cloning_learns_a_line_and_keeps_its_best_weights():
    learner = BC(Line(), demonstrate(Line()), hidden=(32,), learning_rate=1e-2).learn(epochs=60)
    assert score(learner, Line()) > -0.06
    losses = [record["validation_loss"] for record in learner.history]
    with torch.no_grad():
        order = torch.randperm(len(learner.actions), generator=torch.Generator().manual_seed(0))
        kept = -learner._log_probs(order[: int(0.3 * len(order))]).mean()
    assert float(kept) == pytest.approx(min(losses), abs=1e-5)


def test_cloning_knows_how_far_actions_scatter():
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(4000, 2)).astype(np.float32)
    scatter = np.array([0.1, 0.02])
    meant = seen @ np.array([[0.5, 0.1], [-0.2, 0.3]])
    rows = Demonstrations(
        observations=seen, actions=meant + scatter * rng.normal(size=meant.shape), lengths=np.array([4000]),
        environment="None-v0",
    )  # fmt: skip
    box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    learner = BC(Spaces(box, spaces.Box(-1, 1, (2,), np.float32)), rows, hidden=(16,), learning_rate=0.01).learn(
        epochs=30
    )
    np.testing.assert_allclose(learner.policy.log_std.detach().exp().numpy(), scatter, rtol=0.15)
    entropy = float(np.log(scatter * np.sqrt(2 * np.pi * np.e)).sum())  # the least loss that there is
    last = learner.history[-1]
    assert last["loss"] == pytest.approx(entropy, abs=0.2) and last["validation_loss"] == pytest.approx(
        entropy, abs=0.2
    )


def test_images_are_cloned_by_smaller_steps():
    assert BC(Line(), None).learning_rate == 1e-3
    assert BC(Colours(), None).learning_rate == 3e-4 and BC(Colours(), None, learning_rate=0.01).learning_rate == 0.01
    image = spaces.Dict({"image": Colours().observation_space, "state": Line().observation_space})
    assert sees_images(image) and not sees_images(spaces.Dict({"state": Line().observation_space}))


def test_many_rows_are_passed_over_fewer_times(monkeypatch):
    learner = BC(Line(), demonstrate(Line(), trajectories=4), batch_size=8, hidden=(4,))  # 56 of 80 rows: 7 batches
    assert learner.most_epochs == 1000
    monkeypatch.setattr("apps.imitation.learners.bc.MOST_STEPS", 22)
    assert learner.most_epochs == 3 and len(learner.learn().history) == 3


def test_weight_decay_shrinks_the_weights():
    norms = []
    for decay in (0.0, 10.0):
        policy = BC(Line(), demonstrate(Line()), weight_decay=decay, validation=0).learn(epochs=30).policy
        norms.append(float(policy.mlp_extractor.policy_net[0].weight.detach().norm()))
    assert norms[1] < 0.9 * norms[0]


def modes_of(learner):
    """Returns the side that each code leads to: the sign of the last place."""
    found = []
    for code in range(2):
        env = Coded(Sides(), 2, code)
        observation, _ = env.reset(seed=1)
        over = False
        while not over:
            action, _ = learner.predict(observation, deterministic=True)
            observation, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
        found.append(float(observation[0]))
    return found


def test_info_gail_separates_two_modes():
    learner = trained(
        InfoGAIL, Sides, steps=6000, critic="gan", judge_hidden=(32,), judge_batch=100, critic_steps=5,
        posterior_steps=5, cloning_epochs=5, information=0.5,
    )  # fmt: skip
    places = sorted(modes_of(learner))
    assert places[0] < -0.7 < 0.7 < places[1]
    assert learner.history[-1]["posterior_accuracy"] > 75


def test_the_critic_is_high_on_the_expert():
    for critic in ("gan", "wasserstein", "wasserstein-clip"):
        learner = InfoGAIL(
            make_vec_env(Sides, n_envs=1, seed=0), demonstrate(Sides()), critic=critic, steps=200, cloning_epochs=0,
            judge_hidden=(16,), critic_steps=40, critic_learning_rate=1e-2, hidden=(8,),
        )  # fmt: skip
        learner.learn(200)
        assert learner.history[0]["critic_gap"] > 0, critic


def test_the_discriminator_is_high_on_the_expert_and_the_rewards_are_of_it():
    torch.manual_seed(0)
    env = Line()
    network = Discriminator(env.observation_space, env.action_space, (16,))
    expert, learner = torch.full((64, 2), 1.0), torch.full((64, 2), -1.0)
    actions = torch.zeros(64, 1)
    adam = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(50):
        loss = logistic_loss(network(expert, actions), network(learner, actions))
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        d = torch.sigmoid(network(expert, actions))
        assert d.min() > 0.8 and torch.sigmoid(network(learner, actions)).max() < 0.2
        logits = network(expert, actions)
    torch.testing.assert_close(learnt_reward(logits, "positive"), -torch.log(1 - d))
    torch.testing.assert_close(learnt_reward(logits, "negative"), torch.log(d))
    torch.testing.assert_close(learnt_reward(logits, "logit"), torch.log(d) - torch.log(1 - d))


def test_apprenticeship_weights_are_the_best_of_those_allowed():
    torch.manual_seed(0)
    expert, learner = torch.randn(7), torch.randn(7)
    drawn = torch.randn(20000, 7)
    ball = drawn / drawn.norm(dim=1, keepdim=True)
    best = FEM.best_weights(expert, learner)
    assert float(best.norm()) == pytest.approx(1.0)
    found = float(best @ (expert - learner))
    tried = float((ball @ (expert - learner)).max())
    assert tried <= found + 1e-6 and tried > 0.8 * found
    signed = torch.distributions.Dirichlet(torch.full((14,), 0.1)).sample((20000,))
    simplex = signed[:, :7] - signed[:, 7:]
    best = GTAL.best_weights(expert, learner)
    assert float(best.abs().sum()) == 1.0
    found, tried = float(best @ (expert - learner)), float((simplex @ (expert - learner)).max())
    assert tried <= found + 1e-5 and tried > found - 0.2


@pytest.mark.parametrize("kind", [FEM, GTAL])
def test_linear_rewards_of_discrete_actions_tell_which_action_in_which_state(kind):
    assert score(trained(kind, Signs), Signs()) > 0.9


def test_airl_has_no_state_after_the_end():
    learner = AIRL(make_vec_env(lambda: Signs(patience=2), n_envs=1, seed=0), demonstrate(Signs()), **QUICK)
    network = learner.reward_network
    s, a, after = torch.randn(4, 2), torch.zeros(4, 1), torch.randn(4, 2)
    ended = torch.tensor([True, True, False, False])
    with torch.no_grad():
        found = network(s, a, after, ended)
        g = network.g(network.encoder(s, a))[:, 0]
        h, h_after = (network.h(network.states(x))[:, 0] for x in (s, after))
    torch.testing.assert_close(found, g - h + learner.gamma * torch.where(ended, 0.0, h_after))


def test_bad_settings_are_one_clear_line():
    env, given = Line(), demonstrate(Line())
    with pytest.raises(UserError, match="expected one of positive, negative, logit, got 'plus'"):
        GAIL(env, given, reward="plus")
    with pytest.raises(UserError, match="whole trajectories"):
        AIRL(env, given.subsampled(3, seed=0))
    with pytest.raises(UserError, match=r"discrete code of 2 values or more, got 0.5"):
        InfoGAIL(env, given, codes=0.5)
    with pytest.raises(UserError, match="multiple of the 2 environments"):
        GAIL(make_vec_env(Line, n_envs=2), given, steps=401)
    with pytest.raises(UserError, match="observations of shape"):
        GAIL(env, demonstrate(Sides()))
    with pytest.raises(UserError, match="one whole number an action"):
        GAIL(Signs(), demonstrate(Line()))


def test_a_run_that_diverges_keeps_the_last_good_policy():
    learner = GAIL(make_vec_env(Line, n_envs=1, seed=0), demonstrate(Line()), **QUICK)
    learner.learn(400)
    good = {name: value.clone() for name, value in learner.policy.state_dict().items()}

    def spoil(self):
        with torch.no_grad():
            next(iter(learner.policy.parameters())).fill_(float("nan"))

    def train(self):
        spoil(self)
        learner._after_iteration()

    learner.generator.__class__ = type("Spoilt", (type(learner.generator),), {"train": train})
    with pytest.raises(UserError, match="gail diverged at 800 steps"):
        learner.learn(400, reset_num_timesteps=False)
    assert all(torch.isfinite(p).all() for p in learner.policy.parameters())
    for name, value in good.items():
        if "normaliser" not in name:
            assert torch.equal(value, learner.policy.state_dict()[name])


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        (GAIL, {"hidden": (-3,)}, "hidden: expected numbers above 0"),
        (GAIL, {"steps": 1}, "steps: expected 2 env steps"),
        (GAIL, {"reseed_every": -1}, "reseed_every: expected a number of 0 or more, got -1"),
        (GAIL, {"discriminator_hidden": (0,)}, "discriminator_hidden: expected numbers above 0"),
        (GAIL, {"discriminator_steps": -1}, "discriminator_steps: expected a number above 0"),
        (GAIL, {"gradient_penalty": -1}, "gradient_penalty: expected a number of 0 or more"),
        (AIRL, {"reward_learning_rate": -1, "shaping": False}, "reward_learning_rate: expected a number above 0"),
        (InfoGAIL, {"critic_steps": -1}, "critic_steps: expected a number of 0 or more"),
        (InfoGAIL, {"judge_batch": 0}, "judge_batch: expected a number above 0"),
        (InfoGAIL, {"judge_hidden": (0,)}, "judge_hidden: expected numbers above 0"),
        (InfoGAIL, {"target": 1.5}, "target: expected a number from 0 to 1, got 1.5"),
        (BC, {"batch_size": 0}, "batch_size: expected a number above 0"),
        (BC, {"learning_rate": 0.0}, "learning_rate: expected a number above 0"),
        (BC, {"patience": -1}, "patience: expected a number of 0 or more"),
    ],
)
def test_settings_out_of_range_are_named(kind, more, words):
    with pytest.raises(UserError, match=words):
        kind(make_vec_env(Line, n_envs=1, seed=0), demonstrate(Line(), 2), **more)
