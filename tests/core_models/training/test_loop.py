"""What the loop does in a step, after an epoch and at the end."""

import errno
import math
import pathlib
import threading

import pytest
import torch
from torch import nn

from core_models.base import Objective
from core_models.errors import UserError
from core_models.training import EarlyStop, NonFiniteLoss, RunFolder, TensorBatches, TrainingConfig, fit, trainer
from core_models.training.checkpoint import load_checkpoint


class Line(Objective):
    """One weight w; the loss is (w - target)^2 / 2 (its gradient w - target) with `target` from the batch."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, batch, generator=None):
        loss = 0.5 * (self.w - batch["x"].mean()).square()
        return loss, {"w": self.w.detach().clone()}


def line_batches(targets):
    return TensorBatches({"x": torch.tensor(targets)}, 1, shuffle=False)


def config(**changes):
    return TrainingConfig(**{"epochs": 1, "optimizer": "sgd", "betas": (0.0, 0.9), "device": "cpu", **changes})


def train(objective, batches, settings, **extra):
    return fit(objective, batches, settings, **{"progress": False, **extra})


def test_steps_by_hand():
    objective = Line()
    history = train(objective, line_batches([1.0, 2.0]), config(learning_rate=0.5, epochs=2))
    # w: 0 -> 0.5 -> 1.25 | -> 1.125 -> 1.5625
    assert objective.w.item() == 1.5625
    assert [line["w"] for line in history.metrics] == [0.25, (1.25 + 1.125) / 2]
    assert history.metrics[0]["loss"] == pytest.approx((0.5 * 1 + 0.5 * 1.5**2) / 2)
    assert [(line["epoch"], line["step"]) for line in history.metrics] == [(1, 2), (2, 4)]
    assert (history.steps, history.stopped) == (4, "finished")


def test_clipping_by_hand():
    objective = Line()
    history = train(objective, line_batches([10.0, -10.0]), config(learning_rate=1.0, clip_norm=0.25))
    assert objective.w.item() == pytest.approx(0.0, abs=1e-5)  # one step up and one down, each of length 0.25
    assert history.metrics[0]["gradient_norm"] == pytest.approx((10 + 10.25) / 2)
    assert history.metrics[0]["w"] == pytest.approx(0.125, abs=1e-5)


def test_schedule_reaches_the_optimiser():
    objective = Line()
    settings = config(learning_rate=1.0, schedule="linear", warmup_steps=1, schedule_floor=0.5)
    history = train(objective, line_batches([1.0, 3.0, 7.0]), settings)
    assert objective.w.item() == 5.0  # rates 1, 1 and 0.5: 0 -> 1 -> 3 -> 5
    assert history.metrics[0]["learning_rate"] == 0.5


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adamax"])
def test_epsilon_reaches_the_optimiser(optimizer):
    """A first step of Adam is rate * g / (|g| + epsilon), and here |g| is 1."""
    objective = Line()
    train(objective, line_batches([1.0]), config(optimizer=optimizer, learning_rate=0.5, epsilon=1.0, epochs=1))
    assert objective.w.item() == pytest.approx(0.25)


def test_hold_reaches_the_optimiser():
    history = train(
        Line(), line_batches([1.0]), config(learning_rate=1.0, epochs=5, schedule="linear", schedule_hold=0.5)
    )
    assert [line["learning_rate"] for line in history.metrics] == [1, 1, 1, 0.5, 0]


@pytest.mark.parametrize("native", [True, False])
def test_slow_half_precision_is_told(native, capsys, monkeypatch):
    monkeypatch.setattr("core_models.training.loop.multiplies_in_bfloat16", lambda device: native)
    for precision in ("bf16-mixed", "32-true"):
        train(Line(), line_batches([1.0]), config(precision=precision), progress=True)
    assert capsys.readouterr().err.count("precision 32-true is many times faster") == (0 if native else 1)


def test_average_is_validated_and_returned():
    objective = Line()
    seen = []

    def validate(model):
        seen.append(model.w.item())
        assert not model.training and not torch.is_grad_enabled()
        return {"v": 0.0}

    history = train(
        objective, line_batches([1.0, 2.0]), config(learning_rate=1.0, ema=0.5, epochs=2), validate=validate
    )
    # raw weights 1, 2, 1, 2; averages with the weights 1/2, 1/4, ... over their sum
    first = (0.5 * 2 + 0.25 * 1) / 0.75
    second = (0.5 * 2 + 0.25 * 1 + 0.125 * 2 + 0.0625 * 1) / 0.9375
    assert seen == pytest.approx([first, second])
    assert objective.w.item() == pytest.approx(second)
    assert [line["w"] for line in history.metrics] == [0.5, 1.5]  # training goes on from the raw weights
    assert objective.training


def test_early_stop_returns_the_best_weights(tmp_path):
    objective = Line()
    values = iter([3.0, 2.0, math.nan, 1.9, 2.5, 0.0])
    stop = EarlyStop("v", patience=2, min_delta=0.2)
    batches, settings = line_batches([10.0]), config(epochs=9, learning_rate=0.1, early_stop=stop)
    run = RunFolder(tmp_path)
    history = train(objective, batches, settings, validate=lambda model: {"v": next(values)}, run=run)
    # 1.9 is less than 0.2 better than 2.0: two validations without improvement after the second
    assert (history.stopped, len(history.metrics)) == ("early", 4)
    assert objective.w.item() == pytest.approx(10 * (1 - 0.9**2))
    again = Line()
    assert train(again, batches, settings, validate=lambda model: {}, run=run, resume=True).stopped == "early"
    assert again.w.item() == objective.w.item()
    assert '"v": null' in run.metrics.read_text()


def test_validation_every_second_epoch_and_after_the_last():
    history = train(Line(), line_batches([1.0]), config(epochs=5, validate_every=2), validate=lambda model: {"v": 1.0})
    assert [line["epoch"] for line in history.metrics if "v" in line] == [2, 4, 5]


def test_validation_does_not_move_training(tiny):
    def run(**changes):
        settings = TrainingConfig(**{**tiny.CONFIG, "epochs": 4, "early_stop": None, "device": "cpu", **changes})
        return train(tiny.Tiny(), tiny.batches(), settings, validate=tiny.validate)

    often, seldom = run(), run(validate_every=3)
    assert [line["loss"] for line in often.metrics] == [line["loss"] for line in seldom.metrics]


def test_same_seed_same_numbers_and_the_callers_generator_is_left_alone(tiny):
    def run(seed):
        objective = tiny.Tiny()
        history = train(objective, tiny.batches(), TrainingConfig(epochs=2, seed=seed, device="cpu"))
        return history.metrics, objective.net[0].weight

    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    one = run(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)  # another state of the caller's makes no difference
    two, other = run(0), run(1)
    assert one[0] == two[0] and torch.equal(one[1], two[1])
    assert one[0] != other[0]
    assert torch.get_num_threads() == threads


def test_threads_hold_for_the_run_only():
    seen = []

    def validate(model):
        seen.append(torch.get_num_threads())
        return {}

    before = torch.get_num_threads()
    train(Line(), line_batches([1.0]), config(threads=before + 1), validate=validate)
    assert seen == [before + 1] and torch.get_num_threads() == before


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_loss_names_the_step(tmp_path, bad):
    objective, run = Line(), RunFolder(tmp_path)
    batches = line_batches([1.0, 2.0, 3.0, 4.0, bad, 5.0])
    with pytest.raises(
        NonFiniteLoss, match=r"loss is (nan|inf) at step 5 \(epoch 1\); the last good state, of"
    ) as error:
        train(objective, batches, config(checkpoint_every_seconds=0.0), run=run)
    assert (error.value.step, error.value.checkpoint) == (5, run.checkpoint())
    kept = load_checkpoint(run.checkpoint())
    assert kept.state.step == 4
    assert torch.equal(kept.group("objective")["w"], objective.w.detach()) and objective.w.isfinite()


def test_non_finite_loss_on_a_device_that_is_read_seldom(tmp_path, monkeypatch):
    """What a GPU does: the bad step is found later, by its right number, and is never saved."""
    monkeypatch.setattr("core_models.training.trainer.Trainer.watch_at_once", lambda *_: None)
    run = RunFolder(tmp_path)
    batches = line_batches([1.0] * 70 + [math.nan] + [1.0] * 60)
    with pytest.raises(NonFiniteLoss, match=r"at step 71 \(epoch 1\); the last good state, of step 0, is kept"):
        train(Line(), batches, config(checkpoint_every_seconds=1000.0), run=run)
    assert load_checkpoint(run.checkpoint()).group("objective")["w"].isfinite()


def test_weights_that_a_finite_loss_broke_are_not_saved(tmp_path):
    class Root(Line):
        def forward(self, batch, generator=None):
            return (self.w * 0).sqrt() * batch["x"].mean(), {}  # 0 with a gradient of 0 * inf

    run = RunFolder(tmp_path)
    with pytest.raises(NonFiniteLoss, match="a weight is NaN or infinite at step 1 "):
        train(Root(), line_batches([1.0, 1.0]), config(checkpoint_every_seconds=0.0), run=run)
    assert load_checkpoint(run.checkpoint()).state.step == 0
    with pytest.raises(NonFiniteLoss, match=r"gradient is nan at step 1 .* no state is kept, since there is no run"):
        train(Root(), line_batches([1.0]), config(clip_norm=1.0))


def test_bfloat16_goes_through_forward_and_leaves_the_batch_exact():
    seen = {}

    class Precise(Objective):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(1, 1)

        def forward(self, batch, generator=None):
            out = self.net(batch["x"])
            seen.update(out=out.dtype, batch=batch["x"].dtype, weight=self.net.weight.dtype)
            return out.float().square().mean(), {}

    for precision, product, rest in (
        ("bf16-mixed", torch.bfloat16, torch.float32),
        ("32-true", torch.float32, torch.float32),
        ("64-true", torch.float64, torch.float64),
    ):
        batches = TensorBatches({"x": torch.full((1, 1), 0.5)}, 1)
        history = train(Precise(), batches, config(precision=precision))
        assert seen == {"out": product, "batch": rest, "weight": rest}
        assert math.isfinite(history.metrics[0]["loss"])


def test_frozen_parts_keep_their_mode_and_their_weights():
    class Frozen(Line):
        def __init__(self):
            super().__init__()
            self.fixed = nn.Linear(1, 1).requires_grad_(False).eval()

    objective = Frozen()
    before = objective.fixed.weight.clone()
    train(objective, line_batches([1.0]), config(ema=0.5))
    assert not objective.fixed.training and objective.training
    assert torch.equal(objective.fixed.weight, before)


def test_runs_in_a_thread():
    done = []
    thread = threading.Thread(target=lambda: done.append(train(Line(), line_batches([1.0]), config()).steps))
    thread.start()
    thread.join()
    assert done == [1]


def test_full_disk_while_logging_keeps_the_checkpoint(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    original = pathlib.Path.open

    def full(self, mode="r", *args, **kwargs):
        if self == run.metrics and mode == "a":
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, mode, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, "open", full)
    with pytest.raises(UserError, match=r"metrics\.jsonl: the disk is full: free some space"):
        train(Line(), line_batches([1.0]), config(), run=run)
    assert load_checkpoint(run.checkpoint()).state.step == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resume": True}, "expected a run folder to resume from"),
        ({"settings": {"early_stop": EarlyStop("v")}}, "'v', but there is no validation"),
        (
            {"settings": {"early_stop": EarlyStop("v")}, "validate": lambda model: {"w2": 1.0}},
            "early_stop watches 'v', validation has w2",
        ),
        ({"validate": lambda model: {"loss": 1.0}}, "validate returned loss, which training logs too"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments, message):
    settings = config(**arguments.pop("settings", {}))
    with pytest.raises(ValueError, match=message):
        train(Line(), line_batches([1.0]), settings, **arguments)


def test_a_loss_per_example_is_refused():
    class PerExample(Line):
        def forward(self, batch, generator=None):
            return (self.w - batch["x"]).square(), {}

    with pytest.raises(TypeError, match=r"return a scalar loss, got one of shape \(2,\)"):
        train(PerExample(), TensorBatches({"x": torch.zeros(2)}, 2), config())


def test_a_metric_per_example_is_refused():
    class PerExample(Line):
        def forward(self, batch, generator=None):
            return super().forward(batch)[0], {"errors": batch["x"]}

    with pytest.raises(TypeError, match=r"scalar tensors, got for 'errors' one of shape \(2,\)"):
        train(PerExample(), TensorBatches({"x": torch.zeros(2)}, 2), config())


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch's own
def test_compiled_gives_the_plain_numbers(monkeypatch):
    monkeypatch.setattr(trainer, "require_compiler", lambda: None)  # aot_eager needs none
    calls = []
    compiler = torch.compile

    def quick_compile(module, **options):  # the graph is captured and differentiated, not turned into C++: seconds less
        calls.append(type(module).__name__)
        return compiler(module, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", quick_compile)

    class Small(Line):
        def forward(self, batch, generator=None):
            noise = torch.randn((), generator=generator)
            loss = (self.w - batch["x"].mean() - noise).square().exp().log1p()
            return loss, {"twice": 2 * loss.detach()}

    def run(compiled):
        settings = config(compile=compiled, learning_rate=0.01)
        line = train(Small(), line_batches([0.1, 0.2, 0.3]), settings).metrics[0]
        return [line["loss"], line["twice"]]

    plain = run(False)
    assert not calls
    assert run(True) == pytest.approx(plain, rel=1e-5)
    assert "Small" in calls


def test_compiling_without_a_compiler_is_one_clear_line(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"compile: expected a C\+\+ compiler \(no-such-compiler\), found none"):
        train(Line(), line_batches([1.0]), config(compile=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_gpu_agrees_with_cpu_and_resumes(tmp_path):
    def run(device, compiled=False, **extra):
        objective = Line()
        settings = config(
            device=device, optimizer="adam", epochs=3, learning_rate=0.1, clip_norm=1.0, ema=0.9, compile=compiled
        )
        train(objective, line_batches([1.0, 2.0, 3.0]), settings, **extra)
        return objective.w.detach().cpu()

    torch.testing.assert_close(run("cuda"), run("cpu"))
    torch.testing.assert_close(run("cuda", compiled=True), run("cuda"))
    assert torch.equal(run("cuda", run=RunFolder(tmp_path)), run("cuda", run=RunFolder(tmp_path), resume=True))
    with pytest.raises(UserError, match=r"device \(cuda there, cpu here\)"):
        run("cpu", run=RunFolder(tmp_path), resume=True)
