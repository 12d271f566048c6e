import gzip
import struct
from hashlib import md5

import numpy as np
import pytest
import torch

from core_models.data import load
from core_models.data.idx import FILE_SETS, load_idx, load_official, parse_idx
from core_models.data.sources import File, FileSet
from core_models.errors import UserError


def idx_bytes(array: np.ndarray) -> bytes:
    """Writes an array of unsigned bytes in the IDX format."""
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def tiny_idx(n_train: int = 20, n_test: int = 10, side: int = 4) -> dict[str, np.ndarray]:
    """Makes the four arrays of a set like MNIST; pixels are random, labels go round 0..9."""
    rng = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": rng.integers(0, 256, (n_train, side, side), np.uint8),
        "train-labels-idx1-ubyte": np.arange(n_train, dtype=np.uint8) % 10,
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (n_test, side, side), np.uint8),
        "t10k-labels-idx1-ubyte": np.arange(n_test, dtype=np.uint8) % 10,
    }


def packed(array: np.ndarray) -> bytes:
    """Returns a gzipped IDX file, the same bytes every time."""
    return gzip.compress(idx_bytes(array), mtime=0)


@pytest.fixture
def tiny_mnist(monkeypatch):
    """Puts the digests of four tiny files in the place of MNIST's."""
    arrays = tiny_idx()
    files = tuple(
        File(f"{name}.gz", md5(packed(a)).hexdigest(), md5(idx_bytes(a)).hexdigest()) for name, a in arrays.items()
    )
    monkeypatch.setitem(FILE_SETS, "mnist", FileSet("mnist", files))
    return arrays


@pytest.mark.parametrize("packing", ["gz", "raw"])
def test_an_official_set_is_read_packed_or_not(tiny_mnist, places, packing):
    folder = places.root / "mnist"
    folder.mkdir()
    for name, array in tiny_mnist.items():
        (folder / (f"{name}.gz" if packing == "gz" else name)).write_bytes(
            packed(array) if packing == "gz" else idx_bytes(array)
        )
    data = load_official("mnist", places)
    assert torch.equal(data.train_x, torch.from_numpy(tiny_mnist["train-images-idx3-ubyte"])[:, None])
    assert torch.equal(data.test_y, torch.arange(10))
    assert data.classes == tuple("0123456789")
    assert data.source == "root/mnist"
    torch.testing.assert_close(data.images("test"), data.test_x / 255)


def test_an_altered_official_file_is_named_with_both_digests(tiny_mnist, places):
    folder = places.root / "mnist"
    folder.mkdir()
    for name, array in tiny_mnist.items():
        (folder / f"{name}.gz").write_bytes(packed(array))
    bad = folder / "t10k-labels-idx1-ubyte.gz"
    right = bad.read_bytes()
    bad.write_bytes(right[:-1])
    with pytest.raises(
        UserError, match=f"t10k-labels.*expected md5 {md5(right).hexdigest()}, found {md5(right[:-1]).hexdigest()}"
    ):
        load_official("mnist", places)


def test_the_known_digests_are_those_of_the_real_files(real):
    for name in ("mnist", "fashion-mnist"):
        data = load_official(name, real(name))
        assert data.train_x.shape == (60_000, 1, 28, 28)
        assert data.test_x.shape == (10_000, 1, 28, 28)
        assert data.test_y.bincount().sum() == 10_000
    assert data.test_y.bincount().tolist() == [1000] * 10  # Fashion-MNIST is balanced


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "two zero bytes, got ''"),
        (b"\x89PNG\r\n", "two zero bytes, got '89 50 4e 47'"),
        (b"\0\0\x0d\x01\0\0\0\x00", r"type 13 \(float32\)"),
        (b"\0\0\x63\x01\0\0\0\x00", r"type 99 \(unknown\)"),
        (b"\0\0\x08\x03\0\0", "a header of 16 bytes, got 6"),
        (idx_bytes(np.zeros((2, 3), np.uint8))[:-1], r"18 bytes for shape \(2, 3\), got 17: it was cut short"),
        (idx_bytes(np.zeros(2, np.uint8)) + b"x", "got 11: it was altered: it goes on after its end"),
    ],
)
def test_each_fault_of_an_idx_file_is_named(content, message):
    with pytest.raises(UserError, match=f"^some/file: .*{message}"):
        parse_idx(content, "some/file")


def write_folder(folder, arrays, prefix=""):
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        (folder / f"{prefix}{name}.gz").write_bytes(packed(array))


def test_any_folder_of_idx_files_can_be_loaded_by_name(tmp_path):
    arrays = tiny_idx()
    write_folder(tmp_path / "signs", arrays)
    data = load(f"idx:{tmp_path / 'signs'}")
    assert data.name == "signs"
    assert torch.equal(data.train_x[:, 0], torch.from_numpy(arrays["train-images-idx3-ubyte"]))
    assert "no known digests" in data.source


def test_emnist_files_are_turned_and_their_labels_start_at_zero(tmp_path):
    arrays = {name.replace("t10k", "test"): array for name, array in tiny_idx().items()}
    arrays = {name: array + 1 if "labels" in name else array for name, array in arrays.items()}
    write_folder(tmp_path, arrays, "emnist-letters-")
    write_folder(tmp_path, arrays, "emnist-digits-")
    with pytest.raises(UserError, match="expected one images file of the train split"):  # two sets: which one?
        load_idx(str(tmp_path))
    data = load_idx(str(tmp_path / "emnist-letters"))
    assert torch.equal(data.train_x[:, 0].mT, torch.from_numpy(arrays["train-images-idx3-ubyte"]))
    assert data.train_y.min() == 0
    assert data.classes == tuple(map(str, range(1, 11)))


def test_faults_of_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match="is none"):
        load_idx(str(tmp_path / "no" / "where"))
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\[.gz\], found none"):
        load_idx(str(tmp_path))
    arrays = tiny_idx()
    write_folder(tmp_path, arrays)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(packed(arrays["train-images-idx3-ubyte"])[:-20])
    with pytest.raises(UserError, match="does not unpack"):
        load_idx(str(tmp_path))
    write_folder(tmp_path, arrays | {"train-images-idx3-ubyte": arrays["train-images-idx3-ubyte"][1:]})
    with pytest.raises(UserError, match="19 train images, 20 labels"):
        load_idx(str(tmp_path))
    write_folder(tmp_path, arrays | {"t10k-labels-idx1-ubyte": arrays["t10k-labels-idx1-ubyte"] + 200})
    with pytest.raises(UserError, match="test labels among those of training"):
        load_idx(str(tmp_path))
    write_folder(tmp_path, arrays | {"t10k-images-idx3-ubyte": arrays["t10k-labels-idx1-ubyte"]})
    with pytest.raises(UserError, match="with 3 dimensions"):
        load_idx(str(tmp_path))
