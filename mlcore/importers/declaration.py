"""What a person declares about a model that was trained elsewhere, as JSON. Its gates recompute all of it.

    {
      "dataset": "sha256:…",
      "labels": {"kind": "terciles", "horizon": 8, "cut": null, "cuts": [-0.43, 0.44]},
      "split": {"fit_percent": 70, "stop_percent": 15},
      "windows": {"fit": {"first_at": "…Z", "last_at": "…Z", "rows": 7000, "digest": "sha256:…"}, "stop": …, "gate": …},
      "stop": {"loss": 0.98, "accuracy": 0.52, "rows": 1500},
      "scaler": "none",
      "run": {"tracker": "MLflow", "id": "…", "name": "…", "parameters": {"trees": "60"}, "metrics": {"loss": 0.98}}
    }

`loss` is the mean negative natural logarithm of the probability of the true class. `scaler` is left out, unless the model
needs none. `run` is what a tracker recorded of the training; it is kept for people, and nothing recomputes it.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from mlcore.bundle.format import NO_SCALER
from mlcore.errors import ImportRefused
from mlcore.features.labels import Label
from mlcore.features.splits import WINDOWS, Shares

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_REQUIRED: Mapping[str, Any] = {
    "dataset": None,
    "labels": {"kind": None, "horizon": None, "cut": None, "cuts": None},
    "split": {"fit_percent": None, "stop_percent": None},
    "windows": {name: dict.fromkeys(("first_at", "last_at", "rows", "digest")) for name in WINDOWS},
    "stop": {"loss": None, "accuracy": None, "rows": None},
}
_OPTIONAL = {"scaler", "run"}
_RUN_TEXTS, _RUN_VALUES = ("tracker", "id", "name"), ("parameters", "metrics")
_MAX_RUN_ENTRIES, _MAX_RUN_TEXT = 200, 500


@dataclass(frozen=True)
class Declaration:
    dataset: str
    label: Label
    cuts: tuple[float, float]
    shares: Shares
    windows: Mapping[str, Mapping[str, Any]]
    stop: Mapping[str, Any]
    needs_scaler: bool
    run: Mapping[str, Any] | None
    """What a tracker recorded."""

    @classmethod
    def parse(cls, document: Any) -> Self:
        """Raises ImportRefused, which names every entry that is missing, unknown or of another type."""
        if not isinstance(document, Mapping):
            raise ImportRefused("the declaration is no JSON object")
        if missing := sorted(_list_missing(_REQUIRED, document)):
            raise ImportRefused(f"the declaration lacks {', '.join(missing)}")
        if unknown := sorted(_list_unknown(_REQUIRED, document)):
            raise ImportRefused(f"the declaration has no entry {', '.join(unknown)[:200]}")
        if faults := list(_list_faults(document)):
            raise ImportRefused(f"the declaration is not valid: {'; '.join(faults)}")
        lower, upper = document["labels"]["cuts"]
        try:
            label, shares = Label.parse(document["labels"]), Shares(**document["split"])
        except (TypeError, ValueError) as error:
            raise ImportRefused(f"the declaration is not valid: {error}") from error
        return cls(
            dataset=document["dataset"],
            label=label,
            cuts=(float(lower), float(upper)),
            shares=shares,
            windows=document["windows"],
            stop=document["stop"],
            needs_scaler=document.get("scaler") != NO_SCALER,
            run=document.get("run"),
        )

    def describe(self) -> dict[str, Any]:
        """The fields of a manifest that only a declaration gives; a model without epochs has epoch 0."""
        return {
            "dataset": self.dataset,
            "windows": {name: dict(window) for name, window in self.windows.items()},
            "training": {"validation": {**self.stop, "epoch": 0}},
            **({} if self.needs_scaler else {"scaler": NO_SCALER}),
            **({} if self.run is None else {"run": dict(self.run)}),
        }


def _list_missing(required: Mapping[str, Any], given: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, inner in required.items():
        if name not in given:
            yield f"{path}{name}"
        elif inner is not None:
            value = given[name]
            if isinstance(value, Mapping):
                yield from _list_missing(inner, value, f"{path}{name}.")
            else:
                yield from (f"{path}{name}.{entry}" for entry in inner)


def _list_unknown(known: Mapping[str, Any], given: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in given.items():
        if name not in known:
            if path or name not in _OPTIONAL:
                yield f"{path}{str(name)[:40]}"
        elif known[name] is not None:
            yield from _list_unknown(known[name], value, f"{path}{name}.")


def _list_faults(document: Mapping[str, Any]) -> Iterator[str]:
    """Everything that has another type or form than it must."""
    if not _matches(_DIGEST, document["dataset"]):
        yield "dataset is no digest sha256:…"
    cuts = document["labels"]["cuts"]
    if (
        not isinstance(cuts, list)
        or len(cuts) != 2
        or not all(map(_is_number, cuts))
        or not cuts[0] < cuts[1]
    ):
        yield "labels.cuts are not two numbers, the lower first"
    for name in WINDOWS:
        window = document["windows"][name]
        if not all(_matches(_TIME, window[end]) for end in ("first_at", "last_at")):
            yield f"windows.{name} begins or ends at no time such as 2024-01-31T00:00:00Z"
        if not _is_count(window["rows"]):
            yield f"windows.{name}.rows must be a whole number above 0"
        if not _matches(_DIGEST, window["digest"]):
            yield f"windows.{name}.digest is no digest sha256:…"
    stop = document["stop"]
    if not _is_number(stop["loss"]) or stop["loss"] < 0:
        yield "stop.loss must be 0 or more"
    if not _is_number(stop["accuracy"]) or not 0 <= stop["accuracy"] <= 1:
        yield "stop.accuracy is no share from 0 to 1"
    if not _is_count(stop["rows"]):
        yield "stop.rows must be a whole number above 0"
    if document.get("scaler", NO_SCALER) != NO_SCALER:
        yield f'scaler is "{NO_SCALER}", or is left out'
    if "run" in document:
        yield from _list_run_faults(document["run"])


def _list_run_faults(run: object) -> Iterator[str]:
    """A record has bounds: every manifest is read often."""
    if not isinstance(run, Mapping) or set(run) != {*_RUN_TEXTS, *_RUN_VALUES}:
        yield f"run has the entries {', '.join((*_RUN_TEXTS, *_RUN_VALUES))}, and no others"
        return
    texts = [run[name] for name in _RUN_TEXTS]
    for name in _RUN_VALUES:
        values = run[name]
        if not isinstance(values, Mapping) or len(values) > _MAX_RUN_ENTRIES:
            yield f"run.{name} is no object of at most {_MAX_RUN_ENTRIES} entries"
            return
        texts += [*values, *(value for value in values.values() if not _is_number(value))]
    if not all(isinstance(text, str) and len(text) <= _MAX_RUN_TEXT for text in texts):
        yield f"run holds something else than numbers, and texts of at most {_MAX_RUN_TEXT} letters"


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_number(value: object) -> bool:
    """As a float can hold it: a whole number of JSON may have any length."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value < 2**31
