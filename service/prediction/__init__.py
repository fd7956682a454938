"""Models by name, each ready to answer."""

from service.batching import Delivery
from service.bundle import Manifest
from service.prediction.catalogue import Catalogue, Choice
from service.prediction.decoding import DecoderPool, Reader
from service.prediction.loading import load_catalogue
from service.prediction.offloading import offload
from service.prediction.predictor import Answer, Prediction, Predictor, Stages, outcome_of
from service.prediction.reloader import Reloader

__all__ = [
    "Answer",
    "Catalogue",
    "Choice",
    "DecoderPool",
    "Delivery",
    "Manifest",
    "Prediction",
    "Predictor",
    "Reader",
    "Reloader",
    "Stages",
    "load_catalogue",
    "offload",
    "outcome_of",
]
