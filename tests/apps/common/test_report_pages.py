import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from apps.common.figures import image_grid
from apps.common.published import published
from apps.common.report import Headline, Picture, report_page, write_report
from apps.common.tables import records
from core_models.errors import UserError

EVIL = '<script>alert("1")</script> & <b>'


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


@pytest.fixture
def figure(tmp_path):
    return image_grid(np.zeros((1, 1, 4, 4)), tmp_path / "x.png")


def test_a_page_holds_everything_and_fetches_nothing(tmp_path, figure):
    facts = published("semi_supervised")
    path = write_report(
        tmp_path / "report.html",
        title="M1+M2",
        summary="Trained.",
        headlines=[Headline("Test error", "3.25 %", "325 of 10,000")],
        comparison=records([], facts),
        published=facts,
        figures=[Picture(figure, "Samples of each class", alt="a grid of digits")],
        configuration={"method": {"class_path": "M2"}, "labels": 100},
        command="genapps semi-supervised train --config semi_supervised/m2",
        notes=["Pool of 60,000."],
    )
    text = path.read_text()
    page = Page(text)
    for words in (
        "3.25 %",
        "as published",
        "— not run",
        "3.33 %",
        "Samples of each class",
        "class_path: M2",
        "--config",
    ):
        assert words in page.words
    ((_, image),) = [tag for tag in page.tags if tag[0] == "img"]
    assert image["alt"] == "a grid of digits"
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == figure.read_bytes()
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)


def test_all_text_is_escaped(figure):
    text = report_page(
        title=EVIL,
        summary=EVIL,
        headlines=[Headline(EVIL, EVIL, EVIL)],
        comparison=[record | {"row": EVIL} for record in records([], published("semi_supervised"))[:1]],
        figures=[Picture(figure, EVIL), Picture(figure, "x", alt='" onerror="alert(1)')],
        configuration={EVIL: EVIL},
        command=EVIL,
        notes=[EVIL],
    )
    page = Page(text)
    assert "<script" not in text
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert page.words.count('alert("1")') >= 9


def test_sections_without_content_are_left_out():
    assert "<h2>" not in report_page(title="x")


def test_a_missing_figure_is_named(tmp_path):
    with pytest.raises(UserError, match=r"expected the figure .*gone\.png"):
        write_report(tmp_path / "r.html", title="x", figures=[Picture(tmp_path / "gone.png", "x")])
    assert list(tmp_path.iterdir()) == []
