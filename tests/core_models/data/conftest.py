"""What the tests of data sets share: a machine without data, and the real sets where they are present."""

import os
from pathlib import Path

import pytest

from core_models.data.sources import Places

REAL_ROOT = os.environ.get("GENAPPS_DATA")  # read before the fixture below hides it


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """No $GENAPPS_DATA, an empty cache, and neither proxy nor package index: no test can reach the network."""
    monkeypatch.delenv("GENAPPS_DATA", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.fixture
def places(tmp_path):
    """Places with an empty root and an empty cache, which may be asked for nothing else."""
    (tmp_path / "root").mkdir()
    return Places(root=tmp_path / "root", cache=tmp_path / "cache", download=False, progress=False)


@pytest.fixture
def real():
    """Gives Places that hold a real set, or skips; CI, where $GENAPPS_DATA is set, insists."""

    def find(folder: str) -> Places:
        if REAL_ROOT and (Path(REAL_ROOT) / folder).is_dir():
            return Places(root=REAL_ROOT, download=False, progress=False)
        said = (
            f"the real {folder} is not here: point GENAPPS_DATA at a folder that holds it (now {REAL_ROOT or 'unset'})"
        )
        if REAL_ROOT and os.environ.get("CI") == "true":
            pytest.fail(said)
        pytest.skip(said)

    return find
