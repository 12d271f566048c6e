import torch

from apps.compressed_sensing.generative.uncertainty_autoencoder import (
    UncertaintyAutoencoder,
    UncertaintyAutoencoderModel,
)
from core_models.latent import UAEConfig
from core_models.training import TrainingConfig

SHAPE = (1, 4, 4)


def test_once_fitted_an_autoencoder_measures_and_recovers_by_what_it_has_just_learnt():
    config = UAEConfig(SHAPE, measurements=5, hidden=(6,), noise=0.2)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        old = UncertaintyAutoencoderModel(UAEConfig(SHAPE, measurements=3, hidden=(6,), noise=0.1))
    x = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(0))
    settings = {"config": config, "training": TrainingConfig(epochs=1)}
    method = UncertaintyAutoencoder(old, **settings)
    assert method.fitted is old and method.operator.m == 3
    method.fit(x)
    fresh = UncertaintyAutoencoder(**settings).fit(x)
    assert method.operator.m == 5 and method.noise == 0.2
    torch.testing.assert_close(method.operator.matrix(), fresh.operator.matrix())
    y = method.operator(x)
    torch.testing.assert_close(method.reconstruct(y), fresh.reconstruct(y))


def test_signals_of_8_bits_teach_what_they_teach_as_shares_of_255():
    levels = torch.randint(256, (20, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    settings = {"config": UAEConfig(SHAPE, measurements=3, hidden=(6,)), "training": TrainingConfig(epochs=2)}
    first, second = (UncertaintyAutoencoder(batch_size=5, **settings).fit(x).fitted for x in (levels, levels / 255))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
