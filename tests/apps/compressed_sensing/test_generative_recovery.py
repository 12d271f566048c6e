import cvxpy
import pytest
import torch
from planted_priors import LinearPrior
from sklearn.base import clone
from torch import Size, nn

from apps.compressed_sensing.bases import build_basis
from apps.compressed_sensing.generative.csgm import CSGM, HALVING
from apps.compressed_sensing.generative.flow_prior import FlowPrior
from apps.compressed_sensing.generative.intermediate_layers import IntermediateLayers, project_on_l1_ball
from apps.compressed_sensing.generative.latent_search import Search, search
from apps.compressed_sensing.generative.lbfgs import minimise, search_by_lbfgs
from apps.compressed_sensing.generative.residual_covariance import ResidualCovariance
from apps.compressed_sensing.generative.sparse_gen import SparseGen
from apps.compressed_sensing.operators import gaussian
from core_models.adversarial import WGANGP, WGANGPConfig
from core_models.errors import UserError

SHAPE = (1, 4, 4)


def signals(prior, n=6, seed=1):
    return prior.sample(n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("optimiser", ["adam", "lbfgs"])
def test_a_signal_that_the_prior_makes_is_recovered_exactly_without_noise(optimiser):
    prior = LinearPrior()
    x = signals(prior)
    steps = {"adam": 1500, "lbfgs": 30}[optimiser]
    method = CSGM(gaussian(SHAPE, 5), prior, penalty=0.0, steps=steps, restarts=2, optimiser=optimiser)
    torch.testing.assert_close(method.reconstruct(method.acquire(x)), x, rtol=0, atol=1e-3)


def test_csgm_finds_the_ridge_solution_of_a_linear_prior():
    prior, operator = LinearPrior(), gaussian(SHAPE, 4)
    x = signals(prior)
    method = CSGM(operator, prior, noise=0.1, penalty=0.3, steps=100, restarts=1, optimiser="lbfgs")
    y = method.acquire(x, generator=torch.Generator().manual_seed(0))
    inside = operator.matrix() @ prior.weight.detach()
    right = (y - prior.bias.detach() @ operator.matrix().T) @ inside / 4
    z = torch.linalg.solve(inside.T @ inside / 4 + 0.3 * torch.eye(3), right.T).T
    torch.testing.assert_close(method.reconstruct(y), prior.decode(z).detach(), rtol=0, atol=1e-4)


def test_a_flow_prior_explains_the_measurements_of_any_signal_and_moves_no_more_than_it_must():
    """From z = 0 and without a penalty a linear prior gives the nearest explanation: the least ||z||."""
    prior = LinearPrior(latent=16, scale=0.5)
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    method = FlowPrior(gaussian(SHAPE, 6), prior, steps=60)
    y = method.acquire(x)
    inside = method.operator.matrix() @ prior.weight.detach()
    z = (y - prior.bias.detach() @ method.operator.matrix().T) @ torch.linalg.pinv(inside).T
    torch.testing.assert_close(method.reconstruct(y), prior.decode(z).detach(), rtol=0, atol=2e-3)


def test_a_signal_is_recovered_alike_in_any_batch():
    prior = LinearPrior()
    method = CSGM(gaussian(SHAPE, 5), prior, steps=20, restarts=3)
    y = method.acquire(signals(prior))
    torch.testing.assert_close(clone(method).set_params(batch=2).reconstruct(y), method.reconstruct(y))


def test_restarts_side_by_side_are_those_one_after_another():
    target = torch.tensor([1.0, -2.0])

    def loss(variables, signals):
        (z,) = variables
        return ((z.square() - 1).square().sum(1) + (z - target[signals][:, None]).square().sum(1)).float()

    start = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    whole = search(loss, [start], Search(50, 4, 0.05))
    for restart in range(4):
        one = search(loss, [start[:, restart : restart + 1]], Search(50, 1, 0.05))
        torch.testing.assert_close(one.loss, whole.all_losses[:, restart])
    assert torch.equal(whole.loss, whole.all_losses.amin(1))


def test_a_learning_rate_falls_from_the_first_to_the_last_by_half_a_cosine():
    def loss(variables, signals):
        return variables[0].sum(1)  # Adam moves by its rate while the gradient stays the same

    start = torch.zeros(1, 1, 1)
    moved = [-float(search(loss, [start], Search(n, 1, (0.4, 0.1))).variables[0]) for n in (1, 3, 5)]
    angles = torch.linspace(0, torch.pi, 5, dtype=torch.float64)
    wanted = [0.4, 0.4 + 0.25 + 0.1, float((0.1 + 0.15 * (1 + angles.cos())).sum())]
    assert moved == pytest.approx(wanted, rel=1e-4)
    one, same = (search(loss, [start], Search(4, 1, rate)).variables[0] for rate in (0.3, (0.3, 0.3)))
    assert torch.equal(one, same)
    with pytest.raises(UserError, match="learning rate above 0"):
        Search(4, 1, (0.3, 0.0))


def test_dropping_keeps_the_best_and_no_more_than_asked():
    def loss(variables, signals):
        (z,) = variables
        return z.square().sum(1)

    start = torch.tensor([[[3.0], [0.1], [2.0], [1.0]], [[0.2], [5.0], [1.0], [2.0]]])
    found = search(loss, [start], Search(10, 4, 1e-3, ((0.1, 0.5), (0.5, 0.25))))
    assert found.restarts_left == 1
    torch.testing.assert_close(found.variables[0].flatten().abs(), torch.tensor([0.09, 0.19]), rtol=0, atol=0.02)


def test_among_many_valleys_a_search_that_drops_at_low_precision_ends_in_the_deepest_that_a_start_lies_in():
    """Valleys at the whole numbers, each as deep as a table says; bfloat16 tells their depths apart."""
    depth = torch.tensor([0.3, 0.8, 0.0, 0.5, 0.9, 0.1, 0.6, 0.4])

    def loss(variables, signals):
        z = variables[0][:, 0]
        nearest = z.detach().round().clamp(0, 7).long()
        turned = (nearest + 3 * signals) % 8  # the second signal's deepest valley is another
        made = torch.nn.functional.linear(z[:, None], torch.ones(1, 1))[:, 0]  # in bfloat16 under autocast
        return (made - nearest).square() + depth[turned]

    places = torch.arange(8) + 0.3 * torch.linspace(-1, 1, 8)
    start = places.repeat(2, 1)[..., None]
    plan = Search(200, 8, 0.01, ((0.2, 0.5), (0.5, 0.125)), low_precision=True)
    found = search(loss, [start], plan)
    assert found.restarts_left == 1
    torch.testing.assert_close(found.variables[0].flatten(), torch.tensor([2.0, 7.0]), rtol=0, atol=2e-3)
    torch.testing.assert_close(found.loss, torch.zeros(2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [CSGM, SparseGen])
def test_a_search_at_low_precision_ends_at_the_same_signals_and_takes_its_last_steps_in_full(kind):
    prior = LinearPrior()
    seen = []
    made = prior.decode
    prior.decode = lambda z: seen.append(torch.is_autocast_enabled("cpu")) or made(z)
    method = kind(
        gaussian(SHAPE, 5), prior, steps=400, restarts=3, **({"steps_alone": 200} if kind is SparseGen else {})
    )
    y = method.measuring(signals(prior))
    full = method.reconstruct(y)
    assert not any(seen)
    seen.clear()
    low = clone(method).set_params(low_precision=True).reconstruct(y)
    assert all(seen[:320]) and not any(seen[320:])
    assert not torch.equal(low, full)
    torch.testing.assert_close(low, full, rtol=0, atol=4e-3)


def test_lbfgs_minimises_rows_of_their_own_curvature():
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(5, 8, 8, generator=generator, dtype=torch.float64)
    matrices = roots @ roots.transpose(1, 2) + 0.1 * torch.eye(8, dtype=torch.float64)
    right = torch.randn(5, 8, generator=generator, dtype=torch.float64)

    def value_and_gradient(z):
        image = (matrices @ z[..., None]).squeeze(-1)
        return 0.5 * (z * image).sum(1) - (z * right).sum(1), image - right

    z, _ = minimise(value_and_gradient, torch.zeros(5, 8, dtype=torch.float64), 60)
    torch.testing.assert_close(z, torch.linalg.solve(matrices, right), rtol=0, atol=1e-5)


def test_what_lbfgs_finds_for_a_row_depends_on_no_other():
    """Rows of max_i <a_i, z> + ||z||^2 / 2: at the creases line searches fail, at other steps row by row."""
    generator = torch.Generator().manual_seed(0)
    planes = torch.randn(8, 6, 5, generator=generator, dtype=torch.float64)
    start = torch.randn(8, 5, generator=generator, dtype=torch.float64)

    def found(rows):
        def value_and_gradient(z):
            heights = (z[:, None] * planes[rows]).sum(2)
            highest = planes[rows, heights.argmax(1)]
            return heights.amax(1) + 0.5 * z.square().sum(1), highest + z

        return minimise(value_and_gradient, start[rows], 60)

    whole, values = found(torch.arange(8))
    for rows in torch.arange(8).split([1, 1, 1, 1, 1, 3]):
        z, value = found(rows)
        torch.testing.assert_close(z, whole[rows])
        torch.testing.assert_close(value, values[rows], rtol=1e-12, atol=0)


def test_a_row_whose_first_step_fails_is_left_where_it_is_in_any_company():
    """Uphill near by, by a gradient that misleads, but far downhill one gradient away."""

    def value_and_gradient(z):
        away = z[:, 0].abs()
        return torch.where(away > 2, -1.0, away), torch.where(z < 2, 4.0, 1.0) * torch.ones_like(z)

    def bowl(z):
        return z[:, 0].square(), 2 * z

    def both(z):
        parts = value_and_gradient(z[:1]), bowl(z[1:])
        return tuple(torch.cat(own) for own in zip(*parts, strict=True))

    start = torch.zeros(1, 1, dtype=torch.float64)
    alone, value = minimise(value_and_gradient, start, 20)
    beside, values = minimise(both, torch.cat([start, start + 3]), 20)
    torch.testing.assert_close(beside[:1], alone)
    torch.testing.assert_close(values[:1], value)


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
@pytest.mark.parametrize("by", [lambda *of: search(*of, Search(3, 2)), lambda *of: search_by_lbfgs(*of, 3)])
def test_a_signal_without_a_finite_loss_is_refused_and_a_restart_without_one_is_not_chosen(by, bad):
    start = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])

    def losing(which):
        def loss(variables, signals):
            value = variables[0].square().sum(1)
            return torch.where(which(variables[0][:, 0]), bad, value)

        return loss

    with pytest.raises(UserError, match="expected a finite loss, every restart of a signal diverged"):
        by(losing(lambda z: z > 2.5), [start])
    found = by(losing(lambda z: z < 1.5), [start])  # that of the first restart of the first signal
    assert bool(torch.isfinite(found.loss).all()) and float(found.variables[0][0]) >= 1.5
    assert float(found.all_losses[0, 0]) == torch.inf


