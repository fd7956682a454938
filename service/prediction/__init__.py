"""Models by name, each ready to answer."""

from service.batching import Delivery
from service.prediction.catalogue import Catalogue, load_catalogue
from service.prediction.decoding import DecoderPool
from service.prediction.predictor import Answer, Prediction, Predictor, Stages

__all__ = [
    "Answer",
    "Catalogue",
    "DecoderPool",
    "Delivery",
    "Prediction",
    "Predictor",
    "Stages",
    "load_catalogue",
]
