"""What the core's annotations say of shapes and types is checked at each call, by these tests as by the laws."""

import jaxtyping
import pytest
import torch

from core_models.latent import VAE, VAEConfig


def test_a_call_with_other_values_than_annotated_fails():
    vae = VAE(VAEConfig(event_shape=(4,), latent=2, hidden=(3,)))
    vae.decode(torch.zeros(5, 2))
    with pytest.raises(jaxtyping.TypeCheckError, match="decode"):
        vae.decode(torch.zeros(5, 2, dtype=torch.long))
