"""The form of a study. The services check what it means."""

from typing import Any

from django import forms

from mlcore.errors import InvalidParameter
from mlcore.fitting.settings import Parameter, Word
from mlcore.verdict import Verdict
from studies.rules import MAX_PARALLEL, MAX_TRIALS, MIN_TRIALS, Objective, Sampler
from studies.search_space import JUDGED_BY, parse_range
from studies.services import launch
from training.forms import SettingsForm
from training.models import Dataset, Line
from training.rules import MAX_SEED
from training.services.lines import show_recipe

RANGE = "range_"
MAX_DATASETS_SHOWN = 50
OBJECTIVES = {Objective.LOSS: "loss, lower is better", Objective.ACCURACY: "accuracy, higher is better"}
SAMPLERS = {Sampler.TPE: "TPE: learns from earlier trials", Sampler.RANDOM: "random"}
SUGGESTED = {"learning_rate": "log 1e-4 1e-2", "batch_size": "choice 32 64 128 256"}


def list_searched_lines() -> list[tuple[str, str]]:
    """The lines that have a recipe with settings."""
    return [(line.name, line.name) for line in Line.objects.exclude(recipe="")]


class StudyForm(SettingsForm):
    """A study: dataset, line, a range for some settings and fixed values for others, objective, limits."""

    line = forms.ChoiceField(choices=list_searched_lines)
    dataset = forms.ModelChoiceField(queryset=Dataset.objects.none(), empty_label=None)
    objective = forms.ChoiceField(
        choices=[(o.value, text) for o, text in OBJECTIVES.items()],
        help_text="Of the best epoch, on the stop window. The gate window is never touched.",
    )
    sampler = forms.ChoiceField(choices=[(s.value, text) for s, text in SAMPLERS.items()])
    prunes = forms.BooleanField(
        required=False,
        initial=True,
        label="Prune",
        help_text="Stop a trial early that is worse than the median of the others.",
    )
    max_trials = forms.IntegerField(
        min_value=MIN_TRIALS,
        max_value=MAX_TRIALS,
        initial=launch.DEFAULT_TRIALS,
        label="Trials at most",
        help_text="Each is a training run, and may take this part of the time limit.",
    )
    parallel = forms.IntegerField(
        min_value=1, max_value=MAX_PARALLEL, initial=launch.DEFAULT_PARALLEL, label="At a time"
    )
    time_limit_seconds = forms.IntegerField(
        min_value=MIN_TRIALS, label="Time limit (s)", help_text="Machine time of all trials together."
    )
    spending_limit_usd = forms.DecimalField(
        max_digits=8,
        decimal_places=2,
        label="Spending limit (US $)",
        help_text="Cost of all trials together.",
    )
    seed = forms.IntegerField(min_value=0, max_value=MAX_SEED, initial=launch.DEFAULT_SEED)

    def __init__(self, line: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.setdefault("line", line)
        seconds, usd = launch.get_limits()
        self.fields["time_limit_seconds"].initial, self.fields["spending_limit_usd"].initial = seconds, usd
        rows = Dataset.objects.not_withdrawn().filter(verdict=Verdict.PASSED).defer("check_results")
        newest = list(rows.values_list("pk", flat=True)[:MAX_DATASETS_SHOWN])
        datasets: Any = self.fields["dataset"]
        datasets.queryset = rows.filter(pk__in=newest).select_related("coin")
        self.add_settings(show_recipe(line, {}))
        for name, setting in self.recipe.settings.items() if self.recipe else ():
            if name not in JUDGED_BY:
                self.fields[RANGE + name] = forms.CharField(
                    required=False,
                    max_length=200,
                    label=f"Range of {name.replace('_', ' ')}",
                    initial=SUGGESTED.get(name, ""),
                    help_text=_describe_range(setting),
                )

    @property
    def range_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name.startswith(RANGE)]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        cleaned["ranges"] = {}
        for name in [name for name in self.fields if name.startswith(RANGE) and cleaned.get(name)]:
            try:
                cleaned["ranges"][name.removeprefix(RANGE)] = parse_range(cleaned[name])
            except InvalidParameter as refused:
                self.add_error(name, str(refused))
        return cleaned

    @property
    def fixed(self) -> dict[str, float | str]:
        """What differs from the recipe in every trial: settings without a range."""
        return {n: v for n, v in self.parameters.items() if n not in self.cleaned_data["ranges"]}


def _describe_range(setting: object) -> str:
    if isinstance(setting, Word):
        return f"choice {' '.join(setting.words)}"
    if isinstance(setting, Parameter):
        kind = "int or log" if setting.is_whole else "float or log"
        return f"{kind}, from {setting.least:g} to {setting.greatest:g}; or choice"
    return "choice 32-16-8 64-32-16"
