"""A stack of draws trains as its members would alone."""

import numpy as np
import pytest
import torch

from apps.semi_supervised.m2 import M2
from apps.semi_supervised.m2_objective import M2Network, M2Objective
from apps.semi_supervised.stacked import fit_stacked
from core_models.errors import UserError
from core_models.latent import ConditionalVAEConfig
from core_models.training import Stacked

CONFIG = ConditionalVAEConfig(event_shape=(6,), latent=2, hidden=(5,), classes=3)


def member(seed, config=CONFIG):
    torch.manual_seed(seed)
    return M2Objective(M2Network(config), n_labelled=4, n_unlabelled=20, observation="binarised").double()


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(10, 6, generator=generator, dtype=torch.float64)
    return {"labelled": x[:4], "y": torch.tensor([0, 1, 2, 0]), "unlabelled": x[4:]}


def test_a_stack_has_the_losses_and_gradients_of_its_members_and_takes_their_steps():
    alone, together = [member(s) for s in range(3)], [member(s) for s in range(3)]
    batches = [batch(s) for s in range(3)]
    stack = Stacked(together)
    joined = {name: torch.stack([b[name] for b in batches]) for name in batches[0]}
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.01) for m in alone]
    stacked_optimizer = torch.optim.Adam(stack.parameters(), lr=0.01)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        losses = []
        for objective, optimizer, own in zip(alone, optimizers, batches, strict=True):
            loss, _ = objective.loss(own, objective.noise(own, generator))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        total, metrics = stack(joined, torch.Generator().manual_seed(step))
        stacked_optimizer.zero_grad()
        total.backward()
        stacked_optimizer.step()
        assert [metrics[f"loss_of_member_{i}"].item() for i in range(3)] == pytest.approx(losses, rel=1e-10)
    stack.unstack()
    for one, other in zip(alone, together, strict=True):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-9, atol=1e-12)


def test_members_of_other_shapes_are_refused():
    other = ConditionalVAEConfig(event_shape=(6,), latent=3, hidden=(5,), classes=3)
    with pytest.raises(UserError, match="expected objectives of one shape to stack, got 2 shapes"):
        Stacked([member(0), member(1, other)])


def test_stacked_estimators_learn_each_its_own_labels():
    rng = np.random.default_rng(0)
    truth = np.arange(90) % 3
    x = np.full((90, 6), 0.1, dtype=np.float32)
    for c in range(3):
        x[truth == c, 2 * c : 2 * c + 2] = 0.9
    x += rng.uniform(0, 0.1, x.shape).astype(np.float32)
    settings = {"latent": 2, "hidden": (16,), "epochs": 40, "learning_rate": 3e-2, "batch_size": 20, "device": "cpu"}
    estimators = [M2(**settings, warmup_steps=0, weight_prior=0.01, random_state=s) for s in range(2)]
    ys = [np.where(np.arange(90) < 9, truth, -1), np.where(np.arange(90) < 9, (truth + 1) % 3, -1)]
    fit_stacked(estimators, x, ys)
    assert estimators[0].score(x, truth) > 0.95
    assert estimators[1].score(x, (truth + 1) % 3) > 0.95  # the other's classes, in another order
    assert estimators[0].transduction_.shape == (90,)


def test_estimators_that_differ_are_refused():
    with pytest.raises(UserError, match="differ in random_state alone"):
        fit_stacked([M2(), M2(alpha=0.2)], np.zeros((4, 2)), [[0, 1, -1, -1]] * 2)
