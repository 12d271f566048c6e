import struct
import tracemalloc
from zlib import compress, crc32

import numpy as np
import pytest
from PIL import Image

from core_models.data import load
from core_models.data.images import read_images
from core_models.errors import UserError

GRADIENT = np.linspace(0, 255, 64 * 48).reshape(64, 48).astype(np.uint8)


def write_png(path, bits, kind):
    """A whole PNG of 4 x 3 pixels; Pillow reads 16 bits of colour, and writes none."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    rows = np.arange(12 * channels).reshape(4, -1).astype(f">u{bits // 8}")
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", 3, 4, bits, kind, 0, 0, 0),
        b"IDAT": compress(b"".join(b"\0" + row.tobytes() for row in rows)),
        b"IEND": b"",
    }
    chunks = (
        struct.pack(">I", len(own)) + name + own + struct.pack(">I", crc32(name + own)) for name, own in parts.items()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("jpg", {"quality": 95}), ("webp", {"lossless": True})])
def test_each_format(tmp_path, suffix, options):
    Image.fromarray(GRADIENT).convert("RGB").save(tmp_path / f"a.{suffix}", **options)
    x = read_images([tmp_path / f"a.{suffix}"])
    assert x.shape == (1, 3, 64, 48)
    assert np.abs(x[0, 1].numpy().astype(int) - GRADIENT).max() <= (3 if suffix == "jpg" else 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "RGB"])
def test_each_mode_becomes_grey_or_colour(tmp_path, mode):
    Image.fromarray(GRADIENT).convert(mode).save(tmp_path / "a.png")
    x = read_images([tmp_path / "a.png"])
    assert x.shape[1] == (1 if mode in ("1", "L", "LA") else 3)
    if mode != "1":
        assert np.abs(x[0, 0].numpy().astype(int) - GRADIENT).max() <= 1


def test_transparency_is_laid_over_white(tmp_path):
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[:2, :, 3] = 255  # upper half opaque black, lower half clear black
    Image.fromarray(clear).save(tmp_path / "a.png")
    x = read_images([tmp_path / "a.png"])[0]
    assert (x[:, :2] == 0).all()
    assert (x[:, 2:] == 255).all()


def test_photographs_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter to the right when shown
    Image.fromarray(GRADIENT).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert read_images([tmp_path / "a.jpg"]).shape == (1, 1, 48, 64)


def test_resizing_cuts_around_the_middle_and_keeps_the_proportions(tmp_path):
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path / "a.png")
    assert (read_images([tmp_path / "a.png"], image_size=10) == 255).all()


def test_channels_can_be_asked_for(tmp_path):
    Image.fromarray(GRADIENT).save(tmp_path / "a.png")
    Image.fromarray(GRADIENT).convert("RGB").save(tmp_path / "b.png")
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    assert read_images(paths).shape == (2, 3, 64, 48)
    assert read_images(paths, channels=1).shape == (2, 1, 64, 48)
    assert read_images(paths[:1], channels=3).shape == (1, 3, 64, 48)
    with pytest.raises(UserError, match="1 channel"):
        read_images(paths, channels=2)
    with pytest.raises(UserError, match="at least 1 pixel"):
        read_images(paths, image_size=0)


def test_faults_name_the_file(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GRADIENT).save(path)
    whole = path.read_bytes()
    for content in (b"", b"not an image", whole[: len(whole) // 2], whole[:40]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a.png: expected a whole PNG, JPEG or WebP"):
            read_images([path])
    Image.fromarray(GRADIENT.astype(np.uint16) * 257).save(path)
    with pytest.raises(UserError, match="8 bits per channel"):
        read_images([path])


@pytest.mark.parametrize("kind", [0, 2, 4, 6], ids=["grey", "colour", "grey-alpha", "colour-alpha"])
def test_16_bits_per_channel_are_refused_and_not_cut_to_8(kind, tmp_path):
    for name in ("cat", "dog"):
        for place in ("a.png", "b.png"):
            write_png(tmp_path / "folder" / name / place, 8, kind)
    assert load(tmp_path / "folder").event_shape == (3 if kind in (2, 6) else 1, 4, 3)
    path = tmp_path / "folder" / "dog" / "b.png"
    write_png(path, 16, kind)
    for read in (lambda: read_images([path]), lambda: load(tmp_path / "folder")):
        with pytest.raises(UserError, match=r"b.png: expected 8 bits per channel, got more"):
            read()


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    Image.fromarray(GRADIENT).save(tmp_path / "a.png")
    for limit in (64 * 48 - 1, 100):  # Pillow warns above the limit and raises above twice that
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(UserError, match="decompression bomb"):
            read_images([tmp_path / "a.png"])


@pytest.mark.parametrize("modes", [("L", "RGB", "L"), ("RGB", "L", "L"), ("L", "L", "RGB")])
def test_grey_images_before_and_after_the_first_coloured_one(tmp_path, modes):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, (path, mode) in enumerate(zip(paths, modes, strict=True)):
        Image.fromarray(np.roll(GRADIENT, i, 0)).convert(mode).save(path)
    x = read_images(paths)
    assert x.shape == (3, 3, 64, 48) and x.is_contiguous()
    for i in range(3):
        assert (x[i].numpy() == np.roll(GRADIENT, i, 0)).all()


def test_images_lie_in_memory_once(tmp_path):
    Image.fromarray(np.zeros((200, 200), np.uint8)).save(tmp_path / "a.png")
    tracemalloc.start()
    try:
        x = read_images([tmp_path / "a.png"] * 100)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * x.numel()
    finally:
        tracemalloc.stop()


def test_images_of_several_sizes_are_refused_before_there_is_room_for_them_all(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(GRADIENT).save(tmp_path / "b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((40, 30), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_images([tmp_path / "a.png", tmp_path / "turned.jpg"]).shape == (2, 1, 30, 40)

    def none_left(*_):
        raise MemoryError

    monkeypatch.setattr("core_models.data.images.np.empty", lambda shape, kind: none_left() if shape[0] else None)
    with pytest.raises(UserError, match=r"got 30 x 40 \(a.png\) and 64 x 48 \(b.png\): .* give image_size"):
        read_images([tmp_path / "a.png", *[tmp_path / "b.png"] * 3])
    with pytest.raises(UserError, match=r"got 1000000 of 30 x 40 pixels, 1.2 GB: give a smaller image_size"):
        read_images([tmp_path / "a.png"] * 1_000_000)
