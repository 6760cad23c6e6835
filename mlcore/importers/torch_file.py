"""Reads a torch checkpoint with torch's weights-only unpickler, if its archive is one that torch.save writes.

Objects of NumPy and scikit-learn in the pickle become the inert stand-ins below: none of their code runs.
"""

import io
import math
import pickle
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mlcore.bundle import onnx_graph
from mlcore.constants import N_FEATURES
from mlcore.errors import ImportRefused
from mlcore.features.scaler import Scaler

_STATE = ("model_state_dict", "state_dict", "model")
_SCALERS = ("scaler_params", "scaler")
_TRAINING = ("n_averaged", "criterion.", "loss.", "loss_fn.", "criterion_")
"""Beside the network in its state dict: AveragedModel's counter, and the weights of a loss."""
_SCALER_NAME = re.compile(
    r"(?<!grad)(?<!grad_)(?<!loss)(?<!loss_)(?<!amp)(?<!amp_)scal(?:er|ing)|normali[sz]|standardi[sz]|^(?:feature_?|x_)?(?:means?|stds?|norm|preprocess(?:ing|or))$",
    re.IGNORECASE,
)
"""A name under which a file may hold what its features were scaled by. A GradScaler scales losses."""
_SCALES = ("scale", "scale_", "std", "std_")
_OTHER_SCALER = re.compile(
    r"clip|eps|min|max|range|cent(?:er|re)|quantile|lambda|log|power|median", re.IGNORECASE
)
"""Members of a scaler that is not (features - mean) / scale."""
_STANDARD = re.compile(r"standard|z.?score", re.IGNORECASE)
_COUNTERS = "num_batches_tracked"
_USED = {*_STATE, *_SCALERS, "feature_columns", "temperature"}
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_MAX_ENTRIES = 1024
_MAX_BYTES = 64 * 2**20
"""Of all entries together. The network has 260 kB, an optimizer's state twice that."""
_TEXT_DTYPE = re.compile(r"U[1-9]\d{0,3}")
_SHOWN_NAMES = 8
_MAX_FIGURES = 1024
"""The longest row of numbers that is read; there are 72 features."""


_OTHER_ARCHIVES = {
    "/constants.pkl": "a TorchScript model (torch.jit.save), which is a program; save the weights alone with"
    " torch.save(model.state_dict(), path)",
    "/code/": "a TorchScript model (torch.jit.save), which is a program; save the weights alone with"
    " torch.save(model.state_dict(), path)",
    "/model.weights.h5": "a Keras model; export an ONNX file",
    ".npy": "NumPy arrays (npz); save a state dict with torch.save",
    "/[Content_Types].xml": "an Office document; import the model's own file",
    "/META-INF/": "a Java archive; import the model's own file",
}
"""By a part of a name in the archive."""


@dataclass(frozen=True)
class TorchCheckpoint:
    """The contents of the file; None for what it does not hold."""

    weights: dict[str, np.ndarray]
    """float32, every tensor of the network in its shape, without counters."""
    columns: tuple[str, ...] | None
    scaler: Scaler | None
    temperature: float | None
    ignored: tuple[str, ...]
    """Other names, which a prediction does not need."""


def read_checkpoint(data: bytes) -> TorchCheckpoint:
    """Raises ImportRefused."""
    _check_archive(data)
    content = _load(data)
    if not isinstance(content, Mapping):
        raise ImportRefused(f"it holds a {type(content).__name__}, not a state dict or a dict with one")
    key, outer, state = _split_state(content)
    inner_temperature, state = _split_temperature(state)
    return TorchCheckpoint(
        weights=_read_weights(state),
        columns=_read_columns(outer.get("feature_columns")),
        scaler=_read_scaler(outer),
        temperature=_read_temperature(outer.get("temperature"), inner_temperature),
        ignored=tuple(sorted(str(name) for name in outer if name not in _USED and name != key)),
    )


