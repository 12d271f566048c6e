"""Demonstrations: their arrays and files, checks, recording, and Minari."""

from .data import Demonstrations as Demonstrations
from .data import Observations as Observations
