"""The M2 of a probabilistic-programming peer: a semi-supervised VAE in pyro-ppl, its class enumerated in parallel.

Run by the interpreter of a virtual environment that has pyro-ppl and the very torch that ours runs on; it imports
nothing of this project. The first line that it reads is its settings (JSON: device, threads, clock), answered with the
versions that it runs on. Each line after that asks for steps (how, batch, labelled, steps), and is answered with the
time that they took.

Two networks are trained. The "example" is written as pyro's own example of this model is: class and pixels as
probabilities out of a softmax and a sigmoid, two separate layers for mean and scale, pyro's checks on as they are by
default. The "expert" one works on logits, in one layer, with the checks off.

Both: a generative model p(z) p(y) p(x | y, z) and a guide q(y | x) q(z | x, y), of the sizes of ours
(784 pixels, one hidden layer of 500 softplus units, 50 latents, 10 classes). `TraceEnum_ELBO` sums over y where it
isn't observed; a third term, weighted, trains q(y | x) on labelled rows.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable

import pyro  # type: ignore[import-not-found]
import pyro.distributions as dist  # type: ignore[import-not-found]
import torch
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate  # type: ignore[import-not-found]
from torch import Tensor, nn

PIXELS, HIDDEN, LATENT, CLASSES = 784, 500, 50, 10
ROWS = 10_000
RATE = 1e-3
ALPHA = 60.0  # 0.1 N / n_l on the sum over labelled rows


def perceptron(inputs: int, outputs: int) -> nn.Module:
    """One hidden layer."""
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.Softplus(), nn.Linear(HIDDEN, outputs))


class PeerM2(nn.Module):
    """Model and guide, as an expert would write them."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = perceptron(PIXELS, CLASSES)
        self.encoder: nn.Module = perceptron(PIXELS + CLASSES, 2 * LATENT)
        self.decoder = perceptron(LATENT + CLASSES, PIXELS)

    def classes(self, x: Tensor) -> dist.OneHotCategorical:
        """q(y | x)."""
        return dist.OneHotCategorical(logits=self.classifier(x))

    def latents(self, x: Tensor, y: Tensor) -> dist.Normal:
        """q(z | x, y)."""
        mean, log_scale = self.encoder(together(x, y)).chunk(2, -1)
        return dist.Normal(mean, log_scale.exp())

    def pixels(self, z: Tensor, y: Tensor) -> dist.Bernoulli:
        """p(x | y, z)."""
        return dist.Bernoulli(logits=self.decoder(together(z, y)), validate_args=False)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        """p(z) p(y) p(x | y, z)."""
        pyro.module(type(self).__name__, self)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), LATENT), x.new_ones(len(x), LATENT)).to_event(1))
            uniform = x.new_full((len(x), CLASSES), 1 / CLASSES)
            y = pyro.sample("y", dist.OneHotCategorical(uniform), obs=y)
            pyro.sample("x", self.pixels(z, y).to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """q(y | x) q(z | x, y)."""
        with pyro.plate("rows", len(x)):
            if y is None:
                y = pyro.sample("y", self.classes(x))
            pyro.sample("z", self.latents(x, y).to_event(1))

    def classify(self, x: Tensor, y: Tensor) -> None:
        """The weighted log q(y | x) of labelled rows, as a model of its own."""
        pyro.module(type(self).__name__, self)
        with pyro.plate("rows", len(x)), pyro.poutine.scale(scale=ALPHA):
            pyro.sample("y_known", self.classes(x), obs=y)

    def nothing(self, x: Tensor, y: Tensor) -> None:
        """The guide of `classify`: there is nothing to infer."""


class ExampleM2(PeerM2):
    """The same as in pyro's example: probabilities instead of logits, two layers instead of one."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS + CLASSES, HIDDEN), nn.Softplus())
        self.mean, self.log_scale = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)

    def classes(self, x: Tensor) -> dist.OneHotCategorical:
        """q(y | x)."""
        return dist.OneHotCategorical(torch.softmax(self.classifier(x), -1))

    def latents(self, x: Tensor, y: Tensor) -> dist.Normal:
        """q(z | x, y)."""
        hidden = self.encoder(together(x, y))
        return dist.Normal(self.mean(hidden), self.log_scale(hidden).exp())

    def pixels(self, z: Tensor, y: Tensor) -> dist.Bernoulli:
        """p(x | y, z)."""
        return dist.Bernoulli(torch.sigmoid(self.decoder(together(z, y))), validate_args=False)


def together(a: Tensor, b: Tensor) -> Tensor:
    """Joins along the last dimension, every other one broadcast: the enumerated class adds one in front."""
    lead = torch.broadcast_shapes(a.shape[:-1], b.shape[:-1])
    return torch.cat([a.expand(*lead, a.shape[-1]), b.expand(*lead, b.shape[-1])], -1)


def binary(x: Tensor) -> Tensor:
    """Draws binary pixels the fast way: on a CPU `torch.bernoulli` takes four times as long."""
    return (torch.rand_like(x) < x).to(x.dtype)


class Peer:
    """Three ways to take the same steps.

    - "as its example": the example network, one `SVI.step` a loss; the labelled rows take part in every step.
    - "its unlabelled steps": the same without the labelled rows, which ours keeps in every step.
    - "by an expert": the expert network, losses added up, one backward pass, torch's fused Adam.
    """

    def __init__(self, device: torch.device, clock: str) -> None:
        torch.manual_seed(0)
        pyro.set_rng_seed(0)
        self.device = device
        self.now: Callable[[], float] = time.process_time if clock == "cpu" else time.perf_counter
        self.net, example = PeerM2().to(device), ExampleM2().to(device)
        self.guide = config_enumerate(self.net.guide, "parallel", expand=True)
        rate = pyro.optim.Adam({"lr": RATE})
        self.bound = TraceEnum_ELBO(max_plate_nesting=1)
        self.svi = SVI(example.model, config_enumerate(example.guide, "parallel", expand=True), rate, loss=self.bound)
        self.aux = SVI(example.classify, example.nothing, rate, loss=Trace_ELBO())
        self.adam = torch.optim.Adam(self.net.parameters(), lr=RATE, fused=True)
        x = torch.rand(ROWS, PIXELS)
        self.x = (x * (x > 0.8)).to(device)  # about as many lit pixels as a digit
        self.order = torch.randperm(ROWS, device=device)
        self.at = 0

    def rows(self, n: int) -> Tensor:
        """The next n rows, binarised anew."""
        start = self.at % (ROWS - n)
        self.at += n
        return binary(self.x.index_select(0, self.order[start : start + n]))

    def step(self, how: str, batch: int, labelled: int) -> None:
        """One training step."""
        pyro.enable_validation(how != "by an expert")
        x_u = self.rows(batch)
        if how == "its unlabelled steps":
            self.svi.step(x_u)
            return
        x_l = binary(self.x[:labelled])
        y_l = torch.eye(CLASSES, device=self.device)[torch.arange(labelled, device=self.device) % CLASSES]
        if how == "as its example":
            self.svi.step(x_l, y_l)
            self.svi.step(x_u)
            self.aux.step(x_l, y_l)
            return
        assert how == "by an expert"
        loss = self.bound.differentiable_loss(self.net.model, self.guide, x_u)
        loss = loss + self.bound.differentiable_loss(self.net.model, self.guide, x_l, y_l)
        loss = loss + self.bound.differentiable_loss(self.net.classify, self.net.nothing, x_l, y_l)
        (loss / (batch + labelled)).backward()
        self.adam.step()
        self.adam.zero_grad()

    def seconds(self, request: dict[str, object]) -> float:
        """Takes the steps of a request and returns their time [s]."""
        self.wait()
        start = self.now()
        for _ in range(int(str(request["steps"]))):
            self.step(str(request["how"]), int(str(request["batch"])), int(str(request["labelled"])))
        self.wait()
        return self.now() - start

    def wait(self) -> None:
        """Waits for a GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def main() -> None:
    """Answers requests until there are no more."""
    settings = json.loads(sys.stdin.readline())
    torch.set_num_threads(settings["threads"])
    # the bound that sums over classes is told the labelled rows too, where there is nothing to sum over
    warnings.filterwarnings("ignore", "TraceEnum_ELBO found no sample sites")
    peer = Peer(torch.device(settings["device"]), settings["clock"])
    print(json.dumps({"pyro": pyro.__version__, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"seconds": peer.seconds(json.loads(line))}), flush=True)


if __name__ == "__main__":
    main()
