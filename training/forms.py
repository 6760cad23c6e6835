"""The forms for datasets, bundles and runs. The services check what they mean."""

from typing import Any, cast

from django import forms

from common.forms import ReasonForm
from mlcore.bundle.format import Layout
from mlcore.features.indicators import SCHEMAS, WINDOW, find_schema
from mlcore.fitting.recipes import Recipe
from mlcore.fitting.settings import Input, Parameter, Word
from mlcore.quality.result import format_interval
from training.models import Coin, TrainingRun
from training.rules import (
    DEFAULT_INTERVAL_SECONDS,
    INTERVAL_SECONDS,
    MAX_NOTES_CHARACTERS,
    MAX_SEED,
    JobState,
)
from training.services import annotations, lines
from training.services.run_filters import PURPOSES

INPUTS = [(name, name) for name in (*SCHEMAS, *(f"{WINDOW}{2**power}" for power in range(4, 12)))]
"""What a form offers; any other number of bars can be written in the API and in commands."""

RUN_ORDERINGS = {
    "loss": "loss, lowest first",
    "-accuracy": "accuracy, highest first",
    "-finished_at": "last ended first",
    "id": "oldest first",
}


class InputField(forms.ChoiceField):
    """A model's input. Any that there is counts, and the one that is filled in is offered too.

    A browser sends the first choice where none is selected: a run would be launched again with another input.
    """

    def get_bound_field(self, form: forms.BaseForm, field_name: str) -> forms.BoundField:
        bound = super().get_bound_field(form, field_name)
        value = str(bound.value() or "")
        offered = cast(list[tuple[str, str]], self.choices)
        if find_schema(value) is not None and value not in dict(offered):
            self.choices = [*offered, (value, value)]
        return bound

    def valid_value(self, value: object) -> bool:
        return value == "" or find_schema(str(value)) is not None


class UploadForm(forms.Form):
    """One coin's candles in a file."""

    coin = forms.ModelChoiceField(Coin.objects.all(), to_field_name="symbol", empty_label=None)
    file = forms.FileField(
        label="Candles",
        help_text="CSV, JSON, Parquet or Arrow, also in gzip or zip, as exchanges and programs write it. Times are opening"
        " times.",
        error_messages={"required": "Choose a file with candles.", "empty": "This file is empty."},
    )
    closing_times = forms.BooleanField(
        required=False,
        label="The times are closing times",
        help_text="They are converted to opening times.",
    )
    repeated_once = forms.BooleanField(
        required=False,
        label="Take repeated candles once",
        help_text="A row that repeats its neighbour value for value is left out.",
    )


class ImportModelForm(forms.Form):
    """A model to import, with what its file does not contain."""

    coin = forms.ModelChoiceField(Coin.objects.all(), to_field_name="symbol", empty_label=None)
    line = forms.ChoiceField(choices=lambda: [(name, name) for name in lines.list_importable_names()])
    schema = InputField(
        label="Feature schema",
        choices=[("", "Choose"), *INPUTS],
        help_text="What the model takes. The file cannot tell: both schemas of 72 features have the same names.",
    )
    layout = forms.ChoiceField(
        required=False,
        choices=[("", "Not given"), *((layout.value, layout.value) for layout in Layout)],
        help_text="Needed for a .pt file, which holds weights only. An ONNX file contains its layout.",
    )
    interval_seconds = forms.TypedChoiceField(
        label="Bar interval",
        choices=[(seconds, format_interval(seconds)) for seconds in INTERVAL_SECONDS],
        coerce=int,
        initial=DEFAULT_INTERVAL_SECONDS,
        help_text="Of the bars that it was trained on: it answers for no others.",
    )
    file = forms.FileField(
        label="Model file",
        help_text="A .pt file written by torch.save, or an ONNX file.",
        error_messages={"required": "Choose a model file.", "empty": "This file is empty."},
    )
    declaration = forms.FileField(
        required=False,
        help_text="A JSON file that says what it was trained on and with which figures. Without it, four required gates"
        " cannot pass.",
        error_messages={"empty": "This file is empty."},
    )
    simulated = forms.BooleanField(
        required=False,
        label="Trained on a simulated market",
        help_text="It is then marked as simulated and cannot go live in production.",
    )