def _check_archive(data: bytes) -> None:
    """Raises ImportRefused for an archive that torch.save did not write."""
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ImportRefused(f"its archive is damaged or cut off ({error})") from error
    names = [entry.orig_filename for entry in entries]
    for mark, what in _OTHER_ARCHIVES.items():
        if any(mark in f"/{name}" for name in names):
            raise ImportRefused(f"it is {what}")
    if len(entries) > _MAX_ENTRIES:
        raise ImportRefused(f"its archive has {len(entries):,} entries; a checkpoint has a few dozen")
    has_pickle = any(name.endswith("data.pkl") for name in names)
    for entry in entries:
        name = entry.orig_filename
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
            raise ImportRefused(f"its archive has an entry named {name[:80]!r}, which leads out of it")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ImportRefused(f"its archive has a link in it, {name[:80]!r}")
        if not has_pickle:
            listed = ", ".join(each[:40] for each in names[:3])
            raise ImportRefused(
                f"it is a zip of other files ({listed}), not a checkpoint; unpack it, and import the file inside"
            )
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ImportRefused(f"its archive is compressed ({name[:80]!r}); torch.save compresses nothing")
    if (total := sum(entry.file_size for entry in entries)) > _MAX_BYTES:
        raise ImportRefused(f"its archive unpacks to {total:,} bytes; the limit is {_MAX_BYTES:,}")


def _load(data: bytes) -> Any:
    try:
        with torch.serialization.safe_globals(list(_STAND_INS)):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (ImportRefused, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise ImportRefused(_explain(str(error))) from error
    except Exception as error:  # a hostile file may raise any error
        reason = f"{type(error).__name__}: {_shorten(error)}"
        raise ImportRefused(f"it cannot be read as a checkpoint ({reason})") from error


def _explain(message: str) -> str:
    """torch's message suggests to allow the class that it names, which must not be done here."""
    _, _, rest = message.partition("GLOBAL ")
    if not rest.split():
        return f"it holds something else than tensors and plain values ({_shorten(message)})"
    name = rest.split()[0][:80]
    return f"it holds {name}, which would have to be run to be read; only tensors and plain values are taken"


def _shorten(error: object) -> str:
    return " ".join(str(error).split())[:200]


def _split_state(content: Mapping[Any, Any]) -> tuple[str | None, Mapping[Any, Any], Mapping[Any, Any]]:
    """The key of the state dict in the dict around it, that dict, and the state dict."""
    # Under any other key, if it has the names of the network.
    named = [
        name
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Mapping) and (name in _STATE or _is_state(value))
    ]
    if not named and not _is_state(content):
        inner = [value for value in content.values() if isinstance(value, Mapping) and _list_states(value)]
        if len(inner) == 1:
            return _split_state(
                {**{name: value for name, value in content.items() if value is not inner[0]}, **inner[0]}
            )
    if len(named) > 1:
        raise ImportRefused(f"it holds several state dicts ({', '.join(named)}); keep the one that is meant")
    return (named[0], content, content[named[0]]) if named else (None, {}, content)


def _list_states(content: Mapping[Any, Any]) -> list[Any]:
    return [name for name, value in content.items() if _is_state(value)]


def _is_state(value: Any) -> bool:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    return set(onnx_graph.list_tensor_shapes(())) <= set(_strip_prefixes(value))


def _strip_prefixes(state: Mapping[str, Any]) -> dict[str, Any]:
    """Without the prefixes that every name has, as DataParallel, torch.compile and Lightning write them."""
    plain = {name: value for name, value in state.items() if not name.startswith(_TRAINING)}
    while (
        plain and len({name.partition(".")[0] for name in plain}) == 1 and all("." in name for name in plain)
    ):
        plain = {name.partition(".")[2]: value for name, value in plain.items()}
    is_network = not set(plain).isdisjoint(onnx_graph.list_tensor_shapes(()))
    return plain if is_network else dict(state)


def _split_temperature(state: Mapping[Any, Any]) -> tuple[Any, dict[str, Any]]:
    """The temperature if it is a parameter, and the rest without prefixes."""
    if not all(isinstance(name, str) for name in state):
        raise ImportRefused("its state dict has names that are not text")
    plain = _strip_prefixes(state)
    return plain.pop("temperature", None), plain


