import io
import zipfile
from hashlib import md5

import numpy as np
import pytest
import torch
from PIL import Image

from core_models.data import omniglot
from core_models.data.omniglot import load_omniglot, resize
from core_models.data.sources import File, FileSet
from core_models.errors import UserError

NAMES = {"background": ["Latin/character02", "Greek/character01"], "evaluation": ["Angelic/character01"]}


@pytest.fixture
def ink():
    """Random drawings of three characters, ink 1."""
    return {
        part: np.random.default_rng(len(names)).random((len(names), 20, 105, 105)) < 0.1
        for part, names in NAMES.items()
    }


def write_packed(folder, ink, monkeypatch):
    folder.mkdir(exist_ok=True)
    arrays = {part: np.packbits(drawings.reshape(*drawings.shape[:2], -1), axis=-1) for part, drawings in ink.items()}
    arrays |= {f"{part}_names": np.array(names) for part, names in NAMES.items()}
    np.savez(folder / "omniglot_105_packed.npz", **arrays)
    digest = md5((folder / "omniglot_105_packed.npz").read_bytes()).hexdigest()
    monkeypatch.setattr(omniglot, "PACKED", File("omniglot_105_packed.npz", digest))


def write_archives(folder, ink, monkeypatch, drawings=20):
    folder.mkdir(exist_ok=True)
    files = []
    for part, names in NAMES.items():
        path = folder / f"images_{part}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, own in zip(names, ink[part], strict=True):
                for i in range(drawings):
                    png = io.BytesIO()
                    Image.fromarray(~own[i]).save(png, "PNG")  # one bit, ink black
                    archive.writestr(f"images_{part}/{name}/0001_{20 - i:02d}.png", png.getvalue())
        files.append(File(path.name, md5(path.read_bytes()).hexdigest()))
    monkeypatch.setattr(omniglot, "ARCHIVES", FileSet("omniglot", tuple(files)))


def test_both_forms_give_the_same_set(ink, places, monkeypatch):
    write_packed(places.root / "omniglot", ink, monkeypatch)
    packed = load_omniglot(places)
    (places.root / "omniglot" / "omniglot_105_packed.npz").unlink()
    write_archives(places.root / "omniglot", ink, monkeypatch)  # drawings in another order
    unpacked = load_omniglot(places)
    assert packed.classes == unpacked.classes == ("Angelic/character01", "Greek/character01", "Latin/character02")
    for name in ("train_x", "train_y", "test_x", "test_y"):
        assert torch.equal(getattr(packed, name), getattr(unpacked, name))
    assert packed.train_y.bincount().tolist() == [15] * 3
    assert packed.test_y.bincount().tolist() == [5] * 3
    every = torch.cat([packed.train_x, packed.test_x])[torch.cat([packed.train_y, packed.test_y]) == 0, 0]
    expected = resize(ink["evaluation"][0].astype(np.uint8))
    assert {image.numpy().tobytes() for image in every} == {image.tobytes() for image in expected}


def test_resizing_averages_areas():
    ink = (np.random.default_rng(0).random((2, 105, 105)) < 0.5).astype(np.uint8)
    fine = ink.repeat(4, axis=1).repeat(4, axis=2)  # 420 = 28 x 15: each new pixel covers whole fine ones
    expected = fine.reshape(2, 28, 15, 28, 15).mean((2, 4)) * 255
    assert np.abs(resize(ink) - expected).max() <= 0.5 + 1e-3
    assert (resize(np.ones((1, 105, 105), np.uint8)) == 255).all()


def test_faults_are_named(ink, places, monkeypatch):
    write_archives(places.root / "omniglot", ink, monkeypatch, drawings=19)
    with pytest.raises(UserError, match=r"expected 20 drawings of .*, found 19"):
        load_omniglot(places)
    (places.root / "omniglot" / "omniglot_105_packed.npz").write_bytes(b"altered")
    with pytest.raises(UserError, match=r"packed.npz: expected sha256"):
        load_omniglot(places)


def test_the_real_set(real):
    data = load_omniglot(real("omniglot"))
    assert data.train_x.shape == (24_345, 1, 28, 28)
    assert data.test_x.shape == (8_115, 1, 28, 28)
    assert len(data.classes) == 1623
    assert 0.05 < data.train_x.float().mean() / 255 < 0.15  # thin bright strokes on black
