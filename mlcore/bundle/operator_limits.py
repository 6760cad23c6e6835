"""Nodes that may end the process, never return, or answer by chance.

These are divisions of whole numbers, trees with a way back, and layers in training mode.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mlcore.errors import BundleRefused

_FLOATS = frozenset({1, 10, 11, 16})
"""float32, float16, float64, bfloat16, as TensorProto numbers them."""
_WHOLE_SIZES = {2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 12: 4, 13: 8}
"""Bytes of one number of each type of whole numbers."""

_FLOAT_ANSWERS = frozenset({
    "DequantizeLinear", "TreeEnsemble", "TreeEnsembleRegressor", "LinearRegressor", "SVMRegressor", "Scaler",
    "Normalizer", "FeatureVectorizer", "RMSNormalization",
})  # fmt: skip
_CLASSIFIERS = frozenset({"TreeEnsembleClassifier", "LinearClassifier", "SVMClassifier"})
"""They answer a label, and floats behind it."""
OTHER_TYPE = frozenset({
    "Shape", "Size", "Constant", "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And",
    "Or", "Not", "IsNaN", "QuantizeLinear", "Binarizer",
})  # fmt: skip
"""Their answers are not floats, or are not followed up."""
OWN_RULE = frozenset({"Where", "CastLike", "Cast", "ConstantOfShape"}) | _FLOAT_ANSWERS | _CLASSIFIERS
"""The first answer of each other operator has the type of its first input."""
SAME_TYPE_ANSWERS = frozenset({"Split", "LSTM", "GRU", "RNN"})
"""All their answers have it."""


@dataclass
class Tensor:
    """The type of a stored tensor, and its bytes if it keeps its numbers in them alone."""

    name: str = ""
    kind: int = 0
    raw: bytes | None = None
    has_other_numbers: bool = False

    @property
    def is_divisor(self) -> bool:
        """Whether it holds whole numbers, none of them 0 or -1: the processor stops a process that divides by these."""
        size = _WHOLE_SIZES.get(self.kind)
        if size is None or self.raw is None or self.has_other_numbers:
            return False
        traps = bytes(size), b"\xff" * size
        return not any(self.raw[at : at + size] in traps for at in range(0, len(self.raw), size))

    @property
    def is_zero(self) -> bool:
        """Whether all its numbers, kept in its bytes alone, are 0."""
        return bool(self.raw) and not any(self.raw or b"") and not self.has_other_numbers


@dataclass
class Attribute:
    name: str = ""
    number: int | None = None
    numbers: list[int] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    tensor: Tensor | None = None


@dataclass
class Node:
    operator: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, Attribute] = field(default_factory=dict)


def check_names(nodes: Iterable[Node], tensors: Iterable[str], inputs: Iterable[str]) -> None:
    """Raises BundleRefused if a value is made twice: what is known of one would be taken for the other."""
    known = {*tensors, *inputs}
    for node in nodes:
        for name in filter(None, node.outputs):
            if name in known:
                raise BundleRefused(f"the graph makes the value {name[:60]!r} twice; export it again")
            known.add(name)


def check_training(nodes: Iterable[Node], tensors: Mapping[str, Tensor]) -> None:
    """Raises BundleRefused for a layer in training mode: it answers by chance, or by the other rows of its batch."""
    for node in nodes:
        switch = node.inputs[2] if node.operator == "Dropout" and len(node.inputs) > 2 else ""
        stored = tensors.get(switch)
        is_off = not switch or (stored is not None and stored.is_zero)
        if not is_off or _read_number(node, "training_mode"):
            raise BundleRefused(
                f"its {node.operator} is in training mode; call model.eval() and export the graph again"
            )


def check_divisions(
    nodes: Iterable[Node], tensors: Mapping[str, Tensor], float_inputs: Iterable[str]
) -> None:
    """Raises BundleRefused unless each division is one of floats, or by stored whole numbers that are safe.

    The types of both sides are the same, or no graph is loaded: one that is known is enough.
    """
    floats = {*float_inputs, *(name for name, tensor in tensors.items() if tensor.kind in _FLOATS)}
    for node in nodes:
        if node.operator in ("Div", "Mod") and not floats.intersection(node.inputs):
            divisor = tensors.get(node.inputs[1]) if len(node.inputs) > 1 else None
            if divisor is None or not divisor.is_divisor:
                raise BundleRefused(
                    f"its {node.operator} divides whole numbers, or numbers whose type is not known, which may end the"
                    " process: cast both sides to float, or divide by a stored tensor without 0 and -1"
                )
        floats.update(_list_floats(node, floats))


def _list_floats(node: Node, floats: set[str]) -> Sequence[str]:
    """The outputs that are surely floats."""
    operator, inputs, outputs = node.operator, node.inputs, node.outputs
    if operator in _FLOAT_ANSWERS:
        return outputs
    if operator in _CLASSIFIERS:
        return outputs[1:]
    if operator == "Cast":
        return outputs if _read_number(node, "to") in _FLOATS else ()
    if operator == "ConstantOfShape":
        value = node.attributes.get("value")
        kind = 1 if value is None else value.tensor.kind if value.tensor else 0
        return outputs if kind in _FLOATS else ()
    if operator in OTHER_TYPE:
        return ()
    place = 1 if operator in ("Where", "CastLike") else 0
    if len(inputs) <= place or inputs[place] not in floats:
        return ()
    return outputs if operator in SAME_TYPE_ANSWERS else outputs[:1]


def _read_number(node: Node, name: str) -> int | None:
    attribute = node.attributes.get(name)
    return None if attribute is None else attribute.number


def check_trees(node: Node) -> None:
    """Raises BundleRefused unless each node of a tree is reached in one way: a row could go round for ever."""
    if node.operator in ("TreeEnsembleClassifier", "TreeEnsembleRegressor"):
        children = _list_children(node)
    elif node.operator == "TreeEnsemble":
        children = _list_children_by_place(node)
    else:
        return
    parents = [0] * len(children)
    for places in children:
        for place in places:
            parents[place] += 1
    waiting = [place for place, count in enumerate(parents) if not count]
    seen = 0
    while waiting:
        seen += 1
        waiting.extend(children[waiting.pop()])
        if seen > len(children):
            break
    if seen != len(children) or any(count > 1 for count in parents):
        raise _refuse_trees(node, "reach a node in two ways, or go round in a circle")


def _list_children(node: Node) -> list[list[int]]:
    """For each node of all trees, the places of the nodes behind it."""
    trees, ids, true, false = (
        _read_numbers(node, f"nodes_{name}") for name in ("treeids", "nodeids", "truenodeids", "falsenodeids")
    )
    modes = node.attributes["nodes_modes"].texts if "nodes_modes" in node.attributes else []
    places = {key: place for place, key in enumerate(zip(trees, ids, strict=False))}
    if not len(places) == len(trees) == len(ids) == len(true) == len(false) == len(modes):
        raise _refuse_trees(node, "name a node twice, or not in full")
    try:
        return [
            [] if mode == b"LEAF" else [places[tree, left], places[tree, right]]
            for tree, left, right, mode in zip(trees, true, false, modes, strict=True)
        ]
    except KeyError as error:
        raise _refuse_trees(node, "lead to a node that there is not") from error


def _list_children_by_place(node: Node) -> list[list[int]]:
    """The same of operator set 5, where nodes are named by their place and leaves are listed apart."""
    ends = [
        (_read_numbers(node, f"nodes_{side}nodeids"), _read_numbers(node, f"nodes_{side}leafs"))
        for side in ("true", "false")
    ]
    count = len(ends[0][0])
    if any(len(numbers) != count for pair in ends for numbers in pair):
        raise _refuse_trees(node, "name a node not in full")
    children = [
        [places[at] for places, leaves in ends if not leaves[at]]
        for at in range(count)
    ]  # fmt: skip
    if any(not 0 <= place < count for places in children for place in places):
        raise _refuse_trees(node, "lead to a node that there is not")
    return children


def _read_numbers(node: Node, name: str) -> list[int]:
    attribute = node.attributes.get(name)
    return [] if attribute is None else attribute.numbers


def _refuse_trees(node: Node, what: str) -> BundleRefused:
    return BundleRefused(f"the trees of its {node.operator} {what}; export them again")