def test_residual_covariance_of_a_linear_prior_is_the_exact_posterior():
    prior, operator, noise = LinearPrior(), gaussian(SHAPE, 6), 0.2
    generator = torch.Generator().manual_seed(3)
    roots = 0.1 * torch.randn(16, 16, generator=generator)
    residuals = torch.randn(4000, 16, generator=generator) @ roots.T
    method = ResidualCovariance(
        operator, prior, noise=noise, shrinkage=1e-6, steps=3000, restarts=2, learning_rate=0.02, clip=False
    ).fit_residuals(residuals)
    x = signals(prior) + residuals[:6].reshape(-1, *SHAPE)
    y = method.acquire(x, generator=generator)
    found = method.recover(y)

    W, A = prior.weight.detach().double(), operator.matrix().double()
    S = W @ W.T + method.covariance_
    mean = prior.bias.detach().double() + method.mean_
    C = A @ S @ A.T + noise**2 * torch.eye(6, dtype=torch.float64)
    gain = torch.linalg.solve(C, A @ S).T
    wanted = mean + (y.double() - mean @ A.T) @ gain.T
    variance = (S - gain @ A @ S).diagonal()
    torch.testing.assert_close(found.x.flatten(1).double(), wanted, rtol=0, atol=2e-3)
    torch.testing.assert_close(found.std.flatten(1).double(), variance.sqrt().expand(6, -1), rtol=0.02, atol=1e-3)


