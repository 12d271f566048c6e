"""Models trained against a critic."""

from .wgan_gp import WGANGP as WGANGP
from .wgan_gp import WassersteinLoss as WassersteinLoss
from .wgan_gp import WGANGPConfig as WGANGPConfig
