"""Laws that every autoregressive model obeys, on images small enough to enumerate."""

from collections.abc import Callable
from itertools import product
from math import log

import jaxtyping
import pytest
import torch
from torch import Tensor

import core_models
from core_models.autoregressive import (
    CausalImageModel,
    GatedPixelCNN,
    GatedPixelCNNConfig,
    PixelCNN,
    PixelCNNConfig,
    PixelCNNPlusPlus,
    PixelCNNPlusPlusConfig,
)
from core_models.base import Autoregressive
from core_models.errors import UserError

CNN = {"filters": 8, "blocks": 2, "features": 16}
GATED = {"filters": 6, "layers": 3, "features": 16}
PP = {"filters": 6, "blocks": 1, "dropout": 0.0}

MODELS: dict[str, Callable[..., CausalImageModel]] = {  # a new model adds one line here
    "pixel-cnn": lambda **c: PixelCNN(PixelCNNConfig(**CNN, **c)),
    "gated-pixel-cnn": lambda **c: GatedPixelCNN(GatedPixelCNNConfig(**GATED, **c)),
    "gated-pixel-cnn-wide": lambda **c: GatedPixelCNN(GatedPixelCNNConfig(**GATED, kernel=5, **c)),
    "pixel-cnn-pp": lambda **c: PixelCNNPlusPlus(PixelCNNPlusPlusConfig(**PP, **c)),
    "pixel-cnn-pp-plain": lambda **c: PixelCNNPlusPlus(
        PixelCNNPlusPlusConfig(**PP, weight_norm=False, resolutions=2, **c)
    ),
}
HEADS = ["softmax", "logistic"]


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors: a second thread only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=MODELS)
def make(request) -> Callable[..., CausalImageModel]:
    """Builds a model in double precision, its weights large enough for everything to matter."""

    def build(noise: float = 0.2, seed: int = 0, **config) -> CausalImageModel:
        torch.manual_seed(seed)
        model = MODELS[request.param](**config).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
        return model

    return build


@pytest.fixture(params=HEADS)
def head(request) -> str:
    """A head's name."""
    return request.param


def every_image(shape: tuple[int, ...], levels: int) -> Tensor:
    """Returns all images of a shape."""
    size = shape[0] * shape[1] * shape[2]
    values = torch.tensor(list(product(range(levels), repeat=size)), dtype=torch.float64)
    return values.view(-1, *shape) / (levels - 1)


