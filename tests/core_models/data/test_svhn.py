import io
from hashlib import md5

import numpy as np
import pytest
import torch
from scipy.io import savemat

from core_models.data import svhn
from core_models.data.sources import File, FileSet
from core_models.data.svhn import load_svhn, parse_mat
from core_models.errors import UserError


def mat(x, y):
    file = io.BytesIO()
    savemat(file, {"X": x, "y": y}, do_compression=True)
    return file.getvalue()


def make(n):
    rng = np.random.default_rng(n)
    return rng.integers(0, 256, (32, 32, 3, n), np.uint8), (np.arange(n, dtype=np.uint8) % 10 + 1)[:, None]


def test_a_set_in_the_official_format(places, monkeypatch):
    content = {"train_32x32.mat": mat(*make(12)), "test_32x32.mat": mat(*make(11))}
    (places.root / "svhn").mkdir()
    for name, data in content.items():
        (places.root / "svhn" / name).write_bytes(data)
    monkeypatch.setattr(svhn, "FILES", FileSet("svhn", tuple(File(n, md5(c).hexdigest()) for n, c in content.items())))
    data = load_svhn(places)
    x, _ = make(12)
    assert data.train_x.shape == (12, 3, 32, 32)
    assert data.train_x[7, 2, 30, 4] == x[30, 4, 2, 7]
    assert torch.equal(data.test_y, torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]))  # 10 is the digit 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not matlab", "expected a MATLAB 5 file"),
        (mat(*make(10))[:-30], "expected a MATLAB 5 file"),
        (mat(make(10)[0], make(9)[1]), r"y \(n, 1\), got uint8\(32, 32, 3, 10\) and \(9,\)"),
        (mat(make(10)[0], make(10)[1] - 1), "labels from 1 to 10"),
        (mat(make(10)[0].astype(float), make(10)[1]), "got float64"),
    ],
)
def test_faults_are_named(content, message):
    with pytest.raises(UserError, match=f"^some.mat: .*{message}"):
        parse_mat(content, "some.mat")


def test_a_file_without_the_arrays_is_named():
    file = io.BytesIO()
    savemat(file, {"images": np.zeros(3)})
    with pytest.raises(UserError, match="arrays X and y"):
        parse_mat(file.getvalue(), "some.mat")
