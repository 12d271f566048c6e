"""The Wasserstein GAN: whose weights move when, what the penalty is, and that it learns."""

import pytest
import torch

import core_models
from core_models.adversarial import WGANGP, WassersteinLoss, WGANGPConfig
from core_models.errors import UserError
from core_models.training import TensorBatches, TrainingConfig, fit, trainer

TINY = WGANGPConfig(event_shape=(1, 2, 2), latent=2, hidden=(8, 8))


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return WGANGP(TINY)


def moved(model, step):
    """Which players have a gradient after so many calls."""
    loss = WassersteinLoss(model, critic_steps=3)
    for _ in range(step):
        model.zero_grad(set_to_none=True)
        loss({"x": torch.rand(6, 1, 2, 2)}, torch.Generator().manual_seed(step))[0].backward()
    players = {"critic": model.critic, "generator": model.stages}
    return {name for name, own in players.items() if any(p.grad is not None for p in own.parameters())}


def test_the_generator_moves_in_its_turn_only(model):
    assert moved(model, 2) == {"critic"}
    assert moved(model, 3) == {"critic", "generator"}


@pytest.mark.parametrize("penalty", [0.0, 10.0])
def test_each_players_gradient_is_that_of_its_own_loss(model, penalty):
    x, generator = torch.rand(6, 1, 2, 2), torch.Generator().manual_seed(0)
    WassersteinLoss(model, critic_steps=1, penalty=penalty)({"x": x}, torch.Generator().manual_seed(0))[0].backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    made = model.decode(torch.empty(6, 2).normal_(generator=generator))
    (-model.critic(made).mean()).backward()
    for name, p in model.stages.named_parameters():
        torch.testing.assert_close(found[f"stages.{name}"], p.grad)
    model.zero_grad()
    made = made.detach()
    between = (x + torch.empty(6, 1, 1, 1).uniform_(generator=generator) * (made - x)).requires_grad_(True)
    (slope,) = torch.autograd.grad(model.critic(between).sum(), between, create_graph=True)
    steep = (slope.flatten(1).square().sum(1).sqrt() - 1).square().mean()
    (model.critic(made).mean() - model.critic(x).mean() + penalty * steep).backward()
    for name, p in model.critic.named_parameters():
        torch.testing.assert_close(found[f"critic.{name}"], p.grad)


def test_the_penalty_is_of_the_slope_between_real_and_generated(model):
    model.critic = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model.critic[1].weight.copy_(torch.tensor([[3.0, 0.0, 4.0, 0.0]]))  # its slope is 5 everywhere
    batch = {"x": torch.rand(6, 1, 2, 2)}
    with_it, told = WassersteinLoss(model.eval(), penalty=10.0).eval()(batch, torch.Generator().manual_seed(0))
    without, _ = WassersteinLoss(model, penalty=0.0).eval()(batch, torch.Generator().manual_seed(0))
    assert float(told["steepness"]) == pytest.approx(5, abs=1e-5)
    assert float((with_it - without).detach()) == pytest.approx(160, abs=1e-3)


def test_slopes_are_taken_at_random_places_between_real_and_generated(model):
    """The slope of half the squared length is the place itself."""

    class HalfSquare(torch.nn.Module):
        def forward(self, x):
            return 0.5 * x.flatten(1).square().sum(1, keepdim=True)

    model.critic = HalfSquare()
    x, generator = torch.rand(6, 1, 2, 2), torch.Generator().manual_seed(0)
    _, told = WassersteinLoss(model.eval()).eval()({"x": x}, torch.Generator().manual_seed(0))
    made = model.decode(torch.empty(6, 2).normal_(generator=generator))
    between = x + torch.empty(6, 1, 1, 1).uniform_(generator=generator) * (made - x)
    assert float(told["steepness"]) == pytest.approx(float(between.flatten(1).norm(dim=1).mean().detach()), rel=1e-5)


