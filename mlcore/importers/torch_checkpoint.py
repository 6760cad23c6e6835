"""Reads a torch checkpoint by torch's weights-only unpickler. `foreign_archive` has shown its archive to be a plain one.

Whatever of NumPy or scikit-learn stands in the pickle is rebuilt by the inert stand-ins below: none of their code runs.
"""

import io
import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mlcore.bundle import onnx_export
from mlcore.errors import ImportRefused
from mlcore.features.scaler import Scaler

_STATE = ("model_state_dict", "state_dict", "model")
_SCALERS = ("scaler_params", "scaler")
_COUNTERS = "num_batches_tracked"
_USED = {*_STATE, *_SCALERS, "feature_columns", "temperature"}
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_MAX_FIGURES = 1024
"""Of a row; there are 72 features."""


@dataclass(frozen=True)
class TorchCheckpoint:
    """What the file says; None where it says nothing."""

    weights: dict[str, np.ndarray]
    """float32, every tensor of the network in its shape; no counters."""
    columns: tuple[str, ...] | None
    scaler: Scaler | None
    temperature: float | None
    ignored: tuple[str, ...]
    """Names beside these, which a prediction does not need."""


def read_checkpoint(data: bytes) -> TorchCheckpoint:
    """Raises ImportRefused."""
    held = _loaded(data)
    if not isinstance(held, Mapping):
        raise ImportRefused(f"it holds a {type(held).__name__}, not a state dict or a dict with one")
    outer, state = _state_of(held)
    inside, state = _temperature_apart(state)
    return TorchCheckpoint(
        weights=_weights(state),
        columns=_columns(outer.get("feature_columns")),
        scaler=_scaler(outer),
        temperature=_temperature(outer.get("temperature"), inside),
        ignored=tuple(sorted(str(name) for name in outer if name not in _USED)),
    )


