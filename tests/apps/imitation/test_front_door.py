"""What a Python program of a user imports."""

import subprocess
import sys

import apps.imitation


def test_every_name_is_there_and_is_where_it_says():
    for name in apps.imitation.__all__:
        found = getattr(apps.imitation, name)
        assert found.__name__ == name and found.__module__.startswith("apps.imitation.")
    assert set(apps.imitation.__all__) <= set(dir(apps.imitation))
    assert not hasattr(apps.imitation, "Nobody")


def test_importing_it_imports_nothing_heavy():
    heavy = "torch", "gymnasium", "stable_baselines3", "numpy"
    code = f"import sys, apps.imitation; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
