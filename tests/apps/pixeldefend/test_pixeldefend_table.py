"""The rows of the table, and the interval beside a figure."""

import pytest
import torch

from apps.pixeldefend.measuring import accuracy
from apps.pixeldefend.table import Row, find_rows, rows


def test_rows_are_named_as_published():
    from apps.common.published import published

    for table, eps in (("fashion_mnist", 32), ("cifar10", 16)):
        named = {fact.row for fact in published("pixeldefend") if fact.table == table}
        assert named <= {row.title for row in rows(eps)}
    assert find_rows(["VGG Normal + PixelDefend (32)"], 32) == [Row("VGG", "Normal", purifying="PixelDefend", eps=32)]


def test_the_interval_is_wilsons():
    value, extra = accuracy(torch.tensor([True] * 8 + [False] * 2))
    # by hand: (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.96
    assert value == 80 and extra["interval"] == pytest.approx([49.02, 94.33], abs=0.01) and extra["error_count"] == 2
