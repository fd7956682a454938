"""A request's payload becomes rows of the shape that the model's graph takes."""

from service.bundle import Bundle
from service.bundle.manifest import FeatureInput, ImageInput
from service.inputs.examples import BodyExample, bodies_of, instances_of
from service.inputs.features import FeatureDecoder
from service.inputs.images import ImageDecoder
from service.inputs.payload import Decoded, Decoder, InputLimits, Payload, decode_light
from service.inputs.texts import TextDecoder, Tokenizer, read_vocabulary

__all__ = [
    "BodyExample",
    "Decoded",
    "Decoder",
    "InputLimits",
    "Payload",
    "bodies_of",
    "create_decoder",
    "decode_light",
    "instances_of",
]


def create_decoder(bundle: Bundle, limits: InputLimits) -> Decoder:
    """Return the decoder for the input that the bundle's manifest declares."""
    declared = bundle.manifest.input
    dtype = bundle.manifest.graph.input.dtype
    if isinstance(declared, FeatureInput):
        return FeatureDecoder(declared, dtype, limits)
    if isinstance(declared, ImageInput):
        return ImageDecoder(declared, dtype, limits)
    vocabulary = read_vocabulary(bundle.read(declared.vocabulary))
    return TextDecoder(declared, Tokenizer(declared, vocabulary), limits)
