"""Recovery with generative priors: a search or samples of their latents, and what they leave to a residual."""
