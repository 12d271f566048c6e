"""Figures and tables as Markdown has them."""

from __future__ import annotations

from collections.abc import Sequence


def number(value: float, digits: int = 2) -> str:
    """Returns a figure to two decimals, or to two digits, or more, where it is smaller than 0.1."""
    return f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:#.{digits}g}".rstrip(".")


def escape(text: str) -> str:
    """Returns text as an entry of a table can hold it."""
    return text.replace("|", r"\|").replace("\n", " ")


def grid(lines: Sequence[Sequence[str]]) -> str:
    """Returns a table of rows of equal length, the header first."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def join(line: Sequence[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |\n"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|\n"
    return join(lines[0]) + rule + "".join(join(line) for line in lines[1:])
