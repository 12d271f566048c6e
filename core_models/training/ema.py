r"""Exponential moving average of a module's weights, with bias correction.

.. math:: m_t = (1 - d) \sum_{s=1}^{t} d^{\,t-s} \theta_s \Big/ (1 - d^{\,t})
              = m_{t-1} + \frac{1 - d}{1 - d^{\,t}} (\theta_t - m_{t-1})

The second form keeps the corrected average itself: :math:`m_1 = \theta_1` whatever the start, and what never changes
(a mask among the buffers) stays what it is to the last bit.

Source: the correction is that of Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, section 3.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialMovingAverage:
    """The moving average of a module's trainable parameters and floating-point buffers.

    Other buffers, frozen parameters and buffers that hold an infinity (a mask of logits) are taken as they are.

    Args:
        module: what is averaged; it must keep its parameters where they are.
        decay: the weight of the past, d.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        # a buffer may be rebound (self.mean = ...), so what is kept is where it is looked up, not the tensor
        self._sources: dict[str, tuple[dict[str, Tensor], str]] = {}
        persistent = module.state_dict().keys()
        seen: set[int] = set()
        for path, owner in module.named_modules():
            for table in (owner._parameters, owner._buffers):
                for name, tensor in table.items():
                    full = f"{path}.{name}" if path else name
                    if tensor is not None and full in persistent and id(tensor) not in seen and _averaged(tensor):
                        seen.add(id(tensor))
                        self._sources[full] = (table, name)
        self.average = {name: tensor.clone() for name, tensor in zip(self._sources, self._live(), strict=True)}

    def _live(self) -> list[Tensor]:
        return [table[name].detach() for table, name in self._sources.values()]

    def update(self) -> None:
        """Takes in the module's weights, after a step."""
        self.updates += 1
        if self.average:
            weight = (1.0 - self.decay) / (1.0 - self.decay**self.updates)
            torch._foreach_lerp_(list(self.average.values()), self._live(), weight)

    def copy_to_module(self) -> None:
        """Overwrites the module's weights with the average."""
        if self.average:
            torch._foreach_copy_(self._live(), list(self.average.values()))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Lends the module the average for the length of a block, then gives it back its own weights, bit for bit."""
        own = [tensor.clone() for tensor in self._live()]
        self.copy_to_module()
        try:
            yield
        finally:
            for tensor, kept in zip(self._live(), own, strict=True):
                tensor.copy_(kept)

    def load(self, average: Mapping[str, Tensor], updates: int) -> None:
        """Takes over a saved average."""
        for name, tensor in self.average.items():
            tensor.copy_(average[name])
        self.updates = updates


def _averaged(tensor: Tensor) -> bool:
    if isinstance(tensor, nn.Parameter):
        return tensor.requires_grad
    return tensor.is_floating_point() and bool(tensor.isfinite().all())
