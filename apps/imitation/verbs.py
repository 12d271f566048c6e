"""The functions behind the verbs."""

from .benchmark import benchmark as benchmark
from .demos import export_demos as export_demos
from .demos import import_demos as import_demos
from .demos import inspect_demos as inspect_demos
from .demos import record_demos as record_demos
from .expert import expert as expert
from .report import report as report
from .train import train as train
