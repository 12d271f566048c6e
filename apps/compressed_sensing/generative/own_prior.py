"""A generative prior made of any module whose forward pass makes signals of latents, such as a GAN's generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Size, Tensor, nn

from core_models.errors import UserError

FAULTS = (RuntimeError, TypeError, ValueError, AssertionError, IndexError, AttributeError)
"""What a module raises that is given latents of another shape, or returns something else than a tensor."""


class Prior(nn.Module):
    """What methods ask of a prior: G(z) by `decode`, and both shapes. It stays in evaluation mode as it is handed over.

    Args:
        module: maps standard normal latents (n, *latent_shape) to signals (n, *event_shape), flat or not.
        latent_shape: of one latent, (100, 1, 1) for many a DCGAN.
        event_shape: of one signal; (channels, height, width) of images.
        low: the module's value of black, -1 where it ends in tanh.
        high: and of white. `decode` has them at 0 and 1, as images are here; leave both out for other signals.

    Raises:
        UserError: when `high` isn't above `low`, or the module's signals have another shape.

    Example:
        >>> generator = nn.Sequential(nn.Linear(2, 16), nn.Tanh())
        >>> Prior(generator, (2,), (1, 4, 4), low=-1, high=1).decode(torch.zeros(3, 2)).shape
        torch.Size([3, 1, 4, 4])
    """

    def __init__(
        self, module: nn.Module, latent_shape: Sequence[int], event_shape: Sequence[int], low: float = 0.0,
        high: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if not high > low:
            raise UserError(f"expected high above low, the module's values of white and black, got {high} and {low}")
        self.module, self.low, self.high = module, low, high
        self.latent_shape, self.event_shape = Size(latent_shape), Size(event_shape)
        self.eval()
        require_shapes(self)

    def decode(self, z: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """Returns signals (n, *event_shape) of latents (n, *latent_shape)."""
        made = self.module(z)
        if made[0].numel() == self.event_shape.numel():
            made = made.reshape(len(z), *self.event_shape)
        rescaled: Tensor = (made - self.low) / (self.high - self.low)
        return rescaled


def require_shapes(prior: Any, where: str = "", draws: int = 16) -> Float[Tensor, "draws ..."]:
    """Decodes a few standard normal latents, which must become signals of the shape that the prior says.

    Args:
        prior: with `decode`, `latent_shape` and `event_shape`.
        where: it was named, as a message begins.
        draws: how many.

    Raises:
        UserError: when they don't.
    """
    wanted: tuple[int, ...] = (draws, *prior.event_shape)
    like = next((weight for weight in prior.parameters() if weight.is_floating_point()), torch.empty(0))
    z = torch.randn(draws, *prior.latent_shape, generator=torch.Generator().manual_seed(0)).to(like)
    try:
        with torch.no_grad():
            made: Tensor = prior.decode(z)
        shape = tuple(made.shape)
    except FAULTS as error:
        raise UserError(
            f"{where}expected {type(prior).__name__} to decode latents {tuple(z.shape)}, as its latent_shape says, got "
            f"{next(iter(str(error).splitlines()), type(error).__name__)}"
        ) from error
    if shape != wanted:
        raise UserError(
            f"{where}expected {type(prior).__name__} to decode latents into {wanted}, as its event_shape says, got "
            f"{shape}"
        )
    return made
