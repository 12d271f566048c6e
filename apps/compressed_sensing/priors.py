"""Trained models by the names that a command line gives: generative priors and uncertainty autoencoders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from torch import nn

import core_models
from apps.common.building import working_folder_importable
from core_models import registry
from core_models.errors import UserError
from core_models.latent import UncertaintyAutoencoderModel


def load_model(name: str) -> nn.Module:
    """Loads a model in evaluation mode on the CPU.

    Args:
        name: a run folder, `zoo:NAME`, or the class path of a model of the user's own, whose constructor needs no
            arguments and loads its weights.

    Raises:
        UserError: when there is no such model, or its weights aren't those of its card.
    """
    working_folder_importable()
    if ":" not in name and "/" not in name and "." in name.strip(".") and not Path(name).exists():
        return registry.build(name, None, nn.Module).eval()
    model: nn.Module = core_models.load(name)
    return model.eval()


def load_prior(name: str) -> nn.Module:
    """Loads a generative prior: a model that decodes latents.

    Raises:
        UserError: when there is no such model, or it can't decode.
    """
    model = load_model(name)
    if not callable(getattr(model, "decode", None)):
        raise UserError(f"--prior {name}: expected a model that decodes latents, such as a VAE, got "
                        f"{type(model).__name__}")  # fmt: skip
    return model


def load_autoencoder(name: str, option: str = "--prior") -> UncertaintyAutoencoderModel:
    """Loads a trained uncertainty autoencoder.

    Raises:
        UserError: when there is no such model, or it is of another kind.
    """
    model = load_model(name)
    if not isinstance(model, UncertaintyAutoencoderModel):
        raise UserError(
            f"{option} {name}: expected an uncertainty autoencoder, got {type(model).__name__}: train one with "
            "genapps compressed-sensing train uae"
        )
    return model


def fingerprint(model: nn.Module) -> str:
    """Returns 16 hexadecimal digits that identify a model's class and weights."""
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, tensor in sorted(model.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(json.dumps([name, str(plain.dtype), list(plain.shape)]).encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()[:16]
