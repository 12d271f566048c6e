"""The rows of the benchmark's tables: methods with their fixed settings, and what is chosen for them on validation.

What is chosen lies in `chosen.json`, data set by data set ("mnist -> omniglot" where the prior is of another) and m by
m, written by `genapps compressed-sensing tune`; a row without an entry uses the first values of its grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from core_models.errors import UserError
from core_models.files import read_json

from ..gaussian import GaussianMixture, MeanSignal, Wiener
from ..generative.csgm import ANNEALED, CSGM, HALVING
from ..generative.flow_prior import FlowPrior
from ..generative.intermediate_layers import IntermediateLayers
from ..generative.posterior_sampling import PosteriorSampling
from ..generative.residual_covariance import ResidualCovariance
from ..generative.sparse_gen import SparseGen
from ..guided import GuidedLASSO, PriorGuidedLASSO
from ..lasso import BPDN, LASSO, ReweightedLASSO
from ..recovery import Recovery

CHOSEN = Path(__file__).parent / "chosen.json"
MEASUREMENTS = (10, 25, 50, 100, 200, 300, 400, 500, 750)
ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0, 0.03, 0.01, 0.003, 0.001, 0.0003)


@dataclass(frozen=True)
class Row:
    """A row of the tables."""

    kind: type[Recovery]
    settings: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """What is chosen on validation images: names of settings and the values that are tried."""
    prior: str | None = None
    """Which prior of `PRIORS` it uses."""
    fits: bool = False
    """Whether it is fitted to training signals."""

    def candidates(self) -> list[dict[str, Any]]:
        """Returns every combination of the grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]

    def at_edge(self, settings: Mapping[str, Any]) -> list[str]:
        """Returns the names of settings whose value is the least or the greatest of three or more that were tried.

        0 is no such edge: nothing lies below it.
        """
        ordered = {name: sorted(values) for name, values in self.grid.items() if len(values) > 2}
        return [name for name, values in ordered.items() if settings[name] in {values[0], values[-1]} - {0}]


PAPER, EPOCHS_20, EPOCHS_30, STRONG, FLOW, GAN = "paper", "20 epochs", "30 epochs", "strong", "flow", "gan"
PRIORS = {
    PAPER: {"mnist": "zoo:vae_mnist_20", "omniglot": "zoo:vae_omniglot_20"},
    EPOCHS_20: {"mnist": "runs/compressed_sensing/vae_mnist_short"},
    EPOCHS_30: {"mnist": "runs/compressed_sensing/vae_mnist_30"},
    STRONG: {"mnist": "zoo:vae_mnist", "omniglot": "zoo:vae_omniglot"},
    GAN: {"mnist": "runs/compressed_sensing/wgan_gp_mnist", "omniglot": "runs/compressed_sensing/wgan_gp_omniglot"},
    FLOW: {"mnist": "runs/compressed_sensing/real_nvp_mnist", "omniglot": "runs/compressed_sensing/real_nvp_omniglot"},
}
"""The generative prior of each data set: that of the papers (784-500-500-20), the same one trained for 20 and for
30 epochs in place of 100, a stronger one (50 latents), a GAN and a flow."""

