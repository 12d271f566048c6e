import io
import tarfile
from hashlib import md5

import numpy as np
import pytest
import torch
from PIL import Image

from core_models.data import cifar10
from core_models.data.cifar10 import BATCHES, decode_sheet, load_cifar10
from core_models.data.sources import File, FileSet, NoSourceError
from core_models.errors import UserError


@pytest.fixture
def records(monkeypatch):
    """Six tiny batches of four images, whose digests stand in for the official ones."""
    rng = np.random.default_rng(0)
    made = {name: rng.integers(0, 256, (4, 3073), np.uint8) for name in BATCHES}
    for number, batch in enumerate(made.values()):
        batch[:, 0] = (np.arange(4) + number) % 10
    monkeypatch.setattr(cifar10, "BATCHES", {name: md5(batch.tobytes()).hexdigest() for name, batch in made.items()})
    return made


def check(data, records):
    train = np.concatenate([records[f"data_batch_{i}"] for i in range(1, 6)])
    assert torch.equal(data.train_x, torch.from_numpy(train[:, 1:].reshape(-1, 3, 32, 32)))
    assert torch.equal(data.train_y, torch.from_numpy(train[:, 0]).long())
    assert torch.equal(data.test_x.flatten(1), torch.from_numpy(records["test_batch"][:, 1:]))


def write_sheet(folder, name, batch):
    tiles = batch[:, 1:].reshape(2, 2, 3, 32, 32).transpose(0, 3, 1, 4, 2).reshape(64, 64, 3)
    Image.fromarray(tiles).save(folder / f"{name}.webp", lossless=True)
    np.save(folder / f"{name}.labels.npy", batch[:, 0])


@pytest.mark.parametrize("inside", ["cifar-10", "cifar-10/cifar-10-batches-bin", "cifar-10-batches-bin"])
def test_official_binary_files(records, places, inside):
    (places.root / inside).mkdir(parents=True)
    for name, batch in records.items():
        (places.root / inside / f"{name}.bin").write_bytes(batch.tobytes())
    check(load_cifar10(places), records)


def test_lossless_sheets_give_the_official_bytes(records, places):
    folder = places.root / "cifar-10"
    folder.mkdir()
    for name, batch in records.items():
        write_sheet(folder, name, batch)
    check(load_cifar10(places), records)


def test_the_official_archive(records, places, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, batch in records.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = batch.nbytes
            archive.addfile(info, io.BytesIO(batch.tobytes()))
    name = "cifar-10-binary.tar.gz"
    monkeypatch.setattr(cifar10, "ARCHIVE", FileSet("cifar-10", (File(name, md5(packed.getvalue()).hexdigest()),)))
    (places.cache / "cifar-10").mkdir(parents=True)
    (places.cache / "cifar-10" / name).write_bytes(packed.getvalue())
    data = load_cifar10(places)
    check(data, records)
    assert data.source == "the cache"


def test_faults_are_named(records, places):
    with pytest.raises(NoSourceError, match=r"cifar-10-binary.tar.gz"):
        load_cifar10(places)
    folder = places.root / "cifar-10"
    folder.mkdir()
    write_sheet(folder, "data_batch_1", records["data_batch_1"])
    with pytest.raises(UserError, match=r"found no data_batch_2.bin, .*test_batch.bin"):
        load_cifar10(places)
    altered = records["data_batch_1"].copy()
    altered[0, 5] ^= 1
    write_sheet(folder, "data_batch_1", altered)
    with pytest.raises(UserError, match=r"data_batch_1.webp: expected md5"):
        load_cifar10(places)
    np.save(folder / "data_batch_1.labels.npy", np.zeros(3, np.uint8))
    with pytest.raises(UserError, match=r"expected 4 labels"):
        load_cifar10(places)
    np.save(folder / "data_batch_1.labels.npy", np.array([{}] * 4), allow_pickle=True)
    with pytest.raises(UserError, match=r"allow_pickle=False"):
        load_cifar10(places)
    (folder / "data_batch_1.webp").write_bytes((folder / "data_batch_1.webp").read_bytes()[:100])
    with pytest.raises(UserError, match=r"data_batch_1.webp: expected a sheet"):
        load_cifar10(places)


def test_a_real_sheet_has_the_official_md5(real):
    folder = real("cifar-10").root + "/cifar-10"
    content = cifar10._batch(cifar10.Path(folder), "test_batch")  # one of six, which takes the longest: decoding
    assert len(content) == 10_000 * 3073
    assert decode_sheet.__doc__
