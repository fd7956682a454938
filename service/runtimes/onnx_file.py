"""Looks through an ONNX file before ONNX Runtime does: whole in itself, and nothing but arithmetic.

ONNX Runtime reads tensors from other files, or from addresses in memory, wherever a tensor says so.
Sessions are created from bytes here, and in addition every tensor is looked at: initialisers,
sparse ones, attributes, bodies of loops and branches, functions, training information.
"""

from service.errors import BundleCorrupt
from service.runtimes.wire import Message, Schema, WireInvalid, fields, messages, text, texts

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Where operations come from that ONNX Runtime has built in."""

FORBIDDEN = {
    "EPContext": "loads a compiled graph from a file",
    "PythonOp": "calls back into Python",
    "PythonOpGrad": "calls back into Python",
}
"""Operations of these domains that reach outside of the graph, and how."""

SCHEMA: Schema = {
    "ModelProto": {
        7: "GraphProto",
        20: "TrainingInfoProto",
        25: "FunctionProto",
    },
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "TensorProto": {},
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
}
"""Of onnx.proto, what leads to tensors and operations."""

_NODE_OP_TYPE, _NODE_DOMAIN = 4, 7
_TENSOR_NAME, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 8, 13, 14
_ORT_FORMAT = b"ORTM"


def check_onnx(content: bytes, place: str) -> None:
    """Refuse a file that refers to anything outside of itself.

    Args:
        content: of the file.
        place: its name, for the message.

    Raises:
        BundleCorrupt: naming the tensor or the operation.
    """
    # ONNX Runtime would take it for its own format, which is another one and not looked into.
    if content[4:8] == _ORT_FORMAT:
        raise BundleCorrupt(f"{place}: is in ONNX Runtime's own format; only ONNX is served")
    try:
        for message in messages(content, "ModelProto", SCHEMA):
            reason = _REASONS.get(message.kind, _nothing)(message)
            if reason:
                raise BundleCorrupt(f"{place}: {reason}")
    except WireInvalid as error:
        raise BundleCorrupt(f"{place}: is no ONNX file ({error})") from None


def _nothing(_: Message) -> str:
    return ""


def _reason_against_tensor(tensor: Message) -> str:
    for field in fields(tensor.content):
        # Any number but 0: readers cut it to 32 bits, each in its way.
        is_elsewhere = field.number == _TENSOR_DATA_LOCATION and field.content != 0
        if is_elsewhere or field.number == _TENSOR_EXTERNAL_DATA:
            names = texts(tensor, _TENSOR_NAME) or ["without a name"]
            return f"tensor {names[-1][:100]!r} has its data outside of the file"
    return ""


def _reason_against_node(node: Message) -> str:
    operation = text(node, _NODE_OP_TYPE)
    if operation in FORBIDDEN:
        return f"operation {operation} {FORBIDDEN[operation]}"
    return _reason_against_domain(text(node, _NODE_DOMAIN))


def _reason_against_domain(domain: str) -> str:
    # Of operations, not of imports: converters and quantisers import domains that nothing is from.
    if domain in DOMAINS:
        return ""
    known = ", ".join(sorted(DOMAINS - {""}))
    return f"operations of {domain[:100]!r} are not served; those of {known} are"


_REASONS = {
    "TensorProto": _reason_against_tensor,
    "NodeProto": _reason_against_node,
}
