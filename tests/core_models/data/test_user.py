from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image

from core_models.data import load, load_folder, load_npz, read_examples
from core_models.errors import UserError

GREY = np.random.default_rng(0).integers(0, 256, (20, 6, 5), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (20, 3, 6, 5), np.uint8)
NUMBERS = np.arange(20) % 2


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "mine.npz", **arrays)
    return tmp_path / "mine.npz"


def everything(data):
    return torch.cat([data.train_x, data.test_x])


@pytest.mark.parametrize(
    ("x", "shape"),
    [
        (GREY, (1, 6, 5)),
        (GREY[:, None], (1, 6, 5)),
        (GREY[..., None], (1, 6, 5)),
        (COLOUR, (3, 6, 5)),
        (COLOUR.transpose(0, 2, 3, 1), (3, 6, 5)),
        (COLOUR / 255, (3, 6, 5)),
        ((COLOUR / 255).astype(np.float32), (3, 6, 5)),
        (COLOUR.astype(np.int64), (3, 6, 5)),
    ],
)
def test_every_shape_and_type_gives_the_same_levels(tmp_path, x, shape):
    path = npz(tmp_path, train_x=x, train_y=NUMBERS, test_x=x[:4], test_y=NUMBERS[:4])
    data = load_npz(path)
    expected = GREY[:, None] if shape[0] == 1 else COLOUR
    assert data.event_shape == shape
    assert torch.equal(data.train_x, torch.from_numpy(expected))
    assert torch.equal(data.test_x, torch.from_numpy(expected[:4]))
    assert data.train_y.tolist() == NUMBERS.tolist()
    assert data.name == "mine"


def test_booleans_are_black_and_white(tmp_path):
    assert load_npz(npz(tmp_path, x=GREY > 99, y=NUMBERS)).images("train").unique().tolist() == [0, 1]


def test_a_fifth_is_held_out_of_each_class_where_there_is_no_test_split(tmp_path):
    data = load(npz(tmp_path, x=GREY, y=NUMBERS))
    assert data.train_y.bincount().tolist() == [8, 8]
    assert data.test_y.bincount().tolist() == [2, 2]
    assert {image.numpy().tobytes() for image in everything(data)} == {image.tobytes() for image in GREY}
    again = load(npz(tmp_path, x=GREY, y=NUMBERS))
    assert torch.equal(data.test_x, again.test_x)