class AgainForm(forms.Form):
    """The changes with which an ended run is launched again. Empty fields stay as they were."""

    seed = forms.IntegerField(required=False, min_value=0, max_value=MAX_SEED)

    def __init__(self, run: TrainingRun, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["seed"].initial = run.seed
        if (recipe := lines.show_recipe(run.line, {})) is not None:
            for name in recipe.settings:
                self.fields[name] = setting_field(recipe, name, initial=run.parameters.get(name))

    @property
    def changes(self) -> dict[str, Any]:
        """What differs from the run before."""
        filled = {name: self.cleaned_data.get(name) for name in self.fields}
        return {n: v for n, v in filled.items() if v not in (None, "") and v != self.fields[n].initial}


class AnnotationForm(forms.Form):
    """A run's tags and notes, as they shall be."""

    tags = forms.CharField(
        required=False,
        max_length=500,
        help_text="Separated by blanks: small letters, digits, dots, dashes and underscores.",
    )
    notes = forms.CharField(
        required=False, max_length=MAX_NOTES_CHARACTERS, widget=forms.Textarea(attrs={"rows": 3})
    )

    @staticmethod
    def read(run: TrainingRun) -> dict[str, str]:
        """What the form shows of a run."""
        return {"tags": " ".join(tag.name for tag in run.tags.all()), "notes": run.notes}

    def clean_tags(self) -> list[str]:
        return annotations.split_tags(self.cleaned_data["tags"])


class RunListForm(forms.Form):
    """What the list of runs is narrowed to and sorted by. Empty fields narrow nothing."""

    search = forms.CharField(required=False, max_length=100, label="Search")
    coin = forms.ModelChoiceField(
        Coin.objects.all(), to_field_name="symbol", required=False, empty_label="all coins"
    )
    line = forms.ChoiceField(
        required=False, choices=lambda: [("", "all lines"), *((name, name) for name in lines.list_names())]
    )
    tag = forms.CharField(required=False, max_length=32)
    purpose = forms.ChoiceField(
        required=False,
        label="Launched for",
        choices=[("", "anything"), *((name, name) for name in PURPOSES)],
    )
    ordering = forms.ChoiceField(
        required=False, label="Sort by", choices=[("", "newest first"), *RUN_ORDERINGS.items()]
    )
    study = forms.IntegerField(required=False, min_value=1, max_value=2**31, widget=forms.HiddenInput)
    state = forms.ChoiceField(
        required=False,
        choices=[("", ""), *((state.value, state.value) for state in JobState)],
        widget=forms.HiddenInput,
    )

    @property
    def filters(self) -> dict[str, str]:
        """What is asked for and known, as the API's list takes it."""
        return {name: str(value) for name, value in self.cleaned_data.items() if value}

    @property
    def is_narrowed(self) -> bool:
        return bool(self.filters.keys() - {"ordering", "state"})


class SettingsForm(forms.Form):
    """A form with a field for each setting of a recipe, in two groups."""

    recipe: Recipe | None = None

    def add_settings(self, recipe: Recipe | None) -> None:
        self.recipe = recipe
        for name in recipe.settings if recipe else ():
            assert recipe is not None
            self.fields[name] = setting_field(recipe, name)

    @property
    def parameter_fields(self) -> list[forms.BoundField]:
        """How it is trained."""
        return [self[name] for name in self.recipe.adjustable] if self.recipe else []

    @property
    def contract_fields(self) -> list[forms.BoundField]:
        """What it sees, predicts and is judged on."""
        return [self[name] for name in self.recipe.contract] if self.recipe else []

    @property
    def has_changed_contract(self) -> bool:
        """Whether the filled-in form changes one of these, so that the page shows them."""
        recipe = self.recipe
        return (
            recipe is not None
            and self.is_bound
            and any(
                self.data.get(name) not in (None, "", str(recipe.get_default(name)))
                for name in recipe.contract
            )
        )

    @property
    def parameters(self) -> dict[str, float | str]:
        """What differs from the recipe; a field left empty, or at its default, does not."""
        if self.recipe is None:
            return {}
        default = self.recipe.get_default
        filled = {name: self.cleaned_data.get(name) for name in self.recipe.settings}
        return {n: v for n, v in filled.items() if v not in (None, "") and v != default(n)}


class LineForm(SettingsForm, ReasonForm):
    """A line to create: a name, a recipe, and the settings that its launches start from."""

    name = forms.CharField(
        max_length=32, help_text="Small letters, digits and underscores, such as trees_1h. It never changes."
    )
    description = forms.CharField(max_length=200, required=False, help_text="Shown beside the name.")
    recipe_name = forms.ChoiceField(
        label="Recipe",
        required=False,
        choices=lambda: [
            *((name, name) for name in lines.list_recipe_names()),
            ("", "None: for imported models only"),
        ],
        help_text="What trains its models.",
    )
    field_order = ("name", "description", "recipe_name")

    def __init__(self, recipe_name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.setdefault("recipe_name", recipe_name)
        found = lines.look_up_recipe(recipe_name) if recipe_name else None
        self.problem = found.problem if found else ""
        self.add_settings(found.recipe if found else None)


def setting_field(recipe: Recipe, name: str, *, initial: object = None) -> forms.Field:
    """A field for one setting of a recipe, with its bounds and what it means; empty, the recipe's default holds."""
    setting, default = recipe.settings[name], recipe.get_default(name)
    shown: dict[str, Any] = {
        "label": name.replace("_", " ").capitalize(),
        "required": False,
        "initial": default if initial is None else initial,
    }
    about = setting.meaning.capitalize()
    if isinstance(setting, Word):
        return forms.ChoiceField(choices=[(w, w) for w in setting.words], help_text=f"{about}.", **shown)
    if isinstance(setting, Input):
        return InputField(choices=INPUTS, help_text=f"{about}.", **shown)
    if not isinstance(setting, Parameter):
        return forms.CharField(help_text=f"{about}. Default: {default}.", max_length=20, **shown)
    kind: type[Any] = forms.IntegerField if setting.is_whole else forms.FloatField
    usual = "none" if default is None else f"{default:g}"
    field: forms.Field = kind(
        min_value=setting.least,
        max_value=setting.greatest,
        widget=forms.NumberInput(attrs={"step": 1 if setting.is_whole else "any"}),
        help_text=f"{about}. {setting.least:,g} – {setting.greatest:,g}. Default: {usual}.",
        **shown,
    )
    return field