def _read_weights(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    expected = onnx_graph.list_tensor_shapes(())
    tensors = {name: value for name, value in state.items() if not name.endswith(_COUNTERS)}
    if missing := [name for name in expected if name not in tensors]:
        raise ImportRefused(
            f"its state dict lacks {', '.join(missing[:4])}: the network is 72-256-128-64-3, named fc1…fc4 and bn1…bn3."
            f" It holds {_format_found(state)}"
        )
    if extra := sorted(set(tensors) - set(expected)):
        raise ImportRefused(f"its state dict holds what the network does not have: {', '.join(extra)[:200]}")
    return {name: _read_array(name, tensors[name], shape) for name, shape in expected.items()}


def _format_found(state: Mapping[str, Any]) -> str:
    """The names in the file, of dicts also those inside; first those that few share a prefix with."""
    found = [
        f"{name}.{inner}" if inner else name
        for name, value in state.items()
        for inner in (list(value)[:_SHOWN_NAMES] if isinstance(value, Mapping) and value else [""])
    ]
    prefixes = Counter(str(name).partition(".")[0] for name in found)
    found.sort(key=lambda name: prefixes[str(name).partition(".")[0]])
    shown = ", ".join(repr(str(name)[:60]) for name in found[:_SHOWN_NAMES])
    more = f" and {len(found) - _SHOWN_NAMES} more" if len(found) > _SHOWN_NAMES else ""
    return f"{shown or 'nothing'}{more}"


def _read_array(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Checks the tensor before it is copied: it may claim any shape over a few bytes."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.dtype not in _FLOATS:
        kind = value.dtype if isinstance(value, torch.Tensor) else _describe_type(value)
        raise ImportRefused(f"{name} is no tensor of floating-point numbers but {kind}")
    if tuple(value.shape) != shape:
        raise ImportRefused(f"{name} has the shape {tuple(value.shape)}; the network's is {shape}")
    if value.device.type != "cpu":
        raise ImportRefused(f"{name} has no numbers in the file (it is on {value.device})")
    return np.ascontiguousarray(value.detach().to(torch.float32).numpy())


def _describe_type(value: Any) -> str:
    return "a NumPy array; save tensors" if isinstance(value, _Array) else type(value).__name__


def _read_columns(columns: Any) -> tuple[str, ...] | None:
    if columns is None:
        return None
    names = columns.values if isinstance(columns, _Array) else columns
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ImportRefused("its feature_columns are not a list of names")
    return tuple(names)


def _read_scaler(outer: Mapping[Any, Any]) -> Scaler | None:
    named = [name for name in _SCALERS if outer.get(name) is not None and not _is_grad_scaler(outer[name])]
    unknown = [
        str(name)[:60]
        for name, value in outer.items()
        if name not in _SCALERS
        and _SCALER_NAME.search(str(name))
        and not _is_plain(value)
        and not _is_grad_scaler(value)
    ]
    if unknown:
        raise ImportRefused(
            f"its {' and '.join(unknown)} may be what its features were scaled by: put {{mean, scale}} under scaler, or"
            " leave it out"
        )
    if not named:
        return None
    if len(named) > 1:
        raise ImportRefused(f"it holds two scalers ({' and '.join(named)}); keep the one that is meant")
    figures = outer[named[0]]
    figures = figures.__dict__ if isinstance(figures, _StandardScaler) else figures
    if not isinstance(figures, Mapping):
        raise ImportRefused(f"its {named[0]} is a {type(figures).__name__}, not {{mean, scale}}")
    _refuse_other_scaler(named[0], figures)
    centres, scales = (_read_switch(named[0], figures, name) for name in ("with_mean", "with_std"))
    return Scaler(
        _read_figures(named[0], figures, ("mean", "mean_")) if centres else np.zeros(N_FEATURES),
        _read_figures(named[0], figures, _SCALES) if scales else np.ones(N_FEATURES),
    )


def _is_grad_scaler(value: Any) -> bool:
    """What torch.amp scales its losses by."""
    return isinstance(value, Mapping) and "growth_factor" in value


def _is_plain(value: Any) -> bool:
    """Whether it is one figure or word, such as a setting's."""
    return value is None or isinstance(value, bool | int | float | str)


def _refuse_other_scaler(scaler: str, figures: Mapping[Any, Any]) -> None:
    """Raises ImportRefused for members of a scaler that does something else, or more, than (features - mean) / scale."""
    kinds = [
        str(figures[name])
        for name in ("type", "kind", "class", "name", "method")
        if isinstance(figures.get(name), str)
    ]
    found = [kind for kind in kinds if not _STANDARD.search(kind)]
    found += [
        str(name)
        for name, value in figures.items()
        if _OTHER_SCALER.search(str(name)) and value is not None and value is not False
    ]
    if found:
        raise ImportRefused(
            f"its {scaler} has {', '.join(found)[:200]}: only (features - mean) / scale is read; put {{mean, scale}} there,"
            " or export an ONNX file with the scaling in its graph"
        )


def _read_switch(scaler: str, content: Mapping[Any, Any], name: str) -> bool:
    """Whether scikit-learn's scaler applies these figures: without it, it keeps a mean that it does not subtract."""
    switch = content.get(name, True)
    switch = switch.values[0] if isinstance(switch, _Array) and len(switch.values) == 1 else switch
    if type(switch) is not bool:
        raise ImportRefused(f"its {scaler}.{name} is {str(switch)[:40]!r}, neither true nor false")
    return switch


def _read_figures(scaler: str, content: Mapping[Any, Any], names: Sequence[str]) -> np.ndarray:
    """The figures of the one of these names that is there."""
    found = [name for name in names if content.get(name) is not None]
    name, value = (found[0], content[found[0]]) if found else (names[0], None)
    if len(found) > 1:
        raise ImportRefused(f"its {scaler} has {' and '.join(found)}; keep the one that is meant")
    if value is None:
        raise ImportRefused(
            f"its {scaler} has no {name}; it has {', '.join(sorted(map(str, content)))[:200] or 'nothing'}"
        )
    numbers = _to_numbers(f"{scaler}.{name}", value)
    if numbers.shape != (N_FEATURES,):
        raise ImportRefused(
            f"its {scaler}.{name} has the shape {numbers.shape}, not one figure for each of {N_FEATURES} features"
        )
    return numbers


def _to_numbers(name: str, value: Any) -> np.ndarray:
    """float64 of a tensor, an array or a list of numbers."""
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.dtype not in _FLOATS or value.numel() > _MAX_FIGURES:
            raise ImportRefused(f"its {name} is not a short row of numbers")
        return value.detach().to(torch.float64).numpy().copy()
    figures = value.values if isinstance(value, _Array) else value
    if isinstance(figures, list | tuple) and all(type(figure) in (int, float) for figure in figures):
        try:
            return np.array(figures, dtype=np.float64)
        except OverflowError:
            pass
    raise ImportRefused(f"its {name} is not a row of numbers")


def _read_temperature(outer: Any, inner: Any) -> float | None:
    """Of the dict around the state dict, or of the parameter in it. Raises ImportRefused if they differ."""
    temperatures = {_to_number(value) for value in (outer, inner) if value is not None}
    if len(temperatures) > 1:
        raise ImportRefused(
            f"it names two temperatures, {' and '.join(f'{value:g}' for value in sorted(temperatures))}"
        )
    return temperatures.pop() if temperatures else None


def _to_number(value: Any) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1 and value.dtype in _FLOATS:
        value = float(value.detach().reshape(()).item())
    if isinstance(value, _Array):
        value = value.values[0] if len(value.values) == 1 else None
    if type(value) not in (int, float):
        raise ImportRefused("its temperature is not a number")
    if not (0 < value < math.inf):
        raise ImportRefused(
            f"its temperature is {value}; logits can be divided by a finite number above 0 only"
        )
    return float(value)


class _Dtype:
    """Stands for numpy.dtype: a name and a byte order, with nothing to call."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name, self.order = str(name), "<"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.order = ">"

    @property
    def plain(self) -> np.dtype[Any]:
        if self.name not in ("b1", "f2", "f4", "f8", "i4", "i8") and not _TEXT_DTYPE.fullmatch(self.name):
            raise ImportRefused(f"it holds an array of {self.name[:20]!r}, not of numbers or names")
        return np.dtype(self.order + self.name)


class _Array:
    """Stands for numpy.ndarray: its bytes as numbers, or a list of plain values."""

    def __init__(self, *_: Any) -> None:
        self.values: list[Any] = []

    def __setstate__(self, state: Any) -> None:
        try:
            _, _, dtype, _, content = state
        except (TypeError, ValueError):
            raise ImportRefused("it holds an array that NumPy did not write") from None
        is_bytes = isinstance(content, bytes) and isinstance(dtype, _Dtype)
        self.values = np.frombuffer(content, dtype.plain).tolist() if is_bytes else list(content)


class _StandardScaler:
    """Stands for scikit-learn's scaler: its fitted figures without its code."""


def _create_scalar(dtype: Any, content: Any) -> Any:
    array = _Array()
    array.__setstate__((1, (1,), dtype, False, content))
    return array


_STAND_INS: tuple[tuple[Callable[..., Any], str], ...] = (
    (_Array, "numpy._core.multiarray._reconstruct"),
    (_Array, "numpy.core.multiarray._reconstruct"),
    (_create_scalar, "numpy._core.multiarray.scalar"),
    (_create_scalar, "numpy.core.multiarray.scalar"),
    (_Array, "numpy.ndarray"),
    (_Dtype, "numpy.dtype"),
    (_StandardScaler, "sklearn.preprocessing._data.StandardScaler"),
)
