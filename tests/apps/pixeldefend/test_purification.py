"""Every engine gives what the definition gives, to the byte, near-ties included."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from apps.pixeldefend import greedy, purification
from apps.pixeldefend.greedy import Count
from apps.pixeldefend.purification import purify
from core_models.autoregressive import (
    CausalImageModel,
    GatedPixelCNN,
    GatedPixelCNNConfig,
    PixelCNN,
    PixelCNNConfig,
    PixelCNNPlusPlus,
    PixelCNNPlusPlusConfig,
)
from core_models.base import Autoregressive, GenerativeModel
from core_models.errors import UserError

FAST = ["cached", "fixed-point", "row"]
MODELS = {
    "pixel-cnn": lambda **c: PixelCNN(PixelCNNConfig(filters=8, blocks=2, features=16, **c)),
    "gated-pixel-cnn": lambda **c: GatedPixelCNN(GatedPixelCNNConfig(filters=8, layers=3, features=16, **c)),
    "pixel-cnn-pp": lambda **c: PixelCNNPlusPlus(PixelCNNPlusPlusConfig(filters=8, blocks=1, **c)),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors: a second thread only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name: str, scale: float = 1.5, **config) -> CausalImageModel:
    """Builds a model with weights large enough for pixels to depend on one another."""
    torch.manual_seed(0)
    model = MODELS[name](**config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale).add_(0.05 * torch.randn_like(parameter))
    return model


def images(n: int, shape: tuple[int, ...], levels: int = 256, seed: int = 0) -> Tensor:
    """Draws images of independent levels."""
    drawn = torch.randint(0, levels, (n, *shape), generator=torch.Generator().manual_seed(seed))
    return drawn.float() / (levels - 1)


def by_definition(model: CausalImageModel, x: Tensor, eps: int, y: Tensor | None = None) -> Tensor:
    """Purifies sub-pixel by sub-pixel in double precision, from `conditionals` alone."""
    double = replace_double(model)
    levels, found = model.to_levels(x), model.to_levels(x)
    channels, height, width = x.shape[1:]
    values = torch.arange(model.levels)
    for row in range(height):
        for column in range(width):
            for c in range(channels):
                with torch.no_grad():
                    logits = double.conditionals(found.double() / (model.levels - 1), y).logits[:, c, row, column]
                centre = levels[:, c, row, column, None]
                allowed = (values >= centre - eps) & (values <= centre + eps)
                found[:, c, row, column] = logits.masked_fill(~allowed, -torch.inf).argmax(-1)
    return found.float() / (model.levels - 1)


def replace_double(model: CausalImageModel) -> CausalImageModel:
    """Returns a copy in double precision."""
    double = type(model)(replace(model.config)).double().eval()
    double.load_state_dict(model.state_dict())
    return double


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("shape", "head", "classes"), [((1, 6, 5), "softmax", 0), ((3, 4, 5), "logistic", 0), ((3, 4, 4), "softmax", 2)]
)
@pytest.mark.parametrize("eps", [16, 255])
def test_every_engine_follows_the_definition(name, shape, head, classes, eps):
    model = build(name, event_shape=shape, head=head, mixtures=3, classes=classes)
    x, y = images(3, shape), torch.tensor([0, 1, 1]) if classes else None
    expected = by_definition(model, x, eps, y)
    assert (expected != x).float().mean() > 0.5
    for engine in ["naive", *FAST]:
        assert torch.equal(purify(model, x, eps, y, engine=engine), expected), engine


@pytest.mark.parametrize("engine", ["naive", *FAST, "auto"])
def test_nothing_moves_with_eps_zero_or_farther_than_eps(engine):
    model = build("pixel-cnn-pp", event_shape=(1, 6, 6), head="softmax")
    x = images(4, (1, 6, 6))
    assert torch.equal(purify(model, x, 0, engine=engine), x)
    eps = torch.tensor([0, 1, 16, 255])
    moved = ((purify(model, x, eps, engine=engine) - x) * 255).round().abs().flatten(1)
    assert (moved.amax(1) <= eps).all() and moved[1:].amax(1).min() > 0
    one_by_one = torch.cat([purify(model, x[i : i + 1], int(eps[i]), engine=engine) for i in range(4)])
    assert torch.equal(purify(model, x, eps, engine=engine), one_by_one)


def test_the_answer_does_not_depend_on_how_images_are_batched():
    model = build("gated-pixel-cnn", event_shape=(1, 7, 7), head="softmax")
    x = images(7, (1, 7, 7))
    expected = purify(model, x, 32, engine="naive")
    for engine in FAST:
        for batch_size in (1, 3, 7):
            assert torch.equal(purify(model, x, 32, engine=engine, batch_size=batch_size), expected)


def planted(difference: float, channels: int = 1) -> CausalImageModel:
    """A model for which levels 2k and 2k + 1 are all but equally likely, everywhere: the odd ones by `difference`."""
    model = build("pixel-cnn-pp", event_shape=(channels, 6, 6), head="softmax")
    with torch.no_grad():
        for layer in [model.head.output, *model.head.mixed]:
            weight, bias = layer.weight.view(-1, 2, layer.in_features), layer.bias.view(-1, 2)
            weight.mul_(20)  # single precision must not resolve the difference
            weight[:, 1] = weight[:, 0]
            bias[:, 0] = 0.0
            bias[:, 1] = difference
    return model


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("difference", [2e-8, 0.0])
def test_near_ties_are_decided_the_same_way_by_every_engine(difference, channels):
    model = planted(difference, channels)
    # of three levels, from an even one on, the upper two are a pair
    x = (images(3, (channels, 6, 6)) * 255).round() // 2 * 2 / 255
    count = Count()
    expected = purify(model, x, 16, engine="naive", count=count)
    assert count.settled > 50, "no near-tie was planted"
    odd = ((expected * 255).round() % 2).mean()
    assert odd == 0 if not difference else odd > 0.9, "the lowest of equals, else the likelier one"
    for engine in FAST:
        assert torch.equal(purify(model, x, 16, engine=engine), expected), engine
    assert torch.equal(by_definition(model, x, 16), expected) or not difference


def test_without_double_precision_near_ties_go_either_way(monkeypatch):
    model = planted(2e-8)
    x = (images(3, (1, 6, 6)) * 255).round() // 2 * 2 / 255
    expected = purify(model, x, 16, engine="naive")
    monkeypatch.setattr(greedy, "LEAST_TIE", -1.0)
    greedy._PRECISE.clear()
    trusted = greedy.precise
    monkeypatch.setattr(greedy, "precise", lambda *a: replace(trusted(*a), tie=-1.0))
    assert not all(torch.equal(purify(model, x, 16, engine=e), expected) for e in ["naive", *FAST])


def test_changed_weights_are_noticed():
    model = build("pixel-cnn-pp", event_shape=(1, 5, 5), head="softmax")
    x = images(2, (1, 5, 5))
    purify(model, x, 16)
    for parameter in model.parameters():
        parameter.data.mul_(0.7)
    assert torch.equal(purify(model, x, 16), by_definition(model, x, 16))
    assert greedy._PRECISE[model].model.head.output.weight[0, 0] == model.head.output.weight[0, 0].double()


class Chain(GenerativeModel, Autoregressive):
    """A user's own density: each sub-pixel is near the one before it, in the order of channels within a pixel."""

    def __init__(self, shape: tuple[int, ...], levels: int) -> None:
        super().__init__()
        self.event_shape, self.levels = torch.Size(shape), levels
        self.table = nn.Parameter(torch.randn(levels, levels, generator=torch.Generator().manual_seed(0)))

    def conditionals(self, x: Tensor, y: Tensor | None = None) -> Categorical:
        flat = (x * (self.levels - 1)).round().long().permute(0, 2, 3, 1).flatten(1)
        before = torch.cat([torch.zeros_like(flat[:, :1]), flat[:, :-1]], 1)
        channels, height, width = self.event_shape
        logits = self.table[before].view(len(x), height, width, channels, self.levels)
        return Categorical(logits=logits.permute(0, 3, 1, 2, 4))

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.conditionals(x).log_prob((x * (self.levels - 1)).round()).flatten(1).sum(1)

    def sample(self, n, y=None, *, generator=None) -> Tensor:
        raise NotImplementedError


