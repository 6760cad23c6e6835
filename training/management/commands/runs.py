from typing import Any

from django.core.management.base import CommandParser

from accounts.commands import ActingCommand
from common.commands import serialize
from common.errors import InvalidInput
from training.api.runs import CompareRuns, Runs
from training.rules import JobState
from training.services import annotations, run_comparison, runs
from training.services.run_filters import PURPOSES, SORTED_COLUMNS, RunFilter

SHOWN = 50
_FILTERS = ("coin", "line", "state", "tag", "search", "purpose", "study", "ordering")


class Command(ActingCommand):
    help = "List runs, compare some of them, or write tags and notes about one."

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("do", choices=["list", "compare", "annotate"], nargs="?", default="list")
        parser.add_argument("runs", type=int, nargs="*", metavar="N", help="to compare or to write about")
        parser.add_argument("--coin")
        parser.add_argument("--line")
        parser.add_argument("--state", choices=[state.value for state in JobState])
        parser.add_argument("--search", help="a number, the beginning of a tag, or a part of the notes")
        parser.add_argument("--purpose", choices=PURPOSES)
        parser.add_argument("--study", type=int, metavar="N")
        orders = [sign + name for name in SORTED_COLUMNS for sign in ("", "-")]
        parser.add_argument("--ordering", choices=orders, help="by a figure of the best epoch, or a time")
        parser.add_argument("--tag", help="listed: with this tag; written: all tags, separated by commas")
        parser.add_argument("--notes")

    def answer(self, **options: Any) -> Any:
        if options["do"] == "compare":
            return serialize(CompareRuns.Output, run_comparison.compare(options["runs"]))
        if options["do"] == "annotate":
            return self._annotate(options)
        asked = {name: str(options[name]) for name in _FILTERS if options[name] is not None}
        return [serialize(Runs.Output, run) for run in RunFilter(asked, Runs.queryset).qs[:SHOWN]]

    def _annotate(self, options: dict[str, Any]) -> dict[str, Any]:
        if len(options["runs"]) != 1:
            raise InvalidInput("Say about which run: manage.py runs annotate N.", field="runs")
        run = runs.find_run(options["runs"][0])
        tags = None if options["tag"] is None else annotations.split_tags(options["tag"])
        annotations.annotate(run, tags=tags, notes=options["notes"], actor=self.actor(options))
        return serialize(Runs.Output, Runs.queryset.get(pk=run.pk))

    def format_answer(self, answer: Any) -> str:
        if isinstance(answer, list):
            return "\n".join(map(_format_run, answer)) or "There is no such run."
        if "differences" not in answer:
            return _format_run(answer)
        differences = [
            f"  {row['name']}: {', '.join(map(str, row['values']))}" for row in answer["differences"]
        ]
        compared = (
            "" if answer["is_of_one_stop_window"] else "Their figures are of different rows or labels.\n"
        )
        return compared + "\n".join([*map(_format_run, answer["runs"]), *differences])


def _format_run(run: dict[str, Any]) -> str:
    figures = [
        f"{name} {run[f'best_validation_{name}']:.4f}"
        for name in ("loss", "accuracy")
        if run[f"best_validation_{name}"] is not None
    ]
    about = [f"seed {run['seed']}", *figures, *(f"#{tag}" for tag in run["tags"]), run["notes"]]
    return f"run {run['id']}: {run['coin']} {run['line']}, {run['state']}; {', '.join(filter(None, about))}"
