"""Latent-variable models trained by a bound."""

from .conditional_vae import ConditionalVAE as ConditionalVAE
from .conditional_vae import ConditionalVAEConfig as ConditionalVAEConfig
from .draws import draw as draw
from .iwae import iwae as iwae
from .likelihoods import DiscretisedLogistic as DiscretisedLogistic
from .likelihoods import Likelihood as Likelihood
from .objectives import NegativeELBO as NegativeELBO
from .uncertainty_autoencoder import SquaredRecoveryError as SquaredRecoveryError
from .uncertainty_autoencoder import UAEConfig as UAEConfig
from .uncertainty_autoencoder import UncertaintyAutoencoderModel as UncertaintyAutoencoderModel
from .vae import VAE as VAE
from .vae import VAEConfig as VAEConfig