_FAST = {"low_precision": True}
_BORA = {"penalty": 0.1, **_FAST}
"""Their penalty, of entries of variance 1."""
_SPARSE = {"penalty": [0.1, 0.01, 0.0], "sparsity": [0.1, 0.5, 2.0, 8.0, 0.03, 0.01, 0.003, 0.001, 0.0003]}
_REWEIGHTED = {"alpha": [0.01, 0.1, 0.03, 0.003, 0.001, 0.0003], "epsilon": [0.1, 0.3, 0.03, 0.01, 0.003]}
_GUIDED = {"alpha": [0.01, 0.03, 0.1, 0.003], "epsilon": [0.03, 0.1, 0.01]}
_AS_WIENERS = {"alpha": 0.03, "epsilon": 0.03}
"""What was chosen for the guide by Wiener at 200 to 400 on MNIST."""
ROWS: dict[str, Row] = {
    "mean image": Row(MeanSignal, fits=True),
    "LASSO, pixels": Row(LASSO, {"basis": "pixels", "box": False}, {"alpha": ALPHAS}),
    "LASSO, DCT": Row(LASSO, {"basis": "dct", "box": False}, {"alpha": ALPHAS}),
    "LASSO, wavelet": Row(LASSO, {"basis": "wavelet", "box": False}, {"alpha": ALPHAS}),
    "LASSO, pixels, boxed": Row(LASSO, {"basis": "pixels", "box": True}, {"alpha": ALPHAS}),
    "LASSO, DCT, boxed": Row(LASSO, {"basis": "dct", "box": True, "tolerance": 1e-4}, {"alpha": ALPHAS}),
    "LASSO, wavelet, boxed": Row(LASSO, {"basis": "wavelet", "box": True, "tolerance": 1e-4}, {"alpha": ALPHAS}),
    "LASSO, pixels, boxed, reweighted": Row(ReweightedLASSO, {"basis": "pixels", "box": True}, _REWEIGHTED),
    "LASSO, boxed, guided by Wiener": Row(GuidedLASSO, {}, _GUIDED, fits=True),
    "LASSO, boxed, guided by residual covariance": Row(PriorGuidedLASSO, _AS_WIENERS, prior=PAPER, fits=True),
    "BPDN, wavelet, boxed": Row(BPDN, {"basis": "wavelet", "box": True, "tolerance": 1e-4}),
    "CSGM": Row(CSGM, _BORA, prior=PAPER),
    "CSGM, prior of 20 epochs": Row(CSGM, _BORA, prior=EPOCHS_20),
    "CSGM, prior of 30 epochs": Row(CSGM, _BORA, prior=EPOCHS_30),
    "CSGM, 50 latents": Row(CSGM, _BORA, prior=STRONG),
    "CSGM, no penalty": Row(CSGM, {"penalty": 0.0, **_FAST}, prior=PAPER),
    "CSGM, annealed": Row(CSGM, {**ANNEALED, **_BORA}, prior=PAPER),
    "CSGM, annealed, 50 latents": Row(CSGM, {**ANNEALED, **_BORA}, prior=STRONG),
    "CSGM, early dropping": Row(CSGM, {"drop": HALVING, **_BORA}, prior=PAPER),
    "Sparse-Gen, pixels": Row(SparseGen, {"basis": "pixels", **_FAST}, _SPARSE, prior=PAPER),
    "Sparse-Gen, DCT": Row(SparseGen, {"basis": "dct", **_FAST}, _SPARSE, prior=PAPER),
    "Sparse-Gen, wavelet": Row(SparseGen, {"basis": "wavelet", **_FAST}, _SPARSE, prior=PAPER),
    "GAN": Row(CSGM, {"drop": HALVING}, {"penalty": [0.1, 0.01, 0.001]}, prior=GAN),
    "GAN, intermediate layers": Row(
        IntermediateLayers, {}, {"penalty": [0.1, 0.01], "radii": [(0.02, 0.02), (0.1, 0.1)]}, prior=GAN
    ),
    "Flow prior": Row(FlowPrior, {}, {"penalty": [0.0, 0.001, 0.01, 0.03, 0.1, 0.3], "steps": [50, 150]}, prior=FLOW),
    "Wiener": Row(Wiener, fits=True),
    "GMM-40": Row(GaussianMixture, {"components": 40, "subspace": 150}, fits=True),
    "Residual covariance": Row(ResidualCovariance, {}, {"shrinkage": [1e-4, 1e-3]}, prior=PAPER, fits=True),
    "Residual covariance, 50 latents": Row(
        ResidualCovariance, {"restarts": 40, "modes": 8, "drop": ((0.15, 0.5), (0.3, 0.2))},
        {"shrinkage": [1e-4, 1e-3]}, prior=STRONG, fits=True,
    ),
    "Posterior sampling": Row(PosteriorSampling, {"low_precision": True}, prior=PAPER, fits=True),
    "Posterior sampling, 50 latents": Row(PosteriorSampling, {"low_precision": True}, prior=STRONG, fits=True),
}  # fmt: skip


def prior_for(row: str, data: str) -> str | None:
    """Returns the folder or `zoo:NAME` of a row's prior for a data set; None for a row without one.

    Raises:
        UserError: when there is no such prior for the data set.
    """
    kind = ROWS[row].prior
    if kind is None:
        return None
    if data not in PRIORS[kind]:
        raise UserError(f"{row}: expected data among {', '.join(PRIORS[kind])}, got {data}; or name a prior by --prior")
    return PRIORS[kind][data]


def rows_for(data: str) -> list[str]:
    """Returns the rows that a data set can fill: all but those whose prior it lacks, or is still to be trained."""
    return [name for name, row in ROWS.items() if row.prior is None or _is_there(PRIORS[row.prior].get(data))]


def _is_there(prior: str | None) -> bool:
    return prior is not None and (prior.startswith("zoo:") or (Path(prior) / "model.json").is_file())


def known_by(data: str, known: str) -> str:
    """Returns the name under which settings are filed, where priors know another data set than `data`.

    Example:
        >>> known_by("omniglot", "mnist"), known_by("omniglot", "omniglot")
        ('mnist -> omniglot', 'omniglot')
    """
    return data if known == data else f"{known} -> {data}"


def chosen(data: str, row: str, m: int, path: Path = CHOSEN) -> dict[str, Any]:
    """Returns the settings that validation chose for a row; those of the nearest m where this one was not tuned.

    Args:
        data: the data set, or `known_by` where the prior knows another.
        row: of the table.
        m: the number of measurements.
        path: the file of what was chosen.
    """
    grid = ROWS[row].grid
    first = {name: values[0] for name, values in grid.items()}
    if not grid or not path.is_file():
        return first
    found = read_json(path)
    known = found.get(data, {}).get(row, {}) if isinstance(found, dict) else {}
    if not known:
        return first
    nearest = min(known, key=lambda other: (abs(int(other) - m), int(other)))
    settings = known[nearest]["settings"]
    if set(settings) != set(grid):
        raise UserError(f"{path}: expected {', '.join(grid)} for {row}, got {', '.join(settings)}: tune it again")
    return dict(settings)
