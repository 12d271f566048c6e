import subprocess

import pytest

from apps.common import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    provenance.commit.cache_clear()
    yield tmp_path
    provenance.commit.cache_clear()


def git(folder, *arguments):
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def fresh():
    provenance.commit.cache_clear()
    return provenance.commit()


def test_the_commit_and_whether_the_code_was_changed(checkout):
    assert fresh() == "unknown"
    git(checkout, "init", "-q")
    assert fresh() == "unknown"  # no commit yet
    (checkout / "code.py").write_text("1")
    (checkout / "docs" / "results").mkdir(parents=True)
    (checkout / "docs" / "results" / "cell.json").write_text("1")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "first")
    head = git(checkout, "rev-parse", "HEAD")
    assert fresh() == head
    (checkout / "docs" / "results" / "cell.json").write_text("2")  # a benchmark rewrites its own results
    (checkout / "new.txt").write_text("untracked")
    assert fresh() == head
    (checkout / "code.py").write_text("2")
    assert fresh() == f"{head}+dirty"


def test_a_repository_around_the_package_is_not_ours(checkout, monkeypatch):
    git(checkout, "init", "-q")
    (checkout / "file").touch()
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "first")
    inside = checkout / "site-packages"
    inside.mkdir()
    monkeypatch.setattr(provenance, "ROOT", inside)
    assert fresh() == "unknown"


def test_a_device_in_words():
    words = provenance.device_words("cpu", threads=2)
    assert words.endswith(", 2 threads")
    assert len(words) > len(", 2 threads")
    assert provenance.device_words("cpu", threads=1).endswith(", 1 thread")


def test_outside_a_runner_there_is_no_configuration():
    assert provenance.configuration() == {}
    assert provenance.command_line()
