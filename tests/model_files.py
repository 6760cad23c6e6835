"""Checkpoints as bots have them on disk, and such as nobody should have: each as the bytes of one file."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from mlcore.features import indicators

COLUMNS = indicators.SCHEMAS["raw72"].columns
LAYOUTS = ("relu-before-bn", "bn-before-relu")


class ImportedNetwork(nn.Module):
    """The network as others wrote it, in either layout."""

    def __init__(self, layout: str = LAYOUTS[0]) -> None:
        super().__init__()
        self.layout = layout
        widths = (72, 256, 128, 64)
        for number in (1, 2, 3):
            setattr(self, f"fc{number}", nn.Linear(widths[number - 1], widths[number]))
            setattr(self, f"bn{number}", nn.BatchNorm1d(widths[number]))
        self.fc4 = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:  # [n, 72] → [n, 3]
        for number in (1, 2, 3):
            x, normal = getattr(self, f"fc{number}")(x), getattr(self, f"bn{number}")
            x = functional.relu(normal(x)) if self.layout == "bn-before-relu" else normal(functional.relu(x))
        return self.fc4(x)


def network(layout: str = LAYOUTS[0], rows: np.ndarray | None = None, seed: int = 0) -> ImportedNetwork:
    """In eval mode, with BatchNorm's figures of these rows, and not those it begins with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = ImportedNetwork(layout)
        batch = torch.randn(256, 72) if rows is None else torch.from_numpy(rows.astype(np.float32))
        with torch.no_grad():
            for _ in range(40):
                made(batch)
    return made.eval()


def logits(made: nn.Module, rows: np.ndarray) -> np.ndarray:
    """What torch itself answers."""
    with torch.no_grad():
        return made(torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))).numpy()


def saved(held: Any, **options: Any) -> bytes:
    """As torch.save writes it."""
    out = io.BytesIO()
    torch.save(held, out, **options)
    return out.getvalue()


def with_pickle(data: bytes, change: Callable[[bytes], bytes], **entries: bytes) -> bytes:
    """The same archive with its pickle changed, and some entries (by the end of their name) replaced."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = change(old.read(name)) if name.endswith("data.pkl") else old.read(name)
            new.writestr(zipfile.ZipInfo(name), entries.get(name.rpartition("/")[2], content))
    return out.getvalue()


def saved_on_a_gpu(held: Any) -> bytes:
    """As a machine with a GPU writes it: every storage says that it lies on cuda:0."""
    cpu, cuda = (b"X" + len(place).to_bytes(4, "little") + place for place in (b"cpu", b"cuda:0"))
    data = with_pickle(saved(held), lambda content: content.replace(cpu, cuda))
    assert b"cuda:0" in data and cpu not in data
    return data


def onnx_file(
    nodes: list[Any],
    tensors: Mapping[str, np.ndarray],
    *,
    source: str = "x",
    target: str = "y",
    shape: tuple[Any, Any] = ("n", 72),
    answer: tuple[Any, Any] = ("n", 3),
    opsets: Mapping[str, int] | None = None,
    initializers: list[Any] | None = None,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "somebody's",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(target, TensorProto.FLOAT, list(answer))],
        [*(numpy_helper.from_array(array, name) for name, array in tensors.items()), *(initializers or [])],
    )
    made = helper.make_model(
        graph,
        opset_imports=[
            helper.make_opsetid(domain, version) for domain, version in (opsets or {"": 17}).items()
        ],
        ir_version=8,
        producer_name="somebody",
        doc_string="/home/somebody/train.py",
    )
    return bytes(made.SerializeToString())


LINEAR = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1, doc_string="/home/somebody/train.py")


def linear_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(3, 72)).astype(np.float32), "b": rng.normal(size=3).astype(np.float32)}


class _Runs:
    """Unpickled, it calls a function with arguments: what a hostile pickle is."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _huge_tensor(state: Mapping[str, Tensor]) -> bytes:
    """A weight that claims 10^12 rows over the storage of one number."""
    claims = torch.zeros(1).expand(10**12, 72)
    return saved({**state, "fc1.weight": claims})


