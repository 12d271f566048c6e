"""What judges steps sees both sides' actions alike: clipped as environments execute them, or as they were drawn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from tiny_environments import Line, Signs, demonstrate

from apps.imitation.learners import AIRL, FEM, GAIL, GTAL, InfoGAIL
from apps.imitation.learners.archive import read_archive
from apps.imitation.learners.over_sb3 import constructor_settings
from apps.imitation.learners.resuming import identity
from apps.imitation.rewards import RewardOf
from apps.imitation.tables.modes import default_settings

SMALL = {"steps": 80, "hidden": (8,), "seed": 3}
FEW = {"judge_hidden": (8,), "critic_steps": 2, "posterior_steps": 2, "judge_batch": 20, "cloning_epochs": 1}


def rows_of(at_most: float):
    """Returns demonstrations of Line, those of one action as far out as is asked for."""
    rows = demonstrate(Line(), 4)
    actions = np.clip(rows.actions, -0.9, 0.9)
    actions[3] = at_most
    return replace(rows, actions=actions.astype(np.float32))


def made(kind, rows, **more):
    return kind(make_vec_env(Line, n_envs=2, seed=3), rows, **{**SMALL, **more})


def rollouts(learner):
    """Returns the rollout of an iteration as the policy drew it, and as it was judged."""
    own, whole, kept = learner.judge, learner.generator.judge, []
    learner.judge = lambda rollout: kept.append(rollout) or own(rollout)
    learner.generator.judge = lambda rollout: kept.append(rollout) or whole(rollout)
    learner.learn(80)
    return kept


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (GAIL, {}), (FEM, {}), (GTAL, {}),
        (AIRL, {"clip_actions": None}), (InfoGAIL, {**FEW, "clip_actions": None}),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("at_most", "clips"), [(1.0, True), (1.7, False)])
def test_both_sides_are_judged_as_the_demonstrations_were_recorded(kind, more, at_most, clips):
    learner = made(kind, rows_of(at_most), **more)
    assert learner.clip_actions is clips
    drawn, judged = rollouts(learner)
    assert float(drawn.actions.abs().max()) > 1
    expected = drawn.actions.clamp(-1, 1) if clips else drawn.actions
    assert torch.equal(judged.actions, expected) and judged.log_probs is drawn.log_probs
    assert float(learner.expert_judged.abs().max()) == pytest.approx(at_most)
    if isinstance(learner, InfoGAIL):
        assert torch.equal(torch.cat([own.actions for own in learner.past]), expected)
    else:
        seen = torch.cat([learner.expert_actions, expected]).double()  # what the actions are normalised by
        torch.testing.assert_close(learner.action_normaliser.mean, seen.mean(0))
    # the update is of the actions that were drawn
    own = learner.generator.rollout_buffer.actions
    assert np.array_equal(np.sort(own.ravel()), np.sort(drawn.actions.numpy().ravel()))


def test_nothing_tells_a_policy_from_its_own_demonstrations():
    """By the action alone: gaps of their distribution functions, at the bounds above all."""
    rows = demonstrate(Line(), 50)
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(len(rows), 1)).astype(np.float32)  # as the policy before it has learnt anything
    for actions in (np.clip(drawn, -1, 1), drawn):
        learner = made(GAIL, replace(rows, actions=actions), steps=1000)
        judged = []
        own = learner.judge
        learner.judge = lambda rollout, own=own, judged=judged: judged.append(rollout.actions) or own(rollout)
        learner.learn(1000)
        both = learner.expert_judged.ravel().numpy(), judged[0].ravel().numpy()
        for side in (np.less, np.less_equal):
            gaps = [abs(side(both[0], x).mean() - side(both[1], x).mean()) for x in (-1.0, 0.0, 1.0)]
            assert max(gaps) < 0.08, gaps  # one sixth is drawn beyond each bound


def test_demonstrations_beyond_the_bounds_are_clipped_too_where_it_is_asked_for():
    learner = made(AIRL, rows_of(1.7), clip_actions=True, reward_steps=1)
    assert float(learner.expert_judged.abs().max()) == 1 and float(learner.expert_actions.max()) > 1.6
    assert float(learner.action_normaliser.mean) == pytest.approx(float(learner.expert_judged.mean()), abs=1e-6)
    learner.reward_network.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    seen = []
    learner.learn(80)
    assert max(float(actions.abs().max()) for actions in seen) == 1


def test_a_rounding_beyond_the_bounds_is_none():
    assert made(GAIL, rows_of(1 + 1e-6)).clip_actions is True
    assert made(GAIL, rows_of(1.001)).clip_actions is False
    assert GAIL(Signs(), demonstrate(Signs(), 2), steps=40, clip_actions=True).clip_actions is False


@pytest.mark.parametrize("clips", [True, False])
def test_a_saved_learner_knows_it(clips, tmp_path):
    learner = made(GAIL, rows_of(0.9), clip_actions=clips).learn(80)
    learner.save(tmp_path / "gail.zip")
    # an archive that says nothing of it is of a version that compared actions before clipping
    assert read_archive(tmp_path / "gail.zip", "gail")[0]["settings"].get("clip_actions", "unsaid") == (
        True if clips else "unsaid"
    )
    for again in (GAIL.load(tmp_path / "gail.zip"), GAIL.load(tmp_path / "gail.zip", Line(), rows_of(0.9))):
        assert again.clip_actions is clips
    seen = np.zeros((2, 2), np.float32)
    rest = (seen, np.zeros(2, bool), np.zeros(2, np.float32))
    beyond, at = RewardOf(tmp_path / "gail.zip")(seen, np.array([[3.0], [1.0]], np.float32), *rest)
    assert (beyond == at) is np.bool_(clips)


def test_what_cells_were_hashed_by_and_checkpoints_identified_by_stays_where_nothing_is_clipped():
    learner = made(GAIL, rows_of(1.7))
    assert "clip_actions" not in constructor_settings(learner) | default_settings(GAIL) | default_settings(InfoGAIL)
    assert identity(made(GAIL, rows_of(0.9)))["config"]["clip_actions"] == "True"
    assert InfoGAIL(Line(), rows_of(0.9), steps=40, **FEW).clip_actions is False


@pytest.mark.parametrize(("kind", "more"), [(AIRL, {}), (InfoGAIL, FEW)])
def test_what_is_left_out_clips_nothing_where_the_reward_has_the_density_of_what_was_drawn(kind, more):
    assert made(kind, rows_of(1.0), **more).clip_actions is False
