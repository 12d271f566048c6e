"""M1 with a classifier on its features.

The paper's classifier is a transductive SVM (M1+TSVM); an ordinary one (M1+SVM) shows what the features alone are
worth.

Source: Kingma, Rezende, Mohamed and Welling, "Semi-supervised learning with deep generative models", NIPS 2014,
section 2.1, "latent-feature discriminative model".
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from sklearn.base import TransformerMixin

from core_models.base import GenerativeModel
from core_models.latent.likelihoods import LikelihoodName
from core_models.layers.networks import Activation, Architecture
from core_models.training.config import Precision

from .baselines import SVM
from .estimator import Codes, LogProbabilities, Rows, Scale, SemiSupervisedClassifier
from .features import FeatureLearner
from .tsvm import TransductiveSVM

if TYPE_CHECKING:
    from core_models.training import RunFolder


class _ClassifierOnM1(FeatureLearner, TransformerMixin, SemiSupervisedClassifier):
    """M1 with an estimator on its features.

    Args:
        m1: a trained auto-encoder to use instead of training one: the folder of a run, or a `Variational` model.
        m1_latent: latent dimensions.
        m1_hidden: units of the hidden layers.
        m1_activation: non-linearity.
        m1_network: fully connected or convolutional (then X is (n, channels, height, width)).
        m1_channels: channels of the convolutional stages.
        m1_likelihood: p(x | z); "auto" chooses by the data.
        m1_learned_scale: whether the decoder gives every value of x a scale of its own, else one a channel.
        m1_epochs: passes through all rows.
        m1_batch_size: rows a step.
        m1_learning_rate: of Adam, at its highest; it falls to 0 along a cosine.
        m1_kl_warmup: epochs over which the weight of the KL term rises to 1.
        active_threshold: standard deviation of its posterior mean above which a latent counts as in use.
        scale: what happens to the inputs; see `SemiSupervisedClassifier`.
        random_state: seeds initial weights, order and noise.
        device: auto, cpu, cuda or cuda:N.
        precision: 32-true, bf16-mixed or 64-true.
        compile: whether torch compiles training (wants a C++ compiler): the same numbers up to rounding.
        threads: CPU threads, or None for torch's choice.
        time_limit: time after which to save and stop [s], or None.
        verbose: whether to show progress.
    """

    classifier_: SemiSupervisedClassifier

    def __init__(
        self,
        m1: str | GenerativeModel | None = None,
        m1_latent: int = 50,
        m1_hidden: tuple[int, ...] = (600, 600),
        m1_activation: Activation = "silu",
        m1_network: Architecture = "mlp",
        m1_channels: tuple[int, ...] = (32, 64),
        m1_likelihood: LikelihoodName | Literal["auto"] = "auto",
        m1_learned_scale: bool = True,
        m1_epochs: int = 100,
        m1_batch_size: int = 200,
        m1_learning_rate: float = 2e-3,
        m1_kl_warmup: int = 10,
        active_threshold: float = 0.1,
        scale: Scale = "auto",
        random_state: int = 0,
        device: str = "auto",
        precision: Precision = "32-true",
        compile: bool = False,
        threads: int | None = None,
        time_limit: float | None = None,
        verbose: bool = False,
    ) -> None:
        self.m1 = m1
        self.m1_latent = m1_latent
        self.m1_hidden = m1_hidden
        self.m1_activation = m1_activation
        self.m1_network = m1_network
        self.m1_channels = m1_channels
        self.m1_likelihood = m1_likelihood
        self.m1_learned_scale = m1_learned_scale
        self.m1_epochs = m1_epochs
        self.m1_batch_size = m1_batch_size
        self.m1_learning_rate = m1_learning_rate
        self.m1_kl_warmup = m1_kl_warmup
        self.active_threshold = active_threshold
        self.scale = scale
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.compile = compile
        self.threads = threads
        self.time_limit = time_limit
        self.verbose = verbose

    def _classifier(self) -> SemiSupervisedClassifier:
        raise NotImplementedError

    def _fit(self, x: Rows, y: Codes, *, run: RunFolder | None, resume: bool) -> None:
        features, _ = self._learn_m1(x, self._seed(), run=run, resume=resume)
        self.classifier_ = self._classifier().fit(features.numpy(), y.numpy())

    def _log_proba(self, x: Rows) -> LogProbabilities:
        proba = self.classifier_.predict_proba(self._features(x).numpy())
        return torch.from_numpy(np.log(np.maximum(proba, np.finfo(np.float64).tiny)))

    def transform(self, X: Any) -> np.ndarray:
        """Returns M1's features: posterior means of the latents in use, shape (n, len(active_))."""
        return self._features(self._inputs(X)).numpy()

    def _save_parts(self, folder: Path) -> None:
        super()._save_parts(folder)
        self.classifier_.save(folder / "classifier")

    def _load_parts(self, folder: Path) -> None:
        super()._load_parts(folder)
        self.classifier_ = SemiSupervisedClassifier.load(folder / "classifier")


class M1SVM(_ClassifierOnM1):
    """M1 with an RBF-SVM trained on the features of the labelled rows."""

    def _classifier(self) -> SemiSupervisedClassifier:
        # latents keep their scale: how much one varies says how much it matters
        return SVM(scale="none", random_state=self._seed())


class M1TSVM(_ClassifierOnM1):
    """M1 with a transductive SVM on the features of all rows: the M1+TSVM of the paper's table 1."""

    def _classifier(self) -> SemiSupervisedClassifier:
        return TransductiveSVM(scale="none", random_state=self._seed(), device=self.device, verbose=self.verbose)
