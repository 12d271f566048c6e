import sys
from types import ModuleType

import pytest
import torch

from apps.compressed_sensing.lasso import LASSO
from apps.compressed_sensing.operators import gaussian, measure
from apps.compressed_sensing.operators.deepinv import from_deepinv
from core_models.errors import UserError

SHAPE = (1, 4, 4)


class Physics(torch.nn.Module):
    """As deepinv's: A and A_adjoint on batches, measurements shaped (batch, channels, rows)."""

    def __init__(self, m=12, wrong=1.0, dtype=torch.float32):
        super().__init__()
        self.register_buffer("matrix", gaussian(SHAPE, m, seed=3, dtype=dtype).matrix())
        self.wrong = wrong

    def forward(self, x):
        raise AssertionError("deepinv's call adds noise: A must be used")

    def A(self, x, **kwargs):
        return (x.flatten(1) @ self.matrix.T).unflatten(1, (1, -1, 2))

    def A_adjoint(self, y, **kwargs):
        return self.wrong * (y.flatten(1) @ self.matrix).unflatten(1, SHAPE)


def test_physics_measure_as_their_matrix_and_recover_signals():
    physics = Physics(m=16)
    operator = from_deepinv(physics, SHAPE)
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0)) * (torch.arange(16) % 4 == 0).view(SHAPE)
    assert (operator.m, operator.n) == (16, 16)
    torch.testing.assert_close(operator.matrix(), physics.matrix)
    torch.testing.assert_close(operator(x), x.flatten(1) @ physics.matrix.T)
    y = measure(operator, x, 0.0)
    found = LASSO(operator, alpha=1e-4, box=True).reconstruct(y)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-2)


def test_gradients_flow_and_buffers_and_precision_are_those_of_the_physics():
    operator = from_deepinv(Physics(dtype=torch.float64), SHAPE)
    x = torch.zeros(1, *SHAPE, dtype=torch.float64, requires_grad=True)
    operator(x).sum().backward()
    torch.testing.assert_close(x.grad, operator.adjoint(torch.ones(1, 12, dtype=torch.float64)))
    assert "physics.matrix" in dict(operator.named_buffers())


def test_physics_are_asked_on_the_device_of_their_first_tensor():
    class Away(Physics):
        def A(self, x, **kwargs):
            asked.append(x.device.type)
            return super().A(x)

    asked, physics = [], Away().to("meta")
    with pytest.raises((NotImplementedError, RuntimeError)):  # meta has no numbers to hold against each other
        from_deepinv(physics, SHAPE)
    assert set(asked) == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_physics_on_the_gpu_work_there():
    physics = Physics().cuda()
    torch.testing.assert_close(from_deepinv(physics, SHAPE).matrix(), physics.matrix)


def test_a_class_is_found_by_name(monkeypatch):
    package, module = ModuleType("deepinv"), ModuleType("deepinv.physics")
    module.Physics = Physics
    monkeypatch.setitem(sys.modules, "deepinv", package)
    monkeypatch.setitem(sys.modules, "deepinv.physics", module)
    assert from_deepinv("Physics", SHAPE, m=6).m == 6
    with pytest.raises(UserError, match="did you mean Physics"):
        from_deepinv("Physic", SHAPE)


def test_mistakes_are_one_line(monkeypatch):
    with pytest.raises(UserError, match="got object without A and A_adjoint"):
        from_deepinv(object(), SHAPE)
    with pytest.raises(UserError, match="expected an adjoint"):
        from_deepinv(Physics(wrong=1.1), SHAPE)
    with pytest.raises(UserError, match="expected no m beside an object"):
        from_deepinv(Physics(), SHAPE, m=3)
    shifted = Physics()
    shifted.A = lambda x: x.flatten(1) + 1
    with pytest.raises(UserError, match="maps 0 to something else"):
        from_deepinv(shifted, SHAPE)
    monkeypatch.setitem(sys.modules, "deepinv", None)
    with pytest.raises(UserError, match=r"could not be imported.*genapps\[deepinv\]"):
        from_deepinv("Blur", SHAPE)


def test_physics_of_deepinv_itself():
    try:
        from deepinv.physics import CompressedSensing
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"deepinv can't be imported: {error}")
    physics = CompressedSensing(m=6, img_size=SHAPE, rng=torch.Generator().manual_seed(0))
    torch.testing.assert_close(from_deepinv(physics, SHAPE).matrix(), physics._A)
