"""From a data set to what a model is shown."""

import torch

from apps.models.pixels import Pixels, hold_out, prepare
from core_models.data import binarise, load
from core_models.latent import VAE, ConditionalVAE, ConditionalVAEConfig, VAEConfig

DIGITS = load("digits")
SHAPE = {"event_shape": (1, 8, 8), "latent": 2, "hidden": (4,)}


def test_batches_of_bytes_are_the_images_of_the_data_set():
    pixels = prepare(DIGITS, "train", VAE(VAEConfig(**SHAPE)), "none")
    assert pixels.x.dtype == torch.uint8
    images = DIGITS.images("train")
    assert torch.equal(pixels.floats(), images)
    torch.testing.assert_close(pixels.mean(), images.mean(0))
    batches = pixels.batches(100, seed=0).to("cpu")
    assert batches.steps_per_epoch == 14
    batch = batches.batch(0, 3)["x"]
    assert batch.dtype == torch.float32
    assert all((images == image).flatten(1).all(1).any() for image in batch)
    assert batches.fingerprint != pixels.batches(100, seed=1).fingerprint


def test_a_static_draw_is_made_of_the_whole_split():
    pixels = prepare(DIGITS, "test", VAE(VAEConfig(**SHAPE)), "static")
    assert torch.equal(pixels.floats(), binarise(DIGITS.images("test"), "static"))
    assert not pixels.redraw
    assert torch.equal(pixels.events(seed=0), pixels.events(seed=1))


def test_a_dynamic_draw_follows_from_the_seed():
    pixels = prepare(DIGITS, "test", VAE(VAEConfig(**SHAPE)), "dynamic")
    first, again, other = (pixels.events(seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.isin(first, torch.tensor([0.0, 1.0])).all()
    assert torch.equal(pixels.floats(), DIGITS.images("test"))  # the batches stay grey: the objective draws


def test_images_are_vectors_to_a_model_of_vectors():
    assert prepare(DIGITS, "test", VAE(VAEConfig(**{**SHAPE, "event_shape": (64,)})), "none").x.shape == (360, 64)


def test_labels_go_with_their_images_to_a_model_of_classes():
    pixels = prepare(DIGITS, "train", ConditionalVAE(ConditionalVAEConfig(**SHAPE)), "none")
    train, held = hold_out(pixels, 400, seed=3)
    assert (len(train), len(held)) == (1037, 400)
    by_image = {image.numpy().tobytes(): int(y) for image, y in zip(DIGITS.train_x, DIGITS.train_y, strict=True)}
    for part in (train, held):
        assert all(by_image[x.numpy().tobytes()] == y for x, y in zip(part.x, part.y.tolist(), strict=True))
    together = torch.cat([train.x, held.x]).flatten(1).sum(1).sort().values
    assert torch.equal(together, DIGITS.train_x.flatten(1).sum(1).sort().values)
    assert not torch.equal(held.x, hold_out(pixels, 400, seed=4)[1].x)


def test_a_batch_is_no_larger_than_the_data():
    few = Pixels(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), None, 2, False)
    assert few.batches(100, seed=0).batch(0, 0)["x"].shape == (3, 1, 2, 2)