def _loaded(data: bytes) -> Any:
    try:
        with torch.serialization.safe_globals(list(_STAND_INS)):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (ImportRefused, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise ImportRefused(_why_not(str(error))) from error
    except Exception as error:  # a hostile file may raise anything in there; none of it is ours to tell apart
        said = f"{type(error).__name__}: {_short(error)}"
        raise ImportRefused(f"it cannot be read as a checkpoint ({said})") from error


def _why_not(said: str) -> str:
    """torch's message asks to allow what it names; that is what must not be done here."""
    _, found, rest = said.partition("GLOBAL ")
    name = rest.split()[0][:80] if found and rest.split() else ""
    if not name:
        return f"it holds something else than tensors and plain values ({_short(said)})"
    return f"it holds {name}, which would have to be run to be read; only tensors and plain values are taken"


def _short(error: object) -> str:
    return " ".join(str(error).split())[:200]


def _state_of(held: Mapping[Any, Any]) -> tuple[Mapping[Any, Any], Mapping[Any, Any]]:
    """What stands around the state dict, and the state dict."""
    named = [name for name in _STATE if isinstance(held.get(name), Mapping)]
    if len(named) > 1:
        raise ImportRefused(f"it holds several state dicts ({', '.join(named)}); keep the one that is meant")
    return (held, held[named[0]]) if named else ({}, held)


def _temperature_apart(state: Mapping[Any, Any]) -> tuple[Any, dict[str, Any]]:
    """Names without what DataParallel puts before them, and the temperature where it is a parameter."""
    names = [name for name in state if isinstance(name, str)]
    if len(names) < len(state):
        raise ImportRefused("its state dict has names that are not text")
    prefix = "module." if names and all(name.startswith("module.") for name in names) else ""
    plain = {name.removeprefix(prefix): value for name, value in state.items()}
    return plain.pop("temperature", None), plain


def _weights(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    expected = onnx_export.list_tensor_shapes(())
    tensors = {name: value for name, value in state.items() if not name.endswith(_COUNTERS)}
    if missing := [name for name in expected if name not in tensors]:
        raise ImportRefused(
            f"its state dict lacks {', '.join(missing[:4])}: the network is 72-256-128-64-3, named fc1…fc4 and bn1…bn3"
        )
    if extra := sorted(set(tensors) - set(expected)):
        raise ImportRefused(f"its state dict holds what the network does not have: {', '.join(extra)[:200]}")
    return {name: _array(name, tensors[name], shape) for name, shape in expected.items()}


def _array(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Looked at before it is touched: a tensor may claim any shape over a few bytes."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.dtype not in _FLOATS:
        kind = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
        raise ImportRefused(f"{name} is no tensor of floating-point numbers but {kind}")
    if tuple(value.shape) != shape:
        raise ImportRefused(f"{name} has the shape {tuple(value.shape)}; the network's is {shape}")
    if value.device.type != "cpu":
        raise ImportRefused(f"{name} has no numbers in the file (it is on {value.device})")
    return np.ascontiguousarray(value.detach().to(torch.float32).numpy())


def _columns(found: Any) -> tuple[str, ...] | None:
    if found is None:
        return None
    names = found.tolist() if isinstance(found, _Array) else found
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ImportRefused("its feature_columns are not a list of names")
    return tuple(names)


def _scaler(outer: Mapping[Any, Any]) -> Scaler | None:
    named = [name for name in _SCALERS if outer.get(name) is not None]
    if not named:
        return None
    if len(named) > 1:
        raise ImportRefused(f"it holds two scalers ({' and '.join(named)}); keep the one that is meant")
    figures = outer[named[0]]
    figures = figures.__dict__ if isinstance(figures, _StandardScaler) else figures
    if not isinstance(figures, Mapping):
        raise ImportRefused(f"its {named[0]} is a {type(figures).__name__}, not {{mean, scale}}")
    return Scaler(*(_figures(named[0], figures, name) for name in ("mean", "scale")))


def _figures(where: str, held: Mapping[Any, Any], name: str) -> np.ndarray:
    found = held.get(name, held.get(f"{name}_"))
    if found is None:
        raise ImportRefused(
            f"its {where} has no {name}; it has {', '.join(sorted(map(str, held)))[:200] or 'nothing'}"
        )
    numbers = _numbers(f"{where}.{name}", found)
    if numbers.shape != (72,):
        raise ImportRefused(
            f"its {where}.{name} has the shape {numbers.shape}, not one figure for each of 72 features"
        )
    return numbers


def _numbers(name: str, found: Any) -> np.ndarray:
    """float64 of a tensor, an array or a list of numbers."""
    if isinstance(found, torch.Tensor):
        if found.layout != torch.strided or found.dtype not in _FLOATS or found.numel() > _MAX_FIGURES:
            raise ImportRefused(f"its {name} is not a short row of numbers")
        return found.detach().to(torch.float64).numpy().copy()
    figures = found.tolist() if isinstance(found, _Array) else found
    if isinstance(figures, list | tuple) and all(type(figure) in (int, float) for figure in figures):
        try:
            return np.array(figures, dtype=np.float64)
        except OverflowError:
            pass
    raise ImportRefused(f"its {name} is not a row of numbers")


def _temperature(beside: Any, inside: Any) -> float | None:
    """That of the dict around the state dict, or of the parameter within. Raises where both say something else."""
    found = {_one_number(value) for value in (beside, inside) if value is not None}
    if len(found) > 1:
        raise ImportRefused(
            f"it names two temperatures, {' and '.join(f'{value:g}' for value in sorted(found))}"
        )
    return found.pop() if found else None


def _one_number(value: Any) -> float:
    if isinstance(value, torch.Tensor) and value.numel() == 1 and value.dtype in _FLOATS:
        value = float(value.detach().reshape(()).item())
    if isinstance(value, _Array):
        value = next(iter(value.tolist()), None) if len(value.tolist()) == 1 else None
    if type(value) not in (int, float):
        raise ImportRefused("its temperature is not a number")
    if not (0 < value < math.inf):
        raise ImportRefused(
            f"its temperature is {value}; logits can be divided by a finite number above 0 only"
        )
    return float(value)


class _Dtype:
    """Stands for numpy.dtype: a name and a byte order, and nothing that could be called."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.name, self.order = str(name), "<"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.order = ">"

    @property
    def plain(self) -> np.dtype[Any]:
        if self.name not in ("f2", "f4", "f8", "i4", "i8"):
            raise ImportRefused(f"it holds an array of {self.name[:20]!r}, not of numbers")
        return np.dtype(self.order + self.name)


class _Array:
    """Stands for numpy.ndarray: its bytes as numbers, or a list of plain values."""

    def __init__(self, *_: Any) -> None:
        self._values: list[Any] = []

    def __setstate__(self, state: Any) -> None:
        try:
            _, _, dtype, _, content = state
        except (TypeError, ValueError):
            raise ImportRefused("it holds an array that NumPy did not write") from None
        is_bytes = isinstance(content, bytes) and isinstance(dtype, _Dtype)
        self._values = np.frombuffer(content, dtype.plain).tolist() if is_bytes else list(content)

    def tolist(self) -> list[Any]:
        return self._values


class _StandardScaler:
    """Stands for scikit-learn's scaler: its fitted figures, and none of its code."""


def _array_of(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, content: Any) -> Any:
    array = _Array()
    array.__setstate__((1, (1,), dtype, False, content))
    return array


_STAND_INS: tuple[tuple[Callable[..., Any], str], ...] = (
    (_array_of, "numpy._core.multiarray._reconstruct"),
    (_array_of, "numpy.core.multiarray._reconstruct"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_Array, "numpy.ndarray"),
    (_Dtype, "numpy.dtype"),
    (_StandardScaler, "sklearn.preprocessing._data.StandardScaler"),
)
