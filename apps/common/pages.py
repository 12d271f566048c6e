"""Result pages: written by hand, with tables put between markers.

A page `docs/results/<app>.md` keeps its prose; what stands between `<!-- table:mnist -->` (the table beside the
published figures), `<!-- draws:mnist -->` (what lies behind its means) or `<!-- measures:mnist -->` (what else was
measured) and the next `<!-- end -->` is replaced each time. Writing twice changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from core_models.errors import UserError

_KINDS = "table|draws|measures"
_BLOCK = re.compile(rf"<!-- ({_KINDS}):(\S+) -->\n(.*?)<!-- (end|(?:{_KINDS}):\S+) -->", re.DOTALL)
_START = re.compile(rf"<!-- (?:{_KINDS}):\S+ -->")


def fill(page: str, blocks: Mapping[str, str], columns: Mapping[str, Collection[str]], *, name: str) -> str:
    """Returns a page with its generated parts renewed.

    A table that the page has no marker for is added at its end, so that no result goes unseen. A table of many columns
    may be shown in parts, `<!-- table:cifar10:8 -->`: the columns whose names end in 8, or begin with that word. The
    columns of such a table that no part shows are added at the end too.

    Args:
        page: the page as it stands.
        blocks: Markdown by marker: "table:mnist", "draws:mnist", "measures:mnist".
        columns: what a table and its parts show, by marker.
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
    for marker in _unseen(blocks, seen, columns):
        title = marker.partition(":")[2].replace(":", ": ")
        block = f"<!-- {marker} -->\n{blocks[marker].strip()}\n<!-- end -->"
        filled = f"{filled.rstrip()}\n\n## {title}\n\n{block}\n"
    return filled


def _unseen(blocks: Iterable[str], seen: Collection[str], columns: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Yields the markers of tables, or of parts of tables, that show what those seen do not."""
    for table in (marker for marker in blocks if marker.startswith("table:") and marker.count(":") == 1):
        parts = [marker for marker in blocks if marker.startswith(f"{table}:")]
        shown = [marker for marker in parts if marker in seen]
        if table in seen:
            continue
        if not shown:
            yield table
            continue
        left = set(columns.get(table, ())).difference(*(columns[marker] for marker in shown))
        for marker in parts:
            if left.intersection(columns[marker]):
                yield marker
                left.difference_update(columns[marker])


def new_page(app: str) -> str:
    """Returns the page of an app that has none yet."""
    return (
        f"# Results: {app.replace('_', ' ')}\n\n"
        f"The tables on this page are written by `genapps results --app {app} --write` from the cells in `{app}/`;"
        " the text around them is not.\n"
    )
