"""Semi-supervised learning: M1, M2, M1+M2 and what they are compared with, as scikit-learn estimators."""

from .estimator import SemiSupervisedClassifier as SemiSupervisedClassifier
from .estimator import load as load
