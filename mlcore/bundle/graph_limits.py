"""What an ONNX graph may be made of, checked from its bytes before it is loaded: by the import, the gates and the bot.

It needs no package: the bot has none that reads ONNX. The wire format of protocol buffers is a list of (field, value);
only the fields that name an operator, a graph inside a node, a function or another file are looked at.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from mlcore.errors import BundleRefused

MAX_MODEL_BYTES = 64 * 2**20
MAX_NODES = 4096
_MAX_FIELDS = 8 * 2**20
"""Of all messages together. A tree keeps each threshold as a field of its own."""

ONNX, TREES = "", "ai.onnx.ml"

OPERATORS: dict[str, frozenset[str]] = {
    ONNX: frozenset({
        # Arithmetic and activations.
        "Add", "Sub", "Mul", "Div", "Neg", "Identity", "Dropout", "Cast", "Constant", "Gemm", "MatMul", "Einsum",
        "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Gelu", "Celu", "Mish", "Clip", "Sigmoid", "HardSigmoid",
        "HardSwish", "Tanh", "Softplus", "Softsign", "Erf", "Sqrt", "Exp", "Log", "Pow", "Reciprocal", "Abs", "Sin",
        "Cos", "Sign", "Floor", "Ceil", "Round", "Max", "Min", "Mean", "Sum", "Mod",
        # Normalisation, reduction and comparison.
        "BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization",
        "RMSNormalization", "LpNormalization", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2",
        "ReduceSumSquare", "CumSum", "ArgMax", "ArgMin", "Where", "Equal", "Greater", "GreaterOrEqual", "Less",
        "LessOrEqual", "And", "Or", "Not", "IsNaN", "Softmax", "LogSoftmax",
        # Shapes.
        "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Split", "Slice", "Gather", "Shape",
        "Size", "Expand", "Tile", "Pad", "ConstantOfShape", "CastLike", "Trilu", "GatherElements", "Range",
        # Convolution, recurrence, attention.
        "Conv", "ConvTranspose", "AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "LSTM", "GRU",
        "RNN", "Attention", "RotaryEmbedding",
        # Static quantization.
        "QuantizeLinear", "DequantizeLinear",
    }),
    TREES: frozenset({
        "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor", "LinearClassifier", "LinearRegressor",
        "SVMClassifier", "SVMRegressor", "Scaler", "Normalizer", "Imputer", "Binarizer", "FeatureVectorizer",
        "ArrayFeatureExtractor",
    }),
}  # fmt: skip
"""By domain. Each computes its value from its inputs alone."""

_SIZES: dict[str, range] = {
    **dict.fromkeys(("Reshape", "Expand", "Tile", "Pad", "Split", "Squeeze", "Unsqueeze"), range(1, 2)),
    **dict.fromkeys(("Slice",), range(1, 5)),
    **dict.fromkeys(("ConstantOfShape",), range(1)),
    **dict.fromkeys(("Range",), range(3)),
}
"""The inputs that determine the size of an operator's output. They must not depend on the values of the rows: a single
row could then ask a bot for all its memory."""

_UNROLL = "a loop may run for ever: write recurrence as LSTM, GRU or RNN, or unroll it"
_BY_CHANCE = "it answers by chance: call model.eval() and export the graph again"
_BY_BATCH = (
    "it scales by the whole batch, so one row alone is answered otherwise: quantize statically, with QuantizeLinear and"
    " DequantizeLinear"
)
_BY_DATA = "use Where with a fixed size"
ADVICE: dict[str, str] = {
    **dict.fromkeys(("Loop", "Scan", "If", "SequenceMap"), _UNROLL),
    **dict.fromkeys(
        (
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
            "Bernoulli",
            "Multinomial",
        ),
        _BY_CHANCE,
    ),
    **dict.fromkeys(("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"), _BY_BATCH),
    **dict.fromkeys(
        ("NonZero", "Unique", "Compress"), f"the size of its output depends on the values: {_BY_DATA}"
    ),
    "ZipMap": "export with the option zipmap=False, so that the scores are one tensor",
}
_OTHERWISE = "write it with the operators that are listed in docs/models.md"


def find_fault(operator: str, domain: str, *, has_graph: bool = False) -> str | None:
    """Why a node is not taken and what to change; None if it is."""
    domain = ONNX if domain == "ai.onnx" else domain
    name = operator[:60]
    if has_graph or operator in ("Loop", "Scan", "If", "SequenceMap"):
        return f"its {name} holds a graph of its own; loops and branches are not taken: {ADVICE.get(operator, _UNROLL)}"
    if domain not in OPERATORS:
        return (
            f"it needs operators of {domain[:60]} ({name}); only ONNX's own and {TREES} are taken: export without custom"
            " or fused operators"
        )
    if operator not in OPERATORS[domain]:
        return f"its graph has the operator {name!r}, which is not taken: {ADVICE.get(operator, _OTHERWISE)}"
    return None


def check_graph(model: bytes) -> None:
    """Raises BundleRefused, which names the operator and what to change."""
    if len(model) > MAX_MODEL_BYTES:
        raise BundleRefused(f"the graph has {len(model):,} bytes; at most {MAX_MODEL_BYTES:,} are taken")
    _Walk().check_model(memoryview(model))


_Node = tuple[str, list[str], list[str]]
"""Operator, inputs and outputs."""


def check_sizes(nodes: Iterable[_Node], fixed: set[str]) -> None:
    """Raises BundleRefused if an output's size depends on the values of the rows. `fixed` are the names of the tensors."""
    known = set(fixed)
    for operator, inputs, outputs in nodes:
        for place in _SIZES.get(operator, ()):
            if place < len(inputs) and inputs[place] not in known:
                raise BundleRefused(
                    f"its {operator} takes the size of its output from the values of the rows; {_BY_DATA}"
                )
        if operator in ("Shape", "Size", "Constant") or known.issuperset(inputs):
            known.update(outputs)


