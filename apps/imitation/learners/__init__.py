"""The learners, one module each."""

from .airl import AIRL
from .apprenticeship import FEM, GTAL
from .base import Learner
from .bc import BC
from .dac import DAC
from .gail import GAIL
from .info_gail import InfoGAIL
from .on_policy import OnPolicyLearner
from .sac import SAC

__all__ = ["AIRL", "BC", "DAC", "FEM", "GAIL", "GTAL", "SAC", "InfoGAIL", "Learner", "OnPolicyLearner"]
