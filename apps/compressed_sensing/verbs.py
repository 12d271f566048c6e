"""The functions behind the verbs."""

from .acquire import acquire as acquire
from .demo import demo as demo
from .recover import recover as recover
from .report import report as report
from .tables.benchmark import benchmark as benchmark
from .tables.benchmark import tune as tune
from .tables.learned import learned as learned
from .train import train_prior as train_prior
from .train import train_uae as train_uae
