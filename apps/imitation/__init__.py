"""Policies that learn from a few demonstrations: behavioural cloning, GAIL, InfoGAIL and what they compare with.

Example:
    >>> from apps.imitation import GAIL, Demonstrations, returns_of, vector_env
    >>> expert = Demonstrations.load("CartPole-v1.npz")  # doctest: +SKIP
    >>> learner = GAIL(vector_env("CartPole-v1", seed=0), expert.take(1), seed=0)  # doctest: +SKIP
    >>> learner.learn(100_000).save("gail.zip")  # doctest: +SKIP
    >>> returns_of(learner, "CartPole-v1").summary()["mean"]  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from apps.common.lazy_names import lazy_names

if TYPE_CHECKING:
    from .codes import Coded as Coded
    from .codes import CodedVecEnv as CodedVecEnv
    from .demonstrations import Demonstrations as Demonstrations
    from .demonstrations import RandomPolicy as RandomPolicy
    from .demonstrations import record as record
    from .environments.making import make_env as make_env
    from .environments.making import vector_env as vector_env
    from .evaluation import Returns as Returns
    from .evaluation import film as film
    from .evaluation import returns_of as returns_of
    from .learners import AIRL as AIRL
    from .learners import BC as BC
    from .learners import DAC as DAC
    from .learners import FEM as FEM
    from .learners import GAIL as GAIL
    from .learners import GTAL as GTAL
    from .learners import SAC as SAC
    from .learners import InfoGAIL as InfoGAIL
    from .rewards import LearntReward as LearntReward
    from .rewards import LearntRewardVecEnv as LearntRewardVecEnv
    from .trained import WithCode as WithCode
    from .trained import open_learner as open_learner
    from .trained import open_policy as open_policy

_HOME = {
    **dict.fromkeys(("AIRL", "BC", "DAC", "FEM", "GAIL", "GTAL", "SAC", "InfoGAIL"), "learners"),
    **dict.fromkeys(("Demonstrations", "RandomPolicy", "record"), "demonstrations"),
    **dict.fromkeys(("make_env", "vector_env"), "environments.making"),
    **dict.fromkeys(("Returns", "film", "returns_of"), "evaluation"),
    **dict.fromkeys(("LearntReward", "LearntRewardVecEnv"), "rewards"),
    **dict.fromkeys(("WithCode", "open_learner", "open_policy"), "trained"),
    **dict.fromkeys(("Coded", "CodedVecEnv"), "codes"),
}
"""The module of each name."""

__all__ = list(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
