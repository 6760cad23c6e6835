"""What a person may fill in about datasets and runs. What it means is checked by the services."""

from typing import Any

from django import forms

from common.forms import ReasonForm
from mlcore.bundle.format import Layout
from mlcore.features.indicators import SCHEMAS
from mlcore.fitting.recipes import RECIPES
from training.models import Coin, TrainingRun
from training.services.runs import GREATEST_SEED


class UploadForm(forms.Form):
    """One coin's candles in a file."""

    coin = forms.ModelChoiceField(Coin.objects.all(), to_field_name="symbol", empty_label=None)
    file = forms.FileField(
        label="Candles",
        help_text="CSV, CSV.gz or Parquet with timestamp, open, high, low, close and volume; the timestamp is the bar's"
        " opening time in UTC.",
        error_messages={"required": "Choose a file with candles.", "empty": "This file is empty."},
    )


class CheckpointForm(forms.Form):
    """A trained coin from outside, and what its file does not say."""

    coin = forms.ModelChoiceField(Coin.objects.all(), to_field_name="symbol", empty_label=None)
    line = forms.ChoiceField(choices=[(line, line) for line in RECIPES])
    schema = forms.ChoiceField(
        label="Features",
        choices=[("", "Choose"), *((name, name) for name in SCHEMAS)],
        help_text="Which it takes, in whose order. Both schemas share their names, so that no file tells.",
    )
    layout = forms.ChoiceField(
        required=False,
        choices=[("", "None said"), *((layout.value, layout.value) for layout in Layout)],
        help_text="Asked for with a .pt, whose weights do not tell; an ONNX graph says it itself.",
    )
    file = forms.FileField(
        label="Checkpoint",
        help_text="A .pt that torch.save wrote, or an ONNX file.",
        error_messages={"required": "Choose a checkpoint.", "empty": "This file is empty."},
    )
    simulated = forms.BooleanField(
        required=False,
        label="Trained on a simulated market",
        help_text="Then it is marked so everywhere, and carries no money in production.",
    )


class CancelForm(ReasonForm):
    """Why a run is called off."""


class AgainForm(forms.Form):
    """What a run that failed is launched again with; what stays empty stays as it was."""

    seed = forms.IntegerField(required=False, min_value=0, max_value=GREATEST_SEED)

    def __init__(self, run: TrainingRun, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["seed"].initial = run.seed
        recipe = RECIPES.get(run.line)
        self._parameters = recipe.adjustable if recipe else {}
        for name, bounds in self._parameters.items():
            self.fields[name] = parameter_field(
                name, bounds, initial=run.parameters.get(name, bounds["default"])
            )

    @property
    def changes(self) -> dict[str, Any]:
        """What differs from the run before."""
        filled = {name: self.cleaned_data.get(name) for name in self.fields}
        return {n: v for n, v in filled.items() if v is not None and v != self.fields[n].initial}


def parameter_field(name: str, bounds: dict[str, Any], *, initial: float) -> forms.Field:
    """A field for one setting of a recipe, with its bounds and what it means."""
    kind = forms.IntegerField if bounds["is_whole"] else forms.FloatField
    return kind(
        label=name.replace("_", " ").capitalize(),
        required=False,
        min_value=bounds["least"],
        max_value=bounds["greatest"],
        initial=initial,
        widget=forms.NumberInput(attrs={"step": 1 if bounds["is_whole"] else "any"}),
        help_text=f"{bounds['meaning'].capitalize()}. {bounds['least']:,g} – {bounds['greatest']:,g}; the recipe says"
        f" {bounds['default']:g}.",
    )
