"""Models whose density is a product over positions, each given those before."""

from .gated_pixel_cnn import GatedPixelCNN as GatedPixelCNN
from .gated_pixel_cnn import GatedPixelCNNConfig as GatedPixelCNNConfig
from .heads import HeadName as HeadName
from .image_model import CausalImageModel as CausalImageModel
from .image_model import ImageModelConfig as ImageModelConfig
from .pixel_cnn import PixelCNN as PixelCNN
from .pixel_cnn import PixelCNNConfig as PixelCNNConfig
from .pixel_cnn_pp import PixelCNNPlusPlus as PixelCNNPlusPlus
from .pixel_cnn_pp import PixelCNNPlusPlusConfig as PixelCNNPlusPlusConfig
from .scan import FullScan as FullScan
from .scan import PixelScan as PixelScan
from .scan import RowByRow as RowByRow
