"""Signals recovered from few measurements: LASSO, generative priors, learned acquisition, and what they are worth.

Example:
    >>> from apps.compressed_sensing import LASSO, build_operator
    >>> from core_models.data import load
    >>> x = load("digits").images("test")[:5]
    >>> method = LASSO(build_operator("gaussian", (1, 8, 8), 32, seed=0), noise=0.1, alpha=0.03)
    >>> method.reconstruct(method.acquire(x)).shape
    torch.Size([5, 1, 8, 8])
"""

from typing import TYPE_CHECKING

from apps.common.lazy_names import lazy_names

if TYPE_CHECKING:
    from .diagnosis import coverage as coverage
    from .diagnosis import diagnose as diagnose
    from .gaussian import GaussianMixture as GaussianMixture
    from .gaussian import Wiener as Wiener
    from .generative.csgm import CSGM as CSGM
    from .generative.own_prior import Prior as Prior
    from .generative.posterior_sampling import PosteriorSampling as PosteriorSampling
    from .generative.residual_covariance import ResidualCovariance as ResidualCovariance
    from .generative.sparse_gen import SparseGen as SparseGen
    from .generative.uncertainty_autoencoder import UncertaintyAutoencoder as UncertaintyAutoencoder
    from .guided import GuidedLASSO as GuidedLASSO
    from .guided import PriorGuidedLASSO as PriorGuidedLASSO
    from .lasso import BPDN as BPDN
    from .lasso import LASSO as LASSO
    from .lasso import ReweightedLASSO as ReweightedLASSO
    from .metrics import errors as errors
    from .operators import Blur as Blur
    from .operators import Callables as Callables
    from .operators import LinearOperator as LinearOperator
    from .operators import Mask as Mask
    from .operators import Matrix as Matrix
    from .operators import SubsampledDCT as SubsampledDCT
    from .operators import SubsampledFourier as SubsampledFourier
    from .operators import SuperResolution as SuperResolution
    from .operators import build_operator as build_operator
    from .operators import from_deepinv as from_deepinv
    from .recovery import Recovered as Recovered
    from .recovery import Recovery as Recovery

_OPERATORS = ("Blur", "Callables", "LinearOperator", "Mask", "Matrix", "SubsampledDCT", "SubsampledFourier",
              "SuperResolution", "build_operator", "from_deepinv")  # fmt: skip
_HOME = {
    "CSGM": "generative.csgm",
    **dict.fromkeys(("coverage", "diagnose"), "diagnosis"),
    **dict.fromkeys(("GaussianMixture", "Wiener"), "gaussian"),
    **dict.fromkeys(("GuidedLASSO", "PriorGuidedLASSO"), "guided"),
    **dict.fromkeys(("BPDN", "LASSO", "ReweightedLASSO"), "lasso"),
    "errors": "metrics",
    **dict.fromkeys(_OPERATORS, "operators"),
    **dict.fromkeys(("Recovered", "Recovery"), "recovery"),
    "Prior": "generative.own_prior",
    "PosteriorSampling": "generative.posterior_sampling",
    "ResidualCovariance": "generative.residual_covariance",
    "SparseGen": "generative.sparse_gen",
    "UncertaintyAutoencoder": "generative.uncertainty_autoencoder",
}
"""The module of each name."""

__all__ = list(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
