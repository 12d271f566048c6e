"""Semi-supervised learning: M1, M2, M1+M2 and what they are compared with, as scikit-learn estimators.

Example:
    >>> from apps.semi_supervised import M2
    >>> from core_models.data import load
    >>> digits = load("digits")
    >>> x, y = digits.images("train").numpy(), digits.train_y.numpy()
    >>> y[50:] = -1
    >>> M2(latent=2, hidden=(8,), epochs=1, device="cpu").fit(x, y).predict(x[:5]).shape
    (5,)
"""

from typing import TYPE_CHECKING

from apps.common.lazy_names import lazy_names

if TYPE_CHECKING:
    from .baselines import SVM as SVM
    from .baselines import ConvolutionalNetwork as ConvolutionalNetwork
    from .baselines import NeuralNetwork as NeuralNetwork
    from .cae import ContractiveAutoencoder as ContractiveAutoencoder
    from .estimator import SemiSupervisedClassifier as SemiSupervisedClassifier
    from .estimator import load as load
    from .improved_gan import ImprovedGAN as ImprovedGAN
    from .ladder import Ladder as Ladder
    from .m1 import M1SVM as M1SVM
    from .m1 import M1TSVM as M1TSVM
    from .m1_m2 import M1M2 as M1M2
    from .m2 import M2 as M2
    from .tsvm import TransductiveSVM as TransductiveSVM
    from .vat import VAT as VAT

_HOME = {
    **dict.fromkeys(("SVM", "ConvolutionalNetwork", "NeuralNetwork"), "baselines"),
    "ContractiveAutoencoder": "cae",
    **dict.fromkeys(("SemiSupervisedClassifier", "load"), "estimator"),
    "ImprovedGAN": "improved_gan",
    "Ladder": "ladder",
    **dict.fromkeys(("M1SVM", "M1TSVM"), "m1"),
    "M1M2": "m1_m2",
    "M2": "m2",
    "TransductiveSVM": "tsvm",
    "VAT": "vat",
}
"""The module of each name."""

__all__ = list(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
