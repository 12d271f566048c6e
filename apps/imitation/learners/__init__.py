"""The learners, one module each."""

from .airl import AIRL
from .apprenticeship import FEM, GTAL
from .base import Learner
from .bc import BC
from .gail import GAIL
from .info_gail import InfoGAIL
from .on_policy import OnPolicyLearner

__all__ = ["AIRL", "BC", "FEM", "GAIL", "GTAL", "InfoGAIL", "Learner", "OnPolicyLearner"]
