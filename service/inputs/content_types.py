"""Parameters of the Open Inference Protocol that say how data is meant: heard, or refused.

`content_type` and its values are MLServer's; those that change nothing here are taken.
"""

from collections.abc import Sequence

from service.errors import InputInvalid
from service.inputs.framing import BYTES, WireTensor
from service.inputs.numbers import shown

BASE64 = "base64"
OUTPUT_TYPES = ("np", "pd", "str")
"""What may be asked of an output: numbers and texts come as such anyway."""

_ELEMENTS = {"text": ("str", "np", "pd", BASE64), "image": (BASE64,), "features": ()}
_NUMBERS = {"text": (), "image": ("np",), "features": ("np", "pd")}
"""Kind of a model -> content types that its rows may have, as BYTES and as numbers."""

_UNHEARD = (
    "charset",
    "compression",
    "content_encoding",
    "dtype",
    "encoding",
    "format",
    "layout",
    "shared_memory_byte_size",
    "shared_memory_offset",
    "shared_memory_region",
)
"""Other parameters of an input or output that would give its data another meaning."""


def read_content_type(kind: str, tensor: WireTensor, of_request: dict[str, object]) -> str | None:
    """Return how the elements of the only input are meant; None: as ever.

    Args:
        kind: of the model's rows.
        tensor: the input; what its own parameters say beats what those of the request say.
        of_request: parameters of the request.

    Raises:
        InputInvalid: if the rows of the model cannot be meant so.
    """
    allowed = (_ELEMENTS if tensor.datatype == BYTES else _NUMBERS)[kind]
    of_input = refuse_other_meanings(tensor.parameters, "inputs[0].parameters", allowed)
    return of_input or refuse_other_meanings(of_request, "parameters", allowed)


def refuse_other_meanings(
    parameters: dict[str, object], place: str, allowed: Sequence[str]
) -> str | None:
    """Return the content type that parameters name, if any.

    Args:
        parameters: of an input, an output or a request.
        place: what they are called in messages.
        allowed: content types.

    Raises:
        InputInvalid: if they give data a meaning that is not known here.
    """
    if not parameters:
        return None
    unheard = next((name for name in _UNHEARD if parameters.get(name) is not None), None)
    if unheard is not None:
        got = shown(parameters[unheard])
        raise InputInvalid(f"{place}.{unheard}", "no such parameter: data is read as it is", got)
    content_type = parameters.get("content_type")
    if content_type is None or content_type in allowed:
        return content_type if isinstance(content_type, str) else None
    expected = f"one of {', '.join(allowed)}, or none" if allowed else "none"
    raise InputInvalid(f"{place}.content_type", expected, shown(content_type))