def some_images(model: CausalImageModel, n: int) -> Tensor:
    """Draws images of independent levels."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, model.levels, (n, *model.event_shape), generator=generator).double() / (model.levels - 1)


@pytest.mark.parametrize(("shape", "levels"), [((1, 2, 3), 3), ((3, 1, 2), 3), ((3, 2, 1), 2), ((1, 5, 2), 2)])
def test_probabilities_of_all_images_sum_to_one(make, head, shape, levels):
    model = make(event_shape=shape, levels=levels, head=head, mixtures=2)
    with torch.no_grad():
        log_prob = model.log_prob(every_image(shape, levels))
    assert log_prob.logsumexp(0).item() == pytest.approx(0, abs=1e-10)
    assert log_prob.std() > 0.05, "weights so small that nothing is tested"


def test_probabilities_of_each_class_sum_to_one_and_differ(make, head):
    model = make(event_shape=(3, 1, 2), levels=2, head=head, mixtures=2, classes=2)
    x = every_image((3, 1, 2), 2)
    found = []
    with torch.no_grad():
        for label in range(2):
            found.append(model.log_prob(x, torch.full((len(x),), label)))
            assert found[-1].logsumexp(0).item() == pytest.approx(0, abs=1e-10)
    assert (found[0] - found[1]).abs().max() > 0.01


@pytest.mark.parametrize("channels", [1, 3])
def test_a_conditional_depends_on_what_comes_before_and_on_nothing_else(make, head, channels):
    model = make(event_shape=(channels, 4, 5), levels=4, head=head, mixtures=2)
    x = some_images(model, 2)
    with torch.no_grad():
        before = model.conditionals(x).logits.permute(0, 2, 3, 1, 4).flatten(1, 3)
        reached = torch.zeros(before.shape[1], before.shape[1], dtype=torch.bool)
        for i in range(before.shape[1]):
            flat = (x * 3).round().permute(0, 2, 3, 1).flatten(1)
            flat[:, i] = (flat[:, i] + 1) % 4
            changed = flat.view(2, 4, 5, channels).permute(0, 3, 1, 2) / 3
            after = model.conditionals(changed).logits.permute(0, 2, 3, 1, 4).flatten(1, 3)
            reached[i] = ((after - before).abs() > 1e-12).any(-1).any(0)
    assert not reached.tril().any(), "a sub-pixel sees itself or what comes later"
    reached = reached.view(4, 5, channels, 4, 5, channels)
    for row, column in product(range(4), range(5)):
        for channel in range(channels):
            assert reached[row, column, :channel, row, column, channel].all(), "the channels before"
        if column:
            assert reached[row, column - 1, :, row, column].all(), "the pixel to the left"
        if row:
            assert reached[row - 1, column, :, row, column].all(), "the pixel above"


@pytest.mark.parametrize("name", ["gated-pixel-cnn", "pixel-cnn-pp"])
def test_two_streams_leave_no_blind_spot(name):
    torch.manual_seed(0)
    model = MODELS[name](event_shape=(1, 4, 8), levels=4, head="softmax").double()
    x = model.scaled(model.to_levels(some_images(model, 1)).permute(0, 2, 3, 1)).requires_grad_()
    model.own_row(x, model.rows_above(x, None, None), None, None)[0, 3, 1].sum().backward()
    seen = x.grad[0, :, :, 0] != 0
    assert seen[0].any() and seen[:2, :3].all()
    assert seen[2, :4].all(), "above and to the right"
    assert seen[3].tolist() == [True] + [False] * 7


@pytest.mark.parametrize(
    ("shape", "classes"), [((1, 7, 6), 0), ((3, 5, 9), 0), ((2, 4, 4), 3), ((1, 1, 1), 0), ((1, 9, 1), 0)]
)
def test_the_scan_gives_the_same_conditionals(make, head, shape, classes):
    model = make(event_shape=shape, levels=5, head=head, mixtures=2, classes=classes)
    n = 3
    x, y = some_images(model, n), torch.arange(n) % classes if classes else None
    with torch.no_grad():
        expected, levels = model.conditionals(x, y).logits, model.to_levels(x)
    scan = model.scan(n, y)
    while not scan.finished:
        row, column, channel = scan.place
        torch.testing.assert_close(scan.conditional().logits, expected[:, channel, row, column], rtol=1e-9, atol=1e-9)
        scan.choose(levels[:, channel, row, column])
    torch.testing.assert_close(scan.images(), x)


def test_a_model_without_caches_is_scanned_by_its_conditionals(make):
    model = make(event_shape=(2, 2, 2), levels=3, head="softmax")
    fast, slow = model.scan(2), Autoregressive.scan(model, 2)
    while not slow.finished:
        torch.testing.assert_close(slow.log_probs(), fast.log_probs(), rtol=1e-9, atol=1e-9)
        value = slow.conditional().sample()
        slow.choose(value)
        fast.choose(value)
    assert fast.finished
    torch.testing.assert_close(slow.images(), fast.images())


def test_log_prob_takes_images_of_either_precision_with_a_gradient_or_not(make):
    model = make(event_shape=(1, 3, 3)).float()
    x = some_images(model, 2)
    for kind in (torch.float32, torch.float64):
        own = x.detach().to(kind).requires_grad_()
        found = model.log_prob(own)
        found.sum().backward()
        torch.testing.assert_close(found, model.log_prob(own.detach()), rtol=1e-5, atol=1e-5, check_dtype=False)
        assert own.grad.dtype == kind


def test_log_prob_has_the_gradient_of_its_differences(make):
    """A logistic mixture is smooth in the value too: over a fine grid of levels, slopes are differences."""
    model = make(event_shape=(2, 3, 3), levels=4001, head="logistic", mixtures=2)
    x = some_images(model, 1).clamp(0.1, 0.9).mul(4000).round().div(4000).requires_grad_()
    found = model.log_prob(x)
    found.sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(found, model.log_prob(x.detach()), rtol=1e-9, atol=1e-9)
        for place in product(range(2), range(3), range(3)):
            up, down = x.detach().clone(), x.detach().clone()
            up[(0, *place)] += 1 / 4000
            down[(0, *place)] -= 1 / 4000
            slope = (model.log_prob(up) - model.log_prob(down)).item() * 2000
            assert x.grad[(0, *place)].item() == pytest.approx(slope, rel=0.02, abs=0.02)


def test_samples_follow_log_prob(make, head):
    model = make(event_shape=(1, 2, 2), levels=3, head=head, mixtures=2)
    x = every_image((1, 2, 2), 3)
    with torch.no_grad():
        p = model.log_prob(x).exp()
    n = 20_000
    drawn = model.sample(n, generator=torch.Generator().manual_seed(0))
    code = ((drawn * 2).round().flatten(1) * torch.tensor([27.0, 9.0, 3.0, 1.0])).sum(1).long()
    counts = torch.bincount(code, minlength=81)
    statistic = ((counts - n * p) ** 2 / (n * p)).sum().item()
    assert statistic < 80 + 4.5 * (2 * 80) ** 0.5, "chi-square of 80 degrees of freedom"


def trained_loss(model: CausalImageModel, x: Tensor) -> float:
    """Trains a model on images alone until it is near their entropy, or for 500 steps; returns its loss."""
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(500):
        loss = -model.log_prob(x).mean()
        assert loss.item() > log(len(x)) - 1e-6, "less than the entropy: no density"
        if loss.item() < log(len(x)) + 0.03:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.param_groups[0]["lr"] = 0.01 * (1 - step / 500)
        optimiser.step()
    return loss.item()


def test_training_reaches_the_entropy_of_two_images(make, head, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # 500 steps, whose shapes other tests check
    x = None
    for seed in range(3):  # a mixture may lose a component for good: it may start again
        model = make(noise=0.0, seed=seed, event_shape=(2, 2, 2), levels=4, head=head, mixtures=4)
        x = some_images(model, 2) if x is None else x
        if (found := trained_loss(model, x)) < log(2) + 0.03:
            return
    pytest.fail(f"the entropy is {log(2):.3f} nats, training reached {found:.3f}")


def test_every_parameter_has_a_gradient(make, head):
    model = make(event_shape=(3, 8, 8), levels=4, head=head, mixtures=2, classes=2)
    model.log_prob(some_images(model, 4), torch.tensor([0, 1, 0, 1])).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_saved_and_loaded_it_is_the_same(make, head, tmp_path):
    model = make(event_shape=(1, 4, 4), levels=4, head=head, mixtures=2).float()
    core_models.save(model, tmp_path)
    loaded = core_models.load(tmp_path)
    x = some_images(model, 2).float()
    with torch.no_grad():
        assert torch.equal(loaded.log_prob(x), model.log_prob(x))


def test_log_prob_is_that_of_the_conditionals(make, head):
    model = make(event_shape=(3, 3, 3), levels=256, head=head, mixtures=3)
    x = some_images(model, 3)
    with torch.no_grad():
        found = model.conditionals(x).log_prob(model.to_levels(x)).flatten(1).sum(1)
        torch.testing.assert_close(found, model.log_prob(x), rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 1, 4, 5), r"expected images of shape \(1, 4, 4\), got \(1, 4, 5\): resize them to 4 x 4"),
        (torch.zeros(2, 16), r"got \(16,\): reshape them to \(n, 1, 4, 4\)"),
        (torch.full((1, 1, 4, 4), torch.nan), "got NaN"),
        (torch.full((1, 1, 4, 4), 1.1), r"in \[0, 1\], got values from 1.1"),
        (torch.full((1, 1, 4, 4), 0.3), "multiples of 1/3"),
    ],
)
def test_images_that_are_none_of_its_own_are_refused(make, x, message):
    with pytest.raises(UserError, match=message):
        make(event_shape=(1, 4, 4), levels=4, head="softmax").log_prob(x)


def test_labels_are_asked_for_and_checked(make):
    model = make(event_shape=(1, 2, 2), levels=4, head="softmax", classes=2)
    x = torch.zeros(2, 1, 2, 2)
    with pytest.raises(UserError, match="give y"):
        model.log_prob(x)
    with pytest.raises(UserError, match="from 0 to 1, got y from 0 to 2"):
        model.scan(2, torch.tensor([0, 2]))
    with pytest.raises(UserError, match=r"from 0 to 1, got y of shape \(1,\)"):
        model.scan(2, torch.tensor([0]))


def test_a_gradient_in_the_image_needs_no_table_of_all_levels(make):
    """Of 256 levels times the components of a mixture: for 64 colour images of 32 x 32 that was 12 GB."""
    model = make(event_shape=(2, 3, 3), levels=256, head="logistic", mixtures=5)
    x, sizes = some_images(model, 1).requires_grad_(), []

    def noted(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
        model.log_prob(x)
    assert sizes and max(sizes) < 9 * 256 * 5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"event_shape": (1, 4)}, "channels, height and width"),
        ({"levels": 1}, "at least two pixel levels"),
        ({"mixtures": 0}, "at least one mixture"),
        ({"classes": -1}, "no classes"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(make, config, message):
    with pytest.raises(UserError, match=message):
        make(**{"event_shape": (1, 4, 4), "levels": 4, **config})


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.mark.gpu
@gpu
def test_cpu_and_gpu_agree_and_bf16_stays_near(make, head):
    model = make(event_shape=(3, 8, 8), levels=256, head=head, mixtures=3).float()
    x = some_images(model, 4).float()
    with torch.no_grad():
        cpu = model.log_prob(x)
        model.cuda()
        torch.testing.assert_close(model.log_prob(x.cuda()).cpu(), cpu, rtol=1e-3, atol=1e-2)
        with torch.autocast("cuda", torch.bfloat16):
            torch.testing.assert_close(model.log_prob(x.cuda()).cpu(), cpu, rtol=0.05, atol=5.0)


@pytest.mark.gpu
@gpu
def test_the_scan_on_a_gpu_gives_the_same_conditionals(make, head):
    model = make(event_shape=(3, 6, 6), levels=8, head=head, mixtures=3).cuda()
    x = some_images(model, 3).cuda()
    with torch.no_grad():
        expected, levels = model.conditionals(x).logits, model.to_levels(x)
    scan = model.scan(3)
    while not scan.finished:
        row, column, channel = scan.place
        torch.testing.assert_close(scan.log_probs(), expected[:, channel, row, column], rtol=1e-9, atol=1e-9)
        scan.choose(levels[:, channel, row, column])
    assert model.sample(2, generator=torch.Generator("cuda").manual_seed(0)).device.type == "cuda"
