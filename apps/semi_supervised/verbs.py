"""The functions behind the verbs, with every method imported so that the command line knows it by name."""

from .baselines import SVM as SVM
from .baselines import ConvolutionalNetwork as ConvolutionalNetwork
from .baselines import NeuralNetwork as NeuralNetwork
from .benchmark import benchmark as benchmark
from .cae import ContractiveAutoencoder as ContractiveAutoencoder
from .demo import demo as demo
from .improved_gan import ImprovedGAN as ImprovedGAN
from .ladder import Ladder as Ladder
from .m1 import M1SVM as M1SVM
from .m1 import M1TSVM as M1TSVM
from .m1_m2 import M1M2 as M1M2
from .m2 import M2 as M2
from .predict import predict as predict
from .report import report as report
from .train import train as train
from .tsvm import TransductiveSVM as TransductiveSVM
from .vat import VAT as VAT
