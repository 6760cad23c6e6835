"""Sorting, filtering and searching runs, the same for page, API and command. Each sorting is by an index."""

from django.db.models import Q, QuerySet
from django_filters import rest_framework as filters

from common import api_fields
from training.models import RunTag, TrainingRun
from training.rules import JobState

SORTED_COLUMNS = {
    "id": "id",
    "loss": "best_validation_loss",
    "accuracy": "best_validation_accuracy",
    "finished_at": "finished_at",
    "started_at": "started_at",
}
PURPOSES = ("release", "study", "neither")


class RunOrdering(filters.OrderingFilter):
    """A total order. Sorted by a figure, runs without it are left out: they have no place in that order."""

    def __init__(self) -> None:
        super().__init__(
            fields=[(column, name) for name, column in SORTED_COLUMNS.items()],
            help_text="`loss` and `accuracy` are those of the best epoch on the stop window; runs without one are left out.",
        )

    def filter(self, qs: QuerySet[TrainingRun], value: list[str] | None) -> QuerySet[TrainingRun]:
        if not value:
            return qs
        columns = [self.get_ordering_value(name) for name in value]
        present = {f"{column.lstrip('-')}__isnull": False for column in columns if column.lstrip("-") != "id"}
        # In the direction of the last column: one index gives both.
        return qs.filter(**present).order_by(*columns, "-id" if columns[-1].startswith("-") else "id")


class RunFilter(filters.FilterSet):
    """What a list of runs is narrowed to."""

    coin = filters.CharFilter(field_name="coin__symbol", help_text="As in `BTC`.")
    line = filters.CharFilter()
    state = filters.ChoiceFilter(choices=[(s.value, s.value) for s in JobState])
    dataset = api_fields.IntegerFilter(field_name="dataset_id")
    launched_by = filters.CharFilter()
    seed = api_fields.IntegerFilter()
    tag = filters.CharFilter(method="filter_tag", help_text="A whole tag.")
    search = filters.CharFilter(
        method="filter_search",
        help_text="A run's number, the beginning of a tag, or a part of the notes.",
    )
    purpose = filters.ChoiceFilter(
        method="filter_purpose",
        choices=[(name, name) for name in PURPOSES],
        help_text="Runs of a release, trials of a study, or neither.",
    )
    study = api_fields.IntegerFilter(field_name="trial__study_id", help_text="Trials of this study.")
    ordering = RunOrdering()

    def filter_tag(self, rows: QuerySet[TrainingRun], name: str, value: str) -> QuerySet[TrainingRun]:
        return rows.filter(pk__in=RunTag.objects.filter(name=value).values("run"))

    def filter_search(self, rows: QuerySet[TrainingRun], name: str, value: str) -> QuerySet[TrainingRun]:
        return rows.filter(search(value))

    def filter_purpose(self, rows: QuerySet[TrainingRun], name: str, value: str) -> QuerySet[TrainingRun]:
        of_release = Q(release_coin__isnull=False) | Q(reproduces__isnull=False)  # only releases train twice
        of_study = Q(trial__isnull=False)
        wanted = {"release": of_release, "study": of_study, "neither": ~(of_release | of_study)}
        return rows.filter(wanted[value])


def search(text: str) -> Q:
    """A run's number, the beginning of one of its tags, or a part of its notes."""
    found = Q(pk__in=RunTag.objects.filter(name__startswith=text.lower()).values("run"))
    # The index runs_with_notes has few rows: nobody writes about most runs.
    found |= Q(pk__in=TrainingRun.objects.exclude(notes="").filter(notes__icontains=text).values("pk"))
    if text.isascii() and text.isdigit() and len(text) <= 18:
        found |= Q(pk=int(text))
    return found
