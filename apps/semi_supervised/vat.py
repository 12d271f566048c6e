r"""Virtual adversarial training: predictions may not change where changing the input a little would change them most.

Beside the cross-entropy of the labelled rows, the loss has for every unlabelled one

.. math:: \mathrm{KL}\big( p(y | x) \,\|\, p(y | x + r) \big), \qquad r = \epsilon \, g / \|g\|

where g is a power iteration's estimate of the first eigenvector of the divergence's second derivative H in r at 0. Its
first derivative vanishes there, so that, with J the derivative of the logits and p the class probabilities,

.. math:: H d = J^\top (\mathrm{diag}(p) - p p^\top) J d

exactly. J d is the derivative of J^T v, which is linear in v, and a further backward pass does the rest: no step width
has to be chosen, and what half precision does to it is rounding, not cancellation.

The authors take a finite difference instead, the derivative of the divergence at xi d, divided by xi. In exact
arithmetic both are the same for a small xi; at the xi = 1e-6 of their program in single precision they are not: what is
left of the difference is mostly cancellation, and at initial weights its direction has a mean cosine of 0.24 with H d
on images of MNIST (0.9998 at xi = 1e-3). `finite_difference` takes that xi.

Published test error on MNIST with 100 labels: 1.36 % (fully connected).

Source: Miyato, Maeda, Koyama and Ishii, "Virtual adversarial training: a regularization method for supervised and
semi-supervised learning", IEEE TPAMI 2018, equations 5 to 12.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional as F

from core_models.base import Metrics, Objective, Scalar
from core_models.errors import UserError
from core_models.training.config import Precision

from .discriminative import DiscriminativeClassifier, course, normal_like, numbers
from .estimator import Scale
from .normalised import NormalisedNetwork

LogitsOf = Callable[[Tensor], Tensor]


def unit(d: Float[Tensor, "n inputs"]) -> Float[Tensor, "n inputs"]:
    """Scales rows to length one; a row of zeros stays one."""
    # a very short row's square would be 0
    d = d / d.abs().amax(1, keepdim=True).clamp_min(torch.finfo(d.dtype).tiny)
    return d / d.norm(dim=1, keepdim=True).clamp_min(torch.finfo(d.dtype).tiny)


def curvature_product(logits_of: LogitsOf, x: Tensor, d: Float[Tensor, "n inputs"]) -> tuple[Tensor, Tensor]:
    """Returns H d for directions d at rows x, (n, inputs), and the logits at x; H as above, no gradient for either."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = logits_of(x)
        v = torch.zeros_like(logits, requires_grad=True)
        # J^T v is linear in v: its derivative along d is J d
        (back,) = torch.autograd.grad(logits, x, v, create_graph=True)
        (slope,) = torch.autograd.grad(back, v, d, retain_graph=True)
        p = logits.detach().softmax(1)
        weighted = p * (slope - (p * slope).sum(1, keepdim=True))
        (product,) = torch.autograd.grad(logits, x, weighted)
    return product, logits.detach()


def finite_difference(logits_of: LogitsOf, x: Tensor, d: Float[Tensor, "n inputs"], xi: float) -> tuple[Tensor, Tensor]:
    """Returns the derivative of the divergence at xi d, divided by xi, and the logits at x: arguments as above."""
    with torch.no_grad():
        logits = logits_of(x)
    with torch.enable_grad():
        r = (xi * d).detach().requires_grad_(True)
        moved = logits_of(x + r).log_softmax(1)
        divergence = F.kl_div(moved, logits.log_softmax(1), reduction="sum", log_target=True)
        (product,) = torch.autograd.grad(divergence, r)
    return product / xi, logits


