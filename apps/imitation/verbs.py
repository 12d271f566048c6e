"""The functions behind the verbs."""

from .demo import demo as demo
from .demos import export_demos as export_demos
from .demos import import_demos as import_demos
from .demos import inspect_demos as inspect_demos
from .demos import list_demos as list_demos
from .demos import record_demos as record_demos
from .evaluate import evaluate as evaluate
from .expert import expert as expert
from .report import report as report
from .tables.gail import benchmark as benchmark
from .tables.modes import modes as modes
from .train import train as train
