"""Report pages: one self-contained HTML file, for a browser or a phone, that needs no network.

Images are inside the file; there are no scripts and nothing is fetched. All text given is escaped.

A page has the part of the run that owns it, and after it the sections that others added by `add_section`, each between
markers of its own. Either part can be written again, in any order, and leaves the other as it is.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml

from core_models.errors import UserError
from core_models.files import write_atomic

from .markdown import number
from .published import Published
from .tables import Record, ours, spreads

CSS = """
:root { color-scheme: light dark; --ink: #1c1e21; --quiet: #5d6470; --paper: #ffffff; --box: #f4f5f7; --line: #d9dce1;
  --accent: #0b63a5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e7ea; --quiet: #a2a9b4; --paper: #16181c; --box: #21242a;
  --line: #3a3f48; --accent: #6cb6f0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 56rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .7rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
p { margin: .4rem 0; } .quiet, figcaption { color: var(--quiet); font-size: .9rem; }
.headlines { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem; }
.headlines div { background: var(--box); border-radius: .5rem; padding: .8rem 1rem; }
.headlines b { display: block; font-size: 1.55rem; line-height: 1.3; color: var(--accent); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .75rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; } th { background: var(--box); font-weight: 600; }
figure { margin: 0 0 1.6rem; } figure img { display: block; max-width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: .5rem; } figcaption { margin-top: .4rem; }
pre { margin: 0; padding: .8rem 1rem; background: var(--box); border-radius: .5rem; overflow-x: auto;
  font-size: .87rem; }
body > * + section { margin-top: 4rem; }
"""


@dataclass(frozen=True)
class Headline:
    """One number that the page begins with."""

    label: str
    value: str
    """As it should read, with its unit: "3.25 %"."""
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    path: Path | str
    """The PNG or GIF file; its bytes go into the page."""
    caption: str
    alt: str = ""
    """What the figure shows, for who can't see it; the caption where empty."""


@dataclass(frozen=True)
class Table:
    """A small table of the page."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    """Cells as they should read, as many as the head has."""
    note: str = ""


def report_page(
    *,
    title: str,
    summary: str = "",
    headlines: Sequence[Headline] = (),
    comparison: Sequence[Record] = (),
    published: Sequence[Published] = (),
    tables: Sequence[Table] = (),
    figures: Sequence[Picture] = (),
    configuration: Mapping[str, Any] | None = None,
    command: str = "",
    notes: Sequence[str] = (),
) -> str:
    """Returns the page; a section without content is left out.

    Args:
        title: the page's heading.
        summary: a sentence or two below it.
        headlines: the numbers that matter.
        comparison: records (`tables.records`) to show beside the published figures.
        published: the facts behind the records, which tell quoted rows from those not run.
        tables: other tables, in order.
        figures: pictures in order.
        configuration: the resolved settings, shown as YAML.
        command: the command that makes this page again.
        notes: what a reader should know about these numbers: data, protocol, device, ...

    Raises:
        UserError: when a figure's file is missing.
    """
    body = [f"<h1>{escape(title)}</h1>"]
    if summary:
        body.append(f'<p class="quiet">{escape(summary)}</p>')
    if headlines:
        boxes = "".join(
            f"<div>{escape(h.label)}<b>{escape(h.value)}</b>"
            + (f'<span class="quiet">{escape(h.note)}</span>' if h.note else "")
            + "</div>"
            for h in headlines
        )
        body.append(f'<div class="headlines">{boxes}</div>')
    if comparison:
        body.append("<h2>Comparison</h2>" + _comparison(comparison, published))
    body += map(_table, tables)
    if figures:
        body.append("<h2>Figures</h2>" + "".join(map(_picture, figures)))
    if notes:
        body.append("<h2>Notes</h2>" + "".join(f"<p>{escape(note)}</p>" for note in notes))
    if configuration:
        text = yaml.safe_dump(dict(configuration), sort_keys=False, allow_unicode=True)
        body.append(f"<h2>Configuration</h2><pre>{escape(text)}</pre>")
    if command:
        body.append(f"<h2>Make it again</h2><pre>{escape(command)}</pre>")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{CSS}</style></head>\n{_START}" + "\n".join(body) + f"\n{_END}"
    )


def write_report(path: Path | str, **content: Any) -> Path:
    """Writes a page, whole or not at all, from the arguments of `report_page`; returns its path.

    Sections that `add_section` put on the page that stands there stay on it.
    """
    page = report_page(**content)
    standing = Path(path).read_text(encoding="utf-8", errors="replace") if Path(path).is_file() else ""
    for found in _SECTION.finditer(standing):
        page = _with_section(page, found[1], found[0])
    write_atomic(path, page)
    return Path(path)


def add_section(path: Path | str, name: str, **content: Any) -> Path:
    """Puts a section on a page that others write, in the place of the one of that name, else as its last.

    Where there is no page yet, one is made of the section alone. Adding twice changes nothing.

    Args:
        path: the page.
        name: of the section: letters, digits, - and _.
        **content: the arguments of `report_page`.

    Returns:
        the path.

    Raises:
        UserError: when a figure's file is missing, or what stands at the path is no page of ours.
    """
    path = Path(path)
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"expected a name of letters, digits, - and _ for a section, got {name!r}")
    head, start, own = report_page(**content).partition(_START)
    own = own.removesuffix(_END)
    section = f'<!-- section:{name} -->\n<section id="{name}">\n{own}</section>\n<!-- end:{name} -->\n'
    page = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else head + start + _END
    if not page.endswith(_END):
        raise UserError(f"expected a report page at {path} to add {name} to, got something else: move it away")
    write_atomic(path, _with_section(page, name, section))
    return path


_START, _END = "<body>\n", "</body></html>\n"
_SECTION = re.compile(r"<!-- section:([\w-]+) -->\n.*?<!-- end:\1 -->\n", re.DOTALL)


def _with_section(page: str, name: str, section: str) -> str:
    if name in (found[1] for found in _SECTION.finditer(page)):
        return _SECTION.sub(lambda found: section if found[1] == name else found[0], page)
    return page.removesuffix(_END) + section + _END


def _comparison(found: Sequence[Record], published: Sequence[Published]) -> str:
    facts = {(f.app, f.table, f.row, f.column): f for f in published}
    head = "".join(f"<th>{name}</th>" for name in ("method", "column", "ours", "published"))
    lines = []
    for r in found:
        fact = facts.get((r["app"], r["table"], r["row"], r["column"]))
        theirs = "" if r["published"] is None else f"{number(r['published'])} {r['unit']}"
        mine = ours(r, fact, bold=False)
        if r["value"] is not None:
            mine = re.sub(r" (?=[([])", f" {r['unit']} ", mine, count=1)
        cells = (r["row"], r["column"], mine, theirs)
        lines.append("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in cells) + "</tr>")
    better = ", ".join(dict.fromkeys(f"{r['unit']}: {r['better']} is better" for r in found))
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    return f'{table}<p class="quiet">{escape("; ".join([better, *spreads(found)]))}.</p>'


def _table(table: Table) -> str:
    lines = [f"<tr>{''.join(f'<th>{escape(text)}</th>' for text in table.head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in table.rows]
    shown = f'<div class="scroll"><table><thead>{lines[0]}</thead><tbody>{"".join(lines[1:])}</tbody></table></div>'
    note = f'<p class="quiet">{escape(table.note)}</p>' if table.note else ""
    return f"<h2>{escape(table.title)}</h2>{shown}{note}"


def _picture(picture: Picture) -> str:
    try:
        content = Path(picture.path).read_bytes()
    except OSError as error:
        raise UserError(f"expected the figure {picture.path} for the report: {error.strerror or error}") from error
    data = base64.b64encode(content).decode()
    alt = escape(picture.alt or picture.caption)
    kind = "gif" if Path(picture.path).suffix == ".gif" else "png"
    return (
        f'<figure><img src="data:image/{kind};base64,{data}" alt="{alt}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )
