import hashlib

import numpy as np
import pytest
import torch

from core_models.data import binarized_mnist
from core_models.data.binarized_mnist import FILES, SPLITS, load_binarized_mnist, to_text
from core_models.data.sources import File, FileSet
from core_models.errors import UserError


@pytest.fixture
def bits(monkeypatch):
    """Three tiny splits, whose digests stand in for the public ones."""
    rng = np.random.default_rng(0)
    made = {split: rng.integers(0, 2, (n, 784), np.uint8) for split, n in zip(SPLITS, (5, 3, 2), strict=True)}
    digests = [hashlib.sha256(to_text(made[split])).hexdigest() for split in SPLITS]
    files = tuple(File(file.name, digest) for file, digest in zip(FILES.files, digests, strict=True))
    monkeypatch.setattr(binarized_mnist, "FILES", FileSet(FILES.folder, files))
    return made


def pack(folder, bits):
    folder.mkdir(exist_ok=True)
    np.savez(folder / "binarized_mnist_packed.npz", **{split: np.packbits(b, axis=1) for split, b in bits.items()})


@pytest.mark.parametrize("form", ["packed", "text"])
def test_both_forms(bits, places, form):
    folder = places.root / "binarized-mnist"
    folder.mkdir()
    if form == "packed":
        pack(folder, bits)
    else:
        for split in SPLITS:
            rows = [" ".join(map(str, row)) + "\n" for row in bits[split]]
            (folder / f"binarized_mnist_{split}.amat").write_text("".join(rows))
    data = load_binarized_mnist(places)
    for split in SPLITS:
        assert torch.equal(data.images(split).flatten(1), torch.from_numpy(bits[split]).float())
        assert (data.labels(split) == -1).all()
    assert (data.levels, data.classes) == (2, ())


def test_altered_bits_are_refused(bits, places):
    bits["valid"][1, 7] ^= 1
    pack(places.root / "binarized-mnist", bits)
    with pytest.raises(UserError, match=r"packed.npz: valid: expected sha256"):
        load_binarized_mnist(places)
    (places.root / "binarized-mnist" / "binarized_mnist_packed.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="expected packed bits named train, valid and test"):
        load_binarized_mnist(places)


def test_the_real_set_has_the_public_sha256s(real):
    data = load_binarized_mnist(real("binarized-mnist"))
    assert [len(data.images(split)) for split in SPLITS] == [50_000, 10_000, 10_000]
