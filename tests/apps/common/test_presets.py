from pathlib import Path

import pytest
import yaml

from apps.common import presets
from core_models.errors import UserError


def test_every_preset_of_the_checkout_has_a_header_and_settings():
    for name in presets.preset_names():
        text = presets.find_config(name).read_text()
        assert text.startswith("#"), f"{name}: the header says what it yields and how long it takes"
        assert isinstance(yaml.safe_load(text), dict)


def test_a_file_of_ones_own_wins_over_a_preset(tmp_path, monkeypatch):
    folder = tmp_path / "presets"
    (folder / "demo").mkdir(parents=True)
    (folder / "demo" / "m2.yaml").write_text("labels: 1\n")
    monkeypatch.setattr(presets, "presets_folder", lambda: folder)
    monkeypatch.chdir(tmp_path)
    assert presets.find_config("demo/m2") == folder / "demo" / "m2.yaml"
    Path("demo").mkdir()
    Path("demo/m2").write_text("labels: 2\n")
    assert presets.find_config("demo/m2") == Path("demo/m2")


def test_somebody_elses_configs_beside_an_installed_package_are_not_ours(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    monkeypatch.setattr(presets, "ROOT", tmp_path)
    assert presets.presets_folder() != tmp_path / "configs"
    (tmp_path / "pyproject.toml").touch()
    assert presets.presets_folder() == tmp_path / "configs"


def test_no_presets_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(presets, "presets_folder", lambda: tmp_path)
    with pytest.raises(UserError, match="got 'x', which is neither; presets: none"):
        presets.find_config("x")
