"""Looks through a SavedModel before TensorFlow does: it is a program, and may only compute.

Every operation of the graph and of all its functions has to be on the list below, which holds
mathematics on tensors, pictures and texts, variables, tables that are filled from the graph, and
calls. What reads or writes files, opens connections or calls Python is not on it.

There is one exception, as every exported SavedModel has it: the functions that save and restore
checkpoints. TensorFlow's loader reads the variables itself and does not call them; they are
accepted if nothing that is loaded refers to them: no other function, and no object.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from service.errors import BundleCorrupt
from service.runtimes.wire import Message, Schema, WireInvalid, messages, text

GRAPH = "saved_model.pb"
FILES = (GRAPH, "fingerprint.pb", "variables/variables.index")
DATA = "variables/variables.data-"
"""What TensorFlow needs; `assets/` are files that operations would read, and none may."""

CHECKPOINT = frozenset({"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"})
"""Operations on files that the functions for checkpoints consist of."""

ALLOWED = frozenset(
    # Structure: constants, arguments, variables, calls, branches and loops.
    """
    Assert AssignAddVariableOp AssignSubVariableOp AssignVariableOp Case Const ControlTrigger
    DestroyResourceOp DisableCopyOnRead EnsureShape Enter Exit FakeParam For Identity IdentityN
    If LoopCond Merge NextIteration NoOp PartitionedCall Placeholder PlaceholderWithDefault
    PreventGradient ReadVariableOp ResourceGather ResourceGatherNd StatefulPartitionedCall
    StatelessCase StatelessIf StatelessWhile StopGradient Switch VarHandleOp VarIsInitializedOp
    VariableShape While _Arg _Retval
    """.split()  # noqa: SIM905  a list of words reads better than a column of quotes
    # Shapes and selection.
    + """
    BatchToSpaceND BroadcastArgs BroadcastTo Concat ConcatOffset ConcatV2 DepthToSpace
    DynamicPartition DynamicStitch ExpandDims Fill Gather GatherNd GatherV2 InvertPermutation
    LinSpace ListDiff MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3
    MatrixDiagV2 MatrixDiagV3 MatrixSetDiag MatrixSetDiagV3 MirrorPad OneHot OnesLike Pack Pad
    PadV2 ParallelDynamicStitch Range Rank Reshape ReverseSequence ReverseV2 Roll ScatterNd
    Select SelectV2 Shape ShapeN Size Slice SpaceToBatchND SpaceToDepth SparseReshape
    SparseSlice SparseTensorDenseMatMul SparseToDense Split SplitV Squeeze StridedSlice
    TensorScatterAdd TensorScatterMax TensorScatterMin TensorScatterSub TensorScatterUpdate Tile
    Transpose Unique UniqueV2 UniqueWithCounts UniqueWithCountsV2 Unpack UpperBound LowerBound
    Where ZerosLike
    """.split()  # noqa: SIM905
    # Arithmetic, comparison, reduction, linear algebra.
    + """
    Abs Acos Acosh Add AddN AddV2 All Any ApproximateEqual ArgMax ArgMin Asin Asinh Atan Atan2
    Atanh BatchMatMul BatchMatMulV2 BatchMatMulV3 BesselI0e BesselI1e Betainc Bincount Bitcast
    BitwiseAnd BitwiseOr BitwiseXor Bucketize Cast Ceil Cholesky ClipByValue Complex ComplexAbs
    Conj Cos Cosh Cross Cumprod Cumsum CumulativeLogsumexp DenseBincount Digamma Div DivNoNan
    Einsum Equal Erf Erfc Erfinv EuclideanNorm Exp Expm1 FFT FFT2D Floor FloorDiv FloorMod
    Greater GreaterEqual HistogramFixedWidth IFFT IFFT2D IRFFT IRFFT2D Igamma Igammac Imag Inv
    Invert IsFinite IsInf IsNan L2Loss LeftShift Less LessEqual Lgamma Log Log1p
    LogMatrixDeterminant LogicalAnd LogicalNot LogicalOr MatMul MatrixDeterminant MatrixInverse
    MatrixSolve MatrixTriangularSolve Max Maximum Mean Min Minimum Mod Mul MulNoNan Ndtri Neg
    NextAfter NotEqual Polygamma PopulationCount Pow Prod Qr RFFT RFFT2D Real RealDiv Reciprocal
    RightShift Rint Round Rsqrt SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum
    SelfAdjointEigV2 Sigmoid Sign Sin Sinh SparseMatMul SparseSegmentMean SparseSegmentSum
    SparseSegmentSqrtN Sqrt Square SquaredDifference Sub Sum Svd Tan Tanh TruncateDiv
    TruncateMod UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum
    Xdivy Xlog1py Xlogy Zeta
    """.split()  # noqa: SIM905
    # Networks: layers, activations, normalisation, quantisation.
    + """
    AvgPool AvgPool3D BiasAdd Conv Conv2D Conv2DBackpropInput Conv3D Conv3DBackpropInputV2
    CudnnRNN CudnnRNNV2 CudnnRNNV3 DataFormatDimMap DataFormatVecPermute DepthwiseConv2dNative
    Dequantize Dilation2D Elu ExtractImagePatches FakeQuantWithMinMaxArgs
    FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel FractionalAvgPool
    FractionalMaxPool FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 InTopKV2 LRN LeakyRelu
    LogSoftmax MaxPool MaxPool3D MaxPoolV2 MaxPoolWithArgmax QuantizeAndDequantizeV2
    QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 QuantizeV2 Relu Relu6 Selu Softmax
    SoftmaxCrossEntropyWithLogits Softplus Softsign SparseSoftmaxCrossEntropyWithLogits TopK
    TopKV2 _FusedConv2D _FusedMatMul
    """.split()  # noqa: SIM905
    # Randomness that is part of a graph, such as dropout that is switched off.
    + """
    Multinomial ParameterizedTruncatedNormal RandomShuffle RandomStandardNormal RandomUniform
    RandomUniformInt StatelessMultinomial StatelessRandomGetAlg StatelessRandomGetKeyCounter
    StatelessRandomGetKeyCounterAlg StatelessRandomNormal StatelessRandomNormalV2
    StatelessRandomUniform StatelessRandomUniformInt StatelessRandomUniformIntV2
    StatelessRandomUniformV2 StatelessTruncatedNormal StatelessTruncatedNormalV2 TruncatedNormal
    """.split()  # noqa: SIM905
    # Pictures, as tensors: nothing here decodes a format.
    + """
    AdjustContrastv2 AdjustHue AdjustSaturation CropAndResize HSVToRGB
    ImageProjectiveTransformV2 ImageProjectiveTransformV3 NonMaxSuppression NonMaxSuppressionV2
    NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 CombinedNonMaxSuppression
    RGBToHSV ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor ScaleAndTranslate
    """.split()  # noqa: SIM905
    # Texts, and tables that are filled from tensors of the graph.
    + """
    AsString HashTableV2 InitializeTableV2 LookupTableExportV2 LookupTableFindV2
    LookupTableImportV2 LookupTableInsertV2 LookupTableSizeV2 MutableDenseHashTableV2
    MutableHashTableOfTensorsV2 MutableHashTableV2 RaggedGather RaggedRange RaggedTensorToSparse
    RaggedTensorToTensor RegexFullMatch RegexReplace SparseConcat SparseCross
    SparseFillEmptyRows SparseReduceSum StaticRegexFullMatch StaticRegexReplace StringFormat
    StringJoin StringLength StringLower StringNGrams StringSplit StringSplitV2 StringStrip
    StringToHashBucketFast StringToHashBucketStrong StringToNumber StringUpper Substr
    UnicodeDecodeWithOffsets UnicodeEncode UnicodeScript UnicodeTranscode UnsortedSegmentJoin
    DecodeRaw EncodeBase64 DecodeBase64
    """.split()  # noqa: SIM905
)
"""Operations that compute and do nothing else."""

SCHEMA: Schema = {
    "SavedModel": {2: "MetaGraphDef"},
    "MetaGraphDef": {2: "GraphDef", 7: "SavedObjectGraph"},
    "GraphDef": {1: "NodeDef", 2: "FunctionDefLibrary"},
    "FunctionDefLibrary": {1: "FunctionDef"},
    "SavedObjectGraph": {},
}
"""Of saved_model.proto, what leads to operations; functions are looked into one by one."""

FUNCTION_SCHEMA: Schema = {
    "FunctionDef": {1: "OpDef", 3: "NodeDef", 5: "AttrEntry"},
    "OpDef": {},
    "NodeDef": {5: "AttrEntry"},
    "AttrEntry": {2: "AttrValue"},
    "AttrValue": {1: "ListValue", 10: "NameAttrList"},
    "ListValue": {9: "NameAttrList"},
    "NameAttrList": {2: "AttrEntry"},
}
"""Of function.proto, what leads to operations and to the names of functions that are called."""

_GRAPH_SCHEMA: Schema = {**SCHEMA, "NodeDef": {}, "FunctionDef": {}}
_STAND_IN = "api_implements"
"""Attribute by which TensorFlow's optimiser changes functions for each other."""

