"""The inside of the loop: one stage from its checkpoint, or its beginning, to its end."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from ..base import Objective
from ..errors import UserError
from ..modes import evaluating, full_precision, modes_kept, train_unfrozen
from .batches import Batches, fingerprints_like, seed_of
from .checkpoint import (
    Checkpoint,
    TrainingState,
    check_same,
    describe,
    load_checkpoint,
    optimizer_tensors,
    random_tensors,
    remove_leftovers,
    restore_optimizer,
    restore_random,
    save_checkpoint,
)
from .config import TrainingConfig
from .ema import ExponentialMovingAverage
from .meter import Meter, NonFinite
from .optimizers import build_optimizer
from .progress import Progress
from .records import Records
from .run_folder import RunFolder
from .schedules import factor
from .stops import Interrupted, InterruptRequest, NonFiniteLoss
from .surroundings import make_fabric, require_compiler

Validate = Callable[[Objective], Mapping[str, float]]
Ending = Literal["finished", "early", "time limit"]


class Trainer:
    """One stage of a run; `fit` says what the arguments mean.

    Attributes:
        state: where the stage stands.
    """

    def __init__(
        self,
        objective: Objective,
        batches: Batches,
        config: TrainingConfig,
        device: torch.device,
        run: RunFolder | None,
        stage: str,
        validate: Validate | None,
        interrupt: InterruptRequest,
    ) -> None:
        self.objective = objective
        self.config = config
        self.device = device
        self.run = run
        self.stage = stage
        self.validate = validate
        self.interrupt = interrupt
        self.path = run.checkpoint(stage) if run else None
        self.batches_move = hasattr(batches, "to")
        self.batches: Batches = batches.to(device) if hasattr(batches, "to") else batches
        self.per_epoch = int(self.batches.steps_per_epoch)  # numpy's, of a batch size of numpy's
        if self.per_epoch < 1:
            raise UserError(f"expected at least one batch per epoch, got {self.per_epoch}")
        self.total = config.epochs * self.per_epoch
        self.state = TrainingState()
        self.meter = Meter()
        self.rate = math.nan
        self.saved_step: int | None = None
        self.best: dict[str, Tensor] = {}
        self.ema: ExponentialMovingAverage | None = None
        self.records: Records | None = None
        self.began = self.clock = time.monotonic()
        self.seconds_before = 0.0

    def go(self, resume: bool, progress: bool) -> Ending:
        """Trains to the end, or to where it must stop, and leaves the objective with the weights that count."""
        checkpoint = self.find_checkpoint(resume)
        if checkpoint is not None:
            self.state = checkpoint.state
            self.seconds_before = self.state.seconds
            ended = self.state.stopped
            if ended == "early" or (ended == "finished" and self.state.step == self.total):
                self.load_result(checkpoint)
                return ended
        with modes_kept(self.objective):
            self.set_up(checkpoint)
            if self.path is not None:
                remove_leftovers(self.path)
            self.clock = time.monotonic()
            if self.run is not None:
                resumed_at = None if checkpoint is None else self.state.step
                self.records = Records(self.run, self.stage, self.state.metrics, resumed_at)
            try:
                if checkpoint is None:
                    self.save()  # so that there is a good state from the first step on
                with Progress(self.stage or "training", self.total, self.state.step, progress) as shown:
                    stopped = self.train(shown)
                self.state.stopped = None if stopped == "time limit" else stopped
                self.save()
            finally:
                if self.records is not None:
                    self.records.close()
        self.optimizer.zero_grad()
        if not self.interrupt.came:
            self.take_result()
        return stopped

    # --- beginning

    def find_checkpoint(self, resume: bool) -> Checkpoint | None:
        """Reads the stage's checkpoint, where there is one, and holds it against what is to be trained now."""
        if self.path is None or not self.path.exists():
            return None
        assert self.run is not None
        if not resume:
            what = f"stage {self.stage!r} of a run" if self.stage else "a run"
            raise UserError(f"{self.run.path} already holds {what}: add --resume to go on, or choose another folder")
        checkpoint = load_checkpoint(self.path)
        with fingerprints_like(checkpoint.identity["batches"]["fingerprint"]):
            check_same(self.path, checkpoint.identity, self.find_identity())
        if checkpoint.state.step > self.total:
            done = checkpoint.state.step // self.per_epoch
            raise UserError(f"{self.path} already has {done} epochs, got epochs={self.config.epochs}: ask for more")
        return checkpoint

    def find_identity(self) -> dict[str, Any]:
        """Returns what a resumed run must have in common with the one before."""
        return {
            "objective": describe(self.objective),
            # random numbers of a CPU can't be continued on a GPU
            "config": {**self.config.numbers(), "device": self.device.type},
            "batches": {
                "steps_per_epoch": self.per_epoch,
                "fingerprint": str(getattr(self.batches, "fingerprint", "")),
            },
        }

    identity = cached_property(find_identity)

    def load_result(self, checkpoint: Checkpoint) -> None:
        """Gives the objective the weights that a stage ended with."""
        self.place_objective()
        self.objective.load_state_dict(checkpoint.group("objective"))
        weights = self.objective.state_dict()
        for name, tensor in (checkpoint.group("best") or checkpoint.group("ema")).items():
            weights[name].copy_(tensor)

    def place_objective(self) -> None:
        """Moves the objective to the device, in the type of its weights."""
        self.objective.to(self.device, torch.float64 if self.config.precision == "64-true" else None)

    def set_up(self, checkpoint: Checkpoint | None) -> None:
        """Builds what training needs, in the state of the checkpoint."""
        config, device = self.config, self.device
        self.fabric = make_fabric(config, device)
        self.place_objective()
        if checkpoint is not None:
            self.objective.load_state_dict(checkpoint.group("objective"))
        self.trained = {name: p for name, p in self.objective.named_parameters() if p.requires_grad}
        if not self.trained:
            raise UserError(f"expected parameters to train, {type(self.objective).__name__} has none")
        # what is infinite from the first is meant to be: a mask of logits
        self.finite_buffers = [
            name
            for name, tensor in self.objective.state_dict().items()
            if name not in self.trained and bool(tensor.isfinite().all())
        ]
        optimizer = build_optimizer(config, self.trained.values())
        if config.compile:
            require_compiler()
            if not self.objective.compiles:
                raise UserError(f"compile: {type(self.objective).__name__} can't be compiled: leave compile out")
        module: Any = torch.compile(self.objective) if config.compile else self.objective
        self.forward, self.optimizer = self.fabric.setup(module, optimizer)
        self.generator = torch.Generator(device).manual_seed(seed_of(config.seed, "objective", self.stage))
        if config.ema is not None:
            self.ema = ExponentialMovingAverage(self.objective, config.ema)
        if checkpoint is None:
            return
        restore_optimizer(optimizer, self.trained, checkpoint.group("optimizer"))
        restore_random(self.generator, checkpoint.group("random"))
        self.meter.sums = dict(self.state.sums)
        self.best = {name: tensor.to(device) for name, tensor in checkpoint.group("best").items()}
        if self.ema is not None:
            self.ema.load(checkpoint.group("ema"), self.state.ema_updates)
        self.saved_step = self.state.step
        self.state.stopped = None

    # --- training

    def train(self, shown: Progress) -> Ending:
        """Takes steps until the end, the time limit or Ctrl-C."""
        state, every = self.state, self.config.checkpoint_every_seconds
        train_unfrozen(self.objective)
        next_save = time.monotonic() + every
        deadline = self.began + (self.config.time_limit or math.inf)
        while state.step < self.total:
            self.step()
            early = state.step % self.per_epoch == 0 and self.end_epoch()
            last = early or state.step == self.total
            now = time.monotonic()
            if last or shown.due(now):
                shown.update(state.step, self.figure(), last=last)
            if early:
                return "early"
            if last:
                break
            if self.interrupt.came:
                self.save()
                raise self.interrupted()
            if now >= deadline:
                return "time limit"
            if now >= next_save:
                self.save()
                next_save = time.monotonic() + every
        return "finished"

    def step(self) -> None:
        """Takes one optimiser step; on a GPU nothing waits for the device but an objective that looks at its batch."""
        number, clip = self.state.step, self.config.clip_norm
        batch: Mapping[str, Tensor] = self.batches.batch(*divmod(number, self.per_epoch))
        if not self.batches_move:
            batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        self.set_rate(number)
        loss, metrics = self.forward(batch, self.generator)
        if loss.ndim:
            raise TypeError(f"expected the objective to return a scalar loss, got one of shape {tuple(loss.shape)}")
        values = {"loss": loss, **metrics}
        values["loss"] = loss  # also where the objective has a metric of that name
        self.watch_at_once(number + 1, "loss", loss)
        self.fabric.backward(loss)
        if clip is not None:
            norm = self.fabric.clip_gradients(self.forward, self.optimizer, max_norm=clip, error_if_nonfinite=False)
            assert norm is not None
            values["gradient_norm"] = norm
            self.watch_at_once(number + 1, "gradient_norm", norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update()
        self.meter.add(number + 1, values)
        self.state.step += 1
        if self.meter.full:
            self.read_meter()

    def set_rate(self, step: int) -> None:
        """Sets the learning rate of a step."""
        config = self.config
        rate = config.learning_rate * factor(
            config.schedule,
            step,
            self.total,
            warmup=config.warmup_steps,
            floor=config.schedule_floor,
            hold=config.schedule_hold,
            step_at=config.step_at,
            step_factor=config.step_factor,
        )
        if rate != self.rate:
            self.rate = rate
            for group in self.optimizer.param_groups:
                group["lr"] = rate

    def end_epoch(self) -> bool:
        """Logs and validates; says whether to stop early."""
        state = self.state
        self.read_meter()
        epoch = state.step // self.per_epoch
        line: dict[str, Any] = {"stage": self.stage, "epoch": epoch, "step": state.step, "learning_rate": self.rate}
        line |= self.meter.means()
        self.meter.reset()
        if self.validate is not None and (epoch % self.config.validate_every == 0 or state.step == self.total):
            results = self.run_validation(self.validate)
            if common := sorted(results.keys() & line.keys()):
                raise ValueError(f"validate returned {', '.join(common)}, which training logs too: give other names")
            line |= results
        state.metrics.append(line)
        if self.records is not None:
            self.records.add(line)
        return self.config.early_stop is not None and state.waited >= self.config.early_stop.patience

    def run_validation(self, validate: Validate) -> dict[str, float]:
        """Judges the weights that would be the result, and keeps them if they are the best so far."""
        # what validation draws must not move what training draws: more or fewer validations, same training
        random = random_tensors(self.generator)
        averaged = self.ema.applied() if self.ema is not None else nullcontext()
        try:
            with evaluating(self.objective), torch.no_grad(), full_precision(), averaged:
                results = {name: float(value) for name, value in validate(self.objective).items()}
                if self.improved(results):
                    self.best = {name: tensor.clone() for name, tensor in self.objective.state_dict().items()}
        finally:
            restore_random(self.generator, random)
        return results

    def improved(self, results: Mapping[str, float]) -> bool:
        """Compares with the best validation so far and counts those without improvement."""
        rule, state = self.config.early_stop, self.state
        if rule is None:
            return False
        if rule.metric not in results:
            raise UserError(f"early_stop watches {rule.metric!r}, validation has {', '.join(results) or 'no metrics'}")
        value = results[rule.metric]
        if not rule.improves(value, state.best):
            state.waited += 1
            return False
        state.best, state.waited = value, 0
        return True

    # --- watching

    def watch_at_once(self, step: int, name: str, value: Tensor) -> None:
        """On a CPU, where reading a number costs nothing, stops before the weights are touched."""
        if self.device.type == "cpu" and not math.isfinite(number := value.item()):
            raise self.non_finite(NonFinite(step, name, number))

    def read_meter(self) -> None:
        """Adds up what the device has computed by now, and stops if it was no number."""
        bad = self.meter.read()
        if bad is not None:
            raise self.non_finite(bad)

    def check_weights(self) -> None:
        """Stops if a finite loss left something that is not: by its gradient, or in statistics that no loss shows."""
        buffers = self.objective.state_dict()
        watched = {
            "a weight": self.trained.values(),
            "a buffer": [buffers[name] for name in self.finite_buffers],
            "a moment of the optimiser": optimizer_tensors(self.optimizer.optimizer, self.trained).values(),
        }
        for what, tensors in watched.items():
            finite = [tensor.detach().isfinite().all().to(self.device) for tensor in tensors]
            if finite and not bool(torch.stack(finite).all()):  # one wait for the device
                raise self.non_finite(NonFinite(self.state.step, what, math.nan))

    def non_finite(self, bad: NonFinite) -> NonFiniteLoss:
        """Says where the numbers ended, and what is left."""
        epoch = max(bad.step - 1, 0) // self.per_epoch + 1
        return NonFiniteLoss(bad.name, bad.value, bad.step, epoch, self.saved_step, self.path)

    def interrupted(self) -> Interrupted:
        """Says how far the run came and how to go on."""
        return Interrupted(self.state.step, self.total, self.path)

    def figure(self) -> str:
        """The figures that matter, for the progress bar: no waiting for the device."""
        last = self.state.metrics[-1] if self.state.metrics else {}
        loss = self.meter.means().get("loss", last.get("loss"))
        parts = [f"epoch {min(self.state.step // self.per_epoch + 1, self.config.epochs)}/{self.config.epochs}"]
        if loss is not None:
            parts.append(f"loss {loss:.4g}")
        rule = self.config.early_stop
        if rule is not None and rule.metric in last:
            parts.append(f"{rule.metric} {last[rule.metric]:.4g}")
        return ", ".join(parts)

    # --- writing

    def save(self) -> None:
        """Writes a checkpoint of a state that is known to be good."""
        self.read_meter()
        self.check_weights()
        state = self.state
        state.seconds = self.seconds_before + time.monotonic() - self.clock
        if self.path is None:
            return
        state.sums = self.meter.sums
        groups = {
            "objective": self.objective.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer.optimizer, self.trained),
            "random": random_tensors(self.generator),
            "best": self.best,
        }
        if self.ema is not None:
            groups["ema"] = self.ema.average
            state.ema_updates = self.ema.updates
        tensors = {f"{kind}/{name}": tensor for kind, group in groups.items() for name, tensor in group.items()}
        save_checkpoint(self.path, Checkpoint(self.identity, state, tensors))
        self.saved_step = state.step

    def take_result(self) -> None:
        """Gives the objective the best weights, or the averaged ones, where the settings ask for them."""
        if self.best:
            self.objective.load_state_dict(self.best)
        elif self.ema is not None:
            self.ema.copy_to_module()
