"""How good a model is, by named estimators that ask for a capability and never for a class."""

from .likelihood import Estimate as Estimate
from .likelihood import Estimator as Estimator
from .likelihood import bits_per_dim as bits_per_dim
from .likelihood import evaluate as evaluate
