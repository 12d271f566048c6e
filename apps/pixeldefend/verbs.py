"""The functions behind the verbs."""

from .attack import attack_images as attack_images
from .benchmark import benchmark as benchmark
from .classifiers import train_classifier as train_classifier
from .demo import demo as demo
from .density import calibrate_density as calibrate_density
from .density import train_density as train_density
from .detect import detect as detect
from .purify import purify_images as purify_images
from .report import report as report