def test_intervals_hold_what_they_promise():
    prior, operator = LinearPrior(), gaussian(SHAPE, 6)
    generator = torch.Generator().manual_seed(4)
    residuals = 0.1 * torch.randn(2000, 16, generator=generator)
    method = ResidualCovariance(operator, prior, noise=0.2, steps=800, restarts=1, clip=False)
    method.fit_residuals(residuals)
    x = signals(prior, 300) + 0.1 * torch.randn(300, *SHAPE, generator=generator)
    found = method.recover(method.acquire(x, generator=generator))
    inside = ((found.x - x).abs() <= 1.6449 * found.std).float().mean()
    assert 0.88 < float(inside) < 0.92  # 90 % promised, 4,800 values, correlated within a signal


def test_sparse_gen_of_a_linear_prior_is_the_convex_problem_that_cvxpy_solves():
    prior, operator = LinearPrior(scale=0.1), gaussian(SHAPE, 12)
    x = signals(prior, 3)
    x[:, 0, 1, 2] += 0.3
    y = CSGM(operator, prior).acquire(x)
    method = SparseGen(
        operator, prior, penalty=0.01, sparsity=0.1, steps=4000, steps_alone=200, restarts=1, learning_rate=0.002
    )
    found = method.reconstruct(y)
    for row in range(3):
        z, nu = cvxpy.Variable(3), cvxpy.Variable(16)
        made = prior.weight.detach().numpy() @ z + prior.bias.detach().numpy() + nu
        fit = cvxpy.sum_squares(y[row].numpy() - operator.matrix().numpy() @ made) / 12
        aim = fit + 0.01 * cvxpy.sum_squares(z) + 0.1 * cvxpy.norm1(nu)
        cvxpy.Problem(cvxpy.Minimize(aim), [made >= 0, made <= 1]).solve(solver="CLARABEL")
        wanted = torch.from_numpy(made.value).float()
        torch.testing.assert_close(found[row].flatten(), wanted, rtol=0, atol=1e-2)
    assert float((found - x).square().mean()) < 0.3 * float((CSGM(operator, prior).reconstruct(y) - x).square().mean())


