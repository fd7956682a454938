import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from bundles import fruit_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, onnx_ml_pb2

from service.errors import BundleCorrupt
from service.runtimes.onnx_file import DOMAINS, FORBIDDEN, SCHEMA, check_onnx

unhurried = settings(deadline=None)  # a machine that is busy is no defect
MODELS = Path(__file__).parents[2] / "models"
COMMITTED = sorted(MODELS.glob("*/*/*.onnx"))


def elsewhere(name: str = "weights") -> Any:
    """Return a tensor whose data are in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def within(name: str = "weights") -> Any:
    return helper.make_tensor(name, TensorProto.FLOAT, [2], [1, 2])


def sparse(values: Any, indices: Any) -> Any:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[4])


def indices() -> Any:
    return helper.make_tensor("places", TensorProto.INT64, [2], [0, 1])


def graph(*nodes: Any, **parts: Any) -> Any:
    return onnx.GraphProto(name="g", node=nodes, **parts)


def node(**attributes: Any) -> Any:
    """Return a node with one attribute that holds what is given, by the field of AttributeProto."""
    attribute = onnx.AttributeProto(name="value", **attributes)
    return onnx.NodeProto(op_type="Constant", output=["y"], attribute=[attribute])


def model(body: Any = None, **parts: Any) -> Any:
    return onnx.ModelProto(ir_version=10, graph=body or graph(), **parts)


def nested(body: Any, depth: int) -> Any:
    for _ in range(depth):
        body = graph(node(g=body))
    return body


HIDING: dict[str, Callable[[Any], Any]] = {
    "an initialiser": lambda tensor: model(graph(initializer=[tensor])),
    "the values of a sparse one": lambda tensor: model(
        graph(sparse_initializer=[sparse(tensor, indices())])
    ),
    "the indices of a sparse one": lambda tensor: model(
        graph(sparse_initializer=[sparse(within(), tensor)])
    ),
    "an attribute": lambda tensor: model(graph(node(t=tensor))),
    "a list in an attribute": lambda tensor: model(graph(node(tensors=[within(), tensor]))),
    "a sparse attribute": lambda tensor: model(
        graph(node(sparse_tensor=sparse(tensor, indices())))
    ),
    "a list of sparse ones": lambda tensor: model(
        graph(node(sparse_tensors=[sparse(within(), tensor)]))
    ),
    "the body of a branch": lambda tensor: model(graph(node(g=graph(initializer=[tensor])))),
    "a list of bodies": lambda tensor: model(graph(node(graphs=[graph(), graph(node(t=tensor))]))),
    "a body in bodies": lambda tensor: model(nested(graph(initializer=[tensor]), 20)),
    "a function": lambda tensor: model(
        functions=[onnx.FunctionProto(name="f", domain="", node=[node(t=tensor)])]
    ),
    "a default of a function": lambda tensor: model(
        functions=[
            onnx.FunctionProto(name="f", attribute_proto=[onnx.AttributeProto(name="a", t=tensor)])
        ]
    ),
    "the start of a training": lambda tensor: model(
        training_info=[onnx.TrainingInfoProto(initialization=graph(initializer=[tensor]))]
    ),
    "a step of a training": lambda tensor: model(
        training_info=[onnx.TrainingInfoProto(algorithm=graph(node(t=tensor)))]
    ),
}


@pytest.mark.parametrize("hide", HIDING.values(), ids=HIDING.keys())
def test_external_data_is_refused_wherever_it_hides(hide: Callable[[Any], Any]) -> None:
    check_onnx(hide(within()).SerializeToString(), "model.onnx")

    with pytest.raises(BundleCorrupt, match=r"model\.onnx: tensor 'weights' has its data outside"):
        check_onnx(hide(elsewhere()).SerializeToString(), "model.onnx")


def test_location_alone_and_place_alone_are_refused_as_well() -> None:
    location, place = elsewhere(), elsewhere("")
    del location.external_data[:]
    place.data_location = TensorProto.DEFAULT

    for tensor in (location, place):
        with pytest.raises(BundleCorrupt, match="has its data outside of the file"):
            check_onnx(model(graph(initializer=[tensor])).SerializeToString(), "model.onnx")


def test_second_graph_is_looked_into_though_readers_may_merge_or_drop_it() -> None:
    bad = onnx.ModelProto(graph=graph(initializer=[elsewhere()])).SerializeToString()
    good = model(graph(initializer=[within()])).SerializeToString()

    for content in (bad + good, good + bad):
        with pytest.raises(BundleCorrupt, match="has its data outside of the file"):
            check_onnx(content, "model.onnx")


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_operations_of_known_domains_pass(domain: str) -> None:
    content = model(
        graph(onnx.NodeProto(op_type="Gelu", domain=domain)),
        opset_import=[helper.make_opsetid(domain, 1)],
    )

    check_onnx(content.SerializeToString(), "model.onnx")


def test_operations_of_other_domains_are_refused() -> None:
    content = model(graph(node(g=graph(onnx.NodeProto(op_type="Evil", domain="my.ops")))))

    with pytest.raises(BundleCorrupt, match=r"operations of 'my\.ops' are not served; those of ai"):
        check_onnx(content.SerializeToString(), "model.onnx")


def test_import_of_another_domain_from_which_nothing_is_passes() -> None:
    content = model(opset_import=[helper.make_opsetid("my.ops", 1)])

    check_onnx(content.SerializeToString(), "model.onnx")


@pytest.mark.parametrize("operation", FORBIDDEN)
def test_operations_that_reach_outside_of_the_graph_are_refused(operation: str) -> None:
    content = model(graph(onnx.NodeProto(op_type=operation, domain="com.microsoft")))

    with pytest.raises(BundleCorrupt, match=f"operation {operation} "):
        check_onnx(content.SerializeToString(), "model.onnx")


def test_file_in_the_runtime_s_own_format_is_refused() -> None:
    with pytest.raises(BundleCorrupt, match="ONNX Runtime's own format"):
        check_onnx(b"\x18\x00\x00\x00ORTM" + bytes(100), "model.onnx")


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parts[-3])
def test_committed_models_are_whole_in_themselves(path: Path) -> None:
    check_onnx(path.read_bytes(), str(path))


def test_every_field_that_leads_to_a_tensor_or_an_operation_is_followed() -> None:
    kinds = onnx_ml_pb2.DESCRIPTOR.message_types_by_name
    followed = {
        name: {
            field.number: field.message_type.name
            for field in kinds[name].fields
            if field.message_type and field.message_type.name in SCHEMA
        }
        for name in SCHEMA
    }
    leading = {
        name
        for name, kind in kinds.items()
        if any(field.message_type and field.message_type.name in SCHEMA for field in kind.fields)
    }

    assert followed == SCHEMA
    assert leading <= SCHEMA.keys()


def mutated(content: bytes, changes: list[tuple[int, int, int]]) -> bytes:
    """Change, cut out or double parts of a file: (place, byte or length, way)."""
    mutant = bytearray(content)
    for place, value, way in changes:
        at = place % (len(mutant) + 1)
        if way == 0 and at < len(mutant):
            mutant[at] = value
        elif way == 1:
            del mutant[at : at + value]
        else:
            mutant[at:at] = mutant[at : at + value]
    return bytes(mutant)


CHANGES = st.lists(
    st.tuples(st.integers(0, 2**20), st.integers(0, 255), st.integers(0, 2)), max_size=8
)


@unhurried
@given(changes=CHANGES, hidden=st.sampled_from(sorted(HIDING)))
def test_mutated_file_is_accepted_or_refused_and_nothing_else(
    changes: list[tuple[int, int, int]], hidden: str
) -> None:
    content = mutated(HIDING[hidden](within()).SerializeToString(), changes)

    try:
        check_onnx(content, "model.onnx")
    except BundleCorrupt:
        return
    # What passes is for the library as well a file without external data, or none at all.
    try:
        found = onnx.load_model_from_string(content)
    except Exception:  # noqa: BLE001  protobuf's errors are of its own kind
        return
    assert not any(has_external_data(tensor) for tensor in tensors_of(found))


def has_external_data(tensor: Any) -> bool:
    return bool(tensor.external_data) or tensor.data_location != TensorProto.DEFAULT


def tensors_of(message: Any) -> list[Any]:
    """Return every tensor in a message, by the library's own description of it."""
    found = [message] if isinstance(message, TensorProto) else []
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for each in value if field.is_repeated else [value]:
            found += tensors_of(each)
    return found


def test_mutated_whole_model_never_raises_anything_else(tmp_path: Path) -> None:
    content = fruit_bundle(tmp_path).read("model.onnx")
    rng = random.Random(7)  # noqa: S311  no secret
    refused = 0
    for _ in range(3000):
        changes = [
            (rng.randrange(2**20), rng.randrange(256), rng.randrange(3))
            for _ in range(rng.randint(1, 6))
        ]
        try:
            check_onnx(mutated(content, changes), "model.onnx")
        except BundleCorrupt:
            refused += 1

    assert 0 < refused < 3000
