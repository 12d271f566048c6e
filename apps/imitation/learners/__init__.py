"""The learners, one module each."""

from .base import Learner
from .bc import BC
from .off_policy.dac import DAC
from .off_policy.sac import SAC
from .on_policy.airl import AIRL
from .on_policy.apprenticeship import FEM, GTAL
from .on_policy.gail import GAIL
from .on_policy.info_gail import InfoGAIL
from .on_policy.learner import OnPolicyLearner

__all__ = ["AIRL", "BC", "DAC", "FEM", "GAIL", "GTAL", "SAC", "InfoGAIL", "Learner", "OnPolicyLearner"]
