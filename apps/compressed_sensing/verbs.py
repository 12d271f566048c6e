"""The functions behind the verbs."""

from .acquire import acquire as acquire
from .recover import recover as recover
from .train import train_prior as train_prior
from .train import train_uae as train_uae
