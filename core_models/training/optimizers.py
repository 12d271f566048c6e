"""The optimisers by name, each in its fastest form."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from .config import TrainingConfig


def build_optimizer(config: TrainingConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Makes the optimiser that a configuration names.

    Fused forms update all parameters in one kernel; Adamax has none, and takes the multi-tensor form.
    """
    rate, betas, eps, decay = config.learning_rate, config.betas, config.epsilon, config.weight_decay
    parameters = list(parameters)
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, rate, betas, eps, weight_decay=decay, fused=True)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, rate, betas, eps, weight_decay=decay, fused=True)
    if config.optimizer == "adamax":
        return torch.optim.Adamax(parameters, rate, betas, eps, weight_decay=decay, foreach=True)
    return torch.optim.SGD(parameters, rate, momentum=betas[0], weight_decay=decay, fused=True)
