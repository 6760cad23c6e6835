"""The terms of a model: what it predicts, how its rows are split, and the bars that are left out at the beginning.

A model and all that it is compared with share them. They are declared in its manifest.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from mlcore.features.indicators import WARM_UP_BARS, find_schema
from mlcore.features.labels import DEFAULT_LABEL, Label
from mlcore.features.splits import DEFAULT_SHARES, Shares


@dataclass(frozen=True)
class Terms:
    label: Label = DEFAULT_LABEL
    shares: Shares = DEFAULT_SHARES
    warm_up: int = WARM_UP_BARS

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Self:
        """From a manifest, or from what `describe` gave. Raises KeyError, TypeError, ValueError."""
        if not isinstance(document, Mapping):
            raise TypeError("the terms are no object")
        schema = find_schema(str(document["schema"]["name"])) if "schema" in document else None
        warm_up = schema.warm_up if schema else int(document.get("warm_up", WARM_UP_BARS))
        return cls(Label.parse(document["labels"]), Shares(**(document.get("split") or {})), warm_up)

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return {"labels": self.label.describe(), "split": asdict(self.shares), "warm_up": self.warm_up}


DEFAULT_TERMS = Terms()
