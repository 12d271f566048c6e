"""Image classifiers: logits of pixels in [0, 1]."""

from .image_classifier import ImageClassifier as ImageClassifier
from .image_classifier import standardise as standardise
from .resnet import ResNet as ResNet
from .resnet import ResNetConfig as ResNetConfig
from .vgg import VGG as VGG
from .vgg import VGGConfig as VGGConfig
