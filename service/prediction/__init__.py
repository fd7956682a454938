"""Models by name, each ready to answer."""

from service.batching import Delivery
from service.prediction.catalogue import Catalogue, load_catalogue
from service.prediction.decoding import DecoderPool, Reader
from service.prediction.predictor import Answer, Prediction, Predictor, Stages

__all__ = [
    "Answer",
    "Catalogue",
    "DecoderPool",
    "Delivery",
    "Prediction",
    "Predictor",
    "Reader",
    "Stages",
    "load_catalogue",
]