def test_labels_may_be_words_or_missing(tmp_path):
    words = np.array(["dog", "cat", ""] * 6 + ["cat", "cat"])
    data = load_npz(npz(tmp_path, train_x=GREY, train_y=words, test_x=GREY[:2], test_y=words[:2]))
    assert data.classes == ("cat", "dog")
    assert data.train_y.tolist() == [1, 0, -1] * 6 + [0, 0]
    assert data.test_y.tolist() == [1, 0]
    numbers = np.array([7, 3, -1] * 6 + [10, 10])
    data = load_npz(npz(tmp_path, train_x=GREY, train_y=numbers, test_x=GREY[:2], test_y=numbers[:2]))
    assert data.classes == ("3", "7", "10")
    assert data.train_y.tolist() == [1, 0, -1] * 6 + [2, 2]
    data = load_npz(npz(tmp_path, x=GREY))
    assert (data.classes, len(data.test_x), int(data.train_y.max())) == ((), 4, -1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GREY}, "expected an array x .*found images"),
        ({"x": GREY.astype(float)}, r"floats in \[0, 1\], got 0.0 to 255.0: divide by 255"),
        ({"x": GREY / 255 - 0.5}, r"floats in \[0, 1\], got -0.5"),
        ({"x": np.where(GREY > 9, np.nan, 0.5)}, r"floats in \[0, 1\], got nan"),
        ({"x": GREY.astype(int) + 1}, r"integers 0..255, got \d to 256"),
        ({"x": (GREY > 9).astype(np.uint8)}, "got only 0 and 1"),
        ({"x": GREY.reshape(20, -1)}, r"got shape \(20, 30\)"),
        ({"x": GREY[:, None].repeat(2, 1)}, r"got shape \(20, 2, 6, 5\)"),
        ({"x": GREY[:, :3, :3, None].repeat(3, 3)}, "add a string layout"),
        ({"x": COLOUR, "layout": np.array("nhwc")}, "expected a layout of nchw or nhwc .*got 'nhwc'"),
        ({"x": GREY[:0]}, "expected images, got shape"),
        ({"x": np.array(["a"] * 20).reshape(20, 1, 1)}, "got <U1"),
        ({"x": GREY, "y": NUMBERS[1:]}, r"expected y \(20,\) of integers or strings, got int64\(19,\)"),
        ({"x": GREY, "y": NUMBERS / 2}, "got float64"),
        ({"x": GREY, "y": NUMBERS - 2}, "labels from 0, or -1 for none, in y, got -2"),
        ({"x": GREY, "y": np.array([{}] * 20)}, "Python objects"),
        ({"train_x": GREY, "train_y": NUMBERS, "test_x": GREY, "test_y": NUMBERS + 1}, "test labels .*got '2'"),
        ({"train_x": GREY, "train_y": NUMBERS, "test_x": GREY}, "test labels .*got '-1'"),
        ({"train_x": GREY, "train_y": NUMBERS, "test_x": GREY, "test_y": NUMBERS.astype(str)}, "labels of one kind"),
        (
            {"train_x": GREY, "test_x": GREY[:, 1:]},
            r"test images of shape \(1, 6, 5\), as in training, got \(1, 5, 5\)",
        ),
        ({"x": GREY[:2], "y": NUMBERS[:2]}, "at least two images of a class"),
    ],
)
def test_faults_of_an_npz_are_named(tmp_path, arrays, message):
    with pytest.raises(UserError, match=message):
        load_npz(npz(tmp_path, **arrays))


@pytest.mark.parametrize("none", ["-1", ""])
def test_strings_of_no_label_are_no_class(tmp_path, none):
    """numpy makes "-1" of a -1 that stands among strings."""
    names = np.array(["cat", "dog", none, none] * 5)
    for y in (names, names.astype("S")):
        data = load_npz(npz(tmp_path, x=GREY, y=y))
        assert data.classes == ("cat", "dog") and data.train_y.tolist().count(-1) == 10


def test_bytes_that_are_no_text_are_named(tmp_path):
    y = np.array(["é".encode()] * 20)
    assert load_npz(npz(tmp_path, x=GREY, y=y)).classes == ("é",)
    with pytest.raises(UserError, match="bytes in y to be UTF-8"):
        load_npz(npz(tmp_path, x=GREY, y=np.array(["é".encode("latin-1")] * 20)))


def test_a_damaged_compressed_npz_is_named(tmp_path):
    np.savez_compressed(tmp_path / "bad.npz", x=GREY)
    whole = (tmp_path / "bad.npz").read_bytes()
    for place in range(60, len(whole) - 120, 16):
        (tmp_path / "bad.npz").write_bytes(whole[:place] + b"\xff" * 16 + whole[place + 16 :])
        with pytest.raises(UserError, match=r"bad.npz: expected"):
            load_npz(tmp_path / "bad.npz")


def test_files_that_are_no_npz_are_named(tmp_path):
    with pytest.raises(UserError, match="found nothing at"):
        load_npz(tmp_path / "absent.npz")
    whole = npz(tmp_path, x=GREY).read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:-10]):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"bad.npz: expected"):
            load_npz(tmp_path / "bad.npz")
    np.save(tmp_path / "single.npy", GREY)
    with pytest.raises(UserError, match=r"single.npy: expected"):
        load(tmp_path / "single.npy")


