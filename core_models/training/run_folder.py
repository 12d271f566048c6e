"""The folder that a run owns, and what lies where in it."""

import errno
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError
from ..files import read_json, write_atomic, write_json


class RunFolder:
    """A run's folder; it is made when the first file is written.

    A run may have several stages, trained one after another (`m1`, then `m2`): each has a checkpoint of its own, and
    the lines of `metrics.jsonl` say which stage they belong to.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"expected a folder for the run, {path} is a file: choose another name")

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def config(self) -> Path:
        """The settings of the run, YAML."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON line per stage and epoch."""
        return self.path / "metrics.jsonl"

    @property
    def model(self) -> Path:
        """The trained weights."""
        return self.path / "model.safetensors"

    @property
    def model_config(self) -> Path:
        """The class of the model and the arguments that build it."""
        return self.path / "model.json"

    @property
    def figures(self) -> Path:
        """A folder of PNG files."""
        return self.path / "figures"

    @property
    def summary(self) -> Path:
        """The figures that the run ended with, JSON."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """One self-contained page."""
        return self.path / "report.html"

    def checkpoint(self, stage: str = "") -> Path:
        """The complete training state of a stage."""
        return self.path / "checkpoint" / f"{_stage_name(stage)}.safetensors"

    def tensorboard(self, stage: str = "") -> Path:
        """The TensorBoard events of a stage: a folder each, so that one can go back without hiding another's."""
        return self.path / "tensorboard" / _stage_name(stage)

    def stages(self) -> list[str]:
        """Names of the stages that have a checkpoint, sorted; the unnamed one is the empty string."""
        names = sorted(path.stem for path in (self.path / "checkpoint").glob("[!.]*.safetensors"))
        return ["" if name == "state" else name for name in names]

    def write_config(self, config: Mapping[str, Any] | str) -> None:
        """Writes `config.yaml`, from plain values or from text that already is YAML."""
        text = config if isinstance(config, str) else yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        write_atomic(self.config, text)

    def read_config(self) -> dict[str, Any]:
        """Reads `config.yaml`; empty where there is none.

        Raises:
            UserError: when it was altered or cut short.
        """
        if not self.config.is_file():
            return {}
        try:
            settings = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{self.config} is not valid YAML: it was altered or cut short") from error
        if not isinstance(settings or {}, dict):
            raise UserError(f"expected a mapping in {self.config}, got {type(settings).__name__}: it was altered")
        return settings or {}

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes `summary.json`."""
        write_json(self.summary, dict(summary))

    def was_summed_up(self, stopped: str, steps: int) -> bool:
        """Says whether `summary.json` stands and tells of a run that ended so, after so many steps.

        Args:
            stopped: why training ended, as `History.stopped`; a run that ran out of time has not ended.
            steps: optimiser steps done.
        """
        if stopped == "time limit" or not self.summary.exists():
            return False
        summary = read_json(self.summary)
        return isinstance(summary, dict) and (summary.get("stopped"), summary.get("steps")) == (stopped, steps)

    def read_metrics(self, stage: str | None = None) -> list[dict[str, Any]]:
        """Reads the lines of `metrics.jsonl`, of one stage or of all; a last line cut short by a kill is left out."""
        try:
            text = self.metrics.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        lines = []
        for line in text.splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{self.metrics}, line {len(lines) + 1}: expected a JSON object: remove the line"
                ) from error
        return lines if stage is None else [line for line in lines if line.get("stage", "") == stage]

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Appends a line to `metrics.jsonl`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(_json_line(line))
        except OSError as error:
            raise cannot_write(self.metrics, error) from error

    def rewind_metrics(self, stage: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Makes these the lines of a stage, so that an epoch that is trained again does not stand there twice."""
        others = [line for line in self.read_metrics() if line.get("stage", "") != stage]
        text = "".join(map(_json_line, [*others, *lines]))
        if text or self.metrics.exists():
            write_atomic(self.metrics, text)


def cannot_write(path: Path, error: OSError) -> UserError:
    """Says why a record can't be written, and that the run can go on later."""
    what = "the disk is full: free some space" if error.errno == errno.ENOSPC else f"{error.strerror or error}"
    return UserError(f"could not write {path}: {what}, then resume from the last checkpoint")


def _stage_name(stage: str) -> str:
    if stage and (stage == "state" or not re.fullmatch(r"\w[\w.+-]*", stage)):
        raise UserError(f"expected a stage name of letters, digits and . _ + - (and not 'state'), got {stage!r}")
    return stage or "state"


def _json_line(line: Mapping[str, Any]) -> str:
    # NaN is no JSON: a metric without a value is null
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
    return json.dumps(plain, allow_nan=False) + "\n"
