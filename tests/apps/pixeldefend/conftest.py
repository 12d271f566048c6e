"""Fixtures of the tests of batch use."""

from batch_targets import call as call
from batch_targets import models as models
from batch_targets import refused as refused
