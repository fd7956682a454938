"""The few operations that stand around a user's model, for Keras and for ONNX alike.

What is written against `Ops` is written once: `keras.ops` builds it into a SavedModel, `Nodes`
into an ONNX graph.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Value = Any
"""A tensor of the engine; arrays and numbers are constants."""

REDUCTIONS_TAKE_AXES_AS_INPUT = 18
"""The opset that moved the axes of every reduction but ReduceSum from attribute to input."""


class Ops(Protocol):
    """The part of `keras.ops` that is used; shapes and axes count the rows as axis 0."""

    def cast(self, x: Value, dtype: str) -> Value:
        """Return `x` as another type, such as `float32`."""
        ...

    def reshape(self, x: Value, newshape: Sequence[int]) -> Value:
        """Return `x` in another shape; -1 stands for what is left."""
        ...

    def transpose(self, x: Value, axes: Sequence[int]) -> Value:
        """Return `x` with its axes in another order."""
        ...

    def add(self, x1: Value, x2: Value) -> Value:
        """Return x1 + x2."""
        ...

    def subtract(self, x1: Value, x2: Value) -> Value:
        """Return x1 - x2."""
        ...

    def multiply(self, x1: Value, x2: Value) -> Value:
        """Return x1 * x2, element by element."""
        ...

    def matmul(self, x1: Value, x2: Value) -> Value:
        """Return the product of two matrices."""
        ...

    def maximum(self, x1: Value, x2: Value) -> Value:
        """Return the larger one, element by element."""
        ...

    def minimum(self, x1: Value, x2: Value) -> Value:
        """Return the smaller one, element by element."""
        ...

    def log(self, x: Value) -> Value:
        """Return the natural logarithm."""
        ...

    def negative(self, x: Value) -> Value:
        """Return -x."""
        ...

    def concatenate(self, xs: Sequence[Value], axis: int) -> Value:
        """Return tensors beside each other."""
        ...

    def logsumexp(self, x: Value, axis: int, *, keepdims: bool) -> Value:
        """Return log(sum(exp(x))) along an axis."""
        ...

    def max(self, x: Value, axis: int, *, keepdims: bool) -> Value:
        """Return the largest along an axis."""
        ...

    def min(self, x: Value, axis: int, *, keepdims: bool) -> Value:
        """Return the smallest along an axis."""
        ...


class Nodes:
    """Collects ONNX nodes; a value is the name of a tensor. See `Ops` for the methods."""

    def __init__(self, opset: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._opset = opset

    def cast(self, x: Value, dtype: str) -> Value:
        """Return `x` as another type, such as `float32`."""
        return self._add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def reshape(self, x: Value, newshape: Sequence[int]) -> Value:
        """Return `x` in another shape; -1 stands for what is left."""
        return self._add("Reshape", x, np.array(newshape, np.int64))

    def transpose(self, x: Value, axes: Sequence[int]) -> Value:
        """Return `x` with its axes in another order."""
        return self._add("Transpose", x, perm=list(axes))

    def add(self, x1: Value, x2: Value) -> Value:
        """Return x1 + x2."""
        return self._add("Add", x1, x2)

    def subtract(self, x1: Value, x2: Value) -> Value:
        """Return x1 - x2."""
        return self._add("Sub", x1, x2)

    def multiply(self, x1: Value, x2: Value) -> Value:
        """Return x1 * x2, element by element."""
        return self._add("Mul", x1, x2)

    def matmul(self, x1: Value, x2: Value) -> Value:
        """Return the product of two matrices."""
        return self._add("MatMul", x1, x2)

    def maximum(self, x1: Value, x2: Value) -> Value:
        """Return the larger one, element by element."""
        return self._add("Max", x1, x2)

    def minimum(self, x1: Value, x2: Value) -> Value:
        """Return the smaller one, element by element."""
        return self._add("Min", x1, x2)

    def log(self, x: Value) -> Value:
        """Return the natural logarithm."""
        return self._add("Log", x)

    def negative(self, x: Value) -> Value:
        """Return -x."""
        return self._add("Neg", x)

    def concatenate(self, xs: Sequence[Value], axis: int) -> Value:
        """Return tensors beside each other."""
        return self._add("Concat", *xs, axis=axis)

    def logsumexp(self, x: Value, axis: int, *, keepdims: bool) -> Value:
        """Return log(sum(exp(x))) along an axis."""
        return self._reduce("ReduceLogSumExp", x, axis, keepdims=keepdims)

    def max(self, x: Value, axis: int, *, keepdims: bool) -> Value:
        """Return the largest along an axis."""
        return self._reduce("ReduceMax", x, axis, keepdims=keepdims)

    def min(self, x: Value, axis: int, *, keepdims: bool) -> Value:
        """Return the smallest along an axis."""
        return self._reduce("ReduceMin", x, axis, keepdims=keepdims)

    def name(self, value: Value, name: str) -> None:
        """Give a value the name of an output."""
        self.nodes.append(helper.make_node("Identity", [self._name(value)], [name]))

    def _reduce(self, kind: str, x: Value, axis: int, *, keepdims: bool) -> Value:
        if self._opset >= REDUCTIONS_TAKE_AXES_AS_INPUT:
            return self._add(kind, x, np.array([axis], np.int64), keepdims=int(keepdims))
        return self._add(kind, x, axes=[axis], keepdims=int(keepdims))

    def _add(self, kind: str, *inputs: Value, **attributes: Any) -> str:
        name = f"around/{len(self.nodes)}"
        names = [self._name(value) for value in inputs]
        self.nodes.append(helper.make_node(kind, names, [name], **attributes))
        return name

    def _name(self, value: str | float | NDArray[Any]) -> str:
        if isinstance(value, str):
            return value
        array = np.float32(value) if isinstance(value, float) else value
        name = f"around/constant/{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name
