"""What a person may fill in about releases. Bounds come from the recipes; what they mean is checked by the services."""

from typing import Any

from django import forms
from django.forms.models import ModelChoiceIterator

from common.forms import ReasonForm
from deploy.outcomes import list_required_coins
from deploy.pointer import pointer
from deploy.releases.launch import choose_default_datasets
from deploy.rules import Purpose
from mlcore.quality.result import format_interval
from mlcore.verdict import Verdict
from training.forms import SettingsForm
from training.models import Coin, Dataset, Line
from training.rules import MAX_SEED
from training.services.lines import show_recipe

PURPOSES = {
    Purpose.CANDIDATE: "Candidate: goes live after approval",
    Purpose.FALLBACK: "Fallback: can be registered",
}
DATASET = "dataset_"
MAX_DATASETS_SHOWN = 50
"""Of each coin in the form. A desk that imports candles every day has thousands."""


def list_launched_lines() -> list[tuple[str, str]]:
    """The lines that models are trained for, each with what it is."""
    return [
        (line.name, f"{line.name}, {line.description}" if line.description else line.name)
        for line in Line.objects.exclude(recipe="")
    ]


class DecisionForm(ReasonForm):
    """A decision about a release; an approval carries the revision that its page showed."""

    revision = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def clean_revision(self) -> int:
        """0, which no pointer ever stands at, when the form says nothing."""
        return self.cleaned_data["revision"] or 0


class RetirementForm(ReasonForm):
    """An approval of a key's retirement; it carries how many bots its page said would be cut off."""

    cut_off = forms.IntegerField(min_value=0, widget=forms.HiddenInput)


class CoinForm(ReasonForm):
    """A coin to add. It is not required until an approver says so."""

    symbol = forms.CharField(max_length=12, help_text="Letters and digits, such as BTC.")
    name = forms.CharField(max_length=60, required=False)
    field_order = ("symbol", "name", "reason")


class _NewestRows(ModelChoiceIterator):  # type: ignore[type-arg]  # as below
    """The first MAX_DATASETS_SHOWN rows. Any other row is accepted too, as from the address of a page."""

    def __init__(self, field: "DatasetField") -> None:
        super().__init__(field)
        self.queryset = self.queryset[:MAX_DATASETS_SHOWN]


class DatasetField(forms.ModelChoiceField):  # type: ignore[type-arg]  # takes no arguments at run time
    """One coin's datasets, the newest first; one that did not pass its checks says so, and comes after all others."""

    iterator = _NewestRows

    def __init__(self, coin: Coin, default: Dataset | None) -> None:
        rows = Dataset.objects.filter(coin=coin).not_withdrawn().passed_first().defer("check_results")
        empty = "Newest that passed its checks" if default else "No dataset yet"
        super().__init__(rows, label=str(coin), required=False, empty_label=empty, initial=default)

    def label_from_instance(self, obj: Any) -> str:
        origin = "simulated" if obj.is_simulated else obj.origin
        refused = f", {obj.verdict}" if obj.verdict not in ("", Verdict.PASSED) else ""
        bars = f"{obj.rows:,} bars of {format_interval(obj.interval_seconds)}"
        return f"{obj.pk}: {obj.first_at:%b %Y} – {obj.last_at:%b %Y}, {bars}, {origin}{refused}"


class LaunchForm(SettingsForm):
    """A release of one line: a dataset for every required coin, and what of the recipe may be changed."""

    line = forms.ChoiceField(choices=list_launched_lines)
    purpose = forms.ChoiceField(
        choices=[(purpose.value, text) for purpose, text in PURPOSES.items()], label="Purpose"
    )
    seed = forms.IntegerField(
        min_value=0,
        max_value=MAX_SEED,
        initial=1,
        help_text="The same seed, dataset and device give the same weights.",
    )
    reproduce = forms.BooleanField(
        required=False,
        label="Train each model twice",
        help_text="A second worker trains it again, within the same limits. The gate reproduced compares the two.",
    )

    def __init__(self, line: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.line_name = line
        registered = pointer.get_fallback()
        self.initial.setdefault("line", line)
        self.initial.setdefault(
            "purpose", Purpose.FALLBACK if registered and registered.line == line else Purpose.CANDIDATE
        )
        coins = list_required_coins()
        fitting = choose_default_datasets(coins)
        for coin in coins:
            self.fields[DATASET + coin.symbol] = DatasetField(coin, fitting.get(coin))
        self.add_settings(show_recipe(line, {}))

    @property
    def dataset_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name.startswith(DATASET)]

    @property
    def datasets(self) -> dict[str, Dataset]:
        """The datasets that were named, by coin."""
        named = {name.removeprefix(DATASET): self.cleaned_data.get(name) for name in self.fields}
        return {coin: dataset for coin, dataset in named.items() if isinstance(dataset, Dataset)}