_NODE_OP = 2
_NAME = 1
_NUMBERED = re.compile(r"_[0-9]")
"""TensorFlow numbers its functions, such as `cond_true_360`; no operation's name looks so."""


class Function(NamedTuple):
    """What a function of a SavedModel does and whom it calls."""

    name: str
    operations: frozenset[str]
    callees: frozenset[str]
    attributes: frozenset[str]
    """Names of its own attributes and those of its operations."""


def check_saved_model(content: bytes, names: Iterable[str], place: str) -> None:
    """Refuse a SavedModel that could do anything but compute.

    Args:
        content: of `saved_model.pb`.
        names: of all its files.
        place: its name, for the message.

    Raises:
        BundleCorrupt: naming the operation or the file.
    """
    for name in names:
        if name not in FILES and not name.startswith(DATA):
            raise BundleCorrupt(f"{place}: holds the file {name!r}, which no SavedModel here needs")
    try:
        _check_graphs(content)
    except WireInvalid as error:
        raise BundleCorrupt(f"{place}: {GRAPH} is no SavedModel ({error})") from None
    except _Refused as reason:
        raise BundleCorrupt(f"{place}: {reason}") from None


class _Refused(Exception):
    """Why a SavedModel is not loaded."""


def _check_graphs(content: bytes) -> None:
    found: dict[str, list[Message]] = {kind: [] for kind in _GRAPH_SCHEMA}
    for message in messages(content, "SavedModel", _GRAPH_SCHEMA):
        found[message.kind].append(message)
    if len(found["MetaGraphDef"]) != 1 or len(found["SavedObjectGraph"]) != 1:
        # Without objects TensorFlow would run the graph itself to initialise and restore it.
        raise _Refused("expected one graph with its objects, as TensorFlow 2 saves them")
    functions = [_function(message) for message in found["FunctionDef"]]
    names = {function.name for function in functions}
    savers = {function.name for function in functions if function.operations & CHECKPOINT}
    for node in found["NodeDef"]:
        _check_operation(text(node, _NODE_OP), names | CHECKPOINT)
    for function in functions:
        _check_function(function, names, savers)
    _check_objects(found["SavedObjectGraph"][0], savers)


