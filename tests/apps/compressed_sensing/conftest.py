"""Fixtures of the tests of the verbs."""

from verb_targets import call as call
from verb_targets import refused as refused
from verb_targets import vae as vae
