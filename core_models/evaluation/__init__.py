"""How good a model is, by named estimators that ask for a capability and never for a class."""

from .likelihood import Estimate as Estimate
from .likelihood import Estimator as Estimator
from .likelihood import bits_per_dim as bits_per_dim
from .likelihood import estimator_for as estimator_for
from .likelihood import evaluate as evaluate
from .likelihood import per_event as per_event
from .likelihood import summarise as summarise
