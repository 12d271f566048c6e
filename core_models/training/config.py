"""The settings of a training run, and which of them its numbers depend on."""

import math
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from ..errors import UserError

Optimizer = Literal["adam", "adamw", "adamax", "sgd"]
Schedule = Literal["constant", "cosine", "linear", "steps"]
Precision = Literal["32-true", "bf16-mixed", "64-true"]

FREE_ON_RESUME = ("checkpoint_every_seconds", "compile", "device", "threads", "time_limit")
"""Settings that a resumed run may change. The device may change its name but not its kind: a CPU's random numbers
can't be continued on a GPU. Another number of threads, or `compile`, keeps the run valid but may change last digits."""


@dataclass(frozen=True)
class EarlyStop:
    """Stops a run when a validation metric no longer improves; the weights of its best value are the result."""

    metric: str
    """A name that `validate` returns."""
    mode: Literal["min", "max"] = "min"
    """Whether lower or higher is better."""
    patience: int = 10
    """Validations in a row without improvement after which to stop."""
    min_delta: float = 0.0
    """A change smaller than this, in the metric's unit, is no improvement."""

    def __post_init__(self) -> None:
        _one_of("early_stop.mode", self.mode, ("min", "max"))
        _require(self.patience >= 1, "early_stop.patience", "at least 1", self.patience)
        _require(self.min_delta >= 0, "early_stop.min_delta", "at least 0", self.min_delta)

    def improves(self, value: float, best: float | None) -> bool:
        """Says whether a value is better than the best so far; NaN never is."""
        if math.isnan(value) or best is None:
            return not math.isnan(value)
        return value < best - self.min_delta if self.mode == "min" else value > best + self.min_delta


@dataclass(frozen=True)
class TrainingConfig:
    """How an objective is trained.

    Raises:
        UserError: when a value is outside its range.
    """

    epochs: int
    """Passes over the training data."""
    learning_rate: float = 1e-3
    """Step size of the optimiser, before the schedule."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the optimiser's first and second moments; the first is SGD's momentum."""
    epsilon: float = 1e-8
    """What Adam, AdamW and Adamax add to the root of the second moment: where gradients are smaller, steps are too."""
    weight_decay: float = 0.0
    """L2 penalty (adam, adamax, sgd) or decoupled decay (adamw)."""
    optimizer: Optimizer = "adam"
    """Rule that turns gradients into steps."""
    schedule: Schedule = "constant"
    """Course of the learning rate after the warm-up, from its full value down to `schedule_floor` at the last step;
    `steps` multiplies it by `step_factor` at each of `step_at`."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly to its full value."""
    schedule_floor: float = 0.0
    """Last learning rate, as a fraction of the full one."""
    schedule_hold: float = 0.0
    """Share of the steps after the warm-up at the full learning rate, before `cosine` or `linear` begins."""
    step_at: tuple[float, ...] = (0.5, 0.75)
    """Where the schedule `steps` lowers the learning rate, as fractions of all steps, ascending."""
    step_factor: float = 0.1
    """What the schedule `steps` multiplies the learning rate with each time."""
    clip_norm: float | None = None
    """Largest norm of the gradient of all parameters together; a longer one is scaled down."""
    ema: float | None = None
    """Decay of the exponential moving average of the weights, which is then what is validated and returned."""
    early_stop: EarlyStop | None = None
    """When to stop before the last epoch."""
    validate_every: int = 1
    """Epochs between validations; the last epoch is always followed by one."""
    checkpoint_every_seconds: float = 60.0
    """Time between checkpoints [s]; 0 saves after every step."""
    seed: int = 0
    """Seeds what the objective draws: the generator handed to it and torch's global one."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    precision: Precision = "32-true"
    """Arithmetic of the objective's forward pass; weights are float32 (float64 under 64-true).

    32-true is float32, but on a GPU convolutions go through TF32 (ten bits of mantissa), as torch has it unless
    `torch.backends.cudnn.allow_tf32` is False; matrix products don't, unless
    `torch.set_float32_matmul_precision` says so. Validations of `fit` and likelihoods go through neither."""
    threads: int | None = None
    """CPU threads for the duration of the run; torch's own choice when left out."""
    compile: bool = False
    """Whether to compile the objective's forward pass with torch.compile: same numbers up to rounding. Not for
    what differentiates a gradient (a GAN with gradient penalty)."""
    time_limit: float | None = None
    """Time after which to save and stop [s], counted from the start of this call."""

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            if isinstance(value, np.generic):  # checkpoints and metrics are JSON, which knows Python's numbers alone
                object.__setattr__(self, name, value.item())
        _one_of("optimizer", self.optimizer, ("adam", "adamw", "adamax", "sgd"))
        _one_of("schedule", self.schedule, ("constant", "cosine", "linear", "steps"))
        _one_of("precision", self.precision, ("32-true", "bf16-mixed", "64-true"))
        _require(re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device), "device", "auto, cpu, cuda or cuda:N", self.device)
        _require(len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "betas", "two in [0, 1)", self.betas)
        _require(self.ema is None or 0 < self.ema < 1, "ema", "between 0 and 1, both excluded", self.ema)
        _require(0 <= self.schedule_floor <= 1, "schedule_floor", "in [0, 1]", self.schedule_floor)
        _require(0 <= self.schedule_hold <= 1, "schedule_hold", "in [0, 1]", self.schedule_hold)
        ascending = list(self.step_at) == sorted(self.step_at) and all(0 < at < 1 for at in self.step_at)
        _require(ascending, "step_at", "ascending fractions between 0 and 1", self.step_at)
        _require(0 < self.step_factor <= 1, "step_factor", "above 0 and at most 1", self.step_factor)
        for name in ("epochs", "validate_every", "threads"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, "at least 1", value)
        for name in ("weight_decay", "warmup_steps", "checkpoint_every_seconds", "seed"):
            _require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        for name in ("learning_rate", "epsilon", "clip_norm", "time_limit"):
            value = getattr(self, name)
            _require(value is None or (value > 0 and math.isfinite(value)), name, "positive and finite", value)

    def numbers(self) -> dict[str, Any]:
        """Returns the settings that the run's numbers depend on, as plain values.

        `epochs` is among them only where the schedule depends on it: a run at a constant learning rate may be resumed
        with more epochs. The settings of `steps` are among them only under that schedule, `schedule_hold` and `epsilon`
        only where they are set.
        """
        left_out = FREE_ON_RESUME + (("epochs",) if self.schedule == "constant" else ())
        left_out += () if self.schedule == "steps" else ("step_at", "step_factor")
        left_out += () if self.schedule_hold and self.schedule in ("cosine", "linear") else ("schedule_hold",)
        left_out += () if self.epsilon != 1e-8 else ("epsilon",)
        return {name: value for name, value in asdict(self).items() if name not in left_out}


def resolve_device(name: str) -> torch.device:
    """Turns `auto`, `cpu`, `cuda` or `cuda:N` into a device of this machine.

    Raises:
        UserError: when a GPU is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"expected device {name}, found {count} GPUs on this machine: choose auto or cpu")
        device = torch.device("cuda", device.index or 0)
    return device


def multiplies_in_bfloat16(device: torch.device) -> bool:
    """Says whether a device has products in bfloat16; where torch can't tell, it is taken to have them.

    On a processor without them bf16-mixed is many times slower than single precision.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return None in known or any(ask() for ask in known if ask is not None)


def _require(condition: object, name: str, expected: str, value: object) -> None:
    if not condition:
        raise UserError(f"{name}: expected {expected}, got {value}")


def _one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    _require(value in choices, name, f"one of {', '.join(choices)}", value)