class _Walk:
    """One pass over a ModelProto. The numbers are those of the fields in onnx.proto."""

    def __init__(self) -> None:
        self.fields_left, self.nodes_left = _MAX_FIELDS, MAX_NODES

    def check_model(self, data: memoryview) -> None:
        for field, value in self._read(data):
            if field in (20, 25):
                raise BundleRefused("the graph holds functions or training steps; export a plain one")
            if field == 7:
                self._check_graph(_require_bytes(value))

    def _check_graph(self, data: memoryview) -> None:
        nodes, fixed = list[_Node](), {""}
        for field, value in self._read(data):
            if field == 1:
                self.nodes_left -= 1
                if self.nodes_left < 0:
                    raise BundleRefused(f"the graph has more than {MAX_NODES:,} nodes")
                nodes.append(self._check_node(_require_bytes(value)))
            elif field == 5:
                fixed.add(self._check_tensor(_require_bytes(value)))
            elif field == 15:
                raise BundleRefused("the graph holds sparse tensors; export a plain one")
        check_sizes(nodes, fixed)

    def _check_node(self, data: memoryview) -> _Node:
        operator, domain, has_graph = "", "", False
        inputs, outputs = list[str](), list[str]()
        for field, value in self._read(data):
            if field in (1, 2):
                (inputs if field == 1 else outputs).append(_decode(value))
            elif field == 4:
                operator = _decode(value)
            elif field == 7:
                domain = _decode(value)
            elif field == 5:
                has_graph |= self._has_graph(_require_bytes(value))
        if fault := find_fault(operator, domain, has_graph=has_graph):
            raise BundleRefused(fault)
        return operator, inputs, outputs

    def _has_graph(self, data: memoryview) -> bool:
        for field, value in self._read(data):
            if field in (6, 11):
                return True
            if field in (5, 10):
                self._check_tensor(_require_bytes(value))
        return False

    def _check_tensor(self, data: memoryview) -> str:
        """Its name."""
        name = ""
        for field, value in self._read(data):
            if field == 13 or (field == 14 and value == 1):
                raise BundleRefused(
                    "the graph keeps a tensor in another file; put the weights into the one file"
                )
            if field == 8:
                name = _decode(value)
        return name

    def _read(self, data: memoryview) -> Iterator[tuple[int, Any]]:
        """The fields of one message: whole numbers, and bytes. Raises BundleRefused for what is none."""
        at, end = 0, len(data)
        while at < end:
            self.fields_left -= 1
            if self.fields_left < 0:
                raise BundleRefused(f"the graph has more than {_MAX_FIELDS:,} fields")
            key, at = _read_number(data, at)
            kind = key & 7
            value: Any = None
            if kind == 0:
                value, at = _read_number(data, at)
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            elif kind == 2:
                size, at = _read_number(data, at)
                value = data[at : at + size]
                at += size
            else:
                raise BundleRefused("the graph is damaged: it is no ONNX file")
            if at > end:
                raise BundleRefused("the graph is cut off")
            yield key >> 3, value


def _read_number(data: memoryview, at: int) -> tuple[int, int]:
    """A variable-length whole number, and where the next byte lies."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise BundleRefused("the graph is cut off")
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise BundleRefused("the graph is damaged: it is no ONNX file")


def _require_bytes(value: Any) -> memoryview:
    if not isinstance(value, memoryview):
        raise BundleRefused("the graph is damaged: it is no ONNX file")
    return value


def _decode(value: Any) -> str:
    return bytes(_require_bytes(value)).decode(errors="replace")