def _check_objects(objects: Message, savers: set[str]) -> None:
    content = bytes(objects.content)
    for name in savers:
        if name.encode() in content:
            raise _Refused(f"an object refers to {name[:100]!r}, which reads or writes files")


def _function(message: Message) -> Function:
    operations, callees, attributes, names = [], [], [], []
    for part in messages(bytes(message.content), "FunctionDef", FUNCTION_SCHEMA):
        if part.kind == "NodeDef":
            operations.append(text(part, _NODE_OP))
        elif part.kind == "NameAttrList":
            callees.append(text(part, _NAME))
        elif part.kind == "AttrEntry":
            attributes.append(text(part, _NAME))
        elif part.kind == "OpDef":
            names.append(text(part, _NAME))
    if len(names) != 1:
        raise _Refused("a function has no name, or several")
    return Function(names[0], *map(frozenset, (operations, callees, attributes)))


def _check_function(function: Function, names: set[str], savers: set[str]) -> None:
    if not _NUMBERED.search(function.name):
        raise _Refused(f"function {function.name[:100]!r} could be taken for an operation")
    is_saver = function.name in savers
    if is_saver and _STAND_IN in function.attributes:
        raise _Refused(f"function {function.name[:100]!r} offers to stand in for others")
    for operation in function.operations:
        _check_operation(operation, names | (CHECKPOINT if is_saver else set()))
    unknown = function.callees - names - {""}
    if unknown:
        raise _Refused(f"function {min(unknown)[:100]!r} is called and not there")
    called = (function.callees | function.operations) & savers
    if called:
        raise _Refused(f"a function calls {min(called)[:100]!r}, which reads or writes files")


def _check_operation(operation: str, others: set[str] | frozenset[str]) -> None:
    if operation not in ALLOWED and operation not in others:
        raise _Refused(f"operation {operation[:100]!r} is none that models may use")
