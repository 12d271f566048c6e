"""What M2 and M1+M2 share as estimators: training the model of M2, and asking it for latents, samples and analogies."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from core_models.errors import UserError
from core_models.latent import ConditionalVAEConfig
from core_models.layers.networks import Activation
from core_models.persistence import floating_dtype
from core_models.seeding import seeded
from core_models.training import History, TrainingConfig, fit, resolve_device, seed_of
from core_models.training.config import Precision

from .batches import SemiSupervisedBatches
from .estimator import Codes, LogProbabilities, Rows, SemiSupervisedClassifier, in_double, stop_if_out_of_time
from .m2_objective import M2Network, M2Objective
from .observation import Observation, observe

if TYPE_CHECKING:
    from core_models.training import RunFolder

Schedule = Literal["constant", "cosine", "linear"]


@dataclass(frozen=True, eq=False)
class Problem:
    """What M2 is trained on, once labels, scaling and M1 are settled."""

    config: ConditionalVAEConfig
    rows: Tensor
    """What M2's networks are shown, before it is observed: (n, ...)."""
    observation: Observation
    objective: M2Objective
    batches: SemiSupervisedBatches


_DECODED_ROWS = 1000
"""Rows decoded at once, by networks in double precision."""


class GenerativeClassifier(TransformerMixin, SemiSupervisedClassifier):
    """A classifier whose q(y | x), q(z | x, y) and p(x | y, z) are those of M2.

    A subclass stores the constructor's arguments named below, and says how scaled rows become what M2's networks see
    (`_to_m2`) and back (`_from_m2`).

    Attributes:
        network_: the trained networks of M2.
        observation_: what the networks were shown of a row in training.
        history_: what the training did.
        latent_spread_: standard deviation of the posterior mean of every latent over the training rows.
    """

    latent: int
    activation: Activation
    epochs: int
    batch_size: int
    labelled_batch_size: int
    learning_rate: float
    schedule: Schedule
    warmup_steps: int
    alpha: float
    weight_prior: float
    labels_first: int
    class_warmup: float
    ema: float | None
    device: str
    precision: Precision
    compile: bool
    threads: int | None
    time_limit: float | None
    verbose: bool

    network_: M2Network
    _double: M2Network
    observation_: Observation

    @abstractmethod
    def _prepare(self, x: Rows, y: Codes, *, run: RunFolder | None, resume: bool) -> Problem:
        """Returns what M2 is to be trained on, by `_problem`; M1, where there is one, is trained here."""

    @abstractmethod
    def _to_m2(self, x: Rows) -> Tensor:
        """Returns what M2's networks see of scaled rows: the pixels, or M1's posterior means."""

    @abstractmethod
    def _from_m2(self, x: Tensor) -> Rows:
        """Returns scaled rows for means of p(x | y, z): the inverse of `_to_m2`, as far as there is one."""

    def _m2_objective(
        self, config: ConditionalVAEConfig, y: Codes, observation: Observation, epoch: int
    ) -> M2Objective:
        """Builds networks and loss for epochs of so many steps; the initial weights follow from `random_state`."""
        with seeded(seed_of(self._seed(), "initial weights")):
            network = M2Network(config)
        if self.epochs < 1:
            raise UserError(f"epochs: expected at least 1, got {self.epochs}")
        for name, value, most in (
            ("alpha", self.alpha, None),
            ("weight_prior", self.weight_prior, None),
            ("labels_first", self.labels_first, self.epochs),
            ("class_warmup", self.class_warmup, 1),
        ):
            if value < 0 or (most is not None and value > most):
                raise UserError(f"{name}: expected {'at least 0' if most is None else f'0 to {most}'}, got {value}")
        labelled = int((y >= 0).sum())
        return M2Objective(
            network,
            n_labelled=labelled,
            n_unlabelled=len(y) - labelled,
            alpha=self.alpha,
            observation=observation,
            labels_first_steps=self.labels_first * epoch,
            class_warmup_steps=round(self.class_warmup * self.epochs * epoch),
        )

    def _training_config(self, rows: int) -> TrainingConfig:
        return TrainingConfig(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            # the gradient of w |theta|^2 / 2N is w theta / N: what Adam calls its (coupled) weight decay
            weight_decay=self.weight_prior / rows,
            schedule=self.schedule,
            warmup_steps=self.warmup_steps,
            ema=self.ema,
            seed=self._seed(),
            device=self.device,
            precision=self.precision,
            compile=self.compile,
            threads=self.threads,
            time_limit=self.time_limit,
        )

    def _fit(self, x: Rows, y: Codes, *, run: RunFolder | None, resume: bool) -> None:
        problem = self._prepare(x, y, run=run, resume=resume)
        history = fit(
            problem.objective,
            problem.batches.to(resolve_device(self.device)),
            self._training_config(len(x)),
            run=run,
            resume=resume,
            stage="m2",
            progress=self.verbose,
        )
        self._finish(problem, history, run)

    def _problem(self, config: ConditionalVAEConfig, x: Tensor, y: Codes, observation: Observation) -> Problem:
        batches = SemiSupervisedBatches(x, y, self.batch_size, self.labelled_batch_size, self._seed())
        objective = self._m2_objective(config, y, observation, batches.steps_per_epoch)
        return Problem(config, x, observation, objective, batches)

    def _finish(self, problem: Problem, history: History, run: RunFolder | None) -> None:
        """Keeps what training ended with."""
        self.history_ = history
        stop_if_out_of_time(history, run)
        self._take(problem.objective.network.cpu().eval(), problem.config, problem.observation)
        seen = problem.rows[:: max(1, len(problem.rows) // 5000)]
        means = observe(problem.observation, seen, None).double()
        with torch.no_grad():
            z = self._double.vae.encode(means, self._double.log_q(means).argmax(1)).mean
        self.latent_spread_ = z.std(0).numpy()

    def _take(self, network: M2Network, config: ConditionalVAEConfig, observation: Observation) -> None:
        """Keeps a trained network, with a copy in float64 that predicts."""
        self.network_, self.observation_ = network, observation
        self.network_config_ = asdict(config)
        self._double = in_double(network)

    def _state(self) -> dict[str, Any]:
        return {f"m2.{name}": value for name, value in self.network_.state_dict().items()}

    def _restore(self, state: Mapping[str, Tensor]) -> None:
        # JSON knows no tuples
        fields: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in self.network_config_.items()
        }
        config = ConditionalVAEConfig(**fields)
        weights = {name[3:]: value for name, value in state.items() if name.startswith("m2.")}
        network = M2Network(config).to(floating_dtype(weights))
        network.load_state_dict(weights)
        self._take(network.eval(), config, self.observation_)

    def _log_proba(self, x: Rows) -> LogProbabilities:
        return self._double.log_q(self._to_m2(x).double())

    @torch.no_grad()
    def _latents(self, x: Rows) -> Tensor:
        """Returns the means of q(z | x, y) at the predicted classes, float64 (n, latent)."""
        parts = []
        for part in x.split(1000):
            seen = self._to_m2(part).double()
            parts.append(self._double.vae.encode(seen, self._double.log_q(seen).argmax(1)).mean)
        return torch.cat(parts)

    @torch.no_grad()
    def _decode(self, z: Tensor, y: Codes) -> np.ndarray:
        """Returns rows in the user's own units: the means of p(x | y, z), undone of M1 and of the scaling."""
        parts = zip(z.split(_DECODED_ROWS), y.split(_DECODED_ROWS), strict=True)
        made = [self._from_m2(self._double.vae.decode(*part)).double() for part in parts]
        rows = torch.cat(made).numpy()
        return rows.reshape(-1, *self.event_shape_) * self.scale_std_ + self.scale_mean_

    def transform(self, X: Any) -> np.ndarray:
        """Returns the latents of rows: means of q(z | x, y) at the predicted classes, shape (n, latent)."""
        return self._latents(self._inputs(X)).numpy()

    def sample(self, y: Any, n: int = 1) -> np.ndarray:
        """Draws rows of given classes, in the units of the training data: means of p(x | y, z) at random styles z.

        Args:
            y: a class, or a sequence of classes.
            n: rows to draw of each.

        Returns:
            Array (n, *event_shape) for one class, (len(y) * n, *event_shape) for several, class after class. The
            same call on the same estimator draws the same rows, if its `random_state` is a number.

        Raises:
            UserError: a label that is no class.
        """
        check_is_fitted(self, "classes_")
        codes = self._codes(np.atleast_1d(np.asarray(y))).repeat_interleave(n)
        generator = torch.Generator().manual_seed(seed_of(self._seed(), "sample"))
        z = torch.randn(len(codes), self.latent, generator=generator, dtype=torch.float64)
        return self._decode(z, codes)

    def analogies(self, X: Any) -> np.ndarray:
        """Returns every row's style in every class: z is inferred once, then only the class changes.

        Returns:
            Array (n, classes, *event_shape), in the units of the training data and the order of `classes_`.
        """
        z = self._latents(self._inputs(X))
        k = len(self.classes_)
        codes = torch.arange(k).repeat(len(z))
        return self._decode(z.repeat_interleave(k, 0), codes).reshape(len(z), k, *self.event_shape_)

    def manifold(self, label: Any, size: int = 15) -> np.ndarray:
        """Returns a slice through the space of styles, decoded in one class.

        The two axes are the latents whose posterior means vary most over the training rows; along each, z runs
        through equal steps of the prior's probability (Kingma and Welling 2014, figure 4). The others stay at 0.

        Args:
            label: a class.
            size: steps along each axis.

        Returns:
            Array (size, size, *event_shape), in the units of the training data.

        Raises:
            UserError: a label that is no class, or a model of fewer than two latents.
        """
        check_is_fitted(self, "classes_")
        if self.latent < 2:
            raise UserError(f"expected at least two latents for a manifold, got latent = {self.latent}")
        code = self._codes(np.atleast_1d(np.asarray(label)))
        quantiles = torch.linspace(0, 1, size + 2, dtype=torch.float64)[1:-1]
        steps = torch.distributions.Normal(0.0, 1.0).icdf(quantiles)
        z = torch.zeros(size, size, self.latent, dtype=torch.float64)
        first, second = np.argsort(-self.latent_spread_)[:2].tolist()
        z[..., first], z[..., second] = steps[None, :], steps.flip(0)[:, None]
        return self._decode(z.flatten(0, 1), code.expand(size * size)).reshape(size, size, *self.event_shape_)

    def _codes(self, labels: np.ndarray) -> Codes:
        known = {label: code for code, label in enumerate(self.classes_.tolist())}
        try:
            return torch.tensor([known[label] for label in labels.tolist()], dtype=torch.long)
        except KeyError as error:
            classes = ", ".join(map(str, self.classes_.tolist()))
            raise UserError(f"expected labels among the classes {classes}, got {error.args[0]!r}") from None
