"""Result pages: written by hand, with tables put between markers.

A page `docs/results/<app>.md` keeps its prose; what stands between `<!-- table:mnist -->` (the table beside the
published figures), `<!-- draws:mnist -->` (what lies behind its means) or `<!-- measures:mnist -->` (what else was
measured) and the next `<!-- end -->` is replaced each time. Writing twice changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from core_models.errors import UserError

_KINDS = "table|draws|measures"
_BLOCK = re.compile(rf"<!-- ({_KINDS}):(\S+) -->\n(.*?)<!-- (end|(?:{_KINDS}):\S+) -->", re.DOTALL)
_START = re.compile(rf"<!-- (?:{_KINDS}):\S+ -->")


def fill(page: str, blocks: Mapping[str, str], *, name: str) -> str:
    """Returns a page with its generated parts renewed.

    A table that the page has no marker for is added at its end, so that no result goes unseen. A table of many columns
    may be shown in parts, `<!-- table:cifar10:8 -->`: the columns whose names end in 8, or begin with that word.

    Args:
        page: the page as it stands.
        blocks: Markdown by marker: "table:mnist", "draws:mnist", "measures:mnist".
        name: the page's path, for error messages.

    Raises:
        UserError: when a marker isn't closed by `<!-- end -->`, or names a table that doesn't exist.
    """
    seen = []

    def renew(match: re.Match[str]) -> str:
        marker = f"{match[1]}:{match[2]}"
        if match[4] != "end":
            raise UserError(f"{name}: expected <!-- end --> after <!-- {marker} -->, got <!-- {match[4]} -->")
        if marker not in blocks:
            known = ", ".join(blocks) or "none"
            raise UserError(f"{name}: <!-- {marker} --> names no table of this app; known: {known}")
        seen.append(marker)
        return f"<!-- {marker} -->\n{blocks[marker].strip()}\n<!-- end -->"

    filled = _BLOCK.sub(renew, page)
    if len(_START.findall(page)) != len(seen):
        raise UserError(f"{name}: expected <!-- end --> after the last marker, found none")
    for marker, content in blocks.items():
        shown_in_parts = any(other.startswith(f"{marker}:") for other in seen)
        if marker.startswith("table:") and marker.count(":") == 1 and marker not in seen and not shown_in_parts:
            title = marker.partition(":")[2]
            filled = f"{filled.rstrip()}\n\n## {title}\n\n<!-- {marker} -->\n{content.strip()}\n<!-- end -->\n"
    return filled


def new_page(app: str) -> str:
    """Returns the page of an app that has none yet."""
    return (
        f"# Results: {app.replace('_', ' ')}\n\n"
        f"The tables on this page are written by `genapps results --app {app} --write` from the cells in `{app}/`;"
        " the text around them is not.\n"
    )