def test_a_density_of_the_users_own_is_purified_by_its_conditionals():
    model = Chain((2, 4, 3), 8).eval()
    x = images(5, (2, 4, 3), 8)
    expected = purify(model, x, 2, engine="naive")
    assert (expected != x).any()
    count = Count()
    assert torch.equal(purify(model, x, 2, count=count), expected)
    assert max(count.iterations) <= 24
    with pytest.raises(UserError, match="Chain has none: choose fixed-point"):
        purify(model, x, 2, engine="row")


@torch.no_grad()
@pytest.mark.parametrize("across", [False, True], ids=["within a parameter", "across two"])
def test_weights_in_another_order_are_noticed(across):
    model = Chain((1, 2, 2), 4).eval()
    # whole numbers, whose sums are the same in any order
    model.table.data, model.other = torch.arange(16.0).view(4, 4), nn.Parameter(torch.arange(16.0).view(4, 4) ** 2)
    levels = torch.zeros(1, 1, 2, 2, dtype=torch.long)
    greedy.precise(model, levels, None)
    if across:
        model.table.data, model.other.data = model.other.data, model.table.data
    else:
        model.table.data = model.table.data.flip(0)
    copied = greedy.precise(model, levels, None).model
    assert torch.equal(copied.table, model.table.double()) and torch.equal(copied.other, model.other.double())