def test_it_trains_in_half_precision(model):
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = WassersteinLoss(model, critic_steps=1)({"x": torch.rand(6, 1, 2, 2)})
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_distance_told_in_half_precision_is_that_of_the_single_scores(model):
    """Scores around 100 come in steps of a half there; their means, and a difference of these, are finer."""
    torch.nn.init.constant_(model.critic[-1].bias, 100.0)
    with torch.no_grad():
        model.critic[-1].weight.mul_(10)
    x = torch.rand(64, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        _, told = WassersteinLoss(model)({"x": x}, torch.Generator().manual_seed(0))
        made = model.decode(torch.empty(64, 2).normal_(generator=torch.Generator().manual_seed(0)))
        real, false = model.critic(x).detach(), model.critic(made).detach()
    expected = float(real.double().mean() - false.double().mean())
    assert real.dtype == torch.bfloat16 and abs(2 * expected - round(2 * expected)) > 0.01  # between two steps
    assert told["wasserstein_distance"].dtype == torch.float32
    assert float(told["wasserstein_distance"]) == pytest.approx(expected, abs=1e-3)


def test_it_learns_two_modes():
    generator = torch.Generator().manual_seed(0)
    modes = torch.tensor([[0.15, 0.85], [0.85, 0.15]])
    x = modes[torch.randint(2, (512,), generator=generator)] + 0.03 * torch.randn(512, 2, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WGANGP(WGANGPConfig(event_shape=(2,), latent=2, hidden=(32, 32)))
    config = TrainingConfig(epochs=150, learning_rate=1e-3, betas=(0.5, 0.9), threads=1)
    fit(WassersteinLoss(model, critic_steps=3), TensorBatches({"x": x}, 128, 0), config, progress=False)
    made = model.sample(400, generator=torch.Generator().manual_seed(1))
    nearest = torch.cdist(made, modes)
    share = (nearest.argmin(1) == 0).float().mean()
    assert 0.25 < float(share) < 0.75  # both modes
    assert float(nearest.amin(1).median()) < 0.15  # of points 1 apart


def test_stages_hand_on_what_decoding_does(model):
    z = torch.randn(3, 2)
    for stage in range(3):
        torch.testing.assert_close(model.decode_from(model.latents_of(z, stage), stage), model.decode(z))
    with pytest.raises(UserError, match="stage from 0 to 2"):
        model.decode_from(z, 3)


def test_saved_and_loaded_it_is_the_same(model, tmp_path):
    core_models.save(model, tmp_path)
    z = torch.randn(3, 2)
    torch.testing.assert_close(core_models.load(tmp_path).decode(z), model.decode(z))


def test_it_is_not_compiled(model, monkeypatch):
    """The penalty differentiates a gradient: torch.compile would fail in the first backward pass, with a traceback."""
    monkeypatch.setattr(trainer, "require_compiler", lambda: None)
    config = TrainingConfig(epochs=1, compile=True, threads=1, device="cpu")
    with pytest.raises(UserError, match="compile: WassersteinLoss can't be compiled: leave compile out"):
        fit(WassersteinLoss(model), TensorBatches({"x": torch.rand(8, 1, 2, 2)}, 8), config, progress=False)


def test_turns_go_on_where_a_loaded_state_was(model):
    batch, generator = {"x": torch.rand(6, 1, 2, 2)}, torch.Generator().manual_seed(0)
    first, second = WassersteinLoss(model, critic_steps=3), WassersteinLoss(model, critic_steps=3)
    for _ in range(2):
        first(batch, generator)
    second(batch, generator)
    second.load_state_dict(first.state_dict())
    model.zero_grad(set_to_none=True)
    second(batch, generator)[0].backward()
    assert second.step.item() == 3 and all(p.grad is not None for p in model.stages.parameters())
    with pytest.raises(UserError, match="WGANGP has no classes"):
        model.sample(2, torch.tensor([0, 1]))
