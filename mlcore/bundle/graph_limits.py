"""What an ONNX graph may be made of, checked from its bytes before it is loaded: by the import, the gates and the bot.

It needs no package: the bot has none that reads ONNX. The wire format of protocol buffers is a list of (field, value);
only the fields that name an operator, its attributes, a type, a graph inside a node, a function or another file are
looked at.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from mlcore.bundle.operator_limits import (
    Attribute,
    Node,
    Tensor,
    check_divisions,
    check_names,
    check_training,
    check_trees,
)
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

SIZES: dict[str, range] = {
    **dict.fromkeys(("Reshape", "Expand", "Tile", "Split", "Squeeze", "Unsqueeze"), range(1, 2)),
    **dict.fromkeys(
        ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare"), range(1, 2)
    ),
    **dict.fromkeys(("Slice", "Pad"), range(1, 5)),
    **dict.fromkeys(("ConstantOfShape",), range(1)),
    **dict.fromkeys(("Range",), range(3)),
}
"""The inputs that determine the size of an operator's output. They must not depend on the values of the rows: a single
row could then ask a bot for all its memory. The axes of a reduction are among them: they say which ones stay long."""

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
    "ZipMap": "export with the option zipmap=False, or cut it off as docs/models.md shows: the scores must be one tensor",
}
_SPARSE = "the graph holds sparse tensors; export a plain one"
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


def check_sizes(nodes: Iterable[Node], fixed: set[str]) -> None:
    """Raises BundleRefused if an output's size depends on the values of the rows. `fixed` are the names of the tensors."""
    known = set(fixed)
    for node in nodes:
        operator, inputs, outputs = node.operator, node.inputs, node.outputs
        for place in SIZES.get(operator, ()):
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
        graphs = 0
        for field, value in self._read(data):
            if field in (20, 25):
                raise BundleRefused("the graph holds functions or training steps; export a plain one")
            if field == 7:
                graphs += 1
                if graphs > 1:
                    raise BundleRefused("the graph is written in parts; export a plain one")
                self._check_graph(_require_bytes(value))

    def _check_graph(self, data: memoryview) -> None:
        nodes, tensors, inputs = list[Node](), dict[str, Tensor](), dict[str, int]()
        for field, value in self._read(data):
            if field == 1:
                self.nodes_left -= 1
                if self.nodes_left < 0:
                    raise BundleRefused(f"the graph has more than {MAX_NODES:,} nodes")
                nodes.append(self._check_node(_require_bytes(value)))
            elif field == 5:
                tensor = self._check_tensor(_require_bytes(value))
                if tensors.setdefault(tensor.name, tensor) is not tensor:
                    raise BundleRefused(f"the graph holds two tensors named {tensor.name[:60]!r}")
            elif field == 11:
                name, kind = self._read_input(_require_bytes(value))
                inputs[name] = kind
            elif field == 15:
                raise BundleRefused(_SPARSE)
        check_names(nodes, tensors, inputs)
        check_sizes(nodes, {"", *tensors})
        check_training(nodes, tensors)
        check_divisions(
            nodes, tensors, (name for name in inputs if inputs[name] == 1 and name not in tensors)
        )

    def _check_node(self, data: memoryview) -> Node:
        node, has_graph = Node(), False
        for field, value in self._read(data):
            if field in (1, 2):
                (node.inputs if field == 1 else node.outputs).append(_decode(value))
            elif field == 4:
                node.operator = _decode(value)
            elif field == 7:
                node.domain = _decode(value)
            elif field == 5:
                attribute, holds_graph = self._read_attribute(_require_bytes(value))
                has_graph |= holds_graph
                if node.attributes.setdefault(attribute.name, attribute) is not attribute:
                    raise BundleRefused(f"a node has the attribute {attribute.name[:60]!r} twice")
        if fault := find_fault(node.operator, node.domain, has_graph=has_graph):
            raise BundleRefused(fault)
        check_trees(node)
        return node

    def _read_attribute(self, data: memoryview) -> tuple[Attribute, bool]:
        """And whether it holds a graph."""
        attribute, has_graph = Attribute(), False
        for field, value in self._read(data):
            if field in (6, 11):
                has_graph = True
            elif field in (22, 23):
                raise BundleRefused(_SPARSE)
            elif field == 1:
                attribute.name = _decode(value)
            elif field == 3 and isinstance(value, int):
                attribute.number = _to_signed(value)
            elif field == 8:
                attribute.numbers += self._read_numbers(value)
            elif field == 9:
                attribute.texts.append(bytes(_require_bytes(value)))
            elif field in (5, 10):
                tensor = self._check_tensor(_require_bytes(value))
                if field == 5 and attribute.tensor is not None:
                    raise BundleRefused("an attribute is written in parts; export a plain one")
                attribute.tensor = tensor if field == 5 else attribute.tensor
        return attribute, has_graph

    def _read_numbers(self, value: Any) -> Iterator[int]:
        """One whole number, or many that are packed into bytes."""
        if isinstance(value, int):
            yield _to_signed(value)
            return
        packed, at = _require_bytes(value), 0
        while at < len(packed):
            self._count_field()
            number, at = _read_number(packed, at)
            yield _to_signed(number)

    def _check_tensor(self, data: memoryview) -> Tensor:
        tensor = Tensor()
        for field, value in self._read(data):
            if field == 13 or (field == 14 and value == 1):
                raise BundleRefused(
                    "the graph keeps a tensor in another file; put the weights into the one file"
                )
            if field == 8:
                tensor.name = _decode(value)
            elif field == 2 and isinstance(value, int):
                tensor.kind = value
            elif field == 9:
                tensor.raw = bytes(_require_bytes(value))
            elif field in (4, 5, 6, 7, 10, 11):
                tensor.has_other_numbers = True
        return tensor

    def _read_input(self, data: memoryview) -> tuple[str, int]:
        """Its name, and the type of its elements; 0 if it states none, or more than one."""
        name, kinds = "", list[int]()
        for field, value in self._read(data):
            if field == 1:
                name = _decode(value)
            elif field == 2:
                for _, tensor in self._read_only(_require_bytes(value), 1):
                    kinds += [
                        kind
                        for _, kind in self._read_only(_require_bytes(tensor), 1)
                        if isinstance(kind, int)
                    ]
        return name, kinds[0] if len(kinds) == 1 else 0

    def _read_only(self, data: memoryview, wanted: int) -> Iterator[tuple[int, Any]]:
        return ((field, value) for field, value in self._read(data) if field == wanted)

    def _count_field(self) -> None:
        self.fields_left -= 1
        if self.fields_left < 0:
            raise BundleRefused(f"the graph has more than {_MAX_FIELDS:,} fields")

    def _read(self, data: memoryview) -> Iterator[tuple[int, Any]]:
        """The fields of one message: whole numbers, and bytes. Raises BundleRefused for what is none."""
        at, end = 0, len(data)
        while at < end:
            self._count_field()
            key, at = _read_number(data, at)
            if key >= 2**32:  # other readers drop what is above, and see another field
                raise BundleRefused("the graph is damaged: it is no ONNX file")
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


def _to_signed(number: int) -> int:
    """Of 64 bits, as other readers take it."""
    number &= 2**64 - 1
    return number - 2**64 if number >= 2**63 else number


def _require_bytes(value: Any) -> memoryview:
    if not isinstance(value, memoryview):
        raise BundleRefused("the graph is damaged: it is no ONNX file")
    return value


def _decode(value: Any) -> str:
    return bytes(_require_bytes(value)).decode(errors="replace")
