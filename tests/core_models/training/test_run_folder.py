"""What lies where in a run's folder."""

import math

import pytest
import yaml

from core_models.errors import UserError
from core_models.training import RunFolder


def test_paths(tmp_path):
    run = RunFolder(tmp_path / "run")
    assert not run.path.exists()  # made with the first file
    assert run.checkpoint().name == "state.safetensors" and run.checkpoint("m1").parent.name == "checkpoint"
    assert run.tensorboard("m1") == run.path / "tensorboard" / "m1"
    names = [run.config, run.metrics, run.model, run.model_config, run.figures, run.summary, run.report]
    assert [path.name for path in names] == [
        "config.yaml",
        "metrics.jsonl",
        "model.safetensors",
        "model.json",
        "figures",
        "summary.json",
        "report.html",
    ]
    assert run.stages() == [] and run.read_metrics() == []


def test_config(tmp_path):
    run = RunFolder(tmp_path)
    run.write_config({"b": 1, "a": {"rate": 0.5}})
    assert yaml.safe_load(run.config.read_text()) == {"b": 1, "a": {"rate": 0.5}}
    run.write_config("epochs: 3\n")
    assert run.config.read_text() == "epochs: 3\n"


def test_metrics_lines(tmp_path):
    run = RunFolder(tmp_path)
    run.append_metrics({"stage": "m1", "epoch": 1, "loss": 0.1 + 0.2})
    run.append_metrics({"stage": "m2", "epoch": 1, "loss": math.nan})
    run.append_metrics({"stage": "m2", "epoch": 2, "loss": 1.0})
    run.rewind_metrics("m2", run.read_metrics("m2")[:1])
    with run.metrics.open("a") as file:
        file.write('{"stage": "m2", "ep')  # a kill in the middle of a line
    assert run.read_metrics() == [
        {"stage": "m1", "epoch": 1, "loss": 0.1 + 0.2},
        {"stage": "m2", "epoch": 1, "loss": None},
    ]


def test_a_broken_line_is_named(tmp_path):
    run = RunFolder(tmp_path)
    run.metrics.write_text('{"epoch": 1}\nnonsense\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: expected a JSON object"):
        run.read_metrics()


@pytest.mark.parametrize("stage", ["../m1", "a/b", ".hidden", "state", "m 1"])
def test_wrong_stage_names(tmp_path, stage):
    with pytest.raises(UserError, match="expected a stage name of letters"):
        RunFolder(tmp_path).checkpoint(stage)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file: choose another name"):
        RunFolder(tmp_path / "file")
