"""The one training loop, its settings, its batches and the folder that a run owns."""

from .batches import Batches as Batches
from .batches import PixelBatches as PixelBatches
from .batches import TensorBatches as TensorBatches
from .batches import held_out as held_out
from .batches import seed_of as seed_of
from .config import EarlyStop as EarlyStop
from .config import TrainingConfig as TrainingConfig
from .config import resolve_device as resolve_device
from .loop import History as History
from .loop import fit as fit
from .run_folder import RunFolder as RunFolder
from .stacked import StackableObjective as StackableObjective
from .stacked import Stacked as Stacked
from .stacked import StackedBatches as StackedBatches
from .stops import Interrupted as Interrupted
from .stops import NonFiniteLoss as NonFiniteLoss
