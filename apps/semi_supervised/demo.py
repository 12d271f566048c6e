"""The verb `demo`: M1+M2 beside its supervised baseline, on a handful of labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apps.common.demo_data import mnist_or_digits
from core_models.training import RunFolder, resolve_device
from core_models.training.config import multiplies_in_bfloat16

from .experiment import make_task
from .methods import build, find_method, specification
from .report import write_comparison
from .train import fit_and_report


def demo(out: str = "runs/demo", data: str = "auto", draw: int = 0, threads: int | None = None) -> None:
    """Trains M1+M2 and its supervised baseline on a handful of labels, in minutes, and compares them.

    Args:
        out: folder of the run; what stands there from an earlier call is kept and only completed.
        data: mnist, digits, or auto: MNIST where its files are found or can be fetched, else the 8 x 8 digits that
            come with scikit-learn.
        draw: seed of the draw of labels.
        threads: CPU threads.
    """
    data_set = mnist_or_digits(data)
    labels = 100 if data_set.name == "mnist" else 50
    root = Path(out)
    task = make_task(data_set, labels, draw, draws=root / "draws")
    print(f"data: {data_set.name} ({data_set.source}), {len(task.x)} training images, {labels} labels shown")
    found: dict[str, dict[str, Any]] = {}
    for row, name in (("NN", "demo_nn"), ("M1+M2", "demo_m1_m2")):
        spec = specification(find_method(row), labels, data_set.name, preset=name)
        estimator = build(spec)
        shown: dict[str, Any] = {"threads": threads, "verbose": True}
        if not multiplies_in_bfloat16(resolve_device("auto")):
            shown["precision"] = "32-true"  # else it would not be done in minutes
        estimator.set_params(**{k: v for k, v in shown.items() if k in estimator.get_params()})
        run = RunFolder(root / ("baseline" if row == "NN" else "m1_m2"))
        summary = fit_and_report(estimator, task, run, resume=True)
        assert summary is not None  # the demo sets no time limit
        found[row] = summary
    write_demo_page(root, found)


def write_demo_page(root: Path, found: dict[str, dict[str, Any]]) -> None:
    """Writes and prints the comparison."""
    write_comparison(root / "report.html", found, figures=root / "m1_m2" / "figures", whose="M1+M2")
    width = max(map(len, found))
    first = next(iter(found.values()))
    print(f"\ntest error on {first['data']} with {first['labels']} labels, of {first['n_test']} images:")
    for row, summary in found.items():
        print(f"  {row:<{width}}  {summary['test_error_percent']:6.2f} %   {summary['seconds']:.0f} s")
    print(f"report: {root / 'report.html'}")
