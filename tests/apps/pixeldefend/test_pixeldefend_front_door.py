"""What a Python program of a user imports."""

import subprocess
import sys

import apps.pixeldefend
import apps.pixeldefend.verbs  # no module of a verb may hide a name


def test_every_name_is_there_and_is_where_it_says():
    for name in apps.pixeldefend.__all__:
        found = getattr(apps.pixeldefend, name)
        assert found.__name__ == name and found.__module__.startswith("apps.pixeldefend.")
    assert set(apps.pixeldefend.__all__) <= set(dir(apps.pixeldefend))
    assert not hasattr(apps.pixeldefend, "Nobody")


def test_importing_it_imports_nothing_heavy():
    heavy = "torch", "numpy", "torchattacks"
    code = f"import sys, apps.pixeldefend; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
