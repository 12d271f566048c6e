"""The functions behind the verbs."""

from .acquire import acquire as acquire
from .benchmark import benchmark as benchmark
from .benchmark import tune as tune
from .demo import demo as demo
from .learned import learned as learned
from .recover import recover as recover
from .report import report as report
from .train import train_prior as train_prior
from .train import train_uae as train_uae
