"""Where numbers are kept from being too coarse: sums of a likelihood are taken in single precision or better."""

import torch
from torch import Tensor

HALVES = (torch.bfloat16, torch.float16)


def at_least_single(x: Tensor) -> Tensor:
    """Returns a tensor as float32 where it is of bfloat16 or float16, of 8 and 11 bits; else as it is.

    Example:
        >>> at_least_single(torch.zeros(2, dtype=torch.bfloat16)).dtype, at_least_single(torch.zeros(2).double()).dtype
        (torch.float32, torch.float64)
    """
    return x.float() if x.dtype in HALVES else x
