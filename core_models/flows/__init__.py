"""Normalising flows: densities that are a base density seen through an invertible map."""

from .real_nvp import RealNVP as RealNVP
from .real_nvp import RealNVPConfig as RealNVPConfig
