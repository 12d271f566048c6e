import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.axes import Axes
from PIL import Image

from apps.common import figures
from core_models.errors import UserError

RNG = np.random.default_rng(0)


def picture(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def draw_all(folder):
    images = RNG.random((6, 1, 8, 8))
    counts = np.array([[9, 1], [0, 5]])
    metrics = [{"epoch": i, "loss_nats": 1 / (i + 1), "stage": stage} for stage in ("m1", "m2") for i in range(4)]
    return [
        figures.image_grid(images, folder / "grid.png", columns=4, title="Samples"),
        figures.image_grid(RNG.random((1, 3, 8, 8)), folder / "one.png"),
        figures.analogies(images[:2], images.reshape(2, 3, 1, 8, 8), folder / "analogies.png", classes=["a", "b", "c"]),
        figures.manifold(images.reshape(2, 3, 1, 8, 8), folder / "manifold.png"),
        figures.learning_curves([*metrics, {"epoch": 4, "error": 0.1}], folder / "curves.png", title="Run"),
        figures.confusion_matrix(counts, folder / "confusion.png", classes=["cat", "a class with a long name"]),
        figures.scatter(RNG.random((20, 2)), np.arange(20) % 12 - 1, folder / "scatter.png", title="z"),
    ]


def test_every_figure_is_one_whole_png_and_leaves_no_trace(tmp_path):
    before = dict(rcParams)
    paths = draw_all(tmp_path)
    for path in paths:
        assert picture(path).std() > 1  # something is drawn
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert dict(rcParams) == before


def test_pixels_keep_their_values_and_places(tmp_path):
    """Four flat images: black, grey, white and red, in reading order."""
    tiles = np.stack([np.full((3, 8, 8), v) for v in (0.0, 0.5, 1.0, 0.0)])
    tiles[3, 0] = 1.0
    image = picture(figures.image_grid(tiles, tmp_path / "x.png", columns=2))
    height, width = image.shape[:2]
    corners = [image[int(height * y), int(width * x)] for y in (0.25, 0.75) for x in (0.25, 0.75)]
    np.testing.assert_allclose(corners, [[0] * 3, [127.5] * 3, [255] * 3, [255, 0, 0]], atol=3)


def test_a_failed_figure_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(b"before")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(UserError, match="the disk is full"):
        figures.image_grid(RNG.random((1, 1, 8, 8)), path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_classes_are_told_apart():
    looks = {(figures.PALETTE[i % len(figures.PALETTE)], figures.MARKERS[i % len(figures.MARKERS)]) for i in range(70)}
    assert len(looks) == 70


@pytest.mark.parametrize(
    ("draw", "why"),
    [
        (lambda p: figures.image_grid(np.zeros((2, 5, 8, 8)), p), r"got \(2, 5, 8, 8\)"),
        (lambda p: figures.image_grid(np.zeros((0, 1, 8, 8)), p), "at least one image"),
        (lambda p: figures.analogies(np.zeros((2, 1, 8, 8)), np.zeros((3, 2, 1, 8, 8)), p), r"got \(3, 2, 1, 8, 8\)"),
        (lambda p: figures.manifold(np.zeros((2, 1, 8, 8)), p), "expected a grid"),
        (lambda p: figures.learning_curves([], p), "at least one record"),
        (lambda p: figures.confusion_matrix(np.zeros((2, 3)), p), r"got \(2, 3\)"),
        (lambda p: figures.scatter(np.zeros((2, 3)), np.zeros(2), p), r"got \(2, 3\)"),
    ],
)
def test_a_wrong_shape_is_named_and_nothing_written(tmp_path, draw, why):
    with pytest.raises(UserError, match=why):
        draw(tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_names_are_drawn_as_they_are(tmp_path, monkeypatch):
    """A formula between dollars may not parse, and legends leave out what begins with an underscore."""
    seen = []
    monkeypatch.setattr(Axes, "legend",
                        lambda self, *_, **__: seen.extend(self.get_legend_handles_labels()[1]))  # fmt: skip
    figures.scatter(RNG.random((4, 2)), [0, 0, 1, 1], tmp_path / "names.png", classes=["_background_", "$a_$ and $"])
    assert [name.strip() for name in seen] == ["_background_", r"\$a_\$ and \$"]
    figures.confusion_matrix(np.eye(2, dtype=int), tmp_path / "matrix.png", classes=["$\\frac$", "b"])
    assert figures.marker_of([1]) and not figures.marker_of(range(12))
