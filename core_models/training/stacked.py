"""Several objectives of one shape trained as one: their parameters lie along a leading dimension.

Forty small models (draws of labels, restarts) then cost one stream of kernel launches instead of forty. Each member
has its own parameters, batches and noise; since the losses are added, and the optimiser works value by value, no member
knows of the others (gradient clipping by norm, which would tie them, must be off).
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils._pytree import tree_map

from ..base import Metrics, Objective, Scalar
from ..errors import UserError
from .batches import Batches
from .checkpoint import MODEL, describe


class StackableObjective(Objective):
    """An objective whose randomness can be drawn apart from its loss."""

    @abstractmethod
    def noise(self, batch: Mapping[str, Tensor], generator: Generator | None = None) -> Any:
        """Draws all that `loss` needs: tensors, or a tuple of them and None."""

    @abstractmethod
    def loss(self, batch: Mapping[str, Tensor], noise: Any) -> tuple[Scalar, Metrics]:
        """Returns the loss and metrics given the noise; has no randomness of its own."""

    def forward(self, batch: Mapping[str, Tensor], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the loss of a batch and its metrics."""
        return self.loss(batch, self.noise(batch, generator))


class _Loss(nn.Module):
    """Makes `loss` the forward pass, which is what a functional call reaches."""

    def __init__(self, objective: StackableObjective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: Mapping[str, Tensor], noise: Any) -> tuple[Tensor, Metrics]:
        """Calls `loss`."""
        return self.objective.loss(batch, noise)


class Stacked(Objective):
    """Members trained as one.

    Args:
        members: objectives of one class, one shape and the same settings, whose state is in their parameters alone;
            `unstack` gives them their weights back.

    Raises:
        UserError: when there is no member, they differ in shape or settings, or have state in buffers.
    """

    def __init__(self, members: Sequence[StackableObjective]) -> None:
        super().__init__()
        shapes = {tuple((name, tuple(p.shape)) for name, p in member.state_dict().items()) for member in members}
        if len(shapes) != 1:
            raise UserError(f"expected objectives of one shape to stack, got {len(shapes)} shapes")
        # all are trained by the loss of the first, and a run that goes on must have the same one
        self.held_settings, *others = [_settings(member) for member in members]
        for other in others:
            if other != self.held_settings:
                key = next(k for k in {**self.held_settings, **other} if self.held_settings.get(k) != other.get(k))
                raise UserError(
                    f"expected objectives of the same settings to stack, got {key} {self.held_settings.get(key)} and "
                    f"{other.get(key)}: train them one by one"
                )
        if state := sorted(dict(members[0].named_buffers()).keys() & members[0].state_dict().keys()):
            raise UserError(
                f"expected objectives with no state but parameters to stack, got the buffer {state[0]}: train them one "
                "by one"
            )
        self._members = list(members)  # a plain list: their parameters are not this module's
        parameters, buffers = stack_module_state([_Loss(member) for member in members])
        # a parameter's name may hold no point
        self.weights = nn.ParameterDict({n.replace(".", "/"): nn.Parameter(p.detach()) for n, p in parameters.items()})
        for name, buffer in buffers.items():
            self.register_buffer(name.replace(".", "/"), buffer, persistent=False)
        self._buffer_names = list(buffers)
        # without storage: only its structure is called
        self._skeleton = [copy.deepcopy(_Loss(members[0])).to("meta")]

    def forward(self, batch: Mapping[str, Tensor], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the sum of the members' losses over batches with a leading member dimension; metrics are means."""
        count = len(self._members)
        each = [
            self._members[i].noise({name: value[i] for name, value in batch.items()}, generator) for i in range(count)
        ]
        noise = tree_map(lambda *values: None if values[0] is None else torch.stack(values), *each)
        weights = {name.replace("/", "."): value for name, value in self.weights.items()}
        buffers = {name: getattr(self, name.replace(".", "/")) for name in self._buffer_names}

        def one(weights: Any, buffers: Any, batch: Any, noise: Any) -> tuple[Tensor, Metrics]:
            return functional_call(self._skeleton[0], (weights, buffers), (batch, noise))

        drawn = tree_map(lambda value: None if value is None else 0, noise)  # None has no members to go over
        losses, metrics = vmap(one, in_dims=(0, 0, 0, drawn))(weights, buffers, dict(batch), noise)
        named = {name: value.mean() for name, value in metrics.items()}
        named |= {f"loss_of_member_{i}": losses[i].detach() for i in range(count)}
        return losses.sum(), named

    @torch.no_grad()
    def unstack(self) -> None:
        """Copies each member's weights back into it."""
        for name, stacked in self.weights.items():
            for member, value in zip(self._members, stacked, strict=True):
                member.get_parameter(name.replace("/", ".").removeprefix("objective.")).copy_(value)


def _settings(member: StackableObjective) -> dict[str, str]:
    """Returns what `describe` tells of a member, but for the shapes of its weights."""
    described = describe(member).items()
    return {f"each.{key.removeprefix(MODEL)}": value for key, value in described if not key.startswith("weights ")}


class StackedBatches:
    """The members' batches side by side, along a leading dimension.

    Args:
        members: sources of batches of one shape, one for each member.
    """

    def __init__(self, members: Sequence[Batches]) -> None:
        self.members = list(members)
        lengths = {member.steps_per_epoch for member in members}
        if len(lengths) != 1:
            raise UserError(f"expected epochs of one length to stack, got {sorted(lengths)} steps")

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch, the same for every member."""
        return self.members[0].steps_per_epoch

    @property
    def fingerprint(self) -> str:
        """Identifies the members' data and order."""
        return " | ".join(str(getattr(member, "fingerprint", "")) for member in self.members)

    def batch(self, epoch: int, step: int) -> dict[str, Tensor]:
        """Returns the members' batches, stacked."""
        each = [member.batch(epoch, step) for member in self.members]
        return {name: torch.stack([batch[name] for batch in each]) for name in each[0]}
