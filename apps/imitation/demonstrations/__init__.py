"""Demonstrations: their arrays and files, checks, recording, and Minari."""

from .checking import check_spaces as check_spaces
from .data import Demonstrations as Demonstrations
from .data import Observations as Observations
from .minari_files import read_minari as read_minari
from .minari_files import write_minari as write_minari
from .recording import Policy as Policy
from .recording import RandomPolicy as RandomPolicy
from .recording import record as record
from .summary import summary as summary
from .summary import summary_text as summary_text
