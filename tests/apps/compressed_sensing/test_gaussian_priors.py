import pytest
import torch

from apps.compressed_sensing.gaussian import GaussianMixture, MeanSignal, Wiener
from apps.compressed_sensing.metrics import errors, ssim, summary
from apps.compressed_sensing.operators import gaussian
from core_models.errors import UserError

SHAPE = (1, 2, 3)


def planted(n=6000):
    """Two normal densities, far apart enough for EM to find them."""
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(2, 6, 6, generator=generator) * 0.3
    means = torch.tensor([[2.0, 0, 0, -1, 0, 1], [-2.0, 1, 0, 0, 1, 0]])
    which = (torch.rand(n, generator=generator) < 0.3).long()
    noise = torch.randn(n, 6, generator=generator)
    return (means[which] + torch.einsum("nij,nj->ni", roots[which], noise)).reshape(-1, *SHAPE)


def test_em_finds_the_components():
    x = planted()
    fitted = GaussianMixture(gaussian(SHAPE, 2), components=2, shrinkage=1e-6).fit(x)
    weights, order = fitted.weights_.sort()
    assert float(weights[0]) == pytest.approx(0.3, abs=0.02)
    assert float(fitted.means_[order[0], 0]) == pytest.approx(-2.0, abs=0.05)


def test_sharing_signals_out_in_a_subspace_of_all_directions_changes_nothing_and_in_fewer_little():
    x = planted()
    common = {"components": 2, "shrinkage": 1e-4}
    plain, whole, part = (
        GaussianMixture(gaussian(SHAPE, 2), subspace=subspace, **common).fit(x) for subspace in (None, 6, 2)
    )
    torch.testing.assert_close(whole.means_, plain.means_, rtol=0, atol=1e-3)
    torch.testing.assert_close(whole.covariances_, plain.covariances_, rtol=0, atol=1e-3)
    assert part.means_.shape == plain.means_.shape
    torch.testing.assert_close(part.means_, plain.means_, rtol=0, atol=0.1)


def test_the_posterior_mean_is_that_of_weighted_samples():
    """Self-normalised importance sampling: prior samples weighted by the likelihood of the measurements."""
    x = planted()
    operator, noise = gaussian(SHAPE, 2), 0.8
    method = GaussianMixture(operator, noise=noise, components=2, shrinkage=1e-6, clip=False).fit(x)
    y = method.acquire(x[:3], generator=torch.Generator().manual_seed(1))
    found = method.recover(y)
    generator = torch.Generator().manual_seed(2)
    which = torch.multinomial(method.weights_, 400_000, replacement=True, generator=generator)
    roots = torch.linalg.cholesky(method.covariances_)
    noises = torch.randn(400_000, 6, generator=generator, dtype=torch.float64)
    samples = method.means_[which] + torch.einsum("nij,nj->ni", roots[which], noises)
    images = samples @ operator.matrix().double().T
    for row in range(3):
        weight = torch.softmax(-0.5 * (y[row].double() - images).square().sum(1) / noise**2, 0)
        mean = weight @ samples
        std = (weight @ (samples - mean).square()).sqrt()
        torch.testing.assert_close(found.x[row].flatten().double(), mean, rtol=0, atol=0.02)
        torch.testing.assert_close(found.std[row].flatten().double(), std, rtol=0, atol=0.02)


def test_one_component_is_the_best_linear_estimate():
    x = planted()
    operator = gaussian(SHAPE, 3)
    method = Wiener(operator, noise=0.3, shrinkage=0.0, clip=False).fit(x)
    y = method.acquire(x, generator=torch.Generator().manual_seed(1))
    away = (method.reconstruct(y) - x).flatten(1)
    moments = away.T @ (y - y.mean(0)) / len(x)  # the error of the best linear estimate is uncorrelated with y
    assert float(moments.abs().max()) < 0.05
    coverage = (away.abs() <= 1.6449 * method.recover(y).std.flatten(1)).float().mean()
    assert 0.85 < float(coverage) < 0.95


def test_errors_by_name():
    a, b = torch.zeros(2, 1, 12, 12), torch.zeros(2, 1, 12, 12)
    b[0, 0, 0, 0] = 0.6
    told = errors(a, b)
    assert float(told["mse"][0]) == pytest.approx(0.36 / 144)
    assert float(told["rmse"][0]) == pytest.approx(0.6 / 12)
    assert float(told["l2"][0]) == pytest.approx(0.6)
    assert float(told["l1"][0]) == pytest.approx(0.6 / 144)
    assert float(told["linf"][0]) == pytest.approx(0.6)
    assert float(told["psnr"][0]) == pytest.approx(26.02, abs=0.01)
    assert float(told["ssim"][1]) == pytest.approx(1)
    assert float(told["ssim"][0]) < 1


def test_ssim_is_what_its_equation_gives_on_one_window():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1, 1, 11, 11, generator=generator, dtype=torch.float64) for _ in range(2))
    line = torch.exp(-0.5 * ((torch.arange(11, dtype=torch.float64) - 5) / 1.5) ** 2)
    weight = torch.outer(line, line) / line.sum() ** 2
    ma, mb = (weight * a[0, 0]).sum(), (weight * b[0, 0]).sum()
    va, vb = (weight * (a[0, 0] - ma) ** 2).sum(), (weight * (b[0, 0] - mb) ** 2).sum()
    both = (weight * (a[0, 0] - ma) * (b[0, 0] - mb)).sum()
    wanted = (2 * ma * mb + 1e-4) * (2 * both + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    torch.testing.assert_close(ssim(a, b)[0], wanted)


def test_intervals_of_means():
    told = summary(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert told["mean"] == 2.5
    assert told["half_width"] == pytest.approx(1.96 * (5 / 3) ** 0.5 / 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GaussianMixture(gaussian(SHAPE, 2), components=9).fit(torch.zeros(3, *SHAPE)), "at least 9"),
        (lambda: GaussianMixture(gaussian(SHAPE, 2)).recover(torch.zeros(1, 2)), "call fit"),
        (lambda: Wiener(gaussian(SHAPE, 2), noise=0.0).fit(planted(50)).recover(torch.zeros(1, 2)), "above 0"),
        (lambda: errors(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5)), "shape"),
        (lambda: ssim(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)), "at least 11"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_the_mean_signal_is_the_mean_whatever_is_measured():
    x = planted(10)
    method = MeanSignal(gaussian(SHAPE, 2)).fit(x)
    torch.testing.assert_close(method.reconstruct(torch.randn(3, 2)), x.mean(0, keepdim=True).expand(3, *SHAPE))
    with pytest.raises(UserError, match="call fit"):
        MeanSignal(gaussian(SHAPE, 2)).reconstruct(torch.zeros(1, 2))
    with pytest.raises(UserError, match="at least 1 signal"):
        MeanSignal(gaussian(SHAPE, 2)).fit(x[:0])