def test_sparse_gen_with_a_heavy_penalty_is_csgm():
    prior, operator = LinearPrior(scale=0.1), gaussian(SHAPE, 12)
    y = CSGM(operator, prior).acquire(signals(prior, 4))
    common = {"penalty": 0.01, "steps": 600, "restarts": 1, "learning_rate": 0.02}
    sparse = SparseGen(operator, prior, sparsity=100.0, steps_alone=600, **common).reconstruct(y)
    torch.testing.assert_close(sparse, CSGM(operator, prior, **common).reconstruct(y), rtol=0, atol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 0.05])
@pytest.mark.parametrize("basis", ["pixels", "dct"])
def test_the_loss_that_sparse_gen_tells_is_its_objective_at_the_signal_that_it_returns(basis, penalty):
    prior, operator = LinearPrior(scale=0.1), gaussian(SHAPE, 12)
    decoded, plain = [], prior.decode
    prior.decode = lambda z: decoded.append(z.detach()) or plain(z)
    y = operator(torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0)))
    found = SparseGen(
        operator, prior, basis=basis, penalty=penalty, sparsity=0.1, steps=60, steps_alone=20, restarts=2
    ).recover(y)
    nu = build_basis(basis, SHAPE).analyse(found.x - plain(decoded[-1])).flatten(1)
    torch.testing.assert_close(found.details["deviation"], nu.abs().sum(1))
    fit = (y - operator(found.x)).square().mean(1)
    aim = fit + penalty * decoded[-1].square().sum(1) + 0.1 * found.details["deviation"]
    torch.testing.assert_close(found.details["loss"], aim)


def test_the_projection_on_an_l1_ball_is_what_cvxpy_finds():
    v = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    v[3] *= 0.01  # inside
    found = project_on_l1_ball(v, 0.7)
    for row in range(4):
        w = cvxpy.Variable(6)
        cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(w - v[row].numpy())), [cvxpy.norm1(w) <= 0.7]).solve(
            solver="CLARABEL"
        )
        torch.testing.assert_close(found[row], torch.from_numpy(w.value), rtol=0, atol=1e-5)


def test_intermediate_layers_reach_what_the_range_does_not_and_stay_in_their_ball():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = WGANGP(WGANGPConfig(event_shape=SHAPE, latent=2, hidden=(12, 16))).eval()
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    operator = gaussian(SHAPE, 8)
    y = operator(x)
    common = {"penalty": 1e-3, "steps": 300, "restarts": 2}
    alone = CSGM(operator, prior, **common).recover(y)
    stay = IntermediateLayers(operator, prior, radii=(0.0, 0.0), stage_steps=20, **common).recover(y)
    torch.testing.assert_close(stay.details["measurement_error"], alone.details["measurement_error"], rtol=0.1, atol=0)
    near = IntermediateLayers(operator, prior, radii=(0.05, 0.05), **common).recover(y)
    far = IntermediateLayers(operator, prior, radii=(1.0, 1.0), **common).recover(y)
    errors = [found.details["measurement_error"] for found in (stay, near, far)]
    assert bool((errors[0] > errors[1]).all()) and bool((errors[1] > errors[2]).all())


