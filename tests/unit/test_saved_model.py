import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import attr_value_pb2, function_pb2, graph_pb2, node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.framework import op_def_registry

from service.bundle import Bundle, read_bundle
from service.errors import BundleCorrupt
from service.runtimes import RuntimeOptions, load_runtime
from service.runtimes.saved_model import (
    ALLOWED,
    CHECKPOINT,
    FUNCTION_SCHEMA,
    SCHEMA,
    check_saved_model,
)

MODELS = Path(__file__).parents[2] / "models"
COMMITTED = sorted(MODELS.glob("*/*/saved_model"))
OPTIONS = RuntimeOptions(threads=1, device="cpu")
SMALLEST = min(COMMITTED, key=lambda path: (path / "saved_model.pb").stat().st_size)
ROWS = tf.TensorSpec((None,), tf.float32)


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda path: path.parts[-3])
def test_committed_models_only_compute(folder: Path) -> None:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]

    check_saved_model((folder / "saved_model.pb").read_bytes(), names, str(folder))


def saved(folder: Path, function: Callable[[Any], Any], **parts: Any) -> bytes:
    """Return the SavedModel of a module that serves `function`."""
    module = tf.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    module.serve = tf.function(
        lambda rows: function(rows),  # noqa: PLW0108  the argument needs a name to be saved
        input_signature=[ROWS],
    )
    tf.saved_model.save(module, str(folder / "module"))
    return (folder / "module" / "saved_model.pb").read_bytes()


def read_file(_: Any) -> Any:
    return tf.io.read_file("/etc/passwd")


def write_file(rows: Any) -> Any:
    tf.io.write_file("/tmp/written", "x")  # noqa: S108  never run
    return rows


def print_to_file(rows: Any) -> Any:
    tf.print(rows, output_stream="file:///tmp/printed")
    return rows


def call_python(rows: Any) -> Any:
    return tf.py_function(lambda values: values, [rows], tf.float32)


def call_numpy(rows: Any) -> Any:
    return tf.numpy_function(lambda values: values, [rows], tf.float32)


def match_files(_: Any) -> Any:
    return tf.io.matching_files("/etc/*")


def read_records(_: Any) -> Any:
    return next(iter(tf.data.TFRecordDataset(["/etc/passwd"])))


def restore_a_tensor(_: Any) -> Any:
    return tf.raw_ops.RestoreV2(
        prefix="/x", tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32]
    )


def save_a_tensor(rows: Any) -> Any:
    tf.raw_ops.SaveV2(prefix="/x", tensor_names=["x"], shape_and_slices=[""], tensors=[rows])
    return rows


def in_a_branch(rows: Any) -> Any:
    return tf.cond(tf.size(rows) > 0, lambda: tf.io.read_file("/etc/passwd"), lambda: "")


def in_a_loop(_: Any) -> Any:
    return tf.while_loop(
        lambda number, _: number < 2,
        lambda number, _: (number + 1, tf.io.read_file("/etc/passwd")),
        (0, ""),
    )


@pytest.mark.parametrize(
    "function",
    [
        *(read_file, write_file, print_to_file, call_python, call_numpy, match_files),
        *(read_records, restore_a_tensor, save_a_tensor, in_a_branch, in_a_loop),
    ],
)
def test_saved_model_that_does_more_than_compute_is_refused(
    tmp_path: Path, function: Callable[[Any], Any]
) -> None:
    content = saved(tmp_path, function)

    with pytest.raises(BundleCorrupt, match=r"there: (operation|an object|a function)"):
        check_saved_model(content, [], "there")


def test_saved_model_that_computes_in_branches_and_loops_passes(tmp_path: Path) -> None:
    def compute(rows: Any) -> Any:
        grown = tf.while_loop(lambda x: tf.reduce_sum(x) < 10, lambda x: [x * 2 + 1], [rows])[0]
        return tf.cond(tf.size(rows) > 2, lambda: grown, lambda: tf.nn.softmax(grown) * weight)

    weight = tf.Variable(2.0)

    check_saved_model(saved(tmp_path, compute, weight=weight), [], "there")


def test_table_that_is_filled_from_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("good 1\nbad 2\n")
    initializer = tf.lookup.TextFileInitializer(
        str(tmp_path / "words.txt"), tf.string, 0, tf.int64, 1, delimiter=" "
    )
    table = tf.lookup.StaticHashTable(initializer, -1)

    content = saved(tmp_path, lambda rows: table.lookup(tf.strings.as_string(rows)), table=table)

    with pytest.raises(BundleCorrupt, match="InitializeTableFromTextFileV2"):
        check_saved_model(content, [], "there")


@pytest.mark.parametrize(
    "name", ["saved_model.cpb", "saved_model.pbtxt", "assets/words.txt", "assets.extra/x", "x"]
)
def test_file_that_no_saved_model_needs_is_refused(name: str) -> None:
    content = (SMALLEST / "saved_model.pb").read_bytes()

    with pytest.raises(BundleCorrupt, match=f"holds the file '{name}'"):
        check_saved_model(content, ["saved_model.pb", name], "there")


def parsed() -> Any:
    return saved_model_pb2.SavedModel.FromString((SMALLEST / "saved_model.pb").read_bytes())


def saver_of(model: Any) -> str:
    return next(
        str(function.signature.name)
        for function in model.meta_graphs[0].graph_def.library.function
        if any(node.op == "RestoreV2" for node in function.node_def)
    )


def name_the_saver_in_an_object(model: Any) -> None:
    objects = model.meta_graphs[0].object_graph_def
    objects.nodes.add().bare_concrete_function.concrete_function_name = saver_of(model)


