"""Puts configs/ into the wheel as apps/presets; everything else is in pyproject.toml."""

from pathlib import Path
from shutil import copyfile

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPresets(build_py):
    """Copies the presets beside the packages, except in an editable install, which reads configs/ itself."""

    def run(self) -> None:
        """Builds the packages, then adds the presets."""
        super().run()
        if not self.editable_mode:
            for preset in Path("configs").rglob("*.yaml"):
                target = Path(self.build_lib, "apps", "presets", preset.relative_to("configs"))
                target.parent.mkdir(parents=True, exist_ok=True)
                copyfile(preset, target)


setup(cmdclass={"build_py": BuildWithPresets})
