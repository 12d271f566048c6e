r"""Sampling a posterior over latents by sequential Monte Carlo: from the prior to the posterior by degrees.

The targets are pi_b(z) ~ N(z; 0, I) exp(-b E(z)), from the prior, b = 0, to the posterior, b = 1. Particles that are
drawn from the prior are weighted by exp(-(b' - b) E) at each rise of b, drawn anew by their weights, and moved by
Hamiltonian Monte Carlo, which leaves pi_b' as it is. So many modes are visited as the prior makes, and each is kept in
the share of its mass, which no search from many starts knows. Every signal rises at its own pace: the next b is the one
that leaves a given effective sample size.

The gradient that steers a move may be of low precision: leapfrog steps are reversible and keep volume with any field
that depends on z alone, and what is accepted is judged by energies in full precision.

Source: Del Moral, Doucet and Jasra, "Sequential Monte Carlo samplers", JRSS B 2006, sections 3.3 and 3.5; Neal,
"Annealed importance sampling", 2001; Neal, "MCMC using Hamiltonian dynamics", 2011, section 5.2; the choice of b:
Jasra, Stephens, Doucet and Tsagaris, "Inference for Lévy-driven stochastic volatility models via adaptive sequential
Monte Carlo", 2011, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from math import log
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from core_models.errors import UserError

Latents = Float[Tensor, "batch particles k"]
Energies = Float[Tensor, "batch particles"]


class Energy(Protocol):
    """Minus the log-likelihood of latents."""

    def __call__(self, z: Latents, signals: Int[Tensor, " batch"]) -> Energies:
        """Returns E(z) in full precision; `signals` are the places of the rows among all."""

    def gradient(self, z: Latents, signals: Int[Tensor, " batch"]) -> Latents:
        """Returns dE/dz, or something near it that depends on z alone."""


@dataclass(frozen=True)
class Sampler:
    """How a posterior is sampled."""

    particles: int = 64
    leapfrog_steps: int = 8
    """Of a move."""
    effective: float = 0.6
    """Effective sample size that a rise of b leaves, as a share of the particles."""
    last_moves: int = 3
    """Moves at b = 1."""
    acceptance: float = 0.75
    """What the step size of each signal is led to."""
    most_rises: int = 500

    def __post_init__(self) -> None:
        """Refuses settings that can't sample."""
        for name in ("particles", "leapfrog_steps", "last_moves", "most_rises"):
            if getattr(self, name) < (2 if name == "particles" else 1):
                least = "two particles" if name == "particles" else f"{name} of at least 1"
                raise UserError(f"expected at least {least}, got {getattr(self, name)}")
        for name in ("effective", "acceptance"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"expected a share between 0 and 1 of {name}, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples of a posterior."""

    z: Latents
    """Of equal weight."""
    log_evidence: Float[Tensor, " batch"]
    """An estimate of log E exp(-E(z)) under the prior, consistent in the number of particles; were the rises of b and
    the step sizes not chosen by the particles themselves, its exponential would be unbiased."""
    acceptance: Float[Tensor, " batch"]
    """Of the last move."""
    rises: Int[Tensor, " batch"]
    """Of b, until it was 1."""


@dataclass
class _State:
    """What each signal that isn't done yet has come to; the first dimension of all is the signal's."""

    signals: Tensor
    z: Tensor
    energy: Tensor
    gradient: Tensor
    inverse_temperature: Tensor
    step_size: Tensor
    log_evidence: Tensor
    acceptance: Tensor
    rises: Tensor
    left: Tensor
    """Moves at b = 1 still to be made."""

    def keep(self, rows: Tensor) -> _State:
        return replace(self, **{own.name: getattr(self, own.name)[rows] for own in fields(self)})


def sample_posterior(
    energy: Energy, dimensions: int, plan: Sampler, generators: Sequence[Generator],
    device: torch.device | None = None,
) -> Samples:  # fmt: skip
    """Samples the posteriors of a batch of signals over standard normal latents.

    Args:
        energy: see `Energy`.
        dimensions: of a latent.
        plan: particles, moves, and how fast b rises.
        generators: one for each signal, of the CPU: its samples depend on no other signal.
        device: on which the energy computes; the CPU when left out.

    Raises:
        UserError: when energies aren't finite, or b doesn't reach 1.
    """
    batch, particles = len(generators), plan.particles
    everything = torch.arange(batch, device=device)
    z = _drawn(torch.randn, (particles, dimensions), generators, everything)
    zeros, counts = z.new_zeros(batch), torch.zeros_like(everything)
    state = _State(
        everything, z, energy(z, everything), energy.gradient(z, everything), zeros, zeros + 0.25, zeros, zeros, counts,
        counts + plan.last_moves,
    )  # fmt: skip
    if not bool(torch.isfinite(state.energy).all()):
        raise UserError("expected finite likelihoods of samples from the prior, got NaN or infinity")
    done: list[_State] = []
    for _ in range(plan.most_rises):
        own = [generators[i] for i in state.signals.tolist()]
        weights = _rise(state, plan)
        _resample(state, weights, own)
        _move(state, energy, plan, own)
        finished = state.left == 0
        if bool(finished.any()):
            done.append(state.keep(finished))
            state = state.keep(~finished)
        if not len(state.signals):
            break
    else:
        raise UserError(
            f"expected the posterior after {plan.most_rises} rises of temperature, {len(state.signals)} signals are "
            "not there: more particles, or a larger noise"
        )
    order = torch.cat([own.signals for own in done]).argsort()
    z, evidence, acceptance, rises = (
        torch.cat([getattr(own, name) for own in done])[order] for name in ("z", "log_evidence", "acceptance", "rises")
    )
    return Samples(z, evidence, acceptance, rises)


def _drawn(draw: Callable[..., Tensor], shape: Sequence[int], generators: Sequence[Generator], like: Tensor) -> Tensor:
    """Draws (batch, *shape) in single precision, each row from its own generator, on the device of `like`."""
    return torch.stack([draw(*shape, generator=generator) for generator in generators]).to(like.device)


def _rise(state: _State, plan: Sampler) -> Float[Tensor, "batch particles"]:
    """Raises each signal's b as far as the effective sample size allows; returns the particles' weights."""
    energy = state.energy.double()
    rest = 1 - state.inverse_temperature.double()

    def effective(rise: Tensor) -> Tensor:
        share = torch.softmax(-rise[:, None] * energy, 1)
        return 1 / (share.square().sum(1) * plan.particles)

    low, high = torch.zeros_like(rest), rest
    for _ in range(40):
        middle = 0.5 * (low + high)
        enough = effective(middle) >= plan.effective
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    whole = effective(rest) >= plan.effective
    rise = torch.where(whole, rest, low)
    log_weight = -rise[:, None] * energy
    state.rises = state.rises + (state.inverse_temperature < 1)
    state.log_evidence = state.log_evidence + (torch.logsumexp(log_weight, 1) - log(plan.particles)).float()
    # 1 exactly where it is reached: what is left is compared with it
    state.inverse_temperature = torch.where(whole, 1.0, state.inverse_temperature + rise).float()
    return torch.softmax(log_weight, 1)


def _resample(state: _State, weights: Float[Tensor, "batch particles"], generators: Sequence[Generator]) -> None:
    """Draws particles anew by their weights, systematically: of weight w as many as w times all, rounded up or down."""
    particles = weights.shape[1]
    offset = _drawn(torch.rand, (1,), generators, weights)
    places = (torch.arange(particles, device=weights.device) + offset.double()) / particles
    drawn = torch.searchsorted(weights.cumsum(1), places).clamp(max=particles - 1)
    rows = torch.arange(len(weights), device=weights.device)[:, None]
    state.z, state.energy, state.gradient = (v[rows, drawn] for v in (state.z, state.energy, state.gradient))


def _move(state: _State, energy: Energy, plan: Sampler, generators: Sequence[Generator]) -> None:
    """Moves every particle by a trajectory of Hamiltonian Monte Carlo."""
    shape = state.z.shape[1:]
    momentum = _drawn(torch.randn, shape, generators, state.z)
    threshold = _drawn(torch.rand, shape[:1], generators, state.z)
    # steps of varied length, lest trajectories come back to where they began
    jitter = 0.8 + 0.4 * _drawn(torch.rand, (1,), generators, state.z)[:, :, None]
    step, b = state.step_size[:, None, None] * jitter, state.inverse_temperature[:, None, None]
    z, gradient, p = state.z, state.gradient, momentum
    p = p - 0.5 * step * (b * gradient + z)
    for i in range(plan.leapfrog_steps):
        z = z + step * p
        gradient = energy.gradient(z, state.signals)
        p = p - (step if i < plan.leapfrog_steps - 1 else 0.5 * step) * (b * gradient + z)
    reached = energy(z, state.signals)
    before = b[..., 0] * state.energy + 0.5 * (state.z.square() + momentum.square()).sum(2)
    after = b[..., 0] * reached + 0.5 * (z.square() + p.square()).sum(2)
    chance = (before - after).clamp(max=0).exp().nan_to_num(nan=0.0)
    taken = threshold < chance
    state.z = torch.where(taken[..., None], z, state.z)
    state.gradient = torch.where(taken[..., None], gradient, state.gradient)
    state.energy = torch.where(taken, reached, state.energy)
    state.acceptance = chance.mean(1)
    state.step_size = (state.step_size * torch.exp(0.5 * (state.acceptance - plan.acceptance))).clamp(max=1.0)
    state.left = state.left - (state.inverse_temperature >= 1).long()
