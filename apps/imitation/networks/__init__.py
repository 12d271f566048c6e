"""The networks beside the policy: what tells the expert from the learner, and what guesses the code of a step."""

from .discriminator import Discriminator, RewardForm, gradient_penalty, learnt_reward
from .encoder import Encoder, observations_to_tensor
from .normaliser import Normaliser
from .posterior import Posterior

__all__ = [
    "Discriminator",
    "Encoder",
    "Normaliser",
    "Posterior",
    "RewardForm",
    "gradient_penalty",
    "learnt_reward",
    "observations_to_tensor",
]
