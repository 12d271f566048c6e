"""The architectures at the size of their papers."""

import torch
import yaml

from apps.common.presets import presets_folder
from core_models import registry
from core_models.autoregressive import GatedPixelCNN, GatedPixelCNNConfig, PixelCNN, PixelCNNConfig


def test_pixel_cnn_pp_of_cifar10_builds_and_takes_a_step():
    text = (presets_folder() / "core_models" / "pixel_cnn_pp_cifar10.yaml").read_text()
    config = yaml.safe_load(text)["model_config"]
    model = registry.build("pixel-cnn-pp", {**config, "event_shape": [3, 32, 32]})
    assert 50e6 < sum(p.numel() for p in model.parameters()) < 58e6  # the paper's code has 54 million
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, betas=(0.95, 0.9995))
    x = torch.randint(0, 256, (1, 3, 32, 32), generator=torch.Generator().manual_seed(0)) / 255
    before = model.head.output.weight.detach().clone()
    loss = -model.log_prob(x).mean()
    loss.backward()
    optimiser.step()
    bits = loss.item() / (3072 * 0.6931)
    assert 5 < bits < 12 and not torch.equal(before, model.head.output.weight)


def test_the_first_pixel_cnns_build_at_their_size():
    with torch.device("meta"):
        plain, gated = PixelCNN(PixelCNNConfig()), GatedPixelCNN(GatedPixelCNNConfig())
    assert plain.event_shape == gated.event_shape == (3, 32, 32)
    assert sum(p.numel() for p in plain.parameters()) > 3e6 and len(gated.layers) == 15
