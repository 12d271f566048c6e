import pytest

from apps.common.pages import fill, new_page
from core_models.errors import UserError

PAGE = """# Results

Prose before.

<!-- table:mnist -->
old
<!-- end -->

Prose after.
"""


def test_only_what_is_between_markers_changes():
    filled = fill(PAGE, {"table:mnist": "| new |\n", "draws:mnist": "unused"}, {}, name="p.md")
    assert filled == PAGE.replace("old", "| new |")
    assert fill(filled, {"table:mnist": "| new |\n"}, {}, name="p.md") == filled


def test_a_table_without_a_marker_is_added_once():
    blocks = {"table:mnist": "m", "table:later": r"| a\1 |", "draws:later": "not asked for"}
    once = fill(new_page("semi_supervised"), blocks, {}, name="p.md")
    assert once.count("<!-- table:later -->") == 1
    assert r"| a\1 |" in once
    assert "not asked for" not in once
    assert fill(once, blocks, {}, name="p.md") == once


def test_columns_that_no_part_shows_are_added():
    blocks = {"table:a": "whole", "table:a:8": "eight", "table:a:25": "twenty-five", "table:a:Normal": "normal"}
    columns = {"table:a": ["Normal 8", "Normal 25", "Other 8"], "table:a:8": ["Normal 8", "Other 8"],
               "table:a:25": ["Normal 25"], "table:a:Normal": ["Normal 8", "Normal 25"]}  # fmt: skip
    page = "# p\n\n<!-- table:a:8 -->\n<!-- end -->\n"
    filled = fill(page, blocks, columns, name="p.md")
    assert filled.endswith("eight\n<!-- end -->\n\n## a: 25\n\n<!-- table:a:25 -->\ntwenty-five\n<!-- end -->\n")
    assert fill(filled, blocks, columns, name="p.md") == filled


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ("<!-- table:mnist -->\nx\n", "p.md: expected <!-- end --> after the last"),
        ("<!-- table:mnist -->\n<!-- table:b -->\n<!-- end -->", "expected <!-- end --> after <!-- table:mnist -->"),
        ("<!-- table:mist -->\n<!-- end -->", "<!-- table:mist --> names no table of this app; known: table:mnist"),
    ],
)
def test_a_broken_marker_is_named(page, why):
    with pytest.raises(UserError, match=why):
        fill(page, {"table:mnist": "new"}, {}, name="p.md")
