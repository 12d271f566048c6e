"""The recovery methods by name: what each is, what it needs, and what it says of each signal.

A method's settings are the arguments of its constructor; whether it needs a prior is read from them, and whether it
learns from signals from its `fit`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from core_models.errors import UserError, suggestion

from .gaussian import GaussianMixture, Wiener
from .generative.csgm import CSGM
from .generative.flow_prior import FlowPrior
from .generative.intermediate_layers import IntermediateLayers
from .generative.posterior_sampling import PosteriorSampling
from .generative.residual_covariance import ResidualCovariance
from .generative.sparse_gen import SparseGen
from .generative.uncertainty_autoencoder import UncertaintyAutoencoder
from .guided import GuidedLASSO, PriorGuidedLASSO
from .lasso import BPDN, LASSO, ReweightedLASSO
from .recovery import Recovery

Builder = Callable[[Any], Recovery]
"""From the first argument of a method's constructor, an operator or a trained model, to the method."""
GIVEN = ("operator", "prior", "model", "noise")
"""Arguments of constructors that come with the measurements, and are no settings."""


@dataclass(frozen=True)
class Method:
    """A recovery method."""

    name: str
    cls: type[Recovery]
    summary: str
    """What it does, in one line."""
    says: tuple[str, ...] = ()
    """What it may tell of each signal, the keys of `Recovered.details`."""
    std: bool = False
    """Whether it knows a standard deviation of every value."""

    @property
    def needs_prior(self) -> bool:
        """Whether it searches a generative prior."""
        return "prior" in inspect.signature(self.cls).parameters

    @property
    def needs_model(self) -> bool:
        """Whether it is a trained model itself, which brings its operator."""
        return "model" in inspect.signature(self.cls).parameters

    @property
    def needs_signals(self) -> bool:
        """Whether it learns from training signals before it recovers."""
        return not self.needs_model and self.cls.fit is not Recovery.fit

    @property
    def needs_noise(self) -> bool:
        """Whether it has an answer for noisy measurements alone."""
        return issubclass(self.cls, GaussianMixture | ResidualCovariance)

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings and their defaults."""
        parameters = inspect.signature(self.cls).parameters
        return {name: p.default for name, p in parameters.items() if name not in GIVEN}


METHODS = {
    method.name: method
    for method in (
        Method("lasso", LASSO, "least squares with an l1 penalty in a basis", ("objective", "gap", "converged")),
        Method(
            "reweighted-lasso",
            ReweightedLASSO,
            "LASSO again, with less penalty on what is large",
            ("objective", "gap", "converged"),
        ),
        Method(
            "guided-lasso",
            GuidedLASSO,
            "LASSO, its penalties from the best linear estimate",
            ("objective", "gap", "converged"),
        ),
        Method(
            "prior-guided-lasso",
            PriorGuidedLASSO,
            "LASSO, its penalties from a prior and a Gaussian for the rest",
            ("objective", "gap", "converged"),
        ),
        Method("bpdn", BPDN, "the least l1 norm within the noise", ("objective", "gap", "violation", "converged")),
        Method("csgm", CSGM, "the nearest signal that a prior can make", ("loss",)),
        Method("flow-prior", FlowPrior, "the latents of a flow, from zero", ("loss",)),
        Method("intermediate-layers", IntermediateLayers, "what a GAN's stages hand on, near its range", ("loss",)),
        Method("sparse-gen", SparseGen, "a prior with sparse deviations", ("loss", "deviation")),
        Method("residual-covariance", ResidualCovariance, "a prior and a Gaussian for the rest", ("loss",), std=True),
        Method(
            "posterior-sampling",
            PosteriorSampling,
            "the mean of samples: a prior, a Gaussian for the rest",
            ("log_evidence",),
            std=True,
        ),
        Method("gmm", GaussianMixture, "the mean under a Gaussian mixture", ("log_evidence",), std=True),
        Method("wiener", Wiener, "the best linear estimate", ("log_evidence",), std=True),
        Method("uae", UncertaintyAutoencoder, "learned measurements and what recovers from them"),
    )
}
"""By name."""


def find_method(name: str) -> Method:
    """Returns a method by its name or the name of its class.

    Raises:
        UserError: when there is none.
    """
    known = {**METHODS, **{method.cls.__name__: method for method in METHODS.values()}}
    if name in known:
        return known[name]
    raise UserError(f"expected a method ({', '.join(METHODS)}), got {name!r}{suggestion(name, known)}")


def method_of(recovery: Recovery) -> Method:
    """Returns the entry of a method, made up for a class of the user's own."""
    cls = type(recovery)
    own = next((method for method in METHODS.values() if method.cls is cls), None)
    return own or Method(cls.__name__, cls, (inspect.getdoc(cls) or "").partition("\n")[0])


def settings_of(recovery: Recovery) -> dict[str, Any]:
    """Returns a method's settings as plain values; penalties that are left out as they count, if it has an operator."""
    given = recovery.get_params(deep=False)
    if recovery.default_penalties and recovery.operator is not None:
        given |= {name: recovery.penalty_of(name) for name in recovery.default_penalties}
    return {name: _plain(value) for name, value in given.items() if name not in GIVEN}


def refuse_given(recovery: Recovery) -> None:
    """Refuses what the verb has options of its own for.

    Raises:
        UserError: when the prior or the noise is among a method's settings.
    """
    signature = inspect.signature(type(recovery)).parameters
    for name in ("prior", "noise"):
        if name in signature and getattr(recovery, name) != signature[name].default:
            raise UserError(f"--method.{name}: expected it among the verb's own options: give --{name}")


def _plain(value: Any) -> Any:
    """Returns a value as JSON has it."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    return value if isinstance(value, str | int | float | bool) or value is None else repr(value)