def photo(path, grey=None, size=(5, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(crc32(f"{path.parent.name}/{path.name}".encode()))
    array = rng.integers(0, 256, size if grey else (*size, 3), np.uint8)
    Image.fromarray(array).save(path)
    return array


@pytest.mark.parametrize("none", ["unlabelled", "unlabeled"])
def test_a_folder_of_classes(tmp_path, none):
    arrays = {}
    for name in ("cat", "dog", none):
        for i in range(5):
            file = f"{name}/{i}.png"
            arrays[file] = photo(tmp_path / file)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden").mkdir()
    data = load(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.test_y.bincount().tolist() == [1, 1]
    assert len(data.train_x) == 13
    assert sorted(data.train_paths + data.test_paths) == sorted(arrays)
    for split in ("train", "test"):
        for x, y, path in zip(data.images(split), data.labels(split), getattr(data, f"{split}_paths"), strict=True):
            assert path.split("/")[0] == ("cat", "dog", none)[y]
            np.testing.assert_array_equal(x.permute(1, 2, 0).mul(255).round().byte(), arrays[path])


def test_a_folder_with_its_own_split_where_one_photo_is_coloured(tmp_path):
    for split, n in (("train", 3), ("test", 2)):
        for name in ("a", "b"):
            for i in range(n):
                photo(tmp_path / split / name / f"{i}.png", grey=(split, name, i) != ("test", "b", 1))
    data = load_folder(tmp_path)
    assert (len(data.train_x), len(data.test_x)) == (6, 4)
    assert data.event_shape == (3, 5, 6)
    assert data.test_paths[0] == "test/a/0.png"
    assert (data.train_x[:, 0] == data.train_x[:, 2]).all()


def test_faults_of_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"one sub-folder of images per class .*found none"):
        load_folder(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(UserError, match="cat: expected PNG, JPEG or WebP images, found none"):
        load_folder(tmp_path)
    photo(tmp_path / "cat" / "0.png")
    photo(tmp_path / "cat" / "1.png", size=(7, 6))
    words = r"one size, got 5 x 6 \(0.png\) and 7 x 6 \(1.png\): .* image_size \(for instance 5\), which verbs"
    with pytest.raises(UserError, match=words):
        load_folder(tmp_path)
    assert load_folder(tmp_path, image_size=(3, 4)).event_shape == (3, 3, 4)
    photo(tmp_path / "2.png")
    with pytest.raises(UserError, match="found 1 images outside"):
        load_folder(tmp_path)


def test_examples_keep_the_path_of_each_file(tmp_path):
    photo(tmp_path / "new" / "b.png", grey=True)
    photo(tmp_path / "new" / "deep" / "a.png", grey=True)
    examples = read_examples(tmp_path / "new")
    assert examples.names == ("b.png", "deep/a.png")
    assert examples.images().shape == (2, 1, 5, 6)
    assert read_examples(tmp_path / "new", channels=3, image_size=8).x.shape == (2, 3, 8, 8)
    assert read_examples(npz(tmp_path, x=GREY)).names[-1] == "19"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="found none"):
        read_examples(tmp_path / "empty")


def test_a_share_of_the_labelled_images_is_held_out_for_the_test(tmp_path):
    path = npz(tmp_path, x=GREY, y=NUMBERS)
    whole = load(path, test_fraction=0.0)
    assert torch.equal(whole.test_x, whole.train_x) and whole.test_y.unique().tolist() == [-1]
    assert len(whole.train_x) == len(GREY) and (whole.train_y >= 0).sum() == (NUMBERS >= 0).sum()
    assert whole.source.endswith("none held out for a test")
    half = load(path, test_fraction=0.5)
    assert len(half.test_x) == np.ceil(0.5 * (NUMBERS >= 0).sum()) and "0.5 held out" in half.source
    assert load(path).source == load(path, test_fraction=None).source and "a fifth held out" in load(path).source


def test_a_share_for_the_test_that_makes_no_sense_is_refused(tmp_path):
    for fraction in (-0.1, 1.0, np.nan):
        with pytest.raises(UserError, match="expected a test_fraction of 0 or more and less than 1, got"):
            load(npz(tmp_path, x=GREY, y=NUMBERS), test_fraction=fraction)
    with pytest.raises(UserError, match="expected data of one's own to go with test_fraction, got digits"):
        load("digits", test_fraction=0.0)
    with pytest.raises(UserError, match="expected no test split to go with test_fraction, found one"):
        load(npz(tmp_path, train_x=GREY, train_y=NUMBERS, test_x=GREY, test_y=NUMBERS), test_fraction=0.0)
