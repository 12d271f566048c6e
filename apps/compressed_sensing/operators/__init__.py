"""Linear operators that make measurements, by name or the user's own."""

from .base import LinearOperator as LinearOperator
from .base import measure as measure
from .callable import Callables as Callables
from .deepinv import from_deepinv as from_deepinv
from .dense import Matrix as Matrix
from .dense import bernoulli as bernoulli
from .dense import gaussian as gaussian
from .named import NAMES as NAMES
from .named import build_operator as build_operator
from .pixels import Blur as Blur
from .pixels import Mask as Mask
from .pixels import SuperResolution as SuperResolution
from .transforms import SubsampledDCT as SubsampledDCT
from .transforms import SubsampledFourier as SubsampledFourier
