"""Matrix products in single precision by the faster library: on some CPUs PyTorch's default has half of its speed.

MKL uses no AVX-512 on other makers' CPUs, oneDNN does: on an EPYC (Zen 5), 256 x 256 x 256 takes 297 us by the one and
140 us by the other, rounded alike. PyTorch asks oneDNN for products in single precision only when told that bfloat16
would do ("medium"), which oneDNN then uses where it has instructions for it (AMX). So a product is tried first, and the
setting stays only where its result is as exact as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def as_exact(size: int = 256) -> bool:
    """Returns whether a product, under the present setting, is rounded no worse than single precision is."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, size, size, generator=generator) for _ in range(2))
    return float((torch.bmm(a, b) - torch.bmm(a.double(), b.double())).abs().max()) < 1e-6 * size


@contextmanager
def fast_products() -> Iterator[None]:
    """Lets products in single precision run by oneDNN for the length of a block, where they stay as exact."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    if not as_exact():
        torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
