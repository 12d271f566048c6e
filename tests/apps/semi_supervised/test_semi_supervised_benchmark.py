"""What the benchmark does with its time, and what tells the cells of one's own data apart."""

from types import SimpleNamespace

import numpy as np
import pytest

from apps.semi_supervised import benchmark as module
from apps.semi_supervised.benchmark import benchmark, cell_config, shared_m1, told_apart
from apps.semi_supervised.estimator import OutOfTime
from apps.semi_supervised.experiment import make_task
from apps.semi_supervised.m1 import M1SVM
from core_models.latent import VAE, VAEConfig


def own_data(path, seed):
    """Images of two classes under a name of the user's own; the labels are the same for each seed."""
    y = np.arange(40) % 2
    x = np.random.default_rng(seed).integers(0, 60, (40, 1, 2, 2)) + 150 * y[:, None, None, None]
    path.parent.mkdir()
    np.savez(path, x=x.astype(np.uint8), y=y)
    return str(path)


@pytest.mark.parametrize(("took", "fitted", "words"), [(40.0, [60.0], "stopped"), (130.0, [], "M1 is trained")])
def test_the_time_of_m1_counts(took, fitted, words, tmp_path, monkeypatch, capsys):
    now, limits = [1000.0], []

    def trained(estimator, *_):
        assert estimator.time_limit == 100.0
        now[0] += took
        return tmp_path / "m1", took

    def fit(estimator, *_, **__):
        limits.append(estimator.time_limit)
        raise OutOfTime("stopped")

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(module, "shared_m1", trained)
    monkeypatch.setattr(module, "fit_task", fit)
    places = {"results": str(tmp_path / "results"), "work": str(tmp_path / "work")}
    benchmark(["M1+M2"], [10], 1, data="digits", time_limit=100.0, device="cpu", **places)
    assert limits == fitted
    assert capsys.readouterr().out.splitlines() == [words, "time limit: the same command goes on"]
    assert not list((tmp_path / "results").rglob("*.json"))


def test_a_stack_has_a_time_limit_too(tmp_path):
    places = {"results": str(tmp_path / "results"), "work": str(tmp_path / "work")}
    settings = {"epochs": 1, "hidden": [8], "m1_epochs": 1, "m1_hidden": [8], "active_threshold": 0.0}
    benchmark(
        ["M1+M2"], [10], 2, data="digits", time_limit=600.0, stack=True, settings=settings, device="cpu", **places
    )
    assert len(list((tmp_path / "results" / "semi_supervised" / "digits").glob("*.json"))) == 2


def test_a_cell_of_another_file_of_the_same_name_does_not_stand(tmp_path, capsys):
    places = {"results": str(tmp_path / "results"), "work": str(tmp_path / "work")}
    one, other = (own_data(tmp_path / folder / "bars.npz", seed) for seed, folder in enumerate("ab"))
    for data, again, words in (
        (one, False, None),
        (other, False, "one of other settings stands"),
        (other, True, None),
        (other, False, ": stands, "),
    ):
        benchmark(["SVM"], [4], 1, data=data, device="cpu", again=again, **places)
        told = capsys.readouterr().out
        assert "stands" not in told if words is None else words in told


def test_data_of_ones_own_are_told_apart_by_what_they_hold(tmp_path):
    one, same, other = (
        own_data(tmp_path / folder / "bars.npz", seed) for seed, folder in zip((0, 0, 1), "abc", strict=True)
    )
    assert told_apart(one) == told_apart(same) != told_apart(other)
    assert told_apart(one).keys() == {"data", "digest"} and told_apart(other)["data"] == "bars"
    assert told_apart("mnist") == {"data": "mnist"}
    configs = [cell_config(M1SVM(), told_apart(data), 10) for data in (one, same, other, "mnist")]
    assert configs[0] == configs[1] != configs[2] and "digest" not in configs[3]


def test_an_m1_of_another_file_of_the_same_name_is_not_shared(tmp_path, monkeypatch):
    def train(self, x, *_, **__):
        return VAE(VAEConfig(event_shape=(1, 2, 2), latent=2, hidden=(3,))), SimpleNamespace(stopped="finished")

    monkeypatch.setattr(M1SVM, "train_m1", train)
    files = [own_data(tmp_path / folder / "bars.npz", seed) for seed, folder in zip((0, 0, 1), "abc", strict=True)]
    tasks = [make_task(data, 4, 0, draws=tmp_path / "draws") for data in files]
    folders = [
        shared_m1(M1SVM(), task, tmp_path / "work", told_apart(data))[0]
        for task, data in zip(tasks, files, strict=True)
    ]
    assert folders[0] == folders[1] != folders[2] and len(list((tmp_path / "work").iterdir())) == 2
