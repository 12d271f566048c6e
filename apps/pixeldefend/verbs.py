"""The functions behind the verbs."""

from .attacking import attack_images as attack_images
from .benchmark import benchmark as benchmark
from .classifiers import train_classifier as train_classifier
from .demo import demo as demo
from .density import calibrate_density as calibrate_density
from .density import train_density as train_density
from .detect import detect as detect
from .purifying import purify_images as purify_images
from .report import report as report