def call_the_saver_from_a_function(model: Any) -> None:
    body = model.meta_graphs[0].graph_def.library.function[0].node_def.add()
    body.name, body.op = "call", "StatefulPartitionedCall"
    body.attr["f"].func.name = saver_of(model)


def call_the_saver_as_an_operation(model: Any) -> None:
    model.meta_graphs[0].graph_def.library.function[0].node_def.add(op=saver_of(model))


def call_the_saver_from_a_list(model: Any) -> None:
    body = model.meta_graphs[0].graph_def.library.function[0].node_def.add(op="Case")
    body.attr["branches"].list.func.add().name = saver_of(model)


def call_nobody(model: Any) -> None:
    body = model.meta_graphs[0].graph_def.library.function[0].node_def.add(op="PartitionedCall")
    body.attr["f"].func.name = "ReadFile"


def drop_the_objects(model: Any) -> None:
    model.meta_graphs[0].ClearField("object_graph_def")


def add_a_graph(model: Any) -> None:
    model.meta_graphs.add()


def name_a_function_like_an_operation(model: Any) -> None:
    model.meta_graphs[0].graph_def.library.function.add().signature.name = "ReadFile"


def read_a_file_in_the_graph(model: Any) -> None:
    model.meta_graphs[0].graph_def.node.add(op="ReadFile")


def let_the_saver_stand_in_for_others(model: Any) -> None:
    for function in model.meta_graphs[0].graph_def.library.function:
        if function.signature.name == saver_of(model):
            function.attr["api_implements"].s = b"forward"


def leave_a_function_without_name(model: Any) -> None:
    model.meta_graphs[0].graph_def.library.function.add().ClearField("signature")


FORGERIES = {
    name_the_saver_in_an_object: "an object refers to '__inference__traced_restore",
    call_the_saver_from_a_function: "a function calls '__inference__traced_restore",
    call_the_saver_as_an_operation: "a function calls '__inference__traced_restore",
    call_the_saver_from_a_list: "a function calls '__inference__traced_restore",
    call_nobody: "function 'ReadFile' is called and not there",
    drop_the_objects: "expected one graph with its objects",
    add_a_graph: "expected one graph with its objects",
    name_a_function_like_an_operation: "function 'ReadFile' could be taken for an operation",
    read_a_file_in_the_graph: "operation 'ReadFile' is none that models may use",
    let_the_saver_stand_in_for_others: "offers to stand in for others",
    leave_a_function_without_name: "a function has no name, or several",
}


@pytest.mark.parametrize(("forge", "said"), FORGERIES.items())
def test_forged_saved_model_is_refused(forge: Callable[[Any], None], said: str) -> None:
    model = parsed()
    forge(model)

    with pytest.raises(BundleCorrupt, match=said):
        check_saved_model(model.SerializeToString(), [], "there")


def test_every_allowed_operation_is_one_of_tensorflow_s() -> None:
    assert [name for name in ALLOWED | CHECKPOINT if op_def_registry.get(name) is None] == []


def test_no_operation_has_a_number_as_functions_do() -> None:
    assert [name for name in dir(tf.raw_ops) if re.search("_[0-9]", name)] == []


@pytest.mark.parametrize(
    "part", ["File", "Files", "Record", "PyFunc", "Print", "Socket", "Rpc", "Server", "Dataset"]
)
def test_no_allowed_operation_sounds_like_the_world_outside(part: str) -> None:
    assert [name for name in ALLOWED if part in name] == []


DESCRIPTORS = {
    "SavedModel": saved_model_pb2.SavedModel,
    "MetaGraphDef": meta_graph_pb2.MetaGraphDef,
    "GraphDef": graph_pb2.GraphDef,
    "FunctionDefLibrary": function_pb2.FunctionDefLibrary,
    "FunctionDef": function_pb2.FunctionDef,
    "NodeDef": node_def_pb2.NodeDef,
    "AttrValue": attr_value_pb2.AttrValue,
    "ListValue": attr_value_pb2.AttrValue.ListValue,
    "NameAttrList": attr_value_pb2.NameAttrList,
}


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_fields_are_those_that_tensorflow_declares(name: str) -> None:
    declared = {**FUNCTION_SCHEMA, **SCHEMA}
    fields = {
        field.number: field.message_type.name
        for field in DESCRIPTORS[name].DESCRIPTOR.fields
        if field.message_type
    }

    assert declared[name].items() <= fields.items()


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=6)
)
def test_mutated_saved_model_is_accepted_or_refused_and_nothing_else(
    changes: list[tuple[int, int]],
) -> None:
    content = bytearray((SMALLEST / "saved_model.pb").read_bytes())
    for place, value in changes:
        content[place % len(content)] = value

    try:
        check_saved_model(bytes(content), [], "there")
    except BundleCorrupt as error:
        assert str(error).startswith("there: ")  # noqa: PT017  either outcome is right


class KeptBundle(Bundle):
    """A bundle whose files are in memory; its folder is gone."""

    contents: Mapping[str, bytes]

    def read(self, name: str) -> bytes:
        return self.contents[name]


def test_tensorflow_loads_the_bytes_that_were_checked_and_no_folder() -> None:
    bundle = read_bundle(SMALLEST.parent)
    kept = KeptBundle(Path("/nowhere"), bundle.manifest)
    object.__setattr__(
        kept, "contents", {name: bundle.read(name) for name in bundle.manifest.files}
    )

    runtime = load_runtime("tensorflow", kept, OPTIONS)

    rows = np.zeros((2, *bundle.manifest.graph.input.shape), bundle.manifest.graph.input.dtype)
    expected = load_runtime("onnx", bundle, OPTIONS).run(rows)
    assert np.allclose(runtime.run(rows).logits, expected.logits, atol=1e-4)
    assert tf.io.gfile.glob("ram://dunno-*") == []
