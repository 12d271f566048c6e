import numpy as np
import pytest
import torch

from core_models.data import balanced_draw, holdout, kept_draw
from core_models.errors import UserError

Y = np.random.RandomState(0).permutation(np.repeat(np.arange(10), 30))


def test_a_draw_is_balanced_ascending_and_seeded():
    draw = balanced_draw(Y, 50, seed=3)
    assert draw.dtype == np.int64
    assert (np.diff(draw) > 0).all()
    assert np.bincount(Y[draw]).tolist() == [5] * 10
    assert np.array_equal(draw, balanced_draw(torch.from_numpy(Y), 50, seed=3))
    assert not np.array_equal(draw, balanced_draw(Y, 50, seed=4))
    assert set(draw) < set(balanced_draw(Y, 100, seed=3))


def test_a_draw_is_the_same_for_good():
    # kept index files can be made again only while this holds
    assert balanced_draw(np.arange(40) % 4, 8, seed=0).tolist() == [3, 10, 12, 17, 18, 27, 28, 37]
    assert holdout(np.arange(20) % 4, 0.2)[1].tolist() == [1, 3, 8, 18]


def test_every_example_is_as_likely_as_another_of_its_class():
    y = np.arange(40) % 4
    counts = sum(np.bincount(balanced_draw(y, 8, seed=seed), minlength=40) for seed in range(500))
    assert np.abs(counts / 500 - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 500)


def test_unlabelled_examples_are_never_drawn():
    y = np.where(np.arange(300) % 2, Y, -1)
    assert (y[balanced_draw(y, 20, seed=0)] >= 0).all()


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (55, None, "multiple of the 10 classes, got 55: try 50"),
        (5, None, "multiple of the 10 classes, got 5: try 10"),
        (310, None, "at most 300 labels, as many as exist, got 310"),
        (22, 11, "2 labelled examples of each class for 22 labels, class 10 has 0: ask for at most 0"),
    ],
)
def test_draws_that_cannot_be_made_are_refused(labels, classes, message):
    with pytest.raises(UserError, match=message):
        balanced_draw(Y, labels, seed=0, classes=classes)


def test_a_small_class_no_label_and_a_bad_seed_are_refused():
    with pytest.raises(UserError, match="class 0 has 3: ask for at most 6 labels"):
        balanced_draw(np.array([0, 1, 1, 0, 1, 1, 1, 0]), 8, seed=0)
    with pytest.raises(UserError, match="got none"):
        balanced_draw(np.full(5, -1), 1, seed=0)
    with pytest.raises(UserError, match="seed from 0"):
        balanced_draw(Y, 10, seed=-1)


def test_a_kept_draw_is_written_once_and_read_back(tmp_path):
    first = kept_draw("mnist", Y, 20, 1, tmp_path / "draws")
    path = tmp_path / "draws" / "mnist_20_1.txt"
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# 20 of 300 labels of mnist, seed 1")
    assert [int(line) for line in lines[1:]] == first.tolist() == balanced_draw(Y, 20, seed=1).tolist()
    # the file decides, not the seed: another balanced draw written there is taken
    other = balanced_draw(Y, 20, seed=2)
    path.write_text("\n".join([lines[0], *map(str, other)]) + "\n")
    assert np.array_equal(kept_draw("mnist", Y, 20, 1, tmp_path / "draws"), other)


def test_a_name_that_is_a_path_stays_inside_the_folder(tmp_path):
    kept_draw("../my photos", Y, 10, 0, tmp_path / "draws")
    assert [path.name for path in (tmp_path / "draws").iterdir()] == ["..-my-photos_10_0.txt"]


def test_a_kept_draw_is_verified(tmp_path):
    draw = kept_draw("mnist", Y, 20, 1, tmp_path)
    path = tmp_path / "mnist_20_1.txt"
    header, *lines = path.read_text().splitlines()
    absent = next(i for i in range(300) if i not in draw and Y[i] != Y[draw[-1]])
    faults = {
        "a comment and one index per line": [header, *lines[:-1], "x"],
        "20 ascending indices below 300": [header, *lines[:-1]],
        "20 ascending indices": [header, *lines[:-1], "300"],
        "ascending indices": [header, *lines[::-1]],
        "as many labels of each class": [header, *map(str, sorted([*draw[:-1].tolist(), absent]))],
        "a draw of other labels": ["# other", *lines],
    }
    for message, content in faults.items():
        path.write_text("\n".join(content) + "\n")
        with pytest.raises(UserError, match=f"mnist_20_1.txt: .*{message}"):
            kept_draw("mnist", Y, 20, 1, tmp_path)
    path.write_text("\n".join([header, *lines]) + "\n")
    with pytest.raises(UserError, match="a draw of other labels"):
        kept_draw("mnist", Y[::-1].copy(), 20, 1, tmp_path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="one index per line"):
        kept_draw("mnist", Y, 20, 1, tmp_path)


def test_holdout_is_stratified_and_complete():
    y = np.repeat([0, 1, 2, -1], [50, 30, 1, 9])
    train, test = holdout(y, 0.2, seed=0)
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(90))
    # ceil(0.2 * 81) = 17 by largest remainder; the only example of class 2 stays
    assert np.bincount(y[test] + 1, minlength=4).tolist() == [0, 10, 6, 0]
    assert len(holdout(np.full(10, -1))[1]) == 2