@torch.no_grad()
def test_the_best_value_is_of_the_box_whatever_the_scores():
    chooser = greedy.Greedy(Chain((1, 1, 1), 8).eval(), torch.full((1, 1, 1, 1), 5), torch.tensor([1]))
    scores = torch.full((2, 8), -torch.inf, dtype=torch.float64)
    scores[:, 0], scores[1, 6] = 0, -50
    box = torch.tensor([4, 4]), torch.tensor([6, 6])

    def best(low, high):
        return chooser.best(scores.gather(-1, chooser.asked(low)), low, high)[0].tolist()

    assert best(*box) == [4, 6]
    scores[1, 7] = torch.nan  # beside the box
    assert best(*box) == [4, 6]
    assert best(torch.tensor([7, 6]), torch.tensor([7, 6])) == [7, 6]  # the box ends before what is asked for does
    scores[1, 5] = torch.nan
    with pytest.raises(UserError, match=r"Chain gives values no probability \(NaN\): check its weights$") as caught:
        best(*box)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", ["naive", "fixed-point"])
def test_values_without_probability_do_not_drive_a_pixel_out_of_its_box(engine):
    model = Chain((1, 3, 4), 8).eval()
    model.table.data[:, 3:] = -torch.inf
    x = images(5, (1, 3, 4), 8)
    moved = ((purify(model, x, 2, engine=engine) - x) * 7).round().abs()
    assert moved.max() == 2 and (x * 7 > 5.5).any()


@torch.no_grad()
@pytest.mark.parametrize("name", ["softmax", "logistic"])
def test_no_more_levels_are_scored_than_a_box_holds(name, monkeypatch):
    model = build("pixel-cnn-pp", event_shape=(3, 4, 4), head=name, mixtures=3)
    h = torch.randn(7, model.head.features, generator=torch.Generator().manual_seed(0))
    parameters, levels = model.head.parameters_of(h), (images(7, (3,)) * 255).round().long()
    asked = torch.tensor([[0, 3, 255]]).expand(7, 3)
    for c in range(3):
        some = model.head.scores_at(parameters, levels[:, :c], asked)
        torch.testing.assert_close(some, model.head.scores(parameters, levels[:, :c])[:, [0, 3, 255]])
    seen, own = [], type(model.head).scores_at
    monkeypatch.setattr(type(model.head), "scores_at", lambda *given: seen.append(given[3].shape[-1]) or own(*given))
    purify(model, images(2, (3, 4, 4)), torch.tensor([3, 5]), engine="row")
    assert set(seen) == {11}


@pytest.mark.parametrize("engine", ["naive", *FAST])
def test_weights_that_are_no_numbers_are_refused(engine):
    model = build("pixel-cnn", event_shape=(1, 4, 4), head="softmax")
    model.head.output.bias.data[3] = torch.nan
    with pytest.raises(UserError, match="PixelCNN gives values no probability"):
        purify(model, images(2, (1, 4, 4)), 16, engine=engine)


def test_passes_are_counted():
    model = build("pixel-cnn-pp", event_shape=(1, 8, 8), head="softmax")
    x = images(2, (1, 8, 8))
    counts = {engine: Count() for engine in ["naive", *FAST]}
    for engine, count in counts.items():
        purify(model, x, 16, engine=engine, count=count)
        assert count.passes >= 2
    assert counts["naive"].passes == pytest.approx(2 * 64, abs=2 + counts["naive"].settled)
    assert counts["fixed-point"].passes < counts["naive"].passes
    assert len(counts["fixed-point"].iterations) == 2


@pytest.mark.parametrize(
    ("x", "eps", "message"),
    [
        (torch.zeros(2, 1, 4, 5), 1, r"shape \(1, 4, 4\), got \(1, 4, 5\)"),
        (torch.full((1, 1, 4, 4), torch.nan), 1, "NaN"),
        (torch.full((1, 1, 4, 4), -0.5), 1, r"in \[0, 1\]"),
        (torch.full((1, 1, 4, 4), 0.001), 1, "multiples of 1/255"),
        (torch.zeros(1, 1, 4, 4), -1, "eps from 0 to 255 levels, got -1"),
        (torch.zeros(1, 1, 4, 4), 256, "eps from 0 to 255 levels, got 256"),
        (torch.zeros(1, 1, 4, 4), torch.tensor([1, 2]), "one for each of 1 images"),
        (torch.zeros(1, 1, 4, 4), torch.tensor(0.5), "whole number"),
    ],
)
def test_what_makes_no_sense_is_refused(x, eps, message):
    model = build("pixel-cnn", event_shape=(1, 4, 4))
    with pytest.raises(UserError, match=message):
        purify(model, x, eps)


def test_a_density_in_training_mode_and_an_unknown_engine_are_refused():
    model = build("pixel-cnn", event_shape=(1, 4, 4))
    with pytest.raises(UserError, match="expected an engine among"):
        purify(model, torch.zeros(1, 1, 4, 4), 1, engine="quick")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="evaluation mode"):
        purify(model.train(), torch.zeros(1, 1, 4, 4), 1)
    assert set(purification.ENGINES) == {"naive", *FAST}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_purifies_to_the_same_bytes(name):
    model = build(name, event_shape=(3, 6, 6), head="softmax")
    x = images(5, (3, 6, 6))
    expected = purify(model, x, 32, engine="naive")
    model.cuda()
    for engine in ["naive", *FAST, "auto"]:
        assert torch.equal(purify(model, x.cuda(), 32, engine=engine).cpu(), expected), engine