def _longer_than_its_storage(data: bytes) -> bytes:
    """The first weight's storage says that it has far more numbers than its bytes."""
    rows = b"M" + (72 * 256).to_bytes(2, "little")
    assert rows in pickle_of(data)
    return with_pickle(data, lambda content: content.replace(rows, b"J" + (2**31 - 1).to_bytes(4, "little")))


def pickle_of(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _zip(*entries: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return out.getvalue()


def _link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("archive/data/0")
    entry.external_attr = 0o120777 << 16
    return entry


def _external() -> bytes:
    """The weights in another file, which a path names."""
    tensor = TensorProto(name="w", dims=[3, 72], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")
    return onnx_file([LINEAR], {"b": np.zeros(3, np.float32)}, initializers=[tensor])


def _external_in_a_constant() -> bytes:
    tensor = TensorProto(dims=[3, 72], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    nodes = [helper.make_node("Constant", [], ["w"], value=tensor), LINEAR]
    return onnx_file(nodes, {"b": np.zeros(3, np.float32)})


def _declares_too_much() -> bytes:
    tensor = TensorProto(name="w", dims=[2**40, 2**40], data_type=TensorProto.FLOAT, raw_data=b"\0" * 4)
    return onnx_file([LINEAR], {"b": np.zeros(3, np.float32)}, initializers=[tensor])


def _loop() -> bytes:
    """2^62 turns of nothing."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["goes"]), helper.make_node("Identity", ["v"], ["w"])],
        "turn",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    turns = {"turns": np.array(2**62), "go": np.array(True)}
    nodes = [LINEAR, helper.make_node("Loop", ["turns", "go", "y"], ["z"], body=body)]
    return onnx_file(nodes, {**linear_tensors(), **turns}, target="z")


def _branch() -> bytes:
    branch = helper.make_graph(
        [], "branch", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    nodes = [LINEAR, helper.make_node("If", ["go"], ["z"], then_branch=branch, else_branch=branch)]
    return onnx_file(nodes, {**linear_tensors(), "go": np.array(True)}, target="z")


def _function() -> bytes:
    made = onnx.load_model_from_string(onnx_file([LINEAR], linear_tensors()))
    made.functions.append(
        helper.make_function("", "Hidden", ["a"], ["b"], [LINEAR], [helper.make_opsetid("", 17)])
    )
    return bytes(made.SerializeToString())


def hostile(canary: Path) -> dict[str, tuple[Callable[[], bytes], str]]:
    """By what they are: how the file is made, and what its refusal says. One that runs leaves the canary behind."""
    state = network().state_dict()
    sound = saved(state)
    command = f"touch {canary}"
    gru = helper.make_node("GRU", ["x", "w", "b"], ["y"], hidden_size=3)
    return {
        "an empty file": (lambda: b"", "neither"),
        "plain text": (lambda: b"fc1.weight = 1\n" * 100, "neither"),
        "a bare pickle": (lambda: pickle.dumps(_Runs(os.system, command)), "a Python pickle"),
        "os.system in the pickle": (lambda: saved(_Runs(os.system, command)), "system"),
        "os.system beside a sound state dict": (
            lambda: saved({"model_state_dict": state, "x": _Runs(os.system, command)}),
            "system",
        ),
        "eval in the pickle": (lambda: saved(_Runs(eval, f"open({str(canary)!r}, 'w')")), "eval"),
        "a file opened by the pickle": (lambda: saved(_Runs(open, str(canary), "w")), "open"),
        "torch.load called by the pickle": (
            lambda: saved(_Runs(torch.load, str(canary))),
            "torch.serialization.load",
        ),
        "a whole module, pickled": (lambda: saved(network()), "ImportedNetwork"),
        "an archive cut off": (lambda: sound[: len(sound) // 2], "cut off"),
        "an archive of one entry": (lambda: _zip(("archive/data.pkl", b"\x80\x02.")), "cannot be read"),
        "a bomb of zeros": (
            lambda: _zip(("archive/data.pkl", bytes(2**24)), compression=zipfile.ZIP_DEFLATED),
            "compressed",
        ),
        "a thousand entries too many": (
            lambda: _zip(*((f"a/{n}", b"") for n in range(2000))),
            "2,000 entries",
        ),
        "a name that leads out of the archive": (lambda: _zip(("../../x", b"")), "leads out of it"),
        "an absolute name": (lambda: _zip(("/etc/x", b"")), "leads out of it"),
        "a link in the archive": (lambda: _zip((_link(), b"/etc/passwd")), "a link in it"),
        "a tensor that claims a trillion rows": (lambda: _huge_tensor(state), "1000000000000"),
        "a storage longer than its bytes": (lambda: _longer_than_its_storage(sound), "cannot be read"),
        "a tensor of another shape": (
            lambda: saved({**state, "fc2.weight": torch.zeros(64, 128)}),
            "fc2.weight has the shape",
        ),
        "a tensor too many": (lambda: saved({**state, "lstm.weight": torch.zeros(3)}), "lstm.weight"),
        "a tensor too few": (
            lambda: saved({k: v for k, v in state.items() if k != "bn2.bias"}),
            "lacks bn2.bias",
        ),
        "a list where a tensor belongs": (
            lambda: saved({**state, "fc4.bias": [0.0, 0.0, 0.0]}),
            "fc4.bias is no tensor",
        ),
        "whole numbers where a tensor belongs": (
            lambda: saved({**state, "fc4.bias": torch.zeros(3).long()}),
            "int64",
        ),
        "a sparse tensor": (
            lambda: saved({**state, "fc4.bias": torch.zeros(3).to_sparse()}),
            "fc4.bias is no tensor",
        ),
        "a tensor without numbers": (
            lambda: saved({**state, "fc4.bias": torch.zeros(3, device="meta")}),
            "fc4.bias",
        ),
        "a list of numbers": (lambda: saved([1, 2, 3]), "holds a list"),
        "ONNX cut off": (lambda: onnx_file([LINEAR], linear_tensors())[:-300], "cut off"),
        "ONNX with its weights elsewhere": (lambda: _external(), "another file"),
        "ONNX with a constant elsewhere": (lambda: _external_in_a_constant(), "another file"),
        "ONNX that declares 2^80 numbers": (lambda: _declares_too_much(), "at most"),
        "ONNX with a loop": (lambda: _loop(), "loops and branches"),
        "ONNX with a branch": (lambda: _branch(), "loops and branches"),
        "ONNX with a function": (lambda: _function(), "functions"),
        "ONNX with a Python operator": (
            lambda: onnx_file(
                [helper.make_node("PyOp", ["x"], ["y"], domain="ai.onnx.contrib")],
                linear_tensors(),
                opsets={"": 17, "ai.onnx.contrib": 1},
            ),
            "ai.onnx.contrib",
        ),
        "ONNX with an operator nobody knows": (
            lambda: onnx_file([helper.make_node("RunMe", ["x"], ["y"])], linear_tensors()),
            "RunMe",
        ),
        "ONNX with a recurrent layer over no bars": (lambda: onnx_file([gru], linear_tensors()), "GRU"),
        "ONNX with two inputs of another width": (
            lambda: onnx_file([LINEAR], linear_tensors(), shape=("n", 71)),
            "72",
        ),
        "ONNX that answers two classes": (
            lambda: onnx_file([LINEAR], linear_tensors(), answer=("n", 2)),
            "3",
        ),
        "ONNX whose nodes do not meet": (
            lambda: onnx_file(
                [helper.make_node("Gemm", ["nobody", "w", "b"], ["y"], transB=1)], linear_tensors()
            ),
            "cannot be loaded",
        ),
        "ONNX that ignores its input": (
            lambda: onnx_file(
                [helper.make_node("Identity", ["w3"], ["y"])], {"w3": np.zeros((3, 3), np.float32)}
            ),
            "answers 1 rows",
        ),
    }
