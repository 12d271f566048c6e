"""First weights follow from a seed, and drawing them leaves torch's generators, those of GPUs too, as they were."""

import numpy as np
import pytest
import torch

from apps.common.building import build_model
from apps.imitation.environments.difficulty import train_classifier
from apps.pixeldefend.classifiers import build_classifier
from core_models.data import load as load_data


def density(seed):
    return build_model("vae", {"latent": 2, "hidden": (3,)}, load_data("digits"), seed)


def classifier(seed):
    return build_classifier("resnet", {"widths": (2, 2, 2, 2), "units": 1}, load_data("digits"), seed)


def cnn(seed):
    return train_classifier(np.zeros((2, 16, 16, 3), np.uint8), np.array([0, 1]), seed=seed, epochs=0)


@pytest.mark.parametrize("make", [density, classifier, cnn])
def test_first_weights_follow_from_the_seed_and_leave_no_trace(make, monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    first, again, other = (list(make(seed).parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.get_rng_state(), before) and not seeded
