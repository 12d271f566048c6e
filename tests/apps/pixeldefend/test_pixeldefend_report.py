"""The figures of PixelDefend show what they are given, and its section shares a page with others."""

import re

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from apps.common.report import Table, add_section, write_report
from apps.pixeldefend.detection import area_under_curve
from apps.pixeldefend.pictures import (
    AMPLIFIED,
    Captioned,
    density_histograms,
    difference,
    purification_grid,
    roc_curves,
)
from core_models.errors import UserError

RNG = np.random.default_rng(0)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, for a look at what is in them."""
    figures, save = [], Figure.savefig

    def keep(figure, *rest, **more):
        figures.append(figure)
        return save(figure, *rest, **more)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def flat(levels, channels, names):
    """One 6 x 5 image of each level."""
    images = np.stack([np.full((channels, 6, 5), level, np.uint8) for level in levels])
    return Captioned(images, names, np.arange(1.0, len(levels) + 1))


def grid(path, channels=1, truth=("cat", "a dog of great length")):
    wrong = [truth[0], "emu"]
    three = (
        flat([100, 50], channels, truth), flat([125, 41], channels, wrong), flat([108, 50], channels, truth),
    )  # fmt: skip
    return purification_grid(*three, path, truth=truth, title="BIM"), three


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_shows_images_and_their_amplified_differences(tmp_path, channels):
    path, _ = grid(tmp_path / "x.png", channels)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int).reshape(-1, 3)
    assert AMPLIFIED == 4
    middle = 127.5
    expected = [100, 50, 125, 41, 108, middle + 4 * 25, middle - 4 * 9, middle + 4 * 8, middle]
    for level in expected:  # each fills a tile of thousands of pixels
        assert (np.abs(pixels - level).max(axis=1) <= 1).sum() > 4000, level


def test_the_captions_say_class_and_bits_and_mark_what_is_wrong(tmp_path, drawn):
    grid(tmp_path / "x.png")
    (axes,) = drawn[0].axes
    texts = [(text.get_text(), to_hex(text.get_color())) for text in axes.texts]
    black, red = "#000000", "#d55e00"
    assert texts == [
        ("cat\n1.00 bits/dim", black), ("a dog of grea…\n2.00 bits/dim", black),
        ("cat\n1.00 bits/dim", black), ("emu ✗\n2.00 bits/dim", red),
        ("cat\n1.00 bits/dim", black), ("a dog of grea…\n2.00 bits/dim", black),
        ("up to 25 levels", black), ("up to 9 levels", black),
        ("up to 8 levels", black), ("up to 0 levels", black),
    ]  # fmt: skip
    assert axes.get_title(loc="left") == "BIM; differences x 4, grey is none"
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["clean", "adversarial", "purified", "adversarial\nless clean", "purified\nless clean"]


def test_a_difference_is_cut_off_at_black_and_white():
    clean = np.array([[[[10, 200, 128]]]], np.uint8)
    changed = np.array([[[[50, 150, 128]]]], np.uint8)
    np.testing.assert_allclose(difference(changed, clean), [[[[1.0, 0.0, 0.5]]]])


def test_histograms_share_their_bins_and_count_every_image(tmp_path, drawn):
    clean, first, second = RNG.normal(3, 0.2, 40), RNG.normal(4, 0.2, 20), np.array([2.0, np.inf, 7.5])
    attacks = {"RAND": (first, first - 1), "BPDA": (second, second)}
    density_histograms(clean, attacks, tmp_path / "x.png", threshold=3.4, false_positive_rate=0.05, title="Bits")
    (figure,) = drawn
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["RAND (n = 20)", "BPDA (n = 3)"]
    edges = figure.axes[0].patches[0].get_data().edges
    assert edges[0] == 2.0 and edges[-1] == 7.5
    for axes, (adversarial, purified) in zip(figure.axes, attacks.values(), strict=True):
        filled, _, before, after = (patch.get_data() for patch in axes.patches)
        for data, own in ((filled, clean), (before, adversarial), (after, purified)):
            np.testing.assert_array_equal(data.edges, edges)
            assert data.values.sum() == pytest.approx(100)
            counts = np.histogram(np.clip(own, 2.0, 7.5), edges)[0]
            np.testing.assert_allclose(data.values, 100 * counts / len(own))
        (line,) = axes.lines
        assert set(line.get_xdata()) == {3.4}
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["clean", "adversarial", "adversarial, purified", "suspicious above 3.40, 5 % false alarms"]
    assert figure.axes[-1].get_xlabel() == "bits/dim"
    density_histograms(clean, attacks, tmp_path / "x.png", threshold=np.inf)
    assert not drawn[1].axes[0].lines


def test_roc_curves_tell_their_areas(tmp_path, drawn):
    clean = RNG.normal(0, 1, 30)
    attacks = {"RAND": RNG.normal(1, 1, 20), "BIM": np.full(5, 99.0)}
    roc_curves(clean, attacks, tmp_path / "x.png", false_positive_rate=0.05)
    (axes,) = drawn[0].axes
    lines = {line.get_label().partition(":")[0]: line for line in axes.lines}
    assert set(lines) == {"chance", "5 % false alarms", "RAND", "BIM"}
    for name, scores in attacks.items():
        x, y = (np.asarray(own) for own in lines[name].get_data())
        # by trapezoids, from the drawn points
        area = ((y[1:] + y[:-1]) / 2 * np.diff(x)).sum()
        found = area_under_curve(clean, scores)
        assert area == pytest.approx(found.value)
        told = f"{name}: AUC {area:.3f} (95 %: {found.low:.3f} to {found.high:.3f}, n = {len(scores)})"
        assert lines[name].get_label() == told
    assert len({line.get_linestyle() + line.get_color() for line in axes.lines}) == 4


@pytest.mark.parametrize(
    ("draw", "why"),
    [
        (lambda p: density_histograms([1.0], {}, p), "at least one attack"),
        (lambda p: density_histograms([np.inf], {"x": ([np.inf], [np.inf])}, p), "finite"),
        (lambda p: roc_curves([1.0], {}, p), "at least one attack"),
        (lambda p: purification_grid(*three_of_two_sizes(), p, truth=["a"], title=""), "of one shape"),
    ],
)
def test_what_cannot_be_drawn_is_named_and_nothing_written(tmp_path, draw, why):
    with pytest.raises(UserError, match=why):
        draw(tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def three_of_two_sizes():
    return flat([1], 1, ["a"]), flat([1], 3, ["a"]), flat([1], 1, ["a"])


def test_a_section_is_added_once_and_survives_the_page_being_written_again(tmp_path):
    path = tmp_path / "report.html"
    alone = write_report(path, title="M1", notes=["first"]).read_text()
    other = add_section(path, "other", title="Other").read_text()
    with_both = add_section(path, "pixeldefend", title="PixelDefend", notes=[r"a \1 <b>"]).read_text()
    assert add_section(path, "pixeldefend", title="PixelDefend", notes=[r"a \1 <b>"]).read_text() == with_both
    assert [re.sub("<.*?>", "", found) for found in re.findall("<h1>.*</h1>", with_both)] == [
        "M1", "Other", "PixelDefend",
    ]  # fmt: skip
    assert r"<p>a \1 &lt;b&gt;</p>" in with_both and with_both.endswith("</section>\n<!-- end:pixeldefend -->\n" + END)
    # what stood before is a beginning of what stands now, but for the last line
    assert other.startswith(alone.removesuffix(END)) and with_both.startswith(other.removesuffix(END))
    # each part is replaced in its place
    changed = add_section(path, "other", title="Another").read_text()
    assert changed == with_both.replace("<h1>Other</h1>", "<h1>Another</h1>")
    again = write_report(path, title="M2").read_text()
    assert "<h1>M2</h1>" in again and "first" not in again
    assert again.partition("<!-- section")[2] == changed.partition("<!-- section")[2]


END = "</body></html>\n"


def test_a_section_makes_the_page_where_there_is_none(tmp_path):
    page = add_section(tmp_path / "report.html", "pixeldefend", title="PixelDefend").read_text()
    assert page.startswith("<!doctype html>") and page.endswith(END) and page.count("<h1>") == 1
    assert "<title>PixelDefend</title>" in page


def test_what_is_no_page_is_left_alone(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("a diary")
    with pytest.raises(UserError, match="expected a report page"):
        add_section(path, "pixeldefend", title="x")
    assert path.read_text() == "a diary"
    with pytest.raises(UserError, match="letters, digits"):
        add_section(path, "--> <b>", title="x")


def test_a_table_shows_its_cells_as_they_are(tmp_path):
    table = Table("Accuracy", ["images", "AUC"], [["clean", "-"], ["<BIM>", "1.000"]], note="n & m")
    page = write_report(tmp_path / "x.html", title="x", tables=[table]).read_text()
    assert "<h2>Accuracy</h2>" in page and '<p class="quiet">n &amp; m</p>' in page
    assert re.findall("<t[hd]>(.*?)</t[hd]>", page) == ["images", "AUC", "clean", "-", "&lt;BIM&gt;", "1.000"]