class Convolutional(nn.Module):
    """A generator whose stages hand on images (batch, channels, height, width)."""

    event_shape, latent_shape = Size(SHAPE), Size((2,))

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([
            nn.Sequential(nn.Linear(2, 12), nn.Unflatten(1, (3, 2, 2)), nn.Tanh()),
            nn.Sequential(nn.ConvTranspose2d(3, 2, 2, stride=2), nn.Tanh()),
            nn.Conv2d(2, 1, 3, padding=1),
        ])  # fmt: skip

    def latents_of(self, z, stage):
        return nn.Sequential(*self.stages[:stage])(z)

    def decode_from(self, h, stage):
        return nn.Sequential(*self.stages[stage:])(h)

    def decode(self, z):
        return self.decode_from(z, 0)


def test_intermediate_layers_that_are_images_stay_in_a_ball_of_all_their_values():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = Convolutional().eval()
    operator = gaussian(SHAPE, 8)
    y = operator(torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0)))
    common = {"penalty": 1e-3, "steps": 60, "restarts": 2, "learning_rate": 0.05}
    centre = prior.stages[0](CSGM(operator, prior, drop=HALVING, **common).search_latents(y))
    handed, plain = [], prior.decode_from
    prior.decode_from = lambda h, stage: (stage == 1 and handed.append(h.detach())) or plain(h, stage)
    stay, near = (
        IntermediateLayers(operator, prior, radii=(radius,), stage_steps=60, **common).recover(y)
        for radius in (0.0, 0.1)
    )
    away = (handed[-1] - centre).flatten(1).abs().sum(1)
    torch.testing.assert_close(away, torch.full((3,), 0.1 * 12), rtol=1e-3, atol=0)  # on its surface
    assert bool((near.details["measurement_error"] < stay.details["measurement_error"]).all())
    both = IntermediateLayers(operator, prior, radii=(0.1, 0.1), stage_steps=60, **common).recover(y)
    assert both.x.shape == (3, *SHAPE)
    assert bool((both.details["measurement_error"] < near.details["measurement_error"]).all())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IntermediateLayers(gaussian(SHAPE, 3), LinearPrior()).reconstruct(torch.zeros(1, 3)), "in stages"),
        (
            lambda: IntermediateLayers(gaussian(SHAPE, 3), Convolutional(), radii=()).reconstruct(torch.zeros(1, 3)),
            "radii: expected one or more",
        ),
        (lambda: CSGM(gaussian(SHAPE, 3), None).reconstruct(torch.zeros(1, 3)), "got none"),
        (lambda: CSGM(None, LinearPrior()).reconstruct(torch.zeros(1, 3)), "expected an operator"),
        (lambda: CSGM(gaussian((1, 3, 3), 3), LinearPrior()).reconstruct(torch.zeros(1, 3)), "expected a prior of"),
        (lambda: CSGM(gaussian(SHAPE, 3), torch.nn.Linear(2, 2)).reconstruct(torch.zeros(1, 3)), "decodes latents"),
        (lambda: CSGM(gaussian(SHAPE, 3), LinearPrior()).reconstruct(torch.zeros(1, 4)), r"\(batch, 3\)"),
        (lambda: CSGM(gaussian(SHAPE, 3), LinearPrior()).reconstruct(torch.full((1, 3), torch.nan)), "finite"),
        (lambda: CSGM(gaussian(SHAPE, 3), LinearPrior(), optimiser="sgd").reconstruct(torch.zeros(1, 3)), "adam"),
        (lambda: CSGM(gaussian(SHAPE, 3), LinearPrior(), noise=-1.0).reconstruct(torch.zeros(1, 3)), "noise of 0"),
        (lambda: ResidualCovariance(gaussian(SHAPE, 3), LinearPrior()).recover(torch.zeros(1, 3)), "call fit"),
        (lambda: Search(restarts=0), "one restart"),
    ],
)
def test_mistakes_are_named(make, words):
    with pytest.raises(UserError, match=words):
        make()