class VirtualAdversarialLoss(Objective):
    """The loss above.

    Args:
        network: the classifier.
        eps: length of the perturbation.
        weight: of the divergence.
        entropy: weight of the mean entropy of the predictions on unlabelled rows.
        noise: standard deviation of the noise in every hidden layer.
        power_iterations: products with H.
        finite_difference: xi of the difference that takes their place, None for exact ones.
    """

    def __init__(
        self,
        network: NormalisedNetwork,
        *,
        eps: float,
        weight: float = 1.0,
        entropy: float = 0.0,
        noise: float = 0.0,
        power_iterations: int = 1,
        finite_difference: float | None = None,
    ) -> None:
        super().__init__()
        self.network, self.eps, self.weight, self.entropy = network, eps, weight, entropy
        self.noise, self.power_iterations, self.xi = noise, power_iterations, finite_difference

    def logits_of(self, x: Tensor, generator: Generator | None) -> LogitsOf:
        """Draws noise for rows; returns the logits as a function of the rows alone."""
        hidden = [normal_like(x, width, self.noise, generator) for width in self.network.widths[1:-1]]
        noise = [None, *hidden, None]
        return lambda rows: self.network.encode(rows, (len(rows),), noise).logits

    def forward(self, batch: Mapping[str, Any], generator: Generator | None = None) -> tuple[Scalar, Metrics]:
        """Returns the loss of a batch; where nothing is unlabelled it is smoothed around its labelled rows."""
        labelled = batch["labelled"]
        x = batch.get("unlabelled", labelled)
        cross_entropy = F.cross_entropy(self.logits_of(labelled, generator)(labelled), batch["y"])
        here = self.logits_of(x, generator)
        d = unit(torch.empty_like(x).normal_(generator=generator))
        for _ in range(self.power_iterations):
            if self.xi is None:
                product, logits = curvature_product(here, x, d)
            else:
                product, logits = finite_difference(here, x, d, self.xi)
            d = unit(product.to(x.dtype))
        moved = self.logits_of(x, generator)(x + self.eps * d)
        divergence = F.kl_div(moved.log_softmax(1), logits.log_softmax(1), reduction="batchmean", log_target=True)
        loss = cross_entropy + self.weight * divergence
        told = {"cross_entropy_nats": cross_entropy.detach(), "divergence_nats": divergence.detach()}
        if self.entropy > 0:
            log_p = here(x).log_softmax(1)
            entropy = -(log_p.exp() * log_p).sum(1).mean()
            loss = loss + self.entropy * entropy
            told["entropy_nats"] = entropy.detach()
        return loss, told


class VAT(DiscriminativeClassifier):
    """Virtual adversarial training of Miyato et al. (2018) of a fully connected network.

    Args:
        hidden: units of the hidden layers.
        eps: length of the perturbation, in the unit of the scaled inputs.
        weight: of the divergence beside the mean cross-entropy.
        entropy: weight of the mean entropy of the predictions on unlabelled rows ("VAT + EntMin").
        noise: standard deviation of the noise in every hidden layer, after normalisation.
        power_iterations: steps towards the direction in which the prediction changes most.
        finite_difference: step width xi of the authors' finite difference, whose direction at their 1e-6 is mostly
            rounding in single precision (see the module); None for exact products.
        normalise_logits: whether the logits are normalised over the batch and scaled, as hidden layers are.
        epochs: passes through the unlabelled rows.
        batch_size: unlabelled rows a step.
        labelled_batch_size: labelled rows a step, at most.
        learning_rate: of Adam.
        hold: share of the training at this rate, before it falls to 0 along a line.
        scale: what happens to the inputs; see `SemiSupervisedClassifier`.
        random_state: seeds initial weights, order and noise.
        device: auto, cpu, cuda or cuda:N.
        precision: 32-true, bf16-mixed or 64-true.
        threads: CPU threads, or None for torch's choice.
        time_limit: time after which to save and stop [s], or None.
        verbose: whether to show progress.
    """

    def __init__(
        self,
        hidden: tuple[int, ...] = (1200, 600, 300, 150),
        eps: float = 5.0,
        weight: float = 1.0,
        entropy: float = 0.0,
        noise: float = 0.5,
        power_iterations: int = 1,
        finite_difference: float | None = None,
        normalise_logits: bool = True,
        epochs: int = 100,
        batch_size: int = 250,
        labelled_batch_size: int = 100,
        learning_rate: float = 2e-3,
        hold: float = 0.5,
        scale: Scale = "auto",
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
        precision: Precision = "32-true",
        threads: int | None = None,
        time_limit: float | None = None,
        verbose: bool = False,
    ) -> None:
        self.hidden = hidden
        self.eps = eps
        self.weight = weight
        self.entropy = entropy
        self.noise = noise
        self.power_iterations = power_iterations
        self.finite_difference = finite_difference
        self.normalise_logits = normalise_logits
        self.epochs = epochs
        self.batch_size = batch_size
        self.labelled_batch_size = labelled_batch_size
        self.learning_rate = learning_rate
        self.hold = hold
        self.scale = scale
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.threads = threads
        self.time_limit = time_limit
        self.verbose = verbose

    def _build(self) -> NormalisedNetwork:
        return NormalisedNetwork(
            self.n_features_in_, self.hidden, len(self.classes_), normalise_logits=self.normalise_logits
        )

    def _objective(self, network: NormalisedNetwork) -> VirtualAdversarialLoss:
        for name in ("eps", "weight", "entropy", "noise"):
            numbers(name, getattr(self, name), most=1)
        if self.power_iterations < 1:
            raise UserError(f"power_iterations: expected at least 1, got {self.power_iterations}")
        if self.finite_difference is not None:
            numbers("finite_difference", self.finite_difference, most=1, positive=True)
        return VirtualAdversarialLoss(
            network,
            eps=self.eps,
            weight=self.weight,
            entropy=self.entropy,
            noise=self.noise,
            power_iterations=self.power_iterations,
            finite_difference=self.finite_difference,
        )

    def _training(self) -> dict[str, Any]:
        return course(self.hold)
